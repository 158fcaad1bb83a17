"""From "which Codex" to a connection, and from a connection to nothing left behind.

    async with await Codex.start(codex_home="private", remove_secrets=["*_TOKEN"]) as codex:
        thread = await codex.start_thread(cwd="/repo", sandbox="workspace-write")
        print((await thread.run("Fix the failing test")).final_message)

Invariant: what `Codex.start` began, `Codex.aclose` ends, in this order, each step bounded: running
turns are interrupted and their background commands cleaned, stdin is closed, SIGTERM, SIGKILL,
descendants that left the process group are swept, empty mountpoints and a private home removed.

Puts together `binary`, `environment`, `home`, `process`, `cleanup` and `connection`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack, cast

from msgspec import Struct

from codex_app_server.binary import CodexBinary
from codex_app_server.checks import Checks, check_options, is_seconds, is_strings, or_none
from codex_app_server.cleanup import Mountpoints, sweep
from codex_app_server.connection import CONNECTION_CHECKS, ClientInfo, Connection, ServerInfo
from codex_app_server.errors import (
    CodexError,
    ConnectionClosed,
    InvalidArgument,
    RequestTimeout,
)
from codex_app_server.launch_plan import (
    LAUNCH_CHECKS,
    ConnectionOptions,
    LaunchOptions,
    LaunchPlan,
    StartOptions,
    is_command,
    plan_launch,
)
from codex_app_server.process import SubprocessTransport
from codex_app_server.thread_options import (
    ThreadForkOptions,
    ThreadResumeOptions,
    ThreadStartOptions,
)
from codex_app_server.threads import Thread
from codex_app_server.turns import Turn

__all__ = [
    "Codex",
    "CommandResult",
    "ConnectionOptions",
    "LaunchOptions",
    "LaunchPlan",
    "StartOptions",
    "launch_app_server",
    "plan_launch",
    "run_codex",
]

PathLike = str | os.PathLike[str]
DEFAULT_CLIENT = ClientInfo("codex_app_server", "0.1.0", "codex-app-server for Python")
INTERRUPT_S = 2.0
STDERR_IN_ERROR = 500
SLOW_START = (
    "the server may be slow to start: raise request_timeout_s (read_timeout_s of a session)"
)
SLOW_COMMAND = (
    "the command runs in a login shell, whose profile may be slow, or it is no app-server; try "
    "the command by hand, or raise request_timeout_s (read_timeout_s of a session)"
)
_RUN_CHECKS: Checks = {
    "command": ("a list of words", is_strings),
    "input": ("bytes", lambda value: isinstance(value, bytes | bytearray)),
    "timeout_s": ("seconds above 0, or None", or_none(is_seconds)),
}


class CommandResult(Struct, frozen=True):
    """What a Codex command left.

    Attributes:
        returncode: Exit status, negative for a signal.
        stdout: As written.
        stderr: The last 256 KiB, decoded leniently, secrets masked.
    """

    returncode: int
    stdout: bytes
    stderr: str


async def launch_app_server(
    codex: PathLike | None = None, **options: Unpack[LaunchOptions]
) -> SubprocessTransport:
    """Start an app-server and return its bare pipes: no handshake, no clean-up but its own.

    For tools that speak the protocol themselves; `Codex.start` is for all others. See there for
    the arguments; ``codex_home="private"`` is refused, for nobody would remove it.
    """
    if options.get("codex_home") == "private":
        raise InvalidArgument("codex_home='private' needs Codex.start, which removes it again")
    return await plan_launch(codex, options, ("app-server",)).spawn()


async def run_codex(
    command: Sequence[str],
    codex: PathLike | None = None,
    *,
    input: bytes = b"",
    timeout_s: float | None = 120.0,
    **options: Unpack[LaunchOptions],
) -> CommandResult:
    """Run a Codex command to its end, such as ``["features", "list"]``.

    Args:
        command: The words after ``codex``.
        codex: The binary; no shell command.
        input: For its stdin.
        timeout_s: After which it is ended; None waits for ever.
        options: See `LaunchOptions`.

    Raises:
        BinaryNotFound: There is no binary.
        InvalidArgument: An argument of the wrong type; nothing was started.
        CodexError: The time is over.
    """
    if isinstance(codex, str) and is_command(codex):
        raise InvalidArgument(f"codex={codex!r}: run_codex needs a binary, not a shell command")
    given = {"command": command, "input": input, "timeout_s": timeout_s}
    check_options(given, _RUN_CHECKS)
    plan = plan_launch(codex, options, tuple(command))
    transport = await plan.spawn()
    output = bytearray()
    feeding = asyncio.create_task(_feed(transport, input), name="codex-input")
    try:
        async with asyncio.timeout(timeout_s):
            while chunk := await transport.receive():
                output += chunk
            await feeding
            returncode = await transport.wait()
    except TimeoutError:
        raise CodexError(f"codex {' '.join(command)} ran longer than {timeout_s:g} s") from None
    finally:
        feeding.cancel()
        await transport.aclose()
        await asyncio.to_thread(sweep, plan.run)
        plan.remove_home()
    return CommandResult(returncode, bytes(output), plan.stderr(transport))


async def _feed(transport: SubprocessTransport, data: bytes) -> None:
    with contextlib.suppress(ConnectionClosed):
        await transport.send(data)
    await transport.close_input()


class Codex:
    """A running app-server: its process, its connection, and what cleans up after both.

    Use `start`, and ``async with`` or `aclose`.

    Attributes:
        connection: For everything that the protocol offers.
        transport: The process; `SubprocessTransport.pid` and more.
    """

    connection: Connection
    transport: SubprocessTransport

    def __init__(
        self, connection: Connection, transport: SubprocessTransport, plan: LaunchPlan
    ) -> None:
        self.connection = connection
        self.transport = transport
        self._plan = plan
        self._mountpoints = Mountpoints()
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, codex: PathLike | None = None, **options: Unpack[StartOptions]) -> Self:
        """Start an app-server and connect to it.

        Args:
            codex: None looks for the native binary (``CODEX_PATH``, PATH, the package
                ``openai-codex-cli-bin``); a path or a name is that one; a string of several words
                is a command for ``bash -lc``, such as ``"codex -c model=x app-server"``.
            options: See `LaunchOptions` and `ConnectionOptions`.

        Raises:
            BinaryNotFound: There is no binary, or the given one cannot be started.
            HomeError: The folder cannot be a CODEX_HOME.
            InvalidArgument: An option that makes no sense; nothing was started.
            ConnectionClosed: It ended at once; the text has the end of its stderr.
            RequestTimeout: It does not answer.
        """
        check_options(options, {**LAUNCH_CHECKS, **CONNECTION_CHECKS})
        wanted: dict[str, Any] = dict(options)
        names = ConnectionOptions.__annotations__.keys() & wanted.keys()
        opening = {name: wanted.pop(name) for name in names}
        client = opening.pop("client_info", DEFAULT_CLIENT)
        plan = plan_launch(codex, cast("LaunchOptions", wanted), ("app-server",))
        transport = await plan.spawn()
        try:
            connection = await Connection.open(transport, client, **opening)
        except BaseException as error:
            await transport.aclose()
            await asyncio.to_thread(sweep, plan.run)
            plan.remove_home()
            if isinstance(error, ConnectionClosed):
                raise _with_stderr(error, plan.stderr(transport)) from error
            if isinstance(error, RequestTimeout):
                hint = SLOW_START if plan.binary is not None else SLOW_COMMAND
                raise RequestTimeout(error.method, error.timeout_s, hint) from error
            raise
        return cls(connection, transport, plan)

    # -- facts ---------------------------------------------------------------------------------

    @property
    def server(self) -> ServerInfo:
        """What the server says of itself."""
        return self.connection.server

    @property
    def binary(self) -> CodexBinary | None:
        """What was started; None for a shell command."""
        return self._plan.binary

    @property
    def home(self) -> Path | None:
        """Its CODEX_HOME as the server tells, or None."""
        home = self.connection.server.codex_home
        return None if home is None else Path(home)

    def stderr_tail(self) -> str:
        """Return the last 256 KiB of its stderr, secrets masked."""
        return self._plan.stderr(self.transport)

    # -- threads -------------------------------------------------------------------------------

    async def start_thread(
        self, *, cwd: PathLike | None = None, **options: Unpack[ThreadStartOptions]
    ) -> Thread:
        """Start a thread: `Connection.start_thread`, with its directory watched for leftovers."""
        return await self.connection.start_thread(cwd=self._watched(cwd), **options)

    async def resume_thread(
        self,
        thread_id: str,
        *,
        cwd: PathLike | None = None,
        **options: Unpack[ThreadResumeOptions],
    ) -> Thread:
        """Open a thread that exists: `Connection.resume_thread`, with its directory watched."""
        return await self.connection.resume_thread(thread_id, cwd=self._watched(cwd), **options)

    async def fork_thread(
        self,
        thread_id: str,
        *,
        cwd: PathLike | None = None,
        **options: Unpack[ThreadForkOptions],
    ) -> Thread:
        """Open a copy of a thread: `Connection.fork_thread`, with its directory watched."""
        return await self.connection.fork_thread(thread_id, cwd=self._watched(cwd), **options)

    def _watched(self, cwd: PathLike | None) -> str | None:
        check_options({"cwd": cwd}, {"cwd": LAUNCH_CHECKS["cwd"]})
        if cwd is None:
            return None
        path = os.path.abspath(cwd)
        self._mountpoints.watch(path)
        return path

    # -- end -----------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """End everything that was started; see the module. Safe to call twice."""
        if self._closing is None:
            closing = self._close()
            self._closing = asyncio.get_running_loop().create_task(closing, name="codex-close")
        # A cancelled caller must not leave processes behind: the steps go on.
        try:
            await asyncio.shield(self._closing)
        except asyncio.CancelledError:
            await asyncio.wait([self._closing])
            raise

    async def _close(self) -> None:
        thread_ids = [thread.id for thread in self.connection.open_threads]
        try:
            await self._interrupt()
            await self.connection.aclose()
        finally:
            await asyncio.to_thread(self._clean_up, thread_ids)

    async def _interrupt(self) -> None:
        turns: list[Turn] = self.connection.running_turns
        if turns and not self.connection.is_closed:
            interrupting = (turn.interrupt(INTERRUPT_S) for turn in turns)
            await asyncio.gather(*interrupting, return_exceptions=True)

    def _clean_up(self, thread_ids: Sequence[str]) -> None:
        sweep(self._plan.run, thread_ids)
        self._mountpoints.remove()
        self._plan.remove_home()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


def _with_stderr(error: ConnectionClosed, stderr: str) -> ConnectionClosed:
    said = stderr.strip()[-STDERR_IN_ERROR:]
    reason = f"{error.reason}; it said: {said}" if said else error.reason
    return ConnectionClosed(reason, error.returncode)
