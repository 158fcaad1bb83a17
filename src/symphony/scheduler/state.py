"""What the scheduler knows. Only ``step`` changes it, between two of its returns nothing does.

Beside the claims: the reads and clean-ups in flight by cause, the poll cycle, the park, the totals
and the seeded generator of run ids and jitter. The shell holds one ``SchedulerState``, passes it
to ``step`` and ``snapshot`` and never looks inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from random import Random

from symphony.config.settings import Settings
from symphony.model.clock import Instant, iso
from symphony.model.issue import Issue, IssueId
from symphony.model.run import RunId
from symphony.model.usage import TokenUsage

from .blocks import remedy, ways_out
from .books import Books, new_books
from .breaker import Breaker
from .claims import Blocked, Claims, describe
from .commands import RefreshPurpose
from .eligibility import Gate, Rules, Scope, View
from .events import Cause, Hold
from .hours import Hours
from .pacing import Pace
from .resources import Resources

SUSPECT_S = 60.0
"""How long a host that was lost is chosen last."""


class Asked(Enum):
    """What a command in flight asked for, besides the purposes of ``RefreshIssues``."""

    CANDIDATES = "candidates"
    TERMINAL = "terminal"
    CLEANUP = "cleanup"


@dataclass(frozen=True, slots=True)
class Pending:
    """A command that has not been answered.

    Attributes:
        asked: What it is for.
        ids: The issues that it is about, in dispatch order.
        issued_mono: When it was issued.
        generation: The tracker scope that it was put to.
    """

    asked: Asked | RefreshPurpose
    ids: tuple[IssueId, ...]
    issued_mono: float
    generation: int


@dataclass(slots=True)
class Poll:
    """The poll cycle: reconcile and candidates are read at once, dispatch waits for both.

    Attributes:
        next_mono: When the next cycle begins; None while one is in flight.
        ended_mono: When the last one ended.
        reconcile: Cause of the reconcile read in flight, or None.
        candidates: Cause of the candidates read in flight, or None.
        held: Candidates that arrived before the reconcile answer (SPEC 7.4: reconcile first).
        not_before_mono: The tracker asked to be left alone until then.
        again: Somebody asked for a poll during the cycle: another follows.
        error: Why a read of this cycle failed, or None.
        warned: What the log was told of failed reads, without numbers, since the last success.
        pace: How far apart the cycles are.
    """

    next_mono: float | None = None
    ended_mono: float = 0.0
    not_before_mono: float = 0.0
    reconcile: Cause | None = None
    candidates: Cause | None = None
    held: Sequence[Issue] | None = None
    again: bool = False
    error: str | None = None
    warned: tuple[str, ...] = ()
    pace: Pace = field(default_factory=Pace)

    @property
    def checking(self) -> bool:
        """A cycle is in flight."""
        return self.reconcile is not None or self.candidates is not None


@dataclass(frozen=True, slots=True)
class Park:
    """All dispatch waits until a usage limit is reset."""

    until_mono: float
    until_wall: float
    reason: str


@dataclass(slots=True)
class SchedulerState:
    """All of it.

    Attributes:
        settings: The configuration in force; ``rules`` is its normalised form.
        generation: Grows with each change of the tracker's scope; answers to earlier ones are void.
        scope: Number of the scope in force; one that comes back has the number that it had.
        scopes: All that have been in force, by their numbers.
        started: ``Restored`` has been seen.
        pending: Unanswered commands by cause.
        confirm_mono: When missing issues get their second read, or None.
        suspects: Lost hosts, and until when (monotonic seconds) they are chosen last.
        waiting: Candidates of the last cycle that may not start, with the gate; bounded.
        usage: Tokens of all ended runs.
        seconds: Run time of all ended runs.
        holds: Operators' holds, by identifier; None holds all work.
        breaker: Counts failures that all issues share.
        books: What all work has cost, and the limits on it.
        hours: Whether it is time to work.
        resources: What the hosts have left.
        lost: What the daemon stands on and has lost, or None.
    """

    settings: Settings
    rules: Rules
    workflow_id: str
    rng: Random
    books: Books
    claims: Claims = field(default_factory=Claims)
    pending: dict[Cause, Pending] = field(default_factory=dict)
    poll: Poll = field(default_factory=Poll)
    causes: int = 0
    generation: int = 0
    scope: int = 0
    scopes: list[Scope] = field(default_factory=list)
    started: bool = False
    shutting_down: bool = False
    config_error: str | None = None
    tracker_error: str | None = None
    park: Park | None = None
    confirm_mono: float | None = None
    suspects: dict[str, float] = field(default_factory=dict)
    waiting: tuple[tuple[Issue, Gate], ...] = ()
    usage: TokenUsage = field(default_factory=TokenUsage)
    seconds: float = 0.0
    holds: dict[str | None, Hold] = field(default_factory=dict)
    breaker: Breaker = field(default_factory=Breaker)
    hours: Hours = field(default_factory=Hours)
    resources: Resources = field(default_factory=Resources)
    lost: str | None = None

    def number_of(self, scope: Scope) -> int:
        """Return the number of a tracker's scope; a new one gets the next."""
        if scope not in self.scopes:
            self.scopes.append(scope)
        return self.scopes.index(scope)

    def new_cause(self) -> Cause:
        """Number a command that may be issued."""
        self.causes += 1
        return Cause(self.causes)

    def expect(
        self,
        cause: Cause,
        asked: Asked | RefreshPurpose,
        ids: Sequence[IssueId] = (),
        *,
        now: Instant,
    ) -> None:
        """Note that the command with this cause is issued and its answer is due."""
        self.pending[cause] = Pending(asked, tuple(ids), now.mono, self.generation)

    def ask(
        self, asked: Asked | RefreshPurpose, ids: Sequence[IssueId] = (), *, now: Instant
    ) -> Cause:
        """Number a command and note that its answer is due."""
        cause = self.new_cause()
        self.expect(cause, asked, ids, now=now)
        return cause

    def answered(self, cause: Cause, *asked: Asked | RefreshPurpose) -> Pending | None:
        """Take the pending command that this answers, or None for a late or doubled answer."""
        pending = self.pending.get(cause)
        if pending is None or pending.asked not in asked:
            return None
        return self.pending.pop(cause)

    def read_failed(self, error: str, retry_after_s: float | None, *, now: Instant) -> None:
        """Show why the tracker could not be read, and leave it alone for as long as it asked."""
        self.tracker_error = error
        if retry_after_s is not None:
            poll = self.poll
            poll.not_before_mono = max(poll.not_before_mono, now.mono + retry_after_s)
            if poll.next_mono is not None:
                poll.next_mono = max(poll.next_mono, poll.not_before_mono)

    def no_longer_asks(self, cause: Cause, issue_id: IssueId) -> None:
        """Take an issue out of a read in flight: its answer counts for the others only."""
        pending = self.pending.get(cause)
        if pending is not None:
            ids = tuple(one for one in pending.ids if one != issue_id)
            self.pending[cause] = replace(pending, ids=ids)

    def new_run_id(self) -> RunId:
        """Return an id that no run of this or another lifetime has."""
        return RunId(f"{self.rng.getrandbits(64):016x}")

    def view(self) -> View:
        """Return what the gates look at now."""
        return View(
            rules=self.rules,
            slots=self.claims.slots,
            describe_claim=self.describe_claim,
            config_error=self.config_error,
            parked=self.parked_reason,
            shutting_down=self.shutting_down,
            suspects=self.suspects,
            holds=self.holds,
            breaker=lambda issue_id: self.breaker.why_shut(issue_id, self.claims),
            spent=self.books.all_shut,
            issue_spent=self.books.issue_shut,
            hours=self.hours.why_shut,
            lost=self.lost,
            short=self.resources.short,
        )

    def describe_claim(self, issue_id: IssueId) -> str | None:
        """Return a sentence about an issue's claim and what ends it, or None without a claim."""
        claim = self.claims.get(issue_id)
        if not isinstance(claim, Blocked):
            return None if claim is None else describe(claim)
        until_wall = claim.until_wall
        ways = ways_out(claim.category, unblock_on=self.rules.unblock_on, until_wall=until_wall)
        question = None if claim.reply is not None else claim.question
        mend = remedy(claim.issue.identifier, ways, question=question, until_wall=until_wall)
        return f"{describe(claim)}; {mend}"

    def poll_soon(self, now: Instant) -> None:
        """Plan a poll cycle for now, or another one right after the one that is in flight.

        A wait that the tracker asked for is kept.
        """
        if self.shutting_down or not self.started:
            return
        if self.poll.checking:
            self.poll.again = True
        else:
            self.poll.next_mono = max(now.mono, self.poll.not_before_mono)

    @property
    def parked_reason(self) -> str | None:
        """Until when and why no work starts, or None."""
        if self.park is None:
            return None
        return f"parked until {iso(self.park.until_wall)}: {self.park.reason}"


def new_state(settings: Settings, *, workflow_id: str, seed: int) -> SchedulerState:
    """Return the state of a daemon that has not seen ``Restored`` yet.

    Args:
        settings: A valid configuration.
        workflow_id: Names the workflow in snapshots and rows.
        seed: For run ids and jitter. At least 64 bits of real chance, drawn once by the shell: run
            ids must differ from those of earlier lifetimes.
    """
    rules = Rules.from_settings(settings)
    return SchedulerState(
        settings=settings,
        rules=rules,
        workflow_id=workflow_id,
        rng=Random(seed),
        books=new_books(settings),
        scopes=[rules.scope],
    )


def next_wakeup(state: SchedulerState) -> float | None:
    """Return when (monotonic seconds) the shell should send ``WakeUp``, or None for never.

    The shell keeps one timer and sets it after each step. An early or extra ``WakeUp`` does no
    harm, a late one only delays.
    """
    if state.shutting_down or not state.started:
        return None
    times = (
        state.poll.next_mono,
        state.claims.next_due(),
        state.confirm_mono,
        state.park.until_mono if state.park is not None else None,
        state.breaker.next_due(),
        state.books.reopens_mono,
        state.hours.next_due(),
    )
    return min((time for time in times if time is not None), default=None)


def refresh_coalesced(state: SchedulerState, now: Instant) -> bool:
    """Say whether a ``RefreshRequested`` given now would merge into a poll that is on its way."""
    poll = state.poll
    return poll.checking or (poll.next_mono is not None and poll.next_mono <= now.mono)


def live_runs(state: SchedulerState) -> int:
    """Return how many workers have not reported their end: what a shutdown waits for."""
    return len(state.claims.running())


def unfinished(state: SchedulerState) -> int:
    """Return how many workers and clean-ups a shutdown has to wait for."""
    cleaning = sum(1 for pending in state.pending.values() if pending.asked is Asked.CLEANUP)
    return live_runs(state) + cleaning
