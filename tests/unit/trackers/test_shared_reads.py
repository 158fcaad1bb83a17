"""Reads by id of many runs, in few requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from symphony.errors import TrackerError
from symphony.model.issue import Issue, IssueId
from symphony.trackers.memory import MemoryTracker
from symphony.trackers.shared_reads import AT_ONCE, SharedReads

NAMES = ["A", "B", "C", "D", "E", "F"]


def make_issue(name: str) -> Issue:
    return Issue(id=IssueId(name), identifier=name, title=name, state="Todo", dispatchable=True)


class HeldTracker(MemoryTracker):
    """Answers when it is told to; ``asked`` are the requests so far, ``ended`` those given up."""

    def __init__(self, *, malformed: str | None = None, names: Sequence[str] = NAMES) -> None:
        super().__init__([make_issue(name) for name in names])
        self.asked: list[list[str]] = []
        self.ended = 0
        self.answers = asyncio.Semaphore(0)
        self._came = asyncio.Condition()
        self._malformed = malformed
        self.fault: Exception | None = None

    async def fetch_issues_by_ids(self, ids: Sequence[IssueId]) -> list[Issue]:
        async with self._came:
            self.asked.append(list(ids))
            self._came.notify_all()
        try:
            await self.answers.acquire()
        except asyncio.CancelledError:
            self.ended += 1
            raise
        if self.fault is not None:
            raise self.fault
        if self._malformed in ids:
            said = f"{self._malformed} has no title"
            raise TrackerError("tracker_response", said, of_one_issue=True)
        return await super().fetch_issues_by_ids(ids)

    async def came(self, count: int) -> None:
        async with self._came:
            await self._came.wait_for(lambda: len(self.asked) >= count)

    def answer_all(self) -> None:
        for _ in range(100):
            self.answers.release()


@asynccontextmanager
async def asking(
    tracker: HeldTracker, names: Sequence[str]
) -> AsyncIterator[list[asyncio.Task[list[Issue]]]]:
    """Read each by itself; the first ones are under way before the next are asked."""
    async with asyncio.TaskGroup() as tasks:
        reads = SharedReads(tasks)
        asked: list[asyncio.Task[list[Issue]]] = []
        for name in names:
            asked.append(asyncio.ensure_future(reads.read(tracker, [IssueId(name)])))
            if len(asked) <= AT_ONCE:
                await tracker.came(len(asked))
        yield asked
        await asyncio.wait(asked)


async def test_reads_gather_while_two_requests_are_under_way_and_go_together() -> None:
    tracker = HeldTracker()
    async with asking(tracker, NAMES) as asked:
        assert tracker.asked == [["A"], ["B"]]
        tracker.answers.release()
        await tracker.came(3)
        assert tracker.asked[2] == ["C", "D", "E", "F"]
        tracker.answer_all()
    assert [[issue.id for issue in one.result()] for one in asked] == [[name] for name in NAMES]
    assert len(tracker.asked) == 3


async def test_reads_of_the_same_moment_are_one_request_each_with_its_own_answer() -> None:
    tracker = HeldTracker()
    tracker.answer_all()
    async with asyncio.TaskGroup() as tasks:
        reads = SharedReads(tasks)
        first = tasks.create_task(reads.read(tracker, [IssueId("B"), IssueId("A"), IssueId("B")]))
        second = tasks.create_task(reads.read(tracker, [IssueId("A"), IssueId("gone")]))
    assert [issue.id for issue in first.result()] == ["B", "A"]
    assert [issue.id for issue in second.result()] == ["A"]
    assert tracker.asked == [["B", "A", "gone"]]


async def test_a_malformed_issue_fails_only_the_read_that_asked_for_it() -> None:
    tracker = HeldTracker(malformed="D")
    async with asking(tracker, NAMES) as asked:
        tracker.answer_all()
    faults = [one.exception() for one in asked]
    assert [str(fault) if fault else None for fault in faults] == [
        None,
        None,
        None,
        "D has no title",
        None,
        None,
    ]


async def test_an_outage_is_told_to_all_that_wait_without_a_request_for_each() -> None:
    tracker = HeldTracker()
    tracker.fault = TrackerError("tracker_request", "down")
    async with asyncio.TaskGroup() as tasks:
        reads = SharedReads(tasks)
        asked = [asyncio.ensure_future(reads.read(tracker, [IssueId(name)])) for name in NAMES]
        tracker.answer_all()
        await asyncio.wait(asked)
    assert [str(one.exception()) for one in asked] == ["down"] * len(NAMES)
    assert len(tracker.asked) <= AT_ONCE


async def test_who_gives_up_leaves_the_request_to_the_others() -> None:
    tracker = HeldTracker()
    async with asking(tracker, NAMES) as asked:
        asked[0].cancel()
        asked[3].cancel()
        await asyncio.wait([asked[0], asked[3]])
        tracker.answer_all()
    assert tracker.asked[2] == ["C", "E", "F"]
    assert all(one.result() for one in asked if not one.cancelled())


async def test_a_read_is_answered_only_by_a_request_that_was_sent_after_it() -> None:
    tracker = HeldTracker()
    async with asking(tracker, ["A", "A", "A"]) as asked:
        tracker.answers.release()
        tracker.answers.release()
        await asyncio.wait(asked[:2])
        await tracker.came(3)
        assert not asked[2].done()
        tracker.answer_all()
    assert tracker.asked == [["A"], ["A"], ["A"]]


async def test_a_read_that_is_asked_as_the_last_requests_end_gets_its_own() -> None:
    tracker = HeldTracker()

    async def read_on(reads: SharedReads, name: str, times: int) -> list[Issue]:
        for _ in range(times):
            found = await reads.read(tracker, [IssueId(name)])
        return found

    async with asyncio.TaskGroup() as tasks:
        reads = SharedReads(tasks)
        # Both requests end in one turn of the loop, and the first reader asks again in the next.
        first = asyncio.ensure_future(read_on(reads, "A", 2))
        await tracker.came(1)
        second = asyncio.ensure_future(read_on(reads, "B", 1))
        await tracker.came(2)
        tracker.answer_all()
        await asyncio.wait([first, second])
    assert [issue.id for issue in await first] == ["A"]
    assert [issue.id for issue in await second] == ["B"]
    assert tracker.asked == [["A"], ["B"], ["A"]]


async def test_no_ids_make_no_request() -> None:
    tracker = HeldTracker()
    async with asyncio.TaskGroup() as tasks:
        assert await SharedReads(tasks).read(tracker, []) == []
    assert tracker.asked == []


async def test_of_many_reads_those_with_a_malformed_issue_are_found_by_halves() -> None:
    names = [f"N-{number}" for number in range(64)]
    tracker = HeldTracker(malformed="N-21", names=names)
    tracker.answer_all()
    async with asyncio.TaskGroup() as tasks:
        reads = SharedReads(tasks)
        asked = [asyncio.ensure_future(reads.read(tracker, [IssueId(name)])) for name in names]
        await asyncio.wait(asked)
    assert [n for n, one in zip(names, asked, strict=True) if one.exception()] == ["N-21"]
    assert len(tracker.asked) <= 2 * 6 + 1


async def test_an_answer_that_nobody_can_read_fails_all_without_a_request_for_each() -> None:
    tracker = HeldTracker()
    tracker.fault = TrackerError("tracker_response", "<html> is no JSON")
    tracker.answer_all()
    async with asyncio.TaskGroup() as tasks:
        reads = SharedReads(tasks)
        asked = [asyncio.ensure_future(reads.read(tracker, [IssueId(name)])) for name in NAMES]
        await asyncio.wait(asked)
    assert [str(one.exception()) for one in asked] == ["<html> is no JSON"] * len(NAMES)
    assert len(tracker.asked) <= AT_ONCE


async def test_a_request_for_which_nobody_waits_ends_and_holds_nobody_up() -> None:
    tracker = HeldTracker()
    async with asking(tracker, ["A", "B", "C"]) as asked:
        asked[0].cancel()
        asked[1].cancel()
        # Neither is answered: the third goes because both have ended.
        await tracker.came(3)
        tracker.answer_all()
    assert tracker.asked[2] == ["C"]
    assert [issue.id for issue in asked[2].result()] == ["C"]
    assert tracker.ended == 2


async def test_a_group_of_tasks_ends_though_a_tracker_never_answers() -> None:
    tracker = HeldTracker()
    async with asyncio.TaskGroup() as tasks:
        reads = SharedReads(tasks)
        one = asyncio.ensure_future(reads.read(tracker, [IssueId("A")]))
        await tracker.came(1)
        one.cancel()
    assert one.cancelled()


async def test_who_waits_when_the_requests_are_cancelled_waits_no_more() -> None:
    tracker = HeldTracker()
    asked: list[asyncio.Task[list[Issue]]] = []

    async def serve() -> None:
        async with asyncio.TaskGroup() as tasks:
            reads = SharedReads(tasks)
            for name in NAMES:
                asked.append(asyncio.ensure_future(reads.read(tracker, [IssueId(name)])))
                if len(asked) <= AT_ONCE:
                    await tracker.came(len(asked))
            await asyncio.Event().wait()

    serving = asyncio.ensure_future(serve())
    await tracker.came(AT_ONCE)
    serving.cancel()
    await asyncio.wait([serving])
    await asyncio.wait(asked)
    assert all(one.cancelled() for one in asked)


async def test_a_fault_of_the_tracker_s_own_fails_the_read_and_nothing_else() -> None:
    tracker = HeldTracker()
    tracker.fault = KeyError("ours")
    tracker.answer_all()
    async with asyncio.TaskGroup() as tasks:
        reads = SharedReads(tasks)
        one = asyncio.ensure_future(reads.read(tracker, [IssueId("A")]))
        await asyncio.wait([one])
        tracker.fault = None
        (issue,) = await reads.read(tracker, [IssueId("A")])
    assert isinstance(one.exception(), KeyError)
    assert issue.id == "A"


async def test_trackers_do_not_wait_for_each_other() -> None:
    hanging, well = HeldTracker(), HeldTracker()
    well.answer_all()
    async with asyncio.TaskGroup() as tasks:
        reads = SharedReads(tasks)
        held = [asyncio.ensure_future(reads.read(hanging, [IssueId(name)])) for name in NAMES]
        await hanging.came(1)
        (issue,) = await reads.read(well, [IssueId("A")])
        assert issue.id == "A"
        hanging.answer_all()
        await asyncio.wait(held)
