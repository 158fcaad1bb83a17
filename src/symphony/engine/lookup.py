"""Asks the tracker for one issue that somebody names: few and short requests, whoever asks.

Role: ``explain``, ``stop`` and ``retry`` work for every issue of the tracker, also for those that
no poll shows. Invariant: one read at a time, one read a question, no more than ``BURST`` of them in
a row and one in ``REFILL_S`` after that; none while the tracker has asked to be left alone.
Neighbours: ``service.backend`` asks; the scheduler's own reads go through ``executor``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import ceil
from typing import Final

from symphony.errors import TrackerError
from symphony.model.issue import Issue
from symphony.trackers.base import Tracker

LIMIT_S: Final = 8.0
"""A look-up ends after this time, the wait for another one included: before its asker gives up."""

BURST: Final = 10
REFILL_S: Final = 10.0
FRESH_S: Final = 2.0
"""So long an answer serves whoever asks for the same name."""

NAME_LIMIT: Final = 300
"""Characters of a name; no tracker has longer identifiers."""


class IssueLookup:
    """Looks issues up by name, within a budget of requests.

    Args:
        tracker: Returns the tracker that is in force.
        mono: Monotonic seconds.
        not_before: Until when (monotonic seconds) the tracker wants to be left alone.
        limit_s: How long a look-up may take.
    """

    def __init__(
        self,
        *,
        tracker: Callable[[], Tracker],
        mono: Callable[[], float],
        not_before: Callable[[], float],
        limit_s: float = LIMIT_S,
    ) -> None:
        self._tracker = tracker
        self._mono = mono
        self._not_before = not_before
        self._limit_s = limit_s
        self._lock = asyncio.Lock()
        self._left = float(BURST)
        self._refilled_mono = mono()
        self._answers: dict[str, tuple[float, Tracker, Issue | None]] = {}

    async def find(self, name: str) -> Issue | None:
        """Return the visible issue of this identifier or id; None where the tracker has none.

        Raises:
            TrackerError: It can't be asked, does not answer, or has been asked too often.
        """
        if not name.strip() or len(name) > NAME_LIMIT:
            return None
        try:
            async with asyncio.timeout(self._limit_s), self._lock:
                return await self._found(name.strip())
        except TimeoutError:
            text = f"the tracker has not answered within {self._limit_s:g} s"
            raise TrackerError("tracker_request", text) from None

    async def _found(self, name: str) -> Issue | None:
        now, tracker = self._mono(), self._tracker()
        self._answers = {
            known: answer
            for known, answer in self._answers.items()
            if now - answer[0] < FRESH_S and answer[1] is tracker
        }
        if name in self._answers:
            return self._answers[name][2]
        self._spend(now)
        issue = await tracker.fetch_issue(name)
        self._answers[name] = (now, tracker, issue)
        return issue

    def _spend(self, now: float) -> None:
        wait_s = self._not_before() - now
        if wait_s > 0:
            text = f"the tracker has asked to be left alone for {ceil(wait_s)} s more"
            raise TrackerError("tracker_rate_limited", text, retry_after_s=wait_s)
        self._left = min(float(BURST), self._left + (now - self._refilled_mono) / REFILL_S)
        self._refilled_mono = now
        if self._left < 1:
            wait_s = (1 - self._left) * REFILL_S
            text = (
                f"the tracker has been asked for {BURST} issues in a short time; "
                f"ask again in {ceil(wait_s)} s"
            )
            raise TrackerError("tracker_rate_limited", text, retry_after_s=wait_s)
        self._left -= 1
