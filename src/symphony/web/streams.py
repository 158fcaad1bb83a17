"""Server-sent events: snapshots as they come, to each reader no faster than it may have them.

Role: one endless response per reader, over a subscription to the newest snapshot.
Invariant: at most four events a second for each reader, each the newest there is; a reader that is
slow delays nobody; all streams end at once when the server closes.
Neighbours: ``app`` gives the rendering (JSON or the page's fragment), which readers share.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from symphony.scheduler.snapshot import Snapshot

from .backend import Backend
from .envelope import error_response

MIN_INTERVAL_S = 0.25
PING_INTERVAL_S = 15.0
MAX_STREAMS = 64
_MEDIA_TYPE = "text/event-stream"
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


class Streams:
    """All open streams of one server.

    Args:
        backend: Where snapshots come from.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._closing = asyncio.Event()
        self.open = 0

    def close(self) -> None:
        """End all streams, and every one that is asked for from here on."""
        self._closing.set()

    def respond(
        self, request: Request, event: str, render: Callable[[Snapshot], bytes]
    ) -> Response:
        """Return a stream of ``event`` events with ``render(snapshot)`` as their data.

        A ping comment every 15 s lets proxies and readers tell a quiet stream from a dead one.
        """
        if request.method == "HEAD":
            return Response(b"", headers=_HEADERS, media_type=_MEDIA_TYPE)
        if self.open >= MAX_STREAMS:
            return error_response(
                503, "too_many_streams", f"{MAX_STREAMS} event streams are open; close some."
            )
        return StreamingResponse(
            self._counted(event, render), headers=_HEADERS, media_type=_MEDIA_TYPE
        )

    async def _counted(
        self, event: str, render: Callable[[Snapshot], bytes]
    ) -> AsyncGenerator[bytes]:
        self.open += 1
        try:
            yield b"retry: 1000\n\n"
            async with contextlib.aclosing(self._snapshots()) as snapshots:
                async for snapshot in snapshots:
                    yield (
                        b": ping\n\n"
                        if snapshot is None
                        else _frame(event, snapshot.sequence, render(snapshot))
                    )
        finally:
            self.open -= 1

    async def _snapshots(self) -> AsyncGenerator[Snapshot | None]:
        """Yield the newest snapshots, None when a ping is due; end when the server closes."""
        closing = asyncio.create_task(self._closing.wait(), name="sse closing")
        iterator = self._backend.subscribe()
        pending: asyncio.Task[Snapshot | None] | None = None
        sent = self._backend.snapshot()
        try:
            if sent is not None:
                yield sent
                await asyncio.wait((closing,), timeout=MIN_INTERVAL_S)
            while not closing.done():
                pending = pending or asyncio.create_task(_next(iterator), name="sse next")
                await asyncio.wait(
                    (closing, pending),
                    timeout=PING_INTERVAL_S,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if closing.done():
                    return
                if not pending.done():
                    yield None
                    continue
                snapshot, pending = pending.result(), None
                if snapshot is None:
                    return
                if sent is not None and snapshot.sequence == sent.sequence:
                    continue
                yield snapshot
                sent = snapshot
                await asyncio.wait((closing,), timeout=MIN_INTERVAL_S)
        finally:
            await _cancel(closing, pending)
            aclose: Callable[[], Coroutine[Any, Any, None]] | None
            if (aclose := getattr(iterator, "aclose", None)) is not None:
                await aclose()


async def _next(iterator: AsyncIterator[Snapshot]) -> Snapshot | None:
    """Return the next snapshot, or None at the end of the subscription."""
    return await anext(iterator, None)


async def _cancel(*tasks: asyncio.Task[Any] | None) -> None:
    live = [task for task in tasks if task is not None]
    for task in live:
        task.cancel()
    await asyncio.gather(*live, return_exceptions=True)


def _frame(event: str, sequence: int, data: bytes) -> bytes:
    lines = b"".join(b"data: %b\n" % line for line in data.split(b"\n"))
    return b"event: %b\nid: %d\n%b\n" % (event.encode(), sequence, lines)
