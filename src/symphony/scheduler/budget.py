"""What follows where a budget is spent, and how work goes on (SPEC 8.2 has no such gate).

Role: ends runs where the day's or the total limit is reached, blocks issues that may not run again,
lets issues go on whose limit was raised, takes the orders that raise one. Turn, run and issue are
watched by the run itself (``runner.budget``), which sees every token at once; the scheduler hears
of spend about once a second.

Invariant: pure; a block for a budget always says which limit it waits for. ``books`` has the sums,
``model.spend`` the values, ``eligibility`` the gate ``within_budget``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from symphony.config.settings import Settings
from symphony.model.clock import Instant
from symphony.model.issue import IssueId
from symphony.model.run import RetryKind, StopReason
from symphony.model.spend import (
    BudgetScope,
    Crossing,
    Quantity,
    Raise,
    Spend,
)

from .books import DAYS_KEPT, Books, BudgetRules, day_of
from .claims import Blocked, Claim, RetryQueued, Running
from .commands import Command, Level, RaiseIssue, SaveRaise, StopRun
from .events import ControlRequested, RaiseOrder, RunEnded, SpendReported
from .notes import note

if TYPE_CHECKING:
    from .state import SchedulerState

SPENT_STOPS = {
    BudgetScope.DAY: StopReason.BUDGET_DAY,
    BudgetScope.TOTAL: StopReason.BUDGET_TOTAL,
}


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
    return [*end_if_spent(state), *_block_waiting(state, now), *lift(state, now)]


def _block_waiting(state: SchedulerState, now: Instant) -> list[Command]:
    """Block what is due, waits for a slot and may not run any more under lowered limits."""
    commands: list[Command] = []
    for claim in list(state.claims):
        if isinstance(claim, RetryQueued) and claim.hold is not None:
            crossed = state.books.issue_crossed(claim.issue.id)
            if crossed is not None:
                blocked = block_spent(claim, crossed, now)
                state.claims.put(blocked)
                commands.append(blocked.saved())
    return commands


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
        scope=claim.scope,
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
        scope=retry.scope,
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


def retry_is_vain(state: SchedulerState, identifier: str) -> str | None:
    """Say why an order to retry this issue would change nothing, or None."""
    for claim in state.claims:
        if claim.issue.identifier == identifier:
            crossed = holds_back(state, claim)
            if crossed is None:
                return None
            raised = identifier if crossed.scope is BudgetScope.ISSUE else crossed.scope.value
            return (
                f"{identifier} stays blocked: {crossed.sentence}; grant more with 'symphony budget "
                f"raise {raised}', or raise budget.{crossed.scope} in the workflow file"
            )
    return None
