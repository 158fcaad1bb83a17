"""Reads what this machine has left: memory under control groups, disks, memory pressure.

Role: the local half of ``Host.resources``; blocking reads of small files, for a thread.
Invariant: nothing raises. What can't be read is None with a sentence about it, so that a kernel
without control groups or pressure figures costs a figure and never a start.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from symphony.model.resources import HostResources

_MIB = 1024 * 1024
_TREE_LIMIT = 64
"""Processes of one agent that are looked at."""

_NO_LIMIT = 1 << 60
"""Version 1 writes a huge page count for "no limit", version 2 the word ``max``."""


def read_resources(
    host: str,
    directories: Sequence[str],
    *,
    agents: Sequence[int] = (),
    proc: Path = Path("/proc"),
    cgroup: Path = Path("/sys/fs/cgroup"),
) -> HostResources:
    """Return what is left for processes of this daemon.

    Args:
        host: The name to report it under.
        directories: Whose file systems count; one that is missing stands for its parent.
        agents: Process ids of a few agents that have run for a while.
        proc: The process file system.
        cgroup: Where control groups are mounted.
    """
    faults: list[str] = []
    memory, limit = _memory(proc, cgroup, faults)
    disk, where = _disk(directories, faults)
    return HostResources(
        host=host,
        free_memory_mb=memory,
        memory_limit=limit,
        free_disk_mb=disk,
        disk_path=where,
        memory_pressure=_pressure(proc, faults),
        agent_memory_mb=_agent_memory(proc, agents),
        faults=tuple(faults),
    )


def _memory(proc: Path, cgroup: Path, faults: list[str]) -> tuple[int | None, str]:
    """Return the least MiB that the machine and every group above us leave, and whose it is."""
    found: list[tuple[int, str]] = []
    try:
        found.append((_meminfo(proc / "meminfo"), "machine"))
    except (OSError, ValueError) as error:
        faults.append(f"free memory of the machine: {error}")
    for group in _groups(proc, cgroup):
        left = _left_in(group)
        if left is not None:
            found.append((left, str(group)))
    return min(found) if found else (None, "machine")


def _meminfo(path: Path) -> int:
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) // 1024
    raise ValueError(f"{path} has no MemAvailable")


def _groups(proc: Path, cgroup: Path) -> Iterator[Path]:
    """Yield our memory control groups with their parents: a limit may lie on any level."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, own = rest.partition(":")
        if number == "0" and not controllers:
            top = cgroup
        elif "memory" in controllers.split(","):
            top = cgroup / "memory"
        else:
            continue
        # In a container of its own the path may not exist: its group is then the mount itself.
        path = top / own.lstrip("/")
        group = path if path.is_dir() and ".." not in path.parts else top
        while True:
            yield group
            if group == top:
                break
            group = group.parent


def _left_in(group: Path) -> int | None:
    """Return the MiB that a group leaves; None without a limit. File cache can be reclaimed."""
    for limit_name, used_name in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            limit = (group / limit_name).read_text().strip()
            used = int((group / used_name).read_text())
            if limit == "max" or int(limit) >= _NO_LIMIT:
                return None
            return (int(limit) - used + _cache(group)) // _MIB
        except (OSError, ValueError):
            continue
    return None


def _cache(group: Path) -> int:
    figures = {}
    for line in (group / "memory.stat").read_text().splitlines():
        name, _, value = line.partition(" ")
        figures[name] = value
    # Version 1 counts the whole tree under these names.
    names = ("total_inactive_file", "total_active_file")
    if names[0] not in figures:
        names = ("inactive_file", "active_file")
    return sum(int(figures.get(name, "0")) for name in names)


def _agent_memory(proc: Path, agents: Sequence[int]) -> int | None:
    """Return the mean MiB that these agents have of their own, their processes included.

    Pages of files are shared, and count as free elsewhere; so only what was written counts here.
    """
    found = [used for pid in agents if (used := _tree_kb(proc, pid)) is not None]
    return round(sum(found) / len(found) / 1024) if found else None


def _tree_kb(proc: Path, root: int) -> int | None:
    """Return the KiB of a process and its descendants; None where it has ended."""
    total, left, seen = 0, [root], 0
    while left and seen < _TREE_LIMIT:
        pid, seen = left.pop(), seen + 1
        try:
            lines = (proc / str(pid) / "smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))
            children = (proc / str(pid) / "task" / str(pid) / "children").read_text()
            left.extend(int(child) for child in children.split())
        except (OSError, ValueError, IndexError):
            if pid == root:
                return None
    return total


def _disk(directories: Sequence[str], faults: list[str]) -> tuple[int | None, str]:
    """Return the MiB that are left on the fullest file system; none without free inodes."""
    found: list[tuple[int, str]] = []
    for directory in directories:
        try:
            status = os.statvfs(_existing(directory))
        except OSError as error:
            faults.append(f"free disk at {directory}: {error.strerror or error}")
            continue
        free = status.f_bavail * status.f_frsize // _MIB
        has_inodes = not status.f_files or status.f_favail
        found.append((free if has_inodes else 0, directory))
    return min(found) if found else (None, "")


def _existing(directory: str) -> Path:
    path = Path(directory)
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _pressure(proc: Path, faults: list[str]) -> float | None:
    path = proc / "pressure" / "memory"
    try:
        some = path.read_text().splitlines()[0]
        return float(dict(part.split("=") for part in some.split()[1:])["avg10"])
    except (OSError, ValueError, KeyError, IndexError) as error:
        faults.append(f"memory pressure ({path}): {error}")
        return None
