"""Watches what one run spends against the limits of its turn, itself and its issue.

Role: looks after every report of tokens (one comparison a limit, whatever the run has spent) and,
where time is limited, by a timer; interrupts the turn that crosses a limit and says with which
outcome the run ends. A limit in USD for a model without a price ends the run before its first
turn: unknown costs are never taken for none.

Invariant: limits are read when they are compared, so an edit of the workflow or an operator's raise
counts at once. Time runs on the monotonic clock and stands still while a person is waited for.
Neighbours: ``narrator`` feeds the meters of ``model.run.RunProgress``, ``attempt`` asks for the
outcome; the day and the total are the scheduler's (``scheduler.budget``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from symphony.config.budget import BudgetSettings
from symphony.model.clock import Instant
from symphony.model.run import Outcome, OutcomeKind, RunProgress, RunSpec
from symphony.model.spend import BudgetScope, Crossing, Quantity, Raise, Spend

TICK_S = 1.0
"""Time is compared at least this often while a turn runs and time is limited."""

IDLE_TICK_S = 5.0
"""The same where no time is limited: only waiting for a person is taken note of."""

_SHORTEST_S = 0.01


class Interruptible(Protocol):
    """What the watch needs of a turn."""

    @property
    def waiting(self) -> bool:
        """Whether it waits for a person."""

    async def interrupt(self) -> None:
        """End it and its commands; never raises for a server that is deaf or gone."""


class RunBudget:
    """The limits of one run.

    Args:
        spec: Holds what the issue has spent before.
        progress: The run's live record.
        settings: Returns the limits in force.
        clock: Reads both clocks.

    Attributes:
        crossed: The limit that was crossed during the present or the last turn, or None.
    """

    def __init__(
        self,
        spec: RunSpec,
        progress: RunProgress,
        *,
        settings: Callable[[], BudgetSettings],
        clock: Callable[[], Instant],
    ) -> None:
        self._before = spec.spent
        self._raised = spec.raised
        self._progress = progress
        self._settings = settings
        self._clock = clock
        self._turn_began = Spend()
        self._in_turn = False
        self._seen = asyncio.Event()
        self.crossed: Crossing | None = None

    def raise_issue_limits(self, amounts: Raise) -> None:
        """Take what operators have added to the issue's limits, in all."""
        self._raised = amounts

    @asynccontextmanager
    async def over(self, turn: Interruptible) -> AsyncIterator[None]:
        """Hold this from before a turn's start to its end: it is watched and interrupted."""
        self.begin_turn()
        name = f"budget {self._progress.run_id}"
        watch = asyncio.create_task(self.interrupt_when_spent(turn), name=name)
        try:
            yield
        finally:
            self.end_turn()
            watch.cancel()
            await asyncio.wait([watch])

    def begin_turn(self) -> None:
        """Give the next turn its own budget."""
        self._turn_began = self._spend()
        self._in_turn = True
        self.crossed = None
        self._seen.clear()

    def end_turn(self) -> None:
        """Stop comparing until the next turn begins."""
        self._in_turn = False

    def look(self) -> None:
        """Compare what is spent with the limits; called after each report of tokens."""
        if self._in_turn and self.crossed is None:
            self.crossed = self._find()
            if self.crossed is not None:
                self._seen.set()

    def unpriced(self) -> Crossing | None:
        """Return a crossing where money is limited and the model's price is not known."""
        settings = self._settings()
        scope = settings.money_scope
        if scope is None:
            return None
        for model in dict.fromkeys((self._progress.model, *self._progress.models.values())):
            if settings.price_of(model) is None:
                spent = self._progress.cost.unpriced_tokens
                return Crossing(
                    scope=scope, quantity=Quantity.PRICE, limit=0, spent=spent, model=model or "?"
                )
        return None

    def before_next_turn(self) -> Outcome | None:
        """Return the outcome of a run that may not begin another turn, or None.

        A turn that has ended by itself is forgiven its own limit: the next has a new budget.
        """
        self.crossed = self._run_or_issue(self._spend())
        return self.outcome

    def refused_price(self) -> Outcome | None:
        """Return the outcome of a run whose next turn has a model without a price, or None."""
        self.crossed = self.unpriced()
        return self.outcome

    @property
    def outcome(self) -> Outcome | None:
        """The outcome of a run that has crossed a limit, or None."""
        crossed = self.crossed
        if crossed is None:
            return None
        return Outcome(
            kind=OutcomeKind.FAILED,
            category=crossed.category,
            message=crossed.sentence,
            retryable=False,
            crossed=crossed,
        )

    async def interrupt_when_spent(self, turn: Interruptible) -> None:
        """Wait until a limit is crossed, then interrupt the turn; ends with the turn otherwise."""
        before = self._clock().mono
        while self.crossed is None:
            try:
                async with asyncio.timeout(self._pause_s()):
                    await self._seen.wait()
            except TimeoutError:
                now = self._clock().mono
                if turn.waiting:
                    self._progress.waited_s += now - before
                before = now
                self.look()
        await turn.interrupt()

    def _pause_s(self) -> float:
        """Return how long nothing but tokens needs a look: the time left, a tick at most."""
        settings, spend = self._settings(), self._spend()
        left = [
            limit - spent
            for limit, spent in (
                (settings.turn.wall_ms, spend.since(self._turn_began).wall_ms),
                (settings.run.wall_ms, spend.wall_ms),
                (self._issue_wall_ms(settings), self._before.wall_ms + spend.wall_ms),
            )
            if limit is not None
        ]
        if not left and settings.day.wall_ms is None and settings.total.wall_ms is None:
            return IDLE_TICK_S
        return min([TICK_S, *(max(_SHORTEST_S, one / 1000) for one in left)])

    def _issue_wall_ms(self, settings: BudgetSettings) -> int | None:
        return settings.limits(BudgetScope.ISSUE).raised(self._raised).wall_ms

    def _spend(self) -> Spend:
        return self._progress.spend(self._clock().mono)

    def _find(self) -> Crossing | None:
        spend = self._spend()
        turn = self._settings().limits(BudgetScope.TURN)
        return (
            self.unpriced()
            or turn.crossed(spend.since(self._turn_began))
            or self._run_or_issue(spend)
        )

    def _run_or_issue(self, spend: Spend) -> Crossing | None:
        settings = self._settings()
        issue = settings.limits(BudgetScope.ISSUE).raised(self._raised)
        return settings.limits(BudgetScope.RUN).crossed(spend) or issue.crossed(
            self._before + spend
        )
