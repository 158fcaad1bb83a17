"""What keeps work from starting is told by every surface: API, page, terminal, status."""

from __future__ import annotations

import json
from dataclasses import replace
from types import ModuleType

import pytest

from symphony.cli.status import describe
from symphony.model.clock import Instant
from symphony.scheduler.snapshot import BreakerRow, HoldRow, HoursRow, ResourcesRow, Snapshot
from symphony.terminal.dashboard import Urls, render
from symphony.web import api
from symphony.web.pages import Pages


def breaker(snapshots: ModuleType, **changes: object) -> BreakerRow:
    fields = {
        "failure_class": "model",
        "state": "open",
        "why": "the model's provider fails",
        "failures": 5,
        "issues": 3,
        "since_wall": snapshots.WALL - 60,
        "until_wall": snapshots.WALL + 540,
        "cooldown_s": 600.0,
        "canary": None,
    }
    return BreakerRow(**{**fields, **changes})


def seen(snapshots: ModuleType, snapshot: Snapshot) -> list[str]:
    """What people read of a snapshot on each surface."""
    state = json.loads(api.encode(api.present_state(snapshot)))
    screen = render(
        snapshot, width=1000, now=Instant(snapshots.MONO, snapshots.WALL), urls=Urls()
    ).plain
    page = Pages().fragment(snapshot).replace("&#39;", "'")
    return [screen, page, "\n".join(describe(state))]


def test_what_is_wrong_with_webhooks_is_shown(snapshots: ModuleType) -> None:
    for text in seen(snapshots, snapshots.snapshot(webhook_error="none for 30 h")):
        assert "none for 30 h" in text


def test_a_run_that_is_being_ended_says_so(snapshots: ModuleType) -> None:
    row = snapshots.running("MT-5", stopping="operator")
    for text in seen(snapshots, snapshots.snapshot(running=(row,))):
        assert "operator" in text
        assert "stop" in text


def test_status_says_how_to_answer_what_waits_for_an_answer(snapshots: ModuleType) -> None:
    asked = snapshots.blocked("MT-7", unblock_by=("answer", "retry"))
    failed = snapshots.blocked("MT-8", unblock_by=("retry",))
    lines = seen(snapshots, snapshots.snapshot(blocked=(asked, failed)))[-1].splitlines()
    assert [("symphony answer" in line) for line in lines if "MT-" in line] == [True, False]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "nothing starts before 2030-03-17T17:55:40Z"),
        ({"state": "half_open", "canary": "MT-7"}, "MT-7 is tried alone"),
        ({"state": "half_open"}, "the next issue is tried alone"),
    ],
)
def test_an_open_breaker_is_shown_with_the_way_to_lift_it(
    snapshots: ModuleType, changes: dict[str, str], told: str
) -> None:
    row = breaker(snapshots, **changes)
    for text in seen(snapshots, snapshots.snapshot(breakers=(row,))):
        assert "5 failures of class model in 3 issues" in text
        assert told in text
        assert "symphony breaker reset model" in text


def test_without_a_limit_in_force_none_is_shown(snapshots: ModuleType) -> None:
    for text in seen(snapshots, snapshots.snapshot()):
        assert "breaker" not in text.lower()


def test_the_api_gives_the_breaker_in_parts(snapshots: ModuleType) -> None:
    row = breaker(snapshots, state="half_open", canary="MT-7")
    state = json.loads(api.encode(api.present_state(snapshots.snapshot(breakers=(row,)))))
    (shown,) = state["breakers"]
    assert "MT-7" in shown.pop("detail")
    assert shown == {
        "failure_class": "model",
        "state": "half_open",
        "failures": 5,
        "issues": 3,
        "since": "2030-03-17T17:45:40Z",
        "until": "2030-03-17T17:55:40Z",
        "cooldown_seconds": 600.0,
        "canary": "MT-7",
    }


def hours(snapshots: ModuleType, **changes: object) -> HoursRow:
    fields = {
        "is_open": False,
        "lets_start": False,
        "change_wall": snapshots.WALL + 600,
        "override_until_wall": None,
        "sentence": "outside agent.active_hours (Mon-Fri 08:00-18:00 UTC); nothing starts",
    }
    return HoursRow(**{**fields, **changes})


def test_closed_hours_are_shown_and_open_ones_are_not(snapshots: ModuleType) -> None:
    for text in seen(snapshots, snapshots.snapshot(hours=hours(snapshots))):
        assert "outside agent.active_hours (Mon-Fri 08:00-18:00 UTC)" in text
    for text in seen(snapshots, snapshots.snapshot(hours=hours(snapshots, is_open=True))):
        assert "active_hours" not in text


def test_the_api_gives_the_hours_in_parts(snapshots: ModuleType) -> None:
    row = hours(snapshots, lets_start=True, override_until_wall=snapshots.WALL + 60)
    state = json.loads(api.encode(api.present_state(snapshots.snapshot(hours=row))))
    shown = state["active_hours"]
    assert "outside" in shown.pop("detail")
    assert shown == {
        "open": False,
        "lets_start": True,
        "changes_at": "2030-03-17T17:56:40Z",
        "override_until": "2030-03-17T17:47:40Z",
    }
    plain = json.loads(api.encode(api.present_state(snapshots.snapshot())))
    assert plain["active_hours"] is None


def test_what_operators_hold_is_shown_with_the_way_to_lift_it(snapshots: ModuleType) -> None:
    hold = HoldRow(
        identifier=None, kind="pause", reason="lunch", by="ann", since_wall=snapshots.WALL
    )
    one = replace(hold, identifier="MT-7", reason="")
    for text in seen(snapshots, snapshots.snapshot(holds=(hold, one))):
        assert "ann paused all work at 2030-03-17T17:46:40Z: lunch" in text
        assert "lift it with: symphony resume" in text
        assert "MT-7" in text
    drained = seen(snapshots, snapshots.snapshot(holds=(replace(hold, kind="drain"),)))
    assert all("ann drained all work" in text for text in drained)


def test_a_usage_limit_is_shown_with_its_end_and_the_way_to_lift_it(snapshots: ModuleType) -> None:
    parked = snapshots.snapshot(parked="weekly limit", parked_until_wall=snapshots.WALL + 600)
    for text in seen(snapshots, parked):
        assert "until 2030-03-17T17:56:40Z: weekly limit" in text
        assert "symphony resume --park" in text


def test_what_can_not_be_read_is_shown(snapshots: ModuleType) -> None:
    faulty = snapshots.snapshot(config_error="polling: no map", tracker_error="no answer")
    for text in seen(snapshots, faulty):
        assert "polling: no map" in text
        assert "no answer" in text


def resources(**changes: object) -> ResourcesRow:
    fields = {
        "host": "box",
        "free_memory_mb": 100,
        "memory_limit": "machine",
        "free_disk_mb": 9000,
        "disk_path": "/srv",
        "memory_pressure": None,
        "shortage": "100 MiB of memory are free",
    }
    return ResourcesRow(**{**fields, **changes})


def test_a_short_host_is_shown_with_what_it_lacks(snapshots: ModuleType) -> None:
    for text in seen(snapshots, snapshots.snapshot(resources=(resources(),))):
        assert "100 MiB of memory are free" in text
        assert "box" in text
    for text in seen(snapshots, snapshots.snapshot(resources=(resources(shortage=None),))):
        assert "box" not in text


def test_the_api_gives_the_figures_of_a_host(snapshots: ModuleType) -> None:
    state = json.loads(api.encode(api.present_state(snapshots.snapshot(resources=(resources(),)))))
    assert state["resources"] == [
        {
            "host": "box",
            "free_memory_mb": 100,
            "memory_limit": "machine",
            "free_disk_mb": 9000,
            "disk_path": "/srv",
            "memory_pressure": None,
            "shortage": "100 MiB of memory are free",
        }
    ]


def test_lost_files_are_shown_everywhere(snapshots: ModuleType) -> None:
    lost = "the ledger was deleted under the running daemon"
    for text in seen(snapshots, snapshots.snapshot(lost=lost)):
        assert lost in text


def test_a_ledger_that_can_not_be_written_is_shown_everywhere(snapshots: ModuleType) -> None:
    for text in seen(snapshots, snapshots.snapshot(ledger_error="database or disk is full")):
        assert "database or disk is full" in text
