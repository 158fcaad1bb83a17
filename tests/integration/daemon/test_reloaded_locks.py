"""A reload that changes what a daemon works on never gets in the way of another daemon."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from .conftest import Place

HANGING = [[{"hang": True}]]


@pytest.fixture
async def other(place: Place) -> AsyncIterator[Place]:
    """A second workflow in a directory of its own, with the first one's board."""
    root = place.root / "other"
    root.mkdir()
    made = Place(root, place.board, place.environ, f"test-{uuid.uuid4().hex[:12]}")
    made.configure(**sections(place, made.root))
    made.script()
    yield made
    for daemon in made.daemons:
        if daemon.returncode is None:
            daemon.kill()
            await daemon.wait()
    await made.until(lambda: not made.processes(), limit_s=10)


def sections(place: Place, root: Any) -> dict[str, Any]:
    """Work on the first one's board, in workspaces below this directory."""
    return {
        "tracker": {"kind": "local", "provider": {"path": str(place.root / "board")}},
        "workspace": {"root": str(root / "workspaces")},
    }


def config_problem(place: Place) -> str:
    return ((place.state() or {}).get("problems") or {}).get("config") or ""


async def test_a_reload_onto_what_another_daemon_works_on_is_refused_until_that_one_ends(
    place: Place, other: Place
) -> None:
    await place.start()
    await other.start()

    other.configure(**sections(place, place.root))

    problem = await other.until(lambda: config_problem(other))
    assert f"pid {place.daemons[0].pid}" in problem
    assert str(place.workflow) in problem
    assert "workspace.root" in problem
    assert other.log().count("Failed to reload workflow") == 1

    assert await place.stop() == 0

    await other.until(lambda: other.state() and not config_problem(other))
    assert other.log().count("Failed to reload workflow") == 1
    assert f"pid {other.daemons[0].pid}" in await asyncio.to_thread(_refusal, place)


async def test_what_a_daemon_has_left_is_free_once_its_runs_there_have_ended(
    place: Place, other: Place
) -> None:
    place.script(turns=HANGING)
    issue = place.board.add("Runs in the first root")
    await place.start()
    await place.until(lambda: place.rows("running"))

    place.configure(workspace={"root": "elsewhere"})
    await place.until(lambda: "Workflow reloaded" in place.log())

    other.configure(**sections(place, place.root))
    assert "already works on these issues" in await asyncio.to_thread(_refusal, other)
    place.command("stop", issue.identifier)
    await place.until(lambda: place.rows("blocked"))
    await other.start()
    assert config_problem(other) == ""


def _refusal(place: Place) -> str:
    """Try to start a daemon that must not start; return why it does not."""
    done = subprocess.run(
        [sys.executable, "-m", "symphony", str(place.workflow), "--instance", place.instance],
        env=place.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1, done
    return done.stderr
