"""A run's own limits: of its turn, of itself and of its issue; and models without a price."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from symphony.config.budget import BudgetSettings
from symphony.model.clock import Instant
from symphony.model.issue import Issue, IssueId
from symphony.model.run import RunId, RunProgress, RunSpec
from symphony.model.spend import Raise, Spend
from symphony.model.usage import TokenUsage
from symphony.runner.budget import RunBudget

ISSUE = Issue(id=IssueId("1"), identifier="A-1", title="one", state="Todo", dispatchable=True)


class Turn:
    """A turn that a person may be asked in."""

    def __init__(self) -> None:
        self.waiting = False
        self.interrupted = asyncio.Event()

    async def interrupt(self) -> None:
        self.interrupted.set()


class Bench:
    """One run's budget, on the test's clock."""

    def __init__(self, *, spent: Spend | None = None, **limits: Any) -> None:
        self.mono = 0.0
        self.settings = BudgetSettings.model_validate(limits)
        spec = RunSpec(
            run_id=RunId("r"),
            issue=ISSUE,
            attempt=None,
            retry_kind=None,
            spent=spent or Spend(),
        )
        self.progress = RunProgress(
            run_id=RunId("r"),
            issue=ISSUE,
            attempt=None,
            host="local",
            started_mono=0.0,
            started_wall=0.0,
            last_activity_mono=0.0,
            model="m-1",
        )
        self.budget = RunBudget(
            spec,
            self.progress,
            settings=lambda: self.settings,
            clock=lambda: Instant(self.mono, self.mono),
        )

    def use(self, tokens: int, thread: str = "t") -> None:
        total = self.progress.meter.thread_total(thread) or TokenUsage()
        added = self.progress.meter.report(thread, total + TokenUsage(tokens, 0, tokens))
        model = self.progress.models.get(thread, self.progress.model)
        self.progress.cost.add(added, self.settings.price_of(model))
        self.budget.look()

    @property
    def category(self) -> str | None:
        outcome = self.budget.outcome
        return None if outcome is None else outcome.category


def test_a_turn_has_its_own_budget_and_the_next_one_a_new_one() -> None:
    bench = Bench(turn={"tokens": 100})
    bench.budget.begin_turn()
    bench.use(99)
    assert bench.category is None
    bench.use(1)
    assert bench.category == "budget_turn"
    bench.budget.end_turn()
    assert bench.budget.before_next_turn() is None
    bench.budget.begin_turn()
    bench.use(99)
    assert bench.category is None


def test_a_runs_tokens_are_those_of_all_its_turns_and_sub_agents() -> None:
    bench = Bench(run={"tokens": 100})
    bench.budget.begin_turn()
    bench.use(40)
    bench.budget.end_turn()
    bench.budget.begin_turn()
    bench.use(40, thread="child")
    assert bench.category is None
    bench.use(20)
    assert bench.category == "budget_run"
    outcome = bench.budget.before_next_turn()
    assert outcome is not None
    assert "100 tokens is spent: 100 tokens" in outcome.message


def test_an_issues_budget_counts_earlier_runs_and_what_operators_added() -> None:
    bench = Bench(spent=Spend(tokens=60, runs=2), issue={"tokens": 100, "attempts": 3})
    bench.budget.begin_turn()
    bench.budget.raise_issue_limits(Raise(tokens=50))
    bench.use(40)
    assert bench.category is None
    bench.use(50)
    assert bench.category == "budget_issue"


def test_an_edit_of_the_limits_counts_at_the_next_report() -> None:
    bench = Bench(turn={"tokens": 10})
    bench.settings = BudgetSettings.model_validate({"turn": {"tokens": 1_000}})
    bench.budget.begin_turn()
    bench.use(500)
    assert bench.category is None


PRICE = {"input_per_million": 1_000, "output_per_million": 0}


def test_money_is_that_of_each_threads_model() -> None:
    bench = Bench(
        run={"usd": "0.2"}, prices={"m": PRICE, "big": {**PRICE, "input_per_million": 10_000}}
    )
    bench.progress.models["child"] = "big-2"
    bench.budget.begin_turn()
    bench.use(10, thread="child")
    bench.use(99)
    assert bench.category is None
    assert bench.progress.cost.micro_usd == 199_000
    bench.use(1)
    assert bench.category == "budget_run"


@pytest.mark.parametrize("model", ["other", None])
def test_a_limit_in_usd_refuses_a_model_without_a_price(model: str | None) -> None:
    bench = Bench(day={"usd": 5}, prices={"m": PRICE})
    assert bench.budget.refused_price() is None
    bench.progress.model = model
    outcome = bench.budget.refused_price()
    assert outcome is not None
    assert (outcome.category, outcome.retryable) == ("budget_unpriced", False)
    assert repr(model or "?") in outcome.message
    assert "budget.day.usd" in outcome.message


def test_a_sub_agent_without_a_price_ends_the_turn() -> None:
    bench = Bench(total={"usd": 5}, prices={"m": PRICE})
    bench.budget.begin_turn()
    bench.progress.models["child"] = "other"
    bench.use(5, thread="child")
    assert bench.category == "budget_unpriced"


async def test_time_is_watched_without_any_report_and_stands_still_for_a_person() -> None:
    bench, turn = Bench(turn={"wall_ms": 50}), Turn()
    async with bench.budget.over(turn):
        await asyncio.sleep(0)  # the watch begins
        turn.waiting = True
        bench.mono = 500.0
        async with asyncio.timeout(10):
            while bench.progress.waited_s < 499:  # noqa: ASYNC110  # it has no event of its own
                await asyncio.sleep(0)
        assert not turn.interrupted.is_set()
        turn.waiting = False
        bench.mono = 500.1
        async with asyncio.timeout(10):
            await turn.interrupted.wait()
    assert bench.category == "budget_turn"


async def test_a_crossing_interrupts_the_turn() -> None:
    bench, turn = Bench(turn={"tokens": 10}), Turn()
    async with bench.budget.over(turn):
        bench.use(10)
        async with asyncio.timeout(10):
            await turn.interrupted.wait()
    assert bench.budget.outcome is not None
    assert bench.budget.outcome.crossed is bench.budget.crossed
