"""How far apart the polls are: the configured interval, or longer for a reason that is shown.

Two things stretch it. Webhooks wake the poll, so while they are well it only is a floor. And a
tracker lets us ask so often: what is left of its window, less a reserve for the agents' tools, is
shared out among the polls of the rest of the window by what a poll has cost of late.

Invariant: a stretch is bounded by ``polling.max_interval_ms`` and ends with the window, so polling
slows down and never stops. ``polling`` plans with ``Pace.interval``; ``publish`` shows the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from symphony.model.allowance import Allowance

RESERVE: Final = 0.1
"""Share of a window that polls leave to the agents' tools and to other users of the token."""
SAME_WINDOW_S: Final = 5.0
"""Two resets that are no further apart belong to one window."""
FORGETTING: Final = 0.5
"""How much of a former, higher cost is believed after a cheaper cycle."""


@dataclass(slots=True)
class _Budget:
    """One budget over time.

    Attributes:
        remaining: As last told.
        spent: What the cycle under way has cost so far, with all others that use the token.
        cost: What a cycle costs.
    """

    limit: int | None
    remaining: int
    reset_mono: float
    spent: int = 0
    cost: float = 0.0


@dataclass(slots=True)
class Pace:
    """What the distance of the polls depends on.

    Attributes:
        webhooks: Webhooks are configured and well, so that changes wake the poll.
        interval_s: The interval in force since the last cycle, or None before the first one.
        reason: Why it is longer than configured, or None.
    """

    webhooks: bool = False
    interval_s: float | None = None
    reason: str | None = None
    _budgets: dict[str, _Budget] = field(default_factory=dict)

    def observe(self, allowances: Sequence[Allowance], *, webhooks: bool, mono: float) -> None:
        """Take over what the tracker said in its last answers."""
        self.webhooks = webhooks
        for told in allowances:
            reset_mono = mono + max(0.0, told.reset_in_s)
            budget = self._budgets.get(told.name)
            if budget is None:
                budget = _Budget(told.limit, told.remaining, reset_mono)
                self._budgets[told.name] = budget
            elif abs(budget.reset_mono - reset_mono) <= SAME_WINDOW_S:
                budget.spent += max(0, budget.remaining - told.remaining)
            budget.limit, budget.remaining = told.limit, told.remaining
            budget.reset_mono = reset_mono

    def end_cycle(self) -> None:
        """Learn what the cycle that has just ended has cost."""
        for budget in self._budgets.values():
            faded = FORGETTING * (budget.cost + budget.spent)
            budget.cost, budget.spent = max(float(budget.spent), faded), 0

    def plan(self, interval_s: float, *, floor_s: float, longest_s: float, mono: float) -> float:
        """Set and return the interval in force.

        Args:
            interval_s: As configured; the shortest there is.
            floor_s: While webhooks wake the poll.
            longest_s: No stretch goes beyond this.
            mono: Now.
        """
        self.interval_s, self.reason = interval_s, None
        if self.webhooks and floor_s > interval_s:
            self.interval_s = floor_s
            self.reason = "webhooks wake the poll, this is only its floor"
        for name, budget in self._budgets.items():
            wanted_s = min(_wanted(budget, mono), longest_s)
            if wanted_s > self.interval_s:
                self.interval_s, self.reason = wanted_s, _sentence(name, budget, mono)
        return self.interval_s

    def forget(self) -> None:
        """Another tracker is in force: nothing of the former one counts."""
        self._budgets.clear()
        self.webhooks = False


def _wanted(budget: _Budget, mono: float) -> float:
    """The interval at which the rest of the window is enough; 0 where any is."""
    left_s = budget.reset_mono - mono
    if left_s <= 0:
        return 0.0
    usable = budget.remaining - RESERVE * (budget.limit or 0)
    if usable <= 0:
        return left_s
    return min(left_s, left_s * budget.cost / usable)


def _sentence(name: str, budget: _Budget, mono: float) -> str:
    of = f" of {budget.limit}" if budget.limit is not None else ""
    which = f" ({name})" if name else ""
    left_s = max(0.0, budget.reset_mono - mono)
    return (
        f"the tracker has {budget.remaining}{of} requests{which} left for {left_s:.0f} s, and a "
        f"poll costs about {budget.cost:.0f}"
    )
