"""Explanations and orders reach every issue of the tracker, also those that no poll lists."""

from __future__ import annotations

from symphony.scheduler.dispatch import WAITING_LIMIT

from .conftest import Place

HANGING = [[{"hang": True}]]


async def test_an_issue_that_no_poll_lists_is_explained_and_ordered_about(place: Place) -> None:
    place.script(turns=HANGING)
    await place.start()
    name = place.board.add("Is finished", state="Done").identifier

    explained = place.command("explain", name.lower(), status=1)
    assert "SHUT  not_terminal     state 'Done' is terminal" in explained
    assert "to open it: move it to one of tracker.active_states (Todo, In Progress)" in explained
    assert place.get(f"/api/v1/{name}/explain")["first_shut"] == "not_terminal"

    refused = place.command("retry", name, status=1)
    assert f"{name} can't start: state 'Done' is terminal" in refused
    assert "nothing of it runs; it is held" in place.command("stop", name.lower())
    await place.until(lambda: [row["issue"] for row in place.state()["holds"]] == [name])
    place.board.move(name, "Todo")
    await place.until(lambda: (place.state() or {}).get("waiting"))
    assert "it may run now, but still waits: " in place.command("retry", name)
    place.command("resume", name)
    await place.until(lambda: place.rows("running"))
    assert "retrying now" in place.command("retry", name)
    assert await place.stop() == 0


async def test_a_name_that_no_issue_has_is_refused_by_every_order(place: Place) -> None:
    await place.start()
    for order in ("explain", "stop", "retry"):
        said = place.command(order, "AB-99", status=1)
        assert "the tracker (local) shows no issue 'AB-99'" in said
    assert "there is nothing to resume" in place.command("resume", "AB-99", status=1)
    assert await place.stop() == 0


async def test_candidates_beyond_those_that_are_listed_are_explained_too(place: Place) -> None:
    await place.start()
    place.command("pause")
    issues = [place.board.add(f"Issue {n}").identifier for n in range(WAITING_LIMIT + 2)]
    listed = await place.until(
        lambda: len(rows := (place.state() or {}).get("waiting", ())) == WAITING_LIMIT and rows
    )
    (first, *_) = sorted(set(issues) - {row["issue_identifier"] for row in listed})
    explained = place.command("explain", first, status=1)
    assert "SHUT  not_held" in explained
    assert "to open it: symphony resume" in explained
    assert "ok    active " in explained
    assert await place.stop() == 0


async def test_an_identifier_that_no_tracker_can_have_is_held_by_no_order(place: Place) -> None:
    await place.start()
    assert "characters that can't be shown" in place.command("pause", "AB-\x1b[2J", status=1)
    assert "at most 512 characters, got 513" in place.command("pause", "A" * 513, status=1)
    assert place.state()["holds"] == []
