"""The web server in the daemon's own event loop.

Role: serves one application on the control socket and, where a port is given, on TCP.
Invariant: it takes no signals, starts no threads, and is gone within about a second of ``stop``,
event streams included.
Neighbours: ``listeners`` opens the sockets first; Starlette, Jinja2 and uvicorn are imported by
``run``, not before, so that neither the command line nor the first poll waits for them.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .backend import Backend
from .listeners import ControlSocket, WebError, bound_port, dashboard_url, open_tcp, open_unix
from .webhooks import Webhooks

if TYPE_CHECKING:
    import uvicorn

    from .streams import Streams

__all__ = ["WebError", "WebServer"]

_log = logging.getLogger("symphony.web")
_GRACE_S = 1
ARRIVAL_LIMIT_S = 20.0
"""A megabyte takes a second at 8 Mbit/s; providers give up after ten."""
"""Seconds that answers in flight have when the server stops; uvicorn takes whole ones."""


class WebServer:
    """Serves the API and the dashboard.

    ``listen_control`` and ``listen_tcp`` open the sockets and raise at once; ``run`` serves until
    ``stop``. A daemon that wants to live on without a port catches the error of ``listen_tcp``.

    Args:
        backend: What is shown.
        allowed_hosts: More names that the Host header may have, for a reverse proxy.
        webhooks: Judges deliveries of the tracker; None takes none.
        arrival_s: Longest time that a request may take to arrive.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        allowed_hosts: Iterable[str] = (),
        webhooks: Webhooks | None = None,
        arrival_s: float = ARRIVAL_LIMIT_S,
    ) -> None:
        self._arrival_s = arrival_s
        self._backend = backend
        self._webhooks = webhooks
        self._allowed_hosts = tuple(allowed_hosts)
        self._control: ControlSocket | None = None
        self._tcp: socket.socket | None = None
        self._host = "127.0.0.1"
        self._stopping = asyncio.Event()
        self._started = asyncio.Event()
        self.port: int | None = None

    @property
    def is_woken(self) -> bool:
        """Whether webhooks come and are well (``Webhooks.wakes``)."""
        return self._webhooks is not None and self._webhooks.wakes

    @property
    def url(self) -> str | None:
        """The dashboard's address for people, or None without TCP."""
        return None if self.port is None else dashboard_url(self._host, self.port)

    def listen_control(self, path: Path) -> None:
        """Open the control socket with mode 0600.

        Raises:
            WebError: ``control_socket_unusable``.
        """
        self._control = open_unix(path)

    def listen_tcp(self, host: str, port: int) -> int:
        """Open a TCP port, 0 for a free one; return the port that it got.

        Raises:
            WebError: ``server_port_in_use``, ``server_port_forbidden``, ``server_port_invalid`` or
                ``server_host_invalid``.
        """
        self._tcp = open_tcp(host, port)
        self._host = host
        self.port = bound_port(self._tcp)
        return self.port

    async def wait_started(self) -> None:
        """Wait until requests are answered."""
        await self._started.wait()

    def stop(self) -> None:
        """End ``run``: streams at once, answers in flight within a second."""
        self._stopping.set()

    def close(self) -> None:
        """Close sockets that were opened but not served; ``run`` does it for itself."""
        if self._control is not None:
            self._control.close()
        if self._tcp is not None:
            self._tcp.close()

    async def run(self) -> None:
        """Serve until ``stop`` is called or the task is cancelled; then close the sockets.

        A fault of the server itself is logged and ends it alone: nothing may depend on being
        watched (SPEC 13.7).
        """
        sockets = [self._control.sock] if self._control is not None else []
        sockets += [self._tcp] if self._tcp is not None else []
        try:
            if sockets and not self._stopping.is_set():
                await self._serve(sockets)
        except Exception:
            _log.exception("the web server failed; the daemon goes on without it")
        finally:
            self.close()

    async def _serve(self, sockets: list[socket.socket]) -> None:
        from .app import build_app
        from .embedded import make_server
        from .guard import HostRule
        from .streams import Streams

        streams = Streams(self._backend)
        hosts = HostRule(self._host, self._allowed_hosts)
        app = build_app(self._backend, streams, hosts, self._webhooks)
        server = make_server(
            app,
            started=self._started,
            stopping=self._stopping,
            grace_s=_GRACE_S,
            arrival_s=self._arrival_s,
        )
        serving = asyncio.create_task(server.serve(sockets), name="web server")
        try:
            stopping = asyncio.create_task(self._stopping.wait(), name="web stopping")
            await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
        finally:
            await self._end(server, serving, streams)

    async def _end(
        self, server: uvicorn.Server, serving: asyncio.Task[None], streams: Streams
    ) -> None:
        # Before anything is cancelled: open streams would otherwise hold the shutdown.
        self._stopping.set()
        streams.close()
        server.should_exit = True
        await serving
