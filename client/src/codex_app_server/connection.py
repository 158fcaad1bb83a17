"""One app-server over one transport: handshake, calls, routing of what arrives.

Invariants: one reader; nothing inbound ends the connection but the end of the stream; every call
has a deadline and at most ``max_in_flight`` are under way; when the stream ends, everything that
waits gets a typed error at once; every task here has a name and this object as its owner.

Events go by (thread, turn) through a dictionary to the turn, a batch at a time. Above:
`codex_app_server.threads`; below: `codex_app_server.transport` and the pure
`codex_app_server.protocol`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from codex_app_server.api import WideApi
from codex_app_server.approvals import Callback, ServerRequestHandlers
from codex_app_server.broker import Broker, PendingRequest
from codex_app_server.buffering import BufferBudget
from codex_app_server.calls import Caller
from codex_app_server.checks import (
    COUNT,
    FLAG,
    FUNCTION,
    SECONDS,
    Checks,
    check_options,
    check_values,
    is_strings,
    is_text,
    optional,
)
from codex_app_server.errors import (
    BufferLimitExceeded,
    ConnectionClosed,
    InvalidArgument,
    UnexpectedReply,
)
from codex_app_server.events import Event
from codex_app_server.handshake import ClientInfo, ServerInfo, initialize
from codex_app_server.opening import ThreadOpening
from codex_app_server.protocol.framing import DEFAULT_MAX_LINE_BYTES
from codex_app_server.protocol.rpc import Inbound, Response, Rpc, Run
from codex_app_server.ratelimits import RateLimits
from codex_app_server.routing import Router
from codex_app_server.subscriptions import Subscriptions
from codex_app_server.threads import Thread
from codex_app_server.tools import Tool
from codex_app_server.transport import Transport
from codex_app_server.turns import Turn
from codex_app_server.versions import check_floor

__all__ = ["CONNECTION_CHECKS", "ClientInfo", "Connection", "ServerInfo"]

T = TypeVar("T")
EXIT_STATUS_S = 0.05
BROKEN_PIPE_S = 0.25

A_TRANSPORT = ("a Transport", lambda value: isinstance(value, Transport))
CONNECTION_CHECKS: Checks = {
    "client_info": (
        "a ClientInfo with a name and a version",
        lambda value: (
            isinstance(value, ClientInfo) and is_text(value.name) and is_text(value.version)
        ),
    ),
    "request_timeout_s": SECONDS,
    "thread_start_timeout_s": SECONDS,
    "max_in_flight": COUNT,
    "max_line_bytes": COUNT,
    "handlers": (
        "ServerRequestHandlers or None",
        lambda value: value is None or isinstance(value, ServerRequestHandlers),
    ),
    "on_events": optional(FUNCTION),
    "buffer_budget": (
        "a BufferBudget or None",
        lambda value: value is None or isinstance(value, BufferBudget),
    ),
    "experimental": FLAG,
    "opt_out": (
        "a list of methods; without turn/completed no turn would ever end",
        lambda value: is_strings(value) and "turn/completed" not in value,
    ),
}


class Connection(ThreadOpening, WideApi):
    """A connection to an app-server. Use `open`, and ``async with`` or `aclose`.

    Attributes:
        server: What the server says of itself.
    """

    server: ServerInfo

    def __init__(
        self,
        transport: Transport,
        *,
        request_timeout_s: float,
        thread_start_timeout_s: float,
        max_in_flight: int,
        max_line_bytes: int,
        handlers: ServerRequestHandlers | None,
        on_events: Callable[[list[Event]], None] | None,
        buffer_budget: BufferBudget | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._init_opening(thread_start_timeout_s)
        self._on_events = on_events
        self._budget = buffer_budget
        self._rpc = Rpc(max_line_bytes)
        self._resume = asyncio.Event()
        self._caller = Caller(
            self._rpc,
            self._send,
            timeout_s=request_timeout_s,
            max_in_flight=max_in_flight,
            # A reader that pauses for a slow consumer must go on for the reply.
            on_wait=self._resume.set,
        )
        self._router = Router()
        self._subscriptions = Subscriptions()
        self._rate_limits = RateLimits()
        self._broker = Broker(handlers or ServerRequestHandlers(), self._send, self._find_tool)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._end: ConnectionClosed | None = None
        self._closed: asyncio.Future[ConnectionClosed] = self._loop.create_future()
        self._reader: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        transport: Transport,
        client_info: ClientInfo,
        *,
        request_timeout_s: float = 30.0,
        thread_start_timeout_s: float = 120.0,
        max_in_flight: int = 64,
        max_line_bytes: int = DEFAULT_MAX_LINE_BYTES,
        handlers: ServerRequestHandlers | None = None,
        on_events: Callable[[list[Event]], None] | None = None,
        buffer_budget: BufferBudget | None = None,
        experimental: bool = True,
        opt_out: Sequence[str] = (),
    ) -> Self:
        """Do the handshake over a transport, which the connection owns from now on.

        Args:
            transport: Closed when this fails.
            client_info: Who we are.
            request_timeout_s: Default deadline of a call.
            thread_start_timeout_s: The same of thread starts, resumes, forks: a login shell runs.
            max_in_flight: Calls under way at once; beyond some hundred some get lost.
            max_line_bytes: Longest inbound line; a longer one is skipped with a `MalformedLine`.
            handlers: How the server's requests are answered; by default all are declined.
            on_events: Called with every batch of notifications in order, before the turns; deltas
                that arrive together come turn by turn. It must not block.
            buffer_budget: Bounds what all connections that share it hold of unended lines.
            experimental: Ask for experimental methods and members; degrades where refused.
            opt_out: Notifications not to be sent. Never ``turn/completed``.

        Raises:
            ConnectionClosed: The server ended during the handshake.
            RequestTimeout: It did not answer; `RequestError` where it refused.
            UnsupportedVersion: It is older than `codex_app_server.versions.FLOOR`.
            InvalidArgument: An argument that makes no sense; nothing was sent.
        """
        options = dict[str, Any](
            request_timeout_s=request_timeout_s,
            thread_start_timeout_s=thread_start_timeout_s,
            max_in_flight=max_in_flight,
            max_line_bytes=max_line_bytes,
            handlers=handlers,
            on_events=on_events,
            buffer_budget=buffer_budget,
        )
        greeting = dict[str, Any](experimental=experimental, opt_out=opt_out)
        await _check(transport, {**options, **greeting, "client_info": client_info})
        self = cls(transport, **options)
        self._reader = self._loop.create_task(self._read(), name="codex-reader")
        try:
            self.server = await initialize(self.call, client_info, **greeting)
            check_floor(self.server.version)
            self._caller.version = self.server.version
            await self._send(self._rpc.notification("initialized"))
        except BaseException:
            await self.aclose()
            raise
        return self

    # -- facts ---------------------------------------------------------------------------------

    @property
    def rate_limits(self) -> dict[str, Any] | None:
        """The last useful rate limit snapshot, merged; None before the first one."""
        return self._rate_limits.snapshot

    def merge_rate_limits(self, received: object) -> None:
        """Merge a snapshot that was read into `rate_limits`."""
        self._rate_limits.update(received)

    def set_token_refresh(self, callback: Callback | None) -> None:
        """Answer the server's wish for fresh tokens; None leaves it to the handlers again."""
        check_values(callback=(callback, optional(FUNCTION)))
        self._broker.token_refresh = callback

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended or is being closed."""
        return self._end is not None

    def check_open(self) -> None:
        """Raise the `ConnectionClosed` that ended the connection, if it has ended."""
        if self._end is not None:
            raise self._end

    @property
    def closed(self) -> Awaitable[ConnectionClosed]:
        """Awaitable: returns why the connection ended, once it has."""
        return asyncio.shield(self._closed)

    @property
    def pending_requests(self) -> list[PendingRequest]:
        """Server requests that wait for a person (policy ``manual``), oldest first."""
        return self._broker.pending

    @property
    def open_threads(self) -> list[Thread]:
        """The threads that were opened here."""
        return list(self._router.threads.values())

    @property
    def running_turns(self) -> list[Turn]:
        """Turns that have not ended, also those that are being started."""
        return self._router.running()

    def manual_requests(self) -> AsyncGenerator[PendingRequest, None]:
        """Iterate over the server requests that wait for a person, and over each new one.

        For policy ``manual``; ends with the connection. Answer each with `PendingRequest.answer`.
        """
        return self._broker.manual_requests()

    @property
    def malformed_lines(self) -> int:
        """Lines so far that were no message."""
        return self._rpc.malformed

    @property
    def unmatched_replies(self) -> int:
        """Replies so far that nobody waited for (any more)."""
        return self._rpc.unmatched

    # -- calls ---------------------------------------------------------------------------------

    async def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        idempotent: bool = False,
    ) -> Any:
        """Call a method and return its result as plain data. See `call_raw`.

        Raises:
            UnexpectedReply: A text in the result is no UTF-8.
            CodexError: As for `call_raw`.
        """
        raw = await self.call_raw(method, params, timeout_s=timeout_s, idempotent=idempotent)
        try:
            return msgspec.json.decode(raw)
        except UnicodeDecodeError as error:
            raise UnexpectedReply(method, f"a text is no UTF-8 ({error.reason})") from None

    async def call_raw(
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
        return await self._caller.call(method, params, timeout_s=timeout_s, idempotent=idempotent)

    # -- end -----------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """End the connection: what waits gets `ConnectionClosed`. Safe to call twice."""
        self._finish(ConnectionClosed("the connection was closed here"))
        current = asyncio.current_task()
        tasks = [task for task in (*self._tasks, self._reader) if task and task is not current]
        try:
            await self._broker.aclose()
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
        finally:
            await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def over_budget(self, error: BufferLimitExceeded) -> None:
        """End the connection, for its `BufferBudget`: it holds the most of it."""
        self._rpc.drop_unfinished()
        self._finish(error)
        reader = self._reader
        if reader is not None and reader is not asyncio.current_task():
            reader.cancel()
            self.spawn(self._broker.aclose(), "codex-over-budget")

    def _finish(self, reason: ConnectionClosed) -> None:
        if self._end is not None:
            return
        self._end = reason
        if self._budget is not None:
            self._budget.hold(self, 0)
        self._caller.close(reason)
        for turn in self._router.running():
            turn.lost(reason)
        self._subscriptions.lost(reason)
        self._resume.set()
        self._closed.set_result(reason)

    # -- for turns -----------------------------------------------------------------------------

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run a task that this connection owns."""
        task = self._loop.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits for the task raises it; others read the turn

    def expect(self, turn: Turn) -> None:
        """A turn of a thread is about to be started: keep its events from now on."""
        self._router.expect(turn)

    def bind(self, turn: Turn, turn_id: str) -> None:
        """A turn has got its id."""
        self._router.bind(turn, turn_id, self._loop.time())

    def retire(self, turn: Turn) -> None:
        """A turn has ended: late events are its thread's, and nobody is asked for it any more."""
        if turn.id is not None:
            self._broker.turn_ended(turn.thread.id, turn.id)
        self._router.retire(turn)

    def decline_requests(self, thread_id: str, turn_id: str) -> None:
        """Decline what a turn still asks."""
        self._broker.interrupt(thread_id, turn_id)

    def waits_for_answer(self, thread_id: str) -> bool:
        """Tell whether a server request of a thread waits for our answer (tools apart)."""
        return self._broker.waits(thread_id)

    def resume_reading(self) -> None:
        """A consumer has caught up."""
        self._resume.set()

    # -- the reader ----------------------------------------------------------------------------

    async def _read(self) -> None:
        reason = "the server closed its output"
        end: ConnectionClosed | None = None
        try:
            while chunk := await self._transport.receive():
                self._handle(self._rpc.receive(chunk, self._loop.time()))
                if self._budget is not None:
                    self._budget.hold(self, self._rpc.buffered)
                    if self._end is not None:
                        break
                while self._must_pause():
                    self._resume.clear()
                    await self._resume.wait()
            self._handle(self._rpc.finish(self._loop.time()))
        except ConnectionClosed as error:
            end = error  # a transport that knows more than that the stream has ended
        except Exception as error:
            # A fault of the transport, or ours: whatever it is, nobody may wait for ever.
            reason = f"reading from the server failed: {type(error).__name__}: {error}"
            self._report("the reader of a codex connection failed", error)
        returncode = await self._exit_status()
        self._finish(end or ConnectionClosed(reason, returncode))
        await self._broker.aclose()

    async def _exit_status(self) -> int | None:
        ask = getattr(self._transport, "exit_status", None)
        status = await ask(EXIT_STATUS_S) if ask is not None else None
        return status if isinstance(status, int) else None

    def _must_pause(self) -> bool:
        # Never while a reply is awaited: the slow consumer itself may be the one who waits for it.
        return not self._caller.waiting and self._end is None and self._router.wants_pause()

    def _handle(self, inbound: list[Inbound]) -> None:
        now = self._loop.time()
        for message in inbound:
            if isinstance(message, Run):
                if not message.only_deltas:
                    self._watch(message.events)
                self._publish(message.events)
                if self._subscriptions:
                    self._subscriptions.publish(
                        message.thread_id, message.events, only_deltas=message.only_deltas
                    )
                self._router.route(message, now)
            elif isinstance(message, Response):
                self._caller.settle(message)
            else:
                self._router.name(message)
                self._broker.accept(message)

    def _watch(self, events: list[Event]) -> None:
        for event in events:
            if event.method == "account/rateLimits/updated":
                self._rate_limits.update(event.data.get("rateLimits"))
            elif event.method == "serverRequest/resolved":
                request_id = event.data.get("requestId")
                if isinstance(request_id, int | str):
                    self._broker.resolved(request_id)

    def _publish(self, events: list[Event]) -> None:
        if self._on_events is None:
            return
        try:
            self._on_events(events)
        except Exception as error:
            # A fault of the caller's must not end the connection; it is reported, not lost.
            self._report("on_events of a codex connection raised", error)

    def _report(self, message: str, error: Exception) -> None:
        self._loop.call_exception_handler({"message": message, "exception": error})

    async def _send(self, line: bytes) -> None:
        if self._end is not None:
            raise self._end
        try:
            await self._transport.send(line)
        except ConnectionClosed as broken:
            # The reader is about to learn why; its word has the exit status.
            await asyncio.wait([self._closed], timeout=BROKEN_PIPE_S)
            raise self._closed.result() if self._closed.done() else broken from None

    def _find_tool(self, thread_id: str, name: str, namespace: str | None) -> Tool | None:
        thread = self._router.threads.get(thread_id)
        return None if thread is None else thread.find_tool(name, namespace)


async def _check(transport: Transport, options: Mapping[str, Any]) -> None:
    check_values(transport=(transport, A_TRANSPORT))
    try:
        check_options(options, CONNECTION_CHECKS)
    except InvalidArgument:
        await transport.aclose()
        raise
