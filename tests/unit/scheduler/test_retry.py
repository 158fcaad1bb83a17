"""What follows the end of a run, and how due retries start (SPEC 7.3, 8.4, 16.6)."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from symphony.model.run import OutcomeKind, RetryKind, StopReason
from symphony.model.usage import TokenUsage
from symphony.scheduler.claims import NO_SLOTS, Blocked, Cleaning, Rechecking, Running
from symphony.scheduler.commands import (
    CleanWorkspace,
    DropClaim,
    Level,
    Note,
    RefreshIssues,
    RefreshPurpose,
    SaveClaim,
)
from symphony.scheduler.eligibility import GateName, Rules
from symphony.scheduler.events import (
    CleanupEnded,
    ConfigBroken,
    ConfigRepaired,
    Restored,
    RestoredClaim,
    RunEnded,
    RunSilent,
    SettingsChanged,
)
from symphony.scheduler.publish import build_snapshot
from symphony.scheduler.retry import backoff_s, park

RETRY = RefreshPurpose.RETRY
FAILED = OutcomeKind.FAILED
INPUT_REQUIRED = OutcomeKind.INPUT_REQUIRED
APPROVAL_REQUIRED = OutcomeKind.APPROVAL_REQUIRED


def within(delay, nominal):
    return nominal * 0.9 <= delay <= nominal


def due_in(driver, issue):
    return driver.retry(issue).due_mono - driver.mono


def fail_again(driver, issue, spec, **fields):
    """Fail a run, wait for its retry and return the next run."""
    driver.end(spec, fields.pop("kind", FAILED), **fields)
    driver.wake_at(driver.retry(issue).due_mono)
    driver.show(RETRY, issue)
    (spec,) = driver.started()
    return spec


def test_a_completed_run_is_continued_after_one_second_as_attempt_one(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    end, save, note = driver.end(spec, thread_id="t1", workspace_path="/w/A-1")
    assert end.ended.run_id == spec.run_id
    assert save == SaveClaim(
        kind="retry",
        issue=one,
        attempt=1,
        retry_kind=RetryKind.CONTINUATION,
        error=None,
        due_wall=driver.wall + 1,
        thread_id="t1",
        workspace_path="/w/A-1",
    )
    assert isinstance(note, Note)
    assert note.level is Level.INFO
    assert driver.wake(0.99) == []
    (read,) = driver.wake(0.01)
    assert read == RefreshIssues(read.cause, RETRY, (one.id,))
    driver.show(RETRY, one)
    (again,) = driver.started()
    assert (again.attempt, again.retry_kind) == (1, RetryKind.CONTINUATION)
    assert again.thread_id == "t1"
    assert again.previous_error is None
    assert again.run_id != spec.run_id


def test_every_continuation_is_attempt_one(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    for _ in range(4):
        spec = fail_again(driver, one, spec, kind=OutcomeKind.COMPLETED)
        assert spec.attempt == 1


def test_failures_back_off_from_ten_seconds_doubling_to_the_cap(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    for attempt, nominal in enumerate((10, 20, 40, 80, 160, 300, 300), start=1):
        driver.end(spec, FAILED, category="port_exit", message=f"fault {attempt}")
        assert within(due_in(driver, one), nominal)
        assert driver.retry(one).attempt == attempt
        driver.wake_at(driver.retry(one).due_mono)
        driver.show(RETRY, one)
        (spec,) = driver.started()
        assert (spec.attempt, spec.retry_kind) == (attempt, RetryKind.FAILURE)
        assert spec.previous_error == f"fault {attempt}"


def test_the_cap_of_the_backoff_is_configured_and_bounds_a_first_delay_too(drive, issue):
    driver = drive(agent={"max_retry_backoff_ms": 4000})
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.end(spec, FAILED)
    assert within(due_in(driver, one), 4)


def test_jitter_only_shortens_and_by_a_tenth_at_most(settings):
    rules, rng = Rules.from_settings(settings()), Random(1)
    delays = [backoff_s(3, rules, rng) for _ in range(500)]
    assert all(36 <= delay <= 40 for delay in delays)
    assert max(delays) - min(delays) > 3
    assert backoff_s(10_000, rules, rng) <= 300


@pytest.mark.parametrize(
    "kind", [OutcomeKind.INTERRUPTED, OutcomeKind.TIMED_OUT, OutcomeKind.HOST_LOST, FAILED]
)
def test_every_kind_of_failure_is_a_failure_and_no_success(drive, issue, kind):
    """Defect 3: failed and interrupted turns counted as success and were rerun after a second."""
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.end(spec, kind)
    retry = driver.retry(one)
    assert retry.retry_kind is RetryKind.FAILURE
    assert retry.error == kind.value
    assert within(due_in(driver, one), 10)


def test_a_cancelled_run_that_nobody_asked_for_is_a_failure(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.end(spec, OutcomeKind.CANCELLED, message="gone")
    assert driver.retry(one).retry_kind is RetryKind.FAILURE


def test_failures_and_continuations_are_counted_apart(drive, issue):
    """Field d.2/18: a continuation reset the attempts, or counted as one."""
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    spec = fail_again(driver, one, spec)
    spec = fail_again(driver, one, spec)
    assert spec.attempt == 2
    spec = fail_again(driver, one, spec, kind=OutcomeKind.COMPLETED)
    assert (spec.attempt, spec.retry_kind) == (1, RetryKind.CONTINUATION)
    spec = fail_again(driver, one, spec)
    assert (spec.attempt, spec.retry_kind) == (1, RetryKind.FAILURE)


def test_a_thread_is_resumed_after_one_failure_and_left_after_a_second_in_a_row(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    spec = fail_again(driver, one, spec, thread_id="t1")
    assert spec.thread_id == "t1"
    spec = fail_again(driver, one, spec, thread_id="t1")
    assert spec.thread_id is None


def test_a_full_context_window_starts_a_new_thread(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    spec = fail_again(driver, one, spec, thread_id="t1", code="contextWindowExceeded")
    assert spec.thread_id is None
    assert spec.attempt == 1


def test_a_run_that_died_before_its_thread_keeps_the_one_it_was_to_resume(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    spec = fail_again(driver, one, spec, kind=OutcomeKind.COMPLETED, thread_id="t1")
    driver.end(spec, FAILED)
    assert driver.retry(one).thread_id == "t1"


def test_a_failure_with_a_time_waits_for_it_but_not_less_than_its_backoff(drive, issue):
    driver = drive()
    one, two = issue("A-1"), issue("A-2")
    first, second = driver.start(one, two)
    driver.end(first, FAILED, code="serverOverloaded", retry_at=driver.wall + 50)
    driver.end(second, FAILED, code="serverOverloaded", retry_at=driver.wall + 1)
    assert due_in(driver, one) == 50
    assert within(due_in(driver, two), 10)
    assert driver.state.park is None


@pytest.mark.parametrize(
    ("fields", "category", "error"),
    [
        ({"kind": INPUT_REQUIRED}, "input_required", "codex turn requires operator input"),
        ({"kind": APPROVAL_REQUIRED}, "approval_required", "codex turn requires approval"),
        (
            {"kind": INPUT_REQUIRED, "category": "elicitation", "message": "Which one?"},
            "elicitation",
            "Which one?",
        ),
        (
            {"kind": FAILED, "retryable": False, "category": "turn_failed", "code": "unauthorized"},
            "unauthorized",
            "turn_failed",
        ),
        (
            {"kind": FAILED, "retryable": False, "message": "no such model"},
            "failed",
            "no such model",
        ),
    ],
)
def test_what_only_a_person_can_mend_is_blocked_and_not_retried(
    drive, issue, fields, category, error
):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.end(spec, thread_id="t1", session_id="t1-u1", last_event="x", **fields)
    (save,), (note,) = driver.of(SaveClaim), driver.of(Note)
    assert isinstance(save, SaveClaim)
    assert (save.kind, save.blocked_category, save.error) == ("blocked", category, error)
    assert (save.thread_id, save.since_wall) == ("t1", driver.wall)
    assert isinstance(note, Note)
    claim = driver.claim(one)
    assert isinstance(claim, Blocked)
    assert (claim.session_id, claim.last_event) == ("t1-u1", "x")
    assert driver.poll([one], [one]) == []
    assert isinstance(driver.claim(one), Blocked)


def test_a_run_stopped_by_an_operator_is_blocked(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.end(spec, OutcomeKind.CANCELLED, stop_reason=StopReason.OPERATOR)
    claim = driver.claim(one)
    assert isinstance(claim, Blocked)
    assert claim.category == "stopped_by_operator"


def test_a_run_that_cancelled_itself_for_a_finished_issue_is_cleaned(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.end(
        spec, OutcomeKind.CANCELLED, stop_reason=StopReason.TERMINAL, workspace_path="/w/A-1"
    )
    (clean,) = driver.of(CleanWorkspace)
    assert clean.workspace_path == "/w/A-1"
    assert isinstance(driver.claim(one), Cleaning)


# --- usage limits -----------------------------------------------------------------------------


def test_a_usage_limit_parks_all_dispatch_until_its_reset(drive, issue):
    """Field d.2/19: every issue ran into the same limit."""
    driver = drive(polling={"interval_ms": 600_000})
    one, two = issue("A-1"), issue("A-2")
    (spec,) = driver.start(one)
    driver.end(spec, FAILED, code="usageLimitExceeded", message="limit", retry_at=driver.wall + 90)
    assert driver.notes() == ["dispatch parked", "retry scheduled"]
    assert driver.poll([two]) == []
    assert driver.state.waiting[0][1].name is GateName.NOT_PARKED
    assert "limit" in driver.state.waiting[0][1].detail
    assert driver.wakes_in() == 90.0
    driver.wake(90)
    assert driver.notes() == ["dispatch resumes"]
    driver.show(RETRY, one)
    assert len(driver.started()) == 1
    assert len(driver.poll([two], [one])) == 1


def test_a_usage_limit_does_not_raise_the_attempt(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    spec = fail_again(driver, one, spec, message="fault")
    assert spec.attempt == 1
    driver.end(spec, FAILED, category="usage_limit_exceeded", retry_at=driver.wall + 500)
    assert (driver.retry(one).attempt, driver.retry(one).failures) == (1, 1)
    assert due_in(driver, one) == pytest.approx(500)


@pytest.mark.parametrize("retry_at", [None, 5.0])
def test_a_usage_limit_without_a_future_reset_parks_for_the_longest_backoff(drive, issue, retry_at):
    driver = drive()
    (spec,) = driver.start(issue("A-1"))
    driver.end(spec, FAILED, code="usageLimitExceeded", retry_at=retry_at, retryable=False)
    assert driver.state.park is not None
    assert driver.state.park.until_mono == driver.mono + 300


def test_the_longest_of_several_parks_holds_and_is_said_once(drive, issue):
    driver = drive()
    specs = driver.start(*[issue(f"A-{number}") for number in (1, 2, 3)])
    said = []
    for spec, wait in zip(specs, (100, 50, 200), strict=True):
        driver.end(spec, FAILED, code="usageLimitExceeded", retry_at=driver.wall + wait)
        said.append("dispatch parked" in driver.notes())
    assert said == [True, False, True]
    assert driver.state.park is not None
    assert driver.state.park.until_mono == driver.mono + 200


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


# --- due retries ------------------------------------------------------------------------------


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
        assert within(due_in(driver, one), nominal)
        assert driver.retry(one).shown_error == "retry poll failed: 502"
        assert driver.retry(one).attempt == 1
    driver.wake_at(driver.retry(one).due_mono)
    driver.fail(RETRY, "429", retry_after_s=1000.0)
    assert due_in(driver, one) == pytest.approx(1000)
    driver.wake(1001)
    driver.show(RETRY, one)
    assert driver.started()[0].previous_error == "fault"


def test_a_retry_prefers_its_host(drive, issue):
    driver = drive(worker={"ssh_hosts": ["a", "b"]})
    one, two = issue("A-1"), issue("A-2")
    _, second = driver.start(one, two)
    assert second.host == "b"
    spec = fail_again(driver, two, second, thread_id="t")
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
    assert within(due_in(driver, one), 10)


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


# --- fencing and totals -----------------------------------------------------------------------


def test_the_end_of_an_old_run_is_not_credited_to_its_successor(drive, issue):
    """Defect 19: updates were matched by issue alone."""
    driver = drive()
    one = issue("A-1")
    (old,) = driver.start(one)
    new = fail_again(driver, one, old, usage=TokenUsage(1, 2, 3), seconds=5.0)
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
    assert within(driver.wakes_in(), 10)
    driver.end(first)
    assert driver.wakes_in() == 1.0
    driver.wake(1)
    driver.show(RETRY, one)
    assert driver.wakes_in() == driver.retry(two).due_mono - driver.mono


def test_a_retry_shows_the_category_of_its_error_over_a_restart_too(drive, issue):
    driver, one = drive(), issue("A-1")
    (spec,) = driver.start(one)
    driver.end(spec, FAILED, category="turn_failed", message="out of paint")
    (saved,) = driver.of(SaveClaim)
    assert saved.blocked_category == "turn_failed"
    (row,) = build_snapshot(driver.state, {}, driver.now, sequence=1, rate_limits=None).retrying
    assert (row.category, row.error) == ("turn_failed", "out of paint")

    again = drive(seed=9)
    claim = RestoredClaim(
        "retry", one, 1, RetryKind.FAILURE, "out of paint", 5.0, blocked_category="turn_failed"
    )
    again.send(Restored(claims=(claim,)))
    assert again.retry(one).category == "turn_failed"


def test_a_continuation_has_no_category(drive, issue):
    driver, one = drive(), issue("A-1")
    (spec,) = driver.start(one)
    driver.end(spec, category="anything")
    assert driver.retry(one).category is None
