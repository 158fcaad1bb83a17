"""What the shell tells of hosts and of the daemon's own files: gates shut and open with it.

What runs goes on. Each change is one note. ``resources`` judges figures, ``eligibility`` has the
gates.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from symphony.model.clock import Instant

from .commands import Command, Level, Note
from .eligibility import GateName
from .events import PlacesChecked, ResourcesRead
from .state import SchedulerState


def take_resources(state: SchedulerState, event: ResourcesRead, now: Instant) -> list[Command]:
    """Take in what a host has left."""
    before, was_shut = state.resources.lacking, set(state.resources.short)
    state.resources.take(
        event.found, state.rules.resources, mono=now.mono, runs=state.claims.holds_slot
    )
    return _told(state, before, was_shut, now)


def judge_resources(state: SchedulerState, now: Instant) -> list[Command]:
    """Judge the known figures by changed rules."""
    before, was_shut = state.resources.lacking, set(state.resources.short)
    state.resources.judge(state.rules.resources)
    return _told(state, before, was_shut, now)


def _told(
    state: SchedulerState, before: Mapping[str, str], was_shut: Collection[str], now: Instant
) -> list[Command]:
    """Tell what the figures say; what is only reserved passes by itself and is no news."""
    lacking, short = state.resources.lacking, state.resources.short
    if any(host not in short for host in was_shut):
        state.claims.freed = True
        if any(gate.name is GateName.RESOURCES for _, gate in state.waiting):
            # Fresh candidates are chosen by polls only.
            state.poll_soon(now)
    return [
        *(
            Note(Level.WARNING, "host is short: nothing starts there", {"host": host, "why": why})
            for host, why in lacking.items()
            if host not in before
        ),
        *(
            Note(Level.INFO, "host has resources again", {"host": host})
            for host in before
            if host not in lacking
        ),
    ]


def check_places(state: SchedulerState, event: PlacesChecked) -> list[Command]:
    """Stop new starts while the daemon's own files are gone."""
    if event.lost == state.lost:
        return []
    state.lost = event.lost
    if event.lost is not None:
        return [Note(Level.ERROR, "the daemon has lost its files", {"problem": event.lost})]
    state.claims.freed = True
    return [Note(Level.INFO, "the daemon's files are there again")]
