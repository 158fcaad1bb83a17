"""Reads by id of many runs in few requests: while some are under way, further ones gather.

Each run reads its issue after each turn, and each retry its own. At a thousand agents these are
most of the requests that a tracker gets. A read that finds fewer than ``AT_ONCE`` requests under
way goes at once; others wait for one of these to end and go together.

Invariants: an answer comes from a request that was sent after the read was asked for; a read that
fails for the sake of another's record is repeated alone. Asked by `symphony.runner.attempt` and
`symphony.engine.trackers`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from symphony.errors import TrackerError
from symphony.model.issue import Issue, IssueId
from symphony.trackers.base import Tracker

AT_ONCE: Final = 2
"""Requests under way before reads gather: one that hangs must not hold up all."""

READ_S: Final = 60.0
"""A request that takes longer is given up, whoever still waits for it."""

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
            queue.under_way += 1
            self._tasks.create_task(self._serve(queue), name=f"read {tracker.kind}")
        return await asked.answer

    async def _serve(self, queue: _Queue) -> None:
        try:
            # Whoever asks in the same moment goes along.
            await asyncio.sleep(0)
            while batch := [one for one in queue.waiting if not one.answer.done()]:
                queue.waiting = []
                await self._fetch(queue.tracker, batch)
        finally:
            queue.under_way -= 1
            if not queue.under_way:
                del self._queues[id(queue.tracker)]

    async def _fetch(self, tracker: Tracker, batch: Sequence[_Asked]) -> None:
        ids = list(dict.fromkeys(issue_id for one in batch for issue_id in one.ids))
        try:
            async with asyncio.timeout(READ_S):
                issues = await tracker.fetch_issues_by_ids(ids)
        except TrackerError as error:
            if error.category != "tracker_response" or len(batch) == 1:
                _refuse(batch, error)
                return
            # One record that is malformed fails the read of all.
            for one in batch:
                await self._fetch(tracker, [one])
        except TimeoutError:
            _refuse(batch, TrackerError("tracker_request", f"no answer within {READ_S:.0f} s"))
        except Exception as error:
            _refuse(batch, error)
        except BaseException:
            for one in batch:
                one.answer.cancel()
            raise
        else:
            found = {issue.id: issue for issue in issues}
            for one in batch:
                if not one.answer.done():
                    wanted = dict.fromkeys(one.ids)
                    one.answer.set_result([found[i] for i in wanted if i in found])


def _refuse(batch: Sequence[_Asked], error: Exception) -> None:
    for one in batch:
        if not one.answer.done():
            one.answer.set_exception(error)
