"""A daemon that died after its agents' last word: the next one ends their runs as they were."""

from __future__ import annotations

from dataclasses import replace

import pytest

from symphony.model.question import Question, QuestionKind
from symphony.model.run import Outcome, OutcomeKind, RetryKind, RunId, StopReason
from symphony.model.spend import BudgetScope, Crossing, Quantity, Spend
from symphony.model.usage import TokenUsage
from symphony.scheduler.claims import Blocked, RetryQueued, Running
from symphony.scheduler.commands import (
    CleanWorkspace,
    FinishRun,
    RefreshPurpose,
    SaveBreaker,
    SaveClaim,
    SaveEnd,
    SavePark,
    StartRun,
)
from symphony.scheduler.events import (
    ControlAction,
    ControlRequested,
    Restored,
    RestoredClaim,
    RestoredSpend,
    RunEnded,
    ShutdownRequested,
)

USED = TokenUsage(100, 20, 120)
SPENT = Spend(tokens=120, wall_ms=8_000)
QUESTION = Question(kind=QuestionKind.INPUT, text="Which colour?")
CROSSED = Crossing(scope=BudgetScope.RUN, quantity=Quantity.TOKENS, limit=5, spent=6)


def failed(**fields):
    return Outcome(kind=OutcomeKind.FAILED, **fields)


OUTCOMES = [
    Outcome(kind=OutcomeKind.COMPLETED),
    Outcome(kind=OutcomeKind.COMPLETED, stop_reason=StopReason.TERMINAL),
    failed(category="turn_failed", message="no"),
    failed(category="turn_failed", code="serverOverloaded", message="busy"),
    failed(category="turn_failed", code="badRequest", message="bad", retryable=False),
    failed(category="turn_failed", code="contextWindowExceeded", message="full"),
    failed(category="turn_failed", code="usageLimitExceeded", message="spent"),
    failed(category="turn_failed", code="usageLimitExceeded", retry_at=1767226800.0),
    failed(category="turn_failed", message="later", retry_at=1767226800.0),
    failed(category="budget_run", message="spent", retryable=False, crossed=CROSSED),
    failed(category="port_exit", message="gone"),
    Outcome(kind=OutcomeKind.INTERRUPTED, category="turn_cancelled"),
    Outcome(kind=OutcomeKind.TIMED_OUT, category="turn_timeout", message="silent"),
    Outcome(
        kind=OutcomeKind.STALLED,
        category="stalled",
        message="stalled for 9ms",
        stop_reason=StopReason.STALLED,
    ),
    Outcome(kind=OutcomeKind.HOST_LOST, category="host_lost", message="lost"),
    Outcome(
        kind=OutcomeKind.INPUT_REQUIRED,
        category="turn_input_required",
        message="Which colour?",
        retryable=False,
        question=QUESTION,
    ),
    Outcome(kind=OutcomeKind.APPROVAL_REQUIRED, category="approval_required", retryable=False),
]


def end_of(outcome, run_id="old-run"):
    return RunEnded(
        RunId(run_id),
        outcome,
        usage=USED,
        seconds=9.0,
        thread_id="thread-1",
        workspace_path="/w/A-1",
        spend=SPENT,
    )


def left(issue, outcome, **fields):
    """The claim of a run that was being wound up."""
    run = {"attempt": 2, "retry_kind": RetryKind.FAILURE, "failures": 2, **fields}
    return RestoredClaim(kind="running", issue=issue, error="before", ended=end_of(outcome), **run)


def restart(driver, *claims):
    sums = {claim.issue.id: replace(SPENT, runs=1) for claim in claims}
    spend = RestoredSpend(issues=sums, days={})
    driver.send(Restored(claims, USED, 9.0, spend=spend))
    return driver.of(FinishRun)


@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda one: f"{one.kind}-{one.code}")
def test_every_outcome_leads_to_what_it_leads_to_without_a_crash(drive, issue, outcome):
    """Twice the same third run of an issue that has failed twice, once with a crash at its end."""
    one = issue("A-1")
    calm = drive(breaker={"failures": 3})
    (spec,) = calm.start(one)
    for _ in range(2):
        spec = calm.fail_again(one, spec, code="contextWindowExceeded", message="before")
    calm.send(replace(end_of(outcome), run_id=spec.run_id))

    crashed = drive(breaker={"failures": 3})
    crashed.advance(calm.mono - crashed.mono)
    (finish,) = restart(crashed, left(one, outcome))
    assert (finish.spec.attempt, finish.spec.failures) == (spec.attempt, spec.failures)
    assert (finish.spec.retry_kind, finish.spec.reply) == (spec.retry_kind, spec.reply)
    assert crashed.of(StartRun) == []
    crashed.send(finish.ended)

    assert shape(crashed, one) == shape(calm, one)
    for kind in (SaveEnd, SaveBreaker, SavePark):
        assert len(crashed.of(kind)) == len(calm.of(kind)), kind
    assert [claim.kind for claim in crashed.of(SaveClaim)] == [
        claim.kind for claim in calm.of(SaveClaim)
    ]


def shape(driver, issue):
    """All of a claim but the jitter of its time."""
    claim = driver.claim(issue)
    if isinstance(claim, RetryQueued):
        nominal = round(driver.due_in(issue), -1)
        return replace(claim, due_mono=nominal, due_wall=0.0)
    assert isinstance(claim, Blocked)
    return claim


def test_nothing_starts_beside_a_run_that_is_wound_up_and_its_issue_goes_on_after_it(drive, issue):
    one, two = issue("A-1"), issue("A-2")
    driver = drive(agent={"max_concurrent_agents": 1})
    (finish,) = restart(driver, left(one, Outcome(kind=OutcomeKind.COMPLETED)))
    assert isinstance(driver.claim(one), Running)
    driver.show(RefreshPurpose.RECONCILE, one)
    driver.offer(two)
    assert driver.started() == driver.confirm(two) == []
    driver.send(finish.ended)
    assert driver.retry(one).retry_kind is RetryKind.CONTINUATION
    assert [spec.issue.id for spec in driver.poll([two])] == [two.id]


def test_what_it_has_spent_is_counted_once(drive, issue):
    one = issue("A-1")
    driver = drive(budget={"issue": {"tokens": 1_000}})
    (finish,) = restart(driver, left(one, Outcome(kind=OutcomeKind.COMPLETED)))
    # Until its end the run's own row shows what it has used.
    assert (driver.state.usage, driver.state.seconds) == (TokenUsage(), 0.0)
    assert driver.state.books.spent_by(one.id) == replace(SPENT, runs=1)
    spend = replace(SPENT, wall_ms=8_500)
    driver.send(replace(finish.ended, seconds=9.5, spend=spend))
    assert (driver.state.usage, driver.state.seconds) == (USED, 9.5)
    assert driver.state.books.spent_by(one.id) == replace(spend, runs=1)
    assert driver.send(finish.ended)[0].message == "late answer dropped"
    assert driver.state.usage == USED


@pytest.mark.parametrize("reason", sorted(set(StopReason) - {StopReason.STALLED}))
def test_what_was_cut_off_is_taken_up_again_and_read_first(drive, issue, reason):
    one = issue("A-1")
    driver = drive()
    outcome = Outcome(kind=OutcomeKind.CANCELLED, stop_reason=reason)
    assert restart(driver, left(one, outcome)) == []
    assert driver.state.usage == USED
    driver.show(RefreshPurpose.RETRY, one)
    (spec,) = driver.started()
    assert (spec.attempt, spec.retry_kind, spec.failures) == (2, RetryKind.RECOVERY, 2)


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(kind=OutcomeKind.COMPLETED),
        Outcome(kind=OutcomeKind.CANCELLED, stop_reason=StopReason.OPERATOR),
        Outcome(kind=OutcomeKind.INPUT_REQUIRED, retryable=False, question=QUESTION),
    ],
    ids=lambda one: one.kind,
)
def test_a_run_that_an_operator_had_stopped_is_wound_up_and_waits_with_its_question(
    drive, issue, outcome
):
    one = issue("A-1")
    driver = drive()
    (finish,) = restart(driver, left(one, outcome, stopped="enough"))
    driver.send(finish.ended)
    claim = driver.claim(one)
    assert isinstance(claim, Blocked)
    assert claim.category == "stopped_by_operator"
    assert claim.question == outcome.question


def test_a_stop_can_be_taken_back_while_the_run_is_wound_up(drive, issue):
    one = issue("A-1")
    driver = drive()
    (finish,) = restart(driver, left(one, Outcome(kind=OutcomeKind.COMPLETED), stopped="enough"))
    driver.send(ControlRequested(ControlAction.RESUME, "A-1", "go on"))
    driver.send(finish.ended)
    assert driver.retry(one).retry_kind is RetryKind.RECOVERY


def test_an_issue_that_is_finished_by_then_is_cleaned_after_its_run(drive, issue, moved):
    one = issue("A-1")
    driver = drive()
    (finish,) = restart(driver, left(one, Outcome(kind=OutcomeKind.COMPLETED)))
    driver.show(RefreshPurpose.RECONCILE, moved(one, "Done"))
    assert driver.of(CleanWorkspace) == []
    driver.send(finish.ended)
    (clean,) = driver.of(CleanWorkspace)
    assert clean.workspace_path == "/w/A-1"


def test_a_shutdown_waits_for_it_and_keeps_what_it_had_come_to(drive, issue):
    one = issue("A-1")
    driver = drive()
    outcome = Outcome(kind=OutcomeKind.INPUT_REQUIRED, retryable=False, question=QUESTION)
    (finish,) = restart(driver, left(one, outcome))
    driver.send(ShutdownRequested())
    driver.send(finish.ended)
    assert [type(command) for command in driver.of(SaveEnd)] == [SaveEnd]
    assert driver.claim(one).question == QUESTION
