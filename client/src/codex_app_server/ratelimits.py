"""The account's rate limits: the last good snapshot, whatever arrives after it.

Invariant: a null member never overwrites a value; the server sends all nulls after a model reply
without rate limit headers. Pure.
"""

from __future__ import annotations

from typing import Any

__all__ = ["RateLimits"]

_NAMES = frozenset({"limitId", "limitName"})


class RateLimits:
    """Merged snapshots, one a limit id.

    Attributes:
        snapshot: The one last updated with something useful, as received and merged; or None.
    """

    __slots__ = ("_by_id", "_last_id", "snapshot")

    def __init__(self) -> None:
        self._by_id: dict[str | None, dict[str, Any]] = {}
        self._last_id: str | None = None
        self.snapshot: dict[str, Any] | None = None

    def update(self, received: object) -> None:
        """Take ``rateLimits`` of a notification."""
        if not isinstance(received, dict):
            return
        useful = {name: value for name, value in received.items() if value is not None}
        if not useful.keys() - _NAMES:
            return
        limit_id = received.get("limitId")
        if not isinstance(limit_id, str):
            # What names no limit speaks of the one that was last spoken of.
            limit_id = self._last_id
        merged = dict(self._by_id.get(limit_id, {}))
        for name, value in useful.items():
            before = merged.get(name)
            if isinstance(value, dict) and isinstance(before, dict):
                present = {key: new for key, new in value.items() if new is not None}
                merged[name] = {**before, **present}
            else:
                merged[name] = value
        self._by_id[limit_id] = self.snapshot = merged
        self._last_id = limit_id
