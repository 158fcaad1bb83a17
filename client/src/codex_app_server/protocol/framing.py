"""Bytes to lines: split once a chunk, cap the length, never fail.

Invariant: every byte fed belongs to exactly one line; a line over the cap is replaced by an
`Oversized` value and costs no memory beyond its first bytes. Neighbour: `protocol.rpc` decodes
the lines.
"""

from __future__ import annotations

from msgspec import Struct

__all__ = ["DEFAULT_MAX_LINE_BYTES", "LineSplitter", "Oversized"]

DEFAULT_MAX_LINE_BYTES = 256 * 1024 * 1024
KEPT_BYTES = 1024


class Oversized(Struct, frozen=True):
    """A line that was longer than the cap.

    Attributes:
        head: Its first bytes.
        size: Its whole length without the newline.
    """

    head: bytes
    size: int


class LineSplitter:
    """Cuts a byte stream at newlines.

    Args:
        max_line_bytes: Longest line that is passed on, without its newline.
    """

    __slots__ = ("_discarded", "_max", "_parts", "_size")

    def __init__(self, max_line_bytes: int = DEFAULT_MAX_LINE_BYTES) -> None:
        self._max = max_line_bytes
        self._parts: list[bytes] = []
        self._size = 0
        self._discarded: bytes | None = None

    @property
    def buffered(self) -> int:
        """Bytes held of the unfinished line."""
        return 0 if self._discarded is not None else self._size

    def feed(self, chunk: bytes) -> list[bytes | Oversized]:
        """Take the next bytes; return the lines that they complete, without newlines."""
        lines: list[bytes | Oversized] = chunk.split(b"\n")  # type: ignore[assignment] # widened
        tail = lines.pop()
        assert isinstance(tail, bytes)
        if lines:
            if self._size:
                first = lines[0]
                assert isinstance(first, bytes)
                lines[0] = self._finish(first)
            if len(chunk) > self._max:
                lines = [self._cap(line) for line in lines]
        if tail:
            self._hold(tail)
        return lines

    def finish(self) -> list[bytes | Oversized]:
        """Return what is left at the end of the stream: one unterminated line, or nothing."""
        return [self._finish(b"")] if self._size else []

    def drop(self) -> None:
        """Let go of the unfinished line."""
        self._parts, self._size, self._discarded = [], 0, None

    def _hold(self, part: bytes) -> None:
        self._size += len(part)
        if self._discarded is not None:
            return
        self._parts.append(part)
        if self._size > self._max:
            self._discarded = b"".join(self._parts)[:KEPT_BYTES]
            self._parts = []

    def _finish(self, part: bytes) -> bytes | Oversized:
        self._hold(part)
        size, head = self._size, self._discarded
        line = b"".join(self._parts)
        self._parts, self._size, self._discarded = [], 0, None
        return line if head is None else Oversized(head, size)

    def _cap(self, line: bytes | Oversized) -> bytes | Oversized:
        if isinstance(line, bytes) and len(line) > self._max:
            return Oversized(line[:KEPT_BYTES], len(line))
        return line
