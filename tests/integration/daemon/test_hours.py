"""Active hours of a running daemon: nothing starts outside them unless an operator lifts them."""

from __future__ import annotations

import time

from .conftest import Place

HANGING = [[{"hang": True}]]
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def another_day() -> str:
    """A day that neither is today nor begins while the test runs."""
    return DAYS[(time.gmtime().tm_wday + 3) % 7]


async def test_outside_the_hours_work_waits_until_it_is_ordered_over_a_restart_too(
    place: Place,
) -> None:
    closed = {"active_hours": [f"{another_day()} 00:00-24:00"], "active_hours_timezone": "UTC"}
    place.configure(agent=closed)
    place.script(turns=HANGING)
    issue = place.board.add("Waits for its day").identifier
    await place.start()

    row = (await place.until(lambda: (place.state() or {}).get("waiting")))[0]
    assert row["gate"] == "active_hours"
    assert "SHUT  active_hours" in place.command("explain", issue, status=1)
    assert "active hours: nothing starts" in place.log()
    assert "--minutes 99999999" in place.command("hours", "override", "--minutes", "99999999",
                                                 status=2)  # fmt: skip
    assert place.starts() == []

    assert "lifted for 30 minutes" in place.command("hours", "override", "--minutes", "30")
    await place.until(lambda: place.rows("running").get(issue, {}).get("turn_count"))
    until = place.state()["active_hours"]["override_until"]
    assert await place.stop() == 0
    await place.start()
    await place.until(lambda: len(place.starts()) == 2)
    assert place.state()["active_hours"]["override_until"] == until

    assert "in force again" in place.command("hours", "override", "--minutes", "0")
    second = place.board.add("Waits again").identifier
    await place.until(lambda: [row["issue_identifier"] for row in place.state()["waiting"]])
    assert place.state()["waiting"][0]["issue_identifier"] == second
    assert list(place.rows("running")) == [issue]


async def test_without_hours_there_is_nothing_to_override(place: Place) -> None:
    await place.start()
    assert "agent.active_hours is not set" in place.command("hours", "override", status=1)
    assert "in force again" in place.command("hours", "override", "--minutes", "0")
    assert await place.stop() == 0
