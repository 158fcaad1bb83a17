"""Outside the active hours nothing starts; the loop wakes up when they open."""

from __future__ import annotations

import pytest

from symphony.model.run import OutcomeKind
from symphony.scheduler.claims import Running
from symphony.scheduler.commands import EndAfterTurn, RefreshPurpose, SaveOverride
from symphony.scheduler.eligibility import GateName
from symphony.scheduler.events import (
    ControlAction,
    ControlRequested,
    IssuesRefreshed,
    Override,
    Restored,
    SettingsChanged,
)
from symphony.scheduler.publish import build_snapshot, explain
from symphony.scheduler.state import next_wakeup

HOUR_S = 3600.0
LONG = {"interval_ms": 10**9}


@pytest.fixture
def daemon(drive):
    """It is Thursday, 2026-01-01 00:00 UTC; without a poll of its own for a long time."""

    def daemon(*hours, polling=LONG, **agent):
        agent = {"active_hours": list(hours), "active_hours_timezone": "UTC", **agent}
        return drive(polling=polling, agent=agent, codex={"stall_timeout_ms": 0})

    return daemon


def shut(driver, issue):
    return [gate.name for gate in explain(driver.state, issue) if not gate.passed]


def row(driver):
    return build_snapshot(driver.state, {}, driver.now, sequence=1, rate_limits=None).hours


def override(driver, minutes):
    order = ControlAction.OVERRIDE_HOURS
    return driver.send(ControlRequested(order, by="ann", for_s=minutes * 60.0))


def test_outside_the_hours_nothing_starts_and_the_gate_says_when_it_will(daemon, issue):
    driver = daemon("Mon-Fri 08:00-18:00")
    assert driver.start(issue("A-1")) == []
    (gate,) = [gate for gate in explain(driver.state, issue("A-1")) if not gate.passed]
    assert gate.name is GateName.HOURS
    assert "Mon-Fri 08:00-18:00 UTC" in gate.detail
    assert "nothing starts before 2026-01-01T08:00:00Z" in gate.detail
    assert "symphony hours override" in gate.detail
    assert driver.notes() == []


def test_a_start_outside_the_hours_is_told_once(daemon):
    driver = daemon("Mon-Fri 08:00-18:00")
    driver.send(Restored())
    assert "active hours: nothing starts" in driver.notes()
    driver.wake(60.0)
    assert driver.notes() == []


def test_the_loop_wakes_up_when_they_open_and_what_waited_starts(daemon, issue):
    driver = daemon("Mon-Fri 08:00-18:00", polling={"interval_ms": 30_000})
    driver.start(issue("A-1"))
    driver.state.poll.next_mono = driver.mono + 1e6
    assert next_wakeup(driver.state) == pytest.approx(driver.mono + 8 * HOUR_S)
    driver.wake_when_due()
    assert "active hours: work may start again" in driver.notes()
    assert shut(driver, issue("A-1")) == []


def test_what_runs_at_the_end_of_the_day_goes_on_but_does_not_continue(daemon, issue):
    driver = daemon("00:00-01:00")
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.wake_when_due()
    assert driver.of(EndAfterTurn) == []
    assert driver.stopped() == []
    assert isinstance(driver.claim(one), Running)

    driver.end(spec)
    driver.wake(2.0)
    driver.show(RefreshPurpose.RETRY, one)

    assert driver.started() == []
    assert driver.retry(one).hold.name is GateName.HOURS
    driver.wake_when_due()
    assert driver.wall % 86_400 == 0
    driver.send(IssuesRefreshed(driver.refresh(RefreshPurpose.RETRY).cause, [one]))
    assert [spec.attempt for spec in driver.started()] == [1]


def test_drained_after_hours_runs_end_after_their_turn(daemon, issue):
    driver = daemon("00:00-01:00", after_hours="drain")
    (spec,) = driver.start(issue("A-1"))
    driver.wake_when_due()
    assert driver.of(EndAfterTurn) == [EndAfterTurn(spec.run_id)]


def test_a_failure_after_hours_waits_too(daemon, issue):
    driver = daemon("00:00-01:00")
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.wake_when_due()
    driver.end(spec, OutcomeKind.FAILED, category="turn_failed")
    driver.wake(20.0)
    driver.show(RefreshPurpose.RETRY, one)
    assert driver.started() == []
    assert driver.retry(one).attempt == 1


def test_a_wall_clock_that_is_set_is_followed_with_the_next_event(daemon, issue):
    driver = daemon("08:00-18:00")
    driver.start()
    driver.wall += 9 * HOUR_S
    driver.wake()
    assert shut(driver, issue("A-1")) == []
    assert next_wakeup(driver.state) == pytest.approx(driver.mono + 9 * HOUR_S)
    driver.wall -= 9 * HOUR_S
    driver.wake()
    assert shut(driver, issue("A-1")) == [GateName.HOURS]
    assert next_wakeup(driver.state) == pytest.approx(driver.mono + 8 * HOUR_S)


def test_a_small_step_of_the_clock_moves_the_wake_up(daemon):
    driver = daemon("08:00-18:00")
    driver.start()
    driver.wall -= 5.0
    driver.wake()
    driver.wall += 8.0
    driver.wake()
    assert next_wakeup(driver.state) == pytest.approx(driver.mono + 8 * HOUR_S - 3.0)


def test_an_override_lets_work_start_until_its_time_is_up(daemon, issue):
    driver = daemon("08:00-18:00")
    driver.start(issue("A-1"))

    override(driver, 30)

    (saved,) = driver.of(SaveOverride)
    assert saved.override == Override(driver.wall, driver.wall + 1800.0)
    driver.offer(issue("A-1"))
    assert len(driver.confirm(issue("A-1"))) == 1
    assert (row(driver).is_open, row(driver).lets_start) == (False, True)
    assert "let go on until 2026-01-01T00:30:00Z by order" in row(driver).sentence
    driver.wake_when_due()
    assert driver.wall % 86_400 == 1800.0
    assert shut(driver, issue("A-2")) == [GateName.HOURS]


def test_an_override_can_be_ended(daemon, issue):
    driver = daemon("08:00-18:00")
    driver.start()
    override(driver, 30)
    override(driver, 0)
    assert driver.of(SaveOverride) == [SaveOverride(None)]
    assert shut(driver, issue("A-1")) == [GateName.HOURS]


def test_a_restart_keeps_what_is_left_of_an_override(daemon, issue):
    driver = daemon("08:00-18:00")
    given = Override(driver.wall - 600.0, driver.wall + 600.0)
    driver.send(Restored(override=given))
    assert shut(driver, issue("A-1")) == []
    driver.wake(600.0)
    assert shut(driver, issue("A-1")) == [GateName.HOURS]


@pytest.mark.parametrize("shift_s", [-1200.0, 0.0])
def test_an_override_that_is_over_is_not_restored(daemon, issue, shift_s):
    driver = daemon("08:00-18:00")
    given = Override(driver.wall + shift_s - 600.0, driver.wall + shift_s)
    driver.send(Restored(override=given))
    assert shut(driver, issue("A-1")) == [GateName.HOURS]


def test_an_override_is_no_longer_than_given_whatever_the_clock_does(daemon, issue):
    driver = daemon("08:00-18:00")
    given = Override(driver.wall + 80_000.0, driver.wall + 80_600.0)
    driver.send(Restored(override=given))
    driver.wake(601.0)
    assert shut(driver, issue("A-1")) == [GateName.HOURS]


def test_a_changed_setting_counts_at_once(daemon, issue, settings):
    driver = daemon("08:00-18:00")
    driver.start()
    driver.send(SettingsChanged(settings()))
    assert shut(driver, issue("A-1")) == []
    assert row(driver) is None
    closed = {"active_hours": ["08:00-18:00"], "active_hours_timezone": "UTC"}
    driver.send(SettingsChanged(settings(agent=closed)))
    assert shut(driver, issue("A-1")) == [GateName.HOURS]


def test_hours_that_never_change_need_no_wake_up(daemon):
    driver = daemon("00:00-24:00")
    driver.start()
    assert next_wakeup(driver.state) == driver.state.poll.next_mono
    assert row(driver).change_wall is None
