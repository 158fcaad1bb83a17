"""The two reads of a cycle as one: a state read answers the reads by id that were asked before it.

A cycle asks at once for the issues in active states and for the running ones by id. Most running
ones are among the active ones, so the pages of the state read answer for them, and only those that
are missing there are asked for by id: the ones that left.

``JointReads`` does so for adapters whose state read is complete; ``linear_listing`` uses
``Companions`` alone, since its polls read marks.

Invariant: a read by id is never answered from memory, only from requests that were sent after it
was asked; what the state read does not show is asked for by id, so nobody is taken for gone because
a list does not hold them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from symphony.model.issue import Issue, IssueId

from .rest_records import Malformed

JOIN_TURNS: Final = 16
"""A cycle asks for its two reads at once, in a task each: so many turns of the event loop one waits
for the other. Turns and not milliseconds: every single read and every poll waits for as long."""


@dataclass(eq=False, slots=True)
class Wish:
    """A read by id that a state read may take along; its answer is None where it goes alone."""

    ids: Sequence[IssueId]
    _answer: asyncio.Future[list[Any] | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def give(self, found: list[Any] | None) -> None:
        """Answer, unless it is answered or nobody waits any more."""
        if not self._answer.done():
            self._answer.set_result(found)

    async def answer(self) -> list[Any] | None:
        """Wait for the answer."""
        return await self._answer


class Companions:
    """Reads by id that wait for a state read, and the state read that takes them along."""

    def __init__(self) -> None:
        self._wishes: list[Wish] = []
        self._gathering = False

    async def join(self, ids: Sequence[IssueId]) -> list[Any] | None:
        """What a state read that begins in these moments knows of them; None where none does."""
        wish = Wish(ids)
        self._wishes.append(wish)
        try:
            for _ in range(JOIN_TURNS):
                if self._gathering:
                    break
                await asyncio.sleep(0)
            # Still here and nobody comes for it: there is no state read to go along with.
            waits = wish in self._wishes and not self._gathering
            return None if waits else await wish.answer()
        finally:
            if wish in self._wishes:
                self._wishes.remove(wish)

    @asynccontextmanager
    async def taken_along(self) -> AsyncIterator[list[Wish]]:
        """The reads by id of these moments; those left unanswered at the end go alone."""
        wishes: list[Wish] = []
        try:
            self._gathering = True
            try:
                for _ in range(JOIN_TURNS):
                    await asyncio.sleep(0)
            finally:
                self._gathering = False
                wishes, self._wishes = self._wishes, []
            yield wishes
        finally:
            for wish in wishes:
                wish.give(None)


@dataclass(frozen=True, slots=True)
class Shown:
    """What a state read showed.

    Attributes:
        listed: The issues in the asked states.
        beside: Issues in other states that came along, as a read by id would give them.
    """

    listed: list[Issue]
    beside: list[Issue] = field(default_factory=list)


def shown_beside(records: Iterable[Any], to_issue: Callable[[Any], Issue]) -> list[Issue]:
    """The issues of records that came along; of a malformed one the read by id will tell."""
    issues = []
    for record in records:
        try:
            issues.append(to_issue(record))
        except Malformed:
            continue
    return issues


class JointReads:
    """The two reads of an adapter, joined.

    Args:
        by_states: The adapter's state read: complete, or it raises.
        by_ids: Its read by id, of ids that are asked once each.
        reads_all: Whether the next state read asks for every issue; one that asks for changes only
            takes nobody along.
    """

    def __init__(
        self,
        by_states: Callable[[Sequence[str]], Awaitable[Shown]],
        by_ids: Callable[[Sequence[IssueId]], Awaitable[list[Issue]]],
        *,
        reads_all: Callable[[], bool] = lambda: True,
    ) -> None:
        self._by_states = by_states
        self._by_ids = by_ids
        self._reads_all = reads_all
        self._companions = Companions()
        self._polled = False

    async def in_states(self, states: Sequence[str]) -> list[Issue]:
        """The issues in these states; without any, no request.

        Raises:
            TrackerError: The read failed.
        """
        if not states:
            return []
        # The first read has no companion, and waits for none.
        if not self._polled or not self._reads_all():
            shown = await self._by_states(states)
            self._polled = True
            return shown.listed
        async with self._companions.taken_along() as wishes:
            shown = await self._by_states(states)
            found = {issue.id: issue for issue in (*shown.beside, *shown.listed)}
            for wish in wishes:
                wish.give([found[issue_id] for issue_id in wish.ids if issue_id in found])
        return shown.listed

    async def by_ids(self, ids: Sequence[IssueId]) -> list[Issue]:
        """The visible issues of these ids in the asked order, each once; without any, no request.

        Raises:
            TrackerError: The read failed.
        """
        wanted = list(dict.fromkeys(ids))
        if not wanted:
            return []
        joins = self._polled and self._reads_all()
        listed: list[Issue] = (await self._companions.join(wanted) if joins else None) or []
        found = {issue.id: issue for issue in listed}
        missing = [issue_id for issue_id in wanted if issue_id not in found]
        if missing:
            found.update((issue.id, issue) for issue in await self._by_ids(missing))
        return [found[issue_id] for issue_id in wanted if issue_id in found]
