"""The watch tells the scheduler what is news, and the operator what can't be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import structlog

from symphony.config.places import Places
from symphony.engine.conditions import TELL_EVERY, ConditionWatch
from symphony.model.resources import HostResources
from symphony.scheduler.eligibility import ResourceRules
from symphony.scheduler.events import PlacesChecked, ResourcesRead

RULES = ResourceRules(100, 100, None)


class Desk:
    """A host whose figures the test sets."""

    def __init__(self, file: Path) -> None:
        self.found = HostResources(host="local", free_memory_mb=500, free_disk_mb=500)
        self.posted: list[object] = []
        self.watch = ConditionWatch(
            resources=self._read,
            rules=lambda: RULES,
            places=Places({"the ledger": file}),
            post=self.posted.append,
        )

    async def _read(self) -> HostResources:
        return self.found

    async def look(self, times: int = 1) -> list[object]:
        self.posted.clear()
        for _ in range(times):
            await self.watch.look()
        return list(self.posted)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "ledger"
    made.touch()
    return made


@pytest.fixture
def desk(file: Path) -> Desk:
    return Desk(file)


async def test_the_first_figures_are_told_and_then_only_now_and_then(desk: Desk) -> None:
    assert await desk.look() == [ResourcesRead(desk.found)]
    assert await desk.look(TELL_EVERY - 1) == []
    assert await desk.look() == [ResourcesRead(desk.found)]


async def test_a_change_of_the_verdict_is_told_at_once(desk: Desk) -> None:
    await desk.look()
    desk.found = HostResources(host="local", free_memory_mb=99)
    assert await desk.look() == [ResourcesRead(desk.found)]
    desk.found = HostResources(host="local", free_memory_mb=105)
    assert await desk.look() == []
    desk.found = HostResources(host="local", free_memory_mb=111)
    assert await desk.look() == [ResourcesRead(desk.found)]


async def test_lost_files_are_told_once_and_so_is_their_return(desk: Desk, file: Path) -> None:
    await desk.look()
    aside = file.with_name("aside")
    os.rename(file, aside)
    (event,) = await desk.look()
    assert isinstance(event, PlacesChecked)
    assert "the ledger" in str(event.lost)
    assert await desk.look() == []
    os.rename(aside, file)
    assert await desk.look() == [PlacesChecked(None)]


async def test_what_can_not_be_read_is_warned_of_once_where_a_limit_needs_it(desk: Desk) -> None:
    faults = ("free disk at /srv: no", "memory pressure (/proc/pressure/memory): no")
    desk.found = HostResources(host="local", faults=faults)
    with structlog.testing.capture_logs() as logs:
        await desk.look(3)
    assert [entry["problem"] for entry in logs] == ["free disk at /srv: no"]
