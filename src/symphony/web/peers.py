"""Who is at the other end of the control socket, and may that process give orders?

Role: reads the peer's pid and user from the kernel when a connection is made (SO_PEERCRED) and
judges it. The socket's file mode keeps other users out; agents run as the same user, so what
descends from a run is refused (an agent must not answer for its operator).
Invariant: without a peer that the kernel vouches for nothing is allowed; over TCP there is none.
Neighbours: ``embedded`` installs the protocol class, ``control`` asks.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

EXTENSION = "symphony.peer"
"""Key of the scope's extensions under which a request has its ``Peer``; absent over TCP."""

_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Peer:
    """A process that connected to the control socket, as the kernel saw it then."""

    pid: int
    uid: int


class PeerProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol that also notes who connected."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as upstream
        """Take a connection and ask the kernel who made it."""
        super().connection_made(transport)
        self._peer = peer_of(transport.get_extra_info("socket"))

    def on_headers_complete(self) -> None:
        """Hand the peer on with the request."""
        if self._peer is not None:
            self.scope.setdefault("extensions", {})[EXTENSION] = {"peer": self._peer}
        super().on_headers_complete()


def peer_of(sock: Any) -> Peer | None:
    """Return who is at the other end of a unix socket, or None for any other one."""
    if sock is None or sock.family != socket.AF_UNIX:
        return None
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return None
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return Peer(pid, uid)


def peer_in(scope: Mapping[str, Any]) -> Peer | None:
    """Return the peer of a request, or None where the kernel vouches for none."""
    noted = (scope.get("extensions") or {}).get(EXTENSION)
    return noted["peer"] if noted else None


def is_our_user(peer: Peer) -> bool:
    """Tell whether the peer runs as the daemon's user, or as root."""
    return peer.uid in (0, os.getuid())
