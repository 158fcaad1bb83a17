"""Active hours: what may be written, and when they open and close in any zone at any instant."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony.config.hours import DAYS, ActiveHours, Window, parse_window, zone_of
from symphony.config.settings import Settings

BERLIN = ZoneInfo("Europe/Berlin")
WEEK = frozenset(range(7))


def hours(*windows: str, zone: str = "Europe/Berlin") -> ActiveHours:
    made = ActiveHours.of(windows, zone)
    assert made is not None
    return made


def at(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


def shown(wall: float | None) -> str | None:
    return None if wall is None else datetime.fromtimestamp(wall, BERLIN).isoformat()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mon-Fri 08:00-18:00", Window(frozenset(range(5)), 480, 1080)),
        ("  mon-FRI   8:00 - 18:00 ", Window(frozenset(range(5)), 480, 1080)),
        ("Sat,Sun 10:00-14:30", Window(frozenset({5, 6}), 600, 870)),
        ("Fri-Mon 00:00-24:00", Window(frozenset({4, 5, 6, 0}), 0, 1440)),
        ("22:00-06:00", Window(WEEK, 1320, 1800)),
        ("Sun 23:30-00:00", Window(frozenset({6}), 1410, 1440)),
        ("Mon,Wed-Thu 09:00-09:01", Window(frozenset({0, 2, 3}), 540, 541)),
    ],
)
def test_a_window_is_days_and_two_times(text: str, expected: Window) -> None:
    assert parse_window(text) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "must look like"),
        ("always", "must look like"),
        ("Mon-Fri", "must look like"),
        ("08:00", "must look like"),
        ("Mon 08:00-12:00 13:00-18:00", "must look like"),
        ("Funday 08:00-18:00", "'Funday' is no day; the days are Mon, Tue"),
        ("Mon- 08:00-18:00", "'' is no day"),
        ("08:60-18:00", "08:60 is no time"),
        ("08:00-24:01", "24:01 is no time"),
        ("24:00-06:00", "24:00 can only be an end"),
        ("08:00-08:00", "is empty; the whole day is 00:00-24:00"),
    ],
)
def test_a_bad_window_is_told_with_the_way_to_write_it(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told.replace("(", r"\(")):
        parse_window(text)


@pytest.mark.parametrize("name", ["Europe/Atlantis", "", "../../etc/passwd", "Europe", "CEST!"])
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="IANA time zone such as"):
        zone_of(name)


@pytest.mark.parametrize(
    ("agent", "path", "told"),
    [
        ({"active_hours": "Mon-Fri 08:00-18:00"}, "active_hours", "must be a list of strings"),
        ({"active_hours": ["Mon-Fri 8-18"]}, "active_hours", "'Mon-Fri 8-18': must look like"),
        (
            {"active_hours": ["Mon-Fri 8-18", "Sun 08:00-18:00", "Someday 08:00-18:00"]},
            "active_hours",
            "or '22:00-06:00'; 'Someday 08:00-18:00': 'Someday' is no day",
        ),
        ({"active_hours": [7]}, "active_hours", "entry 1 is 7"),
        ({"active_hours_timezone": "Mars/Base"}, "active_hours_timezone", "IANA time zone"),
        ({"active_hours_timezone": 3}, "active_hours_timezone", "must be a string"),
        ({"after_hours": "stop"}, "after_hours", "'continue' or 'drain'"),
    ],
)
def test_settings_name_the_entry_that_is_wrong(
    agent: dict[str, object], path: str, told: str
) -> None:
    with pytest.raises(ValueError, match=path) as caught:
        Settings.model_validate({"tracker": {"kind": "memory"}, "agent": agent})
    assert told in str(caught.value)


def test_without_windows_there_are_no_hours() -> None:
    assert ActiveHours.of((), "Europe/Berlin") is None


@pytest.mark.parametrize(
    ("windows", "when", "is_open", "change"),
    [
        # Thursday.
        (["Mon-Fri 08:00-18:00"], "2026-01-01T07:59:59", False, "2026-01-01T08:00:00+01:00"),
        (["Mon-Fri 08:00-18:00"], "2026-01-01T08:00:00", True, "2026-01-01T18:00:00+01:00"),
        (["Mon-Fri 08:00-18:00"], "2026-01-02T18:00:00", False, "2026-01-05T08:00:00+01:00"),
        # Over midnight, and from Sunday into Monday.
        (["Sun 22:00-06:00"], "2026-01-04T23:00:00", True, "2026-01-05T06:00:00+01:00"),
        (["Sun 22:00-06:00"], "2026-01-05T05:59:59", True, "2026-01-05T06:00:00+01:00"),
        (["Sun 22:00-06:00"], "2026-01-05T06:00:00", False, "2026-01-11T22:00:00+01:00"),
        # Windows that touch or overlap are one.
        (["08:00-12:00", "12:00-14:00"], "2026-01-01T09:00:00", True, "2026-01-01T14:00:00+01:00"),
        (["08:00-13:00", "12:00-14:00"], "2026-01-01T09:00:00", True, "2026-01-01T14:00:00+01:00"),
        (["00:00-24:00"], "2026-01-01T09:00:00", True, None),
        (["20:00-08:00", "08:00-20:00"], "2026-01-01T09:00:00", True, None),
        # The clock is set forth: 02:00 to 03:00 does not exist.
        (["02:15-05:00"], "2026-03-29T01:30:00", False, "2026-03-29T03:00:00+02:00"),
        (["02:15-02:45"], "2026-03-29T01:30:00", False, "2026-03-30T02:15:00+02:00"),
        (["01:00-02:30"], "2026-03-29T01:30:00", True, "2026-03-29T03:00:00+02:00"),
        # The clock is set back: 02:00 to 03:00 comes twice.
        (["02:15-02:45"], "2026-10-25T02:30:00", True, "2026-10-25T02:45:00+02:00"),
        (["02:15-02:45"], "2026-10-25T02:50:00", False, "2026-10-25T02:15:00+01:00"),
        (["02:45-05:00"], "2026-10-25T02:50:00", True, "2026-10-25T02:00:00+01:00"),
    ],
)
def test_when_they_are_open_and_when_that_changes(
    windows: list[str], when: str, is_open: bool, change: str | None
) -> None:
    made = hours(*windows)
    assert made.is_open(at(when)) is is_open
    assert shown(made.next_change(at(when))) == change


def clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


@st.composite
def windows(draw: st.DrawFn) -> str:
    start = draw(st.integers(0, 1439))
    end = draw(st.integers(0, 1440).filter(lambda end: end != start))
    days = draw(st.lists(st.sampled_from(DAYS), min_size=1, max_size=3))
    return f"{','.join(days)} {clock(start)}-{clock(end)}"


ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu",
         "Pacific/Apia", "America/St_Johns", "Africa/Casablanca"]  # fmt: skip
INSTANTS = st.floats(at("2008-01-01T00:00"), at("2037-01-01T00:00"), allow_nan=False)


@given(st.lists(windows(), min_size=1, max_size=3), st.sampled_from(ZONES), INSTANTS)
def test_the_next_change_is_the_first_one(texts: list[str], zone: str, wall: float) -> None:
    made = hours(*texts, zone=zone)
    change = made.next_change(wall)
    now = made.is_open(wall)
    if change is None:
        assert all(made.is_open(wall + hour * 3600) is now for hour in range(8 * 24))
        return
    assert change > wall
    assert made.is_open(change) is not now
    # A minute is the finest that can be written; nothing may have changed before.
    first = int(wall // 60) * 60 + 60
    for moment in range(first, min(int(change), first + 40_000), 60):
        assert made.is_open(moment) is now, moment
    assert made.is_open(change - 0.001) is now or change - wall < 0.002


@given(st.sampled_from(ZONES), INSTANTS)
def test_a_window_opens_when_its_local_clock_says_so(zone: str, wall: float) -> None:
    local = datetime.fromtimestamp(wall, ZoneInfo(zone))
    text = f"{DAYS[local.weekday()]} {clock(local.hour * 60 + local.minute)}-24:00"
    assert hours(text, zone=zone).is_open(wall)


@given(INSTANTS)
def test_the_systems_own_zone_is_taken_where_none_is_named(wall: float) -> None:
    made = ActiveHours.of(("Mon-Fri 08:00-18:00",), None)
    assert made is not None
    local = datetime.fromtimestamp(wall)  # the system's zone is the point
    assert made.is_open(wall) is (local.weekday() < 5 and 8 <= local.hour < 18)
