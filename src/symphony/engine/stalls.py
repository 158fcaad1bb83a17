"""Watches the live runs for silence with a timer of its own (SPEC 8.5).

Monotonic time only. A hook, a tool call or an approval that is in flight counts as activity up to
its own limit. The scheduler decides what follows; this part reports, and reports again while a run
stays silent: a stop that had no effect is given once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from symphony.model.run import RunId, RunProgress
from symphony.scheduler.events import Event, RunSilent

_SLOWEST_S = 5.0
_FASTEST_S = 0.05

AGAIN_S = 60.0
"""From a first report of a run to the second: longer than an orderly end of a run takes."""

AGAIN_MAX_S = 600.0
"""Longest time between two reports of one run."""


@dataclass(slots=True)
class SilenceReports:
    """Which silent runs are due to be reported: at once, then after 60 s, doubling to 600 s.

    A run that was heard of again begins anew.
    """

    _due: dict[RunId, tuple[float, float]] = field(default_factory=dict)

    def due(self, silent: list[tuple[RunId, float]], *, now: float) -> list[tuple[RunId, float]]:
        """Return those of the silent runs that are to be reported now (monotonic seconds)."""
        self._due = {run_id: self._due[run_id] for run_id, _ in silent if run_id in self._due}
        reported = []
        for run_id, silent_s in silent:
            due, pause_s = self._due.get(run_id, (now, AGAIN_S))
            if due <= now:
                reported.append((run_id, silent_s))
                self._due[run_id] = (now + pause_s, min(2 * pause_s, AGAIN_MAX_S))
        return reported


async def watch_for_stalls(
    *,
    progress: Mapping[RunId, RunProgress],
    limit_s: Callable[[], float | None],
    now: Callable[[], float],
    post: Callable[[Event], None],
) -> None:
    """Report silent runs until cancelled.

    Args:
        progress: The live records.
        limit_s: Returns the stall limit in force, or None where detection is off.
        now: Monotonic seconds.
        post: The mailbox.
    """
    reports = SilenceReports()
    while True:
        limit = limit_s()
        await asyncio.sleep(_pause(limit))
        if limit is None:
            continue
        at = now()
        silent = silent_runs(progress, limit=limit, now=at)
        for run_id, silent_s in reports.due(silent, now=at):
            post(RunSilent(run_id, silent_s))


def silent_runs(
    progress: Mapping[RunId, RunProgress], *, limit: float, now: float
) -> list[tuple[RunId, float]]:
    """Return the runs that have been silent for longer than ``limit`` seconds, and for how long."""
    silent = []
    for run_id, record in progress.items():
        if record.busy_until_mono is not None and now < record.busy_until_mono:
            continue
        seconds = now - record.last_activity_mono
        if seconds > limit:
            silent.append((run_id, seconds))
    return silent


def _pause(limit: float | None) -> float:
    if limit is None:
        return _SLOWEST_S
    return min(_SLOWEST_S, max(_FASTEST_S, limit / 8))
