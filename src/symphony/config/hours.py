"""Active hours: weekly windows in a time zone, and when they open or close next.

Role: parses ``agent.active_hours`` for the settings and answers the scheduler. Pure arithmetic on
instants that come in as arguments; the time zone's rules are data.
Invariant: ``next_change`` is the first instant after the given one at which ``is_open`` answers
otherwise. Windows are read on the local clock, so a day on which it is set forth or back is shorter
or longer for work too: an hour that does not exist opens nothing, one that comes twice counts
twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

_DAY_MIN = 24 * 60
_FORM = re.compile(r"(?:(\S+)\s+)?(\d\d?):(\d\d)\s*-\s*(\d\d?):(\d\d)")
_HORIZON_DAYS = 15
"""A window of one hour a week may fall into a gap once; the next week's can't."""


@dataclass(frozen=True, slots=True)
class Window:
    """A span of local time that begins on each of these days.

    Attributes:
        days: Weekdays of its start, 0 is Monday.
        start: Minute of that day.
        end: Minute counted from the same midnight; above 1440 where it ends on the next day.
    """

    days: frozenset[int]
    start: int
    end: int


def parse_window(text: str) -> Window:
    """Parse ``Mon-Fri 08:00-18:00``, ``Sat,Sun 10:00-14:00``, ``22:00-06:00`` (every day).

    Raises:
        ValueError: The sentence says what is wrong with it.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ValueError("must look like 'Mon-Fri 08:00-18:00' or '22:00-06:00'")
    days, *clock = match.groups()
    start, end = _minute(clock[0], clock[1]), _minute(clock[2], clock[3])
    if start == _DAY_MIN:
        raise ValueError("24:00 can only be an end")
    if start == end:
        raise ValueError("is empty; the whole day is 00:00-24:00")
    return Window(_days(days), start, end if end > start else end + _DAY_MIN)


def _minute(hours: str, minutes: str) -> int:
    minute = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or minute > _DAY_MIN:
        raise ValueError(f"{hours}:{minutes} is no time of the day from 00:00 to 24:00")
    return minute


def _days(text: str | None) -> frozenset[int]:
    if text is None:
        return frozenset(range(7))
    days: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        begin = _day(first)
        length = (_day(last) - begin) % 7 if dash else 0
        days.update((begin + offset) % 7 for offset in range(length + 1))
    return frozenset(days)


def _day(text: str) -> int:
    name = text.strip().capitalize()
    if name not in DAYS:
        raise ValueError(f"{text!r} is no day; the days are {', '.join(DAYS)}")
    return DAYS.index(name)


def zone_of(name: str) -> ZoneInfo:
    """Return a time zone by its IANA name.

    Raises:
        ValueError: There is none, or this system has no time zone database.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        try:
            ZoneInfo("Europe/Berlin")
        except (KeyError, OSError):
            raise ValueError(
                "can't be looked up: this system has no time zone database (install tzdata)"
            ) from None
        raise ValueError("must be an IANA time zone such as Europe/Berlin or UTC") from None


@dataclass(frozen=True, slots=True)
class ActiveHours:
    """The windows in which work may start.

    Attributes:
        written: As the user wrote them, for people.
        zone: None stands for the system's own.
    """

    windows: tuple[Window, ...]
    zone: tzinfo | None
    written: str

    @classmethod
    def of(cls, windows: tuple[str, ...], zone: str | None) -> ActiveHours | None:
        """Return the hours of these settings; None where there are none: always open."""
        if not windows:
            return None
        return cls(
            tuple(parse_window(text) for text in windows),
            None if zone is None else zone_of(zone),
            f"{', '.join(windows)} {zone or 'local time'}",
        )

    def is_open(self, wall: float) -> bool:
        """Say whether work may start at this instant (epoch seconds)."""
        local = self._local(wall)
        day, second = local.weekday(), (local.hour * 60 + local.minute) * 60 + local.second
        return any(
            (day in window.days and window.start * 60 <= second < window.end * 60)
            or ((day - 1) % 7 in window.days and second < (window.end - _DAY_MIN) * 60)
            for window in self.windows
        )

    def next_change(self, wall: float) -> float | None:
        """Return when (epoch seconds) they open or close next; None where they never do."""
        now = self.is_open(wall)
        later = sorted(moment for moment in self._moments(wall) if moment > wall)
        return next((moment for moment in later if self.is_open(moment) != now), None)

    def _moments(self, wall: float) -> Iterator[float]:
        """Yield every instant at which they could change: both ends of windows, shifts of clocks.

        Between two of these the local clock runs evenly and meets no end of a window.
        """
        midnight = self._local(wall).replace(hour=0, minute=0, second=0, microsecond=0)
        for number in range(-1, _HORIZON_DAYS):
            day = midnight + timedelta(days=number)
            for window in self.windows:
                if day.weekday() not in window.days:
                    continue
                for minute in (window.start, window.end):
                    local = day + timedelta(minutes=minute)
                    yield from (self._wall(local, fold) for fold in (0, 1))
        yield from self._shifts(wall)

    def _shifts(self, wall: float) -> Iterator[float]:
        """Yield when the local clock is set forth or back, to the second."""
        step = 6 * 3600
        first = int(wall)
        for low in range(first, first + _HORIZON_DAYS * 86_400, step):
            high = low + step
            if self._offset(low) == self._offset(high):
                continue
            before = self._offset(low)
            while high - low > 1:
                middle = (low + high) // 2
                if self._offset(middle) == before:
                    low = middle
                else:
                    high = middle
            yield float(high)

    def _local(self, wall: float) -> datetime:
        return datetime.fromtimestamp(wall, self.zone).replace(tzinfo=None)

    def _wall(self, local: datetime, fold: int) -> float:
        return local.replace(tzinfo=self.zone, fold=fold).timestamp()

    def _offset(self, wall: float) -> timedelta:
        return self._local(wall) - datetime.fromtimestamp(wall, UTC).replace(tzinfo=None)
