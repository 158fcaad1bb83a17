"""From state to what people see: the snapshot and the explanation of one issue (SPEC 13.3).

Apart from ``snapshot``, which holds the rows only, so that readers of rows never import the state.
Both functions look and change nothing; a snapshot costs one walk over the claims.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

from symphony.model.clock import Instant
from symphony.model.issue import Issue, IssueId
from symphony.model.run import Phase, RunId, RunProgress
from symphony.model.usage import TokenUsage

from .books import budgets_row
from .claims import Blocked, Cleaning, Rechecking, RetryQueued, Running
from .eligibility import Gate, gates
from .events import Hold
from .lifting import lift
from .snapshot import (
    BlockedRow,
    HoldRow,
    PollingRow,
    RetryingRow,
    RunningRow,
    Snapshot,
    TrackerRow,
    WaitingRow,
)
from .state import SchedulerState
from .unblocking import ways_of


class _IssueFields(TypedDict):
    issue_id: str
    issue_identifier: str
    issue_title: str
    issue_url: str | None
    state: str
    profile: str | None


def explain(state: SchedulerState, issue: Issue) -> list[Gate]:
    """Return every gate's answer for this issue now, in the order in which dispatch asks them."""
    return [
        gate if gate.passed else replace(gate, lift=lift(gate.name, issue, state))
        for gate in gates(issue, state.view())
    ]


def build_snapshot(
    state: SchedulerState,
    progress: Mapping[RunId, RunProgress],
    now: Instant,
    *,
    sequence: int,
    rate_limits: Any,
    tracker: TrackerRow | None = None,
    webhook_error: str | None = None,
    ledger_error: str | None = None,
) -> Snapshot:
    """Return the view of this moment.

    Args:
        state: Between two steps.
        progress: Live records of the running runs; a run without one has only just been started.
        now: Ages and countdowns are measured against it.
        sequence: One more than the last snapshot's.
        rate_limits: The newest useful payload of Codex, as received, or None.
        tracker: The tracker in force.
        webhook_error: What is wrong with the webhooks, or None.
        ledger_error: Why the ledger can't be written, or None.
    """
    rows = _claim_rows(state, progress, now)
    live = TokenUsage()
    for row in rows.running:
        live = live + row.usage
    park = state.park
    return Snapshot(
        sequence=sequence,
        generated_wall=now.wall,
        generated_mono=now.mono,
        workflow_id=state.workflow_id,
        running=tuple(rows.running),
        retrying=tuple(rows.retrying),
        blocked=tuple(rows.blocked),
        cleaning=tuple(rows.cleaning),
        usage=state.usage + live,
        seconds_running=state.seconds + sum(row.runtime_s for row in rows.running),
        rate_limits=rate_limits,
        polling=_polling_row(state, now),
        max_concurrent_agents=state.rules.max_agents,
        config_error=state.config_error,
        tracker_error=state.tracker_error,
        waiting=tuple(_waiting_row(state, issue, gate) for issue, gate in state.waiting),
        holds=tuple(_hold_row(hold) for hold in state.holds.values()),
        breakers=state.breaker.rows(state.claims),
        budget=budgets_row(state.books, _shown_issues(state)),
        hours=state.hours.row(),
        resources=state.resources.rows(),
        lost=state.lost,
        shutting_down=state.shutting_down,
        parked=None if park is None else park.reason,
        parked_until_wall=None if park is None else park.until_wall,
        tracker=tracker,
        webhook_error=webhook_error,
        ledger_error=ledger_error,
    )


def _shown_issues(state: SchedulerState) -> list[IssueId]:
    """Return the issues whose spend a snapshot shows: those of its rows."""
    waiting = (issue.id for issue, _ in state.waiting)
    return list(dict.fromkeys((*(claim.issue.id for claim in state.claims), *waiting)))


def _polling_row(state: SchedulerState, now: Instant) -> PollingRow:
    poll = state.poll
    return PollingRow(
        checking=poll.checking,
        next_poll_in_s=None if poll.next_mono is None else max(0.0, poll.next_mono - now.mono),
        interval_s=poll.pace.interval_s or state.rules.interval_s,
        reason=poll.pace.reason,
    )


def _hold_row(hold: Hold) -> HoldRow:
    return HoldRow(
        identifier=hold.scope,
        kind=hold.kind.value,
        reason=hold.reason,
        by=hold.by,
        since_wall=hold.since_wall,
    )


@dataclass(slots=True)
class _ClaimRows:
    running: list[RunningRow] = field(default_factory=list)
    retrying: list[RetryingRow] = field(default_factory=list)
    blocked: list[BlockedRow] = field(default_factory=list)
    cleaning: list[str] = field(default_factory=list)


def _claim_rows(
    state: SchedulerState, progress: Mapping[RunId, RunProgress], now: Instant
) -> _ClaimRows:
    rows = _ClaimRows()
    for claim in state.claims:
        match claim:
            case Running():
                rows.running.append(_running_row(state, claim, progress, now))
            case RetryQueued():
                rows.retrying.append(_retrying_row(state, claim, now))
            case Rechecking():
                rows.retrying.append(_retrying_row(state, claim.retry, now))
            case Blocked():
                rows.blocked.append(_blocked_row(state, claim))
            case Cleaning():
                rows.cleaning.append(claim.issue.identifier)
            case _:
                # Chosen issues are shown once they run.
                pass
    return rows


def _issue_fields(issue: Issue, state: SchedulerState) -> _IssueFields:
    profile = state.settings.agent.profile_of(issue)
    return {
        "profile": None if profile is None else profile.name,
        "issue_id": issue.id,
        "issue_identifier": issue.identifier,
        "issue_title": issue.title,
        "issue_url": issue.url,
        "state": issue.state,
    }


def _running_row(
    state: SchedulerState, claim: Running, progress: Mapping[RunId, RunProgress], now: Instant
) -> RunningRow:
    record = progress.get(claim.spec.run_id)
    if record is None:
        # The same defaults as a record that has seen nothing yet.
        record = RunProgress(
            run_id=claim.spec.run_id,
            issue=claim.issue,
            attempt=claim.spec.attempt,
            host=claim.spec.host,
            started_mono=claim.started_mono,
            started_wall=claim.started_wall,
            last_activity_mono=claim.started_mono,
            phase=Phase.PREPARING_WORKSPACE,
        )
    return RunningRow(
        **_issue_fields(claim.issue, state),
        run_id=claim.spec.run_id,
        phase=record.phase.value,
        attempt=claim.spec.attempt,
        host=claim.spec.host,
        workspace_path=record.workspace_path or claim.workspace_path,
        process_id=record.process_id,
        session_id=record.session_id,
        thread_id=record.thread_id or claim.spec.thread_id,
        turn_count=record.turn_count,
        last_event=record.last_event,
        last_message=record.last_message,
        last_event_wall=record.last_event_wall,
        started_wall=record.started_wall,
        runtime_s=max(0.0, now.mono - record.started_mono),
        usage=record.usage,
        stopping=claim.stopping.value if claim.stopping is not None else None,
    )


def _retrying_row(state: SchedulerState, claim: RetryQueued, now: Instant) -> RetryingRow:
    return RetryingRow(
        **_issue_fields(claim.issue, state),
        attempt=claim.attempt or 0,
        retry_kind=claim.retry_kind.value,
        due_in_s=max(0.0, claim.due_mono - now.mono),
        due_wall=claim.due_wall,
        error=claim.shown_error,
        host=claim.host,
        workspace_path=claim.workspace_path,
        waiting_for_slot=claim.waits_for_slot,
        category=claim.category,
    )


def _blocked_row(state: SchedulerState, claim: Blocked) -> BlockedRow:
    return BlockedRow(
        **_issue_fields(claim.issue, state),
        category=claim.category,
        error=claim.error,
        blocked_wall=claim.since_wall,
        host=claim.host,
        workspace_path=claim.workspace_path,
        session_id=claim.session_id,
        last_event=claim.last_event,
        last_message=claim.last_message,
        last_event_wall=claim.last_event_wall,
        question=claim.question,
        unblock_by=tuple(way.value for way in ways_of(claim, state.rules)),
        until_wall=claim.until_wall,
    )


def _waiting_row(state: SchedulerState, issue: Issue, gate: Gate) -> WaitingRow:
    return WaitingRow(**_issue_fields(issue, state), gate=gate.name.value, detail=gate.detail)
