"""Tells of failing writes of the ledger once, not once a write: a full disk fails hundreds of them.

``executor`` reports each write; the ledger itself keeps what it owes and says that it is degraded.
"""

from __future__ import annotations

from symphony.observe.logs import get_logger

_log = get_logger(__name__)


class WriteFaults:
    """Counts the failures of one condition: from the first one to the next success."""

    def __init__(self) -> None:
        self._count = 0

    def failed(self, what: str, error: str) -> None:
        """Take in a failure; the first one is an error in the log, the others are counted."""
        self._count += 1
        tell = _log.error if self._count == 1 else _log.debug
        tell("Ledger write failed", what=what, error=error)

    def succeeded(self) -> None:
        """Take in a success, and say how many failures it ends."""
        if self._count > 1:
            _log.warning("Ledger writes had failed", count=self._count)
        self._count = 0
