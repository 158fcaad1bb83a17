"""Slots and hosts: how much runs where, and where the next run goes (SPEC 8.3, Appendix A).

``Slots`` counts what ``claims`` holds, kept up to date by it, so that no question costs a walk
over the running issues. ``place`` chooses a host from those counts. Neither knows an issue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

LOCAL_HOST = "local"
"""The host's name where ``worker.ssh_hosts`` is empty."""


class Slots:
    """Counts of taken slots: in all, per compared state name, per host."""

    __slots__ = ("by_host", "by_state", "total")

    def __init__(self) -> None:
        self.total = 0
        self.by_state: Counter[str] = Counter()
        self.by_host: Counter[str] = Counter()

    def take(self, state_key: str, host: str) -> None:
        """Count one more run in this state on this host."""
        self.total += 1
        self.by_state[state_key] += 1
        self.by_host[host] += 1

    def give_back(self, state_key: str, host: str) -> None:
        """Undo a ``take`` with the same arguments."""
        self.total -= 1
        _decrement(self.by_state, state_key)
        _decrement(self.by_host, host)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Slots)
            and self.total == other.total
            and self.by_state == other.by_state
            and self.by_host == other.by_host
        )

    __hash__ = None  # type: ignore[assignment]  # mutable counts must not be a key


def _decrement(counts: Counter[str], key: str) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]


def place(
    hosts: Sequence[str],
    per_host: int | None,
    slots: Slots,
    *,
    preferred: str | None = None,
    suspects: Collection[str] = (),
    short: Collection[str] = (),
) -> str | None:
    """Return the host for the next run, or None where every host is full.

    The preferred (previous) host wins while it has room and is not a suspect, because the
    workspace lies there. Otherwise the least loaded one, ties in the configured order; suspects
    come last: a dead host runs nothing and would otherwise attract all work.

    Args:
        hosts: The configured hosts; empty means this machine, which only global limits bound.
        per_host: Limit for each host, or None for no limit.
        slots: What is taken.
        preferred: Where the issue ran last, or None.
        suspects: Hosts that were lost a short while ago.
        short: Hosts without the resources for another run; never chosen.
    """
    if not hosts:
        return None if LOCAL_HOST in short else LOCAL_HOST
    free = [
        host
        for host in hosts
        if host not in short and (per_host is None or slots.by_host[host] < per_host)
    ]
    if preferred in free and preferred not in suspects:
        return preferred
    # min() keeps the first of equals, which is the configured order.
    return min(free, key=lambda host: (host in suspects, slots.by_host[host]), default=None)
