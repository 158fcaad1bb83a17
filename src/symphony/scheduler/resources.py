"""Host admission: what a host must have left before another agent starts there.

Role: judges the figures that the shell reads; ``eligibility`` keeps short hosts out of placement.
A figure is older than the starts that follow it, and an agent needs a while to take what it needs:
until the figures show a start, its estimated need counts as taken, so that many starts of one step
are not all judged by the same free memory.
Invariant: a figure that could not be read never holds work back. A host that was short opens again
only with a tenth more than the limit, so that one figure near it does not flicker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from symphony.model.issue import IssueId
from symphony.model.resources import HostResources

from .eligibility import ResourceRules
from .snapshot import ResourcesRow

MARGIN = 1.1
"""By how much more than its limit a host that was short must have."""

SETTLED_S = 20.0
"""So long after its start an agent has taken what it needs: the figures show all of it."""


@dataclass(frozen=True, slots=True)
class Reserved:
    """What counts as taken for starts that the figures don't show yet.

    Attributes:
        starts: How many; one that they show in part counts in part.
        memory_mb: MiB of each.
        disk_mb: MiB of each.
    """

    starts: float
    memory_mb: int
    disk_mb: int

    def short_of(self, least_mb: float, free_mb: int, each_mb: int) -> str | None:
        """Return None where a figure less what is taken is enough, else what decides, as text."""
        taken = round(self.starts * each_mb)
        if free_mb - taken >= least_mb:
            return None
        # Where the figure alone is too small, what is taken off is beside the point.
        if free_mb < least_mb:
            return ""
        return f" less {taken} for agents that have just started ({each_mb} each)"


NOTHING = Reserved(0.0, 0, 0)


def shortage(
    found: HostResources,
    rules: ResourceRules,
    *,
    was_short: bool = False,
    reserved: Reserved = NOTHING,
) -> str | None:
    """Say what this host lacks, with the numbers; None where an agent may start."""
    margin = MARGIN if was_short else 1.0
    memory, disk, pressure = found.free_memory_mb, found.free_disk_mb, found.memory_pressure
    each_memory, each_disk = reserved.memory_mb, reserved.disk_mb
    lacks = []
    least = rules.min_memory_mb
    if least and memory is not None:
        less = reserved.short_of(least * margin, memory, each_memory)
        if less is not None:
            lacks.append(
                f"{memory} MiB of memory are free ({found.memory_limit}){less}, "
                f"worker.min_free_memory_mb is {least}"
            )
    least = rules.min_disk_mb
    if least and disk is not None:
        less = reserved.short_of(least * margin, disk, each_disk)
        if less is not None:
            lacks.append(
                f"{disk} MiB of disk are free at {found.disk_path}{less}, "
                f"worker.min_free_disk_mb is {least}"
            )
    limit = rules.max_pressure
    if limit is not None and pressure is not None and pressure > limit / margin:
        lacks.append(
            f"tasks wait for memory {pressure:g} % of the time, worker.max_memory_pressure is "
            f"{limit}"
        )
    return "; ".join(lacks) or None


@dataclass(frozen=True, slots=True)
class _Start:
    host: str
    mono: float


class Resources:
    """The newest figures by host, what is reserved there, and which hosts are short.

    Attributes:
        lacking: What each host lacks by its figures alone, by its name.
        short: What each host lacks when what is reserved is taken off; changes with each start.
    """

    __slots__ = ("_found", "_read_mono", "_starts", "_weights", "lacking", "short")

    def __init__(self) -> None:
        self._found: dict[str, HostResources] = {}
        self._read_mono: dict[str, float] = {}
        self._starts: dict[IssueId, _Start] = {}
        self._weights: dict[str, float] = {}
        self.lacking: Mapping[str, str] = {}
        self.short: dict[str, str] = {}

    @property
    def reserves(self) -> bool:
        """Something is reserved: newer figures are worth having."""
        return bool(self._starts)

    def take(
        self,
        found: HostResources,
        rules: ResourceRules,
        *,
        mono: float,
        runs: Callable[[IssueId], bool],
    ) -> None:
        """Take in a host's newest figures.

        Args:
            found: As read just now.
            rules: The limits in force.
            mono: When that is.
            runs: Tells whether an issue still holds its slot.
        """
        self._found[found.host] = found
        self._read_mono[found.host] = mono
        self._starts = {
            issue_id: start
            for issue_id, start in self._starts.items()
            if runs(issue_id) and (start.host != found.host or start.mono > mono - SETTLED_S)
        }
        self.judge(rules)

    def reserve(self, issue_id: IssueId, host: str, rules: ResourceRules, mono: float) -> None:
        """Count a start, or a slot that was taken for one, until the figures show it."""
        self.give_back(issue_id, rules)
        self._starts[issue_id] = start = _Start(host, mono)
        self._weights[host] = self._weights.get(host, 0.0) + self._weight(start)
        self._judge(host, rules)

    def give_back(self, issue_id: IssueId, rules: ResourceRules) -> None:
        """Forget what a slot was taken for: it is not used, or is asked for once more."""
        start = self._starts.pop(issue_id, None)
        if start is not None:
            self._weights[start.host] -= self._weight(start)
            self._judge(start.host, rules)

    def judge(self, rules: ResourceRules) -> None:
        """Judge all hosts by these rules."""
        self._weigh()
        verdicts = {
            name: shortage(found, rules, was_short=name in self.lacking)
            for name, found in self._found.items()
        }
        self.lacking = {name: why for name, why in verdicts.items() if why is not None}
        for name in self._found:
            self._judge(name, rules)

    def _weigh(self) -> None:
        """Count the starts of each host, those that its figures show in part in part."""
        self._weights = {}
        for start in self._starts.values():
            self._weights[start.host] = self._weights.get(start.host, 0.0) + self._weight(start)

    def _weight(self, start: _Start) -> float:
        age_s = self._read_mono.get(start.host, start.mono) - start.mono
        return min(1.0, max(0.0, 1.0 - age_s / SETTLED_S))

    def _judge(self, host: str, rules: ResourceRules) -> None:
        found = self._found.get(host)
        if found is None:
            return
        measured = found.agent_memory_mb
        reserved = Reserved(
            self._weights.get(host, 0.0),
            # An estimate of 0 turns the reservation off, whatever is measured.
            max(measured or 0, rules.agent_memory_mb) if rules.agent_memory_mb else 0,
            rules.agent_disk_mb,
        )
        why = shortage(found, rules, was_short=host in self.lacking, reserved=reserved)
        if why is None:
            self.short.pop(host, None)
        else:
            self.short[host] = why

    def rows(self) -> tuple[ResourcesRow, ...]:
        """Return what people see."""
        return tuple(
            ResourcesRow(
                host=name,
                free_memory_mb=found.free_memory_mb,
                memory_limit=found.memory_limit,
                free_disk_mb=found.free_disk_mb,
                disk_path=found.disk_path,
                memory_pressure=found.memory_pressure,
                shortage=self.short.get(name),
            )
            for name, found in self._found.items()
        )
