"""As much of Linear's GraphQL as polls, the checks at start, looks at single issues and moves need.

Operations are told apart by name, not parsed: those of both implementations, of which ours asks at
start for the states and then polls by changes. The store is read and changed by the driver
directly: both live in one event loop. What no branch knows is answered with an error and kept in
``unknown``, so that a figure is never taken from a daemon that was talking to nobody.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

ACTIVE = ("Todo", "In Progress")
TERMINAL = ("Done", "Closed", "Cancelled", "Canceled", "Duplicate")
PROJECT = "bench"

_OPERATION = re.compile(r"\b(?:query|mutation)\s+(\w+)")
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_COMPLETE = {"hasNextPage": False, "endCursor": None}


@dataclass
class Issue:
    """One issue; ``done_at`` is when it was moved to a terminal state (monotonic seconds)."""

    number: int
    state: str = "Todo"
    done_at: float | None = None
    moves: int = 0

    @property
    def id(self) -> str:
        return f"00000000-0000-4000-8000-{self.number:012d}"

    def node(self) -> dict[str, Any]:
        """Return what Linear answers for the fields that both implementations ask for."""
        identifier = f"BEN-{self.number}"
        created = _EPOCH + timedelta(seconds=self.number)
        return {
            "id": self.id,
            "identifier": identifier,
            "title": f"Measured issue {self.number}",
            "description": "What is to be done, in a sentence or two.\n" * 4,
            "priority": 3,
            "state": {"name": self.state},
            "branchName": f"bench/{identifier.lower()}",
            "url": f"https://linear.app/bench/issue/{identifier}",
            "assignee": None,
            "team": {"key": "BEN"},
            "labelIds": [],
            "labels": {"nodes": [], "pageInfo": _COMPLETE},
            "inverseRelations": {"nodes": [], "pageInfo": _COMPLETE},
            "createdAt": created.isoformat(),
            "updatedAt": (created + timedelta(hours=self.moves)).isoformat(),
        }


@dataclass
class FakeLinear:
    """The server and its store.

    Attributes:
        latency_s: Every answer takes this much longer.
        polls: When candidate polls arrived (monotonic seconds).
        unknown: Names of operations that nothing here answers.
    """

    latency_s: float = 0.0
    issues: dict[str, Issue] = field(default_factory=dict)
    polls: list[float] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    requests: int = 0
    polled: asyncio.Event = field(default_factory=asyncio.Event)
    _runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Listen on a free port of the loopback; return the endpoint."""
        app = web.Application()
        app.router.add_post("/graphql", self._graphql)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}/graphql"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def reset(self, *, latency_s: float = 0.0) -> None:
        """Forget all issues and all that was asked."""
        self.latency_s = latency_s
        self.issues.clear()
        self.polls.clear()
        self.polled.clear()
        self.requests = 0

    def add(self, count: int) -> float:
        """Add issues that are to be worked on; return when (monotonic seconds)."""
        first = len(self.issues) + 1
        for number in range(first, first + count):
            issue = Issue(number)
            self.issues[issue.id] = issue
        return time.monotonic()

    def finish_all(self) -> None:
        """Move every issue to Done, as a person could."""
        for issue in self.issues.values():
            self._move(issue, "Done")

    def done(self) -> list[float]:
        """Return when each finished issue was finished."""
        return [issue.done_at for issue in self.issues.values() if issue.done_at is not None]

    async def _graphql(self, request: web.Request) -> web.Response:
        arrived = time.monotonic()
        self.requests += 1
        body = json.loads(await request.read())
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        query, variables = body.get("query") or "", body.get("variables") or {}
        return web.json_response(self._answer(query, variables, arrived))

    def _answer(self, query: str, variables: Mapping[str, Any], arrived: float) -> dict[str, Any]:
        match = _OPERATION.search(query)
        operation = match[1] if match else ""
        match operation:
            case "SymphonyLinearPoll":
                return {"data": {"issues": self._listed(variables, "first", arrived)}}
            case "SymphonyLinearMarks":
                return {"data": {"issues": self._listed(variables, "first")}}
            case "SymphonyLinearChanges":
                return {"data": self._changes(variables, arrived)}
            case "SymphonyLinearIssuesById":
                return {"data": {"issues": self._found(variables["ids"])}}
            case "SymphonyLinearBlockers":
                return {"data": {"issues": self._found(variables["blockers"])}}
            case "SymphonyLinearStates":
                return {"data": {"projects": {"nodes": _projects(variables["projectSlug"])}}}
        if "issueUpdate" in query:
            return self._update(variables)
        self.unknown.append(operation or query[:80])
        return {"errors": [{"message": f"the benchmark's Linear does not know {operation!r}"}]}

    def _changes(self, variables: Mapping[str, Any], arrived: float) -> dict[str, Any]:
        answer = {"marks": self._listed(variables, "marksFirst", arrived)}
        if variables["withIds"]:
            answer["asked"] = self._found(variables["ids"])
        if variables["withBlockers"]:
            answer["blockers"] = self._found(variables["blockers"])
        return answer

    def _listed(
        self, variables: Mapping[str, Any], size: str, arrived: float | None = None
    ) -> dict[str, Any]:
        """A page of the issues in some states; with its arrival, a poll if it is of active ones."""
        states = {str(name).lower() for name in variables["stateNames"]}
        if arrived is not None and "todo" in states:
            self.polls.append(arrived)
            self.polled.set()
        found = [issue for issue in self.issues.values() if issue.state.lower() in states]
        start = int(variables.get("after") or 0)
        end = start + int(variables[size])
        return _page(found[start:end], str(end) if end < len(found) else None)

    def _found(self, ids: Sequence[str]) -> dict[str, Any]:
        wanted = (self.issues.get(str(id_)) for id_ in ids)
        return _page([issue for issue in wanted if issue is not None], None)

    def _update(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        issue = self.issues.get(str(variables.get("id")))
        if issue is None:
            return {"errors": [{"message": "Entity not found: Issue"}], "data": None}
        self._move(issue, str(variables["stateId"]))
        return {"data": {"issueUpdate": {"success": True}}}

    @staticmethod
    def _move(issue: Issue, state: str) -> None:
        issue.state = state
        issue.moves += 1
        if state in TERMINAL and issue.done_at is None:
            issue.done_at = time.monotonic()


def _page(found: Sequence[Issue], cursor: str | None) -> dict[str, Any]:
    page = {"hasNextPage": cursor is not None, "endCursor": cursor}
    return {"nodes": [issue.node() for issue in found], "pageInfo": page}


def _projects(slug: str) -> list[dict[str, Any]]:
    if slug != PROJECT:
        return []
    states = [{"name": name} for name in (*ACTIVE, *TERMINAL)]
    return [{"id": "project-1", "teams": {"nodes": [{"key": "BEN", "states": {"nodes": states}}]}}]
