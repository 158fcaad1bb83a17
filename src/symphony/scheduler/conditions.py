"""What the shell tells of hosts and of the daemon's own files: gates shut and open with it.

What runs goes on. Each change is one note. ``resources`` judges figures, ``eligibility`` has the
gates.
"""

from __future__ import annotations

from collections.abc import Mapping

from .commands import Command, Level, Note
from .events import PlacesChecked, ResourcesRead
from .state import SchedulerState


def take_resources(state: SchedulerState, event: ResourcesRead) -> list[Command]:
    """Take in what a host has left."""
    before = state.resources.short
    state.resources.take(event.found, state.rules.resources)
    return _told(state, before)


def judge_resources(state: SchedulerState) -> list[Command]:
    """Judge the known figures by changed rules."""
    before = state.resources.short
    state.resources.judge(state.rules.resources)
    return _told(state, before)


def _told(state: SchedulerState, before: Mapping[str, str]) -> list[Command]:
    short = state.resources.short
    commands: list[Command] = [
        Note(Level.WARNING, "host is short: nothing starts there", {"host": host, "why": why})
        for host, why in short.items()
        if host not in before
    ]
    for host in before:
        if host not in short:
            state.claims.freed = True
            commands.append(Note(Level.INFO, "host has resources again", {"host": host}))
    return commands


def check_places(state: SchedulerState, event: PlacesChecked) -> list[Command]:
    """Stop new starts while the daemon's own files are gone."""
    if event.lost == state.lost:
        return []
    state.lost = event.lost
    if event.lost is not None:
        return [Note(Level.ERROR, "the daemon has lost its files", {"problem": event.lost})]
    state.claims.freed = True
    return [Note(Level.INFO, "the daemon's files are there again")]
