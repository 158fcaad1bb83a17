"""Incremental polls return what a whole read would, for any history of a list."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from symphony.errors import TrackerError
from symphony.trackers.http import Answer, Query
from symphony.trackers.rest_listing import Listing, ListQueries, Page, server_date

QUERIES = ListQueries(
    listed={"state": "open"},
    changed={"state": "all"},
    since="since",
    number="number",
    is_open=lambda record: record.get("state") == "open",
)


class World:
    """A list of issues behind pages of 100; ``during`` happens before the named page is made."""

    def __init__(self, count: int) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.records: dict[int, dict[str, Any]] = {}
        self.kept: dict[str, list[Any]] = {}
        self.fetched: list[str] = []
        self.during: dict[int, Any] = {}
        for _ in range(count):
            self.add()

    def stamp(self) -> str:
        return self.now.strftime("%Y-%m-%dT%H:%M:%SZ")

    def add(self) -> None:
        number = max(self.records, default=0) + 1
        moment = self.stamp()
        self.records[number] = {
            "number": number,
            "state": "open",
            "title": "",
            "created_at": moment,
            "updated_at": moment,
        }

    def change(self, number: int, **fields: Any) -> None:
        self.records[number] = {**self.records[number], "updated_at": self.stamp(), **fields}

    async def fetch(self, query: Query) -> Page:
        number = int(str(query["page"]))
        if "since" not in query and number in self.during:
            self.during.pop(number)()
        records = [
            record
            for record in self.records.values()
            if query["state"] in ("all", record["state"])
            and record["updated_at"] >= str(query.get("since", ""))
        ]
        page = records[(number - 1) * 100 : number * 100]
        key = str(sorted(query.items()))
        self.fetched.append(key)
        quiet, self.kept[key] = self.kept.get(key) == page, page
        return Page(page, number * 100 < len(records), self.now, quiet)

    def whole(self) -> list[Any]:
        return [record for record in self.records.values() if record["state"] == "open"]


def listing(world: World, **options: Any) -> Listing:
    options = {"clock": lambda: 0.0, "whole_pages": 1, **options}
    return Listing(world.fetch, QUERIES, code="test", **options)


def happen(world: World, event: tuple[str, int]) -> None:
    kind, choice = event
    numbers = list(world.records)
    number = numbers[choice % len(numbers)]
    if kind == "add":
        world.add()
    elif kind == "delete" and len(numbers) > 1:
        del world.records[number]
    elif kind == "close":
        world.change(number, state="closed")
    elif kind == "reopen":
        world.change(number, state="open")
    elif kind == "title":
        world.change(number, title=f"{choice}")
    elif kind == "wait":
        world.now += timedelta(seconds=choice % 200)


EVENTS = st.tuples(
    st.sampled_from(["add", "delete", "close", "reopen", "title", "wait"]), st.integers(0, 400)
)


@given(st.integers(95, 320), st.lists(st.lists(EVENTS, max_size=6), max_size=8))
@example(201, [[("delete", 0)]])
@example(200, [[("delete", 0), ("add", 0)], [("close", 5), ("delete", 7), ("reopen", 5)]])
@example(300, [[("close", 3)], [("reopen", 3), ("delete", 9)], [("title", 250)]])
@settings(max_examples=60, deadline=None)
async def test_a_poll_by_changes_returns_what_a_whole_read_would(
    count: int, history: list[list[tuple[str, int]]]
) -> None:
    world = World(count)
    world.now += timedelta(hours=1)
    subject = listing(world)
    assert await subject.read() == world.whole()
    for events in history:
        for event in events:
            happen(world, event)
        world.now += timedelta(seconds=30)
        assert await subject.read() == world.whole()


@given(
    st.integers(150, 320),
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from(["close", "title", "add"])), max_size=2),
    st.integers(0, 319),
)
@settings(max_examples=60, deadline=None)
async def test_what_happens_between_two_pages_loses_nobody(
    count: int, moments: list[tuple[int, str]], choice: int
) -> None:
    world = World(count)
    world.now += timedelta(hours=1)
    for page, kind in moments:
        world.during[page] = lambda kind=kind: happen(world, (kind, choice))
    subject = listing(world)
    found = {record["number"] for record in await subject.read()}
    # One that is added after the last page was read may come with the next poll.
    assert {record["number"] for record in world.whole()} - found <= {max(world.records)}
    world.now += timedelta(seconds=30)
    assert await subject.read() == world.whole()


async def test_a_quiet_long_list_costs_two_pages_that_did_not_change() -> None:
    world = World(950)
    world.now += timedelta(hours=1)
    subject = listing(world)
    await subject.read()
    world.fetched.clear()
    await subject.read()
    world.now += timedelta(hours=1)
    await subject.read()
    assert len(world.fetched) == 4
    assert len(set(world.fetched)) == 2, "the same questions, so that a 304 can answer them"


async def test_a_list_with_a_record_without_number_is_read_whole() -> None:
    world = World(150)
    world.now += timedelta(hours=1)
    subject = listing(world)
    world.records[7]["number"] = "x"
    # The first time, the changes since the first page are asked for too.
    for requests in (3, 2, 2):
        world.fetched.clear()
        assert len(await subject.read()) == 150
        assert len(world.fetched) == requests


async def test_a_failed_poll_is_followed_by_a_whole_read() -> None:
    world = World(250)
    world.now += timedelta(hours=1)
    subject = listing(world)
    await subject.read()

    def fail() -> None:
        raise TrackerError("tracker_request", "no route")

    world.during[3] = fail
    with pytest.raises(TrackerError):
        await subject.read()
    world.fetched.clear()
    assert await subject.read() == world.whole()
    assert len(world.fetched) == 3


async def test_pages_without_an_end_are_an_error() -> None:
    async def endless(query: Query) -> Page:
        return Page([{"number": 1}], True, None, False)

    with pytest.raises(TrackerError, match="more than 1000 pages") as caught:
        await Listing(endless, QUERIES, code="test", clock=lambda: 0.0).read()
    assert (caught.value.category, caught.value.code) == (
        "tracker_pagination",
        "test_endless_pages",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Thu, 01 Jan 2026 00:00:05 GMT", datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC)),
        ("Thu, 01 Jan 2026 00:00:05 -0000", datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC)),
        ("soon", None),
        ("", None),
    ],
)
def test_the_providers_clock_is_read(text: str, expected: datetime | None) -> None:
    assert server_date(Answer(200, {"date": text}, b"")) == expected
