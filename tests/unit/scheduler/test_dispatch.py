"""From candidate to run: claims, slots, the confirming read (SPEC 8.2, 8.3, 16.4)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from symphony.model.run import OutcomeKind
from symphony.scheduler.claims import Dispatching, Running
from symphony.scheduler.commands import CleanWorkspace, RefreshIssues, RefreshPurpose, StartRun
from symphony.scheduler.dispatch import WAITING_LIMIT
from symphony.scheduler.eligibility import GateName
from symphony.scheduler.events import (
    CleanupEnded,
    ConfigBroken,
    ConfigRepaired,
    Restored,
    RestoredClaim,
    RunIssueChanged,
    SettingsChanged,
    TerminalFailed,
    TerminalFetched,
)
from symphony.scheduler.publish import explain
from symphony.scheduler.state import Asked

DISPATCH = RefreshPurpose.DISPATCH


def waiting(driver):
    return {issue.identifier: gate.name for issue, gate in driver.state.waiting}


def test_an_eligible_issue_is_confirmed_by_one_read_and_started(drive, issue):
    driver = drive()
    one = issue("A-1")
    driver.send(Restored())
    (read,) = driver.offer(one)
    assert read == RefreshIssues(read.cause, DISPATCH, (one.id,))
    assert isinstance(driver.claim(one), Dispatching)
    fresher = replace(one, title="Better title")
    (start,) = driver.show(DISPATCH, fresher)
    assert isinstance(start, StartRun)
    assert start.spec.issue is fresher
    assert start.spec.attempt is None
    assert start.spec.retry_kind is None
    assert start.spec.host == "local"
    assert isinstance(driver.claim(one), Running)


def test_all_choices_of_a_poll_share_one_read_in_dispatch_order(drive, issue):
    driver = drive(agent={"max_concurrent_agents": 3})
    board = [issue("A-4"), issue("A-2"), issue("A-3", priority=1), issue("A-1")]
    driver.send(Restored())
    (read,) = driver.offer(*board)
    assert read.ids == ("id-A-3", "id-A-1", "id-A-2")
    assert waiting(driver) == {"A-4": GateName.GLOBAL_SLOT}
    assert [spec.issue.identifier for spec in driver.confirm(*board)] == ["A-3", "A-1", "A-2"]


def test_slots_of_chosen_issues_are_taken_before_their_read_is_answered(drive, issue):
    driver = drive(agent={"max_concurrent_agents": 1})
    driver.send(Restored())
    driver.offer(issue("A-1"))
    driver.wake(30)
    assert driver.offer(issue("A-1"), issue("A-2")) == []
    assert waiting(driver) == {"A-2": GateName.GLOBAL_SLOT}


def test_an_issue_that_is_listed_twice_starts_once(drive, issue):
    driver = drive()
    assert len(driver.start(issue("A-1"), issue("A-1"))) == 1


def test_an_issue_that_waits_is_shown_once_though_it_is_listed_twice(drive, issue):
    driver = drive()
    driver.start(issue("A-1", dispatchable=False), issue("A-1", dispatchable=False))
    assert len(driver.state.waiting) == 1


def test_the_limit_of_a_state_bounds_it_and_leaves_others_alone(drive, issue):
    driver = drive(agent={"max_concurrent_agents_by_state": {"Todo": 1}})
    started = driver.start(issue("A-1"), issue("A-2"), issue("A-3", state="In Progress"))
    assert [spec.issue.identifier for spec in started] == ["A-1", "A-3"]
    assert waiting(driver) == {"A-2": GateName.STATE_SLOT}
    (gate,) = [gate for gate in explain(driver.state, issue("A-2")) if not gate.passed]
    assert gate.detail == "1 of 1 slots of state 'Todo' are taken"


def test_the_state_limit_is_checked_again_when_the_confirming_read_changes_the_state(
    drive, issue, moved
):
    """Defect 17: the refreshed state was used without a slot of its own."""
    driver = drive(agent={"max_concurrent_agents_by_state": {"in progress": 1}})
    one, two = issue("A-1"), issue("A-2")
    driver.send(Restored())
    driver.offer(one, two)
    started = driver.confirm(moved(one, "In Progress"), moved(two, "In Progress"))
    assert [spec.issue.identifier for spec in started] == ["A-1"]
    assert driver.claim(two) is None
    assert driver.notes() == ["not dispatched after all"]
    assert waiting(driver)["A-2"] is GateName.STATE_SLOT


def test_a_run_that_moved_to_another_state_frees_the_slot_of_the_first(drive, issue, moved):
    driver = drive(agent={"max_concurrent_agents_by_state": {"todo": 1}})
    one, two = issue("A-1"), issue("A-2")
    (spec,) = driver.start(one, two)
    driver.send(RunIssueChanged(spec.run_id, moved(one, "In Progress")))
    assert len(driver.poll([two], [moved(one, "In Progress")])) == 1


@pytest.mark.parametrize(
    "change",
    [{"state": "Review"}, {"state": "Done"}, {"dispatchable": False}, {"labels": ()}],
)
def test_an_issue_that_changed_before_its_start_is_released_quietly(drive, issue, change):
    driver = drive(tracker={"required_labels": ["agent"]})
    one = issue("A-1", labels=("agent",))
    driver.send(Restored())
    driver.offer(one)
    assert driver.confirm(replace(one, **change)) == []
    assert driver.claim(one) is None
    assert driver.notes() == ["not dispatched after all"]
    assert len(driver.poll([one])) == 1


def test_an_issue_that_vanished_before_its_start_is_released(drive, issue):
    driver = drive()
    driver.send(Restored())
    driver.offer(issue("A-1"))
    assert driver.confirm() == []
    assert len(driver.state.claims) == 0


def test_a_failed_confirming_read_releases_its_issues_and_the_next_poll_tries_again(drive, issue):
    driver = drive()
    one = issue("A-1")
    driver.send(Restored())
    driver.offer(one)
    driver.fail(DISPATCH)
    assert driver.notes() == ["dispatch refresh failed"]
    assert len(driver.state.claims) == 0
    assert driver.state.claims.slots.total == 0
    assert len(driver.poll([one])) == 1


def test_lowered_limits_hold_for_issues_whose_read_is_in_flight(drive, issue, settings):
    driver = drive()
    one, two = issue("A-1"), issue("A-2")
    driver.send(Restored())
    driver.offer(one, two)
    driver.send(SettingsChanged(settings(agent={"max_concurrent_agents": 1})))
    # A-1's own slot counts as free, A-2's reservation does not: one of the two gives way.
    assert len(driver.confirm(one, two)) == 1
    assert driver.state.claims.slots.total == 1


def test_a_broken_configuration_stops_dispatch_but_not_reconciliation(drive, issue, moved):
    driver = drive()
    one, two = issue("A-1"), issue("A-2")
    driver.start(one)
    driver.send(ConfigBroken("line 3 is bad"))
    assert len(driver.notes()) == 1
    assert driver.send(ConfigBroken("line 3 is bad")) == []
    assert driver.poll([two], [moved(one, "Review")]) == []
    claim = driver.claim(one)
    assert isinstance(claim, Running)
    assert claim.stopping is not None
    assert waiting(driver) == {"A-2": GateName.CONFIG}
    driver.send(ConfigRepaired())
    assert driver.notes() == ["configuration is valid again"]
    assert driver.send(ConfigRepaired()) == []
    assert len(driver.poll([two], [moved(one, "Review")])) == 1


def test_waiting_issues_are_kept_up_to_a_bound(drive, issue):
    driver = drive(agent={"max_concurrent_agents": 1})
    driver.start(*[issue(f"A-{number}") for number in range(WAITING_LIMIT + 50)])
    assert len(driver.state.waiting) == WAITING_LIMIT
    assert driver.state.waiting[0][0].identifier == "A-1"


def test_choosing_ends_when_the_slots_are_gone(drive, issue):
    """Defect 56: the reference went on through all candidates."""
    driver = drive(agent={"max_concurrent_agents": 2})
    driver.start(*[issue(f"A-{number}") for number in range(3 * WAITING_LIMIT)])
    assert len(driver.state.claims) == 2
    assert len(driver.state.waiting) == WAITING_LIMIT


def test_runs_are_spread_over_hosts_within_their_limit(drive, issue):
    driver = drive(worker={"ssh_hosts": ["a", " b ", "a"], "max_concurrent_agents_per_host": 1})
    started = driver.start(*[issue(f"A-{number}") for number in (1, 2, 3)])
    assert [spec.host for spec in started] == ["a", "b"]
    assert waiting(driver) == {"A-3": GateName.HOST_SLOT}
    gate = driver.state.waiting[0][1]
    assert gate.detail == "all 2 hosts run 1 agents"


def test_terminal_issues_found_at_start_are_cleaned_and_then_free(drive, issue):
    driver = drive()
    done, todo = issue("A-1", state="Done"), issue("A-2")
    driver.send(Restored())
    (cause,) = [
        cause for cause, pending in driver.state.pending.items() if pending.asked is Asked.TERMINAL
    ]
    (clean,) = driver.send(TerminalFetched(cause, [done, todo]))
    assert clean == CleanWorkspace(clean.cause, done, None, "local")
    assert driver.claim(todo) is None
    assert driver.offer(replace(done, state="Todo")) == []
    driver.send(CleanupEnded(clean.cause, done.id))
    assert driver.claim(done) is None
    driver.send(CleanupEnded(clean.cause, done.id))
    assert driver.notes() == ["late answer dropped"]
    assert len(driver.poll([replace(done, state="Todo")])) == 1


def test_a_terminal_issue_with_a_claim_is_left_to_its_own_way_out(drive, issue):
    driver = drive()
    done = issue("A-1", state="Done")
    claim = RestoredClaim("blocked", done, attempt=None, retry_kind=None, error="which?")
    driver.send(Restored([claim]))
    (cause,) = [
        cause for cause, pending in driver.state.pending.items() if pending.asked is Asked.TERMINAL
    ]
    assert driver.send(TerminalFetched(cause, [done])) == []
    driver.show(RefreshPurpose.RECONCILE, done)
    assert len(driver.of(CleanWorkspace)) == 1


def test_a_failed_terminal_read_is_a_warning_and_the_start_goes_on(drive, issue):
    driver = drive()
    driver.send(Restored())
    (cause,) = [
        cause for cause, pending in driver.state.pending.items() if pending.asked is Asked.TERMINAL
    ]
    driver.send(TerminalFailed(cause, "tracker_status", "500"))
    assert driver.notes() == ["clean-up of finished issues skipped"]
    driver.send(TerminalFetched(cause, [issue("A-1", state="Done")]))
    assert driver.notes() == ["late answer dropped"]
    assert len(driver.offer(issue("A-2"))) == 1


def test_run_ids_differ_between_runs_and_between_lifetimes(drive, issue):
    first = drive(seed=1).start(issue("A-1"), issue("A-2"))
    second = drive(seed=2).start(issue("A-1"), issue("A-2"))
    assert len({spec.run_id for spec in (*first, *second)}) == 4


def test_the_same_events_bring_the_same_commands(drive, issue):
    def lifetime():
        driver = drive(seed=3)
        (spec,) = driver.start(issue("A-1"))
        driver.end(spec, OutcomeKind.FAILED, message="x")
        return driver.history

    assert lifetime() == lifetime()


def test_a_run_without_reason_to_rest_leaves_no_trace_after_release(drive, issue):
    """Defect 57 and field d.1/2: a set of finished or claimed ids grew for ever."""
    driver = drive()
    for number in range(1, 20):
        one = issue(f"A-{number}")
        (spec,) = driver.poll([one]) if driver.state.started else driver.start(one)
        driver.end(spec)
        driver.wake(1)
        driver.show(RefreshPurpose.RETRY)
    assert len(driver.state.claims) == 0
    assert not driver.state.claims.slots.by_state
    assert not driver.state.claims.contending
    assert {pending.asked for pending in driver.state.pending.values()} <= {Asked.TERMINAL}
