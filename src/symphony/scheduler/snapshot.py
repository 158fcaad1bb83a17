"""The immutable view that is published after steps (SPEC 13.3); its readers are web and terminal.

A snapshot is built at most ten times a second from the scheduler's state and the runs' live
records, serialised once and shared by all readers. It never reaches back into the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from symphony.model.clock import iso
from symphony.model.question import Question
from symphony.model.usage import TokenUsage

from .budget_rows import BudgetsRow


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningRow:
    """One running issue."""

    issue_id: str
    issue_identifier: str
    issue_title: str
    issue_url: str | None
    state: str
    run_id: str
    phase: str
    attempt: int | None
    host: str
    workspace_path: str | None
    process_id: int | None
    session_id: str | None
    thread_id: str | None
    turn_count: int
    last_event: str | None
    last_message: Any
    """The last protocol message (decoded) or None; surfaces humanise it."""
    last_event_wall: float | None
    started_wall: float
    runtime_s: float
    usage: TokenUsage
    stopping: str | None
    """The reason where the run is being ended, or None."""
    profile: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryingRow:
    """One issue that waits for its next attempt."""

    issue_id: str
    issue_identifier: str
    issue_title: str
    issue_url: str | None
    state: str
    attempt: int
    retry_kind: str
    due_in_s: float
    due_wall: float
    error: str | None
    host: str | None
    workspace_path: str | None
    waiting_for_slot: bool
    profile: str | None = None
    category: str | None = None
    """Of the last run's error (SPEC 10.6), or None where it had none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockedRow:
    """One issue that waits for a person or a time.

    Attributes:
        question: What its agent asked, or None where it asked nothing.
        unblock_by: What ends the block (``scheduler.blocks.Way``), the best way first.
        until_wall: When it ends by itself (epoch seconds), or None.
    """

    issue_id: str
    issue_identifier: str
    issue_title: str
    issue_url: str | None
    state: str
    category: str
    error: str
    blocked_wall: float
    host: str | None
    workspace_path: str | None
    session_id: str | None
    last_event: str | None
    last_message: Any
    last_event_wall: float | None
    profile: str | None = None
    question: Question | None = None
    unblock_by: tuple[str, ...] = ()
    until_wall: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PollingRow:
    """When the tracker is read next.

    Attributes:
        interval_s: Between two polls; longer than configured where there is a reason.
        reason: Why it is, or None.
    """

    checking: bool
    next_poll_in_s: float | None
    interval_s: float
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackerLimitRow:
    """One budget of a tracker's rate limit, by the tracker's name for it; None: it did not say."""

    resource: str | None
    limit: int | None
    remaining: int | None
    reset_wall: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackerRow:
    """The tracker that is in force, and what it said of its rate limit; None: nothing.

    Attributes:
        limit: Requests of the window.
        remaining: Requests that are left in it.
        reset_wall: Epoch seconds at which the window ends.
        requests: Requests sent since this tracker was built; None where it makes none.
        not_modified: Those of them that were answered with 304.
        answers: All of them by the status of their answer, some statuses in classes.
        rate_limits: The newest word on each of its budgets.
        breaker: Whether calls pass: ``closed``, ``half_open`` or ``open``; None without HTTP.
    """

    kind: str
    limit: int | None = None
    remaining: int | None = None
    reset_wall: float | None = None
    requests: int | None = None
    not_modified: int | None = None
    answers: Mapping[str, int] = field(default_factory=dict)
    rate_limits: tuple[TrackerLimitRow, ...] = ()
    breaker: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the daemon is doing, as of one instant.

    Attributes:
        sequence: Grows by one with each snapshot of this daemon.
        generated_wall: Epoch seconds.
        generated_mono: Monotonic seconds, for ages.
        seconds_running: Of ended runs and of the live ones up to now.
        rate_limits: The newest useful rate-limit payload of Codex, as received, or None.
        ledger_error: Why what happens can't be recorded, or None.
        lost: Which of the daemon's own files are gone, and what to do, or None.
        config_error: Why the workflow file on disk is not in force, or None.
        tracker_error: Why the last read of the tracker failed, or None.
        waiting: Candidates that may not start now, each with its first failing gate, in dispatch
            order, the first few hundred.
        tracker: The tracker in force, or None where the builder does not know it.
        webhook_error: What an operator should know of the webhooks, or None.
        parked: Why nothing starts until ``parked_until_wall`` (epoch seconds), or None.
    """

    sequence: int
    generated_wall: float
    generated_mono: float
    workflow_id: str
    running: tuple[RunningRow, ...]
    retrying: tuple[RetryingRow, ...]
    blocked: tuple[BlockedRow, ...]
    cleaning: tuple[str, ...]
    usage: TokenUsage
    seconds_running: float
    rate_limits: Any
    polling: PollingRow
    max_concurrent_agents: int
    config_error: str | None
    tracker_error: str | None
    waiting: tuple[WaitingRow, ...] = ()
    holds: tuple[HoldRow, ...] = ()
    breakers: tuple[BreakerRow, ...] = ()
    budget: BudgetsRow | None = None
    hours: HoursRow | None = None
    resources: tuple[ResourcesRow, ...] = ()
    lost: str | None = None
    ledger_error: str | None = None
    shutting_down: bool = False
    parked: str | None = None
    parked_until_wall: float | None = None
    tracker: TrackerRow | None = None
    webhook_error: str | None = None

    @property
    def parked_sentence(self) -> str | None:
        """Why nothing starts for a usage limit, until when, and how to lift it; None where none."""
        if self.parked is None or self.parked_until_wall is None:
            return None
        until = iso(self.parked_until_wall)
        return f"until {until}: {self.parked}; lift it with: symphony resume --park"


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRow:
    """Work that an operator holds back; ``identifier`` None means all of it."""

    identifier: str | None
    kind: str
    reason: str
    by: str
    since_wall: float

    @property
    def sentence(self) -> str:
        """All of it for people, and how to lift it."""
        done = "drained" if self.kind == "drain" else "paused"
        what, resume = "all work", "symphony resume"
        if self.identifier is not None:
            what, resume = self.identifier, f"symphony resume {self.identifier}"
        why = f": {self.reason}" if self.reason else ""
        return f"{self.by} {done} {what} at {iso(self.since_wall)}{why}; lift it with: {resume}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRow:
    """A class of failures that holds work back.

    Attributes:
        state: ``open``, or ``half_open`` once its cool-down is over.
        why: What its failures have in common.
        failures: How many opened it.
        issues: Of how many issues.
        until_wall: When the cool-down ends or has ended.
        canary: Identifier of the issue that is tried, or None.
        proven_wall: From when on its run counts as working, or None while none has begun.
    """

    failure_class: str
    state: str
    why: str
    failures: int
    issues: int
    since_wall: float
    until_wall: float
    cooldown_s: float
    canary: str | None
    proven_wall: float | None = None

    @property
    def sentence(self) -> str:
        """All of it for people, and how to lift it."""
        if self.state == "open":
            effect = f"nothing starts before {iso(self.until_wall)}"
        else:
            effect = f"{self.canary or 'the next issue'} is tried alone"
            if self.canary is not None and self.proven_wall is not None:
                effect += f" until a turn of it ends well, at the latest {iso(self.proven_wall)}"
        return (
            f"{self.failures} failures of class {self.failure_class} in {self.issues} issues "
            f"({self.why}); {effect}, lift it with: symphony breaker reset {self.failure_class}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HoursRow:
    """The active hours, where some are set.

    Attributes:
        is_open: It is within one of their windows.
        lets_start: Work may start: they are open, or overridden.
        change_wall: When they open or close next; None where they never do.
        override_until_wall: Until when an operator has lifted them, or None.
        sentence: All of it for people, and how to lift them.
    """

    is_open: bool
    lets_start: bool
    change_wall: float | None
    override_until_wall: float | None
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourcesRow:
    """What a host has left; None for what could not be read, ``shortage`` where it is too little.

    The figures are as old as half a minute while nothing is short.
    """

    host: str
    free_memory_mb: int | None
    memory_limit: str
    free_disk_mb: int | None
    disk_path: str
    memory_pressure: float | None
    shortage: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingRow:
    """A candidate that was seen but not started, and the first gate that it failed."""

    issue_id: str
    issue_identifier: str
    issue_title: str
    issue_url: str | None
    state: str
    gate: str
    detail: str
    profile: str | None = None
