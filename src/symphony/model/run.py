"""Runs: their ids, phases, outcomes and live record (SPEC 4.1.5, 4.1.6, 7.2, 10.6)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NewType

from .issue import Issue, IssueId
from .question import Question, Reply
from .spend import (
    NO_RAISE,
    NO_SPEND,
    NOT_IDLE,
    CostMeter,
    Crossing,
    IdleTurns,
    Raise,
    Spend,
)
from .usage import TokenUsage, UsageMeter

RunId = NewType("RunId", str)
"""Unique id of one worker lifetime, also across restarts of the daemon."""


class Phase(StrEnum):
    """Where a run stands (SPEC 7.2)."""

    PREPARING_WORKSPACE = "PreparingWorkspace"
    BUILDING_PROMPT = "BuildingPrompt"
    LAUNCHING_AGENT_PROCESS = "LaunchingAgentProcess"
    INITIALIZING_SESSION = "InitializingSession"
    STREAMING_TURN = "StreamingTurn"
    FINISHING = "Finishing"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    TIMED_OUT = "TimedOut"
    STALLED = "Stalled"
    CANCELED_BY_RECONCILIATION = "CanceledByReconciliation"


class RetryKind(StrEnum):
    """Why a claimed issue runs again."""

    CONTINUATION = "continuation"
    """The last run ended well and the issue is still active."""
    FAILURE = "failure"
    """The last run failed; the delay grows with the attempt."""
    RECOVERY = "recovery"
    """The daemon died during the last run; the attempt is not raised."""
    UNBLOCKED = "unblocked"
    """It was blocked, and an answer, a change in the tracker, time or a person has ended that."""


class StopReason(StrEnum):
    """Why the scheduler ends a run before its own end."""

    TERMINAL = "terminal"
    """The issue reached a terminal state; its workspace is cleaned afterwards."""
    INACTIVE = "inactive"
    """The issue left the active states."""
    UNROUTABLE = "unroutable"
    """The issue is no longer for us: a label, the assignee, a blocker."""
    MISSING = "missing"
    """Two reads did not find the issue."""
    STALLED = "stalled"
    """The run was silent beyond ``codex.stall_timeout_ms``."""
    BUDGET_DAY = "budget_day"
    """The day's budget is spent; its issue waits for the next day, or for a higher limit."""
    BUDGET_TOTAL = "budget_total"
    """The budget of all work is spent; its issue waits for a higher limit."""
    OPERATOR = "operator"
    """A person asked for it."""
    SHUTDOWN = "shutdown"
    """The daemon stops."""


class OutcomeKind(StrEnum):
    """The closed set of ends of a run. Retry policy is a function of it, never of a text."""

    COMPLETED = "completed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    INPUT_REQUIRED = "input_required"
    APPROVAL_REQUIRED = "approval_required"
    STALLED = "stalled"
    TIMED_OUT = "timed_out"
    HOST_LOST = "host_lost"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Why and how a run ended.

    Attributes:
        kind: One of the closed set.
        category: Stable word for the cause: SPEC 10.6 (``turn_failed``, ``port_exit``, ...) or a
            workspace, prompt or tracker category. None for completed runs.
        code: Codex's own error code (``usageLimitExceeded``, ...) where it gave one.
        message: One line for people, no secrets, no stack traces.
        retryable: False where another attempt can't help before a person acts.
        retry_at: Epoch seconds before which another attempt is pointless (a usage limit's reset).
        stop_reason: Set for cancelled and stalled runs.
        crossed: The limit of the budget that ended it, or None.
        question: What the agent asked, where the run ended because a person is needed.
    """

    kind: OutcomeKind
    category: str | None = None
    code: str | None = None
    message: str = ""
    retryable: bool = True
    retry_at: float | None = None
    stop_reason: StopReason | None = None
    crossed: Crossing | None = None
    question: Question | None = None

    @property
    def phase(self) -> Phase:
        """The final phase under the names of SPEC 7.2."""
        match self.kind:
            case OutcomeKind.COMPLETED:
                return Phase.SUCCEEDED
            case OutcomeKind.TIMED_OUT:
                return Phase.TIMED_OUT
            case OutcomeKind.STALLED:
                return Phase.STALLED
            case OutcomeKind.CANCELLED:
                return Phase.CANCELED_BY_RECONCILIATION
            case _:
                return Phase.FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """Everything that is decided about a run before it starts.

    Attributes:
        attempt: None for a first run, 1 and up for retries and continuations (SPEC 12.3).
        thread_id: The thread to resume, or None for a new one.
        previous_error: The last run's message, for the prompt.
        failures: Failed runs of the issue in a row before this one.
        spent: What the issue has spent before this run, which counts as one run of it.
        raised: What operators have added to the issue's limits.
        idle: Turns in a row without progress before this run.
        reply: What an operator answered to the question that had blocked the issue, or None.
    """

    run_id: RunId
    issue: Issue
    attempt: int | None
    retry_kind: RetryKind | None
    host: str = "local"
    thread_id: str | None = None
    previous_error: str | None = None
    failures: int = 0
    spent: Spend = NO_SPEND
    raised: Raise = NO_RAISE
    idle: IdleTurns = NOT_IDLE
    reply: Reply | None = None

    @property
    def issue_id(self) -> IssueId:
        """The issue's dispatch identity."""
        return self.issue.id


@dataclass(slots=True)
class RunProgress:
    """The live record of one run. Its runner alone writes it; snapshots read it.

    It is the O(1) path: tokens, last event and last activity change here and never pass through
    the scheduler. Monotonic seconds decide, epoch seconds are for people.
    """

    run_id: RunId
    issue: Issue
    attempt: int | None
    host: str
    started_mono: float
    started_wall: float
    last_activity_mono: float
    phase: Phase = Phase.PREPARING_WORKSPACE
    workspace_path: str | None = None
    process_id: int | None = None
    thread_id: str | None = None
    turn_id: str | None = None
    turn_count: int = 0
    last_event: str | None = None
    last_message: Any = None
    last_event_wall: float | None = None
    meter: UsageMeter = field(default_factory=UsageMeter)
    cost: CostMeter = field(default_factory=CostMeter)
    model: str | None = None
    """The model of the run's own thread, once it is known."""
    models: dict[str, str] = field(default_factory=dict)
    """Models of its threads, where they are known to differ: sub-agents, and rerouted turns."""
    waited_s: float = 0.0
    """Seconds for which a person was waited for; no budget counts them."""
    idle: IdleTurns = NOT_IDLE
    profile: str | None = None
    """Name of the profile (``agent.profiles``) under which it works, or None."""
    busy_until_mono: float | None = None
    """A tool call or approval is in flight and counts as alive until then."""

    @property
    def session_id(self) -> str | None:
        """``<thread>-<turn>`` once a turn has started (SPEC 4.2)."""
        if self.thread_id is None or self.turn_id is None:
            return None
        return f"{self.thread_id}-{self.turn_id}"

    @property
    def usage(self) -> TokenUsage:
        """Tokens that this run has used so far."""
        return self.meter.total

    def spend(self, now_mono: float) -> Spend:
        """Return what this run has spent so far; it is not counted as a run here."""
        seconds = max(0.0, now_mono - self.started_mono - self.waited_s)
        return Spend(
            tokens=self.meter.total.total_tokens,
            micro_usd=self.cost.micro_usd,
            wall_ms=int(seconds * 1000),
            unpriced_tokens=self.cost.unpriced_tokens,
        )
