"""Spend outlives the daemon: sums an issue and day, counted once, and what operators added."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from zoneinfo import ZoneInfo

import pytest

from symphony.ledger import schema
from symphony.ledger.spending import RunSpend
from symphony.model.issue import IssueId
from symphony.model.run import Outcome, OutcomeKind
from symphony.model.spend import BudgetScope, Crossing, IdleTurns, Quantity, Raise, Spend
from symphony.model.usage import TokenUsage
from symphony.scheduler.commands import DropClaim, SaveClaim, SaveRaise
from symphony.scheduler.events import RaiseOrder

HALF = TokenUsage(100, 20, 120, 50, 5)
ALL = TokenUsage(300, 60, 360, 150, 15)
DONE = Outcome(kind=OutcomeKind.COMPLETED)


def row(spec, usage, micro_usd, wall_ms, **more):
    spend = Spend(tokens=usage.total_tokens, micro_usd=micro_usd, wall_ms=wall_ms, **more)
    return RunSpend(
        run_id=spec.run_id, usage=usage, seconds=wall_ms / 1000, spend=spend, model="m-1"
    )


async def books(ledger):
    return (await ledger.load()).restored.spend


async def test_what_a_live_run_has_spent_is_there_without_its_end(ledger, make_spec, clock):
    """As after a SIGKILL: nothing but what was recorded during the run."""
    spec = make_spec()
    await ledger.run_started(spec, started_wall=clock.wall)
    await ledger.runs_spent([row(spec, HALF, 1_000, 500)])
    await ledger.runs_spent([row(spec, ALL, 3_001, 2_000, unpriced_tokens=7)])
    spend = await books(ledger)
    whole = Spend(tokens=360, micro_usd=3_001, wall_ms=2_000, runs=1, unpriced_tokens=7)
    assert spend.issues == {IssueId("id-1"): whole}
    assert spend.identifiers == {IssueId("id-1"): "ABC-1"}
    assert list(spend.days.values()) == [whole]
    (run,) = await ledger.runs()
    assert (run.model, run.micro_usd, run.usage) == ("m-1", 3_001, ALL)


async def test_records_of_a_run_that_come_twice_or_late_count_once(ledger, make_spec, clock):
    spec = make_spec()
    await ledger.run_started(spec, started_wall=clock.wall)
    await ledger.run_started(spec, started_wall=clock.wall)
    for usage, micro_usd in ((HALF, 10), (ALL, 30), (HALF, 10), (ALL, 30)):
        await ledger.runs_spent([row(spec, usage, micro_usd, 100)])
    await ledger.turn_ended(
        spec.run_id, turn_id="t", status="completed", wall=clock.wall, usage=ALL,
        spend=Spend(tokens=360, micro_usd=30, wall_ms=100),
    )  # fmt: skip
    await ledger.run_ended(
        spec.run_id, DONE, ALL, 0.1, ended_wall=clock.wall,
        spend=Spend(tokens=360, micro_usd=31, wall_ms=100),
    )  # fmt: skip
    await ledger.runs_spent([row(spec, ALL, 31, 100)])
    (sums,) = (await books(ledger)).issues.values()
    assert sums == Spend(tokens=360, micro_usd=31, wall_ms=100, runs=1)


async def test_an_unknown_run_spends_nothing(ledger, make_spec):
    await ledger.runs_spent([row(make_spec(), ALL, 1, 1)])
    assert (await books(ledger)).issues == {}


async def test_the_day_is_that_of_the_configured_zone(ledger, make_spec, clock):
    clock.wall = 1_767_225_600.0 - 1_800  # half past eleven at night in UTC
    spec = make_spec()
    await ledger.run_started(spec, started_wall=clock.wall)
    ledger.zone = lambda: ZoneInfo("Europe/Berlin")
    await ledger.runs_spent([row(spec, ALL, 1, 1)])
    days = (await books(ledger)).days
    assert {day: sums.tokens for day, sums in days.items()} == {"2025-12-31": 0, "2026-01-01": 360}


async def test_only_the_newest_days_are_read_and_all_are_in_the_issue(ledger, make_spec, clock):
    for number in range(12):
        spec = make_spec(f"run-{number}")
        await ledger.run_started(spec, started_wall=clock.wall)
        await ledger.run_ended(
            spec.run_id, DONE, HALF, 1.0, ended_wall=clock.wall, spend=Spend(tokens=120)
        )
        clock.wall += 86_400
    spend = await books(ledger)
    assert len(spend.days) == 8
    assert max(spend.days) == "2027-01-26"
    assert spend.issues[IssueId("id-1")].tokens == 12 * 120


async def test_sums_outlive_the_runs_that_are_pruned(ledger, make_spec, clock):
    spec = make_spec()
    await ledger.run_started(spec, started_wall=clock.wall)
    await ledger.runs_spent([row(spec, ALL, 5, 1)])
    await ledger.run_ended(spec.run_id, DONE, ended_wall=clock.wall)
    await ledger.save(DropClaim(spec.issue_id))
    await ledger.prune(ended_before_wall=clock.wall + 10)
    assert await ledger.runs() == ()
    (sums,) = (await books(ledger)).issues.values()
    assert (sums.tokens, sums.micro_usd) == (360, 5)


async def test_raises_are_one_row_a_scope(ledger):
    first = RaiseOrder("issue:id-\ud800", Raise(tokens=5), "ann", 1.0)
    second = RaiseOrder(
        "issue:id-\ud800", Raise(tokens=9, micro_usd=1, wall_ms=2, attempts=3), "bob", 2.0
    )
    for order in (first, second, RaiseOrder("total", Raise(micro_usd=7), "ann", 3.0)):
        await ledger.save(SaveRaise(order))
    raises = (await books(ledger)).raises
    assert [(one.amounts, one.by) for one in raises] == [
        (second.amounts, "bob"),
        (Raise(micro_usd=7), "ann"),
    ]


async def test_a_block_keeps_its_limit_and_a_claim_its_idle_turns(
    ledger, make_spec, make_issue, clock
):
    crossed = Crossing(
        scope=BudgetScope.RUN, quantity=Quantity.PRICE, limit=0, spent=4, model="m\ud800"
    )
    blocked = SaveClaim(
        kind="blocked", issue=make_issue(), attempt=1, retry_kind=None, error="spent",
        blocked_category="budget_run", crossed=crossed,
    )  # fmt: skip
    await ledger.save(blocked)
    spec = make_spec("run-2", 2, idle=IdleTurns(2, "a"))
    await ledger.run_started(spec, started_wall=clock.wall)
    await ledger.run_idle(spec.run_id, IdleTurns(3, "b"))
    claims = {claim.kind: claim for claim in (await ledger.load()).restored.claims}
    assert claims["blocked"].crossed == crossed
    assert claims["running"].idle == IdleTurns(3, "b")


async def test_a_crossed_limit_that_is_garbled_is_reported_and_hides_no_other_claim(
    ledger, make_issue, path
):
    for number in (1, 2):
        await ledger.save(
            SaveClaim(
                kind="blocked", issue=make_issue(number), attempt=None, retry_kind=None, error="x"
            )
        )
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE claims SET crossed = '{}' WHERE issue_id = 'id-1'")
        connection.commit()
    contents = await ledger.load()
    assert [claim.issue.id for claim in contents.restored.claims] == ["id-2"]
    assert "ABC-1" in contents.faults[0]


@pytest.mark.parametrize("version", [3, 4])
def test_a_ledger_of_before_budgets_keeps_its_sums_as_unpriced(path, version):
    older = schema.MIGRATIONS[:version]
    with closing(schema.open_file(path, now_wall=1.8e9, migrations=older).connection) as old:
        old.execute(
            "INSERT INTO runs (run_id, workflow_id, issue_id, identifier, title, state, host, "
            "started_wall, seen_wall, seconds, total_tokens) "
            "VALUES ('r', 'wf', 'id-1', 'ABC-1', 't', 's', 'local', 1, 2, 1.5, 42)"
        )
        old.execute(
            "INSERT INTO totals (workflow_id, issue_id, day, runs, seconds, total_tokens) "
            "VALUES ('wf', 'id-1', '2026-01-01', 1, 1.5, 42)"
        )
    with closing(schema.open_file(path, now_wall=1.8e9).connection) as new:
        columns = "identifier, micro_usd, unpriced_tokens, wall_ms"
        assert new.execute(f"SELECT {columns} FROM totals").fetchall() == [("ABC-1", 0, 42, 1500)]
        assert new.execute("SELECT unpriced_tokens, wall_ms FROM runs").fetchall() == [(42, 1500)]
