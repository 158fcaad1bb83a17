"""The books: what each issue, each day and all work have spent, and the limits on it.

Invariant: a token is booked once: a run reports what it has spent in all, and the difference to
its last report is added. Pure, and without a look at the claims but for one block. ``budget`` acts
on what is read here, ``budget_rows`` has what people see, ``ledger.spending`` what outlives us.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta, tzinfo

from symphony.config.settings import Settings
from symphony.model.clock import iso
from symphony.model.issue import IssueId
from symphony.model.run import RunId
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

from .budget_rows import BudgetRow, BudgetsRow, LimitRow
from .claims import Blocked, Running
from .events import RaiseOrder, RestoredSpend

DAYS_KEPT = 8
"""Days of which the sums are kept in memory: the wall clock may be set back."""

ONE_RUN = Spend(runs=1)


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

    def row(self, scope: BudgetScope, spent: Spend, issue_id: IssueId | None = None) -> BudgetRow:
        """Return what people see of a scope."""
        limits = self.limits(scope, issue_id)
        identifier = None if issue_id is None else self.identifiers.get(issue_id)
        if not limits.is_set:
            return BudgetRow(
                scope=scope.value, spent=spent, issue_id=issue_id, identifier=identifier
            )
        raised = self.raised(self.scope_name(scope, issue_id))
        crossed = limits.crossed(spent, starts=True)
        return BudgetRow(
            scope=scope.value,
            spent=spent,
            limits=tuple(
                LimitRow(quantity, limit, spent.of(quantity), raised.of(quantity))
                for quantity in Quantity
                if (limit := limits.of(quantity)) is not None
            ),
            issue_id=issue_id,
            identifier=identifier,
            shut=None if crossed is None else self.sentence(crossed),
        )

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
            case BudgetScope.DAY | BudgetScope.TOTAL:
                # Its own limit alone: what the other one holds back waits at the gate, which opens
                # by itself when the day ends. A block would not.
                spent = self.total if crossed.scope is BudgetScope.TOTAL else self.spent_today
                return self.limits(crossed.scope).crossed(spent, starts=True) is None
            case scope:
                # A new run has a whole budget again: it is let go on where that has grown.
                limit = self.limits(scope).of(crossed.quantity)
                return ordered or limit is None or limit > crossed.limit


def budgets_row(books: Books, issue_ids: Iterable[IssueId] | None = None) -> BudgetsRow:
    """Return what people see of the day, of all work and of these issues; of all without them."""
    day = books.row(BudgetScope.DAY, books.spent_today)
    wanted = books.issues if issue_ids is None else issue_ids
    issues = tuple(
        books.row(BudgetScope.ISSUE, books.issues[issue_id], issue_id)
        for issue_id in wanted
        if issue_id in books.issues
    )
    total = books.row(BudgetScope.TOTAL, books.total)
    return BudgetsRow(
        date=books.day, day=replace(day, until_wall=books.ends_wall), total=total, issues=issues
    )


def new_books(settings: Settings) -> Books:
    """Return empty books."""
    return Books(BudgetRules.from_settings(settings))


def day_of(wall: float, zone: tzinfo) -> tuple[str, float, float]:
    """Return the date of a moment in a zone, and when that day begins and ends."""
    date = datetime.fromtimestamp(wall, UTC).astimezone(zone).date()
    begins = datetime.combine(date, time(), zone)
    ends = datetime.combine(date + timedelta(days=1), time(), zone)
    return date.isoformat(), begins.timestamp(), ends.timestamp()
