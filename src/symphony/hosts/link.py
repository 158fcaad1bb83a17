"""The daemon's end of a supervisor: start it, ask it to spawn and stop, hear how runs end.

Invariant: every spawned process gets exactly one exit and one end, also where the supervisor dies:
then its trees are killed from here first, and only after that they are reported as host lost, so
nobody starts a second agent while the first still lives.

``supervisor`` is the other end, ``local`` makes a host of it, ``sweep`` kills what a dead
supervisor leaves.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import logging
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from symphony.errors import HostError

from . import supervisor
from .base import ExitStatus, ProcessIdentity
from .sweep import INSTANCE, end_trees, read_boot_id

_log = logging.getLogger(__name__)

READY_TIMEOUT_S = 20.0
"""How long a new supervisor may take to say that it is ready, on a machine under load."""

_CLOSE_TIMEOUT_S = 10.0


def _future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True, eq=False)
class SpawnedRun:
    """A process that the supervisor has started.

    Attributes:
        marker: Value of ``SYMPHONY_SPAWN`` in its environment, unique to it.
        exited: Done when the main process has ended.
        ended: Done when nothing of its tree lives; holds the pids that could not be killed.
    """

    id: int
    marker: str
    identity: ProcessIdentity
    exited: asyncio.Future[ExitStatus] = field(default_factory=_future)
    ended: asyncio.Future[tuple[int, ...]] = field(default_factory=_future)

    def settle(self, status: ExitStatus, left: Sequence[int] = ()) -> None:
        """Report exit and end, as far as that has not happened."""
        if not self.exited.done():
            self.exited.set_result(status)
        if not self.ended.done():
            self.ended.set_result(tuple(left))


class SupervisorLink:
    """One supervisor process and the channel to it."""

    def __init__(self, sock: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self._sock = sock
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._inbox = bytearray()
        self._outbox: collections.deque[tuple[bytes, tuple[int, ...]]] = collections.deque()
        self._runs: dict[int, SpawnedRun] = {}
        self._starting: dict[int, tuple[str, asyncio.Future[SpawnedRun]]] = {}  # marker, answer
        self._next_id = 1
        self._token = secrets.token_hex(8)
        self._boot_id = read_boot_id()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._burial: asyncio.Task[None] | None = None
        sock.setblocking(False)
        self._loop.add_reader(sock, self._on_readable)

    @classmethod
    async def open(cls, *, instance: str | None) -> SupervisorLink:
        """Start a supervisor and wait until it serves.

        Raises:
            HostError: ``host_start_failed``.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            try:
                process = _launch(theirs.fileno(), instance)
            except OSError as error:
                ours.close()
                message = f"can't start the supervisor with {sys.executable}: {error}"
                raise HostError("host_start_failed", message) from error
        link = cls(ours, process)
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await link._ready
        except TimeoutError:
            await link.aclose()
            message = f"the supervisor did not answer within {READY_TIMEOUT_S:g} s"
            raise HostError("host_start_failed", message) from None
        except BaseException:
            await link.aclose()
            raise
        return link

    @property
    def pid(self) -> int:
        """Process id of the supervisor."""
        return self._process.pid

    @property
    def lost(self) -> bool:
        """True once the supervisor is gone or is being closed: it takes no more requests."""
        return self._burial is not None

    async def spawn(
        self,
        *,
        argv: Sequence[str],
        cwd: str,
        env: Mapping[str, str],
        fds: tuple[int, int, int],
    ) -> SpawnedRun:
        """Start a process with these descriptors as stdin, stdout and stderr.

        The descriptors stay the caller's; the child has copies when this returns.

        Raises:
            HostError: ``codex_not_found``, ``host_start_failed``, ``host_lost``.
        """
        self._require_open()
        ident = self._next_id
        self._next_id += 1
        marker = f"{self._token}.{ident}"
        started: asyncio.Future[SpawnedRun] = _future()
        env = {**env, supervisor.MARKER: marker}
        request = {"op": "spawn", "id": ident, "marker": marker, "cwd": cwd}
        copies = _duplicates(fds)
        self._starting[ident] = (marker, started)
        self._send({**request, "argv": list(argv), "env": env}, copies)
        try:
            return await started
        except asyncio.CancelledError:
            # It must not run unowned. An answer to come finds the future cancelled and stops it;
            # one that has just come is stopped here.
            if not started.cancelled() and started.exception() is None:
                self.stop(started.result(), 0.0)
            raise
        except _RefusedError as refusal:
            raise _host_error(refusal, argv=argv, cwd=cwd, env=env) from None

    def stop(self, run: SpawnedRun, grace_s: float) -> None:
        """Ask for the end of a tree: TERM at once, KILL after ``grace_s`` (0: KILL at once)."""
        if not self.lost and not run.ended.done():
            self._send({"op": "stop", "id": run.id, "grace_s": grace_s})

    async def aclose(self) -> None:
        """Close the channel: the supervisor kills what still runs, and exits.

        Safe to call twice.
        """
        if self._burial is None:
            self._burial = self._begin_burial(ExitStatus(signal=9))
        await asyncio.shield(self._burial)

    # The channel

    def _require_open(self) -> None:
        if self.lost:
            raise HostError("host_lost", "the host's supervisor is gone")

    def _send(self, message: Mapping[str, Any], fds: tuple[int, ...] = ()) -> None:
        """Queue a message; the descriptors are closed when they have gone."""
        body = json.dumps(message).encode()
        frame = len(body).to_bytes(4, "big") + body
        self._outbox.append((frame, fds))
        if len(self._outbox) == 1:
            self._flush()

    def _flush(self) -> None:
        try:
            while self._outbox:
                frame, fds = self._outbox[0]
                sent = socket.send_fds(self._sock, [frame], fds) if fds else self._sock.send(frame)
                for fd in fds:
                    os.close(fd)
                if sent == len(frame):
                    self._outbox.popleft()
                else:
                    self._outbox[0] = (frame[sent:], ())
        except BlockingIOError:
            self._loop.add_writer(self._sock, self._flush)
        except OSError:
            self._on_lost()
        else:
            self._loop.remove_writer(self._sock)

    def _on_readable(self) -> None:
        try:
            data = self._sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._on_lost()
            return
        self._inbox += data
        while len(self._inbox) >= 4:
            size = int.from_bytes(self._inbox[:4], "big")
            if len(self._inbox) < 4 + size:
                return
            message = json.loads(self._inbox[4 : 4 + size])
            del self._inbox[: 4 + size]
            self._on_message(message)

    def _on_message(self, message: dict[str, Any]) -> None:
        event, ident = message["event"], message.get("id", 0)
        run = self._runs.get(ident)
        match event:
            case "ready" if not self._ready.done():
                self._ready.set_result(None)
            case "fatal":
                fields = {"pid": self.pid, "error": message["text"]}
                _log.error("Supervisor failed", extra=fields)
            case "started":
                self._on_started(ident, message)
            case "failed":
                _, started = self._starting.pop(ident)
                if not started.done():
                    refusal = _RefusedError(message["errno"], message["what"], message["text"])
                    started.set_exception(refusal)
            case "exited" if run is not None and not run.exited.done():
                run.exited.set_result(
                    ExitStatus(code=message.get("code"), signal=message.get("signal"))
                )
            case "ended" if run is not None:
                del self._runs[ident]
                if message["left"]:
                    _log.error("Processes survive KILL", extra={"pids": message["left"]})
                run.settle(ExitStatus(signal=9), message["left"])

    def _on_started(self, ident: int, message: dict[str, Any]) -> None:
        marker, started = self._starting.pop(ident)
        identity = ProcessIdentity(message["pid"], message["start_ticks"], self._boot_id)
        run = self._runs[ident] = SpawnedRun(ident, marker, identity)
        if started.done():
            self.stop(run, 0.0)
        else:
            started.set_result(run)

    # The end

    def _detach(self) -> None:
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        for _, fds in self._outbox:
            for fd in fds:
                os.close(fd)
        self._outbox.clear()

    def _on_lost(self) -> None:
        if self.lost:
            return
        _log.error("Supervisor lost", extra={"pid": self.pid, "runs": len(self._runs)})
        self._burial = self._begin_burial(ExitStatus(host_lost=True))

    def _begin_burial(self, status: ExitStatus) -> asyncio.Task[None]:
        self._detach()
        return self._loop.create_task(self._bury(status), name=f"bury-supervisor-{self.pid}")

    async def _bury(self, status: ExitStatus) -> None:
        """Wait for the supervisor's own end, kill what it has left, then report."""
        lost = HostError("host_lost", "the host's supervisor died")
        if not self._ready.done():
            self._ready.set_exception(HostError("host_start_failed", "the supervisor died at once"))
        try:
            await asyncio.to_thread(self._collect)
            known = [run.identity for run in self._runs.values()]
            spawns = {run.marker for run in self._runs.values()}
            spawns |= {marker for marker, _ in self._starting.values()}
            if spawns:
                await asyncio.to_thread(end_trees, known, spawns=spawns)
        finally:
            for _, started in self._starting.values():
                if not started.done():
                    started.set_exception(lost)
            self._starting.clear()
            for run in self._runs.values():
                run.settle(status)
            self._runs.clear()

    def _collect(self) -> None:
        """Reap the supervisor; it has a limit, for it may be stopped or stuck. In a thread."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_CLOSE_TIMEOUT_S)
            return
        self._process.kill()
        self._process.wait()


def _launch(fd: int, instance: str | None) -> subprocess.Popen[bytes]:
    """Start a supervisor in a session of its own, with this descriptor as its channel.

    It blocks for about a millisecond, once per host: in a thread a cancelled caller would lose it.
    """
    # Imported, not run as a script: compiling it anew would cost a mebibyte of its memory. Its
    # folder comes last on the path, so nothing there can stand in for the standard library.
    folder = os.path.dirname(supervisor.__file__)
    code = f"import sys; sys.path.append({folder!r}); import supervisor; supervisor.main()"
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-X", "utf8", "-c", code, str(fd)],
        # Nothing inherited: /proc shows it to the agents, and the daemon's holds secrets.
        env={} if instance is None else {INSTANCE: instance},
        cwd="/",
        pass_fds=[fd],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _duplicates(fds: tuple[int, ...]) -> tuple[int, ...]:
    """Copy descriptors: their owner may close them before a full socket takes the frame."""
    copies: list[int] = []
    try:
        copies.extend(os.dup(fd) for fd in fds)
    except OSError as error:
        for copy in copies:
            os.close(copy)
        raise no_descriptor(error) from error
    return tuple(copies)


def no_descriptor(error: OSError) -> HostError:
    """Say that this process can't open any more, and what to mend."""
    message = f"can't open a pipe: {error.strerror}; raise the limit of open files (ulimit -n)"
    return HostError("host_start_failed", message)


class _RefusedError(Exception):
    """The supervisor could not start a process."""

    def __init__(self, number: int, what: str, text: str) -> None:
        super().__init__(text)
        self.number = number
        self.what = what
        self.text = text


def _host_error(
    refusal: _RefusedError, *, argv: Sequence[str], cwd: str, env: Mapping[str, str]
) -> HostError:
    """Say which program or directory can't be used, and what to mend."""
    reason = os.strerror(refusal.number)
    if refusal.what == "cwd":
        return HostError("host_start_failed", f"can't enter the directory {cwd}: {reason}")
    if refusal.what != "exec":
        return HostError("host_start_failed", f"can't start {argv[0]}: {refusal.text}")
    if refusal.number == 2:
        path = env.get("PATH", os.defpath)
        message = f"program {argv[0]} (or its interpreter) not found; PATH is {path}"
        return HostError("codex_not_found", message)
    return HostError("host_start_failed", f"can't execute {argv[0]}: {refusal.text}")
