"""How due retries are read again, compete for slots and start, or are let go of (SPEC 8.4)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from symphony.model.run import OutcomeKind
from symphony.scheduler.claims import NO_SLOTS, Rechecking
from symphony.scheduler.commands import (
    CleanWorkspace,
    DropClaim,
    RefreshIssues,
    RefreshPurpose,
)
from symphony.scheduler.eligibility import GateName
from symphony.scheduler.events import (
    CleanupEnded,
    ConfigBroken,
    ConfigRepaired,
    RunSilent,
    SettingsChanged,
)

RETRY = RefreshPurpose.RETRY
FAILED = OutcomeKind.FAILED
INPUT_REQUIRED = OutcomeKind.INPUT_REQUIRED


def test_a_retry_that_falls_due_while_parked_waits_and_starts_at_the_reset(drive, issue):
    driver = drive(polling={"interval_ms": 600_000})
    one, two = issue("A-1"), issue("A-2")
    first, second = driver.start(one, two)
    driver.end(second, FAILED)
    driver.end(first, FAILED, code="usageLimitExceeded", message="limit", retry_at=driver.wall + 60)
    driver.wake(10)
    driver.show(RETRY, two)
    waiting = driver.retry(two)
    assert waiting.hold is not None
    assert waiting.hold.name is GateName.NOT_PARKED
    assert not waiting.waits_for_slot
    assert waiting.shown_error is not None
    assert "parked until" in waiting.shown_error
    driver.wake(50)
    reads = driver.of(RefreshIssues)
    assert {issue_id for read in reads for issue_id in read.ids} == {one.id, two.id}


def test_all_due_retries_share_one_read_in_dispatch_order(drive, issue):
    driver = drive()
    board = [issue("A-1"), issue("A-2", priority=1), issue("A-3")]
    for spec in driver.start(*board):
        driver.end(spec)
    (read,) = driver.wake(1)
    assert read.ids == ("id-A-2", "id-A-1", "id-A-3")
    driver.show(RETRY, *board)
    assert len(driver.started()) == 3


@pytest.mark.parametrize("state", ["Review", "Backlog"])
def test_a_due_retry_of_an_inactive_issue_is_released(drive, issue, moved, state):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.end(spec)
    driver.wake(1)
    assert driver.show(RETRY, moved(one, state))[0] == DropClaim(one.id)
    assert driver.claim(one) is None


def test_a_due_retry_of_an_unroutable_issue_is_released(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.end(spec)
    driver.wake(1)
    assert driver.show(RETRY, replace(one, dispatchable=False))[0] == DropClaim(one.id)


def test_a_due_retry_of_a_missing_issue_is_released_without_a_clean_up(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.end(spec)
    driver.wake(1)
    assert driver.show(RETRY)[0] == DropClaim(one.id)
    assert driver.of(CleanWorkspace) == []


def test_a_due_retry_of_a_terminal_issue_cleans_its_recorded_workspace_first(drive, issue, moved):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.end(spec, workspace_path="/old-root/A-1")
    driver.wake(1)
    driver.show(RETRY, moved(one, "Done"))
    (clean,) = driver.of(CleanWorkspace)
    assert (clean.workspace_path, clean.host) == ("/old-root/A-1", "local")
    assert driver.of(DropClaim) == []
    assert driver.send(CleanupEnded(clean.cause, one.id)) == [DropClaim(one.id)]
    assert driver.claim(one) is None


def test_a_failed_clean_up_is_a_warning_and_frees_the_claim(drive, issue, moved):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.end(spec)
    driver.wake(1)
    driver.show(RETRY, moved(one, "Done"))
    (clean,) = driver.of(CleanWorkspace)
    driver.send(CleanupEnded(clean.cause, one.id, "before_remove failed"))
    assert driver.notes() == ["workspace was not removed"]
    assert driver.claim(one) is None


def test_waiting_for_a_slot_keeps_the_attempt_and_says_so(drive, issue):
    """Defect 30: waiting counted as failing, up to the longest backoff."""
    driver = drive(agent={"max_concurrent_agents": 1})
    one, two = issue("A-1"), issue("A-2", priority=1)
    (spec,) = driver.start(one)
    driver.end(spec, FAILED, message="fault")
    attempt, saved_due = driver.retry(one).attempt, driver.retry(one).due_wall
    (other,) = driver.poll([two])
    driver.wake(10)
    assert driver.show(RETRY, one)[-1].message == "retry waits"
    retry = driver.retry(one)
    assert retry.waits_for_slot
    assert retry.shown_error == NO_SLOTS == "no available orchestrator slots"
    assert (retry.attempt, retry.error, retry.due_wall) == (attempt, "fault", saved_due)
    for _ in range(5):
        driver.poll([two], [one, two])
    assert driver.retry(one).attempt == attempt
    driver.end(other, OutcomeKind.INPUT_REQUIRED)
    assert driver.of(RefreshIssues)[0].ids == (one.id,)
    driver.show(RETRY, one)
    (again,) = driver.started()
    assert (again.attempt, again.previous_error) == (attempt, "fault")


def test_fresh_issues_of_its_priority_do_not_overtake_a_waiting_retry(drive, issue):
    """Defect 30: new issues took every slot that became free."""
    driver = drive(agent={"max_concurrent_agents": 1})
    late, old = issue("A-9"), issue("A-1")
    (spec,) = driver.start(late)
    driver.end(spec, FAILED)
    (blocker,) = driver.poll([issue("A-5")])
    driver.wake(10)
    driver.show(RETRY, late)
    assert driver.retry(late).waits_for_slot
    driver.state.poll.next_mono = driver.mono
    driver.wake()
    driver.show(RefreshPurpose.RECONCILE, late, issue("A-5"))
    driver.end(blocker)
    driver.offer(old, late)
    assert driver.has_refresh(RETRY)
    assert not driver.has_refresh(RefreshPurpose.DISPATCH)


def test_a_higher_priority_goes_before_a_waiting_retry(drive, issue):
    driver = drive(agent={"max_concurrent_agents": 1})
    one, urgent = issue("A-1", priority=3), issue("A-9", priority=1)
    (spec,) = driver.start(one)
    driver.end(spec, FAILED)
    driver.send(ConfigBroken("x"))
    driver.wake(10)
    driver.show(RETRY, one)
    assert driver.retry(one).hold is not None
    driver.wake(20)
    driver.show(RefreshPurpose.RECONCILE, one)
    driver.send(SettingsChanged(driver.state.settings))
    assert driver.has_refresh(RETRY)
    driver.show(RETRY, one)
    assert len(driver.started()) == 1
    driver.offer(urgent)
    assert driver.state.waiting[0][0] is urgent


def test_candidates_and_waiting_retries_compete_in_dispatch_order(drive, issue, moved):
    limits = {"max_concurrent_agents": 3, "max_concurrent_agents_by_state": {"todo": 1}}
    driver = drive(agent=limits)
    one, busy = issue("A-1", priority=3), issue("B-1")
    (spec,) = driver.start(one)
    driver.end(spec, FAILED)
    driver.poll([busy])
    driver.wake(10)
    driver.show(RETRY, one)
    assert driver.retry(one).waits_for_slot
    driver.wake(20)
    urgent, late = (
        issue(name, priority=priority, state="In Progress")
        for name, priority in (("A-9", 1), ("A-8", 3))
    )
    driver.offer(late, urgent)
    retry_read, fresh_read = driver.show(RefreshPurpose.RECONCILE, moved(one, "In Progress"), busy)
    assert retry_read.ids == (one.id,)
    assert fresh_read.ids == (urgent.id,)
    assert driver.state.waiting[0][0] is late


def test_a_waiting_retry_whose_new_state_has_room_starts_without_candidates(drive, issue, moved):
    driver = drive(agent={"max_concurrent_agents_by_state": {"todo": 1}})
    one, busy = issue("A-1"), issue("B-1")
    (spec,) = driver.start(one)
    driver.end(spec, FAILED)
    driver.poll([busy])
    driver.wake(10)
    driver.show(RETRY, one)
    (ending,) = driver.state.claims.running()
    driver.send(RunSilent(ending.spec.run_id, 999.0))
    driver.wake(20)
    driver.fail_candidates()
    driver.show(RefreshPurpose.RECONCILE, moved(one, "In Progress"))
    assert driver.of(RefreshIssues)[0].ids == (one.id,)


def test_a_retry_waits_for_a_slot_of_its_new_state(drive, issue, moved):
    driver = drive(agent={"max_concurrent_agents_by_state": {"in progress": 1}})
    one, two = issue("A-1"), issue("A-2", state="In Progress")
    first, second = driver.start(one, two)
    driver.end(first)
    driver.wake(1)
    driver.show(RETRY, moved(one, "In Progress"))
    retry = driver.retry(one)
    assert retry.hold is not None
    assert retry.hold.name is GateName.STATE_SLOT
    driver.end(second, FAILED)
    driver.show(RETRY, moved(one, "In Progress"))
    assert len(driver.started()) == 1


def test_a_waiting_retry_says_which_gate_holds_it_now(drive, issue):
    driver = drive(agent={"max_concurrent_agents": 1})
    one, two = issue("A-1"), issue("A-2")
    (spec,) = driver.start(one)
    driver.end(spec, FAILED)
    (other,) = driver.poll([two])
    driver.wake(10)
    driver.show(RETRY, one)
    driver.send(ConfigBroken("line 3"))
    driver.poll([], [one, two])
    assert driver.retry(one).shown_error == "line 3"
    driver.end(other, OutcomeKind.INPUT_REQUIRED)
    assert driver.of(RefreshIssues) == []
    driver.send(ConfigRepaired())
    assert driver.of(RefreshIssues)[0].ids == (one.id,)


def test_a_slot_that_frees_during_the_read_goes_to_the_retry_and_not_to_a_candidate(drive, issue):
    driver = drive(agent={"max_concurrent_agents": 1})
    one, two = issue("A-1"), issue("A-2")
    (spec,) = driver.start(one)
    driver.end(spec, FAILED)
    (other,) = driver.poll([two])
    driver.wake(10)
    claim = driver.claim(one)
    assert isinstance(claim, Rechecking)
    assert claim.host is None
    driver.end(other, OutcomeKind.INPUT_REQUIRED)
    claim = driver.claim(one)
    assert isinstance(claim, Rechecking)
    assert claim.host == "local"
    driver.show(RETRY, one)
    assert len(driver.started()) == 1


def test_a_slot_that_frees_elsewhere_does_not_help_a_retry_whose_read_is_in_flight(
    drive, issue, moved
):
    driver = drive(agent={"max_concurrent_agents_by_state": {"todo": 1}})
    one, two, three = issue("A-1"), issue("A-2"), issue("A-3", state="In Progress")
    first, third = driver.start(one, three)
    driver.end(first, FAILED)
    driver.poll([two], [three])
    driver.wake(10)
    driver.end(third, INPUT_REQUIRED)
    claim = driver.claim(one)
    assert isinstance(claim, Rechecking)
    assert claim.host is None
    driver.show(RETRY, one)
    assert driver.notes() == ["retry waits"]
    driver.wake(20)
    driver.show(RefreshPurpose.RECONCILE, moved(one, "In Progress"), two, three)
    driver.show(RETRY, one)
    assert driver.commands == []
    assert driver.retry(one).waits_for_slot


def test_a_failed_read_keeps_the_attempt_and_backs_off_by_itself(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.end(spec, FAILED, message="fault")
    for nominal in (10, 20, 40):
        driver.wake_at(driver.retry(one).due_mono)
        driver.fail(RETRY, "502")
        assert driver.within(driver.due_in(one), nominal)
        assert driver.retry(one).shown_error == "retry poll failed: 502"
        assert driver.retry(one).attempt == 1
    driver.wake_at(driver.retry(one).due_mono)
    driver.fail(RETRY, "429", retry_after_s=1000.0)
    assert driver.due_in(one) == pytest.approx(1000)
    driver.wake(1001)
    driver.show(RETRY, one)
    assert driver.started()[0].previous_error == "fault"
