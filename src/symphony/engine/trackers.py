"""The tracker that is in force, and reads by id that go to the tracker an issue came from.

A reload may change the tracker or its scope while runs of the old one are live. Asked about them,
the new tracker would know nothing and they would be stopped as missing. So each read by id of a
live run goes to the tracker that its attempt was bound to.

Invariant: what one tracker does not answer says nothing of its issues and nothing of another's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from symphony.model.issue import Issue, IssueId
from symphony.observe.logs import get_logger
from symphony.trackers.base import Tracker
from symphony.trackers.shared_reads import ReadIssues, read_alone

READ_DEADLINE_S: Final = 120.0
"""A read by the tracker in force takes no longer."""

FORMER_DEADLINE_S: Final = 30.0
"""A read by a former tracker takes no longer: the cycle waits for it."""

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


@dataclass(frozen=True, slots=True)
class OwnerFault:
    """A tracker whose read failed.

    Attributes:
        tracker: The tracker.
        ids: What it was asked for.
        error: What it raised; ``TimeoutError`` where it did not answer in time.
    """

    tracker: Tracker
    ids: tuple[IssueId, ...]
    error: Exception


@dataclass(frozen=True, slots=True)
class OwnersAnswer:
    """What the owners of some issues show.

    Attributes:
        issues: The visible ones of the owners that answered.
        faults: The owners that did not; of their issues nothing is known.
        asked: How many owners there are.
    """

    issues: list[Issue]
    faults: Sequence[OwnerFault]
    asked: int

    @property
    def unread(self) -> frozenset[IssueId]:
        """The issues of which nothing is known."""
        return frozenset(issue_id for fault in self.faults for issue_id in fault.ids)

    def error_of(self, tracker: Tracker) -> Exception | None:
        """What this tracker raised, if it was asked and failed."""
        return next((fault.error for fault in self.faults if fault.tracker is tracker), None)


async def fetch_from_owners(
    ids: Sequence[IssueId],
    *,
    owners: Mapping[IssueId, Tracker],
    default: Tracker,
    read: ReadIssues = read_alone,
) -> OwnersAnswer:
    """Read issues by id, each from its owner, in one batch per tracker.

    A tracker that fails costs the others nothing but its time: ``READ_DEADLINE_S``, and
    ``FORMER_DEADLINE_S`` where it is not the one in force, so that it can't hold up the polls.

    Args:
        ids: The issues.
        owners: The trackers that issues came from.
        default: The tracker in force, which is asked for the others.
        read: Reads from one of them.
    """
    batches: dict[int, tuple[Tracker, list[IssueId]]] = {}
    for issue_id in ids:
        tracker = owners.get(issue_id) or default
        batches.setdefault(id(tracker), (tracker, []))[1].append(issue_id)
    # A read that nobody waits for any more is ended: gather would leave it to itself.
    async with asyncio.TaskGroup() as group:
        reads = [
            group.create_task(
                _read(
                    read,
                    tracker,
                    tuple(batch),
                    deadline_s=READ_DEADLINE_S if tracker is default else FORMER_DEADLINE_S,
                ),
                name=f"read {tracker.kind}",
            )
            for tracker, batch in batches.values()
        ]
    answers = [one.result() for one in reads]
    faults = [answer for answer in answers if isinstance(answer, OwnerFault)]
    shown = [answer for answer in answers if not isinstance(answer, OwnerFault)]
    return OwnersAnswer([issue for found in shown for issue in found], faults, len(batches))


async def _read(
    read: ReadIssues, tracker: Tracker, ids: tuple[IssueId, ...], *, deadline_s: float
) -> Sequence[Issue] | OwnerFault:
    try:
        async with asyncio.timeout(deadline_s):
            return await read(tracker, ids)
    except Exception as error:
        return OwnerFault(tracker, ids, error)


class FormerFaults:
    """Tells once of each former tracker that can't be read, and once that it can be again."""

    def __init__(self) -> None:
        self._told: dict[int, Tracker] = {}

    def tell(self, answer: OwnersAnswer, asked: Iterable[Tracker], in_force: Tracker) -> None:
        """Warn of trackers that fail now and did not before.

        Args:
            answer: What the owners gave.
            asked: All trackers that have runs.
            in_force: Its faults are told as those of a poll.
        """
        failed = {id(fault.tracker): fault for fault in answer.faults}
        live = {id(tracker) for tracker in asked}
        for key, tracker in list(self._told.items()):
            if key not in failed:
                del self._told[key]
                if key in live:
                    _log.info("The former tracker can be read again", kind=tracker.kind)
        for key, fault in failed.items():
            if fault.tracker is not in_force and key not in self._told:
                self._told[key] = fault.tracker
                _log.warning(
                    "Runs from a former tracker are left alone: it can't be read",
                    kind=fault.tracker.kind,
                    problem=str(fault.error) or "no answer in time",
                    issues=list(fault.ids),
                    mend="make its former token valid again, or stop these runs; new ones come "
                    "from the tracker of the workflow file",
                )
