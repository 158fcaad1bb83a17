"""Our calls: deadlines, the cap on how many are under way, retries, and who waits for which reply.

Invariants: every call ends by its deadline; a cancelled or timed-out call is forgotten, so a late
reply harms nobody; more than ``max_in_flight`` requests are never under way, because a flooded
server loses some without a word.

Used by `codex_app_server.connection`, which feeds the replies; ids are `protocol.rpc`'s.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from codex_app_server.checks import is_seconds, is_text, shown
from codex_app_server.errors import (
    ConnectionClosed,
    InvalidArgument,
    Overloaded,
    RequestTimeout,
)
from codex_app_server.protocol.rpc import Response, Rpc
from codex_app_server.versions import refusal

__all__ = ["Caller"]

BACKOFF_FIRST_S = 0.25
BACKOFF_MAX_S = 4.0


class Caller:
    """The calls of one connection.

    Args:
        rpc: Makes ids and lines.
        send: Writes a line.
        timeout_s: Default deadline.
        max_in_flight: Calls under way at once.
        on_wait: Told when a call begins to wait for its reply.

    Attributes:
        version: Of the server, for its refusals; None until it is known.
    """

    def __init__(
        self,
        rpc: Rpc,
        send: Callable[[bytes], Awaitable[None]],
        *,
        timeout_s: float,
        max_in_flight: int,
        on_wait: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._rpc = rpc
        self._send = send
        self._timeout_s = timeout_s
        self._in_flight = asyncio.Semaphore(max_in_flight)
        self._on_wait = on_wait
        self.version: str | None = None
        self._waiters: dict[int | str, asyncio.Future[Response]] = {}
        self._end: ConnectionClosed | None = None

    @property
    def waiting(self) -> bool:
        """Whether a call waits for its reply."""
        return bool(self._waiters)

    def settle(self, response: Response) -> None:
        """Hand a reply to its call."""
        waiter = self._waiters.pop(response.id, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(response)

    def close(self, reason: ConnectionClosed) -> None:
        """End all calls, and every later one."""
        self._end = reason
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters.values():
            if not waiter.done():
                waiter.set_exception(reason)

    async def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        idempotent: bool = False,
    ) -> msgspec.Raw:
        """Call a method and return its result undecoded.

        Args:
            method: Such as ``model/list``.
            params: Left out of the message if None, as the few methods without params want it;
                most need at least ``{}``.
            timeout_s: Deadline of the whole call with its retries; the connection's by default.
            idempotent: The request may be sent again after half of the deadline without a reply;
                an overloaded server loses some.

        Raises:
            InvalidArgument: An argument of the wrong type, params that JSON cannot carry, or a lone
                surrogate in a text.
            RequestError: The server refused; `Overloaded` after retries, `ActiveWriter`.
            RequestTimeout: No reply within the deadline.
            ConnectionClosed: The server is gone.
        """
        if not is_text(method):
            raise InvalidArgument(f"method={shown(method)}: give a name such as 'model/list'")
        if params is not None and not isinstance(params, Mapping | msgspec.Struct):
            raise InvalidArgument(f"{method}: params={shown(params)}: give a mapping or None")
        if timeout_s is not None and not is_seconds(timeout_s):
            raise InvalidArgument(f"{method}: timeout_s={shown(timeout_s)}: give seconds above 0")
        if not isinstance(idempotent, bool):
            raise InvalidArgument(f"{method}: idempotent={shown(idempotent)}: give True or False")
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        deadline = self._loop.time() + limit_s
        backoff_s, lost = BACKOFF_FIRST_S, False
        while True:
            left_s = deadline - self._loop.time()
            try:
                return await self._attempt(
                    method, params, left_s / 2 if idempotent and not lost else left_s
                )
            except RequestTimeout:
                if lost or not idempotent:
                    raise RequestTimeout(method, limit_s) from None
                lost = True
            except Overloaded:
                delay_s = random.uniform(backoff_s / 2, backoff_s)
                if self._loop.time() + delay_s >= deadline:
                    raise
                await asyncio.sleep(delay_s)
                backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)

    async def _attempt(
        self, method: str, params: Mapping[str, Any] | None, timeout_s: float
    ) -> msgspec.Raw:
        try:
            async with asyncio.timeout(timeout_s), self._in_flight:
                response = await self._exchange(method, params)
        except TimeoutError:
            raise RequestTimeout(method, timeout_s) from None
        if response.code is None:
            return response.result
        raise refusal(method, response.code, response.message, response.data, self.version)

    async def _exchange(self, method: str, params: Mapping[str, Any] | None) -> Response:
        if self._end is not None:
            raise self._end
        request_id, line = self._rpc.request(method, params)
        early = self._rpc.take_early(request_id)
        waiter: asyncio.Future[Response] = self._loop.create_future()
        if early is not None:
            waiter.set_result(early)
        else:
            self._waiters[request_id] = waiter
            # A reader that pauses for a slow consumer must go on for this reply.
            self._on_wait()
        try:
            await self._send(line)
            return await waiter
        finally:
            if self._waiters.pop(request_id, None) is not None:
                self._rpc.forget(request_id)
            if waiter.done() and not waiter.cancelled():
                waiter.exception()  # retrieved: a failed send reports the end in its own words
