"""Turns that change nothing are counted; in doubt there was progress."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from symphony.model.issue import Issue, IssueId
from symphony.model.run import RunId, RunProgress
from symphony.model.spend import NOT_IDLE, IdleTurns
from symphony.runner.idling import IdleWatch

ISSUE = Issue(id=IssueId("1"), identifier="A-1", title="one", state="Todo", dispatchable=True)


class Bench:
    """A watch over a workspace whose digest the test sets."""

    def __init__(self, limit: int = 3, idle: IdleTurns = NOT_IDLE) -> None:
        self.limit, self.tree = limit, "tree"
        self.recorded: list[IdleTurns] = []
        self.progress = RunProgress(
            run_id=RunId("r"),
            issue=ISSUE,
            attempt=None,
            host="local",
            started_mono=0.0,
            started_wall=0.0,
            last_activity_mono=0.0,
            idle=idle,
        )
        self.watch = IdleWatch(
            self.progress, limit=lambda: self.limit, tree_mark=self._mark, record=self._record
        )

    async def _mark(self) -> Any:
        return self.tree

    async def _record(self, idle: IdleTurns) -> None:
        self.recorded.append(idle)

    async def turns(self, number: int, issue: Issue = ISSUE, *, changed: bool = False) -> Any:
        outcome = None
        for _ in range(number):
            outcome = await self.watch.turn_ended(issue, changed=changed)
        return outcome


async def test_turns_in_a_row_without_any_change_end_the_run() -> None:
    bench = Bench(limit=3)
    assert await bench.turns(3) is None  # the first of them is what the others are compared with
    outcome = await bench.turns(1)
    assert (outcome.category, outcome.retryable) == ("no_progress", False)
    assert outcome.message.startswith("3 turns in a row changed neither")
    assert bench.recorded[-1].count == 3


@pytest.mark.parametrize(
    "issue",
    [
        replace(ISSUE, state="In Progress"),
        replace(ISSUE, labels=("x",)),
        replace(ISSUE, updated_at=datetime(2026, 1, 1, tzinfo=UTC)),
        replace(ISSUE, description="more \ud800"),
    ],
)
async def test_a_change_of_the_issue_is_progress(issue: Issue) -> None:
    bench = Bench(limit=2)
    await bench.turns(2)
    assert await bench.turns(1, issue) is None
    assert bench.progress.idle.count == 0


async def test_a_change_of_the_workspace_or_a_writing_call_is_progress() -> None:
    bench = Bench(limit=2)
    await bench.turns(2)
    bench.tree = "other"
    assert await bench.turns(2) is None
    assert await bench.turns(1, changed=True) is None
    assert bench.progress.idle.count == 0


async def test_a_workspace_that_nobody_can_look_at_counts_for_the_agent() -> None:
    bench = Bench(limit=1)
    bench.tree = None
    assert await bench.turns(5) is None


async def test_the_count_goes_on_where_an_earlier_run_left_it() -> None:
    first = Bench(limit=3)
    await first.turns(3)
    later = Bench(limit=3, idle=first.progress.idle)
    assert (await later.turns(1)).category == "no_progress"


async def test_zero_turns_it_off_and_forgets_the_count() -> None:
    bench = Bench(limit=0, idle=IdleTurns(9, "mark"))
    assert await bench.turns(5) is None
    assert bench.recorded == [NOT_IDLE]
