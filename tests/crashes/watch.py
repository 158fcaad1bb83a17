"""Looks at the processes of a round from outside, by the marks in their environments.

Invariant: a finding is certain. Two runs count as alive together only where a process of each was
seen before and is still the same process after the other one was seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from symphony.hosts.supervisor import MARKER, read_environment, read_stat, scan_processes
from symphony.hosts.sweep import INSTANCE, RUN_ID

INTERVAL_S = 0.05


@dataclass(frozen=True, slots=True)
class Marked:
    """A living process of the round.

    Attributes:
        run_id: Of the run that it belongs to; None for a supervisor.
        is_main: Whether it leads a session of its own, as what a supervisor starts does.
    """

    pid: int
    start_ticks: int
    run_id: str | None
    is_main: bool


def marked_processes(instance: str) -> list[Marked]:
    """Return the processes of this instance, less the daemon itself, which bears no mark."""
    return list(_marked(instance))


def _marked(instance: str) -> Iterator[Marked]:
    for stat in scan_processes().values():
        if not stat.alive:
            continue
        environ = read_environment(stat.pid)
        if environ.get(INSTANCE.encode()) != instance.encode():
            continue
        run_id = environ.get(RUN_ID.encode())
        yield Marked(
            stat.pid,
            stat.start_ticks,
            # A shell that an agent started bears both marks; the supervisor has the first alone.
            run_id.decode() if run_id is not None and MARKER.encode() in environ else None,
            stat.session == stat.pid,
        )


def still_lives(process: Marked) -> bool:
    """Say whether it is there, and the same one."""
    stat = read_stat(process.pid)
    return stat is not None and stat.alive and stat.start_ticks == process.start_ticks


class Watch:
    """Keeps a record of which runs were alive at the same time.

    Attributes:
        together: Sets of runs that lived at one moment.
        looks: How often it has looked.
    """

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self.together: set[frozenset[str]] = set()
        self.looks = 0

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.to_thread(self._look)
            await asyncio.sleep(INTERVAL_S)

    def _look(self) -> None:
        seen = marked_processes(self._instance)
        alive = frozenset(p.run_id for p in seen if p.run_id is not None and still_lives(p))
        self.together.add(alive)
        self.looks += 1
