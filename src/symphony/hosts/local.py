"""The host that is this machine: processes with pipes straight to the daemon.

Bytes between the daemon and Codex pass through nobody: the daemon makes the pipes, and the
supervisor only hands the child's ends on. Invariant: each process is owned by one ``LocalProcess``
or one ``run`` call, and whoever is cancelled while owning one has it killed.

``link`` talks to the supervisor, ``launch`` says what to start, ``sweep`` ends leftovers.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import resource
import time
from collections.abc import Sequence

from codex_app_server.transport import FdTransport, Transport

from symphony.errors import HostError
from symphony.model.resources import HostResources

from .base import CompletedCommand, ExitStatus, ProcessIdentity, ProcessSpec
from .link import SpawnedRun, SupervisorLink, no_descriptor
from .resources import read_resources
from .sweep import INSTANCE, RUN_ID

STDERR_RING = 256 * 1024
"""Bytes of a process's stderr that are kept."""

COMMAND_KILL_GRACE_S = 1.0
"""Between TERM and KILL of a short command that ran out of time; lets git drop its lock files."""

CLOSE_GRACE_S = 2.0
"""What ``aclose`` grants a process that nobody has stopped."""

CONCURRENT_SPAWNS = 8

_READ_SIZE = 65536

_SETTLED_S = 20.0
"""A process that has run for so long has taken the memory that it works with."""

_MEASURED = 8
"""Agents whose memory is measured in one look."""


class TailReader:
    """Keeps the last bytes that come out of a non-blocking pipe, whatever their number."""

    def __init__(self, fd: int, cap: int) -> None:
        self._fd = fd
        self._cap = cap
        self._ring = bytearray()
        self.truncated = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(fd, self._read)

    def _read(self) -> bool:
        """Take one chunk; True while more may be there."""
        try:
            chunk = os.read(self._fd, _READ_SIZE)
        except BlockingIOError:
            return False
        except OSError:
            chunk = b""
        if not chunk:
            self._loop.remove_reader(self._fd)
            return False
        self._ring += chunk
        if len(self._ring) > self._cap:
            self.truncated = True
            del self._ring[: len(self._ring) - self._cap]
        return True

    def text(self) -> str:
        """What was kept, decoded leniently."""
        return self._ring.decode("utf-8", errors="replace")

    def close(self) -> None:
        """Take what the pipe still holds, without waiting, and close it. Safe to call twice."""
        if self._fd < 0:
            return
        # At most a pipe's worth: a writer outside of the tree must not keep us here.
        for _ in range(1024 * 1024 // _READ_SIZE):
            if not self._read():
                break
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1


class ProcessTransport(FdTransport):
    """The two pipes of a process, with its exit status for who reads their end."""

    _run: SpawnedRun | None = None

    def bind(self, run: SpawnedRun) -> None:
        """Tell whose pipes these are; what has ended sends no more, whoever holds the pipe."""
        self._run = run
        run.ended.add_done_callback(lambda _: self.end_input())

    async def exit_status(self, timeout_s: float) -> int | None:
        """Wait for the exit status (negative: the signal's number); None if it stays away."""
        assert self._run is not None
        await asyncio.wait([self._run.exited], timeout=timeout_s)
        if not self._run.exited.done():
            return None
        status = self._run.exited.result()
        return status.code if status.signal is None else -status.signal


class LocalProcess:
    """A running process on this machine (see ``base.HostProcess``)."""

    def __init__(
        self,
        link: SupervisorLink,
        run: SpawnedRun,
        *,
        transport: ProcessTransport,
        stderr: TailReader,
    ) -> None:
        self._link = link
        self._run = run
        self._transport = transport
        self._stderr = stderr
        self.started_mono = time.monotonic()
        transport.bind(run)
        run.ended.add_done_callback(lambda _: stderr.close())

    @property
    def transport(self) -> Transport:
        """Bytes to its stdin and from its stdout."""
        return self._transport

    @property
    def identity(self) -> ProcessIdentity:
        """Pid, start time and boot id."""
        return self._run.identity

    def stderr_tail(self) -> str:
        """Return the last bytes of its stderr, decoded leniently."""
        return self._stderr.text()

    async def wait(self) -> ExitStatus:
        """Wait until the process itself has ended; its tree follows shortly."""
        return await asyncio.shield(self._run.exited)

    async def stop(self, grace_s: float) -> ExitStatus:
        """End it and all of its descendants (see ``base.HostProcess.stop``)."""
        run = self._run
        try:
            self._transport.close_output()
            await asyncio.wait([run.exited], timeout=grace_s / 2)
            if not run.exited.done():
                self._link.stop(run, grace_s / 2)
            await asyncio.shield(run.ended)
        except BaseException:
            self._link.stop(run, 0.0)
            raise
        finally:
            await self._transport.aclose()
        return run.exited.result()


class LocalHost:
    """This machine as a host (see ``base.Host``).

    Args:
        instance: What tells this daemon's processes from another's (``SYMPHONY_INSTANCE`` in
            their environment, for the sweep at the next start), or None.
        name: The host's name in records and snapshots.
    """

    def __init__(self, *, instance: str | None = None, name: str = "local") -> None:
        self._name = name
        self._instance = instance
        self._link: SupervisorLink | None = None
        self._opening = asyncio.Lock()
        self._processes: set[LocalProcess] = set()
        self._closed = False
        # The supervisor starts one after the other anyway; what waits here holds no descriptors.
        self._spawning = asyncio.Semaphore(CONCURRENT_SPAWNS)

    @property
    def name(self) -> str:
        """The host's name."""
        return self._name

    @property
    def supervisor_pid(self) -> int | None:
        """Process id of the current supervisor, or None before the first start."""
        return None if self._link is None else self._link.pid

    async def resources(self, directories: Sequence[str]) -> HostResources:
        """Return what this machine has left (see ``base.Host.resources``)."""
        agents = self._settled_agents()
        return await asyncio.to_thread(read_resources, self._name, directories, agents=agents)

    def _settled_agents(self) -> list[int]:
        """Return a few long-lived processes; short commands are none."""
        now = time.monotonic()
        settled = [
            process.identity.pid
            for process in self._processes
            if now - process.started_mono > _SETTLED_S
        ]
        return settled[:: max(1, len(settled) // _MEASURED)][:_MEASURED]

    async def open(self) -> None:
        """Start the supervisor ahead of the first run.

        Raises:
            HostError: ``host_start_failed``.
        """
        await self._current_link()

    async def start(self, spec: ProcessSpec) -> LocalProcess:
        """Start a process in a session of its own (see ``base.Host.start``)."""
        link = await self._current_link()
        with _Pipes() as pipes:
            async with self._spawning:
                stdin, stdout, stderr = pipes.outward(), pipes.inward(), pipes.inward()
                run = await self._spawn(link, spec, pipes)
            pipes.keep_ours()  # the transport and the reader own them from here on
        process = LocalProcess(
            link,
            run,
            transport=ProcessTransport(stdout, stdin),
            stderr=TailReader(stderr, STDERR_RING),
        )
        self._processes.add(process)
        run.ended.add_done_callback(lambda _: self._processes.discard(process))
        return process

    async def run(
        self, spec: ProcessSpec, *, timeout_s: float, output_cap: int = 65536
    ) -> CompletedCommand:
        """Run a short command to its end (see ``base.Host.run``)."""
        link = await self._current_link()
        with _Pipes() as pipes:
            async with self._spawning:
                pipes.nothing()
                output = pipes.inward()
                pipes.share_last()
                run = await self._spawn(link, spec, pipes)
            pipes.keep_ours()
        tail = TailReader(output, output_cap)
        try:
            await asyncio.wait([run.exited], timeout=timeout_s)
            in_time = run.exited.done()
            if not in_time:
                link.stop(run, COMMAND_KILL_GRACE_S)
            await asyncio.shield(run.ended)
        except BaseException:
            link.stop(run, 0.0)
            # Whoever cancels us may go on to delete the directory: first the tree has to go.
            await asyncio.shield(run.ended)
            raise
        finally:
            tail.close()
        status = run.exited.result()
        if status.host_lost:
            raise HostError("host_lost", f"{spec.argv[0]} was lost: the host's supervisor died")
        return CompletedCommand(status if in_time else None, tail.text(), tail.truncated)

    async def aclose(self) -> None:
        """End everything that still runs here, and the supervisor. Safe to call twice."""
        self._closed = True
        await asyncio.gather(*(process.stop(CLOSE_GRACE_S) for process in list(self._processes)))
        async with self._opening:
            if self._link is not None:
                await self._link.aclose()

    async def _current_link(self) -> SupervisorLink:
        """Return the link to a living supervisor; start one where the last was lost."""
        async with self._opening:
            if self._closed:
                raise HostError("host_lost", f"the host {self._name} is closed")
            if self._link is None or self._link.lost:
                self._link = await SupervisorLink.open(instance=self._instance)
                _widen_descriptors(self._link.pid)
            return self._link

    async def _spawn(self, link: SupervisorLink, spec: ProcessSpec, pipes: _Pipes) -> SpawnedRun:
        env = {**spec.env, RUN_ID: spec.run_id, INSTANCE: self._instance or ""}
        if self._instance is None:
            del env[INSTANCE]
        stdin, stdout, stderr = pipes.child_ends
        fds = (stdin, stdout, stderr)
        return await link.spawn(argv=spec.argv, cwd=spec.cwd, env=env, fds=fds)


@functools.cache
def _inherited_descriptors() -> tuple[int, int]:
    """Return the limits (soft, hard) with which this process was started."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)


def _widen_descriptors(supervisor: int) -> None:
    """Let this process have as many descriptors as it may, and its children as many as before.

    A daemon needs several for each run. What it starts may not expect more than the usual number
    (``select``, loops that close all of them), and inherits its limit from the supervisor.
    """
    soft, hard = _inherited_descriptors()
    with contextlib.suppress(OSError, ValueError):
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Pipes:
    """The pipes of one process, made in the order stdin, stdout, stderr.

    As a context manager it closes the child's ends, and ours too unless ``keep_ours`` was called.
    What runs out of descriptors raises HostError ``host_start_failed``.
    """

    def __init__(self) -> None:
        self.child_ends: list[int] = []
        self._open: set[int] = set()
        self._ours: set[int] = set()

    def __enter__(self) -> _Pipes:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._open:
            os.close(fd)

    def outward(self) -> int:
        """Make a pipe to the child; return our end."""
        read, write = self._make()
        return self._take(child=read, ours=write)

    def inward(self) -> int:
        """Make a pipe from the child; return our end."""
        read, write = self._make()
        return self._take(child=write, ours=read)

    def nothing(self) -> None:
        """Let the child read the end of its input at once."""
        read, write = self._make()
        os.close(write)
        self._open.add(read)
        self.child_ends.append(read)

    def share_last(self) -> None:
        """Let the next of the child's descriptors be the same as its last one."""
        self.child_ends.append(self.child_ends[-1])

    def keep_ours(self) -> None:
        """Leave our ends open: somebody owns them."""
        self._open -= self._ours

    def _make(self) -> tuple[int, int]:
        try:
            return os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            raise no_descriptor(error) from error

    def _take(self, *, child: int, ours: int) -> int:
        os.set_blocking(ours, False)
        self._open |= {child, ours}
        self._ours.add(ours)
        self.child_ends.append(child)
        return ours
