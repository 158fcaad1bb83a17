"""The snapshot's rows and totals (SPEC 13.3)."""

from __future__ import annotations

from symphony.model.run import OutcomeKind, Phase, RunProgress
from symphony.model.usage import TokenUsage
from symphony.scheduler.claims import NO_SLOTS
from symphony.scheduler.commands import RefreshPurpose
from symphony.scheduler.events import Restored, RestoredClaim, RunSilent, ShutdownRequested
from symphony.scheduler.publish import build_snapshot


def snapshot(driver, progress=()):
    records = {record.run_id: record for record in progress}
    return build_snapshot(driver.state, records, driver.now, sequence=1, rate_limits={"x": 1})


def record_of(driver, spec):
    return RunProgress(
        run_id=spec.run_id,
        issue=spec.issue,
        attempt=spec.attempt,
        host=spec.host,
        started_mono=driver.mono,
        started_wall=driver.wall,
        last_activity_mono=driver.mono,
    )


def test_totals_include_live_runs(drive, issue):
    """Defect 37: seconds_running left out what was running."""
    driver = drive()
    one, two = issue("A-1"), issue("A-2")
    first, second = driver.start(one, two)
    driver.end(first, usage=TokenUsage(1, 1, 2), seconds=10.0)
    record = record_of(driver, second)
    record.meter.report("t", TokenUsage(5, 5, 10))
    driver.advance(20)
    shown = snapshot(driver, [record])
    assert shown.usage == TokenUsage(6, 6, 12)
    assert shown.seconds_running == 30.0
    assert shown.running[0].usage == TokenUsage(5, 5, 10)
    assert shown.running[0].runtime_s == 20.0


def test_totals_do_not_fall_when_a_run_ends(drive, issue):
    driver = drive()
    (spec,) = driver.start(issue("A-1"))
    record = record_of(driver, spec)
    record.meter.report("t", TokenUsage(5, 5, 10))
    driver.advance(20)
    before = snapshot(driver, [record])
    driver.end(spec, usage=record.usage, seconds=20.0)
    after = snapshot(driver, [record])
    assert (after.usage, after.seconds_running) == (before.usage, before.seconds_running)


def test_a_running_row_shows_its_record_and_its_attempt(drive, issue):
    """Defect 39: attempts of running issues read as zero."""
    driver = drive()
    one = issue("A-1", url="https://tracker/A-1")
    (spec,) = driver.start(one)
    driver.end(spec, OutcomeKind.FAILED)
    driver.wake(10)
    driver.show(RefreshPurpose.RETRY, one)
    (spec,) = driver.started()
    record = record_of(driver, spec)
    record.phase = Phase.STREAMING_TURN
    record.thread_id, record.turn_id, record.turn_count = "t", "u", 2
    record.workspace_path, record.process_id = "/w/A-1", 42
    record.last_event, record.last_message = "turn/started", {"a": 1}
    (row,) = snapshot(driver, [record]).running
    assert (row.attempt, row.phase, row.session_id, row.turn_count) == (
        1,
        "StreamingTurn",
        "t-u",
        2,
    )
    assert (row.workspace_path, row.process_id, row.issue_url) == ("/w/A-1", 42, one.url)
    assert (row.last_event, row.last_message) == ("turn/started", {"a": 1})


def test_a_run_that_has_only_just_started_is_shown_without_a_record(drive, issue):
    driver = drive()
    (spec,) = driver.start(issue("A-1"))
    driver.advance(3)
    (row,) = snapshot(driver).running
    assert (row.run_id, row.phase, row.runtime_s) == (spec.run_id, "PreparingWorkspace", 3.0)
    assert row.stopping is None
    driver.send(RunSilent(spec.run_id, 999.0))
    assert snapshot(driver).running[0].stopping == "stalled"


def test_a_retry_row_shows_attempt_due_time_and_error(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.end(spec, OutcomeKind.FAILED, message="fault", workspace_path="/w/A-1")
    driver.advance(4)
    (row,) = snapshot(driver).retrying
    assert (row.attempt, row.retry_kind, row.error) == (1, "failure", "fault")
    assert 5 <= row.due_in_s <= 6
    assert abs(row.due_wall - driver.wall - row.due_in_s) < 1e-6
    assert (row.host, row.workspace_path, row.waiting_for_slot) == ("local", "/w/A-1", False)


def test_a_retry_stays_visible_while_the_tracker_is_asked_and_while_it_waits(drive, issue):
    driver = drive(agent={"max_concurrent_agents": 1})
    one, two = issue("A-1"), issue("A-2")
    claims = [
        RestoredClaim("running", entry, attempt=None, retry_kind=None, error=None)
        for entry in (one, two)
    ]
    driver.send(Restored(claims))
    assert [row.due_in_s for row in snapshot(driver).retrying] == [0.0, 0.0]
    driver.show(RefreshPurpose.RETRY, one, two)
    (row,) = snapshot(driver).retrying
    assert (row.attempt, row.error, row.waiting_for_slot) == (0, NO_SLOTS, True)


def test_a_blocked_row_shows_why_and_what_was_last_said(drive, issue):
    driver = drive()
    (spec,) = driver.start(issue("A-1"))
    driver.end(
        spec,
        OutcomeKind.INPUT_REQUIRED,
        message="which?",
        session_id="t-u",
        last_event="item/tool/requestUserInput",
    )
    (row,) = snapshot(driver).blocked
    assert (row.category, row.error, row.session_id) == ("input_required", "which?", "t-u")
    assert (row.blocked_wall, row.last_event) == (driver.wall, "item/tool/requestUserInput")


def test_polling_waiting_and_the_rest_of_the_head(drive, issue):
    driver = drive(agent={"max_concurrent_agents": 1})
    driver.send(Restored())
    shown = snapshot(driver)
    assert shown.polling.checking
    assert shown.polling.next_poll_in_s is None
    one, two = issue("A-1"), issue("A-2", url="u")
    driver.offer(one, two)
    assert snapshot(driver).running == ()
    driver.confirm(one)
    driver.advance(10)
    shown = snapshot(driver)
    assert (shown.polling.next_poll_in_s, shown.polling.interval_s) == (20.0, 30.0)
    (row,) = shown.waiting
    assert (row.issue_identifier, row.gate, row.issue_url) == ("A-2", "global_slot", "u")
    assert row.detail == "1 of 1 slots are taken"
    assert (shown.workflow_id, shown.sequence, shown.rate_limits) == ("wf", 1, {"x": 1})
    assert (shown.max_concurrent_agents, shown.shutting_down) == (1, False)
    driver.advance(100)
    assert snapshot(driver).polling.next_poll_in_s == 0.0


def test_cleaning_parking_and_shutdown_are_shown(drive, issue, moved):
    driver = drive()
    one, two = issue("A-1"), issue("A-2")
    first, second = driver.start(one, two)
    driver.end(first)
    driver.wake(1)
    driver.show(RefreshPurpose.RETRY, moved(one, "Done"))
    driver.end(
        second,
        OutcomeKind.FAILED,
        code="usageLimitExceeded",
        message="limit",
        retry_at=driver.wall + 60,
    )
    driver.send(ShutdownRequested())
    shown = snapshot(driver)
    assert shown.cleaning == ("A-1",)
    assert (shown.parked, shown.parked_until_wall) == ("limit", driver.wall + 60)
    assert shown.shutting_down


def test_a_failing_tracker_is_shown_as_such_and_not_as_a_bad_configuration(drive):
    """Defect 36: any configuration fault was reported as a failed fetch."""
    driver = drive()
    driver.send(Restored())
    driver.fail_candidates("502")
    shown = snapshot(driver)
    assert (shown.tracker_error, shown.config_error) == ("502", None)
