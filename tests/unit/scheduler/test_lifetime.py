"""Start after a crash, changed settings, shutdown."""

from __future__ import annotations

import pytest

from symphony.model.run import OutcomeKind, RetryKind, StopReason
from symphony.model.usage import TokenUsage
from symphony.scheduler.claims import Blocked, Cleaning, RetryQueued
from symphony.scheduler.commands import (
    CleanWorkspace,
    DropClaim,
    FetchCandidates,
    RefreshIssues,
    RefreshPurpose,
    SaveClaim,
    SaveEnd,
    StopRun,
)
from symphony.scheduler.events import (
    CleanupEnded,
    ConfigBroken,
    Restored,
    RestoredClaim,
    RunSilent,
    SettingsChanged,
    ShutdownRequested,
)
from symphony.scheduler.state import live_runs, unfinished

RETRY = RefreshPurpose.RETRY


def left(kind, issue, **fields):
    fields = {"attempt": None, "retry_kind": None, "error": None, **fields}
    return RestoredClaim(kind=kind, issue=issue, **fields)


# --- restart ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [RetryKind.FAILURE, RetryKind.RECOVERY])
def test_an_interrupted_run_is_taken_up_again_at_once_with_its_thread_and_attempt(
    drive, issue, kind
):
    driver = drive()
    one = issue("A-1")
    claim = left("running", one, attempt=3, retry_kind=kind, thread_id="t", error="fault")
    driver.send(Restored([claim]))
    read = driver.refresh(RETRY)
    assert read.ids == (one.id,)
    driver.show(RETRY, one)
    (spec,) = driver.started()
    assert (spec.attempt, spec.retry_kind, spec.thread_id) == (3, RetryKind.RECOVERY, "t")
    driver.end(spec, OutcomeKind.FAILED)
    assert driver.retry(one).attempt == 4


def test_an_interrupted_first_run_is_still_a_first_run(drive, issue):
    driver = drive()
    one = issue("A-1")
    driver.send(Restored([left("running", one)]))
    driver.show(RETRY, one)
    (spec,) = driver.started()
    assert (spec.attempt, spec.retry_kind) == (None, RetryKind.RECOVERY)
    driver.end(spec, OutcomeKind.FAILED)
    assert driver.retry(one).attempt == 1


def test_a_restored_issue_is_not_dispatched_beside_its_recovery(drive, issue):
    driver = drive()
    one = issue("A-1")
    driver.send(Restored([left("running", one)]))
    assert driver.offer(one) == []
    driver.show(RETRY, one)
    assert len(driver.started()) == 1


def test_a_retry_keeps_the_rest_of_its_delay_over_a_restart(drive, issue):
    driver = drive()
    one, two = issue("A-1"), issue("A-2")
    driver.send(
        Restored(
            [
                left("retry", one, attempt=2, retry_kind=RetryKind.FAILURE, delay_s=12.0),
                left("retry", two, attempt=1, retry_kind=RetryKind.CONTINUATION, delay_s=-5.0),
            ]
        )
    )
    assert driver.refresh(RETRY).ids == (two.id,)
    assert driver.retry(one).due_mono == driver.mono + 12
    driver.wake(12)
    assert driver.refresh(RETRY).ids == (one.id,)
    driver.show(RETRY, one)
    (spec,) = driver.started()
    driver.end(spec, OutcomeKind.FAILED)
    assert driver.retry(one).attempt == 3


def test_a_run_that_is_recovered_again_and_again_has_not_failed(drive, issue):
    driver = drive()
    one = issue("A-1")
    driver.send(
        Restored([left("running", one, attempt=1, retry_kind=RetryKind.RECOVERY, failures=0)])
    )
    driver.show(RETRY, one)
    (spec,) = driver.started()
    assert (spec.attempt, spec.failures) == (1, 0)
    driver.end(spec, OutcomeKind.FAILED)
    assert (driver.retry(one).attempt, driver.retry(one).failures) == (1, 1)
    (saved,) = driver.of(SaveClaim)
    assert saved.failures == 1


def test_a_retry_row_without_a_kind_counts_as_a_failure(drive, issue):
    driver = drive()
    one = issue("A-1")
    driver.send(Restored([left("retry", one, attempt=1, delay_s=5.0)]))
    assert driver.retry(one).retry_kind is RetryKind.FAILURE


def test_blocked_issues_stay_blocked_over_a_restart(drive, issue):
    driver = drive()
    one, two = issue("A-1"), issue("A-2")
    driver.send(
        Restored(
            [
                left("blocked", one, blocked_category="input_required", error="which?"),
                left("blocked", two),
            ]
        )
    )
    claim = driver.claim(one)
    assert isinstance(claim, Blocked)
    assert (claim.category, claim.error) == ("input_required", "which?")
    assert isinstance(driver.claim(two), Blocked)
    driver.offer(one, two)
    driver.show(RefreshPurpose.RECONCILE, one, two)
    assert {command.kind for command in driver.commands} == {"blocked"}
    assert isinstance(driver.claim(one), Blocked)


def test_totals_go_on_after_a_restart(drive, issue):
    driver = drive()
    driver.send(Restored(usage=TokenUsage(1, 2, 3), seconds=60.0))
    driver.offer(issue("A-1"))
    (spec,) = driver.confirm(issue("A-1"))
    driver.end(spec, usage=TokenUsage(1, 1, 1), seconds=2.0)
    assert (driver.state.usage, driver.state.seconds) == (TokenUsage(2, 3, 4), 62.0)


def test_a_ledger_with_two_claims_of_one_issue_restores_the_first_and_says_so(drive, issue):
    driver = drive()
    one = issue("A-1")
    driver.send(Restored([left("blocked", one), left("running", one)]))
    assert "second claim in the ledger" in driver.notes()
    assert isinstance(driver.claim(one), Blocked)


def test_more_interrupted_runs_than_slots_wait_for_their_turn(drive, issue):
    driver = drive(agent={"max_concurrent_agents": 1})
    one, two = issue("A-1"), issue("A-2")
    driver.send(Restored([left("running", two), left("running", one)]))
    driver.show(RETRY, one, two)
    (spec,) = driver.started()
    assert spec.issue is one
    assert driver.retry(two).waits_for_slot


# --- settings ---------------------------------------------------------------------------------


def test_the_patience_that_one_tracker_asked_for_does_not_bind_the_next(drive, settings):
    driver = drive()
    driver.send(Restored())
    driver.fail_candidates(retry_after_s=500.0)
    driver.send(SettingsChanged(settings(tracker={"provider": {"board": "other"}})))
    assert len(driver.of(FetchCandidates)) == 1


def test_new_limits_hold_at_once_for_waiting_retries(drive, issue, settings):
    driver = drive(agent={"max_concurrent_agents": 1})
    one, two = issue("A-1"), issue("A-2")
    driver.send(Restored([left("running", one), left("running", two)]))
    driver.show(RETRY, one, two)
    driver.send(SettingsChanged(settings(agent={"max_concurrent_agents": 2})))
    assert driver.of(RefreshIssues)[0].ids == (two.id,)


def test_lowered_limits_stop_no_run_and_let_none_start(drive, issue, settings):
    driver = drive()
    board = [issue(f"A-{number}") for number in (1, 2, 3)]
    driver.start(*board[:2])
    driver.send(SettingsChanged(settings(agent={"max_concurrent_agents": 1})))
    assert driver.poll(board, board[:2]) == []
    assert live_runs(driver.state) == 2


def test_new_states_and_labels_hold_from_the_next_reconciliation(drive, issue, settings):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.send(SettingsChanged(settings(tracker={"required_labels": ["agent"]})))
    driver.wake(30)
    driver.show(RefreshPurpose.RECONCILE, one)
    assert driver.stopped() == [(spec.run_id, StopReason.UNROUTABLE)]


@pytest.mark.parametrize(("interval_ms", "wait"), [(60_000, 50.0), (12_000, 2.0), (5_000, 0.0)])
def test_a_new_interval_is_measured_from_the_end_of_the_last_cycle(
    drive, settings, interval_ms, wait
):
    driver = drive()
    driver.start()
    driver.advance(10)
    driver.send(SettingsChanged(settings(polling={"interval_ms": interval_ms})))
    assert driver.wakes_in() == wait


def test_a_new_interval_during_a_cycle_holds_after_it(drive, settings):
    driver = drive()
    driver.send(Restored())
    driver.send(SettingsChanged(settings(polling={"interval_ms": 5000})))
    driver.offer()
    assert driver.wakes_in() == 5.0


def test_unchanged_settings_leave_the_next_poll_alone(drive, settings):
    driver = drive()
    driver.start()
    driver.advance(10)
    assert driver.send(SettingsChanged(settings())) == []
    assert driver.wakes_in() == 20.0


def test_valid_settings_end_a_broken_configuration(drive, settings):
    driver = drive()
    driver.start()
    driver.send(ConfigBroken("line 3"))
    driver.send(SettingsChanged(settings()))
    assert driver.state.config_error is None
    assert driver.notes() == ["configuration is valid again"]


def test_settings_may_change_before_the_ledger_was_read(drive, settings):
    driver = drive()
    changed = settings(tracker={"provider": {"board": "x"}})
    assert driver.send(SettingsChanged(changed)) == []
    driver.send(Restored())
    assert driver.state.settings is changed


# --- shutdown ---------------------------------------------------------------------------------


def test_a_shutdown_ends_every_run_and_keeps_its_claim_in_the_ledger(drive, issue):
    driver = drive()
    one, two = issue("A-1"), issue("A-2")
    first, second = driver.start(one, two)
    driver.send(ShutdownRequested())
    assert driver.stopped() == [
        (first.run_id, StopReason.SHUTDOWN),
        (second.run_id, StopReason.SHUTDOWN),
    ]
    assert unfinished(driver.state) == 2
    driver.end(first, OutcomeKind.CANCELLED, stop_reason=StopReason.SHUTDOWN)
    assert [type(command) for command in driver.commands] == [SaveEnd]
    driver.end(second, OutcomeKind.FAILED)
    assert [type(command) for command in driver.commands] == [SaveEnd]
    assert unfinished(driver.state) == 0
    assert len(driver.state.claims) == 0


def test_a_run_that_ends_by_itself_during_a_shutdown_keeps_what_it_reached(drive, issue):
    driver = drive()
    one, two = issue("A-1"), issue("A-2")
    first, second = driver.start(one, two)
    driver.send(ShutdownRequested())
    driver.end(first, OutcomeKind.COMPLETED)
    driver.end(second, OutcomeKind.INPUT_REQUIRED)
    kinds = [command.kind for command in driver.history if isinstance(command, SaveClaim)]
    assert kinds == ["retry", "blocked"]
    assert driver.wake(60) == []


def test_a_run_that_is_being_stopped_is_not_stopped_again(drive, issue, moved):
    driver = drive()
    one, two = issue("A-1"), issue("A-2")
    first, second = driver.start(one, two)
    driver.send(RunSilent(first.run_id, 999.0))
    driver.wake(30)
    driver.show(RefreshPurpose.RECONCILE, one, moved(two, "Done"))
    driver.send(ShutdownRequested())
    assert driver.of(StopRun) == []
    driver.end(second, OutcomeKind.CANCELLED, stop_reason=StopReason.TERMINAL)
    # Nothing is cleaned or dropped: the next start finds the issue terminal.
    assert [type(command) for command in driver.commands] == [SaveEnd]
    driver.end(first, OutcomeKind.STALLED, stop_reason=StopReason.STALLED)
    assert isinstance(driver.claim(one), RetryQueued)


def test_what_was_only_chosen_is_dropped_and_what_was_due_stays_queued(drive, issue):
    driver = drive()
    one, two = issue("A-1"), issue("A-2")
    (spec,) = driver.start(one)
    driver.end(spec)
    driver.wake(30)
    driver.offer(two)
    assert driver.has_refresh(RETRY)
    read = driver.refresh(RefreshPurpose.DISPATCH)
    driver.send(ShutdownRequested())
    assert driver.commands == []
    assert driver.claim(two) is None
    assert isinstance(driver.claim(one), RetryQueued)
    assert read.cause not in driver.state.pending


def test_a_clean_up_in_flight_is_waited_for(drive, issue, moved):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.end(spec)
    driver.wake(1)
    driver.show(RETRY, moved(one, "Done"))
    (clean,) = driver.of(CleanWorkspace)
    driver.send(ShutdownRequested())
    assert isinstance(driver.claim(one), Cleaning)
    assert unfinished(driver.state) == 1
    assert driver.send(CleanupEnded(clean.cause, one.id)) == [DropClaim(one.id)]
    assert unfinished(driver.state) == 0


def test_a_second_shutdown_request_changes_nothing(drive, issue):
    driver = drive()
    driver.start(issue("A-1"))
    driver.send(ShutdownRequested())
    assert driver.send(ShutdownRequested()) == []
