from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from symphony.model.issue import Issue, IssueId
from symphony.trackers.asana import AsanaTracker
from symphony.trackers.asana_settings import AsanaSettings
from symphony.trackers.base import ToolContext

OURS, NEXT, OTHER, CHILD = (str(1_200_000_000_000_000 + n) for n in (1, 2, 3, 4))
CURRENT = Issue(
    id=IssueId(OURS), identifier=f"ASANA-{OURS}", title="t", state="s", dispatchable=True
)


def make(server: Any, **settings: Any) -> AsanaTracker:
    given = {"api_key": server.token, "project_gid": "900", **settings}
    return AsanaTracker(AsanaSettings(endpoint=server.endpoint, **given))


@pytest.fixture
async def tracker(asana_server: Any) -> AsyncIterator[AsanaTracker]:
    asana_server.add(1)
    asana_server.add(2)
    asana_server.add(3, project="1")
    asana_server.add(4, memberships=[], parent={"gid": OURS, "resource_type": "task"})
    asana_server.stories |= {"71": OURS, "72": OTHER}
    tracker = make(asana_server)
    yield tracker
    await tracker.aclose()


async def use(
    tracker: AsanaTracker, method: Any, path: Any, data: Any = None, query: Any = None
) -> tuple[bool, Any]:
    body = None if data is None else {"data": data}
    arguments = {"method": method, "path": path, "body": body, "query": query}
    context = ToolContext(issue=CURRENT, run_id="run-1")
    result = await tracker.call_tool("asana_api", arguments, context)
    return result.success, json.loads(result.text)


def test_the_tool_has_the_reference_s_schema(asana_server: Any) -> None:
    (spec,) = make(asana_server).agent_tools()
    assert spec.name == "asana_api"
    assert spec.description == (
        "Execute an Asana REST API request using Symphony's configured auth."
    )
    assert spec.input_schema["required"] == ["method", "path"]
    assert set(spec.input_schema["properties"]) == {"method", "path", "query", "body"}
    assert spec.input_schema["properties"]["method"]["enum"] == ["GET", "POST", "PUT", "DELETE"]


@pytest.mark.parametrize(
    ("method", "path", "data", "query"),
    [
        ("GET", f"/tasks/{OURS}", None, {"opt_fields": "name"}),
        ("PUT", f"/tasks/{NEXT}", {"completed": True}, None),
        ("GET", f"/tasks/{CHILD}", None, None),
        ("POST", f"/tasks/{OURS}/stories", {"text": "Done"}, None),
        ("PUT", "/stories/71", {"text": "Better"}, None),
        ("POST", "/sections/503/addTask", {"task": OURS}, None),
        ("GET", "/tasks", None, {"project": "900", "limit": 10}),
        ("GET", "/projects/900/sections", None, None),
        ("GET", "/users/me", None, None),
    ],
)
async def test_what_belongs_to_the_project_passes(
    asana_server: Any, tracker: AsanaTracker, method: str, path: str, data: Any, query: Any
) -> None:
    success, answer = await use(tracker, method, path, data, query)
    assert success, answer
    assert asana_server.calls[-1].path == f"/api/1.0{path}"
    assert asana_server.problems == []


@pytest.mark.parametrize(
    ("method", "path", "data", "query"),
    [
        ("GET", f"/tasks/{OTHER}", None, None),
        ("PUT", f"/tasks/{OTHER}", {"completed": True}, None),
        ("DELETE", "/tasks/77", None, None),
        ("PUT", "/stories/72", {"text": "x"}, None),
        ("POST", f"/tasks/{OURS}/addProject", {"project": "1"}, None),
        ("POST", f"/tasks/{OURS}/addProject", {"project": "900", "section": "999"}, None),
        ("POST", f"/tasks/{OURS}/removeProject", {}, None),
        ("POST", f"/tasks/{OURS}/setParent", {"parent": OTHER}, None),
        ("POST", f"/tasks/{OURS}/addDependencies", {"dependencies": [NEXT, OTHER]}, None),
        ("POST", f"/tasks/{OURS}/addDependents", {"dependents": [{"gid": OTHER}]}, None),
        ("POST", f"/tasks/{OURS}/subtasks", {"name": "x", "projects": ["1"]}, None),
        ("POST", "/tasks", {"name": "x", "workspace": "5"}, None),
        ("POST", "/tasks", {"name": "x", "projects": ["900", "1"]}, None),
        ("POST", "/tasks", {"name": "x", "parent": OTHER}, None),
        ("POST", "/tasks", {"memberships": [{"project": "900", "section": "999"}]}, None),
        ("POST", "/tasks", None, None),
        ("GET", "/tasks", None, {"project": "1"}),
        ("GET", "/tasks", None, {"assignee": "me", "workspace": "5"}),
        ("GET", "/tasks", None, {"section": "999"}),
        ("GET", "/tasks", None, {"section": "503", "project": "1"}),
        ("GET", "/tasks", None, {"project": "900", "tag": "7"}),
        ("GET", "/tasks", None, {"project": "900", "user_task_list": "7"}),
        ("GET", "/tasks", None, {"project": ["900", "1"]}),
        ("POST", "/tasks", {"name": "x", "projects": ["900"]}, {"projects": "1"}),
        ("PUT", f"/tasks/{OURS}", {"name": "x"}, {"parent": OTHER}),
        ("POST", f"/tasks/{OURS}/setParent", {"parent": None}, {"parent": OTHER}),
        ("GET", "/sections/999/tasks", None, None),
        ("POST", "/sections/503/addTask", {"task": OTHER}, None),
        ("POST", "/batch", {"actions": []}, None),
        ("GET", "/workspaces/5/tasks/search", None, None),
        ("GET", "/projects/1/tasks", None, None),
        ("PUT", "/projects/900", {"name": "x"}, None),
        ("GET", "/users", None, None),
        ("GET", f"/tasks/{OURS}", None, {"opt_method": "DELETE"}),
        ("GET", f"/tasks/{OURS}", None, {"options": "x"}),
        ("GET", f"/tasks/{OURS}/../{OTHER}", None, None),
        ("GET", f"/tasks/%2e%2e/tasks/{OTHER}", None, None),
        ("GET", f"/tasks/{OURS}?opt_method=delete", None, None),
        ("GET", "https://evil.example/tasks", None, None),
        ("PATCH", f"/tasks/{OURS}", None, None),
        ("GET", f"/tasks/{OURS}", None, 7),
        ("GET", 7, None, None),
    ],
)
async def test_what_reaches_out_of_the_project_is_refused(
    asana_server: Any, tracker: AsanaTracker, method: Any, path: Any, data: Any, query: Any
) -> None:
    success, answer = await use(tracker, method, path, data, query)
    assert not success
    assert "`asana_api`:" in answer["error"]["message"]
    assert all(call.method == "GET" for call in asana_server.calls), "at most a look was sent"
    looked = ("memberships.project%2Cparent", "opt_fields=target", "opt_fields=project")
    assert all(any(word in call.target for word in looked) for call in asana_server.calls)


async def test_a_wider_scope_lets_everything_pass_but_batches_and_hidden_methods(
    asana_server: Any, tracker: AsanaTracker
) -> None:
    wide = make(asana_server, any_project=True)
    success, answer = await use(wide, "GET", f"/tasks/{OTHER}")
    assert success, answer
    assert not (await use(wide, "POST", "/batch", {"actions": []}))[0]
    assert not (await use(wide, "GET", f"/tasks/{OTHER}", None, {"opt_method": "delete"}))[0]
    assert len(asana_server.calls) == 1
    await wide.aclose()


async def test_read_only_only_reads(asana_server: Any, tracker: AsanaTracker) -> None:
    reader = make(asana_server, read_only=True)
    assert (await use(reader, "GET", f"/tasks/{OURS}"))[0]
    success, answer = await use(reader, "PUT", f"/tasks/{NEXT}", {"completed": True})
    assert not success
    assert "read_only" in answer["error"]["message"]
    assert len(asana_server.calls) == 1
    await reader.aclose()


async def test_the_token_never_appears_in_a_result(
    asana_server: Any, tracker: AsanaTracker
) -> None:
    success, answer = await use(tracker, "GET", "/users/me")
    assert success
    assert answer["body"]["data"]["name"] == "[redacted]"


async def test_a_failed_lookup_is_told_and_sends_nothing_else(
    asana_server: Any, tracker: AsanaTracker, asana_fakes: Any
) -> None:
    asana_server.faults.append(asana_fakes.Fault(status=403))
    success, answer = await use(tracker, "PUT", f"/tasks/{NEXT}", {"completed": True})
    assert not success
    assert "could not be looked up" in answer["error"]["message"]
    assert len(asana_server.calls) == 1
