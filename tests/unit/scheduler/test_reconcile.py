"""Held issues against what the tracker shows, and stalls (SPEC 8.5)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from symphony.model.run import OutcomeKind, RetryKind, StopReason
from symphony.scheduler.claims import Blocked, Cleaning, Running
from symphony.scheduler.commands import (
    CleanWorkspace,
    DropClaim,
    RefreshIssues,
    RefreshPurpose,
    StopRun,
)
from symphony.scheduler.eligibility import GateName
from symphony.scheduler.events import (
    ControlAction,
    ControlRequested,
    IssuesRefreshed,
    RefreshFailed,
    RunIssueChanged,
    RunSilent,
    SettingsChanged,
)

RECONCILE = RefreshPurpose.RECONCILE
CONFIRM = RefreshPurpose.CONFIRM_MISSING
RETRY = RefreshPurpose.RETRY
CANCELLED = OutcomeKind.CANCELLED


def reconcile(driver, *issues):
    """Have a cycle's reconcile read answered with these issues; return the stops it brought."""
    driver.state.poll.next_mono = driver.mono
    driver.wake()
    driver.show(RECONCILE, *issues)
    stops = driver.stopped()
    driver.offer()
    return stops


def running(driver, issue):
    claim = driver.claim(issue)
    assert isinstance(claim, Running)
    return claim


def test_an_active_issue_goes_on_and_its_snapshot_is_renewed(drive, issue, moved):
    driver = drive()
    one = issue("A-1")
    driver.start(one)
    assert reconcile(driver, moved(one, "In Progress")) == []
    assert running(driver, one).issue.state == "In Progress"
    assert driver.state.claims.slots.by_state == {"in progress": 1}


@pytest.mark.parametrize("in_force_fails", [False, True])
def test_issues_whose_tracker_can_not_be_read_stay_as_they_are_while_others_are_compared(
    drive, issue, moved, in_force_fails
):
    driver = drive()
    one, two = issue("A-1"), issue("A-2")
    driver.start(one, two)
    for _ in range(3):
        driver.state.poll.next_mono = driver.mono
        driver.wake()
        cause = driver.refresh(RECONCILE).cause
        failed = RefreshFailed(cause, "tracker_status", "HTTP 401") if in_force_fails else None
        shown = [moved(two, "Done")]
        driver.send(IssuesRefreshed(cause, shown, unread=frozenset({one.id}), failed=failed))
        driver.offer()
        assert (driver.state.tracker_error == "HTTP 401") is in_force_fails
        driver.advance(10)
    assert running(driver, one).stopping is None
    assert running(driver, one).missing_since is None
    assert running(driver, two).stopping is StopReason.TERMINAL


def test_a_retry_whose_tracker_can_not_be_read_waits(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.end(spec, OutcomeKind.FAILED)
    driver.wake(3_600)
    cause = driver.refresh(RETRY).cause
    driver.send(IssuesRefreshed(cause, [], unread=frozenset({one.id})))
    assert driver.claim(one).read_failures == 1


def test_a_terminal_issue_is_stopped_and_cleaned_only_after_its_run_has_ended(drive, issue, moved):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    assert reconcile(driver, moved(one, "Done")) == [(spec.run_id, StopReason.TERMINAL)]
    assert not any(isinstance(command, CleanWorkspace) for command in driver.history)
    driver.end(spec, CANCELLED, stop_reason=StopReason.TERMINAL, workspace_path="/w/A-1")
    (clean,) = driver.of(CleanWorkspace)
    assert clean.workspace_path == "/w/A-1"
    assert isinstance(driver.claim(one), Cleaning)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"state": "Review"}, StopReason.INACTIVE),
        ({"dispatchable": False}, StopReason.UNROUTABLE),
        ({"labels": ()}, StopReason.UNROUTABLE),
    ],
)
def test_an_issue_that_is_no_longer_ours_is_stopped_and_its_workspace_kept(
    drive, issue, change, reason
):
    driver = drive(tracker={"required_labels": ["agent"]})
    one = issue("A-1", labels=("agent",))
    (spec,) = driver.start(one)
    assert reconcile(driver, replace(one, **change)) == [(spec.run_id, reason)]
    assert reconcile(driver, replace(one, **change)) == []
    driver.end(spec, CANCELLED, stop_reason=reason)
    assert driver.commands[1] == DropClaim(one.id)
    assert driver.of(CleanWorkspace) == []
    assert driver.claim(one) is None


def test_a_stopped_issue_is_not_dispatched_before_its_run_has_ended(drive, issue):
    """Field d.1/1: the claim was dropped while the agent still ran in the workspace."""
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    reconcile(driver, replace(one, state="Review"))
    assert driver.poll([one], [one]) == []
    driver.end(spec, CANCELLED, stop_reason=StopReason.INACTIVE)
    assert len(driver.poll([one])) == 1


def test_the_reason_of_the_stop_counts_and_not_how_the_run_happened_to_end(drive, issue, moved):
    driver = drive()
    one, two = issue("A-1"), issue("A-2")
    first, second = driver.start(one, two)
    reconcile(driver, moved(one, "Done"), moved(two, "Review"))
    driver.end(first, OutcomeKind.COMPLETED)
    assert isinstance(driver.claim(one), Cleaning)
    driver.end(second, OutcomeKind.FAILED)
    assert driver.claim(two) is None


def test_an_issue_that_becomes_terminal_while_it_is_stopped_is_cleaned(drive, issue, moved):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    reconcile(driver, moved(one, "Review"))
    assert reconcile(driver, moved(one, "Done")) == []
    driver.end(spec, CANCELLED, stop_reason=StopReason.INACTIVE)
    assert isinstance(driver.claim(one), Cleaning)


def test_an_issue_that_is_reopened_while_it_is_stopped_keeps_its_workspace(drive, issue, moved):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    reconcile(driver, moved(one, "Done"))
    reconcile(driver, one)
    driver.end(spec, CANCELLED, stop_reason=StopReason.TERMINAL)
    assert driver.of(CleanWorkspace) == []
    assert driver.claim(one) is None


# --- missing issues ---------------------------------------------------------------------------


def test_a_missing_issue_is_stopped_only_when_a_second_read_lacks_it_too(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    assert reconcile(driver) == []
    assert running(driver, one).missing_since == driver.mono
    assert driver.wake(4.9) == []
    (read,) = driver.wake(0.1)
    assert read == RefreshIssues(read.cause, CONFIRM, (one.id,))
    driver.show(CONFIRM)
    assert driver.stopped() == [(spec.run_id, StopReason.MISSING)]
    driver.end(spec, CANCELLED, stop_reason=StopReason.MISSING)
    assert driver.commands[1] == DropClaim(one.id)
    assert driver.of(CleanWorkspace) == []


def test_an_empty_answer_for_many_runs_stops_none_of_them(drive, issue):
    driver = drive()
    board = [issue(f"A-{number}") for number in range(1, 6)]
    driver.start(*board)
    assert reconcile(driver) == []
    driver.wake(5)
    driver.show(CONFIRM, *board)
    assert driver.stopped() == []
    assert all(running(driver, one).missing_since is None for one in board)
    assert reconcile(driver) == []


def test_a_partial_answer_stops_none_of_the_runs_that_it_lacks(drive, issue):
    """Defect 20: a partial response made healthy runs look gone."""
    driver = drive()
    one, two = issue("A-1"), issue("A-2")
    driver.start(one, two)
    assert reconcile(driver, two) == []
    assert reconcile(driver, one) == []
    assert running(driver, one).missing_since is None
    assert running(driver, two).missing_since == driver.mono


def test_fast_polls_during_a_short_fault_do_not_confirm_each_other(drive, issue):
    driver = drive(polling={"interval_ms": 1000})
    one = issue("A-1")
    driver.start(one)
    for _ in range(5):
        assert reconcile(driver) == []
        driver.advance(0.9)
    assert reconcile(driver, one) == []
    assert running(driver, one).missing_since is None


def test_a_cycle_that_comes_late_enough_is_the_second_read(drive, issue):
    driver = drive(polling={"interval_ms": 3000})
    one = issue("A-1")
    (spec,) = driver.start(one)
    assert reconcile(driver) == []
    assert driver.wakes_in() == 3.0
    driver.wake(5)
    assert not driver.has_refresh(CONFIRM)
    driver.show(RECONCILE)
    assert driver.stopped() == [(spec.run_id, StopReason.MISSING)]


def test_a_slow_second_read_does_not_confirm_a_lack_that_began_after_it_was_issued(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    reconcile(driver)
    driver.wake(5)
    driver.send(RunIssueChanged(spec.run_id, one))
    driver.advance(25)
    assert reconcile(driver) == []
    since = running(driver, one).missing_since
    assert since == driver.mono
    driver.advance(1)
    driver.show(CONFIRM)
    assert driver.stopped() == []
    assert running(driver, one).missing_since == since


def test_a_failed_second_read_stops_nothing_and_leaves_it_to_the_next_cycle(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    reconcile(driver)
    driver.wake(5)
    driver.fail(CONFIRM)
    assert driver.notes() == ["second read of missing issues failed"]
    assert reconcile(driver) == [(spec.run_id, StopReason.MISSING)]


def test_a_read_that_was_issued_before_the_first_lack_confirms_nothing(drive, issue):
    driver = drive()
    one, two = issue("A-1"), issue("A-2")
    driver.start(one, two)
    reconcile(driver, two)
    driver.wake(5)
    driver.advance(1)
    assert reconcile(driver, one) == []
    driver.show(CONFIRM)
    assert driver.stopped() == []
    assert running(driver, one).missing_since == driver.mono


def test_a_run_that_sees_its_issue_itself_is_no_longer_missing(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    reconcile(driver)
    driver.send(RunIssueChanged(spec.run_id, one))
    assert driver.wake(5) == []
    assert running(driver, one).missing_since is None


def test_a_missing_issue_whose_run_has_ended_is_not_read_a_second_time(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    reconcile(driver)
    driver.end(spec)
    (read,) = driver.wake(5)
    assert read.purpose is RETRY


def test_an_answer_for_a_run_that_ended_meanwhile_changes_nothing(drive, issue, moved):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.wake(30)
    driver.end(spec, OutcomeKind.FAILED)
    driver.show(RECONCILE, moved(one, "Done"))
    assert driver.retry(one).retry_kind is RetryKind.FAILURE


# --- blocked issues and waiting retries -------------------------------------------------------


def block(driver, issue):
    (spec,) = driver.start(issue)
    driver.end(spec, OutcomeKind.INPUT_REQUIRED, workspace_path="/w/A-1")


@pytest.mark.parametrize("change", [{"state": "Review"}, {"dispatchable": False}])
def test_a_blocked_issue_that_is_no_longer_ours_is_released(drive, issue, change):
    driver = drive()
    one = issue("A-1")
    block(driver, one)
    driver.wake(30)
    assert driver.show(RECONCILE, replace(one, **change))[0] == DropClaim(one.id)
    assert driver.claim(one) is None


def test_a_blocked_issue_that_is_terminal_is_cleaned(drive, issue, moved):
    driver = drive()
    one = issue("A-1")
    block(driver, one)
    driver.wake(30)
    driver.show(RECONCILE, moved(one, "Done"))
    (clean,) = driver.of(CleanWorkspace)
    assert clean.workspace_path == "/w/A-1"


def test_a_blocked_issue_that_is_active_stays_blocked(drive, issue, moved):
    driver = drive()
    one = issue("A-1")
    block(driver, one)
    assert driver.poll([one], [moved(one, "In Progress")]) == []
    claim = driver.claim(one)
    assert isinstance(claim, Blocked)
    assert claim.issue.state == "In Progress"


def test_a_missing_blocked_issue_is_released_by_a_second_read(drive, issue):
    driver = drive()
    one = issue("A-1")
    block(driver, one)
    reconcile(driver)
    assert isinstance(driver.claim(one), Blocked)
    driver.wake(5)
    assert driver.show(CONFIRM)[0] == DropClaim(one.id)


def test_reads_of_two_scopes_together_do_not_release_a_blocked_issue(drive, issue, settings):
    driver = drive()
    one = issue("A-1")
    block(driver, one)
    reconcile(driver)
    driver.wake(5)
    driver.send(SettingsChanged(settings(tracker={"provider": {"board": "other"}})))
    driver.wake(1)
    driver.show(RECONCILE)
    assert isinstance(driver.claim(one), Blocked)
    driver.offer()
    driver.wake(5)
    assert driver.show(CONFIRM)[0] == DropClaim(one.id)


def test_a_blocked_issue_that_shows_up_again_is_no_longer_missing(drive, issue):
    driver = drive()
    one = issue("A-1")
    block(driver, one)
    reconcile(driver)
    driver.wake(5)
    driver.show(CONFIRM, one)
    assert driver.wake(1) == []
    claim = driver.claim(one)
    assert isinstance(claim, Blocked)
    assert claim.missing_since is None


@pytest.mark.parametrize(
    ("change", "released"),
    [({"state": "Done"}, False), ({"state": "Review"}, True), ({"title": "Other"}, False)],
)
def test_a_retry_that_waits_for_a_slot_is_reconciled(drive, issue, change, released):
    driver = drive(agent={"max_concurrent_agents": 1})
    one, two = issue("A-1"), issue("A-2")
    (spec,) = driver.start(one)
    driver.end(spec, OutcomeKind.FAILED)
    driver.poll([two])
    driver.wake(10)
    driver.show(RETRY, one)
    changed = replace(one, **change)
    reconcile(driver, changed, two)
    claim = driver.claim(one)
    assert (claim is None) == released
    assert isinstance(claim, Cleaning) == (change == {"state": "Done"})
    if change == {"title": "Other"}:
        assert driver.retry(one).issue is changed


def held_retry(driver, issue):
    """A failed run whose retry is due while all work is paused."""
    (spec,) = driver.start(issue)
    driver.end(spec, OutcomeKind.FAILED)
    driver.send(ControlRequested(ControlAction.PAUSE))
    driver.wake(10)
    driver.show(RETRY, issue)
    assert driver.retry(issue).hold.name is GateName.NOT_HELD


def test_a_held_retry_whose_issue_is_gone_is_released_by_a_second_read(drive, issue):
    """What a person has deleted must not stay on the list for as long as work is held."""
    driver = drive()
    one = issue("A-1")
    held_retry(driver, one)
    reconcile(driver)
    assert driver.retry(one).missing_since == driver.mono
    driver.wake(5)
    assert driver.show(CONFIRM)[0] == DropClaim(one.id)
    assert driver.claim(one) is None


def test_a_held_retry_that_shows_up_again_is_no_longer_missing(drive, issue):
    driver = drive()
    one = issue("A-1")
    held_retry(driver, one)
    reconcile(driver)
    driver.wake(5)
    driver.show(CONFIRM, one)
    assert driver.retry(one).missing_since is None
    reconcile(driver)
    assert driver.retry(one).missing_since == driver.mono


def test_a_retry_that_is_not_due_is_left_to_its_own_read(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.poll(held=[one])
    driver.state.poll.next_mono = driver.mono
    driver.wake()
    driver.end(spec, OutcomeKind.FAILED)
    driver.show(RECONCILE)
    assert driver.retry(one).missing_since is None
    driver.wake(10)
    assert driver.show(RETRY)[0] == DropClaim(one.id)


# --- a change of the tracker ------------------------------------------------------------------


def other_tracker(settings):
    return SettingsChanged(settings(tracker={"kind": "memory", "provider": {"board": "other"}}))


def test_a_change_of_the_tracker_does_not_kill_runs_that_it_does_not_know(drive, issue, settings):
    """Defect 29: the new tracker was asked about old ids and its silence ended all runs."""
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.send(other_tracker(settings))
    assert driver.of(RefreshIssues)[0].purpose is RECONCILE
    driver.show(RECONCILE)
    driver.offer()
    assert reconcile(driver) == []
    assert running(driver, one).missing_since is None
    driver.end(spec)
    driver.wake(1)
    assert driver.show(RETRY)[0] == DropClaim(one.id)


def test_another_issue_of_the_same_id_in_the_new_tracker_is_not_the_one_that_runs(
    drive, issue, settings
):
    driver = drive()
    one = issue("A-1")
    driver.start(one)
    driver.send(other_tracker(settings))
    stranger = replace(one, identifier="B-7", state="Done")
    driver.show(RECONCILE, stranger)
    assert driver.stopped() == []
    assert running(driver, one).issue is one


@pytest.mark.parametrize("kind", [OutcomeKind.COMPLETED, OutcomeKind.INPUT_REQUIRED])
def test_an_issue_of_the_same_id_does_not_inherit_what_the_former_tracker_left(
    drive, issue, settings, kind
):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.end(spec, kind, thread_id="t")
    driver.send(other_tracker(settings))
    stranger = replace(one, identifier="B-7")
    if kind is OutcomeKind.COMPLETED:
        driver.offer()
        driver.wake(1)
        driver.show(RETRY, stranger)
    else:
        driver.show(RECONCILE, stranger)
        driver.offer()
        driver.wake(5)
        driver.show(CONFIRM, stranger)
    assert driver.of(DropClaim) == [DropClaim(one.id)]
    (fresh,) = driver.poll([stranger])
    assert (fresh.issue.identifier, fresh.thread_id) == ("B-7", None)


def test_a_renamed_issue_goes_on_under_its_id(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    renamed = replace(one, identifier="B-7")
    assert reconcile(driver, renamed) == []
    assert running(driver, one).issue is renamed
    driver.end(spec)
    driver.wake(1)
    driver.show(RETRY, replace(one, identifier="C-1"))
    assert driver.started()[0].issue.identifier == "C-1"


def test_a_run_that_the_changed_tracker_still_shows_is_reconciled_again(drive, issue, settings):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.send(other_tracker(settings))
    driver.show(RECONCILE, one)
    driver.offer()
    reconcile(driver)
    driver.wake(5)
    driver.show(CONFIRM)
    assert driver.stopped() == [(spec.run_id, StopReason.MISSING)]


def test_answers_of_the_former_tracker_do_not_count(drive, issue, moved, settings):
    driver = drive()
    one, two, three = issue("A-1"), issue("A-2"), issue("A-3")
    first, _ = driver.start(one, two)
    driver.end(first)
    driver.wake(1)
    driver.wake(29)
    assert driver.send(other_tracker(settings)) == []
    driver.show(RECONCILE, moved(two, "Done"))
    assert driver.stopped() == []
    (next_reconcile, _next_candidates) = driver.offer(three)
    assert next_reconcile.purpose is RECONCILE
    assert driver.show(RETRY, moved(one, "Done")) == []
    assert driver.wakes_in() == 0.0
    assert driver.wake()[0].ids == (one.id,)


def test_choices_from_the_former_tracker_are_not_started(drive, issue, settings):
    driver = drive()
    one = issue("A-1")
    driver.start()
    driver.wake(30)
    driver.offer(one)
    driver.send(other_tracker(settings))
    assert driver.confirm(one) == []
    assert driver.claim(one) is None


# --- stalls -----------------------------------------------------------------------------------


def test_a_stalled_run_keeps_its_claim_and_backs_off(drive, issue):
    """Defect 2: the claim was lost and the issue started again in the same cycle."""
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.send(RunSilent(spec.run_id, 300.5))
    assert driver.stopped() == [(spec.run_id, StopReason.STALLED)]
    assert driver.poll([one], [one]) == []
    driver.end(spec, OutcomeKind.STALLED, stop_reason=StopReason.STALLED, workspace_path="/w/A-1")
    retry = driver.retry(one)
    assert (retry.attempt, retry.retry_kind) == (1, RetryKind.FAILURE)
    assert retry.error == "stalled for 300500ms without codex activity"
    assert retry.workspace_path == "/w/A-1"
    assert 9 <= retry.due_mono - driver.mono <= 10
    assert driver.poll([one], [one]) == []


@pytest.mark.parametrize(("timeout_ms", "silent_s"), [(300_000, 300.0), (0, 9999.0), (-1, 9999.0)])
def test_silence_within_the_limit_or_without_a_limit_is_no_stall(
    drive, issue, timeout_ms, silent_s
):
    driver = drive(codex={"stall_timeout_ms": timeout_ms})
    (spec,) = driver.start(issue("A-1"))
    assert driver.send(RunSilent(spec.run_id, silent_s)) == []


def test_a_stop_that_had_no_effect_is_given_again_for_the_same_reason(drive, issue, moved):
    driver = drive()
    one, other = issue("A-1"), issue("A-2")
    (stalled, left) = driver.start(one, other)
    driver.send(RunSilent(stalled.run_id, 301.0))
    assert driver.send(RunSilent(stalled.run_id, 361.0)) == [
        StopRun(stalled.run_id, StopReason.STALLED)
    ]
    reconcile(driver, one, moved(other, "Review"))
    assert driver.send(RunSilent(left.run_id, 301.0)) == [StopRun(left.run_id, StopReason.INACTIVE)]
    assert driver.send(RunSilent("unknown", 302.0)) == []


def test_a_run_that_asks_for_input_while_it_is_stopped_for_a_stall_is_blocked(drive, issue):
    """Field d.2/23: sessions that waited for a person were restarted as stalled."""
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.send(RunSilent(spec.run_id, 301.0))
    driver.end(spec, OutcomeKind.INPUT_REQUIRED, message="which?")
    assert isinstance(driver.claim(one), Blocked)


def test_a_run_that_completes_while_it_is_stopped_for_a_stall_is_continued(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.send(RunSilent(spec.run_id, 301.0))
    driver.end(spec, OutcomeKind.COMPLETED)
    assert driver.retry(one).retry_kind is RetryKind.CONTINUATION


def test_a_stalled_issue_that_turns_out_terminal_is_cleaned(drive, issue, moved):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.send(RunSilent(spec.run_id, 301.0))
    assert reconcile(driver, moved(one, "Done")) == []
    driver.end(spec, OutcomeKind.STALLED, stop_reason=StopReason.STALLED)
    assert isinstance(driver.claim(one), Cleaning)


def test_a_stalled_run_of_a_missing_issue_is_not_stopped_twice(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.send(RunSilent(spec.run_id, 301.0))
    for _ in range(3):
        reconcile(driver)
        driver.advance(10)
    stops = [command for command in driver.history if isinstance(command, StopRun)]
    assert len(stops) == 1


def test_a_snapshot_of_another_run_or_issue_is_not_taken_over(drive, issue):
    driver = drive()
    one, two = issue("A-1"), issue("A-2")
    (spec,) = driver.start(one)
    driver.send(RunIssueChanged("other", replace(one, state="Done")))
    driver.send(RunIssueChanged(spec.run_id, two))
    assert running(driver, one).issue is one
