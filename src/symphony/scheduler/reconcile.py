"""Compare what we hold with what the tracker shows, and correct what we hold (SPEC 8.5).

Stops are graded by evidence: a state or a label is proof, absence is not. An issue that a read
lacks is only marked; it is let go of when a second read, some seconds later, lacks it too. So an
empty or partial answer never ends healthy work. A run that is being stopped stays claimed until it
has ended.
"""

from __future__ import annotations

from dataclasses import replace

from symphony.model.clock import Instant
from symphony.model.issue import Issue, IssueId
from symphony.model.run import StopReason

from .claims import Blocked, Claim, RetryQueued, Running, is_same
from .commands import Command, Level, RefreshIssues, RefreshPurpose, StopRun
from .dispatch import let_go
from .eligibility import Standing
from .events import IssuesRefreshed, RunIssueChanged, RunSilent
from .notes import note
from .retry import clean
from .state import Pending, SchedulerState
from .unblocking import blocked_seen

CONFIRM_AFTER_S = 5.0
"""How long after the first lack the second read begins that may confirm it: by then a short fault
of the tracker should be over, and however fast we poll, one fault can't count twice."""

_STOPS = {
    Standing.TERMINAL: StopReason.TERMINAL,
    Standing.INACTIVE: StopReason.INACTIVE,
    Standing.UNROUTABLE: StopReason.UNROUTABLE,
}

_BY_US = frozenset({StopReason.STALLED, StopReason.BUDGET_DAY, StopReason.BUDGET_TOTAL})
"""Stops after which the issue would run again, which what the tracker shows may overrule."""

_BY_TRACKER = frozenset({*_STOPS.values(), StopReason.MISSING})
"""Stops that follow from what the tracker shows, and so may change with it until the run ends."""


def reconcile_ids(state: SchedulerState) -> list[IssueId]:
    """Return the issues that a cycle reads: runs, blocks, and due retries that wait for a gate."""
    return [claim.issue.id for claim in state.claims if _is_reconciled(claim)]


def _is_reconciled(claim: Claim) -> bool:
    match claim:
        case Running() | Blocked():
            return True
        case RetryQueued():
            return claim.hold is not None
        case _:
            return False


def reconciled(
    state: SchedulerState, pending: Pending, answer: IssuesRefreshed, now: Instant
) -> list[Command]:
    """Apply a read of held issues, a cycle's or the second one of missing issues.

    Those whose tracker could not be read stay as they are.
    """
    if pending.generation != state.generation:
        # The tracker that answered is no longer in force; the next cycle asks the one that is.
        return []
    found = {issue.id: issue for issue in answer.issues}
    commands: list[Command] = []
    for issue_id in pending.ids:
        if issue_id in answer.unread:
            continue
        claim = state.claims.get(issue_id)
        issue = found.get(issue_id)
        if (
            issue is not None
            and isinstance(claim, (Running, RetryQueued, Blocked))
            and not is_same(claim, issue, state.scope)
        ):
            issue = None
        match claim:
            case Running() if issue is not None:
                commands.extend(_running_seen(state, claim, issue))
            case Running():
                commands.extend(_running_missing(state, claim, pending, now))
            case Blocked() if issue is not None:
                commands.extend(_blocked_seen(state, claim, issue, pending, now))
            case Blocked():
                commands.extend(_idle_missing(state, claim, pending, now))
            case RetryQueued(hold=None):
                # Its own read decides once it is due.
                pass
            case RetryQueued() if issue is not None:
                commands.extend(_idle_seen(state, claim, issue, now))
            case RetryQueued():
                commands.extend(_idle_missing(state, claim, pending, now))
            case _:
                # The claim changed while the read was in flight.
                pass
    return commands


def _running_seen(state: SchedulerState, claim: Running, issue: Issue) -> list[Command]:
    standing = state.rules.standing(issue)
    reason = _STOPS.get(standing)
    claim = replace(claim, issue=issue, scope=state.scope, missing_since=None)
    if claim.stopping is None:
        return _stop(state, claim, reason) if reason else _keep(state, claim)
    if reason is not None and claim.stopping in _BY_TRACKER | _BY_US:
        claim = replace(claim, stopping=reason)
    elif reason is None and claim.stopping in _BY_TRACKER:
        # It came back while its run was ending: nothing may be cleaned, a poll takes it up again.
        claim = replace(claim, stopping=StopReason.INACTIVE)
    return _keep(state, claim)


def _keep(state: SchedulerState, claim: Running | Blocked | RetryQueued) -> list[Command]:
    state.claims.put(claim)
    return []


def _stop(state: SchedulerState, claim: Running, reason: StopReason) -> list[Command]:
    state.claims.put(replace(claim, stopping=reason))
    return [
        StopRun(claim.spec.run_id, reason),
        note(
            Level.INFO,
            "stopping run",
            claim.issue,
            run_id=claim.spec.run_id,
            reason=reason.value,
            state=claim.issue.state,
        ),
    ]


def _running_missing(
    state: SchedulerState, claim: Running, pending: Pending, now: Instant
) -> list[Command]:
    if claim.stopping is not None or claim.scope != state.scope:
        # The second: another tracker than the run's own was asked, its silence proves nothing.
        return []
    if _is_confirmed(claim, pending):
        return _stop(state, claim, StopReason.MISSING)
    return _mark_missing(state, claim, now)


def _idle_missing(
    state: SchedulerState, claim: Blocked | RetryQueued, pending: Pending, now: Instant
) -> list[Command]:
    if _is_confirmed(claim, pending):
        return let_go(state, claim.issue, StopReason.MISSING.value)
    return _mark_missing(state, claim, now)


def _is_confirmed(claim: Running | Blocked | RetryQueued, pending: Pending) -> bool:
    since = claim.missing_since
    return since is not None and pending.issued_mono >= since + CONFIRM_AFTER_S


def _mark_missing(
    state: SchedulerState, claim: Running | Blocked | RetryQueued, now: Instant
) -> list[Command]:
    if claim.missing_since is not None:
        return []
    state.claims.put(replace(claim, missing_since=now.mono))
    if state.confirm_mono is None:
        state.confirm_mono = now.mono + CONFIRM_AFTER_S
    return [note(Level.WARNING, "missing in the tracker, reading it once more", claim.issue)]


def _blocked_seen(
    state: SchedulerState, claim: Blocked, issue: Issue, pending: Pending, now: Instant
) -> list[Command]:
    if state.rules.standing(issue) is Standing.WANTED:
        return blocked_seen(state, claim, issue, pending.issued_mono, now)
    return _idle_seen(state, claim, issue, now)


def _idle_seen(
    state: SchedulerState, claim: Blocked | RetryQueued, issue: Issue, now: Instant
) -> list[Command]:
    claim = replace(claim, missing_since=None, issue=issue, scope=state.scope)
    match state.rules.standing(issue):
        case Standing.TERMINAL:
            return clean(state, claim, now)
        case Standing.WANTED:
            # A waiting retry's new state may have room where the old one had none.
            state.claims.freed = True
            return _keep(state, claim)
        case standing:
            return let_go(state, issue, standing.value)


def confirm_missing(state: SchedulerState, now: Instant) -> list[Command]:
    """Issue the second read of issues that a first one lacked, once its time has come."""
    if state.confirm_mono is None or state.confirm_mono > now.mono:
        return []
    state.confirm_mono = None
    ids = [
        claim.issue.id
        for claim in state.claims
        if isinstance(claim, (Running, Blocked, RetryQueued)) and claim.missing_since is not None
    ]
    if not ids:
        return []
    cause = state.ask(RefreshPurpose.CONFIRM_MISSING, ids, now=now)
    return [RefreshIssues(cause, RefreshPurpose.CONFIRM_MISSING, tuple(ids))]


def forget_missing(state: SchedulerState) -> None:
    """Begin to count anew after a change of the scope: both reads have to be of one tracker."""
    state.confirm_mono = None
    for claim in list(state.claims):
        if isinstance(claim, (Running, Blocked, RetryQueued)) and claim.missing_since is not None:
            state.claims.put(replace(claim, missing_since=None))


def run_silent(state: SchedulerState, event: RunSilent) -> list[Command]:
    """Stop a stalled run; its claim stays until it has ended, then it backs off as a failure.

    A run that is being stopped and stays silent is told once more, for the same reason.
    """
    claim = state.claims.run(event.run_id)
    limit_s = state.rules.stall_timeout_s
    if claim is None or not 0 < limit_s < event.silent_s:
        return []
    if claim.stopping is not None:
        return [StopRun(event.run_id, claim.stopping)]
    error = f"stalled for {round(event.silent_s * 1000)}ms without codex activity"
    return _stop(state, replace(claim, stop_error=error), StopReason.STALLED)


def run_issue_changed(state: SchedulerState, event: RunIssueChanged) -> list[Command]:
    """Take over the newer snapshot that a run read itself; the run decides whether it goes on.

    A run reads its issue after a turn that ended well, which is all that a canary has to show.
    """
    claim = state.claims.run(event.run_id)
    if claim is None or event.issue.id != claim.issue.id:
        return []
    state.claims.put(replace(claim, issue=event.issue, missing_since=None))
    return state.breaker.turn_ended_well(claim.issue.id)
