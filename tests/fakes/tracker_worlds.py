"""Each tracker with the world behind it: what a test needs to set up there, in the tracker's way.

A harness knows the section ``tracker`` of its settings and the environment that goes with it, so
that a test can build the adapter or write a workflow for a daemon. ``open_harness`` starts the fake
provider and ends it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from asana_server import AsanaServer
from github_server import GitHubServer
from gitlab_server import GitLabServer
from jira_server import JiraServer
from linear_server import LinearServer

from symphony.config.settings import TrackerSettings
from symphony.errors import TrackerError
from symphony.model.issue import BlockerRef, Issue, IssueId
from symphony.trackers import registry
from symphony.trackers.asana import AsanaTracker
from symphony.trackers.base import Tracker
from symphony.trackers.github import GitHubTracker
from symphony.trackers.gitlab import GitLabTracker
from symphony.trackers.http import HttpClient
from symphony.trackers.jira import JiraTracker
from symphony.trackers.linear import LinearTracker
from symphony.trackers.local_board import Board
from symphony.trackers.memory import MemoryTracker

REMOTE = ("linear", "github", "gitlab", "jira", "asana")
KINDS = ("local", "memory", *REMOTE)
LABELS = ([], ["backend"], ["backend", "urgent"])


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
        self.memory.failure = TrackerError("tracker_request", "out of order")

    def requests(self) -> int:
        return self.memory.reads


class RemoteHarness:
    """A provider behind a socket; its token is in the variable ``OUR_TOKEN``."""

    identifier = "DEMO-{}"
    absent = "never-there"

    def __init__(self, kind: str, server: Any, provider: dict[str, Any], **more: Any) -> None:
        self.server = server
        self.section = {
            "kind": kind,
            "provider": provider,
            "active_states": ["Todo", "In Progress"],
            "terminal_states": ["Done"],
            **more,
        }
        self.environ = {"OUR_TOKEN": server.token}
        self.tracker = registry.build(TrackerSettings(**self.section), self.environ, Path())

    def change(self, number: int, what: str, choice: int) -> None:
        """An edit of an issue: its title, its labels; finished, reopened; moved out and back."""
        raise AssertionError("each provider has its own way")

    def in_a_hurry(
        self, silence_timeout_s: float, clock: Callable[[], float] = time.monotonic
    ) -> Tracker:
        """Another adapter with the same settings that gives a silent server up so soon."""
        return self.another(
            HttpClient,
            client={"silence_timeout_s": silence_timeout_s, "retry_wait_s": 0.001, "clock": clock},
        )

    def another(
        self,
        make_client: Callable[..., HttpClient],
        *,
        client: Mapping[str, Any],
        provider: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Any:
        """Another adapter for the same server, with other settings and another HTTP layer.

        Args:
            make_client: Called with what an adapter gives to its client, and with ``client``.
            client: More arguments of the client.
            provider: More of ``tracker.provider``.
            more: More arguments of the adapter.
        """
        kind, token = self.section["kind"], self.server.token
        settings = TrackerSettings(
            **{**self.section, "provider": {**self.section["provider"], **(provider or {})}}
        )
        module: Any = import_module(f"symphony.trackers.{kind}")
        given = settings.provider if kind == "linear" else settings
        resolved, faults = module.resolve(given, self.environ)
        assert not faults, faults
        headers = {
            "linear": lambda: {"Authorization": token},
            "github": lambda: {"Authorization": f"Bearer {token}"},
            "gitlab": lambda: {"PRIVATE-TOKEN": token},
        }.get(kind, lambda: module.headers(resolved))()
        urls = {"gitlab": "api_url", "asana": "endpoint"}
        http = make_client(
            provider=kind,
            headers=headers,
            base_url=getattr(self.server, urls.get(kind, "url")),
            **client,
        )
        adapter = {
            "linear": LinearTracker,
            "github": GitHubTracker,
            "gitlab": GitLabTracker,
            "jira": JiraTracker,
            "asana": AsanaTracker,
        }[kind]
        if kind in ("linear", "jira"):
            more.setdefault("terminal_states", ["Done"])
        return cast("Any", adapter)(resolved, client=http, **more)

    def break_source(self) -> None:
        self.server.token = "another"

    def requests(self) -> int:
        return len(self.server.calls)


class LinearHarness(RemoteHarness):
    def __init__(self, server: Any) -> None:
        provider = {"endpoint": server.endpoint, "api_key": "$OUR_TOKEN", "project_slug": "demo"}
        super().__init__("linear", server, provider)

    def put(self, number: int, **fields: Any) -> IssueId:
        blockers = tuple(self._id(n) for n in fields.pop("blocked_by", ()))
        labels = tuple(fields.pop("labels", ()))
        return IssueId(self.server.add(number, blockers=blockers, labels=labels, **fields))

    def set_state(self, number: int, state: str) -> None:
        self.server.change(self._id(number), state=state)

    def change(self, number: int, what: str, choice: int) -> None:
        fields: dict[str, dict[str, Any]] = {
            "title": {"title": f"Title {choice}"},
            "labels": {"labels": LABELS[choice % len(LABELS)]},
            "finish": {"state": "Done"},
            "reopen": {"state": "Todo"},
            "out": {"project": "other"},
            "back": {"project": "demo"},
        }
        # Of two edits within the same instant the second shows one poll later.
        self.server.pass_time(0.001)
        self.server.change(self._id(number), **fields[what])

    def remove(self, number: int) -> None:
        del self.server.issues[self._id(number)]

    def break_record(self, number: int) -> bool:
        self.server.issues[self._id(number)]["title"] = " "
        return True

    def _id(self, number: int) -> str:
        return f"00000000-0000-4000-8000-{number:012d}"


class LabelHarness(RemoteHarness):
    """GitHub and GitLab: the states are labels, the ids are the numbers."""

    absent = "99999"

    def __init__(self, server: Any, kind: str, **provider: Any) -> None:
        self.identifier = {"github": "GH-{}", "gitlab": "GL-{}"}[kind]
        self.opened = {"github": "open", "gitlab": "opened"}[kind]
        labels = ["Todo", "In Progress", "Done"]
        super().__init__(
            kind,
            server,
            {"state_labels": labels, **provider},
            terminal_states=["Done", "closed"],
        )

    def put(self, number: int, **fields: Any) -> IssueId:
        labels = (*fields.pop("labels", ()), fields.pop("state", "Todo"))
        blocked_by = tuple(fields.pop("blocked_by", ()))
        return IssueId(str(self.server.add(number, labels=labels, blocked_by=blocked_by, **fields)))

    def set_state(self, number: int, state: str) -> None:
        self.server.change(number, labels=[state])

    def change(self, number: int, what: str, choice: int) -> None:
        match what:
            case "title":
                self.server.change(number, title=f"Title {choice}")
            case "labels":
                state = ("Todo", "In Progress")[choice % 2]
                self.server.change(number, labels=[*LABELS[choice % len(LABELS)], state])
            case "finish":
                self.server.change(number, state="closed")
            case "reopen":
                self.server.change(number, state=self.opened)
            case "out":
                # Without its state's label, an issue is in none of the states.
                self.server.change(number, labels=[])
            case "back":
                self.server.change(number, labels=["Todo"])

    def remove(self, number: int) -> None:
        self.server.remove(number)

    def break_record(self, number: int) -> bool:
        self.server.change(number, title=" ")
        return True


class JiraHarness(RemoteHarness):
    def __init__(self, server: Any) -> None:
        server.statuses["Todo"] = server.statuses["To Do"]
        provider = {
            "base_url": server.url,
            "email": server.email,
            "api_token": "$OUR_TOKEN",
            "project_key": "DEMO",
        }
        super().__init__("jira", server, provider)

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

    def change(self, number: int, what: str, choice: int) -> None:
        fields = self.server.issues[self._id(number)]["fields"]
        match what:
            case "title":
                fields["summary"] = f"Title {choice}"
            case "labels":
                fields["labels"] = LABELS[choice % len(LABELS)]
            case "finish" | "reopen":
                self.set_state(number, "Done" if what == "finish" else "Todo")
            case "out" | "back":
                fields["project"]["key"] = "OTHER" if what == "out" else "DEMO"

    def remove(self, number: int) -> None:
        del self.server.issues[self._id(number)]

    def break_record(self, number: int) -> bool:
        self.server.issues[self._id(number)]["fields"]["summary"] = None
        return True

    @staticmethod
    def _id(number: int) -> str:
        return str(10_000 + number)


class AsanaHarness(RemoteHarness):
    identifier = "ASANA-12000000000000{:02}"

    def __init__(self, server: Any) -> None:
        server.sections = {"Todo": "501", "In Progress": "502", "Done": "503"}
        provider = {
            "endpoint": server.endpoint,
            "api_key": "$OUR_TOKEN",
            "project_gid": "900",
            "dependencies": True,
        }
        super().__init__("asana", server, provider)

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

    def change(self, number: int, what: str, choice: int) -> None:
        task = self.server.tasks[self._gid(number)]
        match what:
            case "title":
                task["name"] = f"Title {choice}"
            case "labels":
                names = LABELS[choice % len(LABELS)]
                task["tags"] = [{"gid": "5", "resource_type": "tag", "name": n} for n in names]
            case "finish" | "reopen":
                task["completed"] = what == "finish"
            case "out":
                self.server.move(self._gid(number), "Todo", "901")
            case "back":
                self.server.move(self._gid(number), "Todo")

    def remove(self, number: int) -> None:
        del self.server.tasks[self._gid(number)]

    def break_record(self, number: int) -> bool:
        self.server.tasks[self._gid(number)]["name"] = " "
        return True

    @staticmethod
    def _gid(number: int) -> str:
        return str(1_200_000_000_000_000 + number)


@asynccontextmanager
async def open_harness(kind: str, folder: Path) -> AsyncIterator[Any]:
    """The harness of a kind, its fake provider running; requests must fit the description."""
    if kind in ("local", "memory"):
        found: Any = LocalHarness(folder) if kind == "local" else MemoryHarness()
        yield found
        await found.tracker.aclose()
        return
    server: Any = {
        "linear": LinearServer,
        "github": GitHubServer,
        "gitlab": GitLabServer,
        "jira": JiraServer,
        "asana": AsanaServer,
    }[kind]()
    async with server:
        found = _remote(kind, server)
        try:
            yield found
        finally:
            await found.tracker.aclose()
        assert getattr(server, "problems", []) == []


def _remote(kind: str, server: Any) -> RemoteHarness:
    match kind:
        case "linear":
            return LinearHarness(server)
        case "jira":
            return JiraHarness(server)
        case "asana":
            return AsanaHarness(server)
        case "github":
            return LabelHarness(
                server,
                kind,
                repo="octo/demo",
                token="$OUR_TOKEN",
                api_url=server.url,
                dependencies=True,
            )
        case _:
            return LabelHarness(
                server,
                kind,
                project_path="group/demo",
                api_key="$OUR_TOKEN",
                api_url=server.api_url,
                blocking_links=True,
            )
