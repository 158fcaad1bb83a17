"""A daemon is killed after its agent's last word, while the run is wound up."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from .conftest import Place

ASKS = [
    [
        {
            "ask": "item/tool/requestUserInput",
            "params": {"questions": [{"id": "q", "question": "Which colour?", "options": []}]},
        },
        {"hang": True},
    ]
]
FAILS = [[{"status": "failed", "error": {"message": "out of paint"}}]]


async def killed_while_winding_up(place: Place, turns: list[Any]) -> str:
    """Kill the first daemon in the middle of ``after_run``; return the issue, with a second up."""
    told, gate = place.root / "hooks", place.root / "gate"
    hook = f"echo began >> {told}; [ -e {gate} ] || sleep 60; echo ended >> {told}"
    # A second run would be refused: what follows from the first one stays to be seen.
    place.configure(hooks={"after_run": hook}, budget={"issue": {"attempts": 1}})
    place.script(turns=turns)
    issue = place.board.add("Is wound up")
    daemon = await place.start()
    await place.until(told.exists)
    daemon.kill()
    await daemon.wait()
    gate.touch()
    await place.start()
    return issue.identifier


def hooks_run(place: Place) -> list[str]:
    return (place.root / "hooks").read_text().split()


def rows(place: Place, query: str) -> list[tuple[Any, ...]]:
    (ledger,) = (place.root / "state").rglob("*.sqlite3")
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


async def test_a_question_is_not_asked_twice(place: Place) -> None:
    name = await killed_while_winding_up(place, ASKS)

    row = (await place.until(lambda: place.rows("blocked")))[name]

    assert "Which colour?" in json.dumps(row)
    assert len(place.starts()) == 1
    assert hooks_run(place) == ["began", "began", "ended"]
    assert rows(place, "SELECT outcome FROM runs") == [("input_required",)]
    assert await place.stop() == 0


async def test_a_failure_is_counted_once(place: Place) -> None:
    name = await killed_while_winding_up(place, FAILS)

    row = (await place.until(lambda: place.rows("blocked")))[name]

    assert "out of paint" in row["error"]
    assert len(place.starts()) == 1
    assert hooks_run(place) == ["began", "began", "ended"]
    assert rows(place, "SELECT outcome, message LIKE '%out of paint%' FROM runs") == [("failed", 1)]
    assert rows(place, "SELECT json_array_length(failures) FROM breakers") == [(1,)]
    assert await place.stop() == 0


@pytest.mark.parametrize("turns", [ASKS, FAILS], ids=["asks", "fails"])
async def test_a_daemon_that_is_killed_again_and_again_still_ends_it_once(
    place: Place, turns: list[Any]
) -> None:
    name = await killed_while_winding_up(place, turns)
    await place.until(lambda: place.rows("blocked"))
    place.daemons[-1].kill()
    await place.daemons[-1].wait()
    await place.start()

    row = (await place.until(lambda: place.rows("blocked")))[name]

    assert row["issue_identifier"] == name
    assert len(place.starts()) == 1
    assert hooks_run(place) == ["began", "began", "ended"]
    assert len(rows(place, "SELECT * FROM runs")) == 1
