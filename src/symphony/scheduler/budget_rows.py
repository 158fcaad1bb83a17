"""What people see of budgets: a row for the day, for all work, and for each issue (SPEC 13.3).

Apart from ``budget``, which fills them, so that readers of rows never import the scheduler's state.
"""

from __future__ import annotations

from dataclasses import dataclass

from symphony.model.issue import IssueId
from symphony.model.spend import Quantity, Spend, shown


@dataclass(frozen=True, slots=True)
class LimitRow:
    """One limit: what operators have added is part of ``limit`` and told apart too."""

    quantity: Quantity
    limit: int
    spent: int
    raised: int

    @property
    def sentence(self) -> str:
        """The two amounts for people."""
        return f"{shown(self.quantity, self.spent)} of {shown(self.quantity, self.limit)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetRow:
    """What a scope has spent, and its limits.

    Attributes:
        scope: ``issue``, ``day`` or ``total``.
        identifier: The issue's human key, else None.
        shut: Why nothing of the scope may start, or None.
        until_wall: When the scope ends (epoch seconds), for the day.
    """

    scope: str
    spent: Spend
    limits: tuple[LimitRow, ...] = ()
    issue_id: IssueId | None = None
    identifier: str | None = None
    shut: str | None = None
    until_wall: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetsRow:
    """All of it; ``date`` is the day's. ``issues`` holds those that the reader asked for."""

    date: str
    day: BudgetRow
    total: BudgetRow
    issues: tuple[BudgetRow, ...] = ()
