"""What some families can do beyond their requests: contents as bytes and text, streamed commands.

Invariant: base64, the watch on output and its end are handled here; a streamed command whose block
is left is terminated. Made by `codex_app_server.api`, over `codex_app_server.protocol.requests`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, Unpack

from msgspec import UNSET, Struct

from codex_app_server.checks import (
    CONTENT,
    COUNT,
    FLAG,
    LIMIT,
    TABLE,
    TEXT,
    check_values,
    is_strings,
    optional,
)
from codex_app_server.errors import CodexError, RequestError, UnexpectedReply
from codex_app_server.members import further_members
from codex_app_server.protocol import requests
from codex_app_server.protocol import types as t
from codex_app_server.versions import SCHEMA_VERSION

if TYPE_CHECKING:
    from codex_app_server.connection import Connection

__all__ = [
    "CommandMembers",
    "CommandOutput",
    "CommandsApi",
    "FilesApi",
    "RunningCommand",
    "SkillsApi",
]

COMMAND_S = 3600.0
OUTPUT_LIMIT = 4096
BEGIN_S = 10.0
BEGIN_POLL_S = 0.02


class FilesApi(requests.Fs):
    """Files on the server's host; paths are absolute."""

    __slots__ = ()

    async def read_bytes(self, path: str, *, timeout_s: float | None = None) -> bytes:
        """Read a file.

        Raises:
            CodexError: As for `Connection.call_raw`; `UnexpectedReply` for a broken content.
        """
        answer = await self.read_file(path, timeout_s=timeout_s)
        try:
            return base64.b64decode(answer.data_base64 or "", validate=True)
        except binascii.Error as error:
            raise UnexpectedReply("fs/readFile", f"no base64: {error}") from None

    async def read_text(self, path: str, *, timeout_s: float | None = None) -> str:
        """Read a file as UTF-8; what is none is replaced."""
        return (await self.read_bytes(path, timeout_s=timeout_s)).decode("utf-8", "replace")

    async def write_bytes(
        self, path: str, content: bytes | bytearray | memoryview, *, timeout_s: float | None = None
    ) -> None:
        """Write a file, replacing one that exists."""
        check_values(content=(content, CONTENT))
        encoded = base64.b64encode(content).decode()
        await self.write_file(encoded, path, timeout_s=timeout_s)


class SkillsApi(requests.Skills):
    """Skills and their content."""

    __slots__ = ("_files",)

    def __init__(self, ask: requests.Ask, files: FilesApi) -> None:
        super().__init__(ask)
        self._files = files

    async def load(self, skill: t.SkillMetadata | str, *, timeout_s: float | None = None) -> str:
        """Return the text of a skill's ``SKILL.md``.

        Args:
            skill: From `list`, or the path of the file.
            timeout_s: Deadline; the connection's by default.

        Raises:
            CodexError: As for `Connection.call_raw`; the server refuses a path that is not there.
        """
        is_skill = isinstance(skill, str | t.SkillMetadata)
        check_values(skill=(skill, ("a skill of `list`, or its path", lambda _: is_skill)))
        path = skill if isinstance(skill, str) else skill.path
        return await self._files.read_text(path or "", timeout_s=timeout_s)


class CommandOutput(Struct, frozen=True):
    """A piece of a running command's output.

    Attributes:
        stream: ``stdout`` or ``stderr``; all is ``stdout`` with a terminal.
        data: At most some kilobytes.
        cap_reached: Whether the server drops what follows.
    """

    stream: Literal["stdout", "stderr"]
    data: bytes
    cap_reached: bool = False


class RunningCommand:
    """A command that runs in the server's sandbox, outside any thread.

    Iterate it for its output (which raises what `wait` would), await `wait` for its end; leaving
    its ``async with`` block before that terminates it. Made by `CommandsApi.start`.

    Attributes:
        process_id: Under which the server knows it.
    """

    def __init__(
        self, connection: Connection, api: CommandsApi, process_id: str, options: dict[str, Any]
    ) -> None:
        self.process_id = process_id
        self._api = api
        self._loop = asyncio.get_running_loop()
        self._events = connection.subscribe(
            methods=["command/exec/outputDelta"], limit=OUTPUT_LIMIT, drop="drop_deltas"
        )
        self._task = connection.spawn(
            api.exec(process_id=process_id, stream_stdout_stderr=True, **options),
            f"codex-command-{process_id}",
        )
        self._task.add_done_callback(lambda _: self._events.close_when_read())

    async def __aiter__(self) -> AsyncIterator[CommandOutput]:
        async for event in self._events:
            data = event.data
            if data.get("processId") == self.process_id:
                yield CommandOutput(
                    "stderr" if data.get("stream") == "stderr" else "stdout",
                    base64.b64decode(str(data.get("deltaBase64") or "")),
                    bool(data.get("capReached")),
                )
        await self.wait()

    async def write(self, data: bytes, *, close: bool = False) -> None:
        """Write to its standard input (needs ``stream_stdin=True`` or a terminal)."""
        check_values(data=(data, CONTENT), close=(close, FLAG))
        encoded = base64.b64encode(data).decode()
        await self._once_active(
            lambda: self._api.write(
                self.process_id, delta_base64=encoded, close_stdin=True if close else UNSET
            )
        )

    async def resize(self, rows: int, cols: int) -> None:
        """Change the size of its terminal, in characters."""
        check_values(rows=(rows, COUNT), cols=(cols, COUNT))
        size = t.CommandExecTerminalSize(rows=rows, cols=cols)
        await self._once_active(lambda: self._api.resize(self.process_id, size))

    async def terminate(self) -> None:
        """End it; `wait` then returns."""
        await self._once_active(lambda: self._api.terminate(self.process_id))

    async def _once_active(self, send: Callable[[], Awaitable[None]]) -> None:
        """Send a request about the command; again while the server has not begun it."""
        deadline = self._loop.time() + BEGIN_S
        while True:
            await asyncio.sleep(0)  # the task that starts it goes first
            try:
                return await send()
            except RequestError as error:
                early = "no active command" in error.message and not self._task.done()
                if not early or self._loop.time() > deadline:
                    raise
            await asyncio.sleep(BEGIN_POLL_S)

    async def wait(self) -> t.CommandExecResponse:
        """Wait for its end.

        Raises:
            CodexError: As for `CommandsApi.exec`.
        """
        return await asyncio.shield(self._task)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if not self._task.done():
                with contextlib.suppress(CodexError):
                    await self.terminate()
                    await asyncio.wait([self._task], timeout=10.0)
        finally:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError, CodexError):
                await self._task
            self._events.close()


class CommandMembers(TypedDict, total=False):
    """Further members of ``command/exec``.

    Attributes:
        disable_output_cap: Send all output, however much.
        output_bytes_cap: Send so many bytes of each stream at most.
        permission_profile: A named one (experimental).
        sandbox_policy: Instead of the configured one.
        size: Of the terminal: ``rows`` and ``cols``.
    """

    disable_output_cap: bool
    output_bytes_cap: int | None
    permission_profile: str | None
    sandbox_policy: Mapping[str, Any] | None
    size: Mapping[str, int] | None


class CommandsApi(requests.Commands):
    """Commands in the server's sandbox, outside any thread."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection, ask: requests.Ask) -> None:
        super().__init__(ask)
        self._connection = connection

    def start(
        self,
        command: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str | None] | None = None,
        tty: bool = False,
        stdin: bool = False,
        time_limit_s: float | None = None,
        **options: Unpack[CommandMembers],
    ) -> RunningCommand:
        """Start a command whose output is streamed; nothing is awaited here.

        Args:
            command: Program and arguments; no shell.
            cwd: The server's directory by default.
            env: Changes to the server's environment; None removes a variable.
            tty: Give it a terminal.
            stdin: Let `RunningCommand.write` reach it.
            time_limit_s: After which the server ends it with status 124; without, it may run for
                an hour.
            options: Further members of ``command/exec``: see `CommandMembers`.

        Raises:
            InvalidArgument: An argument of the wrong type, or an unknown one.
        """
        check_values(
            command=(command, ("a list of words, at least one", _is_command)),
            cwd=(cwd, optional(TEXT)),
            env=(env, optional(TABLE)),
            tty=(tty, FLAG),
            stdin=(stdin, FLAG),
            time_limit_s=(time_limit_s, LIMIT),
        )
        # Its wrapper takes no others, whatever the server's version.
        further_members("command/exec", options, CommandMembers, SCHEMA_VERSION)
        limit_s = COMMAND_S if time_limit_s is None else time_limit_s
        members: dict[str, Any] = {
            "command": command,
            "cwd": UNSET if cwd is None else cwd,
            "env": UNSET if env is None else env,
            "tty": tty or UNSET,
            "stream_stdin": (stdin or tty) or UNSET,
            "timeout_ms": round(limit_s * 1000),
            "timeout_s": limit_s + 30,
            **options,
        }
        return RunningCommand(self._connection, self, f"client-{uuid.uuid4()}", members)


def _is_command(value: Any) -> bool:
    return is_strings(value) and bool(value)
