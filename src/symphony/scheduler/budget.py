"""The books of what work has cost, and what follows where a limit is reached.

Role: keeps what each issue, each day and all work have spent, live runs included; answers the gate
``within_budget``; ends runs where the day's or the total limit is reached; lets issues go on whose
limit was raised. Turn, run and issue are watched by the run itself (``runner.budget``), which sees
every token at once; the books hear of spend about once a second.

Invariant: a token is booked once: a run reports what it has spent in all, and the difference to
its last report is added. Pure: time comes in. ``model.spend`` has the values, ``controls`` takes
the orders that raise a limit, ``ledger.spending`` makes all of it durable.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import TYPE_CHECKING

from symphony.config.settings import Settings
from symphony.model.clock import Instant, iso
from symphony.model.issue import IssueId
from symphony.model.run import RetryKind, RunId, StopReason
from symphony.model.spend import (
    NO_RAISE,
    NO_SPEND,
    BudgetScope,
    Crossing,
    Limits,
    Quantity,
    Raise,
    Spend,
)

from .claims import Blocked, Claim, RetryQueued, Running
from .commands import Command, Level, RaiseIssue, SaveRaise, StopRun
from .events import ControlRequested, RaiseOrder, RestoredSpend, RunEnded, SpendReported
from .notes import note

if TYPE_CHECKING:
    from .state import SchedulerState

DAYS_KEPT = 8
"""Days of which the sums are kept in memory: the wall clock may be set back."""

ONE_RUN = Spend(runs=1)

SPENT_STOPS = {
    BudgetScope.DAY: StopReason.BUDGET_DAY,
    BudgetScope.TOTAL: StopReason.BUDGET_TOTAL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetRules:
    """The limits that the scheduler itself keeps; the run keeps those of turn and run."""

    turn: Limits
    run: Limits
    issue: Limits
    day: Limits
    total: Limits
    zone: tzinfo
    settings: Settings

    @classmethod
    def from_settings(cls, settings: Settings) -> BudgetRules:
        """Take the limits from the settings."""
        budget = settings.budget
        limits = {scope.value: budget.limits(scope) for scope in BudgetScope}
        return cls(**limits, zone=budget.zone, settings=settings)


@dataclass(slots=True)
class Books:
    """What has been spent.

    Attributes:
        rules: The limits in force.
        issues: By issue, over all of its runs, live ones up to their last report.
        identifiers: The issues' human keys.
        days: By ISO date in the zone of the rules.
        total: All work.
        live: What each live run has reported so far.
        raises: Orders that raised limits, by scope.
        day: The present day's date.
        begins_wall: When it began, epoch seconds.
        ends_wall: When it ends.
        reopens_mono: When the day's limit no longer holds work back, or None where it doesn't.
    """

    rules: BudgetRules
    issues: dict[IssueId, Spend] = field(default_factory=dict)
    identifiers: dict[IssueId, str] = field(default_factory=dict)
    days: dict[str, Spend] = field(default_factory=dict)
    total: Spend = NO_SPEND
    live: dict[RunId, Spend] = field(default_factory=dict)
    raises: dict[str, RaiseOrder] = field(default_factory=dict)
    day: str = ""
    begins_wall: float = 0.0
    ends_wall: float = 0.0
    reopens_mono: float | None = None

    # What is spent

    def restore(self, spend: RestoredSpend) -> None:
        """Take over what the ledger held."""
        self.issues = dict(spend.issues)
        self.identifiers = dict(spend.identifiers)
        self.days = dict(spend.days)
        self.raises = {order.scope: order for order in spend.raises}
        self.total = sum(self.issues.values(), NO_SPEND)

    def book(self, issue_id: IssueId, identifier: str, added: Spend) -> None:
        """Add to the issue, the present day and all work."""
        self.issues[issue_id] = self.spent_by(issue_id) + added
        self.identifiers[issue_id] = identifier
        self.days[self.day] = self.days.get(self.day, NO_SPEND) + added
        self.total = self.total + added

    def report(self, run: Running, spend: Spend) -> None:
        """Take what a live run has spent in all; only what is new is booked."""
        before = self.live.get(run.spec.run_id, NO_SPEND)
        added = spend.since(before)
        self.live[run.spec.run_id] = before + added
        self.book(run.issue.id, run.issue.identifier, added)

    def spent_by(self, issue_id: IssueId) -> Spend:
        """Return what an issue has spent."""
        return self.issues.get(issue_id, NO_SPEND)

    @property
    def spent_today(self) -> Spend:
        """What the present day has spent."""
        return self.days.get(self.day, NO_SPEND)

    # The limits in force

    def raised(self, scope: str) -> Raise:
        """Return what operators have added to a scope."""
        order = self.raises.get(scope)
        return NO_RAISE if order is None else order.amounts

    def scope_name(self, scope: BudgetScope, issue_id: IssueId | None = None) -> str:
        """Return the name under which raises of a scope are kept."""
        match scope:
            case BudgetScope.DAY:
                return f"day:{self.day}"
            case BudgetScope.ISSUE:
                return f"issue:{issue_id}"
            case _:
                return scope.value

    def limits(self, scope: BudgetScope, issue_id: IssueId | None = None) -> Limits:
        """Return the limits of a scope with what operators have added."""
        written: Limits = getattr(self.rules, scope.value)
        # Most scopes are not raised; the gate asks for every candidate.
        order = self.raises.get(self.scope_name(scope, issue_id)) if self.raises else None
        return written if order is None else written.raised(order.amounts)

    def all_crossed(self, *, starts: bool = True) -> Crossing | None:
        """Return the limit that holds all work back, or None; the total counts before the day."""
        crossed = self.limits(BudgetScope.TOTAL).crossed(self.total, starts=starts)
        return crossed or self.limits(BudgetScope.DAY).crossed(self.spent_today, starts=starts)

    def issue_crossed(self, issue_id: IssueId) -> Crossing | None:
        """Return the limit of an issue that keeps it from running again, or None."""
        if not self.rules.issue.is_set:
            return None
        limits = self.limits(BudgetScope.ISSUE, issue_id)
        return limits.crossed(self.spent_by(issue_id), starts=True)

    def issue_shut(self, issue_id: IssueId) -> str | None:
        """Return why this issue may not start for its own budget, with the numbers, or None."""
        crossed = self.issue_crossed(issue_id)
        return None if crossed is None else crossed.sentence

    @property
    def all_shut(self) -> str | None:
        """Why nothing may start for the day's or the total budget, with the numbers, or None."""
        crossed = self.all_crossed()
        return None if crossed is None else self.sentence(crossed)

    def sentence(self, crossed: Crossing) -> str:
        """Return a crossing for people; a day's says until when it holds."""
        until = f", until {iso(self.ends_wall)}" if crossed.scope is BudgetScope.DAY else ""
        return crossed.sentence + until

    def issue_named(self, identifier: str | None) -> IssueId | None:
        """Return the id of a known issue by its human key, or None."""
        if identifier is None:
            return None
        names = self.identifiers.items()
        return next((issue_id for issue_id, name in names if name == identifier), None)

    def named(self, identifier: str | None) -> BudgetScope | None:
        """Return which scope an operator's word means, or None for an unknown one."""
        if identifier in (BudgetScope.DAY, BudgetScope.TOTAL):
            return BudgetScope(identifier)
        return None if self.issue_named(identifier) is None else BudgetScope.ISSUE

    def is_lifted(self, claim: Blocked, *, ordered: bool) -> bool:
        """Say whether a block for a budget has lost its reason."""
        crossed = claim.crossed
        if crossed is None:
            return False
        if crossed.quantity is Quantity.PRICE:
            budget = self.rules.settings.budget
            return budget.money_scope is None or budget.price_of(crossed.model) is not None
        if self.issue_crossed(claim.issue.id) is not None:
            return False
        match crossed.scope:
            case BudgetScope.ISSUE:
                return True
            case BudgetScope.TOTAL | BudgetScope.DAY:
                return self.all_crossed() is None
            case scope:
                # A new run has a whole budget again: it is let go on where that has grown.
                limit = self.limits(scope).of(crossed.quantity)
                return ordered or limit is None or limit > crossed.limit


def new_books(settings: Settings) -> Books:
    """Return empty books."""
    return Books(BudgetRules.from_settings(settings))


def day_of(wall: float, zone: tzinfo) -> tuple[str, float, float]:
    """Return the date of a moment in a zone, and when that day begins and ends."""
    date = datetime.fromtimestamp(wall, UTC).astimezone(zone).date()
    begins = datetime.combine(date, time(), zone)
    ends = datetime.combine(date + timedelta(days=1), time(), zone)
    return date.isoformat(), begins.timestamp(), ends.timestamp()


def turn_page(state: SchedulerState, now: Instant) -> None:
    """Bring the present day up to date; a new day offers what waits its slots."""
    books = state.books
    if not books.begins_wall <= now.wall < books.ends_wall:
        before = books.day
        books.day, books.begins_wall, books.ends_wall = day_of(now.wall, books.rules.zone)
        for day in sorted(books.days)[:-DAYS_KEPT]:
            del books.days[day]
        state.claims.freed = state.claims.freed or before != books.day
    crossed = books.all_crossed()
    waits = crossed is not None and crossed.scope is BudgetScope.DAY
    books.reopens_mono = now.mono + (books.ends_wall - now.wall) if waits else None


def change_rules(state: SchedulerState, settings: Settings, now: Instant) -> list[Command]:
    """Put changed limits in force: end what is above them, let go on what they held back."""
    books = state.books
    books.rules = BudgetRules.from_settings(settings)
    books.ends_wall = 0.0
    turn_page(state, now)
    return [*end_if_spent(state), *lift(state, now)]


def spend_reported(state: SchedulerState, event: SpendReported) -> list[Command]:
    """Book what live runs have spent since their last report, and end all if a limit is reached."""
    for run_id, spend in event.spends:
        run = state.claims.run(run_id)
        if run is not None:
            state.books.report(run, spend)
    return end_if_spent(state)


def end_if_spent(state: SchedulerState) -> list[Command]:
    """End the live runs where the day's or the total limit is reached."""
    crossed = state.books.all_crossed(starts=False)
    if crossed is None or state.shutting_down:
        return []
    error, reason = state.books.sentence(crossed), SPENT_STOPS[crossed.scope]
    commands: list[Command] = []
    for run in state.claims.running():
        if run.stopping is None:
            state.claims.put(replace(run, stopping=reason, stop_error=error, crossed=crossed))
            commands.append(StopRun(run.spec.run_id, reason))
            commands.append(
                note(Level.WARNING, "stopping run: budget is spent", run.issue, reason=error)
            )
    return commands


def lift(state: SchedulerState, now: Instant, *, ordered: IssueId | None = None) -> list[Command]:
    """Let every issue go on that was blocked for a limit which no longer holds it.

    A block for a turn or a run goes also where a person has ordered more for its issue.
    """
    state.claims.freed = True
    blocked = [claim for claim in state.claims if isinstance(claim, Blocked)]
    commands: list[Command] = []
    for claim in blocked:
        if state.books.is_lifted(claim, ordered=claim.issue.id == ordered):
            queued = go_on(claim, now)
            state.claims.put(queued)
            commands.append(queued.saved())
            commands.append(
                note(Level.INFO, "budget allows it again", claim.issue, category=claim.category)
            )
    return commands


def go_on(claim: Blocked, now: Instant) -> RetryQueued:
    """Return the retry that takes a blocked issue up again, in its thread."""
    return RetryQueued(
        issue=claim.issue,
        attempt=claim.attempt,
        retry_kind=RetryKind.RECOVERY,
        failures=0,
        due_mono=now.mono,
        due_wall=now.wall,
        error=claim.error,
        thread_id=claim.thread_id,
        host=claim.host,
        workspace_path=claim.workspace_path,
        generation=claim.generation,
        reply=claim.reply,
    )


def holds_back(state: SchedulerState, claim: Claim) -> Crossing | None:
    """Return the limit because of which an order to retry would not help, or None."""
    if not isinstance(claim, Blocked) or claim.crossed is None:
        return None
    books = state.books
    own = books.issue_crossed(claim.issue.id)
    if own is None and claim.crossed.scope in SPENT_STOPS:
        return books.all_crossed()
    return own


def run_ended(books: Books, run: Running, ended: RunEnded) -> None:
    """Book what a run has spent by its end."""
    spend = ended.spend
    if spend is None:
        spend = Spend(tokens=ended.usage.total_tokens, wall_ms=int(ended.seconds * 1000))
    books.report(run, spend)
    books.live.pop(run.spec.run_id, None)


def block_spent(retry: RetryQueued, crossed: Crossing, now: Instant) -> Blocked:
    """Return the block of an issue that may not run again for its budget."""
    error = crossed.sentence
    if retry.error:
        error = f"{error}; before that: {retry.error}"
    return Blocked(
        issue=retry.issue,
        category=crossed.category,
        error=error,
        since_wall=now.wall,
        attempt=retry.attempt,
        retry_kind=retry.retry_kind,
        thread_id=retry.thread_id,
        host=retry.host,
        workspace_path=retry.workspace_path,
        generation=retry.generation,
        crossed=crossed,
        reply=retry.reply,
    )


def raise_limits(state: SchedulerState, event: ControlRequested, now: Instant) -> list[Command]:
    """Add to the limits of an issue, of the present day or of all work, and let go on."""
    books = state.books
    scope = books.named(event.identifier)
    if scope is None:
        return []
    issue_id = books.issue_named(event.identifier)
    name = books.scope_name(scope, issue_id)
    order = RaiseOrder(name, books.raised(name) + event.amounts, event.by, now.wall)
    books.raises[name] = order
    commands: list[Command] = [SaveRaise(order)]
    claim = None if issue_id is None else state.claims.get(issue_id)
    if isinstance(claim, Running) and scope is BudgetScope.ISSUE:
        commands.append(RaiseIssue(claim.spec.run_id, order.amounts))
    turn_page(state, now)
    return [*commands, *lift(state, now, ordered=issue_id)]


def refused_raise(books: Books, identifier: str | None, amounts: Raise) -> str | None:
    """Say why an order to raise can't be carried out, or None where it can."""
    scope = books.named(identifier)
    if scope is None:
        return (
            f"{identifier or 'nothing'} is neither 'day' nor 'total' nor an issue that has run or "
            "is claimed"
        )
    limits = books.limits(scope, books.issue_named(identifier))
    wanted = [
        quantity
        for quantity in (Quantity.TOKENS, Quantity.USD, Quantity.WALL, Quantity.ATTEMPTS)
        if amounts.of(quantity)
    ]
    if not wanted:
        return "name at least one amount to add: tokens, usd, wall_ms or attempts"
    unlimited = [str(quantity) for quantity in wanted if limits.of(quantity) is None]
    if unlimited:
        return f"budget.{scope} has no limit of {', '.join(unlimited)}: there is nothing to raise"
    return None
