"""Start an app-server process and own it to its last descendant's end.

Invariants: the child leads a session of its own; its stderr never mixes with the protocol and is
kept in a bounded ring; when the leader ends, what is left of its process group is killed before
the leader is reaped (until then nobody else can have the group's number). `aclose` climbs one
ladder: close stdin, SIGTERM, SIGKILL, each bounded.

Re-exported as `codex_app_server.transport.SubprocessTransport`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from codex_app_server.checks import PATH, TABLE, TEXT, check_values, is_seconds, optional
from codex_app_server.descriptors import FdTransport
from codex_app_server.errors import BinaryNotFound, CodexError, InvalidArgument

__all__ = ["SubprocessTransport"]

STDERR_RING_BYTES = 256 * 1024
STDERR_READS_A_WAKE = 8
REAP_RETRY_S = 0.005
ORPHANED_PIPE_S = 0.5
KILL_WAIT_S = 5.0


class SubprocessTransport:
    """A transport to a child process. Use `spawn` or `shell`.

    Attributes:
        pid: Of the child, which leads its own session and process group.
    """

    def __init__(self, process: subprocess.Popen[bytes], pipes: FdTransport, stderr_fd: int):
        self._loop = asyncio.get_running_loop()
        self._process = process
        self._pipes = pipes
        self._stderr_fd: int | None = stderr_fd
        self._stderr = bytearray()
        self._stderr_total = 0
        self._exited = asyncio.Event()
        self._pidfd: int | None = None
        self._waiter: asyncio.Task[None] | None = None
        self._orphan_timer: asyncio.TimerHandle | None = None
        self.pid = process.pid
        os.set_blocking(stderr_fd, False)
        self._loop.add_reader(stderr_fd, self._read_stderr)
        self._watch_exit()

    @classmethod
    async def spawn(
        cls,
        argv: Sequence[str],
        *,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> SubprocessTransport:
        """Start a program with pipes.

        Args:
            argv: Program and arguments; no shell.
            cwd: Its directory; ours by default.
            env: Its complete environment; None inherits ours.

        Raises:
            BinaryNotFound: The program does not exist or may not be executed.
            InvalidArgument: The directory does not exist, or ``argv`` is empty.
        """
        check_values(
            argv=(argv, ("the program and its arguments, a list of texts", _is_argv)),
            cwd=(cwd, optional(PATH)),
            env=(env, optional(TABLE)),
        )
        try:
            process = subprocess.Popen(  # noqa: ASYNC220 # fork and exec only; waiting is async
                list(argv),
                cwd=cwd,
                env=None if env is None else dict(env),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            if cwd is not None and not os.path.isdir(cwd):  # noqa: ASYNC240 # a failed start only
                raise InvalidArgument(f"cwd {os.fspath(cwd)!r} is not a directory") from error
            raise BinaryNotFound(f"cannot start {argv[0]!r}: {error.strerror}") from error
        except OSError as error:
            raise CodexError(f"cannot start {argv[0]!r}: {error.strerror}") from error
        assert process.stdin
        assert process.stdout
        assert process.stderr
        pipes = await FdTransport.open(
            read_fd=os.dup(process.stdout.fileno()), write_fd=os.dup(process.stdin.fileno())
        )
        stderr_fd = os.dup(process.stderr.fileno())
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()
        return cls(process, pipes, stderr_fd)

    @classmethod
    async def shell(
        cls,
        command: str,
        *,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> SubprocessTransport:
        """Start a shell command as ``bash -lc`` would run it; see `spawn`."""
        check_values(command=(command, TEXT))
        if not command.strip():
            raise InvalidArgument("the command is blank")
        return await cls.spawn(["bash", "-lc", command], cwd=cwd, env=env)

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._process.returncode

    def stderr_tail(self) -> str:
        """Return the last 256 KiB of stderr, decoded leniently."""
        return self._stderr.decode("utf-8", "replace")

    @property
    def stderr_cut(self) -> bool:
        """Whether the beginning of stderr has been dropped."""
        return self._stderr_total > len(self._stderr)

    async def close_input(self) -> None:
        """Write what was sent, then close the child's stdin; its output can still be received."""
        await self._pipes.drain()
        self._pipes.close_output()

    async def send(self, data: bytes) -> None:
        """See `Transport.send`."""
        await self._pipes.send(data)

    async def receive(self) -> bytes:
        """See `Transport.receive`."""
        return await self._pipes.receive()

    def send_signal(self, number: int) -> None:
        """Send a signal to the child and its group; does nothing once it has ended."""
        check_values(number=(number, ("a signal's number", lambda one: isinstance(one, int))))
        self._signal(number)

    async def exit_status(self, timeout_s: float) -> int | None:
        """Wait at most ``timeout_s`` for the end; return the exit status, or None."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._exited.wait()
        return self.returncode

    async def wait(self) -> int:
        """Wait for the child's end; return its exit status."""
        await self._exited.wait()
        assert self._process.returncode is not None
        return self._process.returncode

    async def aclose(self, grace_s: float = 2.0) -> None:
        """End the process and its group: close stdin, TERM after ``grace_s``, KILL after as much.

        Safe to call twice. Cancelled, it kills at once.

        Raises:
            InvalidArgument: ``grace_s`` is no number from 0.
        """
        check_values(grace_s=(grace_s, ("seconds from 0", lambda s: s == 0 or is_seconds(s))))
        try:
            self._pipes.close_output()
            for number in (None, signal.SIGTERM):
                if number is not None:
                    self._signal(number)
                if await self.exit_status(grace_s) is not None:
                    break
        finally:
            if not self._exited.is_set():
                self._signal(signal.SIGKILL)
                await self.exit_status(KILL_WAIT_S)
            await self._release()

    async def _release(self) -> None:
        if self._orphan_timer is not None:
            self._orphan_timer.cancel()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.cancel()
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        self._read_stderr()
        self._close_stderr()
        await self._pipes.aclose()

    def _signal(self, number: int) -> None:
        # The leader is not reaped before `_exited` is set, so the number is still its own.
        if not self._exited.is_set():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def _watch_exit(self) -> None:
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):
            self._waiter = self._loop.create_task(self._wait_in_thread(), name="codex-process-exit")
            return
        self._loop.add_reader(self._pidfd, self._on_exit)

    async def _wait_in_thread(self) -> None:
        await asyncio.to_thread(os.waitid, os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        self._on_exit()

    def _on_exit(self) -> None:
        if self._exited.is_set():
            return
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        self._signal(signal.SIGKILL)
        if self._process.poll() is None:
            # Told of the end a moment before it can be reaped (threads of the leader linger).
            self._loop.call_later(REAP_RETRY_S, self._on_exit)
            return
        self._exited.set()
        # A descendant in another session may keep the pipe open for ever.
        self._orphan_timer = self._loop.call_later(ORPHANED_PIPE_S, self._pipes.end_input)

    def _read_stderr(self) -> None:
        # A bounded number of reads a wake: a child that floods its stderr must not hold the loop.
        for _ in range(STDERR_READS_A_WAKE):
            if self._stderr_fd is None:
                return
            try:
                data = os.read(self._stderr_fd, 65536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._close_stderr()
                return
            self._stderr += data
            self._stderr_total += len(data)
            if len(self._stderr) > STDERR_RING_BYTES:
                del self._stderr[:-STDERR_RING_BYTES]

    def _close_stderr(self) -> None:
        if self._stderr_fd is not None:
            self._loop.remove_reader(self._stderr_fd)
            os.close(self._stderr_fd)
            self._stderr_fd = None


def _is_argv(value: Any) -> bool:
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        return False
    return all(isinstance(one, str | os.PathLike) for one in value)
