"""The JSON shapes of the API, one struct each: their fields are a promise to other programs.

Role: names and types of what ``/api/v1/*`` answers (SPEC 13.7.2). The fields that the reference
has keep its names and meanings; those after an "Added" comment are ours.
Invariant: instants are ISO 8601 in UTC to the second with ``Z``; counts are integers; a field is
there with null rather than absent.
Neighbours: ``api`` fills them; a program that reads the API can decode with them.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from .budgets import Budget, IssueBudget


class Tokens(Struct, kw_only=True):
    """Tokens of one run."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    # Added.
    cached_input_tokens: int
    reasoning_output_tokens: int


class Totals(Struct, kw_only=True):
    """Tokens and seconds of all runs, live ones included."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    seconds_running: float
    # Added.
    cached_input_tokens: int
    reasoning_output_tokens: int


class Counts(Struct, kw_only=True):
    """Lengths of the lists."""

    running: int
    retrying: int
    blocked: int
    # Added.
    waiting: int


class Running(Struct, kw_only=True):
    """One running issue. ``worker_host`` is null on this machine; ``host`` always names it."""

    issue_id: str
    issue_identifier: str
    issue_url: str | None
    state: str
    worker_host: str | None
    workspace_path: str | None
    session_id: str | None
    turn_count: int
    last_event: str | None
    last_message: str | None
    started_at: str
    last_event_at: str | None
    tokens: Tokens
    # Added.
    profile: str | None
    issue_title: str
    run_id: str
    phase: str
    attempt: int | None
    host: str
    process_id: int | None
    thread_id: str | None
    runtime_seconds: float
    stopping: str | None


class Retrying(Struct, kw_only=True):
    """One issue that waits for its next attempt."""

    issue_id: str
    issue_identifier: str
    issue_url: str | None
    attempt: int
    due_at: str
    error: str | None
    worker_host: str | None
    workspace_path: str | None
    # Added.
    profile: str | None
    issue_title: str
    state: str
    kind: str
    due_in_seconds: float
    waiting_for_slot: bool
    category: str | None = None


class Blocked(Struct, kw_only=True):
    """One issue that waits for a person or a time."""

    issue_id: str
    issue_identifier: str
    issue_url: str | None
    state: str
    error: str
    worker_host: str | None
    workspace_path: str | None
    session_id: str | None
    blocked_at: str
    last_event: str | None
    last_message: str | None
    last_event_at: str | None
    # Added.
    profile: str | None
    issue_title: str
    category: str
    question: str | None
    options: list[str]
    unblock_by: list[str]
    blocked_until: str | None
    asked: Asked | None


class AskedOption(Struct, kw_only=True):
    """Added: an answer that the agent proposes."""

    label: str
    description: str


class AskedItem(Struct, kw_only=True):
    """Added: one question of a request."""

    id: str
    header: str
    text: str
    options: list[AskedOption]
    is_secret: bool


class Asked(Struct, kw_only=True):
    """Added: all that a request of the agent asked of a person."""

    kind: str
    text: str
    detail: str
    wants_decision: bool
    asks: list[AskedItem]


class Waiting(Struct, kw_only=True):
    """Added: a candidate that may not start now, and the first gate that it failed."""

    profile: str | None
    issue_id: str
    issue_identifier: str
    issue_title: str
    issue_url: str | None
    state: str
    gate: str
    detail: str


class Polling(Struct, kw_only=True):
    """Added: when the tracker is read next; ``reason`` says why that is slower than configured."""

    checking: bool
    next_poll_in_seconds: float | None
    interval_seconds: float
    reason: str | None = None


class Problems(Struct, kw_only=True):
    """Added: what is wrong with configuration, tracker, webhooks, files or ledger, or null."""

    config: str | None
    tracker: str | None
    webhooks: str | None
    places: str | None
    ledger: str | None


class TrackerBudget(Struct, kw_only=True):
    """Added: the newest word on one budget of the rate limit, by the tracker's name for it."""

    resource: str | None
    limit: int | None
    remaining: int | None
    reset_at: str | None


class TrackerRateLimit(Struct, kw_only=True):
    """Added: what the tracker said of its limit in its last answer that told one."""

    limit: int | None
    remaining: int | None
    reset_at: str | None


class Tracker(Struct, kw_only=True):
    """Added: the tracker in force; counts are null for one that is not reached over HTTP."""

    kind: str
    rate_limit: TrackerRateLimit | None
    requests: int | None
    not_modified: int | None
    rate_limits: list[TrackerBudget]
    answers: dict[str, int]
    breaker: str | None


class Hold(Struct, kw_only=True):
    """Added: work that an operator holds back; ``issue`` null means all of it."""

    issue: str | None
    kind: str
    reason: str
    by: str
    since: str
    detail: str


class Breaker(Struct, kw_only=True):
    """Added: a class of failures that holds work back; ``canary`` is the issue that is tried."""

    failure_class: str
    state: Literal["open", "half_open"]
    detail: str
    failures: int
    issues: int
    since: str
    until: str
    cooldown_seconds: float
    canary: str | None


class Hours(Struct, kw_only=True):
    """Added: the active hours; ``changes_at`` null where they never open or close."""

    open: bool
    lets_start: bool
    changes_at: str | None
    override_until: str | None
    detail: str


class Resources(Struct, kw_only=True):
    """Added: what a host has left, in MiB; ``shortage`` says why nothing starts there, or null."""

    host: str
    free_memory_mb: int | None
    memory_limit: str
    free_disk_mb: int | None
    disk_path: str
    memory_pressure: float | None
    shortage: str | None


class GateAnswer(Struct, kw_only=True):
    """Added: one condition of a start; ``lift`` says how a shut one is opened."""

    gate: str
    passed: bool
    detail: str
    lift: str | None = None


class Explanation(Struct, kw_only=True):
    """Added: ``GET /api/v1/<identifier>/explain``."""

    issue_identifier: str
    profile: str | None
    eligible: bool
    first_shut: str | None
    gates: list[GateAnswer]
    slowed: str | None = None
    """Why the tracker is read less often than configured, or null."""


class State(Struct, kw_only=True):
    """``GET /api/v1/state`` and the data of each ``state`` event of ``/api/v1/events``."""

    generated_at: str
    counts: Counts
    running: list[Running]
    retrying: list[Retrying]
    blocked: list[Blocked]
    codex_totals: Totals
    rate_limits: Any
    # Added.
    sequence: int
    workflow_id: str
    waiting: list[Waiting]
    cleaning: list[str]
    polling: Polling
    max_concurrent_agents: int
    problems: Problems
    tracker: Tracker | None
    holds: list[Hold]
    breakers: list[Breaker]
    budget: Budget | None
    active_hours: Hours | None
    resources: list[Resources]
    parked: str | None
    parked_until: str | None
    shutting_down: bool


class Fault(Struct, kw_only=True):
    """A stable code and a sentence for people."""

    code: str
    message: str


class Failure(Struct, kw_only=True):
    """The body of every failed request; ``generated_at`` only where state has no snapshot yet."""

    error: Fault
    generated_at: str | UnsetType = UNSET


class Workspace(Struct, kw_only=True):
    """Where an issue's workspace lies."""

    path: str | None
    host: str | None


class Attempts(Struct, kw_only=True):
    """How often an issue was started again; filled for running issues too."""

    restart_count: int
    current_retry_attempt: int


class SessionLog(Struct, kw_only=True):
    """A transcript that can be read on the daemon's machine."""

    label: str
    path: str
    url: str | None = None


class Logs(Struct, kw_only=True):
    """Logs of an issue."""

    codex_session_logs: list[SessionLog]


class EventRow(Struct, kw_only=True):
    """One event of an issue."""

    at: str
    event: str | None
    message: str | None


class IssueDetails(Struct, kw_only=True):
    """``GET /api/v1/<identifier>``. The reference leaves ``running`` and so on without ids."""

    issue_identifier: str
    issue_id: str
    status: Literal["running", "retrying", "blocked", "waiting"]
    workspace: Workspace
    attempts: Attempts
    running: Running | None
    retry: Retrying | None
    blocked: Blocked | None
    logs: Logs
    recent_events: list[EventRow]
    last_error: str | None
    tracked: dict[str, Any]
    # Added.
    waiting: Waiting | None
    runs: list[dict[str, Any]]
    budget: IssueBudget | None


class Refresh(Struct, kw_only=True):
    """``POST /api/v1/refresh``; ``requested_at`` has microseconds."""

    queued: bool
    coalesced: bool
    requested_at: str
    operations: list[str]
