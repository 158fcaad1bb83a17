"""The tracker that is in force, and reads by id that go to the tracker an issue came from.

A reload may change the tracker or its scope while runs of the old one are live. Asked about them,
the new tracker would know nothing and they would be stopped as missing. So each read by id of a
live run goes to the tracker that its attempt was bound to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from symphony.model.issue import Issue, IssueId
from symphony.observe.logs import get_logger
from symphony.trackers.base import Tracker
from symphony.trackers.shared_reads import ReadIssues, read_alone

_log = get_logger(__name__)


class TrackerSlot:
    """Holds the current tracker; an exchanged one is closed when nobody is bound to it any more."""

    def __init__(self, tracker: Tracker) -> None:
        self._current = tracker
        self._retired: list[Tracker] = []

    @property
    def current(self) -> Tracker:
        """The tracker that new reads and new attempts use."""
        return self._current

    def exchange(self, tracker: Tracker) -> None:
        """Put another tracker in force."""
        self._retired.append(self._current)
        self._current = tracker

    async def close_unbound(self, bound: Sequence[Tracker]) -> None:
        """Close retired trackers that no attempt is bound to."""
        idle = [tracker for tracker in self._retired if tracker not in bound]
        self._retired = [tracker for tracker in self._retired if tracker in bound]
        for tracker in idle:
            await _close(tracker)

    async def aclose(self) -> None:
        """Close all of them."""
        trackers, self._retired = [*self._retired, self._current], []
        for tracker in trackers:
            await _close(tracker)


async def _close(tracker: Tracker) -> None:
    """Close one; what fails there keeps no other from being closed."""
    try:
        await tracker.aclose()
    except Exception:
        _log.exception("A tracker could not be closed", kind=tracker.kind)


async def fetch_from_owners(
    ids: Sequence[IssueId],
    *,
    owners: Mapping[IssueId, Tracker],
    default: Callable[[], Tracker],
    read: ReadIssues = read_alone,
) -> list[Issue]:
    """Read issues by id, each from its owner, in one batch per tracker.

    Raises:
        TrackerError: Any of the reads failed; nothing partial is returned.
    """
    batches: dict[int, tuple[Tracker, list[IssueId]]] = {}
    for issue_id in ids:
        tracker = owners.get(issue_id) or default()
        batches.setdefault(id(tracker), (tracker, []))[1].append(issue_id)
    reads: list[asyncio.Task[Sequence[Issue]]] = []
    try:
        # A read that nobody waits for any more is ended: gather would leave it to itself.
        async with asyncio.TaskGroup() as group:
            for tracker, batch in batches.values():
                one = _read(read, tracker, batch)
                reads.append(group.create_task(one, name=f"read {tracker.kind}"))
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [issue for one in reads for issue in one.result()]


async def _read(read: ReadIssues, tracker: Tracker, ids: Sequence[IssueId]) -> Sequence[Issue]:
    return await read(tracker, ids)
