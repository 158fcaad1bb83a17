"""Orders about budgets to a running daemon: what is refused, and what outlives it."""

from __future__ import annotations

import signal

from .conftest import Place


async def test_what_was_raised_is_kept_over_a_sigkill(place: Place) -> None:
    place.configure(budget={"day": {"tokens": 1_000}, "issue": {"attempts": 3}})
    place.script(turns=[[{"hang": True}]])
    issue = place.board.add("Costs much")
    daemon = await place.start()
    await place.until(lambda: place.rows("running"))

    said = place.command("budget", "raise", "day", "--tokens", "500", "--reason", "a big one")
    place.command("budget", "raise", issue.identifier, "--attempts", "2")
    assert "day: +500 tokens" in said
    await place.until(lambda: limits(place) == {"day": 1_500, "issue": 5})
    daemon.send_signal(signal.SIGKILL)
    await daemon.wait()
    await place.until(lambda: not place.processes())
    await place.start()

    assert limits(place) == {"day": 1_500, "issue": 5}
    shown = place.command("budget", "show")
    assert "1,500 tokens (raised by 500 tokens)" in shown
    assert issue.identifier in shown
    assert await place.stop() == 0


def limits(place: Place) -> dict[str, float]:
    budget = place.get("/api/v1/budget")
    rows = {"day": budget["day"], "issue": budget["issues"][0]}
    return {name: row["limits"][0]["limit"] for name, row in rows.items()}


async def test_an_order_that_makes_no_sense_is_refused_with_what_is_wrong(place: Place) -> None:
    place.configure(budget={"day": {"tokens": 1_000}})
    await place.start()
    for words, wrong, status in (
        (("day",), "give at least one of --tokens, --usd, --wall-ms, --attempts above 0", 2),
        (("day", "--usd", "5"), "budget.day has no limit of usd", 1),
        (("day", "--usd", "much"), "--usd much: give an amount such as 12.50", 2),
        (("day", "--tokens", "-5"), "--tokens -5: give a whole number from 0", 2),
        (("day", "--attempts", "-1", "--usd", "-1"), "can't be taken back; --usd -1: give an", 2),
        (("AB-99", "--tokens", "5"), "neither 'day' nor 'total' nor an issue", 1),
        (("total", "--tokens", "5"), "budget.total has no limit of tokens", 1),
    ):
        assert wrong in place.command("budget", "raise", *words, status=status)
    assert await place.stop() == 0
