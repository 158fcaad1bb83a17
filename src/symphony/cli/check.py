"""``symphony check``: everything about a workflow that can be known without starting anything."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from symphony.cli.usage import printable

if TYPE_CHECKING:
    from symphony.config.profiles import Profile


def check_workflow(workflow: Path) -> int:
    """Print all that is wrong, in settings, prompts and command; return 0 where nothing is, else 1.

    Raises:
        WorkflowFileError: The file can't be read or is no YAML, so that nothing else can be told.
    """
    from symphony.config.loading import examine_workflow, read_workflow
    from symphony.errors import ConfigError, SettingsError
    from symphony.runner.prompt import check_prompt
    from symphony.service.preflight import check_codex_command, find_codex
    from symphony.trackers import registry

    path = workflow.expanduser().absolute()
    found = examine_workflow(
        read_workflow(path),
        environ=os.environ,
        profiles=registry.PROFILES,
        validate_tracker=lambda settings: registry.validate(
            settings.tracker, os.environ, path.parent
        ),
        check_prompt=check_prompt,
    )
    errors = list(found.prompt_warnings)
    try:
        settings = found.workflow().settings
    except SettingsError as error:
        settings = None
        _tell(f"symphony: {error}")
    if found.command is not None:
        try:
            asyncio.run(
                check_codex_command(
                    found.command,
                    environ=os.environ,
                    fallback=find_codex(os.environ).last,
                    tell=lambda text: _tell(f"symphony: {text}"),
                )
            )
        except ConfigError as error:
            errors.append(error.message)
    for warning in found.warnings:
        _tell(f"warning: {warning}")
    for one in errors:
        _tell(f"error: {one}")
    if settings is None or errors:
        return 1
    for line in profile_lines(settings.agent.profiles):
        print(printable(line))
    states = ", ".join(settings.tracker.active_states)
    print(printable(f"{path}: valid; tracker {settings.tracker.kind}, active {states}"))
    return 0


def _tell(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)


def profile_lines(profiles: Sequence[Profile]) -> list[str]:
    """Return a line for each profile: for which issues it is, and what it changes."""
    lines = []
    for profile in profiles:
        changes = [
            ("prompt", None if profile.prompt is None else profile.prompt.source),
            ("continuation prompt", profile.continuation_prompt and "its own"),
            ("model", profile.model),
            ("effort", profile.reasoning_effort),
            ("turns", profile.max_turns),
            ("read only", "yes" if profile.read_only else None),
        ]
        shown = ", ".join(f"{what} {value}" for what, value in changes if value is not None)
        lines.append(f"profile {profile.name}: {profile.conditions()}: {shown or 'as for all'}")
    return lines
