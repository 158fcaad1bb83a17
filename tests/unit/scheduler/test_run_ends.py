"""Hosts, threads and totals across runs, and ends that nobody expects."""

from __future__ import annotations

from symphony.model.run import OutcomeKind, StopReason
from symphony.model.usage import TokenUsage
from symphony.scheduler.claims import Running
from symphony.scheduler.commands import (
    CleanWorkspace,
    Level,
    RefreshIssues,
    RefreshPurpose,
)
from symphony.scheduler.events import (
    RunEnded,
)
from symphony.scheduler.retry import park

RETRY = RefreshPurpose.RETRY
FAILED = OutcomeKind.FAILED
INPUT_REQUIRED = OutcomeKind.INPUT_REQUIRED


def test_a_retry_prefers_its_host(drive, issue):
    driver = drive(worker={"ssh_hosts": ["a", "b"]})
    one, two = issue("A-1"), issue("A-2")
    _, second = driver.start(one, two)
    assert second.host == "b"
    spec = driver.fail_again(two, second, thread_id="t")
    assert (spec.host, spec.thread_id) == ("b", "t")


def test_a_retry_whose_host_is_full_moves_and_leaves_thread_and_workspace_behind(drive, issue):
    driver = drive(worker={"ssh_hosts": ["a", "b"], "max_concurrent_agents_per_host": 1})
    one, two = issue("A-1"), issue("A-2")
    (spec,) = driver.start(one)
    driver.end(spec, FAILED, thread_id="t", workspace_path="/w/A-1")
    (other,) = driver.poll([two])
    assert (spec.host, other.host) == ("a", "a")
    driver.wake(10)
    driver.show(RETRY, one)
    (again,) = driver.started()
    assert (again.host, again.thread_id) == ("b", None)
    driver.end(again, FAILED)
    assert driver.retry(one).workspace_path is None


def test_a_run_that_dies_early_does_not_forget_where_its_workspace_is(drive, issue, moved):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.end(spec, FAILED, workspace_path="/w/A-1")
    driver.wake(10)
    driver.show(RETRY, one)
    (again,) = driver.started()
    driver.end(again, FAILED)
    driver.wake(20)
    driver.show(RETRY, moved(one, "Done"))
    assert driver.of(CleanWorkspace)[0].workspace_path == "/w/A-1"


def test_a_failed_read_of_a_retry_that_waited_for_a_slot_is_not_repeated_at_once(drive, issue):
    driver = drive(agent={"max_concurrent_agents": 1})
    one, two = issue("A-1"), issue("A-2")
    (spec,) = driver.start(one)
    driver.end(spec, FAILED)
    (other,) = driver.poll([two])
    driver.wake(10)
    driver.show(RETRY, one)
    driver.end(other, INPUT_REQUIRED)
    driver.fail(RETRY)
    assert driver.of(RefreshIssues) == []
    assert driver.within(driver.due_in(one), 10)


def test_a_run_that_blames_a_shutdown_which_nobody_asked_for_is_retried(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.end(spec, OutcomeKind.CANCELLED, stop_reason=StopReason.SHUTDOWN)
    assert driver.retry(one).attempt == 1


def test_a_park_is_lifted_in_time_though_no_retry_falls_due_then(drive):
    driver = drive()
    driver.start()
    park(driver.state, 12.0, "limit", driver.now)
    assert driver.wakes_in() == 12.0
    driver.wake(12)
    assert driver.notes() == ["dispatch resumes"]


def test_a_lost_host_is_avoided_for_a_while_and_threads_do_not_move(drive, issue):
    """Defect 31: retries stuck to a dead host, and as the least loaded one it attracted work."""
    driver = drive(worker={"ssh_hosts": ["a", "b"]})
    one = issue("A-1")
    (spec,) = driver.start(one)
    assert spec.host == "a"
    driver.end(spec, OutcomeKind.HOST_LOST, thread_id="t", workspace_path="/w/A-1")
    assert driver.poll([issue("A-2")])[0].host == "b"
    driver.wake(10)
    driver.show(RETRY, one)
    (again,) = driver.started()
    assert (again.host, again.thread_id) == ("b", None)
    claim = driver.claim(one)
    assert isinstance(claim, Running)
    assert claim.workspace_path is None
    driver.advance(60)
    assert driver.poll([issue("A-3")], [one, issue("A-2")])[0].host == "a"


def test_a_clean_up_goes_to_the_host_of_the_workspace(drive, issue, moved):
    driver = drive(worker={"ssh_hosts": ["a", "b"]})
    one, two = issue("A-1"), issue("A-2")
    _, second = driver.start(one, two)
    driver.end(second, workspace_path="/w/A-2")
    driver.wake(1)
    driver.show(RETRY, moved(two, "Done"))
    (clean,) = driver.of(CleanWorkspace)
    assert clean.host == "b"


def test_the_end_of_an_old_run_is_not_credited_to_its_successor(drive, issue):
    """Defect 19: updates were matched by issue alone."""
    driver = drive()
    one = issue("A-1")
    (old,) = driver.start(one)
    new = driver.fail_again(one, old, usage=TokenUsage(1, 2, 3), seconds=5.0)
    driver.end(old, usage=TokenUsage(100, 100, 200), seconds=100.0)
    assert driver.notes() == ["late answer dropped"]
    assert (driver.state.usage, driver.state.seconds) == (TokenUsage(1, 2, 3), 5.0)
    claim = driver.claim(one)
    assert isinstance(claim, Running)
    assert claim.spec.run_id == new.run_id


def test_a_run_that_could_not_be_started_keeps_no_claim_without_a_cause(drive, issue):
    """Defect 18: a start that failed dropped the retry and kept the claim for ever."""
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    outcome_fields = {"category": "host_start_failed", "message": "failed to spawn agent: no file"}
    driver.end(spec, FAILED, seconds=0.0, **outcome_fields)
    assert driver.retry(one).error == "failed to spawn agent: no file"
    assert driver.poll([one]) == []


def test_totals_add_up_over_all_ends(drive, issue):
    driver = drive()
    one, two = issue("A-1"), issue("A-2")
    first, second = driver.start(one, two)
    driver.end(first, usage=TokenUsage(1, 1, 2), seconds=2.5)
    driver.end(second, FAILED, usage=TokenUsage(10, 10, 20), seconds=-1.0)
    assert driver.state.usage == TokenUsage(11, 11, 22)
    assert driver.state.seconds == 2.5


def test_an_unknown_run_ends_without_effect(drive):
    driver = drive()
    driver.start()
    event = RunEnded("nobody", None, TokenUsage(1), 1.0)
    assert [command.level for command in driver.send(event)] == [Level.DEBUG]
    assert driver.state.usage == TokenUsage()


def test_the_wake_up_follows_the_earliest_of_poll_retry_and_park(drive, issue):
    driver = drive()
    one, two = issue("A-1"), issue("A-2")
    first, second = driver.start(one, two)
    assert driver.wakes_in() == 30.0
    driver.end(second, FAILED)
    assert driver.within(driver.wakes_in(), 10)
    driver.end(first)
    assert driver.wakes_in() == 1.0
    driver.wake(1)
    driver.show(RETRY, one)
    assert driver.wakes_in() == driver.retry(two).due_mono - driver.mono
