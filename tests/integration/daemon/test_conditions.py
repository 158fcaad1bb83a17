"""A daemon whose disk is short or whose files go away starts nothing and says what to do."""

from __future__ import annotations

import shutil
from typing import Any

from .conftest import Place

HANGING = [[{"hang": True}]]


def first_waiting(place: Place) -> dict[str, Any] | None:
    waiting = (place.state() or {}).get("waiting")
    return waiting[0] if waiting else None


async def test_a_disk_that_is_too_full_holds_work_back_until_there_is_room(place: Place) -> None:
    place.configure(worker={"min_free_disk_mb": 2**40})
    place.script(turns=HANGING)
    issue = place.board.add("Needs room").identifier
    await place.start()

    row = await place.until(lambda: first_waiting(place))

    assert row["gate"] == "host_resources"
    assert "MiB of disk are free at" in row["detail"]
    assert place.starts() == []
    assert "worker.min_free_disk_mb" in place.command("explain", issue, status=1)
    assert place.state()["resources"][0]["shortage"]
    assert "host is short: nothing starts there" in place.log()

    place.configure(worker={"min_free_disk_mb": 1})
    assert issue in await place.until(lambda: place.rows("running"))
    assert place.state()["resources"][0]["shortage"] is None


async def test_a_deleted_workspace_root_stops_new_starts_and_what_runs_goes_on(
    place: Place,
) -> None:
    place.script(turns=HANGING)
    first = place.board.add("Runs").identifier
    await place.start()
    await place.until(lambda: place.rows("running").get(first, {}).get("turn_count"))

    shutil.rmtree(place.root / "workspaces")
    problem = await place.until(lambda: (place.state() or {}).get("problems", {}).get("places"))
    place.board.add("Waits")
    row = await place.until(lambda: first_waiting(place))

    assert "the workspace root" in problem
    assert "stop this daemon" in problem
    assert row["gate"] == "places_present"
    assert list(place.rows("running")) == [first]
    assert "the daemon has lost its files" in place.log()
    assert await place.stop() == 0


async def test_a_deleted_state_directory_is_told_and_the_daemon_still_stops_in_order(
    place: Place,
) -> None:
    place.script(turns=HANGING)
    place.board.add("Runs")
    await place.start()
    await place.until(lambda: place.rows("running"))

    shutil.rmtree(place.root / "state")

    await place.until(lambda: "the daemon has lost its files" in place.log())
    assert "the state directory" in place.log()
    assert await place.stop() == 0
    await place.until(lambda: not place.processes())
