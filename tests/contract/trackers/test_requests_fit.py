"""Every request that an adapter can send was sent here once, and fits the provider's description.

Each adapter is driven through its reads, its start checks, its look-ups and a trial, with all of
its settings that change a request. The client notes which of our functions sent; the fake, what it
compared. A function that asks and is not driven here fails, and so does a document that is not
seen: what nobody compares with the description, the provider itself is the first to refuse.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import asana_server
import github_server
import linear_server
import pytest
from rest_server import Fault
from tracker_worlds import RemoteHarness, open_harness

from symphony.model.issue import Issue, IssueId
from symphony.trackers import github_queries, linear_queries
from symphony.trackers.asana import AsanaTracker
from symphony.trackers.asana_reads import AsanaReads
from symphony.trackers.base import ToolContext
from symphony.trackers.github_reads import GitHubReads
from symphony.trackers.http import Answer, HttpClient
from symphony.trackers.linear_lookup import LOOK_UPS, LinearLookup
from symphony.trackers.linear_reads import LinearReads
from symphony.trackers.linear_settings import SUB_ISSUES


class Noting(HttpClient):
    """Notes the functions that were under way when a request was sent, by their qualified names."""

    def __init__(self, senders: set[str], **options: Any) -> None:
        super().__init__(**options)
        self._senders = senders

    async def request(self, *args: Any, **options: Any) -> Answer:
        frame = sys._getframe(1)
        while frame is not None:
            self._senders.add(frame.f_code.co_qualname)
            frame = frame.f_back  # type: ignore[assignment]  # None at the end
        return await super().request(*args, **options)


WAITING = {
    "AsanaReads.tasks",
    "GitHubReads.many",
    "LinearReads._blockers",
    "LinearReads._complete",
    "LinearReads.by_ids",
}
"""Those that have others send, in tasks of their own."""


def asking(*classes: type) -> set[str]:
    """The functions of these classes that send something."""
    return {
        method.__qualname__
        for one in classes
        for method in vars(one).values()
        if inspect.iscoroutinefunction(method) and method.__qualname__ not in WAITING
    }


def context_of(issue_id: str) -> ToolContext:
    issue = Issue(id=IssueId(issue_id), identifier="X-1", title="t", state="s", dispatchable=True)
    return ToolContext(issue=issue, run_id="run-1")


async def walk(tracker: Any, ids: Iterable[IssueId], names: Iterable[str]) -> None:
    """What a daemon and ``symphony tracker test`` ask, the second poll together with the runs."""
    ids = list(ids)
    await tracker.faults_at_start()
    await tracker.fetch_issues_by_ids(ids)
    await tracker.fetch_issues_by_states(["Todo", "In Progress"])
    await asyncio.gather(
        tracker.fetch_issues_by_ids(ids), tracker.fetch_issues_by_states(["Todo", "In Progress"])
    )
    await tracker.fetch_issues_by_ids(ids[:1])
    await tracker.fetch_issues_by_states(["Done", "closed"])
    for name in names:
        await tracker.fetch_issue(name)
    tracker.trial.first_page = True
    await tracker.fetch_issues_by_states(["Todo"])
    await tracker.aclose()


async def test_what_linear_is_asked_fits_its_schema(tmp_path: Path) -> None:
    if linear_server.schema_path() is None:
        pytest.skip("linear.graphql not found (SYMPHONY_SCHEMAS)")
    senders: set[str] = set()
    async with open_harness("linear", tmp_path) as remote:
        server = remote.server
        server.add(1, parent=server.add(1_000, project=None))
        blockers = [server.add(2_000 + n, project="other") for n in range(300)]
        for number in range(2, 302):
            server.add(number, blockers=(blockers[number - 2],))
        busy = server.issues[server.add(400, labels=tuple(f"l{n}" for n in range(60)))]
        busy["relations"] = [("blocks", other) for other in blockers[:60]]
        for number in range(500, 530):
            server.add(number, project="other", parent=busy["id"])
        options: list[dict[str, Any]] = [{"sub_issues": choice} for choice in SUB_ISSUES]
        options += [{"assignee": "me", "team": "DEMO", "blockers": "any"}, {"assignee": "user-1"}]
        for provider in options:
            tracker = linear(remote, senders, provider)
            ids = [IssueId(issue_id) for issue_id in server.issues][:60]
            await walk(tracker, [*ids, busy["id"]], ["DEMO-1", busy["id"]])
        await look_up_all(remote, senders)
        assert server.problems == []
        sent = {request.query for request in server.requests}
        built = {
            text
            for text in vars(linear_queries).values()
            if isinstance(text, str) and text.strip().startswith("query") and "%s" not in text
        }
        for choice in SUB_ISSUES:
            documents = linear_queries.documents(choice)
            built |= {documents.by_states, documents.by_ids, documents.changes}
        assert built - sent == set()
        looked_up = [query for query in sent if "SymphonyLinearScope" in query]
        assert [
            kind
            for kind, text in LOOK_UPS.items()
            if not any(text.split("%s")[0] in query for query in looked_up)
        ] == []
    assert asking(LinearReads, LinearLookup) - senders == set()


def linear(remote: RemoteHarness, senders: set[str], provider: dict[str, Any]) -> Any:
    active = ("Todo", "In Progress")
    options = {"senders": senders}
    return remote.another(Noting, client=options, provider=provider, active_states=active)


async def look_up_all(remote: RemoteHarness, senders: set[str]) -> None:
    """Have an agent name a record of each kind."""
    server: Any = remote.server
    first, second = list(server.issues)[1:3]
    server.comments["c"] = {"issueId": first}
    server.attachments["a"] = first
    tracker = linear(remote, senders, {"tool_scope": "team"})
    for query in (
        f'{{ issue(id: "{first}") {{ id }} }}',
        '{ comment(id: "c") { id } }',
        '{ attachment(id: "a") { id } }',
        f'mutation {{ issueUpdate(id: "{first}", input: {{projectId: "project-demo"}})'
        " { success } }",
        f'{{ issueRelation(id: "{first}+{second}") {{ id }} }}',
        f'mutation {{ issueUpdate(id: "{first}", input: {{projectMilestoneId: "milestone-demo"}})'
        " { success } }",
    ):
        await tracker.call_tool("linear_graphql", {"query": query}, context_of(second))
    await tracker.aclose()


GITHUB = [
    "GET /repos/octo/demo/issues",
    "GET /repos/octo/demo/issues/{n}",
    "GET /repos/octo/demo/issues/{n}/dependencies/blocked_by",
    "GET /repos/octo/demo/labels",
]


async def test_what_github_is_asked_fits_its_description(tmp_path: Path) -> None:
    _, missing = github_server.description()
    if missing:
        pytest.skip(missing)
    senders: set[str] = set()
    async with open_harness("github", tmp_path) as remote:
        server = remote.server
        for number in range(1, 131):
            remote.put(number, blocked_by=(200,) if number < 4 else ())
        remote.put(200)
        server.change(130, state="closed")
        project = {"project": 3, "project_owner": "octo", "state_labels": None}
        options: list[dict[str, Any]] = [
            {"dependencies": False},
            {"dependencies": True, "sub_issues": True},
            {"priority_labels": {"p1": 1}, "priority_milestones": {"v1": 1}},
            {**project, "dependencies": False},
            {**project, "dependencies": True},
        ]
        for provider in options:
            for whole_pages in (0, 3):
                tracker = github(remote, senders, provider, whole_pages=whole_pages)
                await walk(tracker, [IssueId(str(n)) for n in range(1, 121)], ["GH-1", "7"])
                # One that left alone, and one that went to another repository.
                server.moved.add(300)
                moved = github(remote, senders, provider, whole_pages=whole_pages)
                assert await moved.fetch_issue("300") is None
                assert await moved.fetch_issue("301") is None
                await moved.aclose()
        sent = {call.json()["query"] for call in server.calls if call.path == "/graphql"}
        assert {github_queries.PROJECT, github_queries.OPTIONS} <= sent
        wide = ("projectItems" in query for query in sent if "IssuesByNumber" in query)
        assert set(wide) == {True, False}
        rest = {as_template(call.method, call.path) for call in server.calls}
        assert sorted(rest - {"POST /graphql"}) == sorted(server.described) == GITHUB
    assert asking(GitHubReads) - senders == set()


def github(remote: RemoteHarness, senders: set[str], provider: Any, **more: Any) -> Any:
    return remote.another(Noting, client={"senders": senders}, provider=provider, **more)


ASANA = [
    "GET /projects/{n}/sections",
    "GET /projects/{n}/tasks",
    "GET /sections/{n}",
    "GET /stories/{n}",
    "GET /tasks/{n}",
    "POST /batch",
]


async def test_what_asana_is_asked_fits_its_description(tmp_path: Path) -> None:
    _, missing = asana_server.description()
    if missing:
        pytest.skip(missing)
    senders: set[str] = set()
    async with open_harness("asana", tmp_path) as remote:
        server = remote.server
        elsewhere = server.add(500, section="Todo", project="901")
        for number in range(1, 131):
            remote.put(number, blocked_by=(500,) if number == 1 else ())
        child = server.add(600, memberships=[], parent={"gid": elsewhere, "resource_type": "task"})
        server.stories["71"] = elsewhere
        options: list[dict[str, Any]] = [
            {"dependencies": False},
            {"dependencies": True},
            {"priority_field": "Priority"},
            {"dependencies": True, "priority_field": "Priority"},
        ]
        for provider in options:
            tracker = remote.another(Noting, client={"senders": senders}, provider=provider)
            gids = [*map(IssueId, server.tasks)]
            await walk(tracker, [*gids, IssueId("404")], [f"ASANA-{gids[1]}", elsewhere])
        tracker = remote.another(Noting, client={"senders": senders})
        server.faults.append(Fault(status=403, only="/sections"))
        assert await tracker.faults_at_start() == []
        for method, path, body in (
            ("GET", f"/tasks/{child}", None),
            ("GET", "/stories/71", None),
            ("POST", "/sections/501/addTask", {"data": {"task": elsewhere}}),
        ):
            arguments = {"method": method, "path": path, "body": body}
            result = await tracker.call_tool("asana_api", arguments, context_of("1"))
            assert "is none of the project" in result.text
        await tracker.aclose()
        sent = {as_template(call.method, call.path) for call in server.calls}
        ours = {template.replace(asana_server.PREFIX, "") for template in sent}
        assert sorted(ours) == sorted(server.described) == ASANA
    assert asking(AsanaReads) | {AsanaTracker._is_outside.__qualname__} <= senders


def as_template(method: str, path: str) -> str:
    text = re.sub(r"(?<=/)\d+(?=/|$)", "{n}", path)
    return f"{method} {text}"
