"""Byte pipes to an app-server: the `Transport` seam, and where its implementations are.

Invariants of every transport: bytes given to `send` are written whole and in order, or the
transport is broken; a cancelled `send` never leaves half a line; the loop is never blocked. One
reader calls `receive`.

`FdTransport` adopts two descriptors (hosts create processes elsewhere and hand over their
pipes), `SubprocessTransport` starts a process; `codex_app_server.websocket` reaches a server that
listens, `codex_app_server.testing` has those for tests. Above is `codex_app_server.connection`.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from codex_app_server.descriptors import FdTransport
from codex_app_server.process import SubprocessTransport

__all__ = ["FdTransport", "SubprocessTransport", "Transport"]


@runtime_checkable
class Transport(Protocol):
    """A two-way byte pipe.

    An implementation may also offer ``async exit_status(timeout_s) -> int | None``, asked after
    the end of the stream.
    """

    async def send(self, data: bytes) -> None:
        """Write complete lines; returns when they are written or buffered below the high water.

        Raises:
            ConnectionClosed: The other side has closed its end.
        """
        ...

    async def receive(self) -> bytes:
        """Return the next bytes, at most a few hundred KiB; ``b""`` at the end of the stream."""
        ...

    async def aclose(self) -> None:
        """Release everything; safe to call twice."""
        ...
