"""Active hours in force: whether work may start now, and when that changes.

Role: turns ``config.hours`` and an operator's override into one answer that a gate reads.
Invariant: every step looks at the wall clock first, so a clock that was set or a host that slept is
noticed with the next event; the next change is re-anchored to the monotonic clock each time, so the
loop's one timer needs no other.
"""

from __future__ import annotations

from dataclasses import dataclass

from symphony.config.hours import ActiveHours
from symphony.model.clock import Instant, iso

from .events import Override
from .snapshot import HoursRow


@dataclass(slots=True)
class Hours:
    """The answer of this moment.

    Attributes:
        rules: The windows; None: always open.
        is_open: Work may start, by the windows alone.
        override: Until when an operator lets work start in spite of them, or None.
        override_mono: The same on the monotonic clock.
        told: The last answer that the log was told.
    """

    rules: ActiveHours | None = None
    is_open: bool = True
    override: Override | None = None
    override_mono: float = 0.0
    told: bool = True
    _since_wall: float = 0.0
    _change_wall: float | None = None
    _change_mono: float | None = None

    @property
    def lets_start(self) -> bool:
        """Work may start."""
        return self.is_open or self.override is not None

    @property
    def why_shut(self) -> str | None:
        """Why no work may start, with when it may; None where it may."""
        return None if self.lets_start or self.rules is None else self._sentence(self.rules)

    def use(self, rules: ActiveHours | None, now: Instant) -> None:
        """Take over the settings' windows."""
        self.rules = rules
        self._compute(now)

    def look(self, now: Instant) -> None:
        """Bring the answer up to this moment."""
        if self.override is not None and self.override_mono <= now.mono:
            self.override = None
        if self.rules is None:
            return
        change = self._change_wall
        if now.wall < self._since_wall or (change is not None and now.wall >= change):
            self._compute(now)
        elif change is not None:
            self._change_mono = now.mono + (change - now.wall)

    def lift(self, override: Override | None, now: Instant) -> None:
        """Let work start until then in spite of the windows, or end that."""
        self.override = override
        if override is not None:
            # A clock that was set back must not make it longer than it was given.
            left_s = min(override.until_wall - now.wall, override.until_wall - override.since_wall)
            self.override_mono = now.mono + left_s
            if left_s <= 0:
                self.override = None

    def next_due(self) -> float | None:
        """Return when the answer changes, in monotonic seconds, or None."""
        times = [self._change_mono] if self._change_mono is not None else []
        if self.override is not None:
            times.append(self.override_mono)
        return min(times, default=None)

    def row(self) -> HoursRow | None:
        """Return what people see; None where no hours are set."""
        if self.rules is None:
            return None
        return HoursRow(
            is_open=self.is_open,
            lets_start=self.lets_start,
            change_wall=self._change_wall,
            override_until_wall=None if self.override is None else self.override.until_wall,
            sentence=self._sentence(self.rules),
        )

    def _compute(self, now: Instant) -> None:
        rules = self.rules
        self._since_wall = now.wall
        self.is_open = rules is None or rules.is_open(now.wall)
        self._change_wall = None if rules is None else rules.next_change(now.wall)
        change = self._change_wall
        self._change_mono = None if change is None else now.mono + (change - now.wall)

    def _sentence(self, rules: ActiveHours) -> str:
        at = None if self._change_wall is None else iso(self._change_wall)
        if self.is_open:
            return f"within agent.active_hours ({rules.written})" + (f" until {at}" if at else "")
        if self.override is not None:
            until = iso(self.override.until_wall)
            return f"outside agent.active_hours ({rules.written}), let go on until {until} by order"
        opens = f"nothing starts before {at}" if at else "nothing starts"
        return (
            f"outside agent.active_hours ({rules.written}); {opens}, lift it with: "
            "symphony hours override"
        )
