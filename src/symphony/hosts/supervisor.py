"""The process that fences one host: it starts, reaps and ends all runs there.

It runs apart from the daemon, under ``python -I -S`` with the channel's descriptor as its only
argument, and imports only the standard library, so that it stays small: one process per host,
whatever the number of runs. ``symphony.hosts.link`` is its other end; ``symphony.hosts.sweep``
borrows its reading of /proc.

The fence, in four rules:

1. Nothing of a run outlives the run's main process. What is left is ended: TERM, then KILL.
2. End-of-file on the control channel, or the daemon's death, means that nobody is left to answer
   for the runs: every tree is killed at once.
3. The supervisor is a child subreaper, so a process that leaves its parent becomes our own child
   and can't get out of sight. Each main process dies with us (parent-death signal).
4. Whose an adopted process is follows from its session, its process group, or the marker in its
   environment. One that has hidden all three is held against every run that is old enough to be
   its ancestor, and ended with the last of these.

Why our list of children is dependable though /proc calls ``children`` unreliable: an entry of ours
leaves the list only when we reap it, and we don't reap while we read.

Frames: four bytes of length, big-endian, then a JSON object. Descriptors travel with the first
byte of their frame. In: ``spawn {id, marker, argv, cwd, env}`` with stdin, stdout and stderr,
``stop {id, grace_s}``. Out: ``ready``, ``started {id, pid, start_ticks}``, ``failed {id, errno,
what, text}``, ``exited {id, code | signal}`` and last ``ended {id, left}``, where ``left`` names
the processes that even KILL did not end; ``fatal {text}`` before we fall over a fault of our own.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator

MARKER = "SYMPHONY_SPAWN"
"""Environment variable whose value is unique to one started process and inherited by its tree."""

LEFTOVER_GRACE_S = 1.0
"""Between TERM and KILL for what a main process leaves behind."""

GIVE_UP_S = 5.0
"""After the first KILL: what still lives then (an uninterruptible wait) is reported as left."""

TICK_S = 0.05
"""How often trees that are being ended are looked at, besides at every death of a child."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_OOM_SCORE = b"500"  # the kernel takes an agent before the daemon or us
# Whoever started the daemon (nohup, a shell's "&", an init) may have had them ignored.
_DEFAULTED = (
    *(signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGUSR2),
)
_FDS_SPACE = socket.CMSG_SPACE(8 * 4)
_MAX_FRAME = 64 * 1024 * 1024


class ProcStat:
    """The fields of ``/proc/<pid>/stat`` that tell whose a process is."""

    __slots__ = ("pgrp", "pid", "ppid", "session", "start_ticks", "state")

    def __init__(self, pid: int, raw: bytes) -> None:
        # The name stands in brackets and may hold anything, brackets and blanks included.
        fields = raw[raw.rindex(b")") + 2 :].split()
        self.pid = pid
        self.state = fields[0]
        self.ppid = int(fields[1])
        self.pgrp = int(fields[2])
        self.session = int(fields[3])
        self.start_ticks = int(fields[19])

    @property
    def alive(self) -> bool:
        """False for a zombie: it runs nothing any more."""
        return self.state not in (b"Z", b"X", b"x")


def read_stat(pid: int) -> ProcStat | None:
    """Return the stat of a process, or None where it doesn't exist."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return ProcStat(pid, file.read())
    except (OSError, ValueError):
        return None


def scan_processes() -> dict[int, ProcStat]:
    """Return all processes of the machine by their pid."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            stat = read_stat(int(name))
            if stat is not None:
                found[stat.pid] = stat
    return found


def read_environment(pid: int) -> dict[bytes, bytes]:
    """Return a process's start environment; empty where it is unreadable or gone."""
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            raw = file.readall()
    except OSError:
        return {}
    pairs = (entry.partition(b"=") for entry in raw.split(b"\0") if entry)
    return {name: value for name, _, value in pairs}


def descendants(table: dict[int, ProcStat], roots: set[int]) -> set[int]:
    """Return the roots that exist and everything that descends from them."""
    children: dict[int, list[int]] = {}
    for stat in table.values():
        children.setdefault(stat.ppid, []).append(stat.pid)
    found: set[int] = set()
    todo = [pid for pid in roots if pid in table]
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo.extend(children.get(pid, ()))
    return found


def signal_process(stat: ProcStat, signum: int) -> bool:
    """Signal exactly this process, never a later one with its number; True where it was sent."""
    try:
        handle = os.pidfd_open(stat.pid)
    except ProcessLookupError:
        return False
    except OSError:  # no such call here, or no descriptor left: a blink of time stays unguarded
        handle = -1
    try:
        current = read_stat(stat.pid)
        if current is None or current.start_ticks != stat.start_ticks:
            return False
        if handle < 0:
            os.kill(stat.pid, signum)
        else:
            signal.pidfd_send_signal(handle, signum)
        return True
    except OSError:
        return False
    finally:
        if handle >= 0:
            os.close(handle)


class Run:
    """A started process and what becomes of its tree."""

    __slots__ = ("exited", "give_up_at", "id", "kill_at", "marker", "pid", "start_ticks", "termed")

    def __init__(self, ident: int, pid: int, marker: str) -> None:
        self.id = ident
        self.pid = pid
        self.marker = marker.encode()
        stat = read_stat(pid)
        self.start_ticks = stat.start_ticks if stat is not None else 0
        self.exited = False
        self.termed = False
        self.kill_at: float | None = None
        self.give_up_at: float | None = None

    def kill_within(self, delay_s: float) -> None:
        """Have the tree asked to end now and killed after this delay; an earlier one stays."""
        at = time.monotonic() + delay_s
        self.kill_at = at if self.kill_at is None else min(self.kill_at, at)


class ChannelClosed(Exception):
    """The daemon is gone."""


class Channel:
    """Frames to and from the daemon, never blocking."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.pending = bytearray()
        self._inbox = bytearray()
        self._fds: list[int] = []

    def send(self, **message: object) -> None:
        """Queue a message and send what can be sent."""
        body = json.dumps(message).encode()
        self.pending += len(body).to_bytes(4, "big") + body
        self.flush()

    def flush(self) -> None:
        """Send queued bytes until the socket is full.

        Raises:
            ChannelClosed: The daemon is gone.
        """
        while self.pending:
            try:
                sent = self.sock.send(self.pending)
            except BlockingIOError:
                return
            except OSError as error:
                raise ChannelClosed from error
            del self.pending[:sent]

    def receive(self) -> Iterator[tuple[dict[str, object], list[int]]]:
        """Read once; yield each complete message with the descriptors that came so far.

        Raises:
            ChannelClosed: End-of-file, or a frame that no daemon of ours sends.
        """
        try:
            # Not socket.recv_fds: it ignores its flags, and the descriptors would be inherited.
            data, extra, flags, _ = self.sock.recvmsg(65536, _FDS_SPACE, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError as error:
            raise ChannelClosed from error
        if not data or flags & socket.MSG_CTRUNC:
            raise ChannelClosed
        self._inbox += data
        for _, _, raw in extra:
            self._fds += memoryview(raw).cast("i")
        while len(self._inbox) >= 4:
            size = int.from_bytes(self._inbox[:4], "big")
            if size > _MAX_FRAME:
                raise ChannelClosed
            if len(self._inbox) < 4 + size:
                return
            message = json.loads(self._inbox[4 : 4 + size])
            del self._inbox[: 4 + size]
            count = 3 if message["op"] == "spawn" else 0
            taken, self._fds = self._fds[:count], self._fds[count:]
            yield message, taken


class Supervisor:
    """Starts, reaps and ends the runs of one host."""

    def __init__(self, sock: socket.socket) -> None:
        self.pid = os.getpid()
        self.channel = Channel(sock)
        self.runs: dict[int, Run] = {}
        self._mains: dict[int, Run] = {}  # by pid, until they are reaped
        self._sessions: dict[int, Run] = {}  # by session id, until the run is forgotten
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._poll = select.poll()
        self._wake_fd, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)
        self._prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self._poll.register(self._wake_fd, select.POLLIN)
        self._daemon_fd = self._watch_daemon()

    def _prctl(self, option: int, value: int) -> None:
        if self._libc.prctl(option, value, 0, 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def _watch_daemon(self) -> int:
        """Watch the daemon itself too: a forked copy of it might hold the channel open."""
        try:
            handle = os.pidfd_open(os.getppid())
        except OSError:
            return -1
        self._poll.register(handle, select.POLLIN)
        return handle

    # The loop

    def serve(self) -> None:
        """Work until the daemon is gone; then kill everything."""
        try:
            self.channel.send(event="ready", pid=self.pid)
            while True:
                self._turn()
        except ChannelClosed:
            pass
        except Exception as error:
            with contextlib.suppress(ChannelClosed):
                self.channel.send(event="fatal", text=f"{type(error).__name__}: {error}")
            raise
        finally:
            self.kill_everything()

    def _turn(self) -> None:
        """Wait for the next thing to happen, and do what follows from it."""
        want = select.POLLIN | (select.POLLOUT if self.channel.pending else 0)
        self._poll.register(self.channel.sock, want)
        ready = {fd for fd, _ in self._poll.poll(TICK_S * 1000 if self._ending() else None)}
        if self._daemon_fd in ready:
            raise ChannelClosed
        if self._wake_fd in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_fd, 4096)
        if self.channel.sock.fileno() in ready:
            self.channel.flush()
            for message, fds in self.channel.receive():
                self._obey(message, fds)
        self.reap()
        self._look_after_endings()

    def _obey(self, message: dict[str, object], fds: list[int]) -> None:
        if message["op"] == "spawn":
            try:
                self._spawn(message, fds)
            finally:
                for fd in fds:
                    os.close(fd)
            return
        run = self.runs.get(int(str(message["id"])))
        if run is not None:
            run.kill_within(float(str(message["grace_s"])))

    # Starting

    def _spawn(self, message: dict[str, object], fds: list[int]) -> None:
        """Fork and execute; answer ``started`` only when the new program runs."""
        ident = int(str(message["id"]))
        fault_read, fault_write = os.pipe2(os.O_CLOEXEC)
        try:
            pid = os.fork()
        except OSError as error:
            os.close(fault_read)
            os.close(fault_write)
            self._refuse(ident, error.errno or 0, "fork", str(error))
            return
        if pid == 0:
            self._become(message, fds, fault_write)
        os.close(fault_write)
        with open(fault_read, "rb", buffering=0) as file:
            fault = file.readall()
        if fault:
            os.waitpid(pid, 0)
            number, what, text = fault.decode(errors="replace").split("\n", 2)
            self._refuse(ident, int(number), what, text)
            return
        run = Run(ident, pid, str(message["marker"]))
        self.runs[ident] = self._mains[pid] = self._sessions[pid] = run
        self.channel.send(event="started", id=ident, pid=pid, start_ticks=run.start_ticks)

    def _refuse(self, ident: int, number: int, what: str, text: str) -> None:
        self.channel.send(event="failed", id=ident, errno=number, what=what, text=text)

    def _become(self, message: dict[str, object], fds: list[int], fault_fd: int) -> None:
        """In the child: set the stage and execute the program. Never returns."""
        step = "setup"
        try:
            os.setsid()
            self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != self.pid:
                os._exit(1)  # the supervisor died before the death signal was set
            signal.set_wakeup_fd(-1)
            for signum in (*_DEFAULTED, signal.SIGCHLD):
                signal.signal(signum, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb", 0) as file:
                file.write(_OOM_SCORE)
            for target, fd in enumerate(fds):
                os.dup2(fd, target)
            step = "cwd"
            os.chdir(str(message["cwd"]))
            step = "exec"
            _execute(message["argv"], message["env"])  # type: ignore[arg-type]  # from our own link
        except BaseException as error:
            number = error.errno if isinstance(error, OSError) else errno.EINVAL
            report = f"{number or errno.EINVAL}\n{step}\n{error}"
            os.write(fault_fd, report.encode(errors="replace")[:4000])
        finally:
            os._exit(127)

    # Whose a process is

    def _members(self, run: Run, table: dict[int, ProcStat], orphans: set[int]) -> list[ProcStat]:
        """Return the living processes of a run, its main process included."""
        ours = descendants(table, {self.pid}) - {self.pid}
        roots = orphans if run.exited else orphans | {run.pid}
        if self._holds_session(run, table):
            roots |= {pid for pid in ours if run.pid in (table[pid].session, table[pid].pgrp)}
        family = descendants(table, roots) & ours
        return [table[pid] for pid in family if table[pid].alive]

    def _holds_session(self, run: Run, table: dict[int, ProcStat]) -> bool:
        """False once the run's session has died out and its number belongs to somebody else."""
        leader = table.get(run.pid)
        same = leader is None or leader.start_ticks == run.start_ticks
        return same and self._sessions.get(run.pid) is run

    def _orphans(self) -> dict[int, set[int]]:
        """Return the processes that we have adopted, by the id of the run that they belong to.

        When a main process has ended, all that lives of its run descends from these.
        """
        found: dict[int, set[int]] = {}
        for pid in self._children() - self._mains.keys():
            owner = self._owner(pid)
            if owner is not None:
                found.setdefault(owner.id, set()).add(pid)
        return found

    def _children(self) -> set[int]:
        try:
            with open(f"/proc/self/task/{self.pid}/children", "rb", buffering=0) as file:
                return {int(pid) for pid in file.readall().split()}
        except OSError:  # a kernel without CONFIG_PROC_CHILDREN
            return {pid for pid, stat in scan_processes().items() if stat.ppid == self.pid}

    def _owner(self, pid: int) -> Run | None:
        """Return the run that an adopted process belongs to, as far as it can be told (rule 4)."""
        stat = read_stat(pid)
        if stat is None or not stat.alive:
            return None
        for claim in (stat.session, stat.pgrp):
            if claim in self._sessions:
                return self._sessions[claim]
        marker = read_environment(pid).get(MARKER.encode())
        for run in self.runs.values():
            if run.marker == marker:
                return run
        suspects = [run for run in self.runs.values() if run.start_ticks <= stat.start_ticks]
        if all(run.exited for run in suspects):
            return next((run for run in self.runs.values() if run.exited), None)
        return None

    # Ending

    def reap(self) -> None:
        """Collect the dead and report main processes."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            run = self._mains.pop(pid, None)
            if run is None:
                continue
            run.exited = True
            run.kill_within(LEFTOVER_GRACE_S)
            code = os.waitstatus_to_exitcode(status)
            how = {"signal": -code} if code < 0 else {"code": code}
            self.channel.send(event="exited", id=run.id, **how)

    def _look_after_endings(self) -> None:
        """Take every tree that is being ended one step further, down to ``ended``."""
        ending = self._ending()
        if not ending:
            return
        orphans = self._orphans()
        table: dict[int, ProcStat] | None = None  # read once for all of them, and only if needed
        now = time.monotonic()
        for run, kill_at in ending:
            own = orphans.get(run.id, set())
            if run.exited and not own:
                self._forget(run, [])
            elif now >= kill_at or not run.termed:
                table = table or scan_processes()
                family = self._members(run, table, own)
                if now >= kill_at:
                    self._kill(run, family, now)
                else:
                    self._terminate(run, family)

    def _ending(self) -> list[tuple[Run, float]]:
        return [(run, run.kill_at) for run in self.runs.values() if run.kill_at is not None]

    def _terminate(self, run: Run, family: list[ProcStat]) -> None:
        run.termed = True
        for stat in family:
            signal_process(stat, signal.SIGTERM)
            signal_process(stat, signal.SIGCONT)  # a stopped process can't act on TERM

    def _kill(self, run: Run, family: list[ProcStat], now: float) -> None:
        for stat in family:
            signal_process(stat, signal.SIGKILL)
        if run.give_up_at is None:
            run.give_up_at = now + GIVE_UP_S
        elif now >= run.give_up_at and family:
            self._forget(run, [stat.pid for stat in family])

    def _forget(self, run: Run, left: list[int]) -> None:
        del self.runs[run.id]
        if self._sessions.get(run.pid) is run:
            del self._sessions[run.pid]
        if not run.exited:
            self.channel.send(event="exited", id=run.id, signal=int(signal.SIGKILL))
        self.channel.send(event="ended", id=run.id, left=left)

    def kill_everything(self) -> None:
        """Kill all that descends from us, again and again until nothing is left of it."""
        deadline = time.monotonic() + GIVE_UP_S
        while time.monotonic() < deadline:
            table = scan_processes()
            for pid in descendants(table, {self.pid}) - {self.pid}:
                signal_process(table[pid], signal.SIGKILL)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                return
            select.select([self._wake_fd], [], [], 0.01)
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_fd, 4096)


def _execute(argv: list[str], env: dict[str, str]) -> None:
    """Execute a program, looked up in the PATH of its own environment as execvp does."""
    program = argv[0]
    if "/" in program:
        os.execve(program, argv, env)
    denied: OSError | None = None
    for folder in env.get("PATH", os.defpath).split(":"):
        try:
            os.execve(os.path.join(folder or ".", program), argv, env)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            denied = error
    raise denied or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), program)


def main() -> None:
    """Serve the control channel whose descriptor is the only argument."""
    fd = int(sys.argv[1])
    os.set_inheritable(fd, False)
    Supervisor(socket.socket(fileno=fd)).serve()
