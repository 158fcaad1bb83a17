"""``symphony tracker test`` reads a page of any tracker, says what would start, changes nothing."""

from __future__ import annotations

import asyncio
import copy
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tracker_worlds import KINDS, REMOTE, Harness, RemoteHarness, open_harness

PAGES = {"linear": 50, "github": 100, "gitlab": 100, "jira": 100, "asana": 100}


async def tried(folder: Path, section: dict[str, Any], environ: dict[str, str], *more: str) -> Any:
    """Exit status and lines of the command in a process of its own."""
    path = folder / "WORKFLOW.md"
    path.write_text(f"---\n{yaml.safe_dump({'tracker': section})}---\nDo it.\n", "utf-8")
    home = folder / "home"
    home.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "symphony", "tracker", "test", str(path), *more]
    process = await asyncio.create_subprocess_exec(
        *command,
        env={"PATH": os.environ["PATH"], "HOME": str(home), **environ},
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    # All that it leaves behind is nothing: no state directory, no ledger, no log.
    assert list(home.iterdir()) == []
    return process.returncode, [*out.decode().splitlines(), *err.decode().splitlines()]


def section_of(harness: Harness, kind: str) -> dict[str, Any]:
    if isinstance(harness, RemoteHarness):
        return harness.section
    found = {"kind": kind, "active_states": ["Todo", "In Progress"], "terminal_states": ["Done"]}
    return {**found, "provider": {"path": "board"}} if kind == "local" else found


def world_of(harness: Any) -> Any:
    """Everything behind a tracker that a call could change."""
    if isinstance(harness, RemoteHarness):
        names = ("issues", "tasks", "comments", "notes", "stories", "labels", "statuses")
        found = {name: getattr(harness.server, name, None) for name in names}
        return copy.deepcopy(found)
    board = getattr(harness, "board", None)
    files = sorted(board.path.iterdir()) if board is not None else []
    return [(file.name, file.read_bytes(), file.stat().st_mtime_ns) for file in files]


@pytest.mark.parametrize("kind", KINDS)
async def test_it_says_what_would_start_and_why_not_and_changes_nothing(
    tmp_path: Path, kind: str
) -> None:
    async with open_harness(kind, tmp_path) as harness:
        harness.put(1, title="Free \x1b[31mred")
        harness.put(2, blocked_by=[1])
        harness.put(3, state="In Progress")
        harness.put(4, state="Done")
        before = world_of(harness)
        environ = getattr(harness, "environ", {})
        status, lines = await tried(tmp_path, section_of(harness, kind), environ)
        assert world_of(harness) == before
    assert status == 0, lines
    if kind == "memory":
        # From a workflow file it starts empty.
        assert lines == ["memory: 0 issues in Todo, In Progress"]
        return
    head, *rest = lines
    assert head == f"{kind}: 3 issues in Todo, In Progress"
    verdicts = [line.split(maxsplit=1)[1] for line in rest]
    assert sum("starts" in verdict for verdict in verdicts) == 2
    (waiting,) = [verdict for verdict in verdicts if "waits: blocked by" in verdict]
    assert "Issue 2" in waiting
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize("kind", REMOTE)
async def test_it_reads_one_page_however_large_the_board_is(tmp_path: Path, kind: str) -> None:
    async with open_harness(kind, tmp_path) as harness:
        for number in range(1, 252):
            harness.put(number)
        # Labels that are states have to be there.
        harness.put(252, state="In Progress")
        harness.put(253, state="Done")
        environ = harness.environ
        status, lines = await tried(tmp_path, harness.section, environ)
        assert status == 0, lines
        assert lines[0] == f"{kind}: {PAGES[kind]} issues in Todo, In Progress"
        assert lines[-1].startswith("There are more")
        asked = len(harness.server.calls)
        assert asked <= 5, "the checks of a start, a page, two batches of blockers"
        status, lines = await tried(tmp_path, harness.section, environ, "--all")
        assert lines[0] == f"{kind}: 252 issues in Todo, In Progress"
        assert len(lines) == 253


@pytest.mark.parametrize("kind", REMOTE)
async def test_faults_are_told_with_their_mend(tmp_path: Path, kind: str) -> None:
    async with open_harness(kind, tmp_path) as harness:
        harness.put(1)
        harness.server.token = "another"
        status, lines = await tried(tmp_path, harness.section, harness.environ)
    assert status == 1
    assert lines[0].startswith("fault: ")
    assert "tracker.provider." in lines[0]
