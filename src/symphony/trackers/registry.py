"""Which trackers there are: kind -> adapter module, loaded when it is chosen.

An adapter module has two functions, ``validate(settings, environ, base_dir)`` for all faults at
once and ``build(settings, environ, base_dir)``. Profiles are here, so that configuration knows an
adapter's default states without importing it. ``config`` fills those in before we are called.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from symphony.errors import SettingFault, TrackerError

from .base import Tracker, TrackerProfile

if TYPE_CHECKING:
    from symphony.config.settings import TrackerSettings

_ADAPTERS: Final[Mapping[str, str]] = {
    "asana": "symphony.trackers.asana",
    "github": "symphony.trackers.github",
    "gitlab": "symphony.trackers.gitlab",
    "jira": "symphony.trackers.jira",
    "linear": "symphony.trackers.linear",
    "local": "symphony.trackers.local",
    "memory": "symphony.trackers.memory",
}

_MISSING_SECRETS: Final = (
    "missing_linear_api_token",
    "missing_github_token",
    "missing_gitlab_api_key",
    "missing_jira_api_token",
    "missing_asana_api_key",
)
"""How the reference calls the faults of a tracker without its token."""

_ACTIVE: Final = ("Todo", "In Progress")
_TERMINAL: Final = ("Closed", "Cancelled", "Canceled", "Duplicate", "Done")

PROFILES: Final[Mapping[str, TrackerProfile]] = {
    profile.kind: profile
    for profile in (
        TrackerProfile("asana", summary="The tasks of one Asana project."),
        TrackerProfile("github", summary="The issues of one GitHub repository."),
        TrackerProfile("gitlab", summary="The issues of one GitLab project."),
        TrackerProfile("jira", summary="The issues of one Jira Cloud project."),
        TrackerProfile("linear", _ACTIVE, _TERMINAL, "One project of a Linear workspace."),
        TrackerProfile("local", _ACTIVE, _TERMINAL, "A folder of Markdown files; no account."),
        TrackerProfile("memory", _ACTIVE, _TERMINAL, "Issues held in the process; for embedding."),
    )
}
"""The published facts of each adapter, by kind."""


def profile(kind: str) -> TrackerProfile:
    """Return the profile of a kind.

    Raises:
        TrackerError: ``unsupported_tracker_kind``, with the kinds that there are.
    """
    found = PROFILES.get(kind)
    if found is None:
        raise TrackerError(
            "unsupported_tracker_kind", _unsupported(kind), code="unsupported_tracker_kind"
        )
    return found


def validate(
    settings: TrackerSettings, environ: Mapping[str, str], base_dir: Path
) -> list[SettingFault]:
    """Return every misconfiguration of ``tracker``, each with its key and its mend.

    Args:
        settings: The section ``tracker`` with the default states filled in.
        environ: The environment in which ``$NAME`` references are looked up.
        base_dir: The workflow file's directory, for relative paths.
    """
    if settings.kind not in _ADAPTERS:
        return [SettingFault("tracker.kind", _unsupported(settings.kind))]
    faults: list[SettingFault] = _adapter(settings.kind).validate(settings, environ, base_dir)
    return faults


def build(settings: TrackerSettings, environ: Mapping[str, str], base_dir: Path) -> Tracker:
    """Build the configured tracker.

    Raises:
        TrackerError: ``unsupported_tracker_kind``, ``invalid_tracker_config`` or
            ``missing_tracker_secret``; the message names every fault.
    """
    profile(settings.kind)
    faults = validate(settings, environ, base_dir)
    if faults:
        missing = any(name in fault.problem for fault in faults for name in _MISSING_SECRETS)
        raise TrackerError(
            "missing_tracker_secret" if missing else "invalid_tracker_config",
            "; ".join(str(fault) for fault in faults),
        )
    tracker: Tracker = _adapter(settings.kind).build(settings, environ, base_dir)
    return tracker


def _adapter(kind: str) -> Any:
    return import_module(_ADAPTERS[kind])


def _unsupported(kind: str) -> str:
    near = difflib.get_close_matches(kind.strip().lower(), PROFILES, n=1)
    hint = f"; did you mean `{near[0]}`?" if near else ""
    return f"`{kind}` is no tracker that Symphony has ({', '.join(PROFILES)}){hint}"
