"""What follows the end of a run (SPEC 7.3, 8.4, 16.6): retries, blocks, parks."""

from __future__ import annotations

from random import Random

import pytest

from symphony.model.run import OutcomeKind, RetryKind, StopReason
from symphony.scheduler.claims import Blocked, Cleaning
from symphony.scheduler.commands import (
    CleanWorkspace,
    Level,
    Note,
    RefreshIssues,
    RefreshPurpose,
    SaveClaim,
)
from symphony.scheduler.eligibility import GateName, Rules
from symphony.scheduler.events import (
    Restored,
    RestoredClaim,
)
from symphony.scheduler.publish import build_snapshot
from symphony.scheduler.retry import backoff_s

RETRY = RefreshPurpose.RETRY
FAILED = OutcomeKind.FAILED
INPUT_REQUIRED = OutcomeKind.INPUT_REQUIRED
APPROVAL_REQUIRED = OutcomeKind.APPROVAL_REQUIRED


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
        spec = driver.fail_again(one, spec, kind=OutcomeKind.COMPLETED)
        assert spec.attempt == 1


def test_failures_back_off_from_ten_seconds_doubling_to_the_cap(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    for attempt, nominal in enumerate((10, 20, 40, 80, 160, 300, 300), start=1):
        driver.end(spec, FAILED, category="port_exit", message=f"fault {attempt}")
        assert driver.within(driver.due_in(one), nominal)
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
    assert driver.within(driver.due_in(one), 4)


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
    assert driver.within(driver.due_in(one), 10)


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
    spec = driver.fail_again(one, spec)
    spec = driver.fail_again(one, spec)
    assert spec.attempt == 2
    spec = driver.fail_again(one, spec, kind=OutcomeKind.COMPLETED)
    assert (spec.attempt, spec.retry_kind) == (1, RetryKind.CONTINUATION)
    spec = driver.fail_again(one, spec)
    assert (spec.attempt, spec.retry_kind) == (1, RetryKind.FAILURE)


def test_a_thread_is_resumed_after_one_failure_and_left_after_a_second_in_a_row(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    spec = driver.fail_again(one, spec, thread_id="t1")
    assert spec.thread_id == "t1"
    spec = driver.fail_again(one, spec, thread_id="t1")
    assert spec.thread_id is None


def test_a_full_context_window_starts_a_new_thread(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    spec = driver.fail_again(one, spec, thread_id="t1", code="contextWindowExceeded")
    assert spec.thread_id is None
    assert spec.attempt == 1


def test_a_run_that_died_before_its_thread_keeps_the_one_it_was_to_resume(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    spec = driver.fail_again(one, spec, kind=OutcomeKind.COMPLETED, thread_id="t1")
    driver.end(spec, FAILED)
    assert driver.retry(one).thread_id == "t1"


def test_a_failure_with_a_time_waits_for_it_but_not_less_than_its_backoff(drive, issue):
    driver = drive()
    one, two = issue("A-1"), issue("A-2")
    first, second = driver.start(one, two)
    driver.end(first, FAILED, code="serverOverloaded", retry_at=driver.wall + 50)
    driver.end(second, FAILED, code="serverOverloaded", retry_at=driver.wall + 1)
    assert driver.due_in(one) == 50
    assert driver.within(driver.due_in(two), 10)
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
    spec = driver.fail_again(one, spec, message="fault")
    assert spec.attempt == 1
    driver.end(spec, FAILED, category="usage_limit_exceeded", retry_at=driver.wall + 500)
    assert (driver.retry(one).attempt, driver.retry(one).failures) == (1, 1)
    assert driver.due_in(one) == pytest.approx(500)


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
