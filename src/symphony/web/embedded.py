"""uvicorn as a guest in another loop: no signals, no lifespan, no polling.

Neighbours: ``server`` imports it when it serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from .arrival import timely


class EmbeddedServer(uvicorn.Server):
    """A uvicorn server whose host decides when it ends."""

    def __init__(
        self, config: uvicorn.Config, *, started: asyncio.Event, stopping: asyncio.Event
    ) -> None:
        super().__init__(config)
        self._started = started
        self._stopping = stopping

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the daemon."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to answer, and tell."""
        await super().startup(sockets)
        self._started.set()

    async def main_loop(self) -> None:
        """Wait for the end; uvicorn's own loop wakes ten times a second to look for it."""
        await self.on_tick(0)
        await self._stopping.wait()


def make_server(
    app: ASGIApp,
    *,
    started: asyncio.Event,
    stopping: asyncio.Event,
    grace_s: int,
    arrival_s: float,
) -> EmbeddedServer:
    """Return a server for ``app`` that runs until ``stopping`` is set."""
    config = uvicorn.Config(
        app,
        http=timely(arrival_s),
        ws="none",
        lifespan="off",
        loop="none",
        log_config=None,
        access_log=False,
        server_header=False,
        # Without the polling loop nobody would renew it.
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=grace_s,
    )
    return EmbeddedServer(config, started=started, stopping=stopping)
