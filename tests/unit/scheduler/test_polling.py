"""The poll cycle (SPEC 8.1) and refresh requests."""

from __future__ import annotations

import pytest

from symphony.model.run import OutcomeKind
from symphony.scheduler.commands import (
    FetchCandidates,
    FetchTerminal,
    Note,
    RefreshIssues,
    RefreshPurpose,
)
from symphony.scheduler.events import (
    CandidatesFetched,
    IssuesRefreshed,
    RefreshFailed,
    RefreshRequested,
    Restored,
    ShutdownRequested,
    WakeUp,
)
from symphony.scheduler.state import next_wakeup, refresh_coalesced

RECONCILE = RefreshPurpose.RECONCILE


def test_nothing_happens_before_the_ledger_was_read(drive):
    driver = drive()
    assert next_wakeup(driver.state) is None
    assert driver.send(WakeUp()) == []
    assert driver.send(RefreshRequested()) == []


def test_a_start_cleans_terminal_issues_and_polls_at_once(drive):
    driver = drive()
    terminal, poll = driver.send(Restored())
    assert terminal == FetchTerminal(terminal.cause, ("Done", "Cancelled"))
    assert poll == FetchCandidates(poll.cause, ("Todo", "In Progress"))
    assert next_wakeup(driver.state) is None


def test_a_start_without_terminal_states_asks_for_none(drive):
    driver = drive(tracker={"terminal_states": []})
    (poll,) = driver.send(Restored())
    assert isinstance(poll, FetchCandidates)


def test_the_next_poll_comes_one_interval_after_the_end_of_this_one(drive):
    driver = drive(polling={"interval_ms": 5000})
    driver.send(Restored())
    driver.advance(17)
    driver.offer()
    assert driver.wakes_in() == 5.0
    assert driver.wake(4.9) == []
    assert isinstance(driver.wake(0.1)[0], FetchCandidates)


def test_missed_ticks_are_not_made_up_for(drive):
    driver = drive(polling={"interval_ms": 5000})
    driver.start()
    driver.wake(60)
    assert len(driver.of(FetchCandidates)) == 1
    driver.offer()
    assert driver.wakes_in() == 5.0


def test_an_early_wake_up_does_no_harm_and_a_second_one_does_not_poll_twice(drive):
    driver = drive()
    driver.start()
    assert driver.wake() == []
    assert len(driver.wake(30)) == 1
    assert driver.wake() == []


def test_candidates_wait_for_the_reconcile_answer(drive, issue):
    driver = drive()
    one, two = issue("A-1"), issue("A-2")
    driver.start(one)
    driver.wake(30)
    assert [type(command) for command in driver.commands] == [RefreshIssues, FetchCandidates]
    assert driver.offer(one, two) == []
    (chosen,) = driver.show(RECONCILE, one)
    assert (chosen.purpose, chosen.ids) == (RefreshPurpose.DISPATCH, (two.id,))


def test_a_failed_reconcile_read_keeps_runs_and_lets_dispatch_go_on(drive, issue):
    driver = drive()
    one, two = issue("A-1"), issue("A-2")
    driver.start(one)
    driver.wake(30)
    driver.offer(one, two)
    driver.fail(RECONCILE, "no route")
    assert driver.stopped() == []
    assert driver.of(RefreshIssues)[0].ids == (two.id,)
    assert driver.state.tracker_error == "no route"


def test_without_anything_held_no_reconcile_read_is_made(drive):
    driver = drive()
    driver.start()
    assert [type(command) for command in driver.wake(30)] == [FetchCandidates]


def test_a_failed_candidates_read_skips_dispatch_until_the_next_poll(drive, issue):
    driver = drive()
    driver.send(Restored())
    driver.fail_candidates("401")
    assert driver.notes() == ["candidate fetch failed"]
    assert driver.state.tracker_error == "401"
    assert driver.wakes_in() == 30.0
    driver.wake_when_due()
    driver.offer(issue("A-1"))
    assert driver.state.tracker_error is None
    assert len(driver.of(RefreshIssues)) == 1


@pytest.mark.parametrize(("asked", "wait"), [(5.0, 30.0), (90.0, 90.0)])
def test_a_tracker_that_asks_for_patience_is_polled_no_earlier(drive, asked, wait):
    driver = drive()
    driver.send(Restored())
    driver.fail_candidates(retry_after_s=asked)
    assert driver.wakes_in() == wait


def test_every_failed_read_shows_and_its_wait_holds_for_polls_too(drive, issue):
    driver = drive()
    driver.send(Restored())
    driver.offer(issue("A-1"))
    driver.fail(RefreshPurpose.DISPATCH, "429", retry_after_s=120.0)
    assert driver.state.tracker_error == "429"
    assert driver.wakes_in() == 120.0


def test_a_wait_that_is_asked_for_during_a_poll_holds_after_it(drive, issue):
    driver = drive()
    (spec,) = driver.start(issue("A-1"))
    driver.end(spec)
    driver.wake(30)
    driver.fail(RefreshPurpose.RETRY, "429", retry_after_s=120.0)
    driver.offer()
    assert driver.state.poll.next_mono == driver.mono + 120


def test_a_refresh_request_does_not_break_the_tracker_s_wait(drive):
    driver = drive()
    driver.send(Restored())
    driver.fail_candidates(retry_after_s=90.0)
    assert driver.send(RefreshRequested()) == []
    assert driver.wakes_in() == 90.0


def test_a_refresh_request_polls_at_once_and_a_second_one_is_coalesced(drive):
    driver = drive()
    driver.start()
    assert not refresh_coalesced(driver.state, driver.now)
    assert len(driver.send(RefreshRequested())) == 1
    assert refresh_coalesced(driver.state, driver.now)
    assert driver.send(RefreshRequested()) == []


def test_a_refresh_is_coalesced_with_a_poll_that_is_due(drive):
    driver = drive()
    driver.start()
    driver.advance(30)
    assert refresh_coalesced(driver.state, driver.now)


def test_a_refresh_during_a_poll_brings_one_more_poll_right_after_it(drive):
    driver = drive()
    driver.start()
    driver.wake(30)
    driver.send(RefreshRequested())
    driver.send(RefreshRequested())
    assert [type(command) for command in driver.offer()] == [FetchCandidates]
    assert driver.offer() == []
    assert driver.wakes_in() == 30.0


def test_late_doubled_and_foreign_answers_are_dropped(drive, issue):
    driver = drive()
    driver.start(issue("A-1"))
    driver.wake(30)
    cause = driver.candidates_cause()
    driver.offer()
    driver.send(CandidatesFetched(cause, [issue("A-2")]))
    assert driver.notes() == ["late answer dropped"]
    # The shell logs fields by name; "event" is the name of the message itself.
    assert all("event" not in note.fields for note in driver.of(Note))
    reconcile = driver.refresh(RECONCILE)
    driver.send(CandidatesFetched(reconcile.cause, [issue("A-2")]))
    assert driver.notes() == ["late answer dropped"]
    driver.fail(RECONCILE)
    driver.send(IssuesRefreshed(reconcile.cause, []))
    assert driver.notes() == ["late answer dropped"]
    driver.send(RefreshFailed(reconcile.cause, "x", "x"))
    assert driver.notes() == ["late answer dropped"]


def test_a_second_restored_changes_nothing(drive, issue):
    driver = drive()
    driver.start(issue("A-1"))
    driver.send(Restored(seconds=99))
    assert driver.notes() == ["late answer dropped"]
    assert driver.state.seconds == 0


def test_candidates_are_read_though_no_slot_is_free_so_that_waiting_issues_show(drive, issue):
    driver = drive(agent={"max_concurrent_agents": 1})
    one, two = issue("A-1"), issue("A-2")
    driver.start(one, two)
    driver.poll([one, two], [one])
    ((waiting, gate),) = driver.state.waiting
    assert waiting is two
    assert gate.detail == "1 of 1 slots are taken"


def test_after_a_shutdown_request_no_poll_begins(drive, issue):
    driver = drive()
    (spec,) = driver.start(issue("A-1"))
    driver.wake(30)
    driver.send(ShutdownRequested())
    assert next_wakeup(driver.state) is None
    assert driver.wake(30) == []
    assert driver.send(RefreshRequested()) == []
    driver.end(spec, OutcomeKind.COMPLETED)
    assert next_wakeup(driver.state) is None
