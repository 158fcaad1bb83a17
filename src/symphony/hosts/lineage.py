"""Does a process belong to a run? Asked of whoever wants to give orders (agents must not).

Every process of a run descends from the supervisor, which is a child subreaper: a double fork does
not leave it, nor does a new session or an empty environment.
"""

from __future__ import annotations

from .supervisor import read_stat

_LONGEST = 10_000
"""Ancestors looked at; a longer chain is answered as a run's, to be safe."""


def descends_from(pid: int, ancestor: int) -> bool:
    """Tell whether ``pid`` is ``ancestor`` or below it; True in doubt (it has just gone)."""
    current = pid
    for _ in range(_LONGEST):
        if current == ancestor:
            return True
        if current <= 1:
            return False
        stat = read_stat(current)
        if stat is None:
            return True
        current = stat.ppid
    return True
