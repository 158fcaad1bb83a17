"""Watches what the daemon stands on: resources of its hosts, and its own files.

A timer of its own, beside the loop; reads are made in threads. The scheduler is told when a verdict
changes, while starts wait to be seen in the figures, and every half minute, so that an idle daemon
publishes nothing for it. Invariant: one read
at a time; a disk that hangs costs these figures and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from symphony.config.places import Places
from symphony.model.resources import HostResources
from symphony.observe.logs import get_logger
from symphony.scheduler.eligibility import ResourceRules
from symphony.scheduler.events import Event, PlacesChecked, ResourcesRead
from symphony.scheduler.resources import shortage

_log = get_logger(__name__)

INTERVAL_S = 5.0
TELL_EVERY = 6
"""The scheduler is told of figures without a change of verdict every so many readings."""

PATIENCE_S = 10.0
"""A read that takes longer is told once and waited for."""


class ConditionWatch:
    """Reads and tells.

    Args:
        resources: Reads what a host has left; must not raise.
        rules: The limits in force.
        places: The daemon's own files.
        post: The mailbox.
        wanted: Says that every reading is to be told: starts wait to be seen in one.
        interval_s: Between two readings.
    """

    def __init__(
        self,
        *,
        resources: Callable[[], Awaitable[HostResources]],
        rules: Callable[[], ResourceRules],
        places: Places,
        post: Callable[[Event], None],
        wanted: Callable[[], bool] = lambda: False,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._resources = resources
        self._rules = rules
        self._places = places
        self._post = post
        self._wanted = wanted
        self._interval_s = interval_s
        self._readings = 0
        self._verdict: str | None = None
        self._lost: str | None = None
        self._faults: set[str] = set()

    async def run(self) -> None:
        """Look now and every few seconds, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._interval_s)

    async def look(self) -> None:
        """Read everything once and tell what is news."""
        reading = asyncio.gather(self._resources(), asyncio.to_thread(self._places.lost))
        done, _ = await asyncio.wait([reading], timeout=PATIENCE_S)
        if not done:
            _log.warning("The host's resources can't be read: its disk does not answer")
        found, lost = await reading
        self._tell_faults(found)
        rules = self._rules()
        verdict = shortage(found, rules, was_short=self._verdict is not None)
        is_news = bool(verdict) != bool(self._verdict) or self._wanted()
        if is_news or self._readings % TELL_EVERY == 0:
            self._post(ResourcesRead(found))
        self._readings += 1
        self._verdict = verdict
        if lost != self._lost:
            self._lost = lost
            self._post(PlacesChecked(lost))

    def _tell_faults(self, found: HostResources) -> None:
        """Warn of each figure that can't be read, once, where a limit needs it."""
        rules = self._rules()
        for fault in found.faults:
            is_needed = not fault.startswith("memory pressure") or rules.max_pressure is not None
            if is_needed and fault not in self._faults:
                self._faults.add(fault)
                _log.warning("A limit of the host is not checked", host=found.host, problem=fault)
