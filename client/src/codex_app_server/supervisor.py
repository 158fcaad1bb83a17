"""Keeps threads alive over the end of the app-server that they live in.

    async with Supervisor(lambda: Codex.start(codex_home="private")) as supervisor:
        thread = await supervisor.start_thread(cwd="/repo", sandbox="workspace-write")
        result = await thread.run("Fix the failing test")

One process for all threads (mode ``shared``, a fifth of the memory of a process each at 50
threads), or one for each (``per_thread``: a crash touches one thread only). Invariants: a lost
server is cleaned up after before the next one starts; each live thread is resumed once per server,
without its history, and a turn that was cut off is named, never repeated; what waits for a thread
gets it restored, or an error. Nothing here repeats a prompt: only the caller knows if it may be.

`codex_app_server.launch` starts processes; `codex_app_server.connection` has one server's life.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Literal, Self, Unpack

from msgspec import Struct

from codex_app_server.checks import (
    Checks,
    check_options,
    is_count,
    is_path,
    is_seconds,
    one_of,
    or_none,
)
from codex_app_server.connection import Connection
from codex_app_server.errors import CodexError, ConnectionClosed, RequestError
from codex_app_server.launch import Codex
from codex_app_server.thread_options import (
    ThreadResumeOptions,
    ThreadStartOptions,
    TurnAttachOptions,
    TurnRunOptions,
)
from codex_app_server.threads import Input, Thread
from codex_app_server.turns import Turn, TurnResult

__all__ = ["Backoff", "SupervisedThread", "Supervisor", "SupervisorEvent"]

PathLike = str | os.PathLike[str]
Server = Codex | Connection
Mode = Literal["shared", "per_thread"]
STARTS = 4
NO_ROLLOUT = "no rollout found"


_BACKOFF: Checks = {
    **dict.fromkeys(("first_s", "limit_s", "stable_s"), ("seconds above 0", is_seconds)),
    "attempts": ("a number from 1, or None", or_none(is_count)),
}


_SUPERVISOR: Checks = {
    "start": ("a function that returns a server", callable),
    "mode": one_of("shared", "per_thread"),
    "backoff": ("a Backoff or None", or_none(lambda value: isinstance(value, Backoff))),
    "on_event": ("a function or None", or_none(callable)),
    "chance": ("a function that returns numbers in 0..1", callable),
}


class Backoff(Struct, frozen=True, kw_only=True):
    """When a server that ended is started again.

    Attributes:
        first_s: Pause before the second try in a row; the first one is made at once.
        limit_s: Longest pause; each is twice the one before, up to a tenth shorter by chance.
        stable_s: A server that lived so long ends the row.
        attempts: After so many failures in a row the threads are given up; None: never.
    """

    first_s: float = 0.5
    limit_s: float = 30.0
    stable_s: float = 60.0
    attempts: int | None = 8

    def __post_init__(self) -> None:
        check_options({name: getattr(self, name) for name in _BACKOFF}, _BACKOFF)

    def pause_s(self, failures: int, chance: float) -> float:
        """Return the pause after so many failures in a row; ``chance`` is in 0..1."""
        if failures < 1:
            return 0.0
        # The exponent is bounded: a float has no 2 ** 5000.
        whole = min(self.limit_s, self.first_s * 2 ** min(failures - 1, 60))
        return float(whole * (1 - 0.1 * chance))


class SupervisorEvent(Struct, frozen=True, kw_only=True):
    """What happened to a server or to a thread.

    Attributes:
        kind: ``started``, ``start_failed``, ``lost`` (a server); ``gave_up`` (on a server and its
            threads); ``restored``, ``replaced`` (a thread without a turn yet was started anew) and
            ``thread_lost`` (it could not be resumed).
        thread_id: Of the thread.
        turn_id: The turn that was cut off.
        still_running: The server outlived the connection and goes on with that turn.
        error: Why.
        failures: In a row.
    """

    kind: Literal[
        "started", "start_failed", "lost", "gave_up", "restored", "replaced", "thread_lost"
    ]
    thread_id: str | None = None
    turn_id: str | None = None
    still_running: bool = False
    error: Exception | None = None
    failures: int = 0


class SupervisedThread:
    """A thread that outlives its server. Made by `Supervisor`.

    Attributes:
        thread: As it is on the present server; another object after each restart.
        interrupted_turn: Id of the turn that the last loss of the server cut off, or None.
        restarts: How often it was restored.
    """

    def __init__(self, unit: _Unit, thread: Thread, options: Mapping[str, Any]) -> None:
        self.thread = thread
        self.interrupted_turn: str | None = None
        self.restarts = 0
        self._unit = unit
        self._options = options
        self._failure: CodexError | None = None

    @property
    def id(self) -> str:
        """Of the thread; it changes only where a thread without any turn was started anew."""
        return self.thread.id

    async def live(self) -> Thread:
        """Return the thread on a server that runs, waiting for a restart if need be.

        Raises:
            CodexError: It cannot be restored, or the supervisor gave up or is closed.
        """
        await self._unit.live()
        if self._failure is not None:
            raise self._failure
        return self.thread

    async def turn(self, input: Input, **options: Unpack[TurnRunOptions]) -> Turn:
        """Start a turn, as `Thread.run` makes it, once the thread is live.

        Raises:
            CodexError: See `live` and `Turn.start`.
        """
        return await (await self.live()).run(input, **options).start()

    async def run(self, input: Input, **options: Unpack[TurnRunOptions]) -> TurnResult:
        """Run a turn to its end.

        Raises:
            ConnectionClosed: The server was lost in its middle; the thread will be restored.
            CodexError: See `live` and `Turn.result`.
        """
        return await (await self.live()).run(input, **options)

    async def attach_turn(self, **options: Unpack[TurnAttachOptions]) -> Turn | None:
        """Return the turn that runs, also where the server outlived its connection.

        See `Thread.attach_turn`; what to do with a ``restored`` event that is ``still_running``.

        Raises:
            CodexError: See `live` and `Thread.attach_turn`.
        """
        return await (await self.live()).attach_turn(**options)

    async def aclose(self) -> None:
        """Leave the thread; a process of its own ends."""
        await self._unit.leave(self)

    # -- for its unit --------------------------------------------------------------------------

    def cut_off(self) -> None:
        """Note that the server was lost."""
        turn = self.thread.last_turn
        lost = turn is not None and isinstance(turn.error, ConnectionClosed)
        self.interrupted_turn = turn.id if turn is not None and lost else None

    async def restore(self, server: Server) -> SupervisorEvent:
        """Resume the thread on a new server, or start it anew where it has no turn yet.

        Raises:
            CodexError: Neither can be done.
        """
        turn_id = self.interrupted_turn
        try:
            thread = await server.resume_thread(self.id, **_of(ThreadResumeOptions, self._options))
        except RequestError as error:
            if NO_ROLLOUT not in error.message or self.thread.last_turn is not None:
                raise
            self.thread = await server.start_thread(**_of(ThreadStartOptions, self._options))
            return SupervisorEvent(kind="replaced", thread_id=self.id, error=error)
        running = _is_active(thread)
        if running:
            # A second turn/start would be merged into the one that goes on.
            thread.linger(turn_id)
        self.thread = thread
        return SupervisorEvent(
            kind="restored", thread_id=self.id, turn_id=turn_id, still_running=running
        )

    async def restore_or_fail(self, server: Server) -> SupervisorEvent | None:
        """Restore; a refusal becomes the thread's failure. None: this server is lost as well."""
        try:
            event = await self.restore(server)
        except ConnectionClosed:
            return None
        except CodexError as error:
            self._failure = error
            return SupervisorEvent(kind="thread_lost", thread_id=self.id, error=error)
        self.restarts += 1
        return event


class _Unit:
    """One server after another, and the threads that live there."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.threads: list[SupervisedThread] = []
        self._supervisor = supervisor
        self._server: Server | None = None
        self._failure: CodexError | None = None
        self._ready = asyncio.Event()
        self._lock = asyncio.Lock()
        self._watcher: asyncio.Task[None] | None = None

    async def live(self) -> Server:
        """Return the server, started if need be; the first start's fault is the caller's."""
        async with self._lock:
            if self._watcher is None and self._failure is None:
                self._server = await self._supervisor.start_server()
                self._ready.set()
                self._supervisor.tell(SupervisorEvent(kind="started"))
                self._watcher = asyncio.create_task(self._watch(), name="codex-supervisor")
        while True:
            await self._ready.wait()
            if self._failure is not None:
                raise self._failure
            assert self._server is not None
            if not _connection(self._server).is_closed:
                return self._server
            # It was lost a moment ago, and the watcher is about to notice.
            self._ready.clear()

    async def _watch(self) -> None:
        loop, backoff = asyncio.get_running_loop(), self._supervisor.backoff
        failures, started = 0, loop.time()
        while self._server is not None:
            reason = await _connection(self._server).closed
            failures = 0 if loop.time() - started >= backoff.stable_s else failures + 1
            await self._lose(self._server, reason, failures)
            # The first restart in a row is made at once.
            pause = backoff.pause_s(failures - 1, self._supervisor.chance())
            self._server, failures = await self._restart(failures, pause)
            started = loop.time()
            if self._server is not None and await self._restore(self._server):
                self._ready.set()

    async def _lose(self, server: Server, reason: ConnectionClosed, failures: int) -> None:
        self._ready.clear()
        for thread in self.threads:
            thread.cut_off()
        self._supervisor.tell(SupervisorEvent(kind="lost", error=reason, failures=failures))
        await server.aclose()

    async def _restart(self, failures: int, pause_s: float) -> tuple[Server | None, int]:
        backoff, tell = self._supervisor.backoff, self._supervisor.tell
        while True:
            if backoff.attempts is not None and failures > backoff.attempts:
                failure = CodexError(f"gave the app-server up after {failures} failures in a row")
                self.fail(failure)
                tell(SupervisorEvent(kind="gave_up", error=failure, failures=failures))
                return None, failures
            await asyncio.sleep(pause_s)
            try:
                server = await self._supervisor.start_server()
            except (CodexError, OSError) as error:
                failures += 1
                tell(SupervisorEvent(kind="start_failed", error=error, failures=failures))
                pause_s = backoff.pause_s(failures, self._supervisor.chance())
            else:
                tell(SupervisorEvent(kind="started", failures=failures))
                return server, failures

    async def _restore(self, server: Server) -> bool:
        restoring = (thread.restore_or_fail(server) for thread in self.threads)
        events = await asyncio.gather(*restoring)
        for event in events:
            if event is not None:
                self._supervisor.tell(event)
        return None not in events

    def fail(self, failure: CodexError) -> None:
        """Let everything that waits have an error."""
        self._failure = failure
        self._ready.set()

    async def leave(self, thread: SupervisedThread) -> None:
        """Forget a thread; the server ends with the last one where it is its own."""
        if thread in self.threads:
            self.threads.remove(thread)
            await self._supervisor.left(self, thread)

    async def aclose(self) -> None:
        """End the server."""
        self.fail(ConnectionClosed("the supervisor was closed here"))
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
        async with self._lock:
            if self._server is not None:
                await self._server.aclose()


class Supervisor:
    """Starts app-servers and keeps their threads. Use ``async with`` or `aclose`.

    Args:
        start: Starts a server and connects to it: `Codex.start` with its options, or a
            `Connection` to a server elsewhere.
        mode: ``shared``: one server for all threads; ``per_thread``: one for each.
        backoff: When a server that ended is started again.
        on_event: Told of what happens; must not block.
        chance: Returns numbers in 0..1 that spread the pauses.

    Raises:
        InvalidArgument: An unknown mode, or an argument of the wrong type.
    """

    def __init__(
        self,
        start: Callable[[], Awaitable[Server]] = Codex.start,
        *,
        mode: Mode = "shared",
        backoff: Backoff | None = None,
        on_event: Callable[[SupervisorEvent], None] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        given = {"start": start, "mode": mode, "backoff": backoff}
        check_options({**given, "on_event": on_event, "chance": chance}, _SUPERVISOR)
        self.backoff = backoff or Backoff()
        self.chance = chance
        self._start = start
        self._mode = mode
        self._on_event = on_event
        self._starts = asyncio.Semaphore(STARTS)
        self._shared: _Unit | None = None
        self._units: list[_Unit] = []
        self._closed = False

    @property
    def threads(self) -> list[SupervisedThread]:
        """The threads that are kept."""
        return [thread for unit in self._units for thread in unit.threads]

    async def start_thread(
        self, *, cwd: PathLike | None = None, **options: Unpack[ThreadStartOptions]
    ) -> SupervisedThread:
        """Start a thread: see `Codex.start_thread`. At most four servers start at once.

        The options are used again when the thread is restored.

        Raises:
            CodexError: The server cannot be started or refuses; nothing is kept.
        """
        given = _with_directory(cwd, options)
        return await self._open(lambda server: server.start_thread(**given), given)

    async def resume_thread(
        self, thread_id: str, *, cwd: PathLike | None = None, **options: Unpack[ThreadResumeOptions]
    ) -> SupervisedThread:
        """Open a thread that exists: see `Codex.resume_thread`."""
        given = _with_directory(cwd, options)
        return await self._open(lambda server: server.resume_thread(thread_id, **given), given)

    async def _open(
        self, open_in: Callable[[Server], Awaitable[Thread]], options: Mapping[str, Any]
    ) -> SupervisedThread:
        if self._closed:
            raise ConnectionClosed("the supervisor was closed here")
        unit = self._unit()
        try:
            supervised = SupervisedThread(unit, await open_in(await unit.live()), options)
        except BaseException:
            if not unit.threads and unit is not self._shared:
                await self._end(unit)
            raise
        unit.threads.append(supervised)
        return supervised

    def _unit(self) -> _Unit:
        if self._mode == "shared" and self._shared is not None:
            return self._shared
        unit = _Unit(self)
        self._units.append(unit)
        if self._mode == "shared":
            self._shared = unit
        return unit

    async def aclose(self) -> None:
        """End all servers. Safe to call twice."""
        self._closed = True
        await asyncio.gather(*(self._end(unit) for unit in list(self._units)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _end(self, unit: _Unit) -> None:
        await unit.aclose()
        if unit in self._units:
            self._units.remove(unit)

    # -- for units -----------------------------------------------------------------------------

    async def start_server(self) -> Server:
        """Start a server; few at once."""
        async with self._starts:
            return await self._start()

    async def left(self, unit: _Unit, thread: SupervisedThread) -> None:
        """A thread was left: end its own server, or let the shared one forget it."""
        if unit is not self._shared:
            await self._end(unit)
            return
        with contextlib.suppress(CodexError):
            await thread.thread.connection.call("thread/unsubscribe", {"threadId": thread.id})

    def tell(self, event: SupervisorEvent) -> None:
        """Tell of an event; a fault of the callback's is reported, not raised."""
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception as error:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "on_event of a codex supervisor raised", "exception": error}
            )


def _connection(server: Server) -> Connection:
    return server.connection if isinstance(server, Codex) else server


def _with_directory(cwd: PathLike | None, options: Mapping[str, Any]) -> dict[str, Any]:
    check_options({"cwd": cwd}, {"cwd": ("a path or None", or_none(is_path))})
    return {**options, **({} if cwd is None else {"cwd": os.fspath(cwd)})}


def _of(kind: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that another way to open the thread takes too."""
    known = {"cwd", *kind.__annotations__}
    return {name: one for name, one in options.items() if name in known}


def _is_active(thread: Thread) -> bool:
    facts = thread.info.get("thread")
    status = facts.get("status") if isinstance(facts, Mapping) else None
    return isinstance(status, Mapping) and status.get("type") == "active"
