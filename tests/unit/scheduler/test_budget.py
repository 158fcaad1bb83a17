"""Budgets: who may start, what a spent budget ends, and how everything is lifted again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from symphony.model.issue import IssueId
from symphony.model.run import OutcomeKind, RetryKind, StopReason
from symphony.model.spend import BudgetScope, Crossing, IdleTurns, Quantity, Raise, Spend
from symphony.model.usage import TokenUsage
from symphony.scheduler.books import day_of
from symphony.scheduler.budget import refused_raise, retry_is_vain
from symphony.scheduler.claims import Blocked, RetryQueued, Running
from symphony.scheduler.commands import RaiseIssue, RefreshPurpose, SaveClaim, SaveRaise
from symphony.scheduler.eligibility import GateName
from symphony.scheduler.events import (
    ControlAction,
    ControlRequested,
    Restored,
    RestoredClaim,
    RestoredSpend,
    SettingsChanged,
    SpendReported,
)
from symphony.scheduler.publish import build_snapshot, explain

RETRY = RefreshPurpose.RETRY
DAY = "2026-01-01"


def spend(driver, spec, tokens, **more):
    return driver.send(SpendReported([(spec.run_id, Spend(tokens=tokens, **more))]))


def order(driver, action, identifier, **amounts):
    by = Raise(**amounts)
    return driver.send(ControlRequested(ControlAction(action), identifier, amounts=by))


def shut(driver, issue):
    return {gate.name: gate.detail for gate in explain(driver.state, issue) if not gate.passed}


def settle_due(driver, issue):
    """Let the issue's retry come due and its read be answered."""
    driver.wake_at(max(driver.mono, driver.retry(issue).due_mono))
    driver.show(RETRY, issue)


@pytest.mark.parametrize("scope", ["day", "total"])
def test_a_spent_budget_of_all_work_ends_what_runs_and_starts_nothing(drive, issue, scope):
    driver = drive(budget={scope: {"tokens": 1_000}})
    one, two = issue("A-1"), issue("A-2")
    first, second = driver.start(one, two)

    assert spend(driver, first, 600) == []
    spend(driver, second, 400)

    reason = StopReason(f"budget_{scope}")
    assert driver.stopped() == [(first.run_id, reason), (second.run_id, reason)]
    assert driver.poll([issue("A-3")], held=[one, two]) == []
    detail = shut(driver, issue("A-3"))[GateName.WITHIN_BUDGET]
    assert "1,000 tokens is spent: 1,000 tokens" in detail
    assert ("until 2026-01-02T00:00:00Z" in detail) == (scope == "day")


def test_what_the_days_budget_ended_goes_on_in_its_thread_when_the_day_is_over(drive, issue):
    driver = drive(budget={"day": {"tokens": 1_000}})
    one = issue("A-1")
    (spec,) = driver.start(one)
    spend(driver, spec, 1_500)
    driver.end(
        spec, OutcomeKind.CANCELLED, stop_reason=StopReason.BUDGET_DAY, thread_id="t", message="x"
    )
    settle_due(driver, one)
    waits = driver.retry(one)
    assert waits.hold is not None
    assert waits.hold.name is GateName.WITHIN_BUDGET
    assert "until 2026-01-02T00:00:00Z" in waits.shown_error

    driver.state.poll.next_mono = driver.mono + 1e9
    driver.wake(24 * 3600 - driver.wall % 86400)
    driver.show(RETRY, one)

    (again,) = driver.started()
    assert (again.thread_id, again.attempt, again.retry_kind) == ("t", None, RetryKind.RECOVERY)


def test_the_loop_wakes_up_when_the_day_ends(drive, issue):
    driver = drive(budget={"day": {"tokens": 10}}, polling={"interval_ms": 10**9})
    (spec,) = driver.start(issue("A-1"))
    driver.advance(3600)
    spend(driver, spec, 10)
    driver.end(spec, OutcomeKind.CANCELLED, stop_reason=StopReason.BUDGET_DAY)
    settle_due(driver, issue("A-1"))
    assert driver.wakes_in() == pytest.approx(23 * 3600 - 1)


@pytest.mark.parametrize(
    ("zone", "moment", "day", "hours"),
    [
        ("UTC", "2026-03-29T12:00:00+00:00", "2026-03-29", 24),
        ("Europe/Berlin", "2026-03-29T12:00:00+00:00", "2026-03-29", 23),
        ("Europe/Berlin", "2026-10-25T12:00:00+00:00", "2026-10-25", 25),
        ("America/Los_Angeles", "2026-01-01T03:00:00+00:00", "2025-12-31", 24),
    ],
)
def test_a_day_is_that_of_the_zone_on_days_of_any_length(zone, moment, day, hours, settings):
    budget = settings(budget={"day_timezone": zone}).budget
    wall = datetime.fromisoformat(moment).timestamp()
    date, begins, ends = day_of(wall, budget.zone)
    assert (date, (ends - begins) / 3600) == (day, hours)
    assert begins <= wall < ends


def test_a_total_that_is_spent_blocks_until_it_is_raised(drive, issue):
    driver = drive(budget={"total": {"tokens": 1_000}})
    one = issue("A-1")
    (spec,) = driver.start(one)
    spend(driver, spec, 1_000)
    driver.end(spec, OutcomeKind.CANCELLED, stop_reason=StopReason.BUDGET_TOTAL, thread_id="t")
    blocked = driver.claim(one)
    assert isinstance(blocked, Blocked)
    assert (blocked.category, blocked.thread_id) == ("budget_total", "t")
    assert driver.of(SaveClaim)[0].crossed == blocked.crossed
    order(driver, "retry", "A-1")
    assert isinstance(driver.claim(one), Blocked)
    assert "symphony budget raise total" in retry_is_vain(driver.state, "A-1")

    order(driver, "raise", "total", tokens=500)

    assert driver.of(SaveRaise)[0].order.amounts == Raise(tokens=500)
    driver.wake()
    driver.show(RETRY, one)
    assert [again.thread_id for again in driver.started()] == ["t"]


def test_a_total_that_is_raised_while_the_day_is_spent_goes_on_with_the_next_day(drive, issue):
    driver = drive(budget={"total": {"tokens": 1_000}, "day": {"tokens": 800}})
    one = issue("A-1")
    (spec,) = driver.start(one)
    spend(driver, spec, 1_000)
    driver.end(spec, OutcomeKind.CANCELLED, stop_reason=StopReason.BUDGET_TOTAL, thread_id="t")
    assert isinstance(driver.claim(one), Blocked)

    order(driver, "raise", "total", tokens=500)
    settle_due(driver, one)
    waits = driver.retry(one)
    assert waits.hold is not None
    assert waits.hold.name is GateName.WITHIN_BUDGET
    assert driver.started() == []

    driver.state.poll.next_mono = driver.mono + 1e9
    driver.wake(24 * 3600 - driver.wall % 86400)
    driver.show(RETRY, one)
    assert [again.thread_id for again in driver.started()] == ["t"]


def test_a_limit_that_is_raised_while_its_run_is_ending_blocks_nothing(drive, issue):
    driver = drive(budget={"total": {"tokens": 1_000}, "issue": {"tokens": 900}})
    one, two = issue("A-1"), issue("A-2")
    first, second = driver.start(one, two)
    spend(driver, first, 950)
    order(driver, "raise", "A-1", tokens=500)
    end_over_budget(driver, first, BudgetScope.ISSUE, limit=900, usage=TokenUsage(total_tokens=950))
    assert driver.retry(one).due_mono == driver.mono

    spend(driver, second, 50)
    assert driver.stopped() == [(second.run_id, StopReason.BUDGET_TOTAL)]
    order(driver, "raise", "total", tokens=500)
    driver.end(second, OutcomeKind.CANCELLED, stop_reason=StopReason.BUDGET_TOTAL, thread_id="t")
    assert (driver.retry(two).due_mono, driver.retry(two).thread_id) == (driver.mono, "t")
    assert driver.of(SaveClaim)[-1].kind == "retry"


def end_over_budget(driver, spec, scope, quantity=Quantity.TOKENS, limit=100, **fields):
    crossed = Crossing(scope=scope, quantity=quantity, limit=limit, spent=limit + 5)
    return driver.end(
        spec,
        OutcomeKind.FAILED,
        category=crossed.category,
        message=crossed.sentence,
        retryable=False,
        crossed=crossed,
        **fields,
    )


@pytest.mark.parametrize("scope", [BudgetScope.TURN, BudgetScope.RUN])
def test_an_issue_whose_turn_or_run_was_too_expensive_waits_and_may_be_retried(drive, issue, scope):
    driver = drive(budget={scope.value: {"tokens": 100}})
    one = issue("A-1")
    (spec,) = driver.start(one)
    end_over_budget(driver, spec, scope, thread_id="t")
    claim = driver.claim(one)
    assert isinstance(claim, Blocked)
    assert claim.category == f"budget_{scope}"
    assert "100 tokens is spent: 105 tokens" in claim.error
    assert driver.poll([one], held=[one]) == []
    assert retry_is_vain(driver.state, "A-1") is None

    order(driver, "retry", "A-1")
    driver.wake()
    driver.show(RETRY, one)
    assert [again.thread_id for again in driver.started()] == ["t"]


def test_a_higher_limit_in_the_workflow_lets_go_on_by_itself(drive, issue, settings):
    driver = drive(budget={"turn": {"tokens": 100}, "issue": {"tokens": 1_000}})
    one, two = issue("A-1"), issue("A-2")
    first, second = driver.start(one, two)
    end_over_budget(driver, first, BudgetScope.TURN, usage=usage(105))
    end_over_budget(driver, second, BudgetScope.ISSUE, limit=1_000, usage=usage(1_005))

    driver.send(
        SettingsChanged(settings(budget={"turn": {"tokens": 105}, "issue": {"tokens": 1_005}}))
    )
    assert isinstance(driver.claim(one), RetryQueued)
    assert isinstance(driver.claim(two), Blocked)

    driver.send(SettingsChanged(settings(budget={"issue": {"tokens": 1_006}})))
    assert isinstance(driver.claim(two), RetryQueued)


def usage(tokens):
    return TokenUsage(tokens, 0, tokens)


def test_an_edit_that_was_made_while_the_daemon_was_down_lets_go_on_too(drive, issue):
    one = issue("A-1")
    crossed = Crossing(scope=BudgetScope.RUN, quantity=Quantity.WALL, limit=60_000, spent=61_000)
    claim = RestoredClaim(
        "blocked", one, None, None, "spent", blocked_category="budget_run", crossed=crossed
    )
    same = drive(budget={"run": {"wall_ms": 60_000}})
    same.send(Restored([claim]))
    assert isinstance(same.claim(one), Blocked)

    raised = drive(budget={"run": {"wall_ms": 120_000}})
    raised.send(Restored([claim]))
    raised.show(RETRY, one)
    assert [spec.retry_kind for spec in raised.started()] == [RetryKind.RECOVERY]


def test_a_missing_price_that_is_added_lets_go_on(drive, issue, settings):
    driver = drive(budget={"day": {"usd": 5}, "prices": {"a": PRICE}})
    one = issue("A-1")
    (spec,) = driver.start(one)
    crossed = Crossing(
        scope=BudgetScope.DAY, quantity=Quantity.PRICE, limit=0, spent=0, model="b-1"
    )
    driver.end(
        spec,
        OutcomeKind.FAILED,
        category=crossed.category,
        message=crossed.sentence,
        retryable=False,
        crossed=crossed,
    )
    assert driver.claim(one).category == "budget_unpriced"
    assert "'b-1'" in driver.claim(one).error

    driver.send(SettingsChanged(settings(budget={"day": {"usd": 5}, "prices": {"b": PRICE}})))
    assert isinstance(driver.claim(one), RetryQueued)


PRICE = {"input_per_million": 1, "output_per_million": 2}


def test_every_run_of_an_issue_counts_as_an_attempt_whatever_it_is(drive, issue):
    """First run, continuation, failure, recovery after a restart: the same bounded budget."""
    one = issue("A-1")
    driver = drive(budget={"issue": {"attempts": 4}})
    (spec,) = driver.start(one)
    driver.end(spec, OutcomeKind.COMPLETED)
    settle_due(driver, one)
    (spec,) = driver.started()
    driver.end(spec, OutcomeKind.FAILED, message="no")
    settle_due(driver, one)
    assert driver.started()[0].spent.runs == 2
    spent = driver.state.books.spent_by(one.id)
    assert spent.runs == 3

    later = drive(budget={"issue": {"attempts": 4}})
    running = RestoredClaim("running", one, 1, RetryKind.FAILURE, None)
    restored = RestoredSpend({one.id: spent}, {one.id: "A-1"}, {DAY: spent})
    later.send(Restored([running], spend=restored))
    later.show(RETRY, one)
    (spec,) = later.started()
    later.end(spec, OutcomeKind.FAILED, message="again", thread_id="t")

    claim = later.claim(one)
    assert isinstance(claim, Blocked)
    assert (claim.category, claim.thread_id) == ("budget_issue", "t")
    assert "4 runs is spent: 4 runs" in claim.error
    assert "again" in claim.error
    assert isinstance(later.claim(one), Blocked)
    order(later, "raise", "A-1", attempts=1)
    later.wake()
    later.show(RETRY, one)
    assert len(later.started()) == 1


def test_a_completed_run_of_a_finished_issue_is_not_blocked_for_its_budget(drive, issue, moved):
    driver = drive(budget={"issue": {"attempts": 1}})
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.end(spec, OutcomeKind.COMPLETED)
    driver.wake_at(driver.retry(one).due_mono)
    driver.show(RETRY, moved(one, "Done"))
    assert not isinstance(driver.claim(one), Blocked)


def test_a_due_continuation_beyond_the_issues_budget_is_blocked(drive, issue):
    driver = drive(budget={"issue": {"tokens": 1_000}})
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.end(spec, OutcomeKind.COMPLETED, usage=usage(1_000), thread_id="t")
    settle_due(driver, one)
    claim = driver.claim(one)
    assert isinstance(claim, Blocked)
    assert (claim.category, claim.thread_id) == ("budget_issue", "t")
    assert driver.of(SaveClaim)[0].blocked_category == "budget_issue"


def test_a_retry_that_was_held_beyond_the_issues_budget_is_blocked_once_it_is_let_go(drive, issue):
    driver = drive(budget={"issue": {"attempts": 1}})
    one = issue("A-1")
    (spec,) = driver.start(one)
    order(driver, "pause", None)
    driver.end(spec, OutcomeKind.COMPLETED, thread_id="t")
    settle_due(driver, one)
    assert driver.retry(one).hold.name is GateName.NOT_HELD

    order(driver, "resume", None)

    claim = driver.claim(one)
    assert isinstance(claim, Blocked)
    assert (claim.category, claim.thread_id) == ("budget_issue", "t")
    assert [saved.kind for saved in driver.of(SaveClaim)] == ["blocked"]


def test_a_fresh_candidate_whose_budget_is_spent_shows_the_gate(drive, issue):
    one = issue("A-1")
    spent = Spend(tokens=5_000, runs=3)
    driver = drive(budget={"issue": {"tokens": 5_000}})
    driver.send(Restored(spend=RestoredSpend({one.id: spent}, {one.id: "A-1"}, {DAY: spent})))
    driver.offer(one, issue("A-2"))
    assert [spec.issue.identifier for spec in driver.confirm(one, issue("A-2"))] == ["A-2"]
    (row,) = build_snapshot(driver.state, {}, driver.now, sequence=1, rate_limits=None).waiting
    assert (row.issue_identifier, row.gate) == ("A-1", "within_budget")
    assert "5,000 tokens" in row.detail

    order(driver, "raise", "A-1", tokens=1)
    assert [s.issue.identifier for s in driver.poll([one], held=[issue("A-2")])] == ["A-1"]


def test_a_report_is_counted_once_however_often_it_comes(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    for tokens in (100, 250, 250, 200, 300):
        spend(driver, spec, tokens, micro_usd=tokens * 2, wall_ms=tokens)
    driver.end(spec, OutcomeKind.COMPLETED, usage=usage(300), seconds=0.3)
    spend(driver, spec, 999)  # late: the run has ended
    books = driver.state.books
    assert books.spent_by(one.id) == Spend(tokens=300, micro_usd=600, wall_ms=300, runs=1)
    assert books.total == books.spent_today == books.spent_by(one.id)
    assert books.live == {}


def test_what_a_run_spends_after_midnight_belongs_to_the_new_day(drive, issue):
    driver = drive()
    (spec,) = driver.start(issue("A-1"))
    spend(driver, spec, 100)
    driver.advance(24 * 3600)
    spend(driver, spec, 130)
    assert {day: one.tokens for day, one in driver.state.books.days.items()} == {
        DAY: 100,
        "2026-01-02": 30,
    }


def test_a_clock_that_is_set_back_finds_the_sums_of_that_day_again(drive, issue):
    driver = drive(budget={"day": {"tokens": 100}})
    (spec,) = driver.start(issue("A-1"))
    spend(driver, spec, 60)
    driver.wall += 86_400
    spend(driver, spec, 90)
    driver.wall -= 86_400
    driver.wake()
    assert driver.state.books.spent_today.tokens == 60


def test_a_raise_of_the_issue_reaches_its_live_run(drive, issue):
    driver = drive(budget={"issue": {"tokens": 1_000}})
    (spec,) = driver.start(issue("A-1"))
    order(driver, "raise", "A-1", tokens=500)
    order(driver, "raise", "A-1", tokens=250)
    assert driver.of(RaiseIssue) == [RaiseIssue(spec.run_id, Raise(tokens=750))]


def test_a_raise_of_the_day_ends_with_the_day(drive, issue):
    driver = drive(budget={"day": {"tokens": 100}})
    (spec,) = driver.start(issue("A-1"))
    order(driver, "raise", "day", tokens=50)
    spend(driver, spec, 149)
    assert driver.stopped() == []
    driver.wake(24 * 3600)
    spend(driver, spec, 249)
    assert [reason for _, reason in driver.stopped()] == [StopReason.BUDGET_DAY]


@pytest.mark.parametrize(
    ("scope", "amounts", "why"),
    [
        ("A-9", {"tokens": 1}, "neither 'day' nor 'total' nor an issue"),
        (None, {"tokens": 1}, "nothing is neither"),
        ("day", {}, "name at least one amount"),
        ("day", {"micro_usd": 5}, "budget.day has no limit of usd"),
        ("A-1", {"tokens": 1, "attempts": 1}, "budget.issue has no limit of attempts"),
        ("day", {"tokens": 1}, None),
        ("A-1", {"tokens": 1}, None),
    ],
)
def test_an_order_that_would_raise_nothing_is_refused(drive, issue, scope, amounts, why):
    driver = drive(budget={"day": {"tokens": 100}, "issue": {"tokens": 50}})
    driver.start(issue("A-1"))
    refused = refused_raise(driver.state.books, scope, Raise(**amounts))
    assert (refused is None) == (why is None)
    assert why is None or why in refused


def test_a_lowered_limit_ends_what_is_above_it(drive, issue, settings):
    driver = drive()
    (spec,) = driver.start(issue("A-1"))
    spend(driver, spec, 500)
    driver.send(SettingsChanged(settings(budget={"total": {"tokens": 500}})))
    assert driver.stopped() == [(spec.run_id, StopReason.BUDGET_TOTAL)]


def test_a_run_that_a_budget_ends_is_cleaned_where_its_issue_is_finished(drive, issue, moved):
    driver = drive(budget={"day": {"tokens": 10}})
    one = issue("A-1")
    (spec,) = driver.start(one)
    spend(driver, spec, 10)
    driver.poll([], held=[moved(one, "Done")])
    assert driver.claim(one).stopping is StopReason.TERMINAL


def test_an_operator_who_stops_a_run_that_a_budget_ends_has_the_last_word(drive, issue):
    driver = drive(budget={"day": {"tokens": 10}})
    one = issue("A-1")
    (spec,) = driver.start(one)
    spend(driver, spec, 10)
    order(driver, "stop", "A-1")
    driver.end(spec, OutcomeKind.CANCELLED, stop_reason=StopReason.BUDGET_DAY)
    assert driver.claim(one).category == "stopped_by_operator"


def test_a_run_that_completes_as_the_day_is_spent_goes_on_tomorrow(drive, issue):
    driver = drive(budget={"day": {"tokens": 10}})
    one = issue("A-1")
    (spec,) = driver.start(one)
    spend(driver, spec, 10)
    driver.end(spec, OutcomeKind.COMPLETED)
    settle_due(driver, one)
    assert driver.retry(one).hold.name is GateName.WITHIN_BUDGET
    assert driver.retry(one).retry_kind is RetryKind.CONTINUATION


def test_people_see_what_is_spent_and_what_is_left(drive, issue):
    driver = drive(
        budget={
            "day": {"tokens": 1_000, "usd": "2.5"},
            "issue": {"attempts": 3},
            "prices": {"default": PRICE},
        }
    )
    one = issue("A-1")
    (spec,) = driver.start(one)
    order(driver, "raise", "day", tokens=100)
    spend(driver, spec, 700, micro_usd=1_250_000, wall_ms=5_000)
    row = build_snapshot(driver.state, {}, driver.now, sequence=1, rate_limits=None).budget
    assert [limit.sentence for limit in row.day.limits] == [
        "700 tokens of 1,100 tokens",
        "$1.25 of $2.50",
    ]
    assert [limit.raised for limit in row.day.limits] == [100, 0]
    assert row.day.until_wall == datetime(2026, 1, 2, tzinfo=UTC).timestamp()
    assert row.total.limits == ()
    (mine,) = row.issues
    assert (mine.identifier, mine.spent.tokens) == ("A-1", 700)
    assert [limit.sentence for limit in mine.limits] == ["1 run of 3 runs"]
    assert mine.shut is None


def test_an_unknown_run_spends_nothing(drive, issue):
    driver = drive(budget={"total": {"tokens": 1}})
    (spec,) = driver.start(issue("A-1"))
    other = replace(spec, run_id="other")
    assert spend(driver, other, 10) == []
    assert isinstance(driver.claim(issue("A-1")), Running)
    assert driver.state.books.spent_by(IssueId("id-A-1")).tokens == 0


def test_a_retry_that_waits_for_a_slot_is_blocked_when_its_limit_is_lowered(drive, issue, settings):
    driver = drive(agent={"max_concurrent_agents": 1})
    one, two = issue("A-1"), issue("A-2")
    (spec,) = driver.start(one)
    driver.end(spec, OutcomeKind.FAILED, message="no")
    driver.poll([two])
    settle_due(driver, one)
    assert driver.retry(one).waits_for_slot

    driver.send(
        SettingsChanged(
            settings(agent={"max_concurrent_agents": 1}, budget={"issue": {"attempts": 1}})
        )
    )

    claim = driver.claim(one)
    assert isinstance(claim, Blocked)
    assert claim.category == "budget_issue"
    assert [save.kind for save in driver.of(SaveClaim)] == ["blocked"]


def test_idle_turns_go_on_over_continuations_and_restarts_and_end_with_an_order(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    idle = IdleTurns(4, "mark")
    driver.end(spec, OutcomeKind.COMPLETED, idle=idle)
    assert driver.of(SaveClaim)[0].idle == idle
    settle_due(driver, one)
    (spec,) = driver.started()
    assert spec.idle == idle

    later = drive()
    later.send(Restored([RestoredClaim("running", one, 1, None, None, idle=idle)]))
    later.show(RETRY, one)
    (spec,) = later.started()
    assert spec.idle == idle
    later.end(
        spec,
        OutcomeKind.FAILED,
        category="no_progress",
        message="10 turns in a row",
        retryable=False,
        idle=IdleTurns(10, "mark"),
    )
    assert later.claim(one).category == "no_progress"
    order(later, "retry", "A-1")
    later.wake()
    later.show(RETRY, one)
    assert later.started()[0].idle == IdleTurns()
