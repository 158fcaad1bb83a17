"""Look-ups of single issues: what they answer, and that they can't wear a tracker out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from symphony.engine.lookup import BURST, FRESH_S, REFILL_S, IssueLookup
from symphony.errors import TrackerError
from symphony.model.issue import Issue, IssueId
from symphony.trackers.memory import MemoryTracker


class Clock:
    def __init__(self) -> None:
        self.mono = 100.0

    def __call__(self) -> float:
        return self.mono


def make_issue(name: str) -> Issue:
    return Issue(id=IssueId(name), identifier=name, title=name, state="Done", dispatchable=True)


def make_lookup(
    tracker: MemoryTracker,
    clock: Clock,
    *,
    not_before: Callable[[], float] = lambda: 0.0,
    limit_s: float = 8.0,
) -> IssueLookup:
    return IssueLookup(tracker=lambda: tracker, mono=clock, not_before=not_before, limit_s=limit_s)


async def test_those_who_ask_at_the_same_moment_share_one_read() -> None:
    tracker = MemoryTracker([make_issue("A-1")])
    lookup = make_lookup(tracker, Clock())
    found = await asyncio.gather(*(lookup.find("A-1") for _ in range(20)))
    assert [issue.identifier for issue in found if issue] == ["A-1"] * 20
    assert tracker.reads == 1


async def test_an_answer_is_asked_for_again_once_it_is_old() -> None:
    tracker, clock = MemoryTracker([make_issue("A-1")]), Clock()
    lookup = make_lookup(tracker, clock)
    assert await lookup.find("A-2") is None
    tracker.put(make_issue("A-2"))
    clock.mono += FRESH_S
    assert await lookup.find("A-2") is not None


async def test_a_name_that_can_be_none_asks_nobody() -> None:
    tracker = MemoryTracker()
    lookup = make_lookup(tracker, Clock())
    assert await lookup.find("  ") is None
    assert await lookup.find("A" * 10_000) is None
    assert tracker.reads == 0


async def test_many_questions_are_refused_with_the_time_to_wait_before_the_tracker_does() -> None:
    tracker, clock = MemoryTracker(), Clock()
    lookup = make_lookup(tracker, clock)
    for number in range(BURST):
        await lookup.find(f"A-{number}")
    with pytest.raises(TrackerError) as caught:
        await lookup.find("A-99")
    assert caught.value.category == "tracker_rate_limited"
    assert f"ask again in {REFILL_S:.0f} s" in caught.value.message
    assert tracker.reads == BURST
    clock.mono += REFILL_S
    assert await lookup.find("A-99") is None
    assert tracker.reads == BURST + 1


async def test_a_tracker_that_asked_to_be_left_alone_is_not_asked() -> None:
    tracker, clock = MemoryTracker(), Clock()
    lookup = make_lookup(tracker, clock, not_before=lambda: 130.0)
    with pytest.raises(TrackerError, match="left alone for 30 s more"):
        await lookup.find("A-1")
    assert tracker.reads == 0
    clock.mono = 130.0
    assert await lookup.find("A-1") is None


async def test_a_tracker_that_hangs_ends_the_question_and_not_the_next_one() -> None:
    class Hanging(MemoryTracker):
        hangs = True

        async def fetch_issue(self, name: str) -> Issue | None:
            if self.hangs:
                await asyncio.Event().wait()
            return await super().fetch_issue(name)

    tracker = Hanging([make_issue("A-1")])
    lookup = make_lookup(tracker, Clock(), limit_s=0.02)
    with pytest.raises(TrackerError, match=r"has not answered within 0\.02 s"):
        await lookup.find("A-1")
    tracker.hangs = False
    assert await lookup.find("A-1") is not None
