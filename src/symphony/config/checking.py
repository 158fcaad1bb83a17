"""The front matter's values checked against the settings, all faults in one pass.

Invariant: a fault in one section never hides those of another, and nothing raises for what a user
wrote: faults and warnings are collected with their lines and without secrets. The surroundings
(environment, directory, known trackers) come in as values. ``loading`` builds one check for each
version of the file.
"""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from symphony.errors import SettingFault
from symphony.model.issue import normalize_state

from .branches import base_fault, branch_fault, is_local_repository, repository_fault
from .budget import BudgetSettings, budget_faults, unpriced_fault
from .codex_model import model_of
from .files import IncludedFiles
from .front_matter import FrontMatter
from .policies import translate_codex_policies
from .profiles import ProfileReader
from .settings import (
    DEFAULT_WORKSPACE_DIRECTORY,
    LINEAR_ALIASES,
    SECTIONS,
    Settings,
    TrackerSettings,
    env_reference,
    section_keys,
    state_limits,
)

WEBHOOK_KINDS = ("github", "gitlab", "jira", "linear")
"""Trackers whose webhooks can be judged (``web.webhooks``)."""

SHORTEST_WEBHOOK_SECRET = 16
"""Characters below which a secret could be guessed over the network."""

_SECRET_WORDS = ("key", "token", "secret", "password", "provider")


class TrackerProfileLike(Protocol):
    """What configuration needs to know of an adapter (``trackers.base.TrackerProfile``)."""

    @property
    def default_active_states(self) -> tuple[str, ...] | None: ...

    @property
    def default_terminal_states(self) -> tuple[str, ...] | None: ...


class FrontMatterCheck:
    """One pass over the front matter that collects faults and warnings instead of stopping.

    Attributes:
        faults: What must be mended, in the order found.
        warnings: What is ignored or translated, a sentence each that names its key.
        unsound: Where the tracker's section has faults, the settings without what is wrong of it:
            good for nothing but to find the faults of its provider at the same time.
    """

    def __init__(
        self,
        front_matter: FrontMatter,
        directory: Path,
        environ: Mapping[str, str],
        profiles: Mapping[str, TrackerProfileLike],
        *,
        files: IncludedFiles | None = None,
    ) -> None:
        self.files = IncludedFiles() if files is None else files
        self.values = front_matter.values
        self.line_of = front_matter.line_of
        self.directory = directory
        self.environ = environ
        self.profiles = profiles
        self.faults: list[SettingFault] = []
        self.warnings: list[str] = []
        self.unsound: Settings | None = None
        self._repaired: BaseModel | None = None
        self._bad_kind: str | None = None
        self._from_tracker = False

    def settings(self) -> Settings | None:
        """Return the settings, invalid sections replaced by defaults; None without a tracker."""
        self._warn_unknown((), self.values, tuple(SECTIONS))
        sections: dict[str, BaseModel] = {}
        for name, model in SECTIONS.items():
            section = self._validated(name, model)
            if section is not None:
                sections[name] = section
        if "tracker" not in sections:
            if self._repaired is not None:
                self.unsound = Settings.model_validate({**sections, "tracker": self._repaired})
            return None
        settings = Settings.model_validate(sections)
        self._warn_of_states(settings.tracker)
        self._warn_of_profiles(settings)
        self._warn_of_shared_temp(settings)
        self._check_prices(settings)
        kind = settings.tracker.kind
        if settings.webhooks.secret is not None and kind not in WEBHOOK_KINDS:
            self.warnings.append(
                f"webhooks.secret is ignored: no webhooks of kind {kind!r} are taken"
            )
        return settings

    def add_tracker_faults(self, faults: Sequence[SettingFault]) -> None:
        """Add the adapter's faults, with their lines where it could not know them."""
        self._from_tracker = not self.faults and bool(faults)
        told = {fault.path for fault in self.faults}
        for fault in faults:
            if fault.path in told:
                continue
            line = fault.line if fault.line is not None else self._line(fault.path)
            self.faults.append(SettingFault(fault.path, fault.problem, fault.value, line))

    def category(self) -> str:
        """Return the category of all faults together; a narrow one where it fits them all."""
        if self._bad_kind is not None and len(self.faults) == 1:
            return self._bad_kind
        return "invalid_tracker_config" if self._from_tracker else "invalid_workflow_config"

    def _validated(self, name: str, model: type[BaseModel]) -> BaseModel | None:
        raw = self.values.get(name, {})
        if not isinstance(raw, Mapping):
            self._fault(name, "must be a map of settings", raw)
            raw = {}
            if name == "tracker":
                return None
        known = section_keys(name)
        if model is BudgetSettings:
            # A limit that is misspelt would be no limit: its unknown keys are faults.
            known = tuple(raw)
        self._warn_unknown((name,), raw, known)
        values = {key: value for key, value in raw.items() if key in known}
        prepare = {
            "tracker": self._tracker,
            "workspace": self._workspace,
            "agent": self._agent,
            "codex": self._codex,
            "webhooks": self._webhooks,
        }.get(name)
        before = len(self.faults)
        prepared = prepare(values) if prepare is not None else values
        try:
            section = model.model_validate(prepared)
        except ValidationError as error:
            if model is BudgetSettings:
                for path, problem, value in budget_faults(error):
                    self._fault_at((name, *path), problem, value)
                return None
            for detail in error.errors(include_url=False):
                self._add_detail(name, detail)
            if name == "tracker":
                self._repair_tracker(prepared, [detail["loc"] for detail in error.errors()])
            return None
        if len(self.faults) == before:
            return section
        if name == "tracker" and self._bad_kind is None:
            self._repaired = section
        return None

    def _repair_tracker(
        self, values: Mapping[str, Any], faulty: Iterable[tuple[int | str, ...]]
    ) -> None:
        """Keep what is sound of the tracker's section, so that its adapter can tell of the rest."""
        dropped = {place[0] for place in faulty if place}
        sound = {key: value for key, value in values.items() if key not in dropped}
        if "kind" in sound and self._bad_kind is None:
            with contextlib.suppress(ValidationError):
                self._repaired = SECTIONS["tracker"].model_validate(sound)

    def _tracker(self, values: Mapping[str, Any]) -> dict[str, Any]:
        result = {key: value for key, value in values.items() if key not in LINEAR_ALIASES}
        kind = result.get("kind")
        if isinstance(kind, str):
            kind = result["kind"] = kind.strip()
        self._fold_aliases(values, result, kind)
        profile = self._profile(kind)
        if profile is not None:
            self._default_states(result, "active_states", profile.default_active_states)
            self._default_states(result, "terminal_states", profile.default_terminal_states)
        return result

    def _fold_aliases(
        self, values: Mapping[str, Any], result: dict[str, Any], kind: object
    ) -> None:
        aliases = {key: values[key] for key in LINEAR_ALIASES if key in values}
        for key, value in aliases.items():
            if kind != "linear":
                self.warnings.append(
                    f"tracker.{key} is ignored: it belongs to kind 'linear'; settings of other "
                    "trackers go into tracker.provider"
                )
            elif not isinstance(value, str):
                self._fault(f"tracker.{key}", "must be a string (put it in quotes)", value)
        provider = result.get("provider", {})
        if kind == "linear" and isinstance(provider, Mapping):
            result["provider"] = {**aliases, **provider}

    def _profile(self, kind: object) -> TrackerProfileLike | None:
        known = ", ".join(sorted(self.profiles))
        if kind is None:
            self._bad_kind = "missing_tracker_kind"
            self._fault("tracker.kind", f"is required; one of: {known}")
        elif isinstance(kind, str):
            if kind in self.profiles:
                return self.profiles[kind]
            self._bad_kind = "unsupported_tracker_kind"
            self._fault("tracker.kind", f"must be one of: {known}", kind)
        return None

    def _default_states(
        self, result: dict[str, Any], key: str, default: tuple[str, ...] | None
    ) -> None:
        if key in result:
            return
        if default is None:
            self._fault(
                f"tracker.{key}", f"is required for kind {result['kind']!r}: a list of its states"
            )
        else:
            result[key] = default

    def _workspace(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {**values, **self._root(values), **self._repository(values)}

    def _repository(self, values: Mapping[str, Any]) -> dict[str, Any]:
        for key, faulty in (("branch", branch_fault), ("base", base_fault)):
            written = values.get(key)
            fault = faulty(written) if isinstance(written, str) and written.strip() else None
            if fault is not None:
                self._fault(f"workspace.{key}", fault, written)
        written = values.get("repository")
        if not isinstance(written, str):
            return {}
        name = env_reference(written)
        url = (self.environ.get(name, "") if name is not None else written).strip()
        fault = repository_fault(url)
        if fault is not None:
            self._fault("workspace.repository", fault)
            return {}
        if is_local_repository(url):
            url = os.path.normpath(os.path.join(self.directory, self._expanded_home(url)))
        return {"repository": url}

    def _root(self, values: Mapping[str, Any]) -> dict[str, Any]:
        written = values.get("root", "")
        if not isinstance(written, str):
            return {}
        name = env_reference(written)
        root = self.environ.get(name, "") if name is not None else written
        if name is None and "$" in written:
            self.warnings.append(
                "workspace.root: '$' is taken literally; only a value that is $NAME as a whole is "
                "looked up in the environment"
            )
        if "\0" in root:
            self._fault("workspace.root", "must not contain a NUL character")
            return {}
        root = root or os.path.join(self._temp(), DEFAULT_WORKSPACE_DIRECTORY)
        expanded = self._expanded_home(root)
        if expanded.startswith("~") and not self._has_remote_hosts():
            user = expanded.partition("/")[0]
            self._fault(
                "workspace.root",
                f"there is no user {user[1:]!r} here; name another directory, or ./{user} for one "
                "of that name",
                root,
            )
        path = os.path.join(self.directory, expanded)
        return {"root": root, "path": os.path.normpath(path)}

    def _has_remote_hosts(self) -> bool:
        worker = self.values.get("worker")
        return isinstance(worker, Mapping) and bool(worker.get("ssh_hosts"))

    def _expanded_home(self, root: str) -> str:
        home = self.environ.get("HOME")
        if home and (root == "~" or root.startswith("~/")):
            return home + root[1:]
        return os.path.expanduser(root)

    def _temp(self) -> str:
        return self.environ.get("TMPDIR") or "/tmp"

    def _agent(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        if "profiles" in values:
            reader = ProfileReader(self._prompt_file, self.line_of)
            values = {**values, "profiles": reader.read(values["profiles"])}
            self.warnings.extend(reader.warnings)
            for fault in reader.faults:
                self._fault_at(fault.keys, fault.problem, fault.value)
        limits = values.get("max_concurrent_agents_by_state")
        if isinstance(limits, Mapping):
            key = "agent.max_concurrent_agents_by_state"
            self.warnings.extend(f"{key}: {sentence}" for sentence in state_limits(limits)[1])
        return values

    def _prompt_file(self, written: str) -> tuple[str, str]:
        path = os.path.normpath(os.path.join(self.directory, self._expanded_home(written)))
        try:
            return self.files.read(Path(path)).decode("utf-8-sig"), path
        except UnicodeDecodeError:
            raise ValueError("must name a file of UTF-8 text") from None
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise ValueError(f"can't be read: {why} ({path})") from None

    def _codex(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        translated, warnings = translate_codex_policies(values)
        self.warnings.extend(warnings)
        return translated

    def _webhooks(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        name = env_reference(values.get("secret"))
        if name is None:
            return values
        secret = self.environ.get(name, "").strip()
        if not secret:
            self._fault("webhooks.secret", f"the environment variable {name} is not set or empty")
        elif len(secret) < SHORTEST_WEBHOOK_SECRET:
            self._fault(
                "webhooks.secret",
                f"the secret in {name} must have {SHORTEST_WEBHOOK_SECRET} characters or more, "
                "since anybody may try to guess it",
            )
        return values

    def _warn_unknown(
        self, path: tuple[str, ...], values: Mapping[str, Any], known: Sequence[str]
    ) -> None:
        for key in values:
            if key in known:
                continue
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {'.'.join((*path, near[0]))!r}?" if near else ""
            line = self.line_of((*path, key))
            where = f" (line {line})" if line is not None else ""
            self.warnings.append(
                f"unknown setting {'.'.join((*path, key))!r}{where} is ignored{hint}"
            )

    def _warn_of_states(self, tracker: TrackerSettings) -> None:
        both = sorted(tracker.active_state_keys & tracker.terminal_state_keys)
        if both:
            self.warnings.append(
                f"tracker.active_states and tracker.terminal_states both name {', '.join(both)}; "
                "such a state counts as terminal"
            )
        for key, states in (
            ("active_states", tracker.active_states),
            ("terminal_states", tracker.terminal_states),
        ):
            if any(not normalize_state(state) for state in states):
                self.warnings.append(f"tracker.{key}: a blank entry matches no state")
        if not tracker.active_states:
            self.warnings.append("tracker.active_states is empty: no issue is ever dispatched")

    def _warn_of_profiles(self, settings: Settings) -> None:
        active = settings.tracker.active_state_keys
        for profile in settings.agent.profiles:
            if profile.states and active and not active.intersection(profile.states):
                self.warnings.append(
                    f"agent.profiles: {profile.name!r} is never used: none of its states is one of "
                    "tracker.active_states"
                )

    def _warn_of_shared_temp(self, settings: Settings) -> None:
        policy = settings.codex.turn_sandbox_policy
        if policy is None or policy.get("type") != "workspaceWrite":
            return
        shared = (("excludeSlashTmp", "/tmp"), ("excludeTmpdirEnvVar", self.environ.get("TMPDIR")))
        for flag, directory in shared:
            if (
                directory
                and policy.get(flag) is not True
                and _is_below(settings.workspace.path, directory)
            ):
                self.warnings.append(
                    f"codex.turn_sandbox_policy: every agent may write to {directory}, where "
                    f"workspace.root lies; set {flag}: true or move the root"
                )

    def _check_prices(self, settings: Settings) -> None:
        for model, place in self._models(settings):
            fault = unpriced_fault(settings.budget, model, place)
            if fault is not None:
                self._fault("budget.prices", fault)
                return

    def _models(self, settings: Settings) -> Iterator[tuple[str | None, str]]:
        """Yield the models that turns will ask for, as far as they are written, and where."""
        for profile in settings.agent.profiles:
            if profile.model is not None:
                yield profile.model, f"agent.profiles.{profile.name}.model"
        if settings.codex.model is not None:
            yield settings.codex.model, "codex.model"
            return
        named = model_of(settings.codex.command, self.environ)
        yield (None, "") if named is None else named

    def _fault_at(self, keys: tuple[str, ...], problem: str, value: object = None) -> None:
        # Names of models hold dots, so the line is found by the keys and not by the path.
        path = ".".join(keys)
        self.faults.append(SettingFault(path, problem, _shown("", value), self.line_of(keys)))

    def _add_detail(self, section: str, detail: ErrorDetails) -> None:
        key = detail["loc"][0] if detail["loc"] else None
        path = f"{section}.{key}" if key is not None else section
        if any(fault.path == path for fault in self.faults):
            return
        missing = detail["type"] == "missing"
        problem = "is required" if missing else _problem(detail)
        self._fault(path, problem, None if missing else detail["input"])

    def _fault(self, path: str, problem: str, value: object = None) -> None:
        shown = _shown(path, value)
        self.faults.append(SettingFault(path, problem, shown, self._line(path)))

    def _line(self, path: str) -> int | None:
        keys = tuple(path.split("."))
        if keys[:2] == ("tracker", "provider") and keys[2:3] and keys[2] in LINEAR_ALIASES:
            # A flat alias may stand where the adapter names the provider's key.
            return (
                self.line_of(keys) if self._is_written(keys) else self.line_of(("tracker", keys[2]))
            )
        return self.line_of(keys)

    def _is_written(self, keys: tuple[str, ...]) -> bool:
        value: Any = self.values
        for key in keys:
            if not isinstance(value, Mapping) or key not in value:
                return False
            value = value[key]
        return True


def _problem(detail: ErrorDetails) -> str:
    if detail["type"] == "literal_error":
        return f"must be one of: {detail['ctx']['expected']}"
    return detail["msg"]


def _shown(path: str, value: object) -> str | None:
    """Return a value for a message; containers are named only, likely secrets not at all."""
    if value is None or any(word in path.lower() for word in _SECRET_WORDS):
        return None
    if isinstance(value, Mapping):
        return "a map"
    if isinstance(value, (list, tuple)):
        return "a list"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_below(path: str, directory: str) -> bool:
    return os.path.commonpath([path, os.path.abspath(directory)]) == os.path.abspath(directory)
