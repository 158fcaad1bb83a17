"""What a Codex process can leave behind, and its removal: processes, and mountpoints.

Invariants: a process is killed only if its own environment carries one of our marks, read again
after it is pinned by a pidfd, so a number that was reused is never hit; a folder is removed only
if it is empty and was not there before.

Codex starts each command in a session of its own, so killing its process group does not reach
them; but every command inherits our mark and gets ``CODEX_THREAD_ID``. Sandboxed commands
leave empty mountpoints in the workspace. Linux only; elsewhere the sweep finds nothing.
Used by `codex_app_server.launch`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from collections.abc import Iterable
from pathlib import Path

__all__ = [
    "MARK",
    "MOUNTPOINTS",
    "Mountpoints",
    "marked_processes",
    "sweep",
    "thread_processes",
]

MARK = "CODEX_APP_SERVER_RUN"
"""Environment variable that tells which run of ours a process descends from."""

THREAD = "CODEX_THREAD_ID"
MOUNTPOINTS = (".git", ".codex", ".aws", ".agents")
SWEEPS = 5


def marked_processes(run: str, thread_ids: Iterable[str] = ()) -> list[int]:
    """Return the pids of live processes that carry a run's mark or work for one of its threads."""
    return _carriers(_marks(run, thread_ids))


def thread_processes(thread_id: str) -> list[int]:
    """Return the pids of live processes of this machine that work for a thread's commands."""
    return _carriers((f"{THREAD}={thread_id}".encode(),))


def _carriers(marks: tuple[bytes, ...]) -> list[int]:
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    return [pid for pid in pids if pid != os.getpid() and _carries(pid, marks)]


def sweep(run: str, thread_ids: Iterable[str] = ()) -> int:
    """Kill what carries a run's mark, and what that forks meanwhile; return how many it were."""
    marks = _marks(run, thread_ids)
    killed: set[int] = set()
    for _ in range(SWEEPS):
        found = [pid for pid in marked_processes(run, thread_ids) if _kill(pid, marks)]
        if not set(found) - killed:
            break
        killed.update(found)
    return len(killed)


def _marks(run: str, thread_ids: Iterable[str]) -> tuple[bytes, ...]:
    pairs = [(MARK, run), *((THREAD, thread_id) for thread_id in thread_ids)]
    return tuple(f"{name}={value}".encode() for name, value in pairs)


def _carries(pid: int, marks: tuple[bytes, ...]) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            variables = file.read().split(b"\0")
    except OSError:
        return False
    return any(mark in variables for mark in marks)


def _kill(pid: int, marks: tuple[bytes, ...]) -> bool:
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            if _carries(pid, marks):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                return True
        finally:
            os.close(pidfd)
    return False


class Mountpoints:
    """The empty folders that sandboxed commands leave in workspaces.

    `watch` a workspace before commands run there, `remove` afterwards.
    """

    def __init__(self) -> None:
        self._absent: dict[Path, tuple[str, ...]] = {}

    def watch(self, workspace: str | os.PathLike[str]) -> None:
        """Note what is there; the first call for a workspace counts."""
        path = Path(workspace).absolute()
        if path not in self._absent:
            self._absent[path] = tuple(n for n in MOUNTPOINTS if not os.path.lexists(path / n))

    def remove(self) -> list[Path]:
        """Remove what has appeared and is empty; return what was removed."""
        removed = []
        for workspace, names in self._absent.items():
            for name in names:
                with contextlib.suppress(OSError):
                    _remove_empty(workspace / name)
                    removed.append(workspace / name)
        return removed


def _remove_empty(path: Path) -> None:
    facts = os.lstat(path)
    if stat.S_ISREG(facts.st_mode) and facts.st_size == 0 and not facts.st_mode & 0o222:
        # Versions before 0.163 leave an empty file that nobody may write.
        os.unlink(path)
    else:
        # Refused by the system where it is no folder or holds anything.
        os.rmdir(path)
