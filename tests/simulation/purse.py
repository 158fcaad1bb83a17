"""Budgets once more, in the oracle's own words: who may not start, and who may be held for it.

It adds up what runs report by itself, with plain integers, and knows neither ``scheduler.budget``
nor ``model.spend``'s comparisons.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import Any

from symphony.config.settings import Settings
from symphony.model.issue import IssueId
from symphony.model.run import RunId
from symphony.model.spend import Raise, Spend
from symphony.scheduler.events import RestoredSpend

QUANTITIES = ("tokens", "usd", "wall_ms", "attempts")
_FIELDS = {
    "tokens": "tokens",
    "usd": "micro_usd",
    "wall_ms": "wall_ms",
    "attempts": "runs",
}
_RAISED = {
    "tokens": "tokens",
    "usd": "micro_usd",
    "wall_ms": "wall_ms",
    "attempts": "attempts",
}
Sums = Counter[str]


class Purse:
    """What has been spent, by issue, day and in all."""

    def __init__(self) -> None:
        self.issues: defaultdict[IssueId, Sums] = defaultdict(Counter)
        self.days: defaultdict[str, Sums] = defaultdict(Counter)
        self.total: Sums = Counter()
        self._reported: defaultdict[RunId, Sums] = defaultdict(Counter)
        self._raises: defaultdict[str, Sums] = defaultdict(Counter)

    def restore(self, spend: RestoredSpend) -> None:
        for issue_id, sums in spend.issues.items():
            self.issues[issue_id] = _counted(sums)
            self.total += _counted(sums)
        for day, sums in spend.days.items():
            self.days[day] = _counted(sums)
        for order in spend.raises:
            self.add_raise(order.scope, order.amounts)

    def starts(self, issue_id: IssueId, wall: float) -> None:
        self._add(issue_id, wall, Counter({"attempts": 1}))

    def goes_on(self, run_id: RunId, spend: Spend) -> None:
        """What the sums hold of a run that is live again is not added once more."""
        self._reported[run_id] = _counted(spend)

    def reports(self, run_id: RunId, issue_id: IssueId, spend: Spend, wall: float) -> None:
        now, before = _counted(spend), self._reported[run_id]
        added = Counter({name: max(0, now[name] - before[name]) for name in QUANTITIES})
        before.update(added)
        self._add(issue_id, wall, added)

    def _add(self, issue_id: IssueId, wall: float, added: Sums) -> None:
        for sums in (self.issues[issue_id], self.days[day_name(wall)], self.total):
            sums.update(added)

    def add_raise(self, scope: str, amounts: Raise) -> None:
        self._raises[scope].update({name: getattr(amounts, _RAISED[name]) for name in QUANTITIES})

    def over(
        self, scope: str, settings: Settings, *, issue_id: IssueId | None = None, wall: float
    ) -> str | None:
        """Return which limit of ``issue``, ``day`` or ``total`` is reached, or None."""
        name, sums = {
            "issue": (f"issue:{issue_id}", self.issues[issue_id] if issue_id else Counter()),
            "day": (f"day:{day_name(wall)}", self.days[day_name(wall)]),
            "total": ("total", self.total),
        }[scope]
        written: Any = getattr(settings.budget, scope)
        for quantity in QUANTITIES:
            limit = getattr(written, quantity, None)
            if limit is not None and sums[quantity] >= limit + self._raises[name][quantity]:
                return f"{scope}.{quantity}: {sums[quantity]} of {limit}"
        return None


def day_name(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).date().isoformat()


def _counted(spend: Spend) -> Sums:
    return Counter({name: getattr(spend, field) for name, field in _FIELDS.items()})
