"""The poll cycle (SPEC 8.1): reconcile and candidates are read side by side, then dispatch.

Dispatch waits until the reconcile read is answered or has failed (SPEC 7.4). The next cycle begins
one interval after the end of this one: ticks that a slow tracker swallowed are not made up for.
``pacing`` says how long that interval is. A tracker that can't be read is a warning for each thing
that it, or the breaker, says of that, and a line when it is over; not one for each poll.
"""

from __future__ import annotations

import re
from typing import Final

from symphony.model.clock import Instant

from .commands import (
    Command,
    FetchCandidates,
    Level,
    Note,
    RefreshIssues,
    RefreshPurpose,
)
from .dispatch import allocate
from .events import CandidatesFailed, CandidatesFetched, PaceObserved, RefreshFailed
from .reconcile import reconcile_ids
from .state import Asked, Pending, SchedulerState

_COUNTED: Final = re.compile(r"\d+(?= (?:s|failures)\b)")
_REMEMBERED: Final = 16
"""Messages of one outage that are known by heart."""


def begin_poll(state: SchedulerState, now: Instant) -> list[Command]:
    """Begin a cycle if one is due and none is in flight."""
    poll = state.poll
    if poll.next_mono is None or poll.next_mono > now.mono:
        return []
    poll.next_mono = None
    poll.held = None
    poll.error = None
    if state.confirm_mono is not None and state.confirm_mono <= now.mono:
        # This cycle's read is the second one of what an earlier read lacked.
        state.confirm_mono = None
    commands: list[Command] = []
    ids = reconcile_ids(state)
    if ids:
        poll.reconcile = state.ask(RefreshPurpose.RECONCILE, ids, now=now)
        commands.append(RefreshIssues(poll.reconcile, RefreshPurpose.RECONCILE, tuple(ids)))
    poll.candidates = state.ask(Asked.CANDIDATES, now=now)
    commands.append(FetchCandidates(poll.candidates, state.rules.active_names))
    return commands


def request_poll(state: SchedulerState, now: Instant) -> list[Command]:
    """Begin a cycle now, or another one right after the cycle that is in flight.

    A wait that the tracker asked for is kept.
    """
    state.poll_soon(now)
    return begin_poll(state, now)


def candidates_fetched(
    state: SchedulerState, pending: Pending, event: CandidatesFetched, now: Instant
) -> list[Command]:
    """Hold the candidates until the reconcile read is answered."""
    state.poll.candidates = None
    if pending.generation == state.generation:
        state.poll.held = event.issues
    return end_poll(state, now)


def candidates_failed(
    state: SchedulerState, event: CandidatesFailed, now: Instant
) -> list[Command]:
    """Skip dispatch in this cycle; running work is not touched."""
    state.poll.candidates = None
    return [*_read_failed(state, "candidate fetch failed", event, now), *end_poll(state, now)]


def reconcile_answered(state: SchedulerState, now: Instant) -> list[Command]:
    """Go on to dispatch after a successful reconcile read has been applied."""
    state.poll.reconcile = None
    return end_poll(state, now)


def reconcile_failed(state: SchedulerState, event: RefreshFailed, now: Instant) -> list[Command]:
    """Keep everything as it is and go on to dispatch (SPEC 8.5)."""
    state.poll.reconcile = None
    return [*_read_failed(state, "reconcile refresh failed", event, now), *end_poll(state, now)]


def _read_failed(
    state: SchedulerState, message: str, event: CandidatesFailed | RefreshFailed, now: Instant
) -> list[Command]:
    state.poll.error = event.message
    state.read_failed(event.message, event.retry_after_s, now=now)
    # Both reads of a cycle fail alike, a count is no other failure, and the breaker's refusals take
    # turns with what its canaries meet.
    told = _COUNTED.sub("…", event.message)
    level = Level.DEBUG if told in state.poll.warned else Level.WARNING
    state.poll.warned = (*(m for m in state.poll.warned if m != told), told)[-_REMEMBERED:]
    return [Note(level, message, {"category": event.category, "error": event.message})]


def end_poll(state: SchedulerState, now: Instant) -> list[Command]:
    """Dispatch and plan the next cycle, once both reads are answered."""
    poll = state.poll
    if poll.checking:
        return []
    held, poll.held = poll.held, None
    commands = [] if held is None else allocate(state, now, held)
    state.tracker_error = poll.error
    if poll.error is None and poll.warned:
        poll.warned = ()
        commands.append(Note(Level.INFO, "the tracker can be read again"))
    poll.ended_mono = now.mono
    poll.pace.end_cycle()
    planned_s = _plan(state, now)
    delay_s = 0.0 if poll.again else planned_s
    poll.next_mono = max(now.mono + delay_s, poll.not_before_mono)
    poll.again = False
    return [*commands, *begin_poll(state, now)]


def replan_poll(state: SchedulerState, now: Instant) -> None:
    """Measure a changed interval from the end of the last cycle."""
    poll = state.poll
    planned_s = _plan(state, now)
    if poll.next_mono is not None:
        due = max(poll.ended_mono + planned_s, poll.not_before_mono)
        poll.next_mono = max(now.mono, due)


def pace_observed(state: SchedulerState, event: PaceObserved, now: Instant) -> list[Command]:
    """Take over what the tracker said of its budgets; the end of the cycle plans with it."""
    pace = state.poll.pace
    were_well = pace.webhooks
    pace.observe(event.allowances, webhooks=event.webhooks, mono=now.mono)
    if were_well and not pace.webhooks:
        # Nothing wakes the poll any more: the wait that was planned for that is too long.
        replan_poll(state, now)
    return []


def _plan(state: SchedulerState, now: Instant) -> float:
    rules = state.rules
    return state.poll.pace.plan(
        rules.interval_s,
        floor_s=rules.webhook_interval_s,
        longest_s=rules.longest_interval_s,
        mono=now.mono,
    )
