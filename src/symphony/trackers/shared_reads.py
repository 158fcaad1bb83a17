"""Reads by id of many runs in few requests: while some are under way, further ones gather.

Each run reads its issue after each turn, and each retry its own. At a thousand agents these are
most of the requests that a tracker gets. A read that finds fewer than ``AT_ONCE`` requests under
way goes at once; others wait for one of these to end and go together.

Invariants: an answer comes from a request that was sent after the read was asked for; a record that
can't be read fails only the reads that asked for it, and any other fault costs no further request;
a request ends when nobody waits for it any more. Asked by `symphony.runner.attempt` and
`symphony.engine.trackers`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from symphony.errors import TrackerError
from symphony.model.issue import Issue, IssueId
from symphony.trackers.base import Tracker

AT_ONCE: Final = 2
"""Requests under way before reads gather: one that hangs must not hold up all."""

READ_S: Final = 120.0
"""A request that takes longer is given up, whoever still waits for it: no caller waits longer."""

ReadIssues = Callable[[Tracker, Sequence[IssueId]], Awaitable[list[Issue]]]
"""Reads issues by id; raises `TrackerError`."""


async def read_alone(tracker: Tracker, ids: Sequence[IssueId]) -> list[Issue]:
    """Read by a request of its own.

    Raises:
        TrackerError: The read failed.
    """
    return await tracker.fetch_issues_by_ids(ids)


@dataclass(eq=False, slots=True)
class _Asked:
    ids: Sequence[IssueId]
    answer: asyncio.Future[list[Issue]]


@dataclass(eq=False, slots=True)
class _Queue:
    tracker: Tracker
    waiting: list[_Asked] = field(default_factory=list)
    under_way: int = 0

    def take(self) -> list[_Asked]:
        """All that still wait; the queue is empty then."""
        taken, self.waiting = self.waiting, []
        return [one for one in taken if not one.answer.done()]


class SharedReads:
    """The reads by id of one daemon.

    Args:
        tasks: Owns the requests.
    """

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        self._queues: dict[int, _Queue] = {}

    async def read(self, tracker: Tracker, ids: Sequence[IssueId]) -> list[Issue]:
        """Return the visible issues of these ids in the asked order, each once.

        Cancelling it leaves the request to the others that wait for it.

        Raises:
            TrackerError: The read failed.
        """
        if not ids:
            return []
        queue = self._queues.setdefault(id(tracker), _Queue(tracker))
        asked = _Asked(ids, asyncio.get_running_loop().create_future())
        queue.waiting.append(asked)
        if queue.under_way < AT_ONCE:
            self._begin(queue)
        return await asked.answer

    def _begin(self, queue: _Queue) -> None:
        work = _serve(queue)
        try:
            task = self._tasks.create_task(work, name=f"read {queue.tracker.kind}")
        except RuntimeError:
            work.close()
            raise
        queue.under_way += 1
        task.add_done_callback(lambda task: self._served(queue, task))

    def _served(self, queue: _Queue, task: asyncio.Task[None]) -> None:
        queue.under_way -= 1
        # A task ends a turn of the loop before this is called; who asks meanwhile waits for it.
        if queue.waiting and not task.cancelled():
            try:
                self._begin(queue)
            except RuntimeError:
                pass  # the group is ending, and everybody with it
            else:
                return
        if not queue.under_way:
            # The tasks are cancelled or can't be made: nobody comes any more for those who wait.
            for one in queue.take():
                one.answer.cancel()
            del self._queues[id(queue.tracker)]


async def _serve(queue: _Queue) -> None:
    # Whoever asks in the same moment goes along.
    await asyncio.sleep(0)
    while batch := queue.take():
        try:
            await _answer(queue.tracker, batch)
        finally:
            for one in batch:
                one.answer.cancel()


async def _answer(tracker: Tracker, asked: Sequence[_Asked]) -> None:
    """Ask for all at once, and where a record fails that, for halves, until it stands alone."""
    batches = [asked]
    while batches:
        batch = [one for one in batches.pop() if not one.answer.done()]
        if not batch:
            continue
        try:
            found = await _fetch(tracker, batch)
        except TrackerError as error:
            if error.of_one_issue and len(batch) > 1:
                middle = len(batch) // 2
                batches += [batch[middle:], batch[:middle]]
            else:
                _refuse(batch, error)
        except Exception as error:
            _refuse(batch, error)
        else:
            for one in batch:
                if not one.answer.done():
                    wanted = dict.fromkeys(one.ids)
                    one.answer.set_result([found[i] for i in wanted if i in found])


async def _fetch(tracker: Tracker, batch: Sequence[_Asked]) -> dict[IssueId, Issue]:
    ids = list(dict.fromkeys(issue_id for one in batch for issue_id in one.ids))
    try:
        async with asyncio.timeout(READ_S), _while_wanted(batch):
            issues = await tracker.fetch_issues_by_ids(ids)
    except TimeoutError:
        raise TrackerError("tracker_request", f"no answer within {READ_S:.0f} s") from None
    return {issue.id: issue for issue in issues}


@asynccontextmanager
async def _while_wanted(batch: Sequence[_Asked]) -> AsyncIterator[None]:
    """End what is under way with ``TimeoutError`` once nobody waits for it."""
    async with asyncio.timeout(None) as wanted:
        under_way = True

        def left(_answer: asyncio.Future[list[Issue]]) -> None:
            if under_way and all(one.answer.done() for one in batch) and not wanted.expired():
                wanted.reschedule(0.0)

        for one in batch:
            one.answer.add_done_callback(left)
        try:
            yield
        finally:
            under_way = False
            for one in batch:
                one.answer.remove_done_callback(left)


def _refuse(batch: Sequence[_Asked], error: Exception) -> None:
    for one in batch:
        if not one.answer.done():
            one.answer.set_exception(error)
