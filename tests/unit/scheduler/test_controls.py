"""What an operator may order, and that orders outlive a restart."""

from __future__ import annotations

import pytest

from symphony.model.run import OutcomeKind, RetryKind, StopReason
from symphony.scheduler.claims import Blocked, RetryQueued, Running
from symphony.scheduler.commands import (
    DropHold,
    EndAfterTurn,
    RefreshPurpose,
    SaveClaim,
    SaveHold,
)
from symphony.scheduler.controls import STOPPED, known
from symphony.scheduler.eligibility import GateName
from symphony.scheduler.events import (
    ControlAction,
    ControlRequested,
    Hold,
    HoldKind,
    Restored,
    RunSilent,
)
from symphony.scheduler.publish import build_snapshot, explain

RETRY = RefreshPurpose.RETRY


def order(driver, action, identifier=None, reason=""):
    return driver.send(ControlRequested(ControlAction(action), identifier, reason, "ann"))


def shut(driver, issue):
    return [gate.name for gate in explain(driver.state, issue) if not gate.passed]


def test_a_pause_lets_runs_go_on_and_starts_nothing(drive, issue):
    driver = drive()
    one, two = issue("A-1"), issue("A-2")
    driver.start(one)

    order(driver, "pause", reason="lunch")

    assert driver.of(SaveHold)[0].hold.kind is HoldKind.PAUSE
    assert driver.stopped() == []
    assert driver.poll([one, two], held=[one]) == []
    assert isinstance(driver.claim(one), Running)
    (gate,) = [gate for gate in explain(driver.state, two) if not gate.passed]
    assert gate.name is GateName.NOT_HELD
    assert "ann" in gate.detail
    assert "lunch" in gate.detail


def test_resume_lifts_the_pause_and_looks_at_the_board_at_once(drive, issue):
    driver = drive()
    one = issue("A-1")
    driver.start()
    order(driver, "pause")
    driver.poll([one])

    order(driver, "resume")
    driver.offer(one)

    assert [spec.issue.identifier for spec in driver.confirm(one)] == ["A-1"]
    assert driver.state.holds == {}


def test_one_paused_issue_waits_while_others_run(drive, issue):
    driver = drive()
    driver.start()
    order(driver, "pause", "A-2")

    started = driver.poll([issue("A-1"), issue("A-2")])

    assert [spec.issue.identifier for spec in started] == ["A-1"]
    assert shut(driver, issue("A-2")) == [GateName.NOT_HELD]


def test_a_due_retry_waits_for_its_hold_and_goes_on_when_it_is_lifted(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    order(driver, "pause", "A-1")
    driver.end(spec, OutcomeKind.FAILED)
    driver.wake_at(driver.retry(one).due_mono)
    driver.show(RETRY, one)
    assert driver.started() == []
    assert driver.retry(one).hold.name is GateName.NOT_HELD
    attempt = driver.retry(one).attempt

    order(driver, "resume", "A-1")
    if driver.has_refresh(RETRY):
        driver.show(RETRY, one)

    running = driver.claim(one)
    assert isinstance(running, Running)
    assert running.spec.attempt == attempt


def test_a_drain_ends_runs_after_their_turn_and_starts_nothing(drive, issue):
    driver = drive()
    one, two = issue("A-1"), issue("A-2")
    specs = driver.start(one, two)

    order(driver, "drain")

    assert [command.run_id for command in driver.of(EndAfterTurn)] == [s.run_id for s in specs]
    for spec in specs:
        driver.end(spec)
    for held in (one, two):
        driver.wake_at(max(driver.mono, driver.retry(held).due_mono))
        if driver.has_refresh(RETRY):
            driver.show(RETRY, one, two)
    assert driver.poll([one, two, issue("A-3")]) == []
    assert {driver.retry(held).retry_kind for held in (one, two)} == {RetryKind.CONTINUATION}


def test_a_stopped_issue_waits_for_a_person_and_keeps_its_thread(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)

    order(driver, "stop", "A-1", "wrong branch")
    assert driver.stopped() == [(spec.run_id, StopReason.OPERATOR)]
    driver.end(
        spec, OutcomeKind.CANCELLED, stop_reason=StopReason.OPERATOR, thread_id="t", message="x"
    )

    claim = driver.claim(one)
    assert isinstance(claim, Blocked)
    assert (claim.category, claim.thread_id) == (STOPPED, "t")
    assert driver.poll([one], held=[one]) == []


def test_a_stopped_issue_stays_stopped_where_its_run_completes_just_then(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    order(driver, "stop", "A-1")
    driver.end(spec, OutcomeKind.COMPLETED)
    claim = driver.claim(one)
    assert isinstance(claim, Blocked)
    assert claim.category == STOPPED


def test_stopping_a_blocked_issue_leaves_it_to_a_person_alone(drive, issue):
    driver = drive(agent={"blocked_retry_ms": 60_000})
    one, two = issue("A-1"), issue("A-2")
    first, second = driver.start(one, two)
    for spec in (first, second):
        driver.end(spec, OutcomeKind.INPUT_REQUIRED, category="turn_input_required", thread_id="t")

    order(driver, "stop", "A-1", "not now")

    (saved,) = driver.of(SaveClaim)
    assert (saved.blocked_category, saved.thread_id) == (STOPPED, "t")
    driver.wake(61.0)
    assert isinstance(driver.claim(one), Blocked)
    assert not isinstance(driver.claim(two), Blocked)


def test_stopping_everything_leaves_what_waits_for_an_answer_waiting(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.end(spec, OutcomeKind.INPUT_REQUIRED, category="turn_input_required")
    order(driver, "stop")
    order(driver, "resume")
    claim = driver.claim(one)
    assert isinstance(claim, Blocked)
    assert claim.category == "turn_input_required"


def test_a_stalled_run_that_an_operator_stops_is_not_retried(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.send(RunSilent(spec.run_id, 301.0))
    order(driver, "stop", "A-1")
    assert driver.stopped() == []
    driver.end(spec, OutcomeKind.STALLED, stop_reason=StopReason.STALLED)
    claim = driver.claim(one)
    assert isinstance(claim, Blocked)
    assert claim.category == STOPPED


def test_resuming_a_stopped_issue_runs_it_again_at_once(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    order(driver, "stop", "A-1")
    driver.end(spec, OutcomeKind.CANCELLED, stop_reason=StopReason.OPERATOR, thread_id="t")

    order(driver, "resume", "A-1")
    driver.wake()
    driver.show(RETRY, one)

    (again,) = driver.started()
    assert again.thread_id == "t"
    assert again.retry_kind is RetryKind.RECOVERY


@pytest.mark.parametrize("kind", [OutcomeKind.FAILED, OutcomeKind.INPUT_REQUIRED])
def test_retry_now_runs_what_waits_or_is_blocked_and_forgives_its_failures(drive, issue, kind):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.end(spec, kind, message="no")

    order(driver, "retry", "A-1")

    assert driver.retry(one).due_mono == driver.mono
    assert driver.retry(one).failures == 0
    assert driver.of(SaveClaim)[0].kind == "retry"
    driver.wake()
    driver.show(RETRY, one)
    assert [spec.issue.identifier for spec in driver.started()] == ["A-1"]


def test_stopping_everything_blocks_what_runs_and_what_waits_and_pauses(drive, issue):
    driver = drive()
    one, two = issue("A-1"), issue("A-2")
    first, second = driver.start(one, two)
    driver.end(first, OutcomeKind.FAILED)

    order(driver, "stop")
    driver.end(second, OutcomeKind.CANCELLED, stop_reason=StopReason.OPERATOR)

    assert {type(driver.claim(held)) for held in (one, two)} == {Blocked}
    assert driver.state.holds[None].kind is HoldKind.PAUSE
    order(driver, "resume")
    assert {type(driver.claim(held)) for held in (one, two)} == {RetryQueued}


def test_an_issue_that_is_chosen_but_not_started_can_be_stopped(drive, issue):
    driver = drive()
    one = issue("A-1")
    driver.send(Restored())
    driver.offer(one)

    order(driver, "stop", "A-1")
    driver.show(RefreshPurpose.DISPATCH, one)

    assert driver.started() == []
    assert isinstance(driver.claim(one), Blocked)


def test_a_stop_of_an_issue_that_waits_for_a_slot_keeps_it_from_starting(drive, issue):
    driver = drive(agent={"max_concurrent_agents": 1})
    one, two = issue("A-1"), issue("A-2")
    (spec,) = driver.start(one)
    driver.poll([one, two], held=[one])

    order(driver, "stop", "A-2", "not yet")
    driver.end(spec, OutcomeKind.CANCELLED, stop_reason=StopReason.INACTIVE)

    assert driver.of(SaveHold) == []
    assert driver.poll([two]) == []
    assert GateName.NOT_HELD in shut(driver, two)
    order(driver, "resume", "A-2")
    assert driver.of(DropHold)[0].scope == "A-2"


def test_holds_are_restored_and_shown(drive, issue):
    driver = drive()
    hold = Hold("A-1", HoldKind.PAUSE, "later", "ann", driver.wall)
    driver.send(Restored(holds=(hold,)))
    driver.offer(issue("A-1"))

    assert driver.started() == []
    snapshot = build_snapshot(driver.state, {}, driver.now, sequence=1, rate_limits=None)
    assert [(row.identifier, row.reason) for row in snapshot.holds] == [("A-1", "later")]
    order(driver, "resume", "A-1")
    assert driver.of(DropHold)[0].scope == "A-1"


def test_an_order_is_known_only_for_issues_on_our_books(drive, issue):
    driver = drive(agent={"max_concurrent_agents": 1})
    one, two = issue("A-1"), issue("A-2")
    driver.start(one, two)
    assert known(driver.state, "A-1")
    assert known(driver.state, "A-2")
    assert not known(driver.state, "A-9")
