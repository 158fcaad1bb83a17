"""One event in, commands out: the whole of the scheduler's behaviour (SPEC 7, 8, 16).

``step`` is the only function that changes a ``SchedulerState``. It answers every event, also late,
doubled and impossible ones: what does not fit is dropped with a debug note. It never waits, reads
no clock and draws chance only from the state's own generator, so a list of events replays exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

from symphony.model.clock import Instant
from symphony.model.run import StopReason

from .budget import change_rules, end_if_spent, lift, spend_reported, turn_page
from .claims import Blocked, Cleaning, Rechecking, RetryQueued, Running
from .commands import (
    CleanWorkspace,
    Command,
    DropClaim,
    DropPark,
    FetchTerminal,
    FinishRun,
    Level,
    Note,
    RefreshPurpose,
    SaveEnd,
    StopRun,
)
from .conditions import check_places, judge_resources, take_resources
from .controls import control, look_at_hours
from .dispatch import (
    allocate,
    dispatch_read,
    dispatch_read_failed,
    recheck_due,
    retry_read,
    retry_read_failed,
)
from .eligibility import GateName, Rules, Standing, first_shut
from .events import (
    CandidatesFailed,
    CandidatesFetched,
    CleanupEnded,
    ConfigBroken,
    ConfigRepaired,
    ControlRequested,
    Event,
    IssuesRefreshed,
    PaceObserved,
    PlacesChecked,
    RefreshFailed,
    RefreshRequested,
    ResourcesRead,
    Restored,
    RestoredClaim,
    RunEnded,
    RunIssueChanged,
    RunSilent,
    SettingsChanged,
    ShutdownRequested,
    SpendReported,
    TerminalFailed,
    TerminalFetched,
    WakeUp,
)
from .notes import note
from .placement import LOCAL_HOST
from .polling import (
    begin_poll,
    candidates_failed,
    candidates_fetched,
    pace_observed,
    reconcile_answered,
    reconcile_failed,
    replan_poll,
    request_poll,
)
from .reconcile import confirm_missing, forget_missing, reconciled, run_issue_changed, run_silent
from .restoring import claim_again, park_again, run_again
from .retry import settle
from .state import Asked, SchedulerState
from .unblocking import blocks_ended

_REFRESHES = tuple(RefreshPurpose)


def step(state: SchedulerState, event: Event, now: Instant) -> list[Command]:
    """Apply one event and return what the shell is to do, in order.

    Args:
        state: Changed in place.
        event: What happened; any order is survived.
        now: When; it must not go back on the monotonic clock.
    """
    turn_page(state, now)
    commands = [*look_at_hours(state, now), *_apply(state, event, now)]
    if state.claims.freed:
        state.claims.freed = False
        if state.claims.contending:
            commands = [*commands, *allocate(state, now)]
    return commands


def _apply(state: SchedulerState, event: Event, now: Instant) -> list[Command]:
    match event:
        case WakeUp():
            return _wake_up(state, now)
        case RefreshRequested():
            return request_poll(state, now) if _is_live(state) else []
        case PaceObserved():
            return pace_observed(state, event, now)
        case SettingsChanged():
            return _settings_changed(state, event, now)
        case ConfigBroken():
            return _config_broken(state, event)
        case ConfigRepaired():
            return _config_repaired(state)
        case CandidatesFetched() | CandidatesFailed():
            return _candidates_answered(state, event, now)
        case IssuesRefreshed():
            return _issues_refreshed(state, event, now)
        case RefreshFailed():
            return _refresh_failed(state, event, now)
        case TerminalFetched() | TerminalFailed():
            return _terminal_answered(state, event, now)
        case RunIssueChanged():
            return run_issue_changed(state, event)
        case RunSilent():
            return run_silent(state, event)
        case RunEnded():
            return _run_ended(state, event, now)
        case SpendReported():
            return spend_reported(state, event)
        case CleanupEnded():
            return _cleanup_ended(state, event)
        case ControlRequested():
            return control(state, event, now) if _is_live(state) else []
        case Restored():
            return _restored(state, event, now)
        case ResourcesRead():
            return take_resources(state, event, now)
        case PlacesChecked():
            return check_places(state, event)
        case ShutdownRequested():
            return _shutdown(state)
        case _:
            assert_never(event)


def _paces(rules: Rules) -> tuple[float, float, float]:
    return rules.interval_s, rules.webhook_interval_s, rules.longest_interval_s


def _is_live(state: SchedulerState) -> bool:
    return state.started and not state.shutting_down


def _dropped(event: Event) -> list[Command]:
    return [Note(Level.DEBUG, "late answer dropped", {"answer": type(event).__name__})]


def _wake_up(state: SchedulerState, now: Instant) -> list[Command]:
    if not _is_live(state):
        return []
    commands: list[Command] = []
    if state.park is not None and state.park.until_mono <= now.mono:
        commands.append(DropPark())
        commands.append(Note(Level.INFO, "dispatch resumes", {"reason": state.park.reason}))
        state.park = None
        state.claims.freed = True
    due = state.breaker.next_due()
    if due is not None and due <= now.mono:
        commands.extend(state.breaker.wake_up(now))
        state.claims.freed = True
    commands.extend(begin_poll(state, now))
    commands.extend(blocks_ended(state, now))
    commands.extend(recheck_due(state, now))
    commands.extend(confirm_missing(state, now))
    return commands


def _settings_changed(state: SchedulerState, event: SettingsChanged, now: Instant) -> list[Command]:
    before = state.rules
    state.settings = event.settings
    state.rules = Rules.from_settings(event.settings)
    commands = [*_config_repaired(state), *change_rules(state, event.settings, now)]
    commands.extend(look_at_hours(state, now))
    commands.extend(judge_resources(state, now))
    if not state.rules.breaker.failures:
        commands.extend(state.breaker.reset())
    if _paces(state.rules) != _paces(before):
        replan_poll(state, now)
    if state.rules.scope != before.scope:
        # What the former tracker showed no longer counts, and a poll of this one is due.
        state.generation += 1
        state.scope = state.number_of(state.rules.scope)
        forget_missing(state)
        state.poll.not_before_mono = 0.0
        state.poll.held = None
        state.waiting = ()
        state.poll.pace.forget()
        if _is_live(state):
            commands.extend(request_poll(state, now))
    _judge_waiting(state)
    state.claims.freed = True
    return commands


def _judge_waiting(state: SchedulerState) -> None:
    """Show those who wait under the rules in force; the next poll finds who else there is."""
    view = state.view()
    judged = ((issue, first_shut(issue, view)) for issue, _ in state.waiting)
    state.waiting = tuple(
        (issue, gate)
        for issue, gate in judged
        if gate is not None and gate.name not in (GateName.ACTIVE, GateName.NOT_TERMINAL)
    )


def _config_broken(state: SchedulerState, event: ConfigBroken) -> list[Command]:
    if state.config_error == event.message:
        return []
    state.config_error = event.message
    return [
        Note(
            Level.ERROR,
            "configuration is invalid: dispatch waits, the last good one stays",
            {"error": event.message},
        )
    ]


def _config_repaired(state: SchedulerState) -> list[Command]:
    if state.config_error is None:
        return []
    state.config_error = None
    state.claims.freed = True
    return [Note(Level.INFO, "configuration is valid again")]


def _candidates_answered(
    state: SchedulerState, event: CandidatesFetched | CandidatesFailed, now: Instant
) -> list[Command]:
    pending = state.answered(event.cause, Asked.CANDIDATES)
    if pending is None:
        return _dropped(event)
    if isinstance(event, CandidatesFailed):
        return candidates_failed(state, event, now)
    return candidates_fetched(state, pending, event, now)


def _issues_refreshed(state: SchedulerState, event: IssuesRefreshed, now: Instant) -> list[Command]:
    pending = state.answered(event.cause, *_REFRESHES)
    if pending is None:
        return _dropped(event)
    unread = event.failed or RefreshFailed(event.cause, "tracker_request", "not all could be read")
    match pending.asked:
        case RefreshPurpose.DISPATCH if event.unread:
            return dispatch_read_failed(state, pending, unread, now)
        case RefreshPurpose.RETRY if event.unread:
            return retry_read_failed(state, pending, unread, now)
        case RefreshPurpose.DISPATCH:
            return dispatch_read(state, pending, event, now)
        case RefreshPurpose.RETRY:
            return retry_read(state, pending, event, now)
        case RefreshPurpose.RECONCILE:
            commands = reconciled(state, pending, event, now)
            if event.failed is not None:
                return [*commands, *reconcile_failed(state, event.failed, now)]
            return [*commands, *reconcile_answered(state, now)]
        case _:
            return reconciled(state, pending, event, now)


def _refresh_failed(state: SchedulerState, event: RefreshFailed, now: Instant) -> list[Command]:
    pending = state.answered(event.cause, *_REFRESHES)
    if pending is None:
        return _dropped(event)
    match pending.asked:
        case RefreshPurpose.DISPATCH:
            return dispatch_read_failed(state, pending, event, now)
        case RefreshPurpose.RETRY:
            return retry_read_failed(state, pending, event, now)
        case RefreshPurpose.RECONCILE:
            return reconcile_failed(state, event, now)
        case _:
            # The next cycle reads the missing issues anyway.
            state.read_failed(event.message, event.retry_after_s, now=now)
            fields = {"category": event.category, "error": event.message}
            return [Note(Level.WARNING, "second read of missing issues failed", fields)]


def _terminal_answered(
    state: SchedulerState, event: TerminalFetched | TerminalFailed, now: Instant
) -> list[Command]:
    pending = state.answered(event.cause, Asked.TERMINAL)
    if pending is None:
        return _dropped(event)
    if isinstance(event, TerminalFailed):
        fields = {"category": event.category, "error": event.message}
        return [Note(Level.WARNING, "clean-up of finished issues skipped", fields)]
    commands: list[Command] = []
    for issue in event.issues:
        is_terminal = state.rules.standing(issue) is Standing.TERMINAL
        # A claimed one is cleaned by its own way out, from its recorded workspace.
        if is_terminal and issue.id not in state.claims:
            cause = state.ask(Asked.CLEANUP, [issue.id], now=now)
            state.claims.put(Cleaning(issue=issue, cause=cause))
            commands.append(CleanWorkspace(cause, issue, None, LOCAL_HOST))
    return commands


def _run_ended(state: SchedulerState, event: RunEnded, now: Instant) -> list[Command]:
    run = state.claims.run(event.run_id)
    if run is None:
        return _dropped(event)
    return [SaveEnd(event), *settle(state, run, event, now), *end_if_spent(state)]


def _cleanup_ended(state: SchedulerState, event: CleanupEnded) -> list[Command]:
    pending = state.answered(event.cause, Asked.CLEANUP)
    if pending is None:
        return _dropped(event)
    (issue_id,) = pending.ids
    claim = state.claims.get(issue_id)
    assert isinstance(claim, Cleaning)
    state.claims.drop(issue_id)
    if event.error is None:
        return [DropClaim(issue_id)]
    # The workspace is left to the clean-up of the next start: holding the claim would help nobody.
    return [
        DropClaim(issue_id),
        note(Level.WARNING, "workspace was not removed", claim.issue, error=event.error),
    ]


def _restored(state: SchedulerState, event: Restored, now: Instant) -> list[Command]:
    if state.started:
        return _dropped(event)
    state.started = True
    state.usage, state.seconds = event.usage, event.seconds
    state.holds = {hold.scope: hold for hold in event.holds}
    state.breaker.restore(event.breakers, now)
    state.hours.lift(event.override, now)
    commands = [] if state.rules.breaker.failures else state.breaker.reset()
    state.books.restore(event.spend)
    state.park = park_again(event.park, now)
    commands.extend(look_at_hours(state, now))
    for restored in event.claims:
        if restored.issue.id in state.claims:
            commands.append(note(Level.WARNING, "second claim in the ledger", restored.issue))
        elif restored.ended is not None and restored.had_ended:
            commands.append(_finish_again(state, restored, restored.ended, now))
        else:
            claim = claim_again(restored, now)
            state.claims.put(claim)
            if restored.stopped is not None:
                # The order outlived the run: from here on the ledger has it as a block.
                commands.append(claim.saved())
    commands.extend(lift(state, now))
    if state.rules.terminal_names:
        cause = state.ask(Asked.TERMINAL, now=now)
        commands.append(FetchTerminal(cause, state.rules.terminal_names))
    state.poll.next_mono = now.mono
    return [*commands, *_wake_up(state, now)]


def _finish_again(
    state: SchedulerState, restored: RestoredClaim, ended: RunEnded, now: Instant
) -> Command:
    """Have a run wound up whose agent had its last word before the daemon ended.

    What it has spent is in the sums already: it is taken out of those of ended runs, into which its
    end puts it, and booked as reported.
    """
    run = run_again(restored, now, state.scope)
    state.claims.put(run)
    state.usage = state.usage.since(ended.usage)
    state.seconds = max(0.0, state.seconds - ended.seconds)
    if ended.spend is not None:
        state.books.live[run.spec.run_id] = ended.spend
    return FinishRun(run.spec, ended)


def _shutdown(state: SchedulerState) -> list[Command]:
    """End every run and start nothing; what the ledger holds is left for the next lifetime.

    Reads in flight are forgotten. Clean-ups go on: the shell bounds how long it waits for them.
    """
    if state.shutting_down:
        return []
    state.shutting_down = True
    state.poll.next_mono = state.poll.reconcile = state.poll.candidates = state.poll.held = None
    state.confirm_mono = None
    state.pending = {
        cause: pending for cause, pending in state.pending.items() if pending.asked is Asked.CLEANUP
    }
    commands: list[Command] = []
    for claim in list(state.claims):
        match claim:
            case Running(stopping=None):
                state.claims.put(replace(claim, stopping=StopReason.SHUTDOWN))
                commands.append(StopRun(claim.spec.run_id, StopReason.SHUTDOWN))
            case Rechecking():
                state.claims.put(claim.retry)
            case Running() | RetryQueued() | Blocked() | Cleaning():
                pass
            case _:
                # Only chosen, never durable: nothing is lost.
                state.claims.drop(claim.issue.id)
    return commands


Step = Callable[[SchedulerState, Event, Instant], list[Command]]
"""The signature of ``step``, for shells that wrap it (a recorder, a simulation)."""
