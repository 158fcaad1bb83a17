"""What the daemon shows of itself: the state, the live records of its runs, the rate limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import codex_app_server as codex

from symphony.model.run import RunId, RunProgress
from symphony.observe.humanize import humanize
from symphony.observe.tally import Tally
from symphony.scheduler.publish import build_snapshot
from symphony.scheduler.snapshot import Snapshot, TrackerLimitRow, TrackerRow
from symphony.scheduler.state import SchedulerState
from symphony.service.options import read_clock
from symphony.trackers.base import Metered, Tracker

_DECODED_BYTES = 256 * 1024
"""Whole files and outputs are not decoded for the sake of one line."""


class View:
    """Builds snapshots.

    Args:
        state: The scheduler's.
        tracker: Returns the tracker in force.
        webhook_error: Returns what is wrong with the webhooks, or None.
        ledger_error: Returns why the ledger can't be written, or None.

    Attributes:
        progress: Live records of the runs; the executor adds and removes them.
        tally: What the executor counts.
    """

    def __init__(
        self,
        state: SchedulerState,
        *,
        tracker: Callable[[], Tracker],
        webhook_error: Callable[[], str | None],
        ledger_error: Callable[[], str | None],
    ) -> None:
        self._state = state
        self._tracker = tracker
        self._webhook_error = webhook_error
        self._ledger_error = ledger_error
        self._sequence = 0
        self._rate_limits: dict[str, Any] | None = None
        self.progress: dict[RunId, RunProgress] = {}
        self.tally = Tally()

    def snapshot(self) -> Snapshot:
        """Return what is true now."""
        self._sequence += 1
        return build_snapshot(
            self._state,
            self.progress,
            read_clock(),
            sequence=self._sequence,
            rate_limits=self._rate_limits,
            tracker=tracker_row(self._tracker()),
            webhook_error=self._webhook_error(),
            ledger_error=self._ledger_error(),
        )

    def keep_rate_limits(self, limits: Mapping[str, Any]) -> None:
        """Keep the newest rate limits; nulls never take the place of known values."""
        known = {key: value for key, value in limits.items() if value is not None}
        if known.keys() - {"limitId", "limitName"}:
            self._rate_limits = {**(self._rate_limits or {}), **known}


def tracker_row(tracker: Tracker) -> TrackerRow:
    """Return what is shown of a tracker; without numbers where it is no HTTP one."""
    if not isinstance(tracker, Metered):
        return TrackerRow(kind=tracker.kind)
    meter = tracker.http
    limit = meter.rate_limit
    return TrackerRow(
        kind=tracker.kind,
        limit=None if limit is None else limit.limit,
        remaining=None if limit is None else limit.remaining,
        reset_wall=None if limit is None else limit.reset_wall,
        requests=meter.requests,
        not_modified=meter.not_modified,
        answers=dict(meter.answers),
        rate_limits=tuple(
            TrackerLimitRow(
                resource=one.resource,
                limit=one.limit,
                remaining=one.remaining,
                reset_wall=one.reset_wall,
            )
            for one in meter.rate_limits.values()
        ),
        breaker=meter.breaker_state,
    )


def describe(message: Any) -> str:
    """Turn an event (of the wire, or one of our own) into a line for people."""
    if message is None or isinstance(message, str):
        return message or ""
    if isinstance(message, codex.Event):
        params = message.data if len(message.raw) <= _DECODED_BYTES else {}
        return humanize("notification", {"method": message.method, "params": params})
    event = str(message.get("event"))
    if event == "turn_completed":
        return humanize("notification", {"method": "turn/completed", "params": {}})
    return humanize(event, message)
