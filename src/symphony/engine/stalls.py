"""Watches the live runs for silence with a timer of its own (SPEC 8.5).

Monotonic time only. A tool call or an approval that is in flight counts as activity up to its own
limit. The scheduler decides what follows; this part reports.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from symphony.model.run import RunId, RunProgress
from symphony.scheduler.events import Event, RunSilent

_SLOWEST_S = 5.0
_FASTEST_S = 0.05


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
    reported: set[RunId] = set()
    while True:
        limit = limit_s()
        await asyncio.sleep(_pause(limit))
        if limit is None:
            continue
        reported &= progress.keys()
        for run_id, silent_s in silent_runs(progress, limit=limit, now=now()):
            if run_id not in reported:
                reported.add(run_id)
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
