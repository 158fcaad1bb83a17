"""A limit on what several connections hold of unfinished lines together.

`Connection.open` bounds one line; a process with hundreds of connections would still hold that much
for each. Invariant: what is held is counted once a chunk, never once an event, and never exceeds
the limit for longer than it takes to end one connection.
"""

from __future__ import annotations

from typing import Protocol

from codex_app_server.checks import COUNT, check_values
from codex_app_server.errors import BufferLimitExceeded

__all__ = ["BufferBudget"]


class Holder(Protocol):
    """A connection, as the budget sees it."""

    def over_budget(self, error: BufferLimitExceeded) -> None:
        """End with this error, and let go of what is held."""


class BufferBudget:
    """How many bytes of unfinished lines the connections that share it may hold in all.

    Pass one object to every connection (``buffer_budget``). Where a server writes a line without
    end, the connection that holds the most is ended with `BufferLimitExceeded`, the others go on.
    For one event loop; it is not to be shared by several.

    Args:
        max_bytes: The limit.

    Attributes:
        max_bytes: The limit; a new value counts from the next chunk on.
        held_bytes: What is held now.

    Raises:
        InvalidArgument: ``max_bytes`` is no count of at least 1.
    """

    __slots__ = ("_held", "held_bytes", "max_bytes")

    def __init__(self, max_bytes: int) -> None:
        check_values(max_bytes=(max_bytes, COUNT))
        self.max_bytes = max_bytes
        self.held_bytes = 0
        self._held: dict[Holder, int] = {}

    def hold(self, holder: Holder, size: int) -> None:
        """Take in what a connection holds now; end those that hold the most while it is too much.

        For connections; 0 forgets the holder.
        """
        self.held_bytes += size - self._held.get(holder, 0)
        if size:
            self._held[holder] = size
        else:
            self._held.pop(holder, None)
        while self.held_bytes > self.max_bytes:
            largest = max(self._held, key=self._held.__getitem__)
            taken = self._held.pop(largest)
            error = BufferLimitExceeded(self.max_bytes, self.held_bytes, taken)
            self.held_bytes -= taken
            largest.over_budget(error)
