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

FAKES = Path(__file__).resolve().parents[2] / "fakes"


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


class LabelHarness:
    """GitHub and GitLab: the states are labels, the ids are the numbers."""

    absent = "99999"

    def __init__(self, server: Any, kind: str, **provider: Any) -> None:
        self.server = server
        self.identifier = {"github": "GH-{}", "gitlab": "GL-{}"}[kind]
        settings = TrackerSettings(
            kind=kind,
            provider={"state_labels": ["Todo", "In Progress", "Done"], **provider},
            active_states=["Todo", "In Progress"],
            terminal_states=["Done", "closed"],
        )
        self.tracker = registry.build(settings, {"KEY": server.token}, Path())

    def put(self, number: int, **fields: Any) -> IssueId:
        labels = (*fields.pop("labels", ()), fields.pop("state", "Todo"))
        blocked_by = tuple(fields.pop("blocked_by", ()))
        return IssueId(str(self.server.add(number, labels=labels, blocked_by=blocked_by, **fields)))

    def set_state(self, number: int, state: str) -> None:
        self.server.change(number, labels=[state])

    def remove(self, number: int) -> None:
        self.server.remove(number)

    def break_record(self, number: int) -> bool:
        self.server.change(number, title=" ")
        return True

    def break_source(self) -> None:
        self.server.token = "another"

    def requests(self) -> int:
        return len(self.server.calls)


class JiraHarness:
    def __init__(self, server: Any) -> None:
        self.server = server
        server.statuses["Todo"] = server.statuses["To Do"]
        settings = TrackerSettings(
            kind="jira",
            provider={
                "base_url": server.url,
                "email": server.email,
                "api_token": "$KEY",
                "project_key": "DEMO",
            },
            active_states=["Todo", "In Progress"],
            terminal_states=["Done"],
        )
        self.tracker = registry.build(settings, {"KEY": server.token}, Path())

    def put(self, number: int, **fields: Any) -> IssueId:
        issue_id = self.server.add(
            number,
            project="DEMO",
            state=fields.get("state", "Todo"),
            labels=tuple(fields.get("labels", ())),
            blockers=tuple(self._id(n) for n in fields.get("blocked_by", ())),
            summary=fields.get("title", f"Issue {number}"),
        )
        return IssueId(issue_id)

    def set_state(self, number: int, state: str) -> None:
        self.server.set_state(self._id(number), state)

    def remove(self, number: int) -> None:
        del self.server.issues[self._id(number)]

    def break_record(self, number: int) -> bool:
        self.server.issues[self._id(number)]["fields"]["summary"] = None
        return True

    def break_source(self) -> None:
        self.server.token = "another"

    def requests(self) -> int:
        return len(self.server.calls)

    @staticmethod
    def _id(number: int) -> str:
        return str(10_000 + number)


class AsanaHarness:
    identifier = "ASANA-12000000000000{:02}"

    def __init__(self, server: Any) -> None:
        self.server = server
        server.sections = {"Todo": "501", "In Progress": "502", "Done": "503"}
        settings = TrackerSettings(
            kind="asana",
            provider={
                "endpoint": server.endpoint,
                "api_key": "$KEY",
                "project_gid": "900",
                "dependencies": True,
            },
            active_states=["Todo", "In Progress"],
            terminal_states=["Done"],
        )
        self.tracker = registry.build(settings, {"KEY": server.token}, Path())

    def put(self, number: int, **fields: Any) -> IssueId:
        gid = self.server.add(
            number,
            section=fields.get("state", "Todo"),
            tags=tuple(fields.get("labels", ())),
            blockers=tuple(self._gid(n) for n in fields.get("blocked_by", ())),
            name=fields.get("title", f"Issue {number}"),
        )
        return IssueId(gid)

    def set_state(self, number: int, state: str) -> None:
        self.server.move(self._gid(number), state)

    def remove(self, number: int) -> None:
        del self.server.tasks[self._gid(number)]

    def break_record(self, number: int) -> bool:
        self.server.tasks[self._gid(number)]["name"] = " "
        return True

    def break_source(self) -> None:
        self.server.token = "another"

    def requests(self) -> int:
        return len(self.server.calls)

    @staticmethod
    def _gid(number: int) -> str:
        return str(1_200_000_000_000_000 + number)


def load_fake(name: str) -> Any:
    key = f"symphony_fakes_{name}"
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, FAKES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[key] = module
        spec.loader.exec_module(module)
    return sys.modules[key]


@pytest.fixture(params=["local", "memory", "linear", "github", "gitlab", "jira", "asana"])
async def harness(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    found: Harness
    if request.param == "linear":
        async with load_fake("linear_server").LinearServer() as server:
            found = LinearHarness(server)
            yield found
            await found.tracker.aclose()
        return
    if request.param == "github":
        async with load_fake("github_server").GitHubServer() as server:
            found = LabelHarness(
                server,
                "github",
                repo="octo/demo",
                token="$KEY",
                api_url=server.url,
                dependencies=True,
            )
            yield found
            await found.tracker.aclose()
            assert server.problems == []
        return
    if request.param == "gitlab":
        async with load_fake("gitlab_server").GitLabServer() as server:
            found = LabelHarness(
                server,
                "gitlab",
                project_path="group/demo",
                api_key="$KEY",
                api_url=server.api_url,
                blocking_links=True,
            )
            yield found
            await found.tracker.aclose()
            assert server.problems == []
        return
    if request.param == "jira":
        async with load_fake("jira_server").JiraServer() as server:
            found = JiraHarness(server)
            yield found
            await found.tracker.aclose()
        return
    if request.param == "asana":
        async with load_fake("asana_server").AsanaServer() as server:
            found = AsanaHarness(server)
            yield found
            await found.tracker.aclose()
            assert server.problems == []
        return
    found = LocalHarness(tmp_path) if request.param == "local" else MemoryHarness()
    yield found
    await found.tracker.aclose()
