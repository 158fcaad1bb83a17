"""What the scheduler is told. Each event is a frozen value; the shell (``engine``) makes them.

Every answer to a command carries the command's ``cause``, so that an answer which comes too late,
twice, or for something that has changed since is recognised and dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NewType

from symphony.config.settings import Settings
from symphony.model.allowance import Allowance
from symphony.model.failure import FailureClass
from symphony.model.issue import Issue, IssueId
from symphony.model.question import Answer, Question, Reply
from symphony.model.resources import HostResources
from symphony.model.run import Outcome, OutcomeKind, RetryKind, RunId
from symphony.model.spend import NO_RAISE, NOT_IDLE, Crossing, IdleTurns, Raise, Spend
from symphony.model.usage import TokenUsage

Cause = NewType("Cause", int)
"""Number of the command that an answer belongs to; unique within one daemon lifetime."""


@dataclass(frozen=True, slots=True)
class WakeUp:
    """The time that ``next_wakeup`` named has come: due polls and retries are looked at."""


@dataclass(frozen=True, slots=True)
class RefreshRequested:
    """Somebody (API, webhook, watcher of a board) wants a poll now."""

    source: str = "api"


@dataclass(frozen=True, slots=True)
class PaceObserved:
    """What the distance of the polls depends on, as of the tracker's last answer.

    Attributes:
        allowances: The tracker's budgets of requests, those that it told.
        webhooks: Webhooks are configured and well.
    """

    allowances: tuple[Allowance, ...]
    webhooks: bool = False


@dataclass(frozen=True, slots=True)
class SettingsChanged:
    """A new, valid configuration is in force from here on."""

    settings: Settings


@dataclass(frozen=True, slots=True)
class ConfigBroken:
    """The workflow file is invalid: the last good settings stay, dispatch waits (SPEC 6.3)."""

    message: str


@dataclass(frozen=True, slots=True)
class ConfigRepaired:
    """The workflow file is valid again."""


@dataclass(frozen=True, slots=True)
class CandidatesFetched:
    """Answer to ``FetchCandidates``: all issues in the active states, in the tracker's order."""

    cause: Cause
    issues: Sequence[Issue]


@dataclass(frozen=True, slots=True)
class CandidatesFailed:
    """``FetchCandidates`` failed as a whole; nothing is dispatched from it."""

    cause: Cause
    category: str
    message: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class RefreshFailed:
    """``RefreshIssues`` failed as a whole; nobody is stopped because of it."""

    cause: Cause
    category: str
    message: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class IssuesRefreshed:
    """Answer to ``RefreshIssues``: what the trackers show of the asked ids, no more.

    Attributes:
        cause: The command's.
        issues: The visible ones.
        unread: Issues whose tracker could not be read; nothing is known of them.
        failed: What to tell of the tracker in force, where only former ones could be read.
    """

    cause: Cause
    issues: Sequence[Issue]
    unread: frozenset[IssueId] = frozenset()
    failed: RefreshFailed | None = None


@dataclass(frozen=True, slots=True)
class TerminalFetched:
    """Answer to ``FetchTerminal``: terminal issues for which a workspace exists on our disk."""

    cause: Cause
    issues: Sequence[Issue]


@dataclass(frozen=True, slots=True)
class TerminalFailed:
    """``FetchTerminal`` failed: a warning, start-up goes on (SPEC 8.6)."""

    cause: Cause
    category: str
    message: str


@dataclass(frozen=True, slots=True)
class RunIssueChanged:
    """A run re-read its own issue after a turn: the newer snapshot, for slots and the prompt."""

    run_id: RunId
    issue: Issue


@dataclass(frozen=True, slots=True)
class RunSilent:
    """The shell's timer saw no activity of a run for longer than the stall limit."""

    run_id: RunId
    silent_s: float


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A run is over: its processes are gone and its ``after_run`` hook has run.

    Attributes:
        outcome: Why it ended.
        usage: Tokens that it used.
        seconds: How long it ran.
        thread_id: Its thread, for a later resume, or None.
        host: Where it ran.
        workspace_path: Its workspace, or None where none was made.
        session_id: ``<thread>-<turn>`` of its last turn, or None; a blocked row shows it.
        last_event: Name of its last protocol event, or None; with the two below for that row.
        last_message: That event, decoded.
        last_event_wall: Epoch seconds of that event.
        spend: What it has spent in all; None takes ``usage`` and ``seconds`` for it.
        idle: Turns in a row without progress, its own included.
    """

    run_id: RunId
    outcome: Outcome
    usage: TokenUsage
    seconds: float
    thread_id: str | None = None
    host: str = "local"
    workspace_path: str | None = None
    session_id: str | None = None
    last_event: str | None = None
    last_message: Any = None
    last_event_wall: float | None = None
    spend: Spend | None = None
    idle: IdleTurns = NOT_IDLE


@dataclass(frozen=True, slots=True)
class SpendReported:
    """What live runs have spent so far, each in all; about once a second, those that changed."""

    spends: Sequence[tuple[RunId, Spend]]


@dataclass(frozen=True, slots=True)
class CleanupEnded:
    """Answer to ``CleanWorkspace``; ``error`` is a sentence where the workspace is still there."""

    cause: Cause
    issue_id: IssueId
    error: str | None = None


@dataclass(frozen=True, slots=True)
class RestoredClaim:
    """A claim as the ledger had it when the daemon ended.

    Attributes:
        kind: ``running``, ``retry`` or ``blocked``.
        delay_s: Seconds that remained until a retry was due or a block ended; None: no such time.
        failures: Failed runs in a row, or None in rows that do not say.
        crossed: The limit of the budget for which it is blocked, or None.
        idle: Turns in a row without progress.
        question: What the agent of a blocked issue asked.
        reply: An operator's answer that the next run takes along.
        seen: How the tracker showed a blocked issue once its run had ended, or None.
        stopped: Why an operator has ordered a stop that this run did not live to see, or None.
        ended: What its run had come to when the daemon ended while it was being wound up, or None.
    """

    kind: str
    issue: Issue
    attempt: int | None
    retry_kind: RetryKind | None
    error: str | None
    delay_s: float | None = None
    thread_id: str | None = None
    host: str = "local"
    workspace_path: str | None = None
    blocked_category: str | None = None
    since_wall: float = 0.0
    failures: int | None = None
    crossed: Crossing | None = None
    idle: IdleTurns = NOT_IDLE
    question: Question | None = None
    reply: Reply | None = None
    seen: Seen | None = None
    stopped: str | None = None
    ended: RunEnded | None = None

    @property
    def had_ended(self) -> bool:
        """Its run has an outcome that counts: only its end was not taken any more.

        What we had cut off for the tracker, a budget or a shutdown has none: it is taken up again
        and judged by how things are now. A stop of an operator holds.
        """
        if self.ended is None:
            return False
        return self.ended.outcome.kind is not OutcomeKind.CANCELLED or self.stopped is not None


@dataclass(frozen=True, slots=True)
class Seen:
    """What may change of a blocked issue; labels are sorted."""

    state: str
    labels: tuple[str, ...]

    @classmethod
    def of(cls, issue: Issue) -> Seen:
        """Return it for the issue as the tracker shows it."""
        return cls(issue.state_key, tuple(sorted(issue.labels)))


@dataclass(frozen=True, slots=True)
class RestoredPark:
    """A usage limit that the last daemon met; ``delay_s`` is what remains of the wait."""

    until_wall: float
    reason: str
    delay_s: float


class ControlAction(StrEnum):
    """What an operator may order."""

    PAUSE = "pause"
    """Start nothing; what runs goes on."""
    RESUME = "resume"
    """Lift a hold; what an operator stopped runs again."""
    DRAIN = "drain"
    """Start nothing; what runs ends after its present turn."""
    STOP = "stop"
    """End agents now; their issues wait for a person."""
    RETRY = "retry"
    """Run what waits or is blocked now."""
    RESET_BREAKER = "reset_breaker"
    """Close the failure breaker and forget what it counted."""
    RAISE = "raise"
    """Add to the limits of an issue, of the present day or of all work."""
    ANSWER = "answer"
    """Answer what the agent of a blocked issue asked; it runs again at once."""
    UNPARK = "unpark"
    """Lift the wait for the reset of a usage limit."""
    OVERRIDE_HOURS = "override_hours"
    """Let work start outside the active hours for a while."""


class HoldKind(StrEnum):
    """How work is held back."""

    PAUSE = "pause"
    DRAIN = "drain"


@dataclass(frozen=True, slots=True)
class Hold:
    """Work that must not start until an operator lifts it.

    Attributes:
        scope: An issue's identifier, or None for all work.
        by: Who ordered it, for people.
        since_wall: Epoch seconds.
    """

    scope: str | None
    kind: HoldKind
    reason: str
    by: str
    since_wall: float


@dataclass(frozen=True, slots=True)
class RaiseOrder:
    """What operators have added to the limits of a scope.

    Attributes:
        scope: ``total``, ``day:<date>`` or ``issue:<id>``.
        amounts: The sum of all orders.
        by: Who gave the last one, for people.
        since_wall: When, epoch seconds.
    """

    scope: str
    amounts: Raise
    by: str
    since_wall: float


@dataclass(frozen=True, slots=True)
class RestoredSpend:
    """What the ledger held of all spend.

    Attributes:
        issues: By issue id, over all days.
        identifiers: The issues' human keys, as far as they are known.
        days: By ISO date, the newest ones.
        raises: Orders that raised limits.
    """

    issues: Mapping[IssueId, Spend] = field(default_factory=dict)
    identifiers: Mapping[IssueId, str] = field(default_factory=dict)
    days: Mapping[str, Spend] = field(default_factory=dict)
    raises: tuple[RaiseOrder, ...] = ()


NOTHING_SPENT = RestoredSpend()


@dataclass(frozen=True, slots=True)
class ControlRequested:
    """An operator's order, already authorised; ``identifier`` None means all work.

    ``failure_class`` narrows a reset of the breaker; None means all classes. For
    a raise, ``identifier`` may be ``day`` or ``total`` too, and ``amounts`` says by how much.
    ``answer`` comes with the order to answer, and with no other one.
    ``for_s`` is how long the active hours are overridden, 0 ends that. ``found`` is the issue as
    the tracker has just shown it, where nothing of it is on our books.
    """

    action: ControlAction
    identifier: str | None = None
    reason: str = ""
    by: str = "operator"
    failure_class: FailureClass | None = None
    amounts: Raise = NO_RAISE
    answer: Answer | None = None
    for_s: float = 0.0
    found: Issue | None = None


@dataclass(frozen=True, slots=True)
class Override:
    """An operator lets work start outside the active hours; epoch seconds."""

    since_wall: float
    until_wall: float


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed run that the breaker counts: monotonic seconds decide, epoch seconds last.

    ``seconds`` is how long the run took to fail.
    """

    issue_id: IssueId
    mono: float
    wall: float
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRecord:
    """What outlives the daemon of one class of failures.

    Attributes:
        failures: Those that were counted, oldest first.
        count: How many failures opened it, canaries included; 0 where it is closed.
        issues: Of how many issues.
        until_wall: When (epoch seconds) its cool-down ends, or None where it is closed.
        cooldown_s: The whole cool-down.
    """

    failure_class: FailureClass
    failures: tuple[Failure, ...] = ()
    count: int = 0
    issues: int = 0
    since_wall: float = 0.0
    until_wall: float | None = None
    cooldown_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Restored:
    """What the ledger held at start. The first event of every daemon, empty on a first start."""

    claims: Sequence[RestoredClaim] = ()
    usage: TokenUsage = field(default_factory=TokenUsage)
    seconds: float = 0.0
    holds: Sequence[Hold] = ()
    breakers: Sequence[BreakerRecord] = ()
    spend: RestoredSpend = NOTHING_SPENT
    park: RestoredPark | None = None
    override: Override | None = None


@dataclass(frozen=True, slots=True)
class ResourcesRead:
    """What a host has left; the newest figures of a host count."""

    found: HostResources


@dataclass(frozen=True, slots=True)
class PlacesChecked:
    """The daemon's own files are gone or replaced, in a sentence; None: they are there again."""

    lost: str | None


@dataclass(frozen=True, slots=True)
class ShutdownRequested:
    """Stop dispatching and end every run; claims stay in the ledger."""


Event = (
    WakeUp
    | RefreshRequested
    | PaceObserved
    | SettingsChanged
    | ConfigBroken
    | ConfigRepaired
    | CandidatesFetched
    | CandidatesFailed
    | IssuesRefreshed
    | RefreshFailed
    | TerminalFetched
    | TerminalFailed
    | RunIssueChanged
    | RunSilent
    | RunEnded
    | SpendReported
    | CleanupEnded
    | ControlRequested
    | Restored
    | ResourcesRead
    | PlacesChecked
    | ShutdownRequested
)
