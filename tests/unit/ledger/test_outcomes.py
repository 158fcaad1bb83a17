"""What a run has come to outlives its daemon exactly, whatever it is, and is settled by its end."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony.ledger import operations, reading, schema
from symphony.model.issue import Issue, IssueId
from symphony.model.question import Ask, Option, Question, QuestionKind
from symphony.model.run import Outcome, OutcomeKind, RunId, RunSpec, StopReason
from symphony.model.spend import BudgetScope, Crossing, IdleTurns, Quantity, Spend
from symphony.model.usage import TokenUsage
from symphony.scheduler.commands import DropClaim, SaveClaim, SaveEnd, SaveStop

RUN = RunId("run-1")
USED = TokenUsage(100, 20, 120, 50, 5)
SPENT = Spend(tokens=120, micro_usd=7, wall_ms=8_000, unpriced_tokens=20)

text = st.text(st.characters() | st.sampled_from("\ud800\x00\n\"'…"), max_size=40)
numbers = st.integers(min_value=0, max_value=2**53)
options = st.builds(Option, label=text, description=text)
asks = st.builds(
    Ask,
    id=text,
    text=text,
    header=text,
    options=st.lists(options, max_size=3).map(tuple),
    is_secret=st.booleans(),
)
questions = st.builds(
    Question,
    kind=st.sampled_from(QuestionKind),
    text=text,
    asks=st.lists(asks, max_size=3).map(tuple),
    detail=text,
    subject=text,
)
crossings = st.builds(
    Crossing,
    scope=st.sampled_from(BudgetScope),
    quantity=st.sampled_from(Quantity),
    limit=numbers,
    spent=numbers,
    model=st.none() | text,
)
outcomes = st.builds(
    Outcome,
    kind=st.sampled_from(OutcomeKind),
    category=st.none() | text,
    code=st.none() | text,
    message=text,
    retryable=st.booleans(),
    retry_at=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    stop_reason=st.none() | st.sampled_from(StopReason),
    crossed=st.none() | crossings,
    question=st.none() | questions,
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A ledger with one run, as its writer sees it, and its path."""
    path = tmp_path_factory.mktemp("outcomes") / "ledger.sqlite3"
    issue = Issue(id=IssueId("1"), identifier="A-1", title="one", state="Todo", dispatchable=True)
    spec = RunSpec(run_id=RUN, issue=issue, attempt=None, retry_kind=None)
    with closing(schema.open_file(path, now_wall=1.0).connection) as connection:
        operations.start_run(connection, "wf", spec, 1.0, day="2026-01-01")
        yield connection, path


def restored(path):
    contents = reading.load(path, "wf", 2.0)
    (claim,) = contents.restored.claims
    return claim, contents


@given(outcome=outcomes)
def test_every_outcome_comes_back_as_it_was(rows, outcome):
    connection, path = rows
    operations.set_outcome(connection, RUN, outcome)
    claim, contents = restored(path)
    assert contents.faults == ()
    assert claim.ended is not None
    assert claim.ended.outcome == outcome


@pytest.mark.parametrize("kind", OutcomeKind)
@pytest.mark.parametrize("reason", [None, *StopReason])
def test_what_was_cut_off_has_not_ended_unless_an_operator_stopped_it(rows, kind, reason):
    connection, path = rows
    operations.set_outcome(connection, RUN, Outcome(kind=kind, stop_reason=reason))
    claim, _ = restored(path)
    assert claim.had_ended is (kind is not OutcomeKind.CANCELLED)
    assert replace(claim, stopped="because").had_ended


async def come_to(ledger, clock, outcome, run_id=RUN):
    await ledger.run_outcome(run_id, outcome, usage=USED, seconds=9.0, spend=SPENT, wall=clock.wall)


async def test_a_run_comes_back_with_all_that_its_end_needs(open_ledger, ledger, make_spec, clock):
    idle = IdleTurns(2, "mark")
    await ledger.run_started(make_spec(idle=IdleTurns(1)), started_wall=clock.wall)
    await ledger.run_workspace(RUN, "/w/ABC-1")
    await ledger.run_thread(RUN, "thread-9")
    await ledger.run_idle(RUN, idle)
    outcome = Outcome(kind=OutcomeKind.FAILED, message="no")
    await come_to(ledger, clock, outcome)
    contents = await (await open_ledger()).load()
    [claim] = contents.restored.claims
    ended = claim.ended
    assert claim.kind == "running"
    assert [run.run_id for run in contents.open_runs] == [RUN]
    assert (ended.run_id, ended.outcome, ended.usage, ended.seconds) == (RUN, outcome, USED, 9.0)
    assert (ended.thread_id, ended.workspace_path) == ("thread-9", "/w/ABC-1")
    assert (ended.spend, ended.idle) == (SPENT, idle)
    assert contents.restored.usage == USED
    assert contents.restored.spend.issues["id-1"] == replace(SPENT, runs=1)


async def test_its_end_settles_it_and_adds_only_what_is_new(ledger, make_spec, clock):
    await ledger.run_started(make_spec(), started_wall=clock.wall)
    await come_to(ledger, clock, Outcome(kind=OutcomeKind.FAILED))
    [claim] = (await ledger.load()).restored.claims
    await ledger.save(SaveEnd(replace(claim.ended, seconds=12.0)))
    contents = await ledger.load()
    [claim] = contents.restored.claims
    assert (claim.kind, claim.ended) == ("running", None)
    assert (contents.restored.usage, contents.restored.seconds) == (USED, 12.0)


async def test_a_claim_that_has_taken_its_place_knows_nothing_of_it(
    ledger, make_spec, make_issue, clock
):
    await ledger.run_started(make_spec(), started_wall=clock.wall)
    await ledger.save(
        SaveClaim(kind="retry", issue=make_issue(), attempt=1, retry_kind=None, error="no")
    )
    # Owed by a disk that failed, it can come later than what follows from the end.
    await come_to(ledger, clock, Outcome(kind=OutcomeKind.COMPLETED))
    [claim] = (await ledger.load()).restored.claims
    assert (claim.kind, claim.ended) == ("retry", None)
    await ledger.save(DropClaim(IssueId("id-1")))
    assert (await ledger.load()).restored.claims == ()


async def test_a_stop_that_came_while_it_was_wound_up_is_kept_beside_it(ledger, make_spec, clock):
    await ledger.run_started(make_spec(), started_wall=clock.wall)
    await come_to(ledger, clock, Outcome(kind=OutcomeKind.COMPLETED))
    await ledger.save(SaveStop(RUN, IssueId("id-1"), "enough"))
    [claim] = (await ledger.load()).restored.claims
    assert (claim.stopped, claim.ended.outcome.kind) == ("enough", OutcomeKind.COMPLETED)


@pytest.mark.parametrize("record", ["{", '{"kind": "of a later version"}', "[]"])
async def test_an_outcome_that_can_not_be_read_is_told_and_the_run_taken_up_again(
    ledger, make_spec, clock, path, record
):
    await ledger.run_started(make_spec(), started_wall=clock.wall)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE claims SET outcome = ?", (record,))
    contents = await ledger.load()
    [claim] = contents.restored.claims
    assert (claim.kind, claim.ended) == ("running", None)
    assert "ABC-1" in contents.faults[0]
    assert "can't be read" in contents.faults[0]


async def test_a_record_with_members_that_we_do_not_know_is_read(ledger, make_spec, clock, path):
    await ledger.run_started(make_spec(), started_wall=clock.wall)
    with closing(sqlite3.connect(path)) as connection, connection:
        record = json.dumps({"kind": "completed", "later": 1})
        connection.execute("UPDATE claims SET outcome = ?", (record,))
    [claim] = (await ledger.load()).restored.claims
    assert claim.ended.outcome == Outcome(kind=OutcomeKind.COMPLETED)
