"""From one read of the workflow file to a checked ``Workflow`` (SPEC 5 and 6.1).

Invariant: the file is read once; text, digest and stamp all come from that read. Every fault of
every section is found before ``SettingsError`` is raised, and no message holds a secret. What
depends on the surroundings (environment, known trackers, the check of the prompt) is passed in, so
that this package knows no tracker and no template engine. ``checking`` finds the faults; ``store``
calls this module for each change.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from symphony.errors import SettingFault, SettingsError, WorkflowFileError

from .checking import FrontMatterCheck, TrackerProfileLike
from .files import FileStamp, IncludedFiles, read_file
from .front_matter import parse_front_matter, split_document
from .profiles import Prompt
from .settings import Settings

__all__ = [
    "Examination",
    "PromptChecker",
    "TrackerProfileLike",
    "TrackerValidator",
    "Workflow",
    "WorkflowSource",
    "build_workflow",
    "examine_workflow",
    "load_workflow",
    "prompt_findings",
    "read_workflow",
    "workflow_id",
]

TrackerValidator = Callable[[Settings], Sequence[SettingFault]]
"""Faults of ``tracker.provider`` as the adapter sees them, after its defaults and ``$NAME``."""

PromptChecker = Callable[[str, int], Sequence[str]]
"""Sentences on faults of a prompt template, given its text and its first line in the file."""


@dataclass(frozen=True, slots=True)
class WorkflowSource:
    """The workflow file as one read found it; ``stamp`` was taken before its first byte.

    ``files`` holds what its settings name; the check of this version reads them through it.
    """

    path: Path
    content: bytes = field(repr=False)
    digest: str
    stamp: FileStamp
    files: IncludedFiles = field(default_factory=IncludedFiles, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """A valid workflow: settings and prompt of one and the same version of the file.

    Attributes:
        path: Absolute; links are not followed, so relative settings keep the directory given.
        workflow_id: Short hash of the path, stable across edits and restarts.
        prompt_template: The trimmed body; blank stands for the default prompt.
        prompt_line: Line in the file on which the template starts.
        warnings: Sentences on the settings, each naming its key.
        prompt_warnings: Sentences on the template; ``symphony check`` takes them for errors.
        digest: SHA-256 of the file's bytes.
        config: The front matter's root map as written (SPEC 5.2); may hold literal secrets.
    """

    path: Path
    workflow_id: str
    settings: Settings
    prompt_template: str
    prompt_line: int
    warnings: tuple[str, ...]
    prompt_warnings: tuple[str, ...]
    digest: str
    config: Mapping[str, Any] = field(repr=False)

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """Every template of this version: the body, the continuation text, those of profiles."""
        body = Prompt(text=self.prompt_template, source="", line=self.prompt_line)
        return _prompts(body, self.settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """All that can be said of one version of a workflow file, whether it may be used or not.

    Attributes:
        faults: Why it may not; empty where it may.
        category: Of all faults together, see ``SettingsError``.
        warnings: Of the settings, a sentence each.
        prompt_warnings: Of every template that could be made out.
        command: ``codex.command`` where it is sound, else None.
        usable: The workflow where there are no faults, else None.
    """

    source: str
    faults: tuple[SettingFault, ...]
    category: str
    warnings: tuple[str, ...]
    prompt_warnings: tuple[str, ...]
    command: str | None
    usable: Workflow | None

    def workflow(self) -> Workflow:
        """Return the workflow.

        Raises:
            SettingsError: Some settings are invalid; holds all faults.
        """
        if self.usable is None:
            raise SettingsError(self.faults, source=self.source, category=self.category)
        return self.usable


def load_workflow(
    path: str | os.PathLike[str],
    *,
    environ: Mapping[str, str],
    profiles: Mapping[str, TrackerProfileLike],
    validate_tracker: TrackerValidator | None = None,
    check_prompt: PromptChecker | None = None,
) -> Workflow:
    """Read and check a workflow file; see ``build_workflow`` for the arguments.

    Raises:
        WorkflowFileError: It can't be read or split.
        SettingsError: Some settings are invalid; holds all faults.
    """
    return build_workflow(
        read_workflow(path),
        environ=environ,
        profiles=profiles,
        validate_tracker=validate_tracker,
        check_prompt=check_prompt,
    )


def read_workflow(path: str | os.PathLike[str]) -> WorkflowSource:
    """Read a workflow file once.

    Raises:
        WorkflowFileError: ``missing_workflow_file`` whatever keeps it from being read.
    """
    absolute = Path(os.path.abspath(path))
    try:
        version = read_file(absolute)
    except OSError as error:
        raise WorkflowFileError(
            "missing_workflow_file",
            f"{absolute}: the workflow file can't be read ({error.strerror}); name another one on "
            "the command line or create it with 'symphony init'",
        ) from error
    return WorkflowSource(absolute, version.content, version.digest, version.stamp)


def workflow_id(path: str | os.PathLike[str]) -> str:
    """Return the short id of a workflow's path; links in its directory don't matter."""
    absolute = Path(os.path.abspath(path))
    name = os.path.join(os.path.realpath(absolute.parent), absolute.name)
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:12]


def build_workflow(
    source: WorkflowSource,
    *,
    environ: Mapping[str, str],
    profiles: Mapping[str, TrackerProfileLike],
    validate_tracker: TrackerValidator | None = None,
    check_prompt: PromptChecker | None = None,
) -> Workflow:
    """Check one version of a workflow file as a whole; see ``examine_workflow``.

    Raises:
        WorkflowFileError: It can't be split or is not YAML.
        SettingsError: Some settings are invalid; holds all faults.
    """
    return examine_workflow(
        source,
        environ=environ,
        profiles=profiles,
        validate_tracker=validate_tracker,
        check_prompt=check_prompt,
    ).workflow()


def examine_workflow(
    source: WorkflowSource,
    *,
    environ: Mapping[str, str],
    profiles: Mapping[str, TrackerProfileLike],
    validate_tracker: TrackerValidator | None = None,
    check_prompt: PromptChecker | None = None,
) -> Examination:
    """Find all that is wrong with one version of a workflow file.

    Args:
        source: What was read.
        environ: Where ``$NAME``, ``~`` and the temp directory are looked up.
        profiles: The known trackers by kind, with their default states.
        validate_tracker: The adapter's check of its provider settings.
        check_prompt: The check of the template; its findings are warnings.

    Raises:
        WorkflowFileError: It can't be split or is not YAML: then nothing else can be told.
    """
    document = split_document(_decoded(source))
    front_matter = parse_front_matter(document.front_matter or "", source=str(source.path))
    check = FrontMatterCheck(
        front_matter, source.path.parent, environ, profiles, files=source.files
    )
    if not document.terminated:
        check.warnings.append(
            "the front matter has no closing '---': all of the file is read as settings"
        )
    settings = check.settings()
    checked = settings if settings is not None else check.unsound
    if checked is not None and validate_tracker is not None:
        check.add_tracker_faults(validate_tracker(checked))
    prompts = _prompts(Prompt(text=document.body, source="", line=document.body_line), checked)
    found = () if check_prompt is None else tuple(_all_findings(prompts, check_prompt))
    of_codex = any(fault.path.split(".")[0] == "codex" for fault in check.faults)
    result = Examination(
        source=str(source.path),
        faults=tuple(check.faults),
        category=check.category(),
        warnings=tuple(check.warnings),
        prompt_warnings=found,
        command=None if checked is None or of_codex else checked.codex.command,
        usable=None,
    )
    if check.faults or settings is None:
        return result
    workflow = Workflow(
        path=source.path,
        workflow_id=workflow_id(source.path),
        settings=settings,
        prompt_template=document.body,
        prompt_line=document.body_line,
        warnings=result.warnings,
        prompt_warnings=found,
        digest=source.digest,
        config=front_matter.values,
    )
    return replace(result, usable=workflow)


def _prompts(body: Prompt, settings: Settings | None) -> tuple[Prompt, ...]:
    if settings is None:
        return (body,)
    own, agent = [body], settings.agent
    if agent.continuation_prompt is not None:
        own.append(Prompt(text=agent.continuation_prompt, source="agent.continuation_prompt"))
    of_profiles = ((one.prompt, one.continuation_prompt) for one in agent.profiles)
    own.extend(prompt for pair in of_profiles for prompt in pair if prompt is not None)
    return tuple(own)


def _all_findings(prompts: Iterable[Prompt], check_prompt: PromptChecker) -> Iterable[str]:
    return chain.from_iterable(prompt_findings(one, check_prompt) for one in prompts)


def prompt_findings(prompt: Prompt, check_prompt: PromptChecker) -> list[str]:
    """Return the findings on one of a workflow's templates, each with where it stands."""
    findings = check_prompt(prompt.text, prompt.line)
    return [f"{prompt.source}: {one}" if prompt.source else one for one in findings]


def _decoded(source: WorkflowSource) -> str:
    try:
        return source.content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = source.content.count(b"\n", 0, error.start) + 1
        raise WorkflowFileError(
            "workflow_parse_error", f"{source.path}: line {line}: the file must be UTF-8 text"
        ) from None
