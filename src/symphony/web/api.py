"""Snapshots as JSON: pure functions from rows to the shapes of the API, and their encoding.

Role: presents a snapshot, one issue of it, or a refresh receipt (SPEC 13.7.2).
Invariant: no I/O and no clock; what an agent or a tracker wrote is passed as data, and events are
one clean line. A snapshot is presented and encoded once, however many read it.
Neighbours: ``shapes`` has the fields, ``app`` the routes, ``observe.humanize`` the texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Literal, TypedDict, TypeVar

import msgspec

from symphony.model.clock import iso
from symphony.model.question import Question
from symphony.model.usage import TokenUsage
from symphony.observe.humanize import humanize
from symphony.scheduler.snapshot import (
    BlockedRow,
    BreakerRow,
    HoldRow,
    HoursRow,
    RetryingRow,
    RunningRow,
    Snapshot,
    TrackerRow,
    WaitingRow,
)

from . import shapes
from .backend import Explained, RefreshReceipt
from .budgets import issue_budget, present_budget

RECENT_EVENTS = 20
RECENT_RUNS = 10
_encoder = msgspec.json.Encoder(enc_hook=str)
_Row = TypeVar("_Row", RunningRow, RetryingRow, BlockedRow, WaitingRow)


def encode(body: Any) -> bytes:
    """Encode as JSON; surrogates, which trackers can send and UTF-8 can't carry, become ``?``."""
    try:
        return _encoder.encode(body)
    except UnicodeEncodeError:
        return _encoder.encode(_without_surrogates(msgspec.to_builtins(body, enc_hook=str)))


class SnapshotCache:
    """What a snapshot was rendered to, kept until another snapshot is asked for."""

    __slots__ = ("_body", "_render", "_snapshot")

    def __init__(self, render: Callable[[Snapshot], bytes]) -> None:
        self._render = render
        self._snapshot: Snapshot | None = None
        self._body = b""

    def get(self, snapshot: Snapshot) -> bytes:
        """Return the rendering of ``snapshot``, made at most once while it is the newest."""
        if self._snapshot is not snapshot:
            self._body = self._render(snapshot)
            self._snapshot = snapshot
        return self._body


def present_state(snapshot: Snapshot) -> shapes.State:
    """Return the whole snapshot for ``/api/v1/state``."""
    usage = snapshot.usage
    return shapes.State(
        generated_at=iso(snapshot.generated_wall),
        counts=shapes.Counts(
            running=len(snapshot.running),
            retrying=len(snapshot.retrying),
            blocked=len(snapshot.blocked),
            waiting=len(snapshot.waiting),
        ),
        running=[present_running(row) for row in snapshot.running],
        retrying=[present_retrying(row) for row in snapshot.retrying],
        blocked=[present_blocked(row) for row in snapshot.blocked],
        codex_totals=shapes.Totals(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            total_tokens=usage.total_tokens,
            seconds_running=round(snapshot.seconds_running, 1),
            cached_input_tokens=usage.cached_input_tokens,
            reasoning_output_tokens=usage.reasoning_output_tokens,
        ),
        rate_limits=snapshot.rate_limits,
        sequence=snapshot.sequence,
        workflow_id=snapshot.workflow_id,
        waiting=[_present_waiting(row) for row in snapshot.waiting],
        cleaning=list(snapshot.cleaning),
        polling=shapes.Polling(
            checking=snapshot.polling.checking,
            next_poll_in_seconds=_tenths(snapshot.polling.next_poll_in_s),
            interval_seconds=snapshot.polling.interval_s,
            reason=snapshot.polling.reason,
        ),
        max_concurrent_agents=snapshot.max_concurrent_agents,
        problems=shapes.Problems(
            config=snapshot.config_error,
            tracker=snapshot.tracker_error,
            webhooks=snapshot.webhook_error,
            places=snapshot.lost,
            ledger=snapshot.ledger_error,
        ),
        tracker=None if snapshot.tracker is None else present_tracker(snapshot.tracker),
        holds=[_present_hold(row) for row in snapshot.holds],
        breakers=[present_breaker(row) for row in snapshot.breakers],
        budget=None if snapshot.budget is None else present_budget(snapshot.budget),
        resources=[shapes.Resources(**asdict(row)) for row in snapshot.resources],
        active_hours=None if snapshot.hours is None else present_hours(snapshot.hours),
        parked=snapshot.parked,
        parked_until=None
        if snapshot.parked_until_wall is None
        else iso(snapshot.parked_until_wall),
        shutting_down=snapshot.shutting_down,
    )


def _present_hold(row: HoldRow) -> shapes.Hold:
    return shapes.Hold(
        issue=row.identifier,
        kind=row.kind,
        reason=row.reason,
        by=row.by,
        since=iso(row.since_wall),
        detail=row.sentence,
    )


def present_breaker(row: BreakerRow) -> shapes.Breaker:
    """Return a class of failures that holds work back."""
    return shapes.Breaker(
        failure_class=row.failure_class,
        state="open" if row.state == "open" else "half_open",
        detail=row.sentence,
        failures=row.failures,
        issues=row.issues,
        since=iso(row.since_wall),
        until=iso(row.until_wall),
        cooldown_seconds=row.cooldown_s,
        canary=row.canary,
    )


def present_hours(row: HoursRow) -> shapes.Hours:
    """Return the active hours."""
    return shapes.Hours(
        open=row.is_open,
        lets_start=row.lets_start,
        changes_at=_iso(row.change_wall),
        override_until=_iso(row.override_until_wall),
        detail=row.sentence,
    )


def present_gates(explained: Explained, snapshot: Snapshot | None) -> shapes.Explanation:
    """Return why an issue may start now or may not: every gate in the order of dispatch."""
    gates = explained.gates
    shut = next((gate for gate in gates if not gate.passed), None)
    return shapes.Explanation(
        issue_identifier=explained.identifier,
        profile=explained.profile,
        eligible=shut is None,
        first_shut=None if shut is None else shut.name.value,
        gates=[
            shapes.GateAnswer(
                gate=gate.name.value,
                passed=gate.passed,
                detail=gate.detail,
                lift=gate.lift or None,
            )
            for gate in gates
        ],
        slowed=None if snapshot is None else snapshot.polling.reason,
    )


def present_tracker(row: TrackerRow) -> shapes.Tracker:
    """Return the tracker in force; ``rate_limit`` is null until it has told one."""
    told = (row.limit, row.remaining, row.reset_wall) != (None, None, None)
    return shapes.Tracker(
        kind=row.kind,
        rate_limit=shapes.TrackerRateLimit(
            limit=row.limit, remaining=row.remaining, reset_at=_iso(row.reset_wall)
        )
        if told
        else None,
        requests=row.requests,
        not_modified=row.not_modified,
        rate_limits=[
            shapes.TrackerBudget(
                resource=one.resource,
                limit=one.limit,
                remaining=one.remaining,
                reset_at=_iso(one.reset_wall),
            )
            for one in row.rate_limits
        ],
        answers=dict(row.answers),
        breaker=row.breaker,
    )


class _IssueFields(TypedDict):
    profile: str | None
    issue_id: str
    issue_identifier: str
    issue_url: str | None
    issue_title: str
    state: str


def _issue_fields(row: RunningRow | RetryingRow | BlockedRow | WaitingRow) -> _IssueFields:
    """Return what the row of every issue shows of it, whatever becomes of it."""
    return {
        "profile": row.profile,
        "issue_id": row.issue_id,
        "issue_identifier": row.issue_identifier,
        "issue_url": row.issue_url,
        "issue_title": row.issue_title,
        "state": row.state,
    }


def present_running(row: RunningRow) -> shapes.Running:
    """Return one running issue."""
    return shapes.Running(
        **_issue_fields(row),
        worker_host=_remote(row.host),
        workspace_path=row.workspace_path,
        session_id=row.session_id,
        turn_count=row.turn_count,
        last_event=row.last_event,
        last_message=_last_message(row.last_event, row.last_message),
        started_at=iso(row.started_wall),
        last_event_at=_iso(row.last_event_wall),
        tokens=_tokens(row.usage),
        run_id=row.run_id,
        phase=row.phase,
        attempt=row.attempt,
        host=row.host,
        process_id=row.process_id,
        thread_id=row.thread_id,
        runtime_seconds=round(row.runtime_s, 1),
        stopping=row.stopping,
    )


def present_retrying(row: RetryingRow) -> shapes.Retrying:
    """Return one issue of the retry queue."""
    return shapes.Retrying(
        **_issue_fields(row),
        attempt=row.attempt,
        due_at=iso(row.due_wall),
        error=row.error,
        worker_host=_remote(row.host),
        workspace_path=row.workspace_path,
        kind=row.retry_kind,
        due_in_seconds=round(row.due_in_s, 1),
        waiting_for_slot=row.waiting_for_slot,
        category=row.category,
    )


def present_blocked(row: BlockedRow) -> shapes.Blocked:
    """Return one blocked issue."""
    return shapes.Blocked(
        **_issue_fields(row),
        error=row.error,
        worker_host=_remote(row.host),
        workspace_path=row.workspace_path,
        session_id=row.session_id,
        blocked_at=iso(row.blocked_wall),
        last_event=row.last_event,
        last_message=_last_message(row.last_event, row.last_message),
        last_event_at=_iso(row.last_event_wall),
        category=row.category,
        question=None if row.question is None else row.question.text,
        options=[] if row.question is None else list(row.question.choices),
        unblock_by=list(row.unblock_by),
        blocked_until=_iso(row.until_wall),
        asked=None if row.question is None else _present_asked(row.question),
    )


def _present_asked(question: Question) -> shapes.Asked:
    return shapes.Asked(
        kind=question.kind.value,
        text=question.text,
        detail=question.detail,
        wants_decision=question.kind.wants_decision,
        asks=[
            shapes.AskedItem(
                id=ask.id,
                header=ask.header,
                text=ask.text,
                options=[
                    shapes.AskedOption(label=one.label, description=one.description)
                    for one in ask.options
                ],
                is_secret=ask.is_secret,
            )
            for ask in question.asks
        ],
    )


def present_issue(
    snapshot: Snapshot,
    identifier: str,
    *,
    workspace_path: str | None,
    events: Sequence[dict[str, Any]] = (),
    runs: Sequence[dict[str, Any]] = (),
) -> shapes.IssueDetails | None:
    """Return what is known of one issue, or None where the snapshot doesn't hold it.

    Args:
        snapshot: Where to look.
        identifier: The issue's human key.
        workspace_path: Where its workspace would lie, for rows that don't say.
        events: From the ledger, newest first; without any, the row's last event is the one.
        runs: From the ledger, newest first.
    """
    running = _find(snapshot.running, identifier)
    retrying = _find(snapshot.retrying, identifier)
    blocked = _find(snapshot.blocked, identifier)
    waiting = _find(snapshot.waiting, identifier)
    row = running or retrying or blocked or waiting
    if row is None:
        return None
    claimed = running or retrying or blocked
    attempt = running.attempt if running else retrying.attempt if retrying else None
    path = claimed.workspace_path if claimed else None
    return shapes.IssueDetails(
        issue_identifier=row.issue_identifier,
        issue_id=row.issue_id,
        status=_status(running, retrying, blocked),
        workspace=shapes.Workspace(
            path=path or workspace_path, host=_remote(claimed.host) if claimed else None
        ),
        attempts=shapes.Attempts(
            restart_count=max((attempt or 0) - 1, 0), current_retry_attempt=attempt or 0
        ),
        running=present_running(running) if running else None,
        retry=present_retrying(retrying) if retrying else None,
        blocked=present_blocked(blocked) if blocked else None,
        logs=shapes.Logs(codex_session_logs=_session_logs(runs)),
        recent_events=_recent_events(events, running or blocked),
        last_error=blocked.error if blocked else retrying.error if retrying else None,
        tracked={},
        waiting=_present_waiting(waiting) if waiting else None,
        runs=list(runs),
        budget=issue_budget(snapshot.budget, row.issue_id),
    )


def present_refresh(receipt: RefreshReceipt) -> shapes.Refresh:
    """Return the answer to a refresh request."""
    return shapes.Refresh(
        queued=True,
        coalesced=receipt.coalesced,
        requested_at=iso(receipt.requested_wall, microseconds=True),
        operations=["poll", "reconcile"],
    )


def present_failure(code: str, message: str, *, wall: float | None = None) -> shapes.Failure:
    """Return the error envelope; ``wall`` adds ``generated_at`` for the state payload."""
    fault = shapes.Fault(code=code, message=message)
    if wall is None:
        return shapes.Failure(error=fault)
    return shapes.Failure(error=fault, generated_at=iso(wall))


def _status(
    running: RunningRow | None, retrying: RetryingRow | None, blocked: BlockedRow | None
) -> Literal["running", "retrying", "blocked", "waiting"]:
    if running is not None:
        return "running"
    if retrying is not None:
        return "retrying"
    return "blocked" if blocked is not None else "waiting"


def _find(rows: Sequence[_Row], identifier: str) -> _Row | None:
    return next((row for row in rows if row.issue_identifier == identifier), None)


def _present_waiting(row: WaitingRow) -> shapes.Waiting:
    return shapes.Waiting(
        **_issue_fields(row),
        gate=row.gate,
        detail=row.detail,
    )


def _recent_events(
    events: Sequence[dict[str, Any]], row: RunningRow | BlockedRow | None
) -> list[shapes.EventRow]:
    if events:
        return [
            shapes.EventRow(
                at=iso(event["at"]),
                event=event.get("event"),
                message=_last_message(event.get("event"), event.get("message")),
            )
            for event in events
        ]
    if row is None or row.last_event_wall is None:
        return []
    message = _last_message(row.last_event, row.last_message)
    return [shapes.EventRow(at=iso(row.last_event_wall), event=row.last_event, message=message)]


def _session_logs(runs: Sequence[dict[str, Any]]) -> list[shapes.SessionLog]:
    return [
        shapes.SessionLog(label="latest" if index == 0 else str(run.get("run_id")), path=path)
        for index, run in enumerate(runs)
        if isinstance(path := run.get("transcript_path"), str)
    ]


def _tokens(usage: TokenUsage) -> shapes.Tokens:
    return shapes.Tokens(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        reasoning_output_tokens=usage.reasoning_output_tokens,
    )


def _last_message(event: str | None, message: Any) -> str | None:
    return None if event is None and message is None else humanize(event, message)


def _remote(host: str | None) -> str | None:
    return None if host == "local" else host


def _iso(wall: float | None) -> str | None:
    return None if wall is None else iso(wall)


def _tenths(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_without_surrogates(part) for part in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(part) for key, part in value.items()}
    return value
