from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from symphony.errors import TrackerError
from symphony.model.issue import BlockerRef, IssueId
from symphony.trackers.base import ToolContext
from symphony.trackers.local import LocalTracker
from symphony.trackers.local_board import Board

ACTIVE = ("Todo", "In Progress")
TERMINAL = ("Done", "Cancelled")


_watching: list[list[str]] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event == "open" and isinstance(arguments[0], str | os.PathLike):
        _watching[-1].append(os.fspath(arguments[0]))


sys.addaudithook(_audit)


@pytest.fixture
def opened() -> Iterator[Callable[[], list[str]]]:
    """Tells which files this process has opened since it was asked last."""
    paths: list[str] = []
    _watching.append(paths)

    def take() -> list[str]:
        taken = paths.copy()
        paths.clear()
        return taken

    yield take
    _watching.remove(paths)


@pytest.fixture
def tracker(board: Board) -> LocalTracker:
    return LocalTracker(board, active_states=ACTIVE, terminal_states=TERMINAL)


async def test_an_issue_waits_in_its_first_state_for_open_blockers(
    board: Board, tracker: LocalTracker
) -> None:
    board.add("blocker")
    board.add("waits", blocked_by=["DEMO-1"])
    board.add("unknown", blocked_by=["GONE-9"])
    board.add("runs", state="In Progress", blocked_by=["DEMO-1"])

    async def verdicts() -> list[bool]:
        issues = await tracker.fetch_issues_by_states(ACTIVE)
        return [i.dispatchable for i in issues if i.identifier != "DEMO-1"]

    assert await verdicts() == [False, False, True]
    board.move("DEMO-1", "done")
    assert await verdicts() == [True, False, True]
    found = await tracker.fetch_issues_by_ids([IssueId("DEMO-2"), IssueId("DEMO-3")])
    assert found[0].blocked_by == (BlockerRef("DEMO-1", "DEMO-1", "done"),)
    assert found[1].blocked_by == (BlockerRef(None, "GONE-9", None),)


async def test_blockers_that_cannot_be_read_hold_the_issue_back(
    board: Board, tracker: LocalTracker
) -> None:
    text = "---\ntitle: t\nstate: Todo\nblocked_by: {a: b}\n---\n"
    (board.path / "X-1.md").write_text(text)
    assert not (await tracker.fetch_issues_by_states(["todo"]))[0].dispatchable


async def test_every_field_is_normalised(board: Board, tracker: LocalTracker) -> None:
    (board.path / "X-1.md").write_text(
        "---\nid: stable\ntitle: t\nstate: In Progress\npriority: 1\nlabels: [B, ' a ', b]\n"
        "assignee: eve\nbranch: feature/x\nurl: https://e.example/1\n"
        "created: 2026-01-01T02:00:00+02:00\n---\nbody\n"
    )
    (issue,) = await tracker.fetch_issues_by_ids([IssueId("stable")])
    assert issue.identifier == "X-1"
    assert issue.labels == ("b", "a")
    assert (issue.priority, issue.assignee_id, issue.branch_name) == (1, "eve", "feature/x")
    assert issue.url == "https://e.example/1"
    assert issue.description == "body"
    assert issue.created_at is not None
    assert issue.created_at.isoformat() == "2026-01-01T00:00:00+00:00"
    assert issue.native_ref == {"file": "X-1.md"}


async def test_a_bad_file_is_warned_about_once_for_each_content(
    board: Board, tracker: LocalTracker
) -> None:
    path = board.path / "BAD-1.md"
    path.write_text("---\ntitle: t\n---\n")
    with capture_logs() as logs:
        for _ in range(3):
            await tracker.fetch_issues_by_states(["Todo"])
        path.write_text("---\nstate: Todo\n---\n")
        await tracker.fetch_issues_by_states(["Todo"])
    assert [entry["log_level"] for entry in logs] == ["warning", "warning"]
    assert "`state` is missing" in logs[0]["problems"]
    assert "`title` is missing" in logs[1]["problems"]
    assert logs[0]["file"] == str(path)


async def test_an_issue_whose_file_breaks_fails_the_read_of_its_id_only(
    board: Board, tracker: LocalTracker
) -> None:
    path = board.path / "X-1.md"
    path.write_text("---\nid: stable\ntitle: t\nstate: Todo\n---\n")
    board.add("other")
    assert len(await tracker.fetch_issues_by_ids([IssueId("stable")])) == 1
    path.write_text("---\nid: [unclosed\n")
    with pytest.raises(TrackerError, match=r"X-1\.md") as caught:
        await tracker.fetch_issues_by_ids([IssueId("stable")])
    assert caught.value.category == "tracker_response"
    assert len(await tracker.fetch_issues_by_ids([IssueId("DEMO-1")])) == 1
    path.unlink()
    assert await tracker.fetch_issues_by_ids([IssueId("stable")]) == []


async def test_an_edit_wakes_the_watcher(board: Board, tracker: LocalTracker) -> None:
    board.add("t")
    changes = tracker.changes()
    waiting = asyncio.ensure_future(anext(changes))
    # The watch starts in a thread: write until it is seen.
    async with asyncio.timeout(20):
        while not waiting.done():
            await asyncio.to_thread(board.move, "DEMO-1", "In Progress")
            await asyncio.wait([waiting], timeout=0.2)
    await waiting
    await changes.aclose()  # type: ignore[attr-defined]  # an async generator


async def test_an_edit_wakes_the_watcher_also_in_a_folder_that_was_made_anew(
    board: Board, tracker: LocalTracker
) -> None:
    changes = tracker.changes()
    waiting = asyncio.ensure_future(anext(changes))
    async with asyncio.timeout(20):
        while not waiting.done():
            # Written again and again: nothing tells when the watch of the first folder stands.
            await asyncio.to_thread(board.add, "t")
            await asyncio.wait([waiting], timeout=0.2)
        waiting = asyncio.ensure_future(anext(changes))
        while not (await asyncio.wait([waiting], timeout=0.5))[1]:
            waiting = asyncio.ensure_future(anext(changes))  # what the first edits still tell

        shutil.rmtree(board.path)
        board.path.mkdir()
        await waiting
        for _ in range(2):  # the folder's return and the deletions, then an edit in it
            waiting = asyncio.ensure_future(anext(changes))
            while not waiting.done():
                await asyncio.to_thread(board.add, "later")
                await asyncio.wait([waiting], timeout=0.2)
    await changes.aclose()  # type: ignore[attr-defined]  # an async generator


async def test_a_read_of_a_missing_folder_fails(tracker: LocalTracker, board: Board) -> None:
    shutil.rmtree(board.path)
    with pytest.raises(TrackerError, match="does not exist"):
        await tracker.fetch_issues_by_states(["Todo"])
    with pytest.raises(TrackerError, match="does not exist"):
        await tracker.fetch_issues_by_ids([IssueId("x")])


async def test_a_poll_reads_again_only_the_files_that_have_changed(
    tmp_path: Path, opened: Callable[[], list[str]]
) -> None:
    folder = tmp_path / "big"
    folder.mkdir()
    for n in range(100):
        (folder / f"P-{n}.md").write_text(f"---\nid: P-{n}\ntitle: {n}\nstate: Todo\n---\n")
    newest = max(path.stat().st_ctime for path in folder.iterdir())
    board = Board(folder, wall=lambda: newest + 60)
    tracker = LocalTracker(board, active_states=ACTIVE, terminal_states=TERMINAL)
    assert len(await tracker.fetch_issues_by_states(ACTIVE)) == 100
    assert len({path for path in opened() if path.endswith(".md")}) == 100
    assert len(await tracker.fetch_issues_by_states(ACTIVE)) == 100
    assert [path for path in opened() if path.endswith(".md")] == []
    (folder / "P-7.md").write_text("---\nid: P-7\ntitle: other\nstate: Todo\n---\n")
    opened()
    found = await tracker.fetch_issues_by_states(ACTIVE)
    assert [issue.title for issue in found if issue.identifier == "P-7"] == ["other"]
    assert {Path(path).name for path in opened() if path.endswith(".md")} == {"P-7.md"}


Call = Callable[..., Any]


@pytest.fixture
def use(tracker: LocalTracker, context: ToolContext) -> Call:
    async def call(arguments: Any, name: str = "local_board") -> tuple[bool, Any]:
        result = await tracker.call_tool(name, arguments, context)
        return result.success, json.loads(result.text)

    return call


async def test_the_tool_reads_and_changes_the_current_issue(board: Board, use: Call) -> None:
    board.add("One", description="Do it.")
    assert (await use({"action": "get"}))[1]["issue"]["description"] == "Do it."
    success, answer = await use({"action": "move", "state": "Human Review"})
    assert success
    assert answer["issue"]["state"] == "Human Review"
    success, answer = await use({"action": "comment", "text": "Done \ud800."})
    assert success
    assert answer["issue"]["comments"][0]["author"] == "agent"
    assert board.get("DEMO-1").state == "Human Review"


async def test_the_tool_creates_issues_that_wait_for_a_person(board: Board, use: Call) -> None:
    success, answer = await use(
        {"action": "create", "title": "New", "labels": ["A"], "blocked_by": ["DEMO-9"]}
    )
    assert success
    assert answer["issue"]["state"] == "Backlog"
    assert board.get("DEMO-1").blocked_by == ("DEMO-9",)


async def test_the_tool_lists_by_state(board: Board, use: Call) -> None:
    board.add("a")
    board.add("b", state="Done")
    (board.path / "BAD-1.md").write_text("x")
    _, answer = await use({"action": "list", "states": ["done "]})
    assert [issue["identifier"] for issue in answer["issues"]] == ["DEMO-2"]
    assert answer["malformed_files"] == ["BAD-1.md"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (None, "expects an object"),
        ({}, "needs a `action`"),
        ({"action": "delete"}, "must be one of get, list, comment, move, create"),
        ({"action": "move"}, "needs a `state`"),
        ({"action": "move", "state": "  "}, "needs a `state`"),
        ({"action": "move", "state": 3}, "needs a `state`"),
        ({"action": "comment", "text": ""}, "needs a `text`"),
        ({"action": "get", "identifier": "../../etc/passwd"}, "has no issue"),
        ({"action": "get", "identifier": "NOPE-1"}, "has no issue `NOPE-1`"),
        ({"action": "create"}, "needs a `title`"),
        ({"action": "create", "title": "t", "priority": "high"}, "`priority` must be"),
        ({"action": "create", "title": "t", "labels": "a"}, "`labels` must be a list"),
        ({"action": "list", "states": "Todo"}, "`states` must be a list"),
    ],
)
async def test_what_the_agent_got_wrong_is_a_failed_result(
    board: Board, use: Call, arguments: Any, words: str
) -> None:
    board.add("One")
    before = (board.path / "DEMO-1.md").read_bytes()
    success, answer = await use(arguments)
    assert not success
    assert words in answer["error"]["message"]
    assert (board.path / "DEMO-1.md").read_bytes() == before
    assert len(board.read().issues) == 1


async def test_an_unknown_tool_is_refused_with_the_list(use: Call) -> None:
    success, answer = await use({}, name="linear_graphql")
    assert not success
    assert answer["error"]["supportedTools"] == ["local_board"]
