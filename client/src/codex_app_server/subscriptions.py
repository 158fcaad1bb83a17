"""Streams of notifications beside the turns: by thread, by method, or all.

    async with connection.subscribe(methods=["account/updated"]) as events:
        async for event in events:
            ...

Invariants: a subscription holds at most ``limit`` events, whatever its reader does, unless
lifecycle events alone are more (``coalesce``, ``drop_deltas``); it never slows the connection; it
misses nothing from the moment it is made. The order is that of the wire, but for deltas of several
turns that arrive together: they come turn by turn. It ends when it is closed, or raises
`ConnectionClosed` after the last event of a lost connection.

`codex_app_server.connection` makes and feeds them; the queue is `codex_app_server.sink`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Literal, Self

from codex_app_server.checks import LIMIT, check_values, is_count, is_text
from codex_app_server.errors import ConnectionClosed, InvalidArgument
from codex_app_server.events import DELTA_METHODS, Event
from codex_app_server.sink import Sink

__all__ = ["DropPolicy", "Subscription", "Subscriptions"]

DropPolicy = Literal["coalesce", "drop_deltas", "drop_oldest"]
DEFAULT_LIMIT = 1024


class Subscription:
    """The notifications that one reader asked for; iterate it. Made by `Connection.subscribe`."""

    def __init__(
        self,
        *,
        thread_id: str | None,
        methods: frozenset[str] | None,
        limit: int,
        drop: DropPolicy,
        on_close: Callable[[Subscription], None],
    ) -> None:
        self.thread_id = thread_id
        self.methods = methods
        self._wants_deltas = methods is None or not methods.isdisjoint(DELTA_METHODS)
        self._limit = limit
        self._drop_oldest = drop == "drop_oldest"
        self._sink = Sink("coalesce" if drop == "drop_oldest" else drop, limit)
        self._on_close = on_close
        self._wake: asyncio.Future[None] | None = None
        self._lost: ConnectionClosed | None = None
        self._closed = False
        self._ending = False
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Events that were dropped because nobody read them in time."""
        return self._dropped + self._sink.dropped

    def push(self, events: list[Event], *, only_deltas: bool) -> None:
        """Take a batch of its thread; the connection calls this."""
        if only_deltas and not self._wants_deltas:
            return
        if self.methods is not None:
            events = [event for event in events if event.method in self.methods]
        if not events:
            return
        if self._drop_oldest:
            queue = self._sink.events
            queue.extend(events)
            excess = len(queue) - self._limit
            for _ in range(excess):
                queue.popleft()
            self._dropped += max(0, excess)
        else:
            self._sink.push(events, may_block=False)
        self._notify()

    def lost(self, reason: ConnectionClosed) -> None:
        """The connection has ended."""
        self._lost = reason
        self._notify()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def next(self, timeout_s: float | None = None) -> Event:
        """Return the next event.

        Raises:
            TimeoutError: None came in time.
            ConnectionClosed: The connection has ended and all events were read.
            StopAsyncIteration: The subscription is closed.
        """
        check_values(timeout_s=(timeout_s, LIMIT))
        async with asyncio.timeout(timeout_s):
            return await self.__anext__()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._sink.events:
            if self._closed or self._ending:
                raise StopAsyncIteration
            if self._lost is not None:
                raise self._lost
            if self._wake is not None:
                raise RuntimeError("this subscription has a reader already")
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        return self._sink.pop()

    def close_when_read(self) -> None:
        """Let the reader's iteration end after what waits now."""
        self._ending = True
        self._on_close(self)
        self._notify()

    def close(self) -> None:
        """End it: what waits is dropped, a reader's iteration ends."""
        if not self._closed:
            self._closed = True
            self._sink.clear()
            self._on_close(self)
            self._notify()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _method_names(methods: Any) -> frozenset[str]:
    if isinstance(methods, Iterable) and not isinstance(methods, str):
        wanted = frozenset(methods)
        if all(isinstance(one, str) for one in wanted):
            return wanted
    raise InvalidArgument(f"methods={methods!r}: give a list of methods")


class Subscriptions:
    """The subscriptions of one connection."""

    __slots__ = ("_of",)

    def __init__(self) -> None:
        # By the thread that they are about, so that a batch costs the others nothing.
        self._of: dict[str | None, list[Subscription]] = {}

    def __bool__(self) -> bool:
        return bool(self._of)

    def add(
        self,
        thread_id: str | None,
        methods: Iterable[str] | None,
        limit: int,
        drop: DropPolicy,
    ) -> Subscription:
        """Make one.

        Raises:
            InvalidArgument: A limit below 1, an unknown policy, or methods that are one string.
        """
        wanted = None if methods is None else _method_names(methods)
        if not is_count(limit):
            raise InvalidArgument(f"limit={limit!r}: use a number from 1")
        if thread_id is not None and not is_text(thread_id):
            raise InvalidArgument(f"thread_id={thread_id!r}: give a thread's id or None")
        if drop not in ("coalesce", "drop_deltas", "drop_oldest"):
            raise InvalidArgument(f"drop={drop!r}: use coalesce, drop_deltas or drop_oldest")
        made = Subscription(
            thread_id=thread_id,
            methods=wanted,
            limit=limit,
            drop=drop,
            on_close=self._discard,
        )
        self._of.setdefault(thread_id, []).append(made)
        return made

    def _discard(self, one: Subscription) -> None:
        those = self._of.get(one.thread_id, [])
        if one in those:
            those.remove(one)
        if not those:
            self._of.pop(one.thread_id, None)

    def publish(self, thread_id: str | None, events: list[Event], *, only_deltas: bool) -> None:
        """Hand a batch to all who want it."""
        for one in self._of.get(None, ()):
            one.push(events, only_deltas=only_deltas)
        if thread_id is not None:
            for one in self._of.get(thread_id, ()):
                one.push(events, only_deltas=only_deltas)

    def lost(self, reason: ConnectionClosed) -> None:
        """The connection has ended."""
        for those in self._of.values():
            for one in those:
                one.lost(reason)
