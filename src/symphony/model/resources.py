"""What a host has left, as it was read at one moment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HostResources:
    """Free memory and disk of one host; None for what could not be read.

    Attributes:
        host: Its name.
        free_memory_mb: MiB that new processes can have, under the machine's and the control
            groups' limits, whichever is nearer.
        memory_limit: What bounds it: ``machine`` or the path of the control group.
        free_disk_mb: MiB that are left on the fullest of the file systems in use.
        disk_path: The directory that lies there.
        memory_pressure: Percent of the last 10 s in which some task waited for memory.
        agent_memory_mb: MiB that an agent here has in use, with all of its processes, the mean of
            a few that have run for a while; None where none has.
        faults: A sentence for each value that could not be read.
    """

    host: str
    free_memory_mb: int | None = None
    memory_limit: str = "machine"
    free_disk_mb: int | None = None
    disk_path: str = ""
    memory_pressure: float | None = None
    agent_memory_mb: int | None = None
    faults: tuple[str, ...] = ()
