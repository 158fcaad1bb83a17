"""A provider's list of open issues, read page by page and kept up to date by its changes.

A short list is read whole at each poll; conditional requests make that free while nothing changes.
A long one is read whole now and then, and in between by two requests: the records that changed
since the last look, and the last page of the list. Every departure that leaves no change behind (a
deletion, a transfer) shifts the records of the last page, so both together show everything that a
whole read would show, but renamed labels and milestones, which come with the next whole read.

Invariant: a read that fails returns nothing. A record that enters or leaves the list while its
pages are read is noticed by the changes since the first page, and the reading repeated; a list that
does not hold still for three readings is returned as last read and not kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

from symphony.errors import TrackerError

from .base import Trial
from .http import Answer, Query
from .rest_records import instant, integer

PER_PAGE: Final = 100
MAX_PAGES: Final = 1_000
MAX_REPEATS: Final = 3
OVERLAP: Final = timedelta(seconds=60)
"""Changes are asked from so long before the server's last word, for replicas that lag."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list.

    Attributes:
        records: As decoded.
        more: Whether another page follows.
        date: The server's clock, or None where it does not tell.
        not_modified: Whether a 304 confirmed it.
    """

    records: list[Any]
    more: bool
    date: datetime | None
    not_modified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQueries:
    """How a provider spells its list.

    Attributes:
        listed: Query of the open issues, oldest first.
        changed: Query of the issues of any state, without the moment.
        since: Parameter of the moment.
        number: Key of the number by which a record is known.
        is_open: Whether a record belongs to the list.
    """

    listed: Query
    changed: Query
    since: str
    number: str
    is_open: Callable[[Mapping[str, Any]], bool]


class Records(list[Any]):
    """The records of a read.

    Attributes:
        left: Records that the read showed to have left the list, as they are now.
    """

    def __init__(self, listed: Iterable[Any] = (), left: Iterable[Any] = ()) -> None:
        super().__init__(listed)
        self.left = list(left)


@dataclass(slots=True)
class _Kept:
    records: dict[int, Mapping[str, Any]]
    since: datetime
    read_at: float


@dataclass(slots=True)
class _Whole:
    """The records of a whole read in the provider's order; the latest word on each counts."""

    records: dict[int, Any] = field(default_factory=dict)
    unknown: list[Any] = field(default_factory=list)
    left: list[Any] = field(default_factory=list)

    def add(self, page: Page, number: str) -> None:
        for record in page.records:
            key = integer(record.get(number)) if isinstance(record, Mapping) else None
            if key is None:
                self.unknown.append(record)
            else:
                self.records[key] = record


class Listing:
    """The open issues of one scope.

    Args:
        fetch: Fetches a page by its query; raises ``TrackerError`` where it can't.
        queries: The provider's spelling.
        code: Prefix of the adapter's error names.
        clock: Monotonic seconds.
        whole_every_s: Longest time between two whole reads.
        whole_pages: A list of so many pages or fewer is always read whole.

    Attributes:
        is_long: Whether the list was too long, when last read whole, to be read whole each time.
    """

    def __init__(
        self,
        fetch: Callable[[Query], Awaitable[Page]],
        queries: ListQueries,
        *,
        code: str,
        clock: Callable[[], float],
        whole_every_s: float = 300.0,
        whole_pages: int = 3,
    ) -> None:
        self._fetch = fetch
        self._queries = queries
        self._code = code
        self._clock = clock
        self._whole_every_s = whole_every_s
        self._whole_pages = whole_pages
        self._kept: _Kept | None = None
        self.is_long = False
        self._lock = asyncio.Lock()
        self.trial = Trial()

    async def read(self) -> Records:
        """Return the records, oldest first.

        Raises:
            TrackerError: A page failed, or the pages have no end.
        """
        async with self._lock:
            kept, self._kept = self._kept, None
            if (
                kept is not None
                and self._exceeds(len(kept.records))
                and self._clock() - kept.read_at < self._whole_every_s
                and await self._caught_up(kept)
            ):
                self._kept = kept
                return Records(_ordered(kept.records))
            return await self._whole()

    async def _whole(self) -> Records:
        for repeat in range(MAX_REPEATS):
            read_at = self._clock()
            whole = _Whole()
            first = await self._page(1, self._queries.listed)
            whole.add(first, self._queries.number)
            quiet, page, number = first.not_modified, first, 1
            while not self.trial.ends(page.more):
                number += 1
                page = await self._page(number, self._queries.listed)
                whole.add(page, self._queries.number)
                quiet = quiet and page.not_modified
            since = first.date - OVERLAP if first.date is not None else None
            # Several pages of which some changed may be of different moments.
            steady = quiet or number == 1 or await self._is_steady(whole, since)
            if steady or repeat == MAX_REPEATS - 1:
                break
        if steady and since is not None and not whole.unknown:
            self._kept = _Kept(whole.records, since, read_at)
        self.is_long = self._exceeds(len(whole.records))
        return Records([*whole.records.values(), *whole.unknown], whole.left)

    def _exceeds(self, count: int) -> bool:
        return count > self._whole_pages * PER_PAGE

    async def _is_steady(self, whole: _Whole, since: datetime | None) -> bool:
        """Whether nothing entered or left the list since; what else changed is taken over."""
        if since is None:
            return True
        changes = await self._changes(since)
        for record in changes.records:
            key = integer(record.get(self._queries.number)) if _is_map(record) else None
            if key is None:
                continue
            if self._queries.is_open(record) != (key in whole.records):
                return False
            if key in whole.records:
                whole.records[key] = record
            else:
                whole.left.append(record)
        return not changes.more

    async def _caught_up(self, kept: _Kept) -> bool:
        """Bring the kept records up to date; False where only a whole read can."""
        changes = await self._changes(kept.since)
        if changes.more:
            return False
        changed = False
        for record in changes.records:
            key = integer(record.get(self._queries.number)) if _is_map(record) else None
            if key is None or instant(record.get("created_at")) is None:
                return False
            is_open = self._queries.is_open(record)
            changed = changed or kept.records.get(key) != (record if is_open else None)
            kept.records.pop(key, None)
            if is_open:
                kept.records[key] = record
        # The same moment keeps the URL and so its 304, as long as nothing changes.
        if changed and changes.date is not None:
            kept.since = max(kept.since, changes.date - OVERLAP)
        return await self._tail_fits(kept)

    async def _tail_fits(self, kept: _Kept) -> bool:
        ordered = _ordered(kept.records)
        number = max(1, -(-len(ordered) // PER_PAGE))
        expected = ordered[(number - 1) * PER_PAGE :]
        page = await self._page(number, self._queries.listed)
        tail = _Whole()
        tail.add(page, self._queries.number)
        keys = {record.get(self._queries.number) for record in expected}
        if page.more or tail.unknown or set(tail.records) != keys:
            return False
        kept.records.update(tail.records)
        return True

    async def _changes(self, since: datetime) -> Page:
        moment = since.strftime("%Y-%m-%dT%H:%M:%SZ")
        return await self._page(1, {**self._queries.changed, self._queries.since: moment})

    async def _page(self, number: int, query: Query) -> Page:
        if number > MAX_PAGES:
            raise TrackerError(
                "tracker_pagination",
                f"the list of issues has more than {MAX_PAGES} pages",
                code=f"{self._code}_endless_pages",
            )
        return await self._fetch({**query, "per_page": PER_PAGE, "page": number})


def server_date(answer: Answer) -> datetime | None:
    """The provider's clock in the header ``Date``."""
    try:
        moment = parsedate_to_datetime(answer.headers.get("date", ""))
    except (ValueError, TypeError):
        return None
    return moment.replace(tzinfo=moment.tzinfo or UTC)


def _ordered(records: Mapping[int, Mapping[str, Any]]) -> list[Any]:
    """Oldest first, as the provider sorts them; ties by number."""
    dated = []
    for key, record in records.items():
        moment = instant(record.get("created_at"))
        if moment is None:
            return list(records.values())
        dated.append((moment, key))
    return [records[key] for _, key in sorted(dated)]


def _is_map(record: object) -> bool:
    return isinstance(record, Mapping)
