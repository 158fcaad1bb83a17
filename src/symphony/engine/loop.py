"""The loop: take what is in the mailbox, step, hand the commands on, sleep until the next due time.

It awaits nothing but its mailbox and its timer: tracker, disk and processes are the executor's, so
a slow tracker delays no event and no answer of the API.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from symphony.model.clock import Instant
from symphony.observe.logs import get_logger
from symphony.scheduler.commands import Command
from symphony.scheduler.events import Event, WakeUp
from symphony.scheduler.state import SchedulerState, next_wakeup
from symphony.scheduler.step import step

_log = get_logger(__name__)


class Mailbox:
    """The one queue into the scheduler. Posting never blocks and is safe from the loop's thread."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._arrived = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def post(self, event: Event) -> None:
        """Add an event; the loop takes events in this order."""
        self._events.append(event)
        self._empty.clear()
        self._arrived.set()

    def take(self) -> Event | None:
        """Return the oldest event, or None."""
        event = self._events.popleft() if self._events else None
        if not self._events:
            self._empty.set()
        return event

    async def caught_up(self) -> None:
        """Return once what was posted before is taken and the commands of it are under way.

        A step follows its event at once, so that only the start of its writes is left to wait for.
        """
        await self._empty.wait()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def wait(self, timeout_s: float | None) -> None:
        """Return once an event is there or the time is up."""
        if self._events:
            return
        self._arrived.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._arrived.wait()
        except TimeoutError:
            return


class Loop:
    """Runs the scheduler's state through its events.

    Args:
        state: Owned by this loop from here on.
        mailbox: Where everybody posts.
        execute: Starts carrying commands out; must not block.
        clock: Reads both clocks.
        stepped: Called after each step, for the publisher.
    """

    def __init__(
        self,
        *,
        state: SchedulerState,
        mailbox: Mailbox,
        execute: Callable[[Sequence[Command]], None],
        clock: Callable[[], Instant],
        stepped: Callable[[], None],
    ) -> None:
        self.state = state
        self._mailbox = mailbox
        self._execute = execute
        self._clock = clock
        self._stepped = stepped

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            event = self._mailbox.take()
            if event is not None:
                self.feed(event)
                continue
            due = next_wakeup(self.state)
            delay = None if due is None else due - self._clock().mono
            if delay is not None and delay <= 0:
                self.feed(WakeUp())
                # A due time that a wake-up can't settle must not starve the other tasks.
                await asyncio.sleep(0)
            else:
                await self._mailbox.wait(delay)

    def feed(self, event: Event) -> None:
        """Step once with this event and hand its commands on."""
        try:
            commands = step(self.state, event, self._clock())
        except Exception:
            # The last line of defence: one event that the core can't take must not end all runs.
            _log.exception("Scheduler step failed", scheduler_event=type(event).__name__)
            return
        self._execute(commands)
        self._stepped()
