"""What the scheduler wants done. Frozen values; ``engine.executor`` has one method for each.

A command with a ``cause`` is answered by exactly one event with the same cause, whatever happens:
the executor has a deadline for each and turns every failure into the failing answer. The commands
of ``Durable`` are what the ledger takes: all those of one step become durable together or not at
all, so a crash finds the claims either before an event or after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from symphony.model.failure import FailureClass
from symphony.model.issue import Issue, IssueId
from symphony.model.question import Question, Reply
from symphony.model.run import RetryKind, RunId, RunSpec, StopReason
from symphony.model.spend import NOT_IDLE, Crossing, IdleTurns, Raise

from .events import BreakerRecord, Cause, Hold, Override, RaiseOrder, RunEnded, Seen


@dataclass(frozen=True, slots=True)
class FetchCandidates:
    """Read all issues in these states: answered by CandidatesFetched or CandidatesFailed."""

    cause: Cause
    states: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FetchTerminal:
    """Find terminal issues that still have a workspace (SPEC 8.6).

    Answered by TerminalFetched or TerminalFailed.
    """

    cause: Cause
    states: tuple[str, ...]


class RefreshPurpose(StrEnum):
    """Why issues are read by id."""

    RECONCILE = "reconcile"
    DISPATCH = "dispatch"
    RETRY = "retry"
    CONFIRM_MISSING = "confirm_missing"


@dataclass(frozen=True, slots=True)
class RefreshIssues:
    """Read these issues by id in one batch: answered by IssuesRefreshed or RefreshFailed."""

    cause: Cause
    purpose: RefreshPurpose
    ids: tuple[IssueId, ...]


@dataclass(frozen=True, slots=True)
class StartRun:
    """Start a worker; it ends with exactly one RunEnded, even where it can't be started."""

    spec: RunSpec


@dataclass(frozen=True, slots=True)
class FinishRun:
    """Wind up a run of an earlier lifetime, which ends with exactly one RunEnded.

    Its agent is gone and ``ended`` is known; ``after_run`` and the branch are left.
    """

    spec: RunSpec
    ended: RunEnded


@dataclass(frozen=True, slots=True)
class StopRun:
    """End a worker early; its RunEnded says cancelled or stalled with this reason."""

    run_id: RunId
    reason: StopReason


@dataclass(frozen=True, slots=True)
class CleanWorkspace:
    """Remove an issue's workspace after its ``before_remove`` hook: answered by CleanupEnded."""

    cause: Cause
    issue: Issue
    workspace_path: str | None
    host: str


@dataclass(frozen=True, slots=True)
class SaveEnd:
    """Make a run's end durable, in one with what follows from it."""

    ended: RunEnded


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveClaim:
    """Make a claim that is not a run durable, before it is shown.

    ``kind`` is ``retry`` or ``blocked``. ``due_wall`` is when a retry falls due or a block ends by
    itself (epoch seconds). ``failures`` counts failed runs in a row; ``attempt`` does not tell, it
    is 1 for a continuation. ``blocked_category`` is the category of the error, of a retry too.
    ``question``, ``reply`` and ``seen`` are those of ``RestoredClaim``.
    """

    kind: str
    issue: Issue
    attempt: int | None
    retry_kind: RetryKind | None
    error: str | None
    due_wall: float | None = None
    thread_id: str | None = None
    host: str = "local"
    workspace_path: str | None = None
    blocked_category: str | None = None
    since_wall: float = 0.0
    failures: int = 0
    crossed: Crossing | None = None
    idle: IdleTurns = NOT_IDLE
    question: Question | None = None
    reply: Reply | None = None
    seen: Seen | None = None


@dataclass(frozen=True, slots=True)
class SaveStop:
    """Make an operator's stop of a live run durable, or with None its being taken back.

    A daemon that dies before the run has ended finds the issue stopped when it starts again.
    """

    run_id: RunId
    issue_id: IssueId
    reason: str | None


@dataclass(frozen=True, slots=True)
class SavePark:
    """Make it durable that nothing starts before this time (epoch seconds)."""

    until_wall: float
    reason: str


@dataclass(frozen=True, slots=True)
class DropPark:
    """Forget durably that dispatch is parked."""


@dataclass(frozen=True, slots=True)
class DropClaim:
    """Forget a claim durably."""

    issue_id: IssueId


@dataclass(frozen=True, slots=True)
class EndAfterTurn:
    """Let a worker end well after its present turn (an operator drains)."""

    run_id: RunId


@dataclass(frozen=True, slots=True)
class SaveHold:
    """Make an operator's hold durable; one per scope."""

    hold: Hold


@dataclass(frozen=True, slots=True)
class DropHold:
    """Forget the hold of a scope durably."""

    scope: str | None


@dataclass(frozen=True, slots=True)
class SaveBreaker:
    """Make the failures of a class, and whether they opened the breaker, durable."""

    record: BreakerRecord


@dataclass(frozen=True, slots=True)
class DropBreaker:
    """Forget the failures of a class durably."""

    failure_class: FailureClass


@dataclass(frozen=True, slots=True)
class SaveRaise:
    """Make what operators have added to a scope's limits durable; one row a scope."""

    order: RaiseOrder


@dataclass(frozen=True, slots=True)
class RaiseIssue:
    """Tell a worker that operators have added to its issue's limits, and how much in all."""

    run_id: RunId
    amounts: Raise


@dataclass(frozen=True, slots=True)
class SaveOverride:
    """Make an override of the active hours durable; None forgets it."""

    override: Override | None


class Level(StrEnum):
    """Level of a note, by consequence."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Note:
    """Something an operator should be able to read; the shell logs it with its fields."""

    level: Level
    message: str
    fields: Mapping[str, Any] = field(default_factory=dict)


Durable = (
    SaveEnd
    | SaveClaim
    | DropClaim
    | SaveStop
    | SavePark
    | DropPark
    | SaveHold
    | DropHold
    | SaveBreaker
    | DropBreaker
    | SaveRaise
    | SaveOverride
)

Command = (
    FetchCandidates
    | FetchTerminal
    | RefreshIssues
    | StartRun
    | FinishRun
    | StopRun
    | CleanWorkspace
    | EndAfterTurn
    | RaiseIssue
    | Note
    | Durable
)
