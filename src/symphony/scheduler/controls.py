"""What an operator may order: pause, resume, drain, stop, retry now; of all work or of one issue.

A hold keeps work from starting until it is lifted; it is durable and survives restarts. Draining is
a pause of everything in which running agents end after their present turn. A stop ends agents and
leaves their issues blocked, so that only a person starts them again. Orders name an issue by its
identifier, which is what people know; one that is not on our books yet can be held all the same.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from symphony.model.clock import Instant
from symphony.model.run import StopReason

from .blocks import STOPPED
from .budget import holds_back, raise_limits
from .claims import Blocked, Claim, Cleaning, Dispatching, Rechecking, RetryQueued, Running
from .commands import (
    Command,
    DropHold,
    DropPark,
    EndAfterTurn,
    Level,
    Note,
    SaveHold,
    SaveOverride,
    SaveStop,
    StopRun,
)
from .eligibility import SLOT_GATES, first_shut
from .events import ControlAction, ControlRequested, Hold, HoldKind, Override
from .notes import note
from .polling import request_poll
from .state import SchedulerState
from .unblocking import answer, run_again, takes_answer

__all__ = ["STOPPED", "control", "known"]

_SAME_TIME_S = 1.0
"""Retries that are due this near to the end of a park wait for the same reset."""


def control(state: SchedulerState, event: ControlRequested, now: Instant) -> list[Command]:
    """Carry out an order of an operator."""
    order = Note(
        Level.INFO,
        "operator order",
        {
            "action": event.action.value,
            "issue_identifier": event.identifier or "all",
            "by": event.by,
            "reason": event.reason,
        },
    )
    match event.action:
        case ControlAction.PAUSE:
            return [order, *_hold(state, event, HoldKind.PAUSE, now)]
        case ControlAction.DRAIN:
            return [order, *_hold(state, event, HoldKind.DRAIN, now), *_end_turns(state, event)]
        case ControlAction.RESUME:
            return [order, *_resume(state, event, now)]
        case ControlAction.STOP:
            return [order, *_stop(state, event, now)]
        case ControlAction.RETRY:
            return [order, *_retry(state, event, now)]
        case ControlAction.RESET_BREAKER:
            return [order, *_reset_breaker(state, event, now)]
        case ControlAction.RAISE:
            return [order, *raise_limits(state, event, now)]
        case ControlAction.ANSWER:
            return [order, *_answer(state, event, now)]
        case ControlAction.UNPARK:
            return [order, *_unpark(state, now)]
        case ControlAction.OVERRIDE_HOURS:
            return [order, *_override_hours(state, event, now)]
        case _:
            assert_never(event.action)


def known(state: SchedulerState, identifier: str) -> bool:
    """Tell whether an order for this issue can have an effect on what we hold or wait for."""
    return (
        identifier in state.holds
        or any(claim.issue.identifier == identifier for claim in state.claims)
        or any(issue.identifier == identifier for issue, _ in state.waiting)
    )


def _hold(
    state: SchedulerState, event: ControlRequested, kind: HoldKind, now: Instant
) -> list[Command]:
    hold = Hold(
        scope=event.identifier,
        kind=kind,
        reason=event.reason,
        by=event.by,
        since_wall=now.wall,
    )
    state.holds[event.identifier] = hold
    return [SaveHold(hold)]


def _end_turns(state: SchedulerState, event: ControlRequested) -> list[Command]:
    return [
        EndAfterTurn(claim.spec.run_id)
        for claim in _of(state, event)
        if isinstance(claim, Running) and claim.stopping is None
    ]


def _resume(state: SchedulerState, event: ControlRequested, now: Instant) -> list[Command]:
    commands: list[Command] = []
    if state.holds.pop(event.identifier, None) is not None:
        commands.append(DropHold(event.identifier))
    for claim in _of(state, event):
        if isinstance(claim, Blocked) and claim.category == STOPPED:
            commands.append(run_again(state, claim, now))
        elif isinstance(claim, Running):
            commands.extend(_take_back_stop(state, claim))
    state.claims.freed = True
    return [*commands, *request_poll(state, now)]


def _stop(state: SchedulerState, event: ControlRequested, now: Instant) -> list[Command]:
    commands: list[Command] = []
    if event.identifier is None or not _of(state, event):
        # A candidate has no claim that could keep the stop: it would start with the next free slot.
        commands.extend(_hold(state, event, HoldKind.PAUSE, now))
    error = event.reason or "stopped by an operator"
    for claim in _of(state, event):
        match claim:
            case Running(stopping=None):
                commands.append(_mark_stopped(state, claim, error))
                commands.append(StopRun(claim.spec.run_id, StopReason.OPERATOR))
            case (
                Running(resumed=True)
                | Running(
                    stopping=StopReason.STALLED | StopReason.BUDGET_DAY | StopReason.BUDGET_TOTAL
                )
            ):
                # It ends already; what follows is no retry any more.
                commands.append(_mark_stopped(state, claim, error))
            case Running():
                pass
            case RetryQueued() | Rechecking() | Dispatching():
                if not isinstance(claim, RetryQueued):
                    state.no_longer_asks(claim.cause, claim.issue.id)
                blocked = _blocked(claim, error, now)
                state.claims.put(blocked)
                commands.append(blocked.saved())
            case Blocked() if event.identifier is not None and claim.category != STOPPED:
                # No change in the tracker, no time and no raise starts it any more. A stop of all
                # work leaves blocks alone: its lifting must not start what waits for an answer.
                stopped = replace(
                    claim,
                    category=STOPPED,
                    error=error,
                    since_wall=now.wall,
                    crossed=None,
                    until_mono=None,
                    until_wall=None,
                )
                state.claims.put(stopped)
                commands.append(stopped.saved())
            case Blocked() | Cleaning():
                pass
            case _:
                assert_never(claim)
    return commands


def look_at_hours(state: SchedulerState, now: Instant) -> list[Command]:
    """Follow the wall clock into and out of the active hours; called before each step."""
    hours = state.hours
    if hours.rules is not state.rules.hours:
        hours.use(state.rules.hours, now)
    else:
        hours.look(now)
    if hours.lets_start == hours.told or not state.started:
        return []
    hours.told = hours.lets_start
    if hours.lets_start:
        state.claims.freed = True
        return [Note(Level.INFO, "active hours: work may start again")]
    told = Note(Level.INFO, "active hours: nothing starts", {"why": hours.why_shut})
    if state.settings.agent.after_hours == "continue":
        return [told]
    return [told, *_end_turns(state, ControlRequested(ControlAction.DRAIN))]


def _override_hours(state: SchedulerState, event: ControlRequested, now: Instant) -> list[Command]:
    override = Override(now.wall, now.wall_after(event.for_s)) if event.for_s > 0 else None
    state.hours.lift(override, now)
    return [SaveOverride(override), *look_at_hours(state, now), *request_poll(state, now)]


def _reset_breaker(state: SchedulerState, event: ControlRequested, now: Instant) -> list[Command]:
    one = event.failure_class
    commands = state.breaker.reset() if one is None else state.breaker.reset([one])
    state.claims.freed = True
    return [*commands, *request_poll(state, now)]


def _retry(state: SchedulerState, event: ControlRequested, now: Instant) -> list[Command]:
    commands: list[Command] = []
    for claim in _of(state, event):
        crossed = holds_back(state, claim)
        if crossed is not None:
            reason = crossed.sentence
            commands.append(note(Level.WARNING, "stays blocked", claim.issue, reason=reason))
        elif isinstance(claim, RetryQueued | Blocked):
            commands.append(run_again(state, claim, now))
        elif isinstance(claim, Running):
            commands.extend(_take_back_stop(state, claim))
    return [*commands, *_choose_canary(state, event, now), *request_poll(state, now)]


def _choose_canary(state: SchedulerState, event: ControlRequested, now: Instant) -> list[Command]:
    """Let the named issue be the one that an open breaker tries, if only the breaker holds it."""
    if event.identifier is None or not state.breaker.tripped:
        return []
    claim = next(iter(_of(state, event)), None)
    if claim is not None and not isinstance(claim, RetryQueued | Rechecking):
        return []
    waiting = (issue for issue, _ in state.waiting if issue.identifier == event.identifier)
    issue = event.found or next(waiting, None) if claim is None else claim.issue
    if issue is None:
        return []
    view = replace(state.view(), breaker=lambda _issue_id: None)
    shut = first_shut(issue, view, claimed=True)
    if shut is not None and shut.name not in SLOT_GATES:
        # It could not start: its place would be kept from all others for nothing.
        return [note(Level.WARNING, "not chosen for the breaker", issue, reason=shut.detail)]
    return state.breaker.choose(issue, now)


def _mark_stopped(state: SchedulerState, claim: Running, error: str) -> Command:
    """Note the stop on the run, and durably: the daemon may die before the run has ended."""
    state.claims.put(replace(claim, stopping=StopReason.OPERATOR, stop_error=error, resumed=False))
    return SaveStop(claim.spec.run_id, claim.issue.id, error)


def _take_back_stop(state: SchedulerState, claim: Running) -> list[Command]:
    """Let a run that is being stopped be followed by another one."""
    if claim.stopping is not StopReason.OPERATOR or claim.resumed:
        return []
    state.claims.put(replace(claim, resumed=True))
    return [SaveStop(claim.spec.run_id, claim.issue.id, None)]


def _answer(state: SchedulerState, event: ControlRequested, now: Instant) -> list[Command]:
    commands: list[Command] = []
    for claim in _of(state, event):
        if (
            isinstance(claim, Blocked)
            and event.answer is not None
            and takes_answer(claim, state.rules)
        ):
            commands.extend(answer(state, claim, event.answer, event.by, now))
    return commands


def _unpark(state: SchedulerState, now: Instant) -> list[Command]:
    """Let work start before a usage limit is reset: the operator has raised it, or hopes."""
    park = state.park
    if park is None:
        return []
    state.park = None
    commands: list[Command] = [DropPark()]
    for claim in list(state.claims):
        if isinstance(claim, RetryQueued) and abs(claim.due_mono - park.until_mono) < _SAME_TIME_S:
            queued = replace(claim, due_mono=now.mono, due_wall=now.wall)
            state.claims.put(queued)
            commands.append(queued.saved())
    state.claims.freed = True
    return [*commands, *request_poll(state, now)]


def _blocked(claim: RetryQueued | Rechecking | Dispatching, error: str, now: Instant) -> Blocked:
    if isinstance(claim, Dispatching):
        return Blocked(issue=claim.issue, category=STOPPED, error=error, since_wall=now.wall)
    retry = claim.retry if isinstance(claim, Rechecking) else claim
    return Blocked(
        issue=retry.issue,
        category=STOPPED,
        error=error,
        since_wall=now.wall,
        attempt=retry.attempt,
        retry_kind=retry.retry_kind,
        thread_id=retry.thread_id,
        host=retry.host,
        workspace_path=retry.workspace_path,
        scope=retry.scope,
        reply=retry.reply,
    )


def _of(state: SchedulerState, event: ControlRequested) -> list[Claim]:
    return [
        claim
        for claim in state.claims
        if event.identifier is None or claim.issue.identifier == event.identifier
    ]
