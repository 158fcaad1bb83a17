"""Publishes snapshots: at most ten a second, after what they show is durable.

Building one takes time in the daemon's only loop, in proportion to what runs: pauses grow with it.

A step only asks for a snapshot. The publisher waits out the rest of the interval, lets the ledger
finish what was queued before (a retry or a block is durable before it is shown), turns the newest
event of each run into text, builds the snapshot once and hands it to the bus.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from symphony.errors import LedgerError
from symphony.model.run import RunId, RunProgress
from symphony.observe.logs import get_logger
from symphony.scheduler.snapshot import Snapshot

_log = get_logger(__name__)

MIN_INTERVAL_S = 0.1
"""Snapshots are at least this far apart."""

PAUSE_PER_COST = 19
"""A pause lasts at least so many times what the last snapshot has cost: a twentieth of the time."""

LONGEST_PAUSE_S = 1.0
"""But never longer than this: people look at it."""

PROGRESS_INTERVAL_S = 0.1
"""Runs change their records without a step; a snapshot shows that within this time."""

QUIET_INTERVAL_S = 1.0
"""The same where no run has changed its record: only ages and run times are new."""

DURABLE_LIMIT_S = 1.0
"""A ledger that does not come to an end (a hung disk) must not hide what the daemon does."""


class Publisher:
    """Coalesces requests into snapshots.

    Args:
        build: Makes a snapshot of the present state.
        publish: Takes it (the bus).
        durable: Awaited before each build.
        progress: Live records of the runs; their newest event is settled into text.
        settle: Turns a run's newest event into a text.
    """

    def __init__(
        self,
        *,
        build: Callable[[], Snapshot],
        publish: Callable[[Snapshot], None],
        durable: Callable[[], Awaitable[None]],
        progress: Mapping[RunId, RunProgress],
        settle: Callable[[Any], str],
    ) -> None:
        self._build = build
        self._publish = publish
        self._durable = durable
        self._progress = progress
        self._settle = settle
        self._wanted = asyncio.Event()
        self._shown = 0.0

    def request(self) -> None:
        """Ask for a snapshot soon."""
        self._wanted.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._next_request()
            self._wanted.clear()
            began = loop.time()
            await self._until_durable()
            building = loop.time()
            self.publish_now()
            built = loop.time()
            pause_s = min(PAUSE_PER_COST * (built - building), LONGEST_PAUSE_S)
            await asyncio.sleep(max(pause_s, MIN_INTERVAL_S - (built - began)))

    def publish_now(self) -> None:
        """Build and publish at once."""
        self._shown = self._newest_activity()
        try:
            for progress in self._progress.values():
                message = progress.last_message
                if message is not None and not isinstance(message, str):
                    # Taken away first: one that can't be told is given up, not met again.
                    progress.last_message = None
                    progress.last_message = self._settle(message)
            snapshot = self._build()
        except Exception:
            # A view that can't be built must not end what it shows (SPEC 14.2).
            _log.exception("Snapshot could not be built")
            return
        self._publish(snapshot)

    async def _next_request(self) -> None:
        """Wait until somebody asks, a run has changed its record, or ages are due."""
        waited = 0.0
        while not self._wanted.is_set():
            try:
                async with asyncio.timeout(PROGRESS_INTERVAL_S if self._progress else None):
                    await self._wanted.wait()
            except TimeoutError:
                waited += PROGRESS_INTERVAL_S
                if waited >= QUIET_INTERVAL_S or self._newest_activity() != self._shown:
                    return

    def _newest_activity(self) -> float:
        return max((run.last_activity_mono for run in self._progress.values()), default=0.0)

    async def _until_durable(self) -> None:
        try:
            async with asyncio.timeout(DURABLE_LIMIT_S):
                await self._durable()
        except (TimeoutError, LedgerError):
            # The ledger says itself that it is degraded; the view goes on.
            return
