"""A fault that all issues share: the breaker opens, outlives a restart, and a canary closes it."""

from __future__ import annotations

from typing import Any

from .conftest import Place

OVERLOADED = [
    [{"status": "failed", "error": {"message": "try later", "codexErrorInfo": "serverOverloaded"}}]
]
REFUSED = [
    [{"status": "failed", "error": {"message": "who are you", "codexErrorInfo": "unauthorized"}}]
]
HANGING = [[{"hang": True}]]


def breakers(place: Place) -> dict[str, Any]:
    rows = (place.state() or {}).get("breakers", ())
    return {row["failure_class"]: row for row in rows}


def shut_gate(place: Place, issue: str) -> str | None:
    answer = place.get(f"/api/v1/{issue}/explain")
    return None if answer is None else answer.get("first_shut")


async def test_a_model_that_is_down_stops_new_starts_and_a_canary_starts_them_again(
    place: Place,
) -> None:
    place.configure(
        breaker={"failures": 3, "cooldown_ms": 600_000},
        agent={"max_concurrent_agents": 3, "max_retry_backoff_ms": 10},
    )
    place.script(turns=OVERLOADED)
    issues = [place.board.add(f"Issue {number}").identifier for number in range(3)]
    await place.start()

    row = (await place.until(lambda: breakers(place)))["model"]
    late = place.board.add("Comes while the model is down").identifier

    assert row["state"] == "open"
    assert "nothing starts before" in row["detail"]
    await place.until(lambda: shut_gate(place, late) == "breaker_closed")
    await place.until(lambda: not place.rows("running"))
    assert "breaker is open: nothing starts" in place.log()
    assert "3 failures of class model" in place.command("explain", late, status=1)
    starts = len(place.starts())

    await place.stop()
    await place.start()
    assert breakers(place)["model"]["until"] == row["until"]
    assert len(place.starts()) == starts

    # The model is well again; an operator does not wait for the end of the cool-down.
    place.script(turns=HANGING)
    place.command("retry", issues[1])
    running = await place.until(lambda: place.rows("running"))
    assert list(running) == [issues[1]]
    half_open = breakers(place)["model"]
    assert (half_open["state"], half_open["canary"]) == ("half_open", issues[1])
    await place.until(lambda: shut_gate(place, late) == "breaker_closed")
    assert list(place.rows("running")) == [issues[1]]

    place.command("breaker", "reset", "model", "--reason", "provider is up")
    await place.until(lambda: len(place.rows("running")) == 3)
    assert breakers(place) == {}
    assert await place.stop() == 0


async def test_a_refused_login_blocks_few_issues_and_a_good_canary_lets_the_others_start(
    place: Place,
) -> None:
    place.configure(
        breaker={"failures": 2, "cooldown_ms": 1500},
        # One at a time: else a third may start between the first failure and the second.
        agent={"max_concurrent_agents": 1},
    )
    place.script(turns=REFUSED)
    for number in range(6):
        place.board.add(f"Issue {number}")
    await place.start()
    assert (await place.until(lambda: breakers(place)))["unauthorized"]["failures"] == 2
    place.script(
        turns=[[{"tool": "local_board", "arguments": {"action": "move", "state": "Done"}}]]
    )

    await place.until(lambda: len(place.rows("blocked")) == 2 and not breakers(place))
    await place.until(lambda: len(place.starts()) >= 6)

    assert len(place.rows("blocked")) == 2
    log = place.log()
    assert log.index("breaker is open") < log.index("half-open") < log.index("breaker is closed")


async def test_a_reset_of_an_unknown_class_names_those_that_there_are(place: Place) -> None:
    await place.start()
    said = place.command("breaker", "reset", "weather", status=2)
    assert "'weather'" in said
    assert "unauthorized" in said
