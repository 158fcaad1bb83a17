"""Ends what an earlier daemon, or a supervisor that was killed, has left behind.

Invariant: nothing without our marker is touched. A process is ours when its environment carries
the marker of a run, a spawn or an instance that the caller names; what lives in the session of
such a process, or descends from it, is ours as well, since it was brought forth by it. A recorded
pid alone proves nothing, not even with boot id and start time. Our own process, its ancestors and
its descendants are never touched, whatever their environment says.

``supervisor`` lends the reading of /proc; ``link`` and the daemon's start call us, in a thread.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from .base import ProcessIdentity
from .supervisor import (
    MARKER,
    ProcStat,
    descendants,
    read_environment,
    read_stat,
    scan_processes,
    signal_process,
)

RUN_ID = "SYMPHONY_RUN_ID"
"""Environment variable that names the run a process belongs to."""

INSTANCE = "SYMPHONY_INSTANCE"
"""Environment variable that names the daemon (its state directory) a process belongs to."""

_ROUNDS = 20
_EXEC_S = 0.02


@dataclass(frozen=True, slots=True)
class EndedProcess:
    """A leftover that was killed.

    Attributes:
        run_id: The run it belonged to, or None where its environment does not say.
        command: Its command line, cut to 200 characters.
        gone: False where it still lived when the time was up.
    """

    pid: int
    run_id: str | None
    command: str
    gone: bool


def read_boot_id() -> str:
    """Return the id of the machine's current boot, or an empty string where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def identify(pid: int) -> ProcessIdentity | None:
    """Return what tells this process from a later one with its number, or None if it is gone."""
    stat = read_stat(pid)
    return None if stat is None else ProcessIdentity(pid, stat.start_ticks, read_boot_id())


def end_trees(
    identities: Sequence[ProcessIdentity],
    *,
    run_ids: Collection[str] = (),
    spawns: Collection[str] = (),
    instance: str | None = None,
    timeout_s: float = 5.0,
) -> list[EndedProcess]:
    """Kill all processes that carry one of these markers, with their sessions and descendants.

    Blocking: call it in a thread.

    Args:
        identities: Recorded main processes of this boot. They only widen the search, to unmarked
            members of their sessions while a marked one is there; none is killed for its pid.
        run_ids: Values of ``SYMPHONY_RUN_ID``.
        spawns: Values of ``SYMPHONY_SPAWN``.
        instance: Value of ``SYMPHONY_INSTANCE``.
        timeout_s: How long to wait for the killed to go.

    Returns:
        What was killed, in the order of pids.
    """
    wanted = {(RUN_ID.encode(), value.encode()) for value in run_ids}
    wanted |= {(MARKER.encode(), value.encode()) for value in spawns}
    if instance is not None:
        wanted.add((INSTANCE.encode(), instance.encode()))
    boot_id = read_boot_id()
    recorded = {i.pid: i.start_ticks for i in identities if i.boot_id == boot_id}
    ended: dict[int, EndedProcess] = {}
    deadline = time.monotonic() + timeout_s
    # Rounds, for a process may fork between the look and the kill. The last two find nothing: one
    # that is just being executed shows no environment for a moment.
    quiet = 0
    for _ in range(_ROUNDS):
        ours = _find(wanted, recorded)
        quiet = 0 if ours else quiet + 1
        if quiet == 2:
            break
        if quiet == 1:
            select.select([], [], [], _EXEC_S)
        for stat in ours:
            ended.setdefault(stat.pid, _describe(stat))
        handles = [handle for stat in ours if (handle := _kill(stat)) is not None]
        if not _await_end(handles, deadline):
            break
    left = {stat.pid for stat in _find(wanted, recorded)}
    return [
        EndedProcess(entry.pid, entry.run_id, entry.command, gone=entry.pid not in left)
        for _, entry in sorted(ended.items())
    ]


def _find(wanted: set[tuple[bytes, bytes]], recorded: dict[int, int]) -> list[ProcStat]:
    table = scan_processes()
    spared = _spared(table)
    marked = {
        pid
        for pid, stat in table.items()
        if pid not in spared and stat.alive and not wanted.isdisjoint(read_environment(pid).items())
    }
    # A marked process's session is ours where its leader is marked too, or is a recorded one. If
    # that has ended, its number can't have been taken again while the session has members.
    sessions = {
        session
        for session in (table[pid].session for pid in marked)
        if session in marked or _is_recorded(session, recorded, table)
    }
    roots = marked | {pid for pid, stat in table.items() if stat.session in sessions}
    family = descendants(table, roots) - spared
    return [table[pid] for pid in sorted(family) if table[pid].alive]


def _is_recorded(pid: int, recorded: dict[int, int], table: dict[int, ProcStat]) -> bool:
    """Say whether this is a recorded process, which may have ended, or be about to."""
    stat = table.get(pid)
    return pid in recorded and (stat is None or stat.start_ticks == recorded[pid])


def _spared(table: dict[int, ProcStat]) -> set[int]:
    """Return this process with its ancestors and descendants."""
    spared = descendants(table, {os.getpid()})
    pid = os.getpid()
    while pid in table and pid not in (0, 1):
        spared.add(pid)
        pid = table[pid].ppid
    return spared | {0, 1}


def _describe(stat: ProcStat) -> EndedProcess:
    run_id = read_environment(stat.pid).get(RUN_ID.encode())
    command = b""
    with contextlib.suppress(OSError):
        command = Path(f"/proc/{stat.pid}/cmdline").read_bytes().replace(b"\0", b" ").strip()
    name = None if run_id is None else run_id.decode(errors="replace")
    return EndedProcess(stat.pid, name, command.decode(errors="replace")[:200], gone=False)


def _kill(stat: ProcStat) -> int | None:
    """Kill a process; return a descriptor that tells of its end, or None where it is gone."""
    try:
        handle = os.pidfd_open(stat.pid)
    except OSError:
        return None
    if signal_process(stat, signal.SIGKILL):
        return handle
    os.close(handle)
    return None


def _await_end(handles: list[int], deadline: float) -> bool:
    """Wait until all of these have ended; False when the deadline came first."""
    poll = select.poll()
    for handle in handles:
        poll.register(handle, select.POLLIN)
    waiting = set(handles)
    try:
        while waiting:
            rest = deadline - time.monotonic()
            ready = poll.poll(max(0.0, rest) * 1000)
            if not ready:
                return False
            for handle, _ in ready:
                poll.unregister(handle)
                waiting.discard(handle)
        return True
    finally:
        for handle in handles:
            os.close(handle)
