"""What the kernel says of processes: trees, CPU seconds, memory.

The driver makes itself the reaper of its orphans, so that everything that an implementation starts
stays below the driver until it is gone, whatever it daemonises.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
AGENT = "fake_codex"
_NOT_THE_DAEMON = frozenset({AGENT, "bash", "sh", "dash", "sleep"})
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Process:
    """One line of /proc/PID/stat; ``cpu_s`` is user and system time, to 10 ms."""

    pid: int
    name: str
    parent: int
    state: str
    cpu_s: float

    @property
    def is_daemon(self) -> bool:
        """Whether it belongs to the implementation itself: no agent, no shell around one."""
        return self.name not in _NOT_THE_DAEMON


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent has ended."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def die_with_parent() -> None:
    """Have this process killed when the driver dies; called between fork and exec."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def descendants() -> list[Process]:
    """Return the live processes below this one; reap adopted ones that have ended."""
    children: dict[int, list[Process]] = {}
    for process in _all():
        children.setdefault(process.parent, []).append(process)
    found, waiting = [], [os.getpid()]
    while waiting:
        parent = waiting.pop()
        for child in children.get(parent, ()):
            waiting.append(child.pid)
            if child.state != "Z":
                found.append(child)
    return found


def reap(but: int) -> None:
    """Collect adopted children that have ended, except the one that is waited for elsewhere."""
    for process in _all():
        if process.parent == os.getpid() and process.state == "Z" and process.pid != but:
            os.waitpid(process.pid, os.WNOHANG)


def kill_descendants() -> int:
    """Kill all that is left below this process; return how many there were."""
    before = descendants()
    for _ in range(200):
        left = descendants()
        for process in left:
            _kill(process.pid)
        reap(0)
        if not left:
            break
        time.sleep(0.01)
    return len(before)


def cpu_s(processes: Iterable[Process]) -> float:
    """Return the CPU seconds that the implementation's own processes have used."""
    return sum(process.cpu_s for process in processes if process.is_daemon)


def rss_mib(processes: Iterable[Process]) -> float:
    """Return the resident memory of the implementation's own processes."""
    return sum(_rss_kib(process.pid) for process in processes if process.is_daemon) / 1024


def agents(processes: Iterable[Process]) -> int:
    """Return how many agents there are."""
    return sum(process.name == AGENT for process in processes)


def machine_busy_s() -> float:
    """Return the CPU seconds that all processors together have been busy since the start."""
    fields = [int(word) for word in _read(Path("/proc/stat")).splitlines()[0].split()[1:9]]
    idle, waiting = fields[3], fields[4]
    return (sum(fields) - idle - waiting) / TICKS


def _all() -> list[Process]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            line = _read(Path("/proc", name, "stat"))
            start, end = line.find("("), line.rfind(")")
            if end < 0:
                continue  # it has just ended
            fields = line[end + 2 :].split()
            used = (int(fields[11]) + int(fields[12])) / TICKS
            found.append(Process(int(name), line[start + 1 : end], int(fields[1]), fields[0], used))
    return found


def _rss_kib(pid: int) -> int:
    for line in _read(Path("/proc", str(pid), "status")).splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
