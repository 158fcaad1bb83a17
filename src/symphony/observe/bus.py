"""The newest snapshot, and everyone who waits for a newer one.

The engine calls ``request_publish`` after every step and whenever a run's live record changed; the
bus builds at most one snapshot per interval and always one after the last request. A reader is
handed the newest snapshot and never a backlog, so a slow one costs nothing: there is no queue.
Serialised forms are made once a snapshot and shared by all readers.

Invariant: everything here runs in one event loop's thread, and no reader can delay another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

from symphony.scheduler.snapshot import Snapshot

PUBLISH_INTERVAL_S = 0.1
"""At most ten snapshots a second."""

_log = logging.getLogger("symphony.observe")


class SnapshotBus:
    """Holds the newest snapshot; one for each daemon.

    Args:
        build: Makes a snapshot of the present moment; called in the loop, at most once an interval.
        interval_s: Least time between two snapshots that were requested.
    """

    def __init__(
        self, build: Callable[[], Snapshot], *, interval_s: float = PUBLISH_INTERVAL_S
    ) -> None:
        self._build = build
        self._interval_s = interval_s
        self._latest: Snapshot | None = None
        self._encoded: dict[str, bytes] = {}
        self._changed = asyncio.Event()
        self._pending: asyncio.TimerHandle | None = None
        self._last_publish = float("-inf")
        self._closed = False

    @property
    def latest(self) -> Snapshot | None:
        """The newest snapshot, or None before the first."""
        return self._latest

    def publish(self, snapshot: Snapshot) -> None:
        """Make this the newest snapshot and wake every reader."""
        if self._closed:
            return
        self._last_publish = asyncio.get_running_loop().time()
        self._latest = snapshot
        self._encoded = {}
        self._wake()

    def request_publish(self) -> None:
        """Ask for a snapshot of what is true from here on; many requests make one snapshot."""
        if self._pending is not None or self._closed:
            return
        loop = asyncio.get_running_loop()
        due = max(loop.time(), self._last_publish + self._interval_s)
        self._pending = loop.call_at(due, self._publish_requested)

    def publish_now(self) -> None:
        """Build and publish at once, for the first snapshot and the last one."""
        self._cancel_pending()
        self._publish_requested()

    def encoded(self, kind: str, encode: Callable[[Snapshot], bytes]) -> bytes | None:
        """Return the newest snapshot as bytes, made once for each ``kind`` and snapshot.

        None before the first snapshot.
        """
        if self._latest is None:
            return None
        found = self._encoded.get(kind)
        if found is None:
            found = self._encoded[kind] = encode(self._latest)
        return found

    async def wait_newer(self, than: Snapshot | None) -> Snapshot | None:
        """Return the newest snapshot once it is another one than ``than``.

        None when the bus is closed and there is no other.
        """
        while self._latest is None or self._latest is than:
            if self._closed:
                return None
            await self._changed.wait()
        return self._latest

    async def subscribe(self) -> AsyncIterator[Snapshot]:
        """Yield the newest snapshot at once and after each change, skipping what came between.

        Ends when the bus is closed, after the last snapshot.
        """
        seen = None
        while (newest := await self.wait_newer(seen)) is not None:
            seen = newest
            yield newest

    def close(self) -> None:
        """End all subscriptions; nothing is published after it."""
        self._cancel_pending()
        self._closed = True
        self._wake()

    def _publish_requested(self) -> None:
        self._pending = None
        try:
            snapshot = self._build()
        except Exception:
            # A view that can't be built must not end what it shows (SPEC 14.2).
            _log.exception("could not build a snapshot")
            self._last_publish = asyncio.get_running_loop().time()
            return
        self.publish(snapshot)

    def _wake(self) -> None:
        # Each change has an event of its own: a reader that is cancelled disturbs nobody.
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _cancel_pending(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None
