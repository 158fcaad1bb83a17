"""Counts of what this daemon has done since it started: ended runs, polls, deliveries of webhooks.

Role: the little that no snapshot holds, since it grows; ``engine`` and ``web`` count, ``metrics``
shows. It is bounded: each name comes from a closed set, and what does not is counted as ``other``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Final

from symphony.model.run import OutcomeKind

POLL_BUCKETS_S: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the classes in which polls are counted by their duration."""

POLL_RESULTS: Final = (
    "ok",
    "tracker_request",
    "tracker_status",
    "tracker_response",
    "tracker_pagination",
    "tracker_rate_limited",
    "other",
)
"""How a poll ends: well, or with one of the categories of SPEC 11.4."""


class Tally:
    """What is counted.

    Attributes:
        runs: Ended runs by outcome.
        polls: Reads of candidates by result.
        poll_buckets: The same by duration, one class more than there are bounds; not cumulative.
        poll_seconds: Their durations added up.
        polled_wall: When the last good one ended (epoch seconds), or None.
    """

    def __init__(self) -> None:
        self.runs: Counter[OutcomeKind] = Counter()
        self.polls: Counter[str] = Counter()
        self.poll_buckets = [0] * (len(POLL_BUCKETS_S) + 1)
        self.poll_seconds = 0.0
        self.polled_wall: float | None = None

    def run_ended(self, outcome: OutcomeKind) -> None:
        """Count a run."""
        self.runs[outcome] += 1

    def poll_ended(self, result: str, *, seconds: float, wall: float) -> None:
        """Count a read of candidates: ``ok``, or the category of its failure."""
        self.polls[result if result in POLL_RESULTS else "other"] += 1
        self.poll_buckets[bisect_left(POLL_BUCKETS_S, seconds)] += 1
        self.poll_seconds += seconds
        if result == "ok":
            self.polled_wall = wall
