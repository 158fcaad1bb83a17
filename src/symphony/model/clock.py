"""An instant on both clocks, given to deciding code as an argument."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment, read once from both clocks.

    Attributes:
        mono: Seconds on the monotonic clock. All delays and deadlines use it.
        wall: Seconds since the epoch, UTC. Only for people and for what outlives the process.
    """

    mono: float
    wall: float

    def wall_after(self, delay_s: float) -> float:
        """Return the wall time (epoch seconds) that lies ``delay_s`` after this instant."""
        return self.wall + delay_s


def iso(wall: float, *, microseconds: bool = False) -> str:
    """Format epoch seconds as ISO 8601 in UTC with ``Z``, to the second unless told otherwise."""
    moment = datetime.fromtimestamp(wall, UTC)
    spec = "microseconds" if microseconds else "seconds"
    return moment.isoformat(timespec=spec).replace("+00:00", "Z")
