"""A turn as its caller sees it: an async iterator of events and an awaitable result.

Invariants: nothing is sent before the turn is awaited, iterated or started; its sink is
registered before ``turn/start`` leaves, so no event can be missed; a cancelled wait or a time-out
interrupts the turn and ends its commands, within a bound; the outcome is the machine's
(`codex_app_server.protocol.turn`), matched by thread and turn.

The connection gives batches to `Turn.deliver`; `codex_app_server.threads` makes turns.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from codex_app_server.checks import (
    LIMIT,
    TEXT,
    check_options,
    check_values,
)
from codex_app_server.errors import (
    CodexError,
    ConnectionClosed,
    RequestError,
    RequestTimeout,
    TurnTimeout,
    UnexpectedReply,
)
from codex_app_server.events import Event
from codex_app_server.protocol.rpc import Run
from codex_app_server.protocol.turn import TokenUsage, TurnMachine
from codex_app_server.sink import DEFAULT_LIMIT, Overflow, Sink
from codex_app_server.turn_result import (
    TURN_CHECKS,
    LimitKind,
    TurnResult,
    TurnTimeouts,
    result_of,
)

if TYPE_CHECKING:
    from codex_app_server.threads import Thread

__all__ = ["Turn", "TurnResult", "TurnTimeouts"]

INTERRUPT_AGAIN_S = 0.02
INTERRUPT_AGAIN_MAX_S = 0.5


class Turn:
    """One turn of a thread. Made by `Thread.run`, `Thread.review` and `Thread.attach_turn`.

    Iterate it for its events, await it for its `TurnResult`, or both. One iteration at a time: a
    new one goes on where one that was left with ``break`` stopped, and ends one that was not left.
    The iteration ends after the turn's end whatever its status; only awaiting raises
    `TurnFailed` or `TurnInterrupted`. Lost connections and time-outs raise in both.
    ``async with turn:`` interrupts the turn if the block is left before its end.
    """

    def __init__(
        self,
        thread: Thread,
        params: Mapping[str, Any],
        *,
        timeouts: TurnTimeouts,
        start_timeout_s: float | None,
        overflow: Overflow,
        limit: int = DEFAULT_LIMIT,
        keep_items: bool = True,
        method: str = "turn/start",
        find: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        given = {"timeouts": timeouts, "start_timeout_s": start_timeout_s, "overflow": overflow}
        given |= {"queue_limit": limit, "keep_items": keep_items}
        check_options(given, TURN_CHECKS)
        self.thread = thread
        self.timeouts = timeouts
        self._method = method
        self._find = find
        self._params = params
        self._start_timeout_s = start_timeout_s
        self._connection = thread.connection
        self._loop = asyncio.get_running_loop()
        self._machine = TurnMachine(thread.id, keep_items=keep_items)
        self._sink = Sink(overflow, limit)
        self._iterating: object | None = None
        self._iterator_waits = False
        self._discard = False
        self._wake: asyncio.Future[None] | None = None
        self._starting: asyncio.Task[None] | None = None
        self._finished = asyncio.Event()
        self._error: CodexError | None = None
        self._expired: TurnTimeout | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._started_at: float | None = None
        self._last_activity: float = 0.0
        self._heard = False

    # -- facts ---------------------------------------------------------------------------------

    @property
    def id(self) -> str | None:
        """The turn's id; None until it is started."""
        return self._machine.turn_id

    @property
    def session_id(self) -> str | None:
        """``<thread id>-<turn id>``; None until it is started."""
        turn_id = self._machine.turn_id
        return None if turn_id is None else f"{self.thread.id}-{turn_id}"

    @property
    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._finished.is_set()

    @property
    def error(self) -> CodexError | None:
        """What ended it on our side (a lost server, a time-out, a refused start), or None."""
        return self._error

    @property
    def usage(self) -> TokenUsage:
        """Tokens that the turn added to its thread so far."""
        return self._machine.usage

    @property
    def dropped_deltas(self) -> int:
        """Deltas that the sink dropped because nobody read them in time."""
        return self._sink.dropped

    @property
    def is_attached(self) -> bool:
        """Whether it was running when it became known here (`Thread.attach_turn`)."""
        return self._find is not None

    @property
    def waiting(self) -> bool:
        """Whether it waits for an approval or an answer of a person."""
        return bool(self._machine.waiting) or self._connection.waits_for_answer(self.thread.id)

    @property
    def children(self) -> set[str]:
        """Thread ids of the sub-agents that it started."""
        return self._machine.children

    # -- what a caller does --------------------------------------------------------------------

    async def start(self) -> Self:
        """Send ``turn/start`` and wait for the turn's id; does nothing when started already.

        Raises:
            TurnInProgress: The thread runs a turn; nothing was sent.
            RequestError: The server refused.
            RequestTimeout: No reply; should the turn have begun, it is interrupted.
            ConnectionClosed: The server is gone.
        """
        if self._starting is None:
            self.thread.claim(self)
            self._starting = self._connection.spawn(self._start(), "codex-turn-start")
        try:
            if not self._starting.done():
                await asyncio.wait([self._starting])
        except asyncio.CancelledError:
            # A turn that ran before is not ended by giving up to attach to it.
            if not self.is_attached:
                with contextlib.suppress(CodexError):
                    await self.interrupt()
            raise
        if self._starting.cancelled():
            raise ConnectionClosed("the connection was closed here")
        self._starting.result()
        return self

    async def interrupt(self, timeout_s: float | None = None) -> None:
        """Interrupt the turn and end its commands; returns when it has ended, or after the limit.

        ``turn/interrupt`` alone leaves a running command alive, so the thread's background
        terminals are cleaned too. Does nothing for a turn that never started or has ended. Where
        the server ignores it, `done` is still False afterwards: only closing the connection ends
        such a turn.

        Args:
            timeout_s: The limit, seconds above 0; ``interrupt_s`` of the turn's `TurnTimeouts` (by
                default 10 s) where it is None.

        Raises:
            ConnectionClosed: The server is gone (and with it the turn).
        """
        check_values(timeout_s=(timeout_s, LIMIT))
        if self._starting is None or self.done:
            return
        limit_s = self.timeouts.interrupt_s if timeout_s is None else timeout_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._interrupt(limit_s)

    async def steer(self, text: str, *, timeout_s: float | None = None) -> None:
        """Add a text to the running turn.

        Raises:
            InvalidArgument: No text, or an empty one.
            RequestError: The turn has ended or cannot be steered.
        """
        check_values(text=(text, TEXT), timeout_s=(timeout_s, LIMIT))
        await self.start()
        await self._connection.call(
            "turn/steer",
            {
                "threadId": self.thread.id,
                "expectedTurnId": self.id,
                "input": [{"type": "text", "text": text}],
            },
            timeout_s=timeout_s,
        )

    def __await__(self) -> Generator[Any, None, TurnResult]:
        return self.result().__await__()

    async def result(self) -> TurnResult:
        """Start the turn if need be, wait for its end and return its result.

        Cancelling the wait interrupts the turn and ends its commands, within ``interrupt_s`` of
        the turn's `TurnTimeouts`.

        Raises:
            TurnFailed: Status "failed", or one that this library does not know.
            TurnInterrupted: Status "interrupted".
            TurnTimeout: A limit of `TurnTimeouts` ran out.
            ConnectionClosed: The server went away before the end.
            CodexError: What `start` raises.
        """
        if not self._iterating:
            self._discard = True
            self._sink.clear()
        await self.start()
        try:
            await self._finished.wait()
        except asyncio.CancelledError:
            with contextlib.suppress(CodexError):
                await self.interrupt()
            raise
        return self._result()

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        """Start the turn if need be and yield its events up to its end."""
        if self._iterating and self._iterator_waits:
            raise RuntimeError("this turn is iterated already")
        self._iterating = mine = object()
        self._discard = False
        sink = self._sink
        # An iteration that was left with `break` may not know yet that it is over: let it see
        # nothing more. A copy costs the loop below nothing.
        events = sink.take_over()
        popleft = events.popleft
        try:
            self._iterator_waits = True
            await self.start()
            while True:
                self._iterator_waits = False
                while events:
                    yield sink.pop() if sink.merging else popleft()
                if self._iterating is not mine:
                    raise RuntimeError("another iteration of this turn has taken over")
                self._connection.resume_reading()
                if self._finished.is_set():
                    break
                self._iterator_waits = True
                await self._wait_for_events()
        finally:
            if self._iterating is mine:
                self._iterating = None
                self._iterator_waits = False
            self._connection.resume_reading()
        if self._error is not None:
            raise self._error

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(CodexError):
            await self.interrupt()

    # -- the inside ----------------------------------------------------------------------------

    async def _wait_for_events(self) -> None:
        self._wake = self._loop.create_future()
        try:
            await self._wake
        except asyncio.CancelledError:
            with contextlib.suppress(CodexError):
                await self.interrupt()
            raise
        finally:
            self._wake = None

    async def _start(self) -> None:
        # Registered first: a whole turn may arrive together with the reply.
        self._machine.baseline = self.thread.usage_total
        self._connection.expect(self)
        try:
            turn_id = await (self._ask_to_start() if self._find is None else self._find())
        except RequestTimeout as error:
            began = None if self.is_attached else self._machine.early_turn_id()
            if began is not None:
                self._connection.bind(self, began)
                with contextlib.suppress(CodexError):
                    await self.interrupt()
            self._fail(error)
            raise
        except CodexError as error:
            self._fail(error)
            raise
        self._connection.bind(self, turn_id)

    async def _ask_to_start(self) -> str:
        reply = await self._connection.call(
            self._method, self._params, timeout_s=self._start_timeout_s
        )
        turn = reply.get("turn") if isinstance(reply, dict) else None
        turn_id = turn.get("id") if isinstance(turn, dict) else None
        if not isinstance(turn_id, str):
            raise UnexpectedReply(self._method, "no turn.id")
        return turn_id

    def bound(self, turn_id: str, now: float) -> list[Event]:
        """Learn the id from the connection; return early events that are not this turn's."""
        self._started_at = self._last_activity = now
        early, others = self._machine.bind(turn_id)
        if early:
            self._take(early, now, only_deltas=False)
        self._arm()
        return others

    def deliver(self, run: Run, now: float) -> None:
        """Take a batch of events of this turn or of its thread."""
        if self._machine.turn_id is None:
            self._machine.hold(run.events)
            return
        self._take(run.events, now, only_deltas=run.only_deltas)

    def touch(self, now: float) -> None:
        """Note activity of a sub-agent: the turn is not idle."""
        self._last_activity = now

    def _take(self, events: list[Event], now: float, *, only_deltas: bool) -> None:
        if self._finished.is_set():
            return
        self._last_activity = now
        self._heard = True
        if not only_deltas:
            self._machine.feed(events)
        if not self._discard:
            self._sink.push(events, may_block=self._iterating is not None)
        if self._machine.outcome is not None:
            self._end()
        elif self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    @property
    def wants_pause(self) -> bool:
        """Whether the reader should stop until the iterator has caught up."""
        return self._iterating is not None and self._sink.wants_pause

    def lost(self, error: ConnectionClosed) -> None:
        """The connection has ended before the turn."""
        self._fail(error)

    def _fail(self, error: CodexError) -> None:
        if not self._finished.is_set():
            self._error = error
            self._end()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        outcome = self._machine.outcome
        if self._expired is not None and (outcome is None or outcome.status != "completed"):
            self._error = self._expired
        self._finished.set()
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
        ended = outcome is not None or isinstance(self._error, ConnectionClosed)
        self.thread.release(self, self._machine.total, ended=ended)
        self._connection.retire(self)

    def _result(self) -> TurnResult:
        if self._error is not None:
            raise self._error
        return result_of(self._machine, self.thread.id, self._connection.rate_limits)

    async def _interrupt(self, timeout_s: float) -> None:
        assert self._starting is not None
        if self.id is None and asyncio.current_task() is not self._starting:
            await asyncio.wait([self._starting])
        if self.id is None or self.done:
            return
        self._connection.decline_requests(self.thread.id, self.id)
        call, ids = self._connection.call, {"threadId": self.thread.id}
        with contextlib.suppress(RequestTimeout):
            await self._ask_to_interrupt({**ids, "turnId": self.id}, timeout_s)
        with contextlib.suppress(RequestError, RequestTimeout):
            # Absent in older servers and without the experimental capability.
            await call("thread/backgroundTerminals/clean", ids, timeout_s=timeout_s)
        await self._finished.wait()

    async def _ask_to_interrupt(self, params: Mapping[str, Any], timeout_s: float) -> None:
        """Send ``turn/interrupt`` until it is taken or the turn has ended.

        The server refuses it between its reply to ``turn/start`` and ``turn/started``, and then
        runs the turn; it refuses it too when the turn has just ended, whose end is on its way.
        """
        pause_s = INTERRUPT_AGAIN_S
        while not self.done:
            try:
                await self._connection.call("turn/interrupt", params, timeout_s=timeout_s)
            except RequestError:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._finished.wait()
                pause_s = min(pause_s * 2, INTERRUPT_AGAIN_MAX_S)
            else:
                return

    # -- time limits ---------------------------------------------------------------------------

    def _arm(self) -> None:
        if self._finished.is_set() or self._expired is not None:
            return
        due = self._due()
        if due:
            self._timer = self._loop.call_at(min(at for at, _, _ in due), self._check)

    def _due(self) -> list[tuple[float, LimitKind, float]]:
        assert self._started_at is not None
        return self.timeouts.due(self._started_at, self._last_activity, heard=self._heard)

    def _check(self) -> None:
        self._timer = None
        now = self._loop.time()
        if self.waiting:
            self._last_activity = now
        for at, kind, limit_s in self._due():
            if at <= now:
                self._expired = TurnTimeout(
                    kind, limit_s, thread_id=self.thread.id, turn_id=self.id
                )
                self._connection.spawn(self._expire(self._expired), "codex-turn-timeout")
                return
        self._arm()

    async def _expire(self, error: TurnTimeout) -> None:
        with contextlib.suppress(CodexError):
            await self.interrupt()
        self._fail(error)
