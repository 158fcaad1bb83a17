"""Budgets as JSON: ``budget`` of the state, and ``GET /api/v1/budget`` with every known issue.

Role: the shapes and their presenters. Invariant: as in ``shapes``: no I/O; amounts of money are
numbers of dollars with six decimals at most. Neighbours: ``scheduler.budget_rows`` has the rows.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from symphony.model.clock import iso
from symphony.model.spend import Quantity
from symphony.scheduler.budget_rows import BudgetRow, BudgetsRow, LimitRow


class Limit(Struct, kw_only=True):
    """One limit. ``quantity``: ``tokens``, ``usd``, ``wall_ms`` or ``attempts``."""

    quantity: str
    limit: float
    spent: float
    raised: float


class ScopeBudget(Struct, kw_only=True):
    """What an issue, the day or all work has spent. ``shut`` says why no more of it starts."""

    tokens: int
    usd: float
    unpriced_tokens: int
    wall_seconds: float
    runs: int
    limits: list[Limit]
    shut: str | None


class IssueBudget(ScopeBudget, kw_only=True):
    """What an issue has spent over all of its runs."""

    issue_identifier: str | None
    issue_id: str | None


class Budget(Struct, kw_only=True):
    """All budgets; ``ends_at`` is when the day does."""

    date: str
    ends_at: str | None
    day: ScopeBudget
    total: ScopeBudget
    issues: list[IssueBudget]


def present_budget(row: BudgetsRow) -> Budget:
    """Return all budgets of a snapshot, or of the whole ledger."""
    return Budget(
        date=row.date,
        ends_at=None if row.day.until_wall is None else iso(row.day.until_wall),
        day=ScopeBudget(**_fields(row.day)),
        total=ScopeBudget(**_fields(row.total)),
        issues=[present_issue_budget(issue) for issue in row.issues],
    )


def present_issue_budget(row: BudgetRow) -> IssueBudget:
    """Return the budget of one issue."""
    return IssueBudget(issue_identifier=row.identifier, issue_id=row.issue_id, **_fields(row))


def issue_budget(budget: BudgetsRow | None, issue_id: str) -> IssueBudget | None:
    """Return one issue's budget out of all, or None."""
    rows = () if budget is None else budget.issues
    found = next((row for row in rows if row.issue_id == issue_id), None)
    return None if found is None else present_issue_budget(found)


def _fields(row: BudgetRow) -> dict[str, Any]:
    spent = row.spent
    return {
        "tokens": spent.tokens,
        "usd": spent.micro_usd / 1_000_000,
        "unpriced_tokens": spent.unpriced_tokens,
        "wall_seconds": round(spent.wall_ms / 1000, 1),
        "runs": spent.runs,
        "limits": [_present_limit(limit) for limit in row.limits],
        "shut": row.shut,
    }


def _present_limit(row: LimitRow) -> Limit:
    scale = 1_000_000 if row.quantity is Quantity.USD else 1
    amounts = (row.limit, row.spent, row.raised)
    limit, spent, raised = (one / scale if scale > 1 else one for one in amounts)
    return Limit(quantity=row.quantity.value, limit=limit, spent=spent, raised=raised)
