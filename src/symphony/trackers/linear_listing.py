"""The polls of the adapter ``linear``: what changed since the last one, in a single request.

A poll that knows the board asks for the marks of all listed issues (the fields that are cheap for
Linear, ``updatedAt`` among them), for the states of their blockers, and for the issues that are
asked for by id at the same moment. Only issues whose marks are others than remembered are read
again. So an issue that enters, leaves, is deleted, archived or moved shows at once, whatever it
does to ``updatedAt``, and no clock is compared with another.

Invariant: what is remembered is dropped when a read begins and put back when it succeeds, so a
failure is followed by a whole read; and one read of ``WHOLE_EVERY``, or after ``WHOLE_EVERY_S``, is
whole, for what shows in no mark. Reads by id are never answered from memory, only from a request
that was sent after they were asked.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from symphony.errors import TrackerError
from symphony.model.issue import IssueId, normalize_state

from .joint_reads import Companions
from .linear_reads import Changes, LinearReads, unknown_payload
from .rest_records import dig, entries

WHOLE_EVERY: Final = 10
WHOLE_EVERY_S: Final = 300.0

REFUSALS: Final = 2
REFUSED_S: Final = 600.0
"""After so many refusals in a row to tell what changed, nobody asks for so long: it saves a request
a poll."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Memory:
    """The listed issues as last read.

    Attributes:
        states: The names that they were listed by.
        nodes: By id; marked ones only.
        read_mono: When all of them were read.
        reads: How often they were listed since, that read included.
        unsettled: Ids that changed lately. They are read once more: two changes within the same
            instant can't be told apart by ``updatedAt``.
    """

    states: tuple[str, ...]
    nodes: dict[str, Any]
    read_mono: float
    reads: int = 1
    unsettled: frozenset[str] = frozenset()


class LinearListing:
    """The issues of one project in some states, and reads by id that go along.

    Args:
        reads: The requests.
        clock: Monotonic seconds.
        whole_every: Of so many polls, one reads everything.
    """

    def __init__(
        self, reads: LinearReads, *, clock: Callable[[], float], whole_every: int = WHOLE_EVERY
    ) -> None:
        self._reads = reads
        self._clock = clock
        self._whole_every = whole_every
        self._memory: _Memory | None = None
        self._refusals = 0
        self._refused_mono = -math.inf
        self._lock = asyncio.Lock()
        self._companions = Companions()

    async def in_states(self, states: Sequence[str]) -> list[Any]:
        """Nodes of all issues in these states, in Linear's order.

        Raises:
            TrackerError: A request failed; nothing partial is returned.
        """
        async with self._lock:
            memory = self._memory
            if (
                memory is None
                or memory.states != tuple(states)
                or memory.reads >= self._whole_every
                or self._clock() - memory.read_mono >= WHOLE_EVERY_S
                or self._clock() - self._refused_mono < REFUSED_S
            ):
                return await self._whole(states)
            try:
                nodes = await self._changed(memory)
            except TrackerError as error:
                answered = error.category in ("tracker_response", "tracker_pagination")
                if not answered and error.status != 400:
                    raise
                # Another query may do where Linear refuses this one, by its complexity say.
                self._refusals += 1
                if self._refusals == REFUSALS:
                    self._refusals, self._refused_mono = 0, self._clock()
                log.warning("Linear's changes can't be read, reading all", problem=error.message)
                return await self._whole(states)
            self._refusals = 0
            return nodes

    async def by_ids(self, ids: Sequence[IssueId]) -> list[Any]:
        """Nodes of the project's issues of these ids, read after this call.

        Raises:
            TrackerError: A request failed.
        """
        # A whole read takes nobody along.
        answer = None if self._memory is None else await self._companions.join(ids)
        return await self._reads.by_ids(ids) if answer is None else answer

    async def _whole(self, states: Sequence[str]) -> list[Any]:
        self._memory = None
        read_mono = self._clock()
        nodes = await self._reads.in_states(states)
        known: dict[str, Any] = {}
        for node in nodes:
            issue_id = _id(node)
            if issue_id is None:
                return nodes
            known.setdefault(issue_id, node)
        self._memory = _Memory(tuple(states), known, read_mono)
        return nodes

    async def _changed(self, memory: _Memory) -> list[Any]:
        async with self._companions.taken_along() as wishes:
            self._memory = None
            ids = dict.fromkeys(IssueId(i) for wish in wishes for i in wish.ids)
            ids.update(dict.fromkeys(IssueId(i) for i in memory.unsettled))
            quiet = [node for key, node in memory.nodes.items() if key not in ids]
            blockers = list(dict.fromkeys(i for n in quiet for b in _blockers(n) if (i := _id(b))))
            changes = await self._reads.changes(memory.states, ids=list(ids), blockers=blockers)
            for wish in wishes:
                wish.give(_of(changes.asked, wish.ids))
        nodes, unsettled = await self._merged(memory, changes, quiet)
        self._memory = _Memory(
            memory.states, nodes, memory.read_mono, memory.reads + 1, frozenset(unsettled)
        )
        return list(nodes.values())

    async def _merged(
        self, memory: _Memory, changes: Changes, quiet: Sequence[Any]
    ) -> tuple[dict[str, Any], set[str]]:
        """The listed issues by id as they are now, and the ids of those that changed."""
        marks: dict[str, Any] = {}
        for mark in changes.marks:
            issue_id = _id(mark)
            if issue_id is None:
                raise unknown_payload("a listed issue has no id")
            marks.setdefault(issue_id, mark)
        asked = {i: node for node in changes.asked if (i := _id(node)) is not None}
        records = {**memory.nodes, **asked}
        stale = {i for i, mark in marks.items() if _mark(records.get(i)) != _mark(mark)}
        stale |= _told(quiet, changes.blockers) & marks.keys()
        fetched: dict[str, Any] = {}
        if stale:
            nodes = await self._reads.by_ids([IssueId(i) for i in marks if i in stale])
            fetched = {i: node for node in nodes if (i := _id(node)) is not None}
        listed = {}
        states = frozenset(map(normalize_state, memory.states))
        for issue_id in marks:
            node = fetched.get(issue_id) if issue_id in stale else records[issue_id]
            # One that was read again may have left between the two requests.
            if node is not None and normalize_state(str(dig(node, "state", "name"))) in states:
                listed[issue_id] = node
        changed = {i for i in asked if _mark(asked[i]) != _mark(memory.nodes.get(i))}
        return listed, (set(fetched) | changed) & listed.keys()


def _mark(node: object) -> tuple[Any, ...]:
    """What of an issue is compared; the same fields in a mark and in a whole issue."""
    labels = dig(node, "labelIds")
    return (
        dig(node, "id"),
        dig(node, "updatedAt"),
        dig(node, "identifier"),
        dig(node, "title"),
        dig(node, "priority"),
        dig(node, "branchName"),
        dig(node, "state", "name"),
        dig(node, "assignee", "id"),
        dig(node, "team", "key"),
        sorted(map(str, labels)) if isinstance(labels, list) else None,
    )


def _told(nodes: Iterable[Any], blockers: Iterable[Any]) -> set[str]:
    """Tell the remembered issues what became of their blockers.

    Returns:
        Ids of the issues of which a blocker is not to be found, or a sub-issue was archived and
        counts no more: they have to be read again.
    """
    found = {i: blocker for blocker in blockers if (i := _id(blocker)) is not None}
    unknown = set()
    for node in nodes:
        children = {_id(child) for child in entries(dig(node, "children", "nodes"))}
        for blocker in _blockers(node):
            now = found.get(_id(blocker) or "")
            if now is None or (_id(now) in children and dig(now, "archivedAt") is not None):
                unknown.add(str(_id(node)))
            else:
                blocker.update(identifier=dig(now, "identifier"), state=dig(now, "state"))
    return unknown


def _blockers(node: object) -> list[dict[str, Any]]:
    """The issues whose states decide whether it waits: blockers, and its family if asked for."""
    found = [
        dig(relation, "issue")
        for relation in entries(dig(node, "inverseRelations", "nodes"))
        if str(dig(relation, "type")).strip().lower() == "blocks"
    ]
    found += [*entries(dig(node, "children", "nodes")), dig(node, "parent")]
    return [issue for issue in found if isinstance(issue, dict)]


def _of(nodes: Iterable[Any], ids: Sequence[IssueId]) -> list[Any]:
    """The nodes of these ids, and those without one, which the reader has to complain of."""
    wanted = frozenset(ids)
    return [node for node in nodes if (i := _id(node)) is None or i in wanted]


def _id(node: object) -> str | None:
    found = dig(node, "id") if isinstance(node, Mapping) else None
    return found if isinstance(found, str) and found.strip() else None
