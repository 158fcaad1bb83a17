"""Answers that a provider may confirm with a 304 instead of sending them again.

A bounded store of the answers that had an ``ETag`` or ``Last-Modified``, least recently used first
out. ``http`` asks it before a conditional read and fills it after.

Invariant: an answer is only given to the credentials that it was made for, since what a token may
see differs; the key holds a digest of them, never the credentials.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

MAX_ENTRIES: Final = 512
MAX_BYTES: Final = 64 << 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    answer: T
    size: int
    validators: Mapping[str, str]


class EtagStore(Generic[T]):
    """Answers by URL and credentials; may be shared by the clients of one process."""

    def __init__(self, *, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        self._entries: OrderedDict[tuple[str, str], _Entry[T]] = OrderedDict()
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @staticmethod
    def scope_of(headers: Mapping[str, str]) -> str:
        """A digest of what may change an answer besides its URL: credentials, format, version."""
        lines = sorted(f"{name.lower()}:{value}" for name, value in headers.items())
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def validators(self, url: str, scope: str) -> Mapping[str, str]:
        """Headers that make a read of this URL conditional; none where nothing is kept."""
        entry = self._entries.get((scope, url))
        return entry.validators if entry is not None else {}

    def get(self, url: str, scope: str) -> T | None:
        """The answer that a 304 confirms."""
        entry = self._entries.get((scope, url))
        if entry is None:
            return None
        self._entries.move_to_end((scope, url))
        return entry.answer

    def put(
        self, url: str, scope: str, answer: T, *, headers: Mapping[str, str], size: int
    ) -> None:
        """Keep a complete answer (header names in lower case); forget one without validators."""
        self.drop(url, scope)
        validators = {}
        if "etag" in headers:
            validators["If-None-Match"] = headers["etag"]
        elif "last-modified" in headers:
            validators["If-Modified-Since"] = headers["last-modified"]
        if not validators or size > self._max_bytes:
            return
        self._entries[(scope, url)] = _Entry(answer, size, validators)
        self._bytes += size
        while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self._bytes -= oldest.size

    def drop(self, url: str, scope: str) -> None:
        """Forget an answer."""
        entry = self._entries.pop((scope, url), None)
        if entry is not None:
            self._bytes -= entry.size
