"""Claims: our reservations of issues, one map of one tagged value per issue (SPEC 7.1).

A claim is held while anything of the issue is in flight, so each kind names what stands behind it:
a run, a due time, a read, a clean-up, or a reason to wait for a person. ``Claims`` keeps the
indexes (slots, run ids, due times, contenders) equal to the map; nobody else writes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

from symphony.model.clock import iso
from symphony.model.issue import Issue, IssueId
from symphony.model.question import Question, Reply
from symphony.model.run import RetryKind, RunId, RunSpec, StopReason
from symphony.model.spend import NOT_IDLE, Crossing, IdleTurns

from .commands import SaveClaim
from .eligibility import SLOT_GATES, DispatchKey, Gate, dispatch_key
from .events import Cause, Seen
from .placement import LOCAL_HOST, Slots

NO_SLOTS = "no available orchestrator slots"
"""Error of a due retry that finds every slot taken (SPEC 8.4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatching:
    """Chosen, slot taken; the read that confirms it is in flight."""

    issue: Issue
    cause: Cause
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A worker lives.

    Attributes:
        spec: What it was started with.
        issue: The newest snapshot; its state counts for the per-state limit.
        failures: Failed runs in a row before this one.
        scope: Which tracker scope last showed the issue (``SchedulerState.scope``).
        stopping: Why it is being ended, or None.
        stop_error: The error that its retry will carry, for a stall or a spent budget.
        crossed: The limit of the budget for which it is being ended, or None.
        missing_since: Monotonic seconds of the first read that lacked it, or None.
        resumed: An operator wants it to run again once it has ended, though it was stopped.
    """

    spec: RunSpec
    issue: Issue
    started_mono: float
    started_wall: float
    failures: int
    scope: int
    stopping: StopReason | None = None
    stop_error: str | None = None
    missing_since: float | None = None
    workspace_path: str | None = None
    crossed: Crossing | None = None
    resumed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryQueued:
    """No worker; the next attempt waits for its time, or past that for a gate.

    Attributes:
        attempt: Ordinal of the coming run (SPEC 12.3); None repeats a first run.
        failures: Failed runs in a row.
        error: The last run's error, for the prompt and the row.
        category: Of that error (SPEC 10.6), or None where there was none.
        host: Where it ran last and should run again.
        scope: Which tracker scope last showed the issue (``SchedulerState.scope``).
        hold: The gate that it found shut when due; then it contends for slots, not for time.
        read_failures: Tracker reads in a row that failed when due.
        read_error: The last of those errors.
        idle: Turns in a row without progress.
        reply: An operator's answer, which the next run is told.
        missing_since: Monotonic seconds of the first read that lacked it while it waits, or None.
    """

    issue: Issue
    attempt: int | None
    retry_kind: RetryKind
    failures: int
    due_mono: float
    due_wall: float
    error: str | None = None
    category: str | None = None
    thread_id: str | None = None
    host: str | None = None
    workspace_path: str | None = None
    scope: int = 0
    hold: Gate | None = None
    read_failures: int = 0
    read_error: str | None = None
    idle: IdleTurns = NOT_IDLE
    reply: Reply | None = None
    missing_since: float | None = None

    @property
    def waits_for_slot(self) -> bool:
        """It would run if a slot were free."""
        return self.hold is not None and self.hold.name in SLOT_GATES

    @property
    def shown_error(self) -> str | None:
        """The error for people: why it does not run now, else why the last run failed."""
        if self.read_error is not None:
            return self.read_error
        if self.hold is not None:
            return NO_SLOTS if self.waits_for_slot else self.hold.detail
        return self.error

    def saved(self) -> SaveClaim:
        """Return the command that makes it durable.

        Waiting and failed reads are left out on purpose: the row's due time has passed, so after a
        restart the retry is looked at at once, which is what both of them want.
        """
        return SaveClaim(
            kind="retry",
            issue=self.issue,
            attempt=self.attempt,
            retry_kind=self.retry_kind,
            error=self.error,
            blocked_category=self.category,
            due_wall=self.due_wall,
            thread_id=self.thread_id,
            host=self.host or LOCAL_HOST,
            workspace_path=self.workspace_path,
            failures=self.failures,
            idle=self.idle,
            reply=self.reply,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rechecking:
    """A due retry whose read is in flight; ``host`` is set once a slot is taken for it."""

    retry: RetryQueued
    cause: Cause
    host: str | None = None

    @property
    def issue(self) -> Issue:
        """The issue as the retry knew it."""
        return self.retry.issue


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """Another attempt can't help before a person acts (input, approval, login, a bad model).

    The event fields are those of the run's last protocol event, for the row.

    Attributes:
        crossed: The limit of the budget that it waits for, or None.
        until_mono: When it ends by itself, or None; ``until_wall`` is the same for people.
        question: What the agent asked, where it asked.
        reply: An answer to an earlier question that no run has taken to its end yet.
        seen: How the tracker showed the issue once its run had ended: a later difference is not
            the agent's own doing. None until a read has told.
        read_mono: When the newest read was issued that counts for ``seen``; older ones don't.
    """

    issue: Issue
    category: str
    error: str
    since_wall: float
    attempt: int | None = None
    retry_kind: RetryKind | None = None
    thread_id: str | None = None
    host: str | None = None
    workspace_path: str | None = None
    scope: int = 0
    missing_since: float | None = None
    session_id: str | None = None
    last_event: str | None = None
    last_message: Any = None
    last_event_wall: float | None = None
    crossed: Crossing | None = None
    until_mono: float | None = None
    until_wall: float | None = None
    question: Question | None = None
    reply: Reply | None = None
    seen: Seen | None = None
    read_mono: float = 0.0

    def saved(self) -> SaveClaim:
        """Return the command that makes it durable."""
        return SaveClaim(
            kind="blocked",
            issue=self.issue,
            attempt=self.attempt,
            retry_kind=self.retry_kind,
            error=self.error,
            thread_id=self.thread_id,
            host=self.host or LOCAL_HOST,
            workspace_path=self.workspace_path,
            blocked_category=self.category,
            since_wall=self.since_wall,
            crossed=self.crossed,
            due_wall=self.until_wall,
            question=self.question,
            reply=self.reply,
            seen=self.seen,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaning:
    """The issue is finished and its workspace is being removed."""

    issue: Issue
    cause: Cause


Claim = Dispatching | Running | RetryQueued | Rechecking | Blocked | Cleaning


def describe(claim: Claim) -> str:
    """Return one sentence about a claim, for ``explain`` and notes."""
    match claim:
        case Dispatching():
            return "chosen; the tracker is asked once more before it starts"
        case Running(stopping=None):
            return f"running as {claim.spec.run_id}"
        case Running():
            return f"running as {claim.spec.run_id}, being stopped ({claim.stopping})"
        case RetryQueued(hold=None):
            why = f": {claim.shown_error}" if claim.shown_error else ""
            return f"waiting for its {claim.retry_kind} retry at {iso(claim.due_wall)}{why}"
        case RetryQueued():
            return f"its {claim.retry_kind} retry is due and waits: {claim.shown_error}"
        case Rechecking():
            return f"its {claim.retry.retry_kind} retry is due; the tracker is being asked"
        case Blocked():
            return f"blocked since {iso(claim.since_wall)} ({claim.category}): {claim.error}"
        case Cleaning():
            return "its workspace is being removed"


def is_same(claim: Running | RetryQueued | Blocked, issue: Issue, scope: int) -> bool:
    """Say whether an issue that the tracker shows is the claimed one.

    Within one tracker scope the id decides. After a change of the scope (``scope``) an equal
    id may name another issue; then its key differs.
    """
    return claim.scope == scope or claim.issue.identifier == issue.identifier


class Claims:
    """The map of claims with its indexes.

    Attributes:
        slots: Taken slots of all claims that hold one.
        contending: Retries that are due and have no slot yet, with their places in the order.
        freed: Set when a slot was given back; the step that sees it offers it to contenders.
    """

    __slots__ = (
        "_by_issue",
        "_by_run",
        "_due",
        "_ending",
        "_order",
        "contending",
        "freed",
        "slots",
    )

    def __init__(self) -> None:
        self._by_issue: dict[IssueId, Claim] = {}
        self._by_run: dict[RunId, IssueId] = {}
        # Entries go stale when their claim changes; they are skipped when they come up.
        self._due: list[tuple[float, int, IssueId]] = []
        self._ending: list[tuple[float, int, IssueId]] = []
        self._order = 0
        self.slots = Slots()
        self.contending: dict[IssueId, DispatchKey] = {}
        self.freed = False

    def __len__(self) -> int:
        return len(self._by_issue)

    def __iter__(self) -> Iterator[Claim]:
        return iter(self._by_issue.values())

    def __contains__(self, issue_id: IssueId) -> bool:
        return issue_id in self._by_issue

    def get(self, issue_id: IssueId) -> Claim | None:
        """Return the issue's claim, or None."""
        return self._by_issue.get(issue_id)

    def run(self, run_id: RunId) -> Running | None:
        """Return the claim whose current run this is, or None for any other run."""
        issue_id = self._by_run.get(run_id)
        claim = self._by_issue.get(issue_id) if issue_id is not None else None
        return claim if isinstance(claim, Running) else None

    def holds_slot(self, issue_id: IssueId) -> bool:
        """Say whether the issue runs or has a slot to start in."""
        claim = self._by_issue.get(issue_id)
        return claim is not None and occupancy(claim) is not None

    def running(self) -> list[Running]:
        """Return the claims with a live worker, oldest first."""
        return [claim for claim in self._by_issue.values() if isinstance(claim, Running)]

    def put(self, claim: Claim) -> None:
        """Set the issue's claim, in place of any other that it had."""
        issue_id = claim.issue.id
        old = self._by_issue.get(issue_id)
        if old is not None:
            self._leave(old)
        self._by_issue[issue_id] = claim
        held = occupancy(claim)
        if held is not None:
            self.slots.take(*held)
        if isinstance(claim, Running):
            self._by_run[claim.spec.run_id] = issue_id
        elif contends(claim):
            self.contending[issue_id] = dispatch_key(claim.issue, fresh=False)
        elif isinstance(claim, RetryQueued):
            self._order += 1
            heappush(self._due, (claim.due_mono, self._order, issue_id))
        elif isinstance(claim, Blocked) and claim.until_mono is not None:
            if isinstance(old, Blocked) and old.until_mono == claim.until_mono:
                return
            self._order += 1
            heappush(self._ending, (claim.until_mono, self._order, issue_id))

    def drop(self, issue_id: IssueId) -> None:
        """Release the issue's claim."""
        self._leave(self._by_issue.pop(issue_id))

    def _leave(self, old: Claim) -> None:
        held = occupancy(old)
        if held is not None:
            self.slots.give_back(*held)
            self.freed = True
        if isinstance(old, Running):
            del self._by_run[old.spec.run_id]
        self.contending.pop(old.issue.id, None)

    def next_due(self) -> float | None:
        """Return when the earliest retry falls due or block ends, in monotonic seconds, or None."""
        times = []
        for heap, is_timed in ((self._due, self._is_timed), (self._ending, self._is_ending)):
            while heap and not is_timed(heap[0][2], heap[0][0]):
                heappop(heap)
            if heap:
                times.append(heap[0][0])
        return min(times, default=None)

    def pop_ending(self, now_mono: float) -> list[Blocked]:
        """Return the blocks that end by themselves by now; the caller replaces each at once."""
        ending: dict[IssueId, Blocked] = {}
        while self._ending and self._ending[0][0] <= now_mono:
            until_mono, _, issue_id = heappop(self._ending)
            claim = self._by_issue.get(issue_id)
            if self._is_ending(issue_id, until_mono) and isinstance(claim, Blocked):
                ending[issue_id] = claim
        return list(ending.values())

    def pop_due(self, now_mono: float) -> list[RetryQueued]:
        """Return the retries whose time has come; the caller gives each a new claim at once."""
        due: list[RetryQueued] = []
        seen: set[IssueId] = set()
        while self._due and self._due[0][0] <= now_mono:
            due_mono, _, issue_id = heappop(self._due)
            claim = self._by_issue.get(issue_id)
            if (
                self._is_timed(issue_id, due_mono)
                and isinstance(claim, RetryQueued)
                and issue_id not in seen
            ):
                seen.add(issue_id)
                due.append(claim)
        return due

    def armed(self) -> set[tuple[IssueId, float]]:
        """Return the issues and due times of all timed retries that will come up (for checks)."""
        return {(issue_id, due) for due, _, issue_id in self._due if self._is_timed(issue_id, due)}

    def _is_timed(self, issue_id: IssueId, due_mono: float) -> bool:
        claim = self._by_issue.get(issue_id)
        return isinstance(claim, RetryQueued) and claim.hold is None and claim.due_mono == due_mono

    def _is_ending(self, issue_id: IssueId, until_mono: float) -> bool:
        claim = self._by_issue.get(issue_id)
        return isinstance(claim, Blocked) and claim.until_mono == until_mono


def occupancy(claim: Claim) -> tuple[str, str] | None:
    """Return the state and host under which a claim holds a slot, or None where it holds none."""
    match claim:
        case Running():
            return claim.issue.state_key, claim.spec.host
        case Dispatching() | Rechecking(host=str()):
            assert claim.host is not None
            return claim.issue.state_key, claim.host
        case _:
            return None


def contends(claim: Claim) -> bool:
    """Say whether a claim is a due retry without a slot."""
    match claim:
        case RetryQueued():
            return claim.hold is not None
        case Rechecking():
            return claim.host is None
        case _:
            return False
