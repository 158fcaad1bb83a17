"""``symphony check``: everything about a workflow that can be known without starting anything."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from symphony.config.profiles import Profile


def check_workflow(workflow: Path) -> int:
    """Print what is wrong; return 0 where nothing is, else 1.

    Raises:
        SymphonyError: The file or its settings are invalid.
    """
    from symphony.config.loading import load_workflow
    from symphony.runner.prompt import check_prompt
    from symphony.service.preflight import check_codex_command, find_codex
    from symphony.trackers import registry

    path = workflow.expanduser().absolute()
    loaded = load_workflow(
        path,
        environ=os.environ,
        profiles=registry.PROFILES,
        validate_tracker=lambda settings: registry.validate(
            settings.tracker, os.environ, path.parent
        ),
        check_prompt=check_prompt,
    )
    asyncio.run(
        check_codex_command(
            loaded.settings.codex.command,
            environ=os.environ,
            fallback=find_codex(os.environ).last,
            tell=lambda text: print(f"symphony: {text}", file=sys.stderr, flush=True),
        )
    )
    for warning in loaded.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for fault in loaded.prompt_warnings:
        print(f"error: {fault}", file=sys.stderr)
    if loaded.prompt_warnings:
        return 1
    tracker = loaded.settings.tracker
    for line in profile_lines(loaded.settings.agent.profiles):
        print(line)
    print(f"{path}: valid; tracker {tracker.kind}, active {', '.join(tracker.active_states)}")
    return 0


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
