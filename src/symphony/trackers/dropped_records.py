"""Tells of malformed records that a state read leaves out: each once, and again when it changes.

A board is read every few seconds and a bad record stays there until a person mends it, so a warning
for each poll would hide every other one. The adapters keep one ``DroppedRecords`` each.

Invariant: a record that was mended and breaks again is told of again; what is kept is no larger
than the records of the last reads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from typing import Any, Final

import structlog

from .rest_records import dig

_NAMES: Final = ("identifier", "key", "iid", "number", "gid", "id")
"""Where providers keep what a person calls a record by."""
_KINDS: Final = 8
"""Kinds of reads that are remembered: active states, finished ones, those of a reload."""

log = structlog.get_logger(__name__)


class DroppedRecords:
    """What of one tracker was told.

    Args:
        provider: Its name, for the message.
    """

    def __init__(self, provider: str) -> None:
        self._message = f"Dropping malformed {provider} issue records"
        self._told: dict[Hashable, dict[str, str]] = {}

    def tell(self, kind: Sequence[str], dropped: Sequence[tuple[Any, Exception]]) -> None:
        """Warn of what is new among the records that a read leaves out.

        Args:
            kind: The states that were asked for.
            dropped: Records with what is wrong with each.
        """
        reads = frozenset(kind)
        before = self._told.pop(reads, {})
        now = {_name(record): _digest(record, problem) for record, problem in dropped}
        fresh = [
            f"{_name(record)}: {problem}"
            for record, problem in dropped
            if before.get(_name(record)) != _digest(record, problem)
        ]
        if fresh:
            log.warning(self._message, count=len(dropped), problems="; ".join(fresh[:3]))
        self._told[reads] = now
        while len(self._told) > _KINDS:
            del self._told[next(iter(self._told))]


def _name(record: object) -> str:
    for key in _NAMES:
        value = dig(record, key)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return "".join(c if c.isprintable() else " " for c in str(value))[:60]
    return "a record without an id"


def _digest(record: object, problem: Exception) -> str:
    content = f"{problem} {record!r}".encode("utf-8", "backslashreplace")
    return hashlib.blake2s(content, digest_size=8).hexdigest()
