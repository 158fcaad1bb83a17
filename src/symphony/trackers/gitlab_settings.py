"""Settings of the adapter ``gitlab``: defaults, ``$NAME`` references, and every fault at once.

Pure: the environment comes in as a mapping. The provider map keeps the references as written;
only ``GitLabSettings`` holds the token, and its ``repr`` does not show it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from symphony.errors import SettingFault
from symphony.model.issue import normalize_state

from .rest_settings import ProviderReader, secret_names

if TYPE_CHECKING:
    from symphony.config.settings import TrackerSettings

DEFAULT_API: Final = "https://gitlab.com/api/v4"
TOKEN_VARIABLE: Final = "GITLAB_PAT"
OTHER_TOKEN_VARIABLE: Final = "GITLAB_ACCESS_TOKEN"
PROJECT_VARIABLE: Final = "GITLAB_PROJECT_PATH"
KEYS: Final = (
    "project_path",
    "api_key",
    "api_url",
    "state_labels",
    "state_scope",
    "blocking_links",
    "priority_labels",
    "priority_weights",
    "tool_scope",
    "read_only",
)

# A slug of a group or project, or the number of a project.
_PATH: Final = re.compile(r"[^\s/%?#\\\x00-\x1f]+(/[^\s/%?#\\\x00-\x1f]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class GitLabSettings:
    """What the adapter works with.

    Attributes:
        project_path: ``group/project`` or the project's number.
        api_key: Sent as ``PRIVATE-TOKEN``.
        api_url: REST API without a final ``/``.
        state_labels: State name -> label in lower case; in order of precedence.
        state_scope: Scope of the labels whose value is the state (``workflow`` for
            ``workflow::todo``), or "".
        blocking_links: Whether open blockers hold an issue back.
        priority_labels: Label in lower case -> priority.
        priority_weights: Weight as text -> priority; labels go first.
        tool_scope: ``project``, ``group`` or ``any``.
        read_only: Whether the tool only reads.
        active: The active states, as written.
        terminal: Keys of the terminal states.
        secret_environment_names: Variables that agents and hooks must not inherit.
    """

    project_path: str
    api_key: str = field(repr=False)
    api_url: str = DEFAULT_API
    state_labels: Mapping[str, str] = field(default_factory=dict)
    state_scope: str = ""
    blocking_links: bool = False
    priority_labels: Mapping[str, int] = field(default_factory=dict)
    priority_weights: Mapping[str, int] = field(default_factory=dict)
    tool_scope: str = "project"
    read_only: bool = False
    active: tuple[str, ...] = ("opened",)
    terminal: frozenset[str] = frozenset({"closed"})
    secret_environment_names: tuple[str, ...] = (TOKEN_VARIABLE, OTHER_TOKEN_VARIABLE)

    @property
    def graphql_url(self) -> str:
        """The GraphQL API of the same host."""
        return self.api_url.removesuffix("/v4") + "/graphql"

    @property
    def project_api_path(self) -> str:
        """The project in the REST API, its path in one segment."""
        return f"/projects/{quote(self.project_path, safe='')}"


def resolve(
    tracker: TrackerSettings, environ: Mapping[str, str]
) -> tuple[GitLabSettings | None, list[SettingFault]]:
    """Resolve the settings; they are None exactly where there are faults."""
    provider = tracker.provider
    reader = ProviderReader(provider, environ)
    api_url = reader.https_url("api_url", DEFAULT_API, code="invalid_gitlab_api_url")
    project_path = _project_path(reader)
    api_key = reader.secret(
        "api_key", TOKEN_VARIABLE, what="GitLab token", code="missing_gitlab_api_key"
    )
    state_labels = reader.names("state_labels")
    state_scope = _scope(reader)
    if state_scope and state_labels:
        reader.fault("state_scope", "and `state_labels` exclude each other: use one of them")
    blocking_links = reader.flag("blocking_links")
    if blocking_links and project_path.isdecimal():
        reader.fault("blocking_links", "needs the project as `group/project`, not its number")
    settings = GitLabSettings(
        project_path=project_path,
        api_key=api_key,
        api_url=api_url,
        state_labels={state: label.lower() for state, label in state_labels.items()},
        state_scope=state_scope,
        blocking_links=blocking_links,
        priority_labels=reader.priorities("priority_labels"),
        priority_weights=_weights(reader),
        tool_scope=reader.choice("tool_scope", ("project", "group", "any")),
        read_only=reader.flag("read_only"),
        active=tuple(tracker.active_states),
        terminal=frozenset(normalize_state(state) for state in tracker.terminal_states),
        secret_environment_names=secret_names(
            provider, "api_key", TOKEN_VARIABLE, OTHER_TOKEN_VARIABLE
        ),
    )
    _states(reader, tracker, settings)
    reader.known_keys(KEYS)
    return (None if reader.faults else settings), reader.faults


def _project_path(reader: ProviderReader) -> str:
    text = reader.looked_up("project_path", PROJECT_VARIABLE)
    if not text:
        problem = "must be the project as `group/project` (missing_gitlab_project_path)"
        reader.fault("project_path", problem, reader.provider.get("project_path"))
    elif not _PATH.fullmatch(text) or {".", ".."} & set(text.split("/")):
        problem = "must be the project as `group/project` (invalid_gitlab_project_path)"
        reader.fault("project_path", problem, text)
    return text


def _scope(reader: ProviderReader) -> str:
    value = reader.provider.get("state_scope")
    if value is None:
        return ""
    text = value.strip().removesuffix("::").lower() if isinstance(value, str) else ""
    if not text:
        reader.fault("state_scope", "must be the part of a scoped label before `::`", value)
    return text


def _weights(reader: ProviderReader) -> dict[str, int]:
    """YAML gives the weights as numbers, a quoted one as text."""
    value = reader.provider.get("priority_weights")
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(
        str(weight).isdecimal() and isinstance(rank, int) and not isinstance(rank, bool)
        for weight, rank in value.items()
    ):
        reader.fault("priority_weights", "must be a map of weights to priorities", value)
        return {}
    return {str(int(str(weight))): rank for weight, rank in value.items()}


def _states(reader: ProviderReader, tracker: TrackerSettings, settings: GitLabSettings) -> None:
    """GitLab knows ``opened`` and ``closed``; labels add names."""
    code = "invalid_gitlab_states"
    active: list[str] | None = ["opened", *settings.state_labels]
    terminal: list[str] | None = ["closed", *settings.state_labels]
    if settings.state_scope:
        active = terminal = None
        if "closed" in tracker.active_state_keys:
            problem = f"`closed` can't be active: such an issue is done ({code})"
            reader.faults.append(SettingFault("tracker.active_states", problem))
    reader.states("active_states", tracker.active_states, active, code=code)
    reader.states("terminal_states", tracker.terminal_states, terminal, code=code)
