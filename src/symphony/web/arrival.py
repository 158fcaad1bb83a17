"""A request has to arrive whole in bounded time, however slowly its sender sends.

Role: uvicorn's protocol with a deadline from the connection, or from the first byte of a further
request, to the last byte of the body. Without one a stranger could hold any number of connections
with a body that never ends, on a port that takes webhooks from the internet.
Neighbours: ``peers`` is its base, ``embedded`` installs it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from .peers import PeerProtocol

_TIMED_OUT: Final = (
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
)


class TimelyProtocol(PeerProtocol):
    """Ends a connection whose request does not arrive.

    Attributes:
        arrival_s: The limit; ``timely`` sets it.
    """

    arrival_s: float
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as upstream
        """Take a connection, which is to bring a request."""
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing any more."""
        self._arrived()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Expect the rest of a request that has begun."""
        super().on_message_begin()
        if self._deadline is None:
            self._expect()

    def on_message_complete(self) -> None:
        """Take a whole request."""
        self._arrived()
        super().on_message_complete()

    def _expect(self) -> None:
        self._deadline = self.loop.call_later(self.arrival_s, self._give_up)

    def _arrived(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        # None before the first request, whatever uvicorn says of its type.
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:
            self.transport.write(_TIMED_OUT)
        self.transport.close()


def timely(arrival_s: float) -> type[TimelyProtocol]:
    """The protocol with a limit."""
    return type("TimelyProtocol", (TimelyProtocol,), {"arrival_s": arrival_s})
