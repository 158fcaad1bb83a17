"""What the daemon shows of itself: the state, the live records of its runs, the rate limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import codex_app_server as codex

from symphony.model.run import RunId, RunProgress
from symphony.observe.humanize import humanize
from symphony.scheduler.publish import build_snapshot
from symphony.scheduler.snapshot import Snapshot
from symphony.scheduler.state import SchedulerState
from symphony.service.options import read_clock

_DECODED_BYTES = 256 * 1024
"""Whole files and outputs are not decoded for the sake of one line."""


class View:
    """Builds snapshots.

    Attributes:
        progress: Live records of the runs; the executor adds and removes them.
    """

    def __init__(self, state: SchedulerState) -> None:
        self._state = state
        self._sequence = 0
        self._rate_limits: dict[str, Any] | None = None
        self.progress: dict[RunId, RunProgress] = {}

    def snapshot(self) -> Snapshot:
        """Return what is true now."""
        self._sequence += 1
        return build_snapshot(
            self._state,
            self.progress,
            read_clock(),
            sequence=self._sequence,
            rate_limits=self._rate_limits,
        )

    def keep_rate_limits(self, limits: Mapping[str, Any]) -> None:
        """Keep the newest rate limits; nulls never take the place of known values."""
        known = {key: value for key, value in limits.items() if value is not None}
        if known.keys() - {"limitId", "limitName"}:
            self._rate_limits = {**(self._rate_limits or {}), **known}


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
