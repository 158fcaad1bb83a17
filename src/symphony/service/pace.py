"""Tells the scheduler what the distance of the polls depends on: the tracker's budgets, webhooks.

Role: reads the meter of the tracker in force and turns instants of the wall clock into seconds from
now, since the scheduler counts on the monotonic clock only.
Neighbours: ``engine.executor`` asks after each read; ``scheduler.pacing`` plans with the answer.
"""

from __future__ import annotations

from symphony.model.allowance import Allowance
from symphony.scheduler.events import PaceObserved
from symphony.trackers.base import Metered, Tracker


def observe_pace(tracker: Tracker, *, webhooks: bool, wall: float) -> PaceObserved:
    """Return what the tracker last said of its budgets.

    Args:
        tracker: The one in force.
        webhooks: Whether webhooks are configured and well.
        wall: Epoch seconds.
    """
    if not isinstance(tracker, Metered):
        return PaceObserved((), webhooks)
    allowances = [
        Allowance(name, limit.limit, limit.remaining, limit.reset_wall - wall)
        for name, limit in tracker.http.rate_limits.items()
        if limit.remaining is not None and limit.reset_wall is not None
    ]
    return PaceObserved(tuple(allowances), webhooks)
