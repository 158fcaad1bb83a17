"""One harness for each tracker: what a test needs to set up in it, in the tracker's own way."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from symphony.config.settings import TrackerSettings
from symphony.model.issue import BlockerRef, Issue, IssueId
from symphony.trackers import registry
from symphony.trackers.base import Tracker
from symphony.trackers.local_board import Board
from symphony.trackers.memory import MemoryTracker

# looptime asks for a loop in plain tests too, which makes one that nobody closes before 3.12.
asyncio.set_event_loop(None)

FAKE = Path(__file__).resolve().parents[2] / "fakes" / "linear_server.py"


class Harness(Protocol):
    """A tracker and the world behind it."""

    tracker: Tracker

    def put(self, number: int, **fields: Any) -> IssueId:
        """Add an issue: state, title, labels, blocked_by (numbers)."""

    def set_state(self, number: int, state: str) -> None: ...

    def remove(self, number: int) -> None: ...

    def break_record(self, number: int) -> bool:
        """Make an issue malformed at its source; False where that can't happen."""

    def break_source(self) -> None:
        """Make every read fail from here on."""

    def requests(self) -> int:
        """Reads that reached the source, or 0 for ever where they can't be counted."""


class LocalHarness:
    def __init__(self, folder: Path) -> None:
        self.board = Board.create(folder / "board", prefix="DEMO")
        settings = TrackerSettings(
            kind="local", active_states=["Todo", "In Progress"], terminal_states=["Done"]
        )
        self.tracker = registry.build(settings, {}, folder)

    def put(self, number: int, **fields: Any) -> IssueId:
        title = fields.pop("title", f"Issue {number}")
        blockers = [f"DEMO-{n}" for n in fields.pop("blocked_by", ())]
        issue = self.board.add(title, identifier=f"DEMO-{number}", blocked_by=blockers, **fields)
        return IssueId(issue.id)

    def set_state(self, number: int, state: str) -> None:
        self.board.move(f"DEMO-{number}", state)

    def remove(self, number: int) -> None:
        self._path(number).unlink()

    def break_record(self, number: int) -> bool:
        path = self._path(number)
        path.write_text(path.read_text().replace(f"title: Issue {number}", "title:"))
        return True

    def break_source(self) -> None:
        self.board.path.rename(self.board.path.with_name("gone"))

    def requests(self) -> int:
        return 0

    def _path(self, number: int) -> Path:
        return self.board.path / f"DEMO-{number}.md"


class MemoryHarness:
    def __init__(self) -> None:
        self.memory = MemoryTracker()
        self.tracker: Tracker = self.memory

    def put(self, number: int, **fields: Any) -> IssueId:
        issue_id = IssueId(f"id-{number}")
        blockers = tuple(
            BlockerRef(f"id-{n}", f"DEMO-{n}", "Todo") for n in fields.get("blocked_by", ())
        )
        self.memory.put(
            Issue(
                id=issue_id,
                identifier=f"DEMO-{number}",
                title=fields.get("title", f"Issue {number}"),
                state=fields.get("state", "Todo"),
                labels=tuple(label.strip().lower() for label in fields.get("labels", ())),
                blocked_by=blockers,
                dispatchable=not blockers,
            )
        )
        return issue_id

    def set_state(self, number: int, state: str) -> None:
        self.memory.update(f"id-{number}", state=state)

    def remove(self, number: int) -> None:
        self.memory.remove(f"id-{number}")

    def break_record(self, number: int) -> bool:
        return False

    def break_source(self) -> None:
        from symphony.errors import TrackerError

        self.memory.failure = TrackerError("tracker_request", "out of order")

    def requests(self) -> int:
        return self.memory.reads


class LinearHarness:
    def __init__(self, server: Any) -> None:
        self.server = server
        settings = TrackerSettings(
            kind="linear",
            provider={"endpoint": server.endpoint, "api_key": "$KEY", "project_slug": "demo"},
            active_states=["Todo", "In Progress"],
            terminal_states=["Done"],
        )
        self.tracker = registry.build(settings, {"KEY": server.token}, Path())

    def put(self, number: int, **fields: Any) -> IssueId:
        blockers = tuple(self._id(n) for n in fields.pop("blocked_by", ()))
        labels = tuple(fields.pop("labels", ()))
        return IssueId(self.server.add(number, blockers=blockers, labels=labels, **fields))

    def set_state(self, number: int, state: str) -> None:
        self.server.issues[self._id(number)]["state"] = state

    def remove(self, number: int) -> None:
        del self.server.issues[self._id(number)]

    def break_record(self, number: int) -> bool:
        self.server.issues[self._id(number)]["title"] = " "
        return True

    def break_source(self) -> None:
        self.server.token = "another"

    def requests(self) -> int:
        return len(self.server.requests)

    def _id(self, number: int) -> str:
        return f"00000000-0000-4000-8000-{number:012d}"


def load_linear_server() -> Any:
    key = "symphony_fakes_linear_server"
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, FAKE)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[key] = module
        spec.loader.exec_module(module)
    return sys.modules[key]


@pytest.fixture(params=["local", "memory", "linear"])
async def harness(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    found: Harness
    if request.param == "linear":
        async with load_linear_server().LinearServer() as server:
            found = LinearHarness(server)
            yield found
            await found.tracker.aclose()
        return
    found = LocalHarness(tmp_path) if request.param == "local" else MemoryHarness()
    yield found
    await found.tracker.aclose()
