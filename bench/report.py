"""Samples of one run of the benchmark, as a table for people and as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

FOREIGN = "foreign"
QUIET_CORES = 0.3
_UNITS = ("ms", "s", "us", "mib")


@dataclass(frozen=True)
class Sample:
    """One repetition of one scenario by one contestant; ``error`` in place of figures."""

    scenario: str
    contestant: str
    figures: dict[str, float]
    error: str | None = None


@dataclass
class Report:
    """Collects samples; ``ours`` is compared with ``other`` (None: there is nobody)."""

    ours: str
    other: str | None
    samples: list[Sample] = field(default_factory=list)

    def table(self, scenarios: Sequence[str], ours: str, other: str | None) -> str:
        """Return a row a figure: medians, the range of all repetitions, and the ratio."""
        rows = [("", ours, other or "", "ratio" if other else "")]
        for scenario in scenarios:
            for name in self._names(scenario, ours, other):
                mine = self._values(scenario, ours, name)
                theirs = self._values(scenario, other, name) if other else []
                beside = (spread(theirs), ratio(mine, theirs)) if other else ("", "")
                rows.append((f"{scenario}: {label(name)}", spread(mine), *beside))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        return "\n".join(
            "  ".join(
                [row[0].ljust(widths[0]), *(row[k].rjust(widths[k]) for k in (1, 2, 3))]
            ).rstrip()
            for row in rows
        )

    def remarks(self) -> Iterator[str]:
        """Yield what a reader must know before believing the figures."""
        busy = [s.figures[FOREIGN] for s in self.samples if FOREIGN in s.figures]
        if busy and statistics.median(busy) > QUIET_CORES:
            yield (
                f"Other work (the driver and strangers) kept {statistics.median(busy):.1f} of "
                f"{os.cpu_count()} cores busy meanwhile, at most {max(busy):.1f}: trust CPU more "
                "than wall clock, and ratios more than either."
            )
        faults = Counter(
            f"{sample.scenario} of {sample.contestant} failed: {sample.error.splitlines()[-1]}"
            for sample in self.samples
            if sample.error
        )
        for fault, times in faults.items():
            yield f"{fault} ({times} times)" if times > 1 else fault

    def write(self, path: Path, *, versions: dict[str, str]) -> None:
        """Write all samples and what they were taken on."""
        path.parent.mkdir(parents=True, exist_ok=True)
        facts = {
            "cores": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "versions": versions,
            "samples": [asdict(sample) for sample in self.samples],
        }
        path.write_text(json.dumps(facts, indent=1) + "\n")

    def _names(self, scenario: str, *contestants: str | None) -> list[str]:
        names: dict[str, None] = {}
        for sample in self.samples:
            if sample.scenario == scenario and sample.contestant in contestants:
                names.update(dict.fromkeys(sample.figures))
        names.pop(FOREIGN, None)
        return list(names)

    def _values(self, scenario: str, contestant: str, name: str) -> list[float]:
        return [
            sample.figures[name]
            for sample in self.samples
            if (sample.scenario, sample.contestant) == (scenario, contestant)
            and name in sample.figures
        ]


def label(name: str) -> str:
    """Return a figure's name as the table has it: the unit set apart."""
    text, _, unit = name.rpartition("_")
    return f"{text}, {unit.replace('mib', 'MiB')}" if unit in _UNITS and text else name


def spread(values: Sequence[float]) -> str:
    """Return the median and, of several values, their range."""
    if not values:
        return "-"
    median = number(statistics.median(values))
    if len(values) == 1:
        return median
    return f"{median} [{number(min(values))}..{number(max(values))}]"


def ratio(mine: Sequence[float], theirs: Sequence[float]) -> str:
    """Return the ratio of the medians; below 1 we are better in all that is a cost."""
    if not mine or not theirs or statistics.median(theirs) == 0:
        return ""
    return f"{statistics.median(mine) / statistics.median(theirs):.2f}"


def number(value: float) -> str:
    """Return three significant digits, or all digits of a large number."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.3g}"
