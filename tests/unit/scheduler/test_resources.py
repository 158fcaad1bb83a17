"""A host that lacks memory or disk gets no agent; a daemon without its files starts none."""

from __future__ import annotations

import pytest

from symphony.model.resources import HostResources
from symphony.scheduler.claims import Running
from symphony.scheduler.commands import RefreshPurpose
from symphony.scheduler.eligibility import GateName
from symphony.scheduler.events import PlacesChecked, ResourcesRead, Restored, SettingsChanged
from symphony.scheduler.publish import build_snapshot, explain
from symphony.scheduler.resources import SETTLED_S

LIMITS = {"min_free_memory_mb": 300, "min_free_disk_mb": 500, "max_memory_pressure": 20}


def figures(host="local", **changes):
    plenty = {"free_memory_mb": 9000, "free_disk_mb": 9000, "memory_pressure": 0.0}
    return ResourcesRead(HostResources(host=host, disk_path="/srv", **{**plenty, **changes}))


def shut(driver, issue):
    return [(gate.name, gate.detail) for gate in explain(driver.state, issue) if not gate.passed]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"free_memory_mb": 299}, "299 MiB of memory are free (machine), worker.min_free_memory"),
        ({"free_disk_mb": 499}, "499 MiB of disk are free at /srv, worker.min_free_disk_mb is 500"),
        ({"memory_pressure": 20.5}, "20.5 % of the time, worker.max_memory_pressure is 20"),
    ],
)
def test_too_little_of_anything_stops_new_starts_with_the_numbers(drive, issue, changes, told):
    driver = drive(worker=LIMITS)
    (spec,) = driver.start(issue("A-1"))

    driver.send(figures(**changes))

    assert driver.notes() == ["host is short: nothing starts there"]
    assert driver.poll([issue("A-2")], held=[issue("A-1")]) == []
    ((name, detail),) = shut(driver, issue("A-2"))
    assert name is GateName.RESOURCES
    assert told in detail
    assert driver.stopped() == []
    assert isinstance(driver.claim(spec.issue), Running)


@pytest.mark.parametrize(
    "changes",
    [
        {"free_memory_mb": 300, "free_disk_mb": 500, "memory_pressure": 20.0},
        {"free_memory_mb": None, "free_disk_mb": None, "memory_pressure": None},
    ],
)
def test_enough_or_unknown_lets_work_start(drive, issue, changes):
    driver = drive(worker=LIMITS)
    driver.send(figures(**changes))
    assert len(driver.start(issue("A-1"))) == 1


def test_limits_of_zero_check_nothing(drive, issue):
    driver = drive(worker={"min_free_memory_mb": 0, "min_free_disk_mb": 0})
    driver.send(figures(free_memory_mb=-5, free_disk_mb=0, memory_pressure=99.0))
    assert len(driver.start(issue("A-1"))) == 1


def test_a_host_that_was_short_needs_a_tenth_more_to_open_again(drive, issue):
    driver = drive(worker=LIMITS)
    driver.send(figures(free_memory_mb=290))
    driver.start(issue("A-1"))
    driver.send(figures(free_memory_mb=329))
    assert shut(driver, issue("A-1"))
    assert driver.notes() == []
    driver.send(figures(free_memory_mb=330))
    assert driver.notes() == ["host has resources again"]
    assert len(driver.poll([issue("A-1")])) == 1


def test_a_due_retry_waits_for_resources_and_then_starts_at_once(drive, issue):
    driver = drive(worker=LIMITS)
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.end(spec)
    driver.send(figures(free_disk_mb=10))
    driver.wake(1.5)
    driver.show(RefreshPurpose.RETRY, one)
    assert driver.retry(one).hold.name is GateName.RESOURCES
    driver.send(figures())
    driver.show(RefreshPurpose.RETRY, one)
    assert len(driver.started()) == 1


def test_changed_limits_judge_the_known_figures(drive, issue, settings):
    driver = drive(worker=LIMITS)
    driver.send(figures(free_memory_mb=400))
    driver.start()
    driver.send(SettingsChanged(settings(worker={"min_free_memory_mb": 500})))
    assert shut(driver, issue("A-1"))
    driver.send(SettingsChanged(settings(worker={"min_free_memory_mb": 100})))
    assert not shut(driver, issue("A-1"))


def test_a_short_host_is_left_out_while_others_have_room(drive, issue):
    driver = drive(worker={**LIMITS, "ssh_hosts": ["a", "b"], "max_concurrent_agents_per_host": 1})
    driver.send(figures("a", free_memory_mb=10))
    specs = driver.start(issue("A-1"), issue("A-2"))
    assert [spec.host for spec in specs] == ["b"]
    ((name, detail),) = shut(driver, issue("A-2"))
    assert name is GateName.HOST_SLOT
    assert "lack resources (a)" in detail
    driver.send(figures("b", free_disk_mb=10))
    ((name, detail),) = shut(driver, issue("A-2"))
    assert name is GateName.RESOURCES
    assert detail.startswith("a: 10 MiB of memory")


def test_a_daemon_without_its_files_starts_nothing_until_they_are_there_again(drive, issue):
    driver = drive()
    (spec,) = driver.start(issue("A-1"))
    driver.send(PlacesChecked("the state directory was deleted; start anew"))
    assert driver.notes() == ["the daemon has lost its files"]
    assert shut(driver, issue("A-2")) == [
        (GateName.PLACES, "the state directory was deleted; start anew")
    ]
    assert isinstance(driver.claim(spec.issue), Running)
    view = build_snapshot(driver.state, {}, driver.now, sequence=1, rate_limits=None)
    assert view.lost == "the state directory was deleted; start anew"
    driver.send(PlacesChecked("the state directory was deleted; start anew"))
    assert driver.notes() == []
    driver.send(PlacesChecked(None))
    assert shut(driver, issue("A-2")) == []


def test_the_figures_are_shown_with_what_is_short(drive):
    driver = drive(worker=LIMITS)
    driver.start()
    driver.send(figures(free_disk_mb=10))
    (row,) = build_snapshot(driver.state, {}, driver.now, sequence=1, rate_limits=None).resources
    assert (row.host, row.free_memory_mb, row.free_disk_mb) == ("local", 9000, 10)
    assert "10 MiB of disk" in row.shortage


MANY = [f"A-{number}" for number in range(1, 11)]


def test_starts_of_one_step_share_what_is_free(drive, issue):
    driver = drive(worker={"min_free_memory_mb": 300, "agent_memory_mb": 100})
    driver.send(figures(free_memory_mb=650))

    started = driver.start(*map(issue, MANY))

    # At 650, 550, 450 and 350 MiB another one may start, at 250 none may.
    assert len(started) == 4
    ((name, detail),) = shut(driver, issue("A-5"))
    assert name is GateName.RESOURCES
    assert "650 MiB of memory are free (machine) less 400 for agents that have just" in detail
    assert "(100 each), worker.min_free_memory_mb is 300" in detail
    assert driver.notes() == []


def test_disk_is_shared_out_likewise(drive, issue):
    driver = drive(worker={"min_free_disk_mb": 500, "agent_disk_mb": 200})
    driver.send(figures(free_disk_mb=800))
    assert len(driver.start(*map(issue, MANY))) == 2
    ((_, detail),) = shut(driver, issue("A-5"))
    assert "800 MiB of disk are free at /srv less 400 for agents" in detail


def test_a_reading_that_shows_the_starts_lets_the_next_ones_begin_at_once(drive, issue):
    driver = drive(worker={"min_free_memory_mb": 300, "agent_memory_mb": 100})
    issues = list(map(issue, MANY))
    driver.send(figures(free_memory_mb=650))
    driver.start(*issues)

    driver.advance(SETTLED_S / 2)
    driver.send(figures(free_memory_mb=650))
    # They are seen in part: half of their need still counts as taken.
    assert driver.wakes_in() == 0
    driver.wake()
    driver.show(RefreshPurpose.RECONCILE, *issues)
    driver.offer(*issues)
    assert len(driver.confirm(*issues)) == 2

    driver.advance(SETTLED_S)
    driver.send(figures(free_memory_mb=250))
    assert driver.notes() == ["host is short: nothing starts there"]
    assert not driver.state.resources.reserves


def test_what_agents_are_seen_to_use_counts_where_it_is_more_than_the_setting(drive, issue):
    driver = drive(worker={"min_free_memory_mb": 300, "agent_memory_mb": 100})
    driver.send(figures(free_memory_mb=650, agent_memory_mb=200))
    assert len(driver.start(*map(issue, MANY))) == 2


def test_an_estimate_of_zero_reserves_nothing(drive, issue):
    driver = drive(worker={"min_free_memory_mb": 300, "agent_memory_mb": 0, "agent_disk_mb": 0})
    driver.send(figures(free_memory_mb=301, free_disk_mb=513, agent_memory_mb=200))
    assert len(driver.start(*map(issue, MANY))) == len(MANY)


def test_a_start_that_comes_to_nothing_gives_back_what_it_had_reserved(drive, issue):
    driver = drive(worker={"min_free_memory_mb": 300, "agent_memory_mb": 100})
    issues = list(map(issue, MANY))
    driver.send(figures(free_memory_mb=310))
    driver.send(Restored())
    driver.offer(*issues)
    assert shut(driver, issues[5])

    driver.fail(RefreshPurpose.DISPATCH)

    assert shut(driver, issues[5]) == []
    assert not driver.state.resources.reserves
