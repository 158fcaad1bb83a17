"""Host admission: what a host must have left before another agent starts there.

Role: judges the figures that the shell reads; ``eligibility`` keeps short hosts out of placement.
Invariant: a figure that could not be read never holds work back. A host that was short opens again
only with a tenth more than the limit, so that one figure near it does not flicker.
"""

from __future__ import annotations

from collections.abc import Mapping

from symphony.model.resources import HostResources

from .eligibility import ResourceRules
from .snapshot import ResourcesRow

MARGIN = 1.1
"""By how much more than its limit a host that was short must have."""


def shortage(found: HostResources, rules: ResourceRules, *, was_short: bool = False) -> str | None:
    """Say what this host lacks, with the numbers; None where an agent may start."""
    margin = MARGIN if was_short else 1.0
    memory, disk, pressure = found.free_memory_mb, found.free_disk_mb, found.memory_pressure
    lacks = []
    if rules.min_memory_mb and memory is not None and memory < rules.min_memory_mb * margin:
        lacks.append(
            f"{memory} MiB of memory are free ({found.memory_limit}), worker.min_free_memory_mb "
            f"is {rules.min_memory_mb}"
        )
    if rules.min_disk_mb and disk is not None and disk < rules.min_disk_mb * margin:
        lacks.append(
            f"{disk} MiB of disk are free at {found.disk_path}, worker.min_free_disk_mb is "
            f"{rules.min_disk_mb}"
        )
    limit = rules.max_pressure
    if limit is not None and pressure is not None and pressure > limit / margin:
        lacks.append(
            f"tasks wait for memory {pressure:g} % of the time, worker.max_memory_pressure is "
            f"{limit}"
        )
    return "; ".join(lacks) or None


class Resources:
    """The newest figures by host, and which hosts are short.

    Attributes:
        short: What each short host lacks, by its name.
    """

    __slots__ = ("_found", "short")

    def __init__(self) -> None:
        self._found: dict[str, HostResources] = {}
        self.short: Mapping[str, str] = {}

    def take(self, found: HostResources, rules: ResourceRules) -> None:
        """Take in a host's newest figures."""
        self._found[found.host] = found
        self.judge(rules)

    def judge(self, rules: ResourceRules) -> None:
        """Judge all hosts by these rules."""
        verdicts = {
            name: shortage(found, rules, was_short=name in self.short)
            for name, found in self._found.items()
        }
        self.short = {name: why for name, why in verdicts.items() if why is not None}

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
