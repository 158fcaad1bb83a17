"""Budgets as people and programs see them: the API, the page, the terminal, ``symphony status``."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import msgspec

from symphony.cli.budget import describe as describe_budget
from symphony.cli.status import describe
from symphony.model.clock import Instant
from symphony.model.issue import IssueId
from symphony.model.spend import Quantity, Spend
from symphony.scheduler.budget_rows import BudgetRow, BudgetsRow, LimitRow
from symphony.terminal.dashboard import Urls, render
from symphony.web import api
from symphony.web.pages import Pages

DAY = BudgetRow(
    scope="day",
    spent=Spend(tokens=7_000, micro_usd=2_500_000, wall_ms=61_250, runs=3, unpriced_tokens=40),
    limits=(
        LimitRow(Quantity.TOKENS, 7_000, 7_000, 500),
        LimitRow(Quantity.USD, 10_000_000, 2_500_000, 0),
    ),
    shut="the day's budget of 7,000 tokens is spent: <7,000> tokens",
    until_wall=1_767_312_000.0,
)
TOTAL = BudgetRow(scope="total", spent=Spend(tokens=90_000, micro_usd=30_000_001, runs=20))
ISSUE = BudgetRow(
    scope="issue",
    spent=Spend(tokens=1_200, micro_usd=750_000, runs=2),
    limits=(LimitRow(Quantity.ATTEMPTS, 4, 2, 1),),
    issue_id=IssueId("id-MT-102"),
    identifier="MT-102",
)
BUDGETS = BudgetsRow(date="2026-01-01", day=DAY, total=TOTAL, issues=(ISSUE,))


def as_json(value: Any) -> Any:
    return msgspec.json.decode(api.encode(value))


def test_the_state_tells_every_budget_in_dollars_and_seconds(snapshots: ModuleType) -> None:
    budget = as_json(api.present_state(snapshots.busy(budget=BUDGETS)))["budget"]
    assert (budget["date"], budget["ends_at"]) == ("2026-01-01", "2026-01-02T00:00:00Z")
    assert budget["day"] == {
        "tokens": 7_000,
        "usd": 2.5,
        "unpriced_tokens": 40,
        "wall_seconds": 61.2,
        "runs": 3,
        "limits": [
            {"quantity": "tokens", "limit": 7_000, "spent": 7_000, "raised": 500},
            {"quantity": "usd", "limit": 10.0, "spent": 2.5, "raised": 0.0},
        ],
        "shut": DAY.shut,
    }
    assert (budget["total"]["usd"], budget["total"]["limits"]) == (30.000001, [])
    assert budget["issues"][0]["issue_identifier"] == "MT-102"


def test_an_issues_page_tells_its_own_budget_alone(snapshots: ModuleType) -> None:
    snapshot = snapshots.busy(budget=BUDGETS)
    mine = api.present_issue(snapshot, "MT-102", workspace_path=None)
    other = api.present_issue(snapshot, "MT-101", workspace_path=None)
    assert mine is not None
    assert other is not None
    assert as_json(mine)["budget"]["limits"] == [
        {"quantity": "attempts", "limit": 4, "spent": 2, "raised": 1}
    ]
    assert other.budget is None


def test_the_page_says_that_a_budget_is_spent_and_how_to_grant_more(
    snapshots: ModuleType,
) -> None:
    page = Pages().fragment(snapshots.busy(budget=BUDGETS))
    assert "A budget is spent" in page
    assert "symphony budget raise day" in page
    assert "&lt;7,000&gt; tokens" in page
    assert "day: $2.50 of $10.00" in page
    assert "A budget is spent" not in Pages().fragment(snapshots.busy())


def test_the_terminal_has_a_line_for_what_is_limited(snapshots: ModuleType) -> None:
    def lines(budget: BudgetsRow) -> list[str]:
        now = Instant(snapshots.MONO, snapshots.WALL)
        screen = render(snapshots.busy(budget=budget), width=115, now=now, urls=Urls())
        return [line for line in screen.plain.splitlines() if "Budget:" in line]

    assert lines(BUDGETS) == [f"│ Budget: {DAY.shut}"]
    free = BudgetsRow(date="2026-01-01", day=TOTAL, total=TOTAL)
    assert lines(free) == []


def test_status_tells_what_each_issue_has_cost(snapshots: ModuleType) -> None:
    lines = describe(as_json(api.present_state(snapshots.busy(budget=BUDGETS))))
    assert any("budget day tokens 7,000 of 7,000" in line for line in lines)
    (mine,) = [line for line in lines if "MT-102" in line]
    assert "[1,200 tokens $0.75, 2 runs]" in mine


def test_budget_show_lists_spend_limits_and_raises(snapshots: ModuleType) -> None:
    budget = as_json(api.present_state(snapshots.busy(budget=BUDGETS)))["budget"]
    day, total, issue = describe_budget(budget)
    assert day.startswith("day 2026-01-01")
    assert "40 tokens without a price" in day
    assert "7,000 tokens (raised by 500 tokens), $10.00" in day
    assert day.endswith("SPENT")
    assert "$30.000001" in total
    assert "limits" not in total
    assert "limits: 4 runs (raised by 1 run)" in issue
