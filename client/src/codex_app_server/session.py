"""Sessions: a prompt in a workspace, once or over several turns, with nobody at the keyboard.

    result = await run("/repo", "Fix the failing test", sandbox="workspace-write")

    async with await Session.start("/repo") as session:
        await session.run("Fix the bug")
        await session.run("Now add tests")

Invariants: a session is one process, one connection, one thread, and ends them all; a turn ends
with a `SessionResult` or with an error, and either is told to ``on_message`` as well; requests
that nobody answers end the turn instead of hanging it (`codex_app_server.unattended`).

`codex_app_server.launch` starts the process, `codex_app_server.messages` has what is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Literal, Self, Unpack, cast

from msgspec import Struct

from codex_app_server import messages
from codex_app_server.checks import PATH, TEXT, check_values
from codex_app_server.connection import Connection
from codex_app_server.errors import (
    CodexError,
    InvalidArgument,
    RequestError,
    TurnError,
    TurnFailed,
    TurnInProgress,
    TurnInterrupted,
)
from codex_app_server.events import Event, MalformedLine
from codex_app_server.launch import DEFAULT_CLIENT, Codex
from codex_app_server.launch_plan import LaunchOptions, StartOptions
from codex_app_server.protocol.turn import TokenUsage
from codex_app_server.session_options import (
    OnMessage,
    RunOptions,
    SessionOptions,
    ToolExecutor,
    TurnOptions,
    check_session_options,
    check_turn_options,
    split_run_options,
)
from codex_app_server.threads import Thread
from codex_app_server.tools import Tool, ToolCallContext
from codex_app_server.turn_result import INTERRUPT_S
from codex_app_server.turns import Turn, TurnResult, TurnTimeouts
from codex_app_server.unattended import Unattended, unsupported_tool_result

__all__ = [
    "Session",
    "SessionResult",
    "run",
    "run_turn",
    "start_session",
    "stop_session",
]

PathLike = str | os.PathLike[str]
TURN_TIMEOUT_S = 3600.0
READ_TIMEOUT_S = 30.0
START_TIMEOUT_S = 120.0


class SessionResult(Struct, frozen=True, kw_only=True):
    """A completed turn of a session.

    Attributes:
        session_id: ``<thread id>-<turn id>``.
        result: Always ``turn_completed``; other ends are raised.
        turn: The turn's result, with items, diff and duration.
    """

    session_id: str
    result: Literal["turn_completed"]
    turn: TurnResult

    @property
    def thread_id(self) -> str:
        """Of the session."""
        return self.turn.thread_id

    @property
    def turn_id(self) -> str:
        """Of the turn."""
        return self.turn.turn_id

    @property
    def final_message(self) -> str | None:
        """The agent's last message."""
        return self.turn.final_message

    @property
    def usage(self) -> TokenUsage:
        """Tokens that the turn added."""
        return self.turn.usage


_Held = tuple[type[messages.SessionMessage], float, dict[str, Any]]


class _Running:
    """The turn that a session is in."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options
        self.turn: Turn | None = None
        self.refusal: TurnError | None = None
        # What arrives before the turn has its id is told after `SessionStarted`.
        self.held: list[_Held] | None = []


class Session:
    """A thread of its own process. Use `start`, and ``async with`` or `stop`.

    Attributes:
        workspace: Absolute directory of the agent.
        connection: For everything else that the protocol offers.
        thread: That the turns run in.
    """

    connection: Connection
    thread: Thread

    def __init__(self, workspace: PathLike, options: SessionOptions) -> None:
        if not isinstance(workspace, str | os.PathLike):
            raise InvalidArgument(f"workspace={workspace!r}: give the path of a directory")
        self.workspace = os.path.abspath(workspace)
        if not os.path.isdir(self.workspace):
            raise InvalidArgument(f"workspace {self.workspace!r} is not a directory")
        self._options = options
        self._owner: Codex | Connection | None = None
        self._running: _Running | None = None
        self._title = ""
        self._unattended = Unattended(self._auto_approves, self._refuse, self._emit)

    @classmethod
    async def start(cls, workspace: PathLike, **options: Unpack[SessionOptions]) -> Self:
        """Start a Codex process and a thread in a workspace.

        Args:
            workspace: Directory of the agent.
            options: See `SessionOptions`.

        Raises:
            InvalidArgument: An option that makes no sense, or no such directory.
            CodexError: What `Codex.start` and `Connection.start_thread` raise; ``on_message`` has
                been told `messages.StartupFailed`.
        """
        check_session_options(options)
        self = cls(workspace, options)
        try:
            await self._connect()
            await self._open_thread()
        except BaseException as error:
            if isinstance(error, Exception):
                self._emit(messages.StartupFailed, error=error)
            await self.stop()
            raise
        return self

    async def _connect(self) -> None:
        options = self._options
        opening: dict[str, Any] = {
            "request_timeout_s": options.get("read_timeout_s", READ_TIMEOUT_S),
            "thread_start_timeout_s": options.get("start_timeout_s", START_TIMEOUT_S),
            "handlers": self._unattended.handlers(options.get("handlers")),
            "on_events": self._on_events,
        }
        client = options.get("client_info", DEFAULT_CLIENT)
        transport = options.get("transport")
        if transport is not None:
            self._owner = self.connection = await Connection.open(transport, client, **opening)
            return
        launch = {
            name: value for name, value in options.items() if name in LaunchOptions.__annotations__
        }
        launch.setdefault("cwd", self.workspace)
        starting = cast("StartOptions", {**launch, **opening, "client_info": client})
        self._owner = codex = await Codex.start(options.get("command"), **starting)
        self.connection = codex.connection

    async def _open_thread(self) -> None:
        options = self._options
        assert self._owner is not None
        opening: dict[str, Any] = {
            "cwd": self.workspace,
            "approval_policy": options.get("approval_policy", "never"),
            "sandbox": options.get("sandbox", "workspace-write"),
            "model": options.get("model"),
            "tools": [self._tool(one) for one in options.get("tools", ())],
            **options.get("thread_options", {}),
        }
        resume = options.get("resume")
        if resume is None:
            self.thread = await self._owner.start_thread(**opening)
        else:
            self.thread = await self._owner.resume_thread(resume, **opening)

    def _tool(self, given: Tool | Mapping[str, Any]) -> Tool:
        if isinstance(given, Tool):
            return given
        try:
            name, schema = given["name"], given["inputSchema"]
        except (KeyError, TypeError) as error:
            raise InvalidArgument(f"tool {given!r}: use a Tool or name, inputSchema") from error
        return Tool(name, str(given.get("description", "")), schema, self._execute)

    async def _execute(self, arguments: Any, context: ToolCallContext) -> Mapping[str, Any]:
        execute: ToolExecutor | None = self._option("tool_executor")
        if execute is None:
            return unsupported_tool_result(context.tool)
        answer: Any
        if inspect.iscoroutinefunction(execute):
            answer = execute(context.tool, arguments)
        else:
            plain = cast("Callable[[str, Any], Any]", execute)
            answer = await asyncio.to_thread(plain, context.tool, arguments)
        found = await answer if inspect.isawaitable(answer) else answer
        return cast("Mapping[str, Any]", found)

    # -- turns ---------------------------------------------------------------------------------

    async def run(self, prompt: str, **options: Unpack[TurnOptions]) -> SessionResult:
        """Run one turn and wait for its end.

        Cancelling the wait interrupts the turn and ends its commands.

        Args:
            prompt: For the agent.
            options: See `TurnOptions`.

        Raises:
            TurnInProgress: Another turn of this session runs; nothing was sent.
            TurnFailed: Status "failed".
            TurnInterrupted: Status "interrupted".
            TurnTimeout: ``turn_timeout_s`` or ``idle_timeout_s`` ran out.
            ApprovalNeeded: The agent wants an approval that nobody gives.
            InputNeeded: The agent asks a question that nobody answers.
            CodexError: The turn could not be started, or the server is gone.
        """
        check_values(prompt=(prompt, TEXT))
        check_turn_options(options)
        if self._running is not None:
            turn = self._running.turn
            raise TurnInProgress(thread_id=self.thread.id, turn_id=turn.id if turn else None)
        self._running = running = _Running(options)
        try:
            turn = await self._start(running, prompt)
            return await self._finish(running, turn)
        except asyncio.CancelledError:
            self._tell_held(running)
            self._emit(messages.TurnCancelled)
            raise
        finally:
            self._running = None

    async def _start(self, running: _Running, prompt: str) -> Turn:
        options = running.options
        try:
            await self._set_title(options.get("title", ""))
            running.turn = turn = self.thread.run(
                prompt,
                approval_policy=options.get("approval_policy"),
                sandbox_policy=options.get("sandbox_policy"),
                model=options.get("model"),
                effort=options.get("effort"),
                output_schema=options.get("output_schema"),
                timeouts=TurnTimeouts(
                    total_s=options.get("turn_timeout_s", TURN_TIMEOUT_S),
                    idle_s=options.get("idle_timeout_s"),
                    interrupt_s=options.get("interrupt_timeout_s", INTERRUPT_S),
                ),
            )
            await turn.start()
        except Exception as error:
            self._tell_held(running)
            self._emit(messages.StartupFailed, error=error)
            raise
        self._tell(messages.SessionStarted, time.time(), {})
        self._tell_held(running)
        return turn

    async def _finish(self, running: _Running, turn: Turn) -> SessionResult:
        try:
            result = await turn.result()
        except TurnFailed as error:
            self._emit(messages.TurnFailed, error=error)
            raise
        except TurnInterrupted as error:
            self._raise_refusal(running)
            self._emit(messages.TurnCancelled, error=error)
            raise
        except CodexError as error:
            self._emit(messages.TurnEndedWithError, error=error)
            raise
        # The agent may have finished before the interrupt reached it.
        self._raise_refusal(running)
        self._emit(messages.TurnCompleted, result=result)
        session_id = f"{result.thread_id}-{result.turn_id}"
        return SessionResult(session_id=session_id, result="turn_completed", turn=result)

    def _raise_refusal(self, running: _Running) -> None:
        if running.refusal is not None:
            self._emit(messages.TurnEndedWithError, error=running.refusal)
            raise running.refusal from None

    async def _set_title(self, title: str) -> None:
        if title and title != self._title:
            self._title = title
            # A name is for people; a server that cannot keep it may run the turn all the same.
            with contextlib.suppress(RequestError):
                await self.thread.set_name(title)

    async def interrupt(self) -> None:
        """Interrupt the running turn and end its commands; does nothing where none runs."""
        if self._running is not None and self._running.turn is not None:
            await self._running.turn.interrupt()

    async def stop(self) -> None:
        """End the session with all that it started. Safe to call twice."""
        if self._owner is not None:
            await self._owner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    # -- what happens meanwhile ----------------------------------------------------------------

    def _option(self, name: str) -> Any:
        """Return an option of the turn, or else of the session."""
        own = None if self._running is None else self._running.options.get(name)
        return self._options.get(name) if own is None else own

    def _auto_approves(self) -> bool:
        chosen = self._option("auto_approve")
        if chosen is not None:
            return bool(chosen)
        policy = self._option("approval_policy")
        return policy is None or policy == "never"

    def _refuse(self, refusal: TurnError) -> None:
        running = self._running
        if running is None or running.turn is None:
            return
        running.refusal = running.refusal or refusal
        self.connection.spawn(self._give_up(running.turn), "codex-session-refusal")

    async def _give_up(self, turn: Turn) -> None:
        with contextlib.suppress(CodexError):
            await turn.interrupt()

    def _on_events(self, events: list[Event]) -> None:
        if self._option("on_message") is None:
            return
        from codex_app_server.protocol.types import NOTIFICATIONS

        for event in events:
            if isinstance(event, MalformedLine):
                self._emit(messages.Malformed, line=event)
            elif event.method in NOTIFICATIONS:
                self._emit(messages.Notification, notification=event)
            else:
                self._emit(messages.OtherMessage, notification=event)

    def _emit(self, kind: type[messages.SessionMessage], **fields: Any) -> None:
        if self._running is not None and self._running.held is not None:
            self._running.held.append((kind, time.time(), fields))
        else:
            self._tell(kind, time.time(), fields)

    def _tell_held(self, running: _Running) -> None:
        held, running.held = running.held or (), None
        for kind, at, fields in held:
            self._tell(kind, at, fields)

    def _tell(
        self, kind: type[messages.SessionMessage], at: float, fields: Mapping[str, Any]
    ) -> None:
        tell: OnMessage | None = self._option("on_message")
        if tell is None:
            return
        thread = getattr(self, "thread", None)
        turn = None if self._running is None else self._running.turn
        message = kind(
            at=at,
            thread_id=None if thread is None else thread.id,
            turn_id=None if turn is None else turn.id,
            **fields,
        )
        try:
            tell(message)
        except Exception as error:
            # A fault of the caller's must not end the turn; it is reported, not lost.
            asyncio.get_running_loop().call_exception_handler(
                {"message": "on_message of a codex session raised", "exception": error}
            )


A_SESSION = ("a Session", lambda value: isinstance(value, Session))


async def run(workspace: PathLike, prompt: str, **options: Unpack[RunOptions]) -> SessionResult:
    """Run one prompt in a workspace: start a session, run its turn, stop it.

    Args:
        workspace: Directory of the agent.
        prompt: For the agent.
        options: See `SessionOptions` and `TurnOptions`.

    Raises:
        CodexError: What `Session.start` and `Session.run` raise.
    """
    check_values(workspace=(workspace, PATH), prompt=(prompt, TEXT))
    of_session, of_turn = split_run_options(options)
    session = await start_session(workspace, **cast("SessionOptions", of_session))
    async with session:
        return await session.run(prompt, **cast("TurnOptions", of_turn))


async def start_session(workspace: PathLike, **options: Unpack[SessionOptions]) -> Session:
    """Start a session: `Session.start`."""
    return await Session.start(workspace, **options)


async def run_turn(session: Session, prompt: str, **options: Unpack[TurnOptions]) -> SessionResult:
    """Run one turn of a session: `Session.run`."""
    check_values(session=(session, A_SESSION))
    return await session.run(prompt, **options)


async def stop_session(session: Session) -> None:
    """End a session: `Session.stop`."""
    check_values(session=(session, A_SESSION))
    await session.stop()
