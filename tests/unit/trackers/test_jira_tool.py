from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from symphony.model.issue import Issue, IssueId
from symphony.trackers.base import ToolContext
from symphony.trackers.jira import JiraTracker
from symphony.trackers.jira_settings import JiraSettings

API = "/rest/api/3"


def make(server: Any, **settings: Any) -> JiraTracker:
    given = {"email": server.email, "api_token": server.token, "project_key": "EX", **settings}
    return JiraTracker(JiraSettings(base_url=server.url, **given), terminal_states=["Done"])


@pytest.fixture
async def tracker(jira_server: Any) -> AsyncIterator[JiraTracker]:
    for number in (1, 2):
        jira_server.add(number)
    jira_server.add(3, project="OTHER")
    tracker = make(jira_server)
    yield tracker
    await tracker.aclose()


CURRENT = Issue(id=IssueId("10001"), identifier="EX-1", title="t", state="s", dispatchable=True)


async def use(
    tracker: JiraTracker, method: Any, path: Any, body: Any = None, query: Any = None
) -> tuple[bool, Any]:
    arguments = {"method": method, "path": path, "body": body, "query": query}
    context = ToolContext(issue=CURRENT, run_id="run-1")
    result = await tracker.call_tool("jira_rest", arguments, context)
    return result.success, json.loads(result.text)


def test_the_tool_has_the_reference_s_schema(jira_server: Any) -> None:
    (spec,) = make(jira_server).agent_tools()
    assert spec.name == "jira_rest"
    assert spec.description == (
        "Execute a Jira Cloud REST v3 request using Symphony's configured auth."
    )
    schema = spec.input_schema
    assert (schema["required"], schema["additionalProperties"]) == (["method", "path"], False)
    assert set(schema["properties"]) == {"method", "path", "query", "body"}
    assert schema["properties"]["method"]["enum"] == ["GET", "POST", "PUT", "DELETE"]
    (read_only,) = make(jira_server, read_only=True).agent_tools()
    assert read_only.input_schema["properties"]["method"]["enum"] == ["GET"]


async def test_a_comment_may_be_markdown_and_is_logged(
    jira_server: Any, tracker: JiraTracker
) -> None:
    body = {"body": {"markdown": "It is **done**"}}
    with capture_logs() as logs:
        success, answer = await use(tracker, "post", f" {API}/issue/EX-1/comment", body)
    assert success
    assert answer["status"] == 201
    (comment,) = jira_server.comments
    assert comment["body"]["type"] == "doc"
    assert comment["body"]["content"][0]["content"][1]["marks"] == [{"type": "strong"}]
    assert len(jira_server.calls) == 1, "the current issue is not looked up"
    assert [(log["method"], log["status"], log["issue"]) for log in logs] == [("POST", 201, "EX-1")]


OTHER = {"fields": {"project": {"key": "OTHER"}}}
OURS = {"key": "EX"}


@pytest.mark.parametrize(
    ("method", "path", "body", "query"),
    [
        ("GET", f"{API}/issue/EX-2", None, None),
        ("GET", f"{API}/issue/10002", None, {"fields": "summary"}),
        ("POST", f"{API}/issue/ex-1/transitions", {"transition": {"id": "Done"}}, None),
        ("POST", f"{API}/issue", {"fields": {"project": {"key": "ex"}, "summary": "new"}}, None),
        (
            "POST",
            f"{API}/issueLink",
            {"inwardIssue": {"key": "EX-1"}, "outwardIssue": {"key": "EX-2"}, "type": {}},
            None,
        ),
        ("POST", f"{API}/issue/bulkfetch", {"issueIdsOrKeys": ["EX-1", 10002]}, None),
        ("GET", f"{API}/project/EX/statuses", None, None),
        (
            "PUT",
            f"{API}/issue/EX-1",
            {"fields": {"project": OURS, "parent": {"key": "EX-2"}}},
            None,
        ),
        ("PUT", f"{API}/issue/EX-1", {"fields": {"parent": None}}, None),
        ("GET", f"{API}/myself", None, None),
    ],
)
async def test_what_belongs_to_the_project_passes(
    jira_server: Any, tracker: JiraTracker, method: str, path: str, body: Any, query: Any
) -> None:
    success, answer = await use(tracker, method, path, body, query)
    assert "error" not in answer, answer
    assert jira_server.calls[-1].path == path
    assert success or answer["status"] in (400, 404)


@pytest.mark.parametrize(
    ("method", "path", "body", "query"),
    [
        ("GET", f"{API}/issue/OTHER-3", None, None),
        ("GET", f"{API}/issue/10003", None, None),
        ("DELETE", f"{API}/issue/EX-77", None, None),
        ("POST", f"{API}/issue/EX-1/notify", {}, None),
        ("POST", f"{API}/issue", OTHER, None),
        ("POST", f"{API}/issue", {"fields": {"project": {"key": "EX", "id": "7"}}}, None),
        ("POST", f"{API}/issue", {"fields": {"project": OURS, "parent": {"key": "OTHER-3"}}}, None),
        ("POST", f"{API}/issue", None, None),
        ("POST", f"{API}/issue/bulk", {"issueUpdates": [OTHER]}, None),
        ("POST", f"{API}/issue/bulk", {"issueUpdates": 7}, None),
        ("POST", f"{API}/issue/bulkfetch", {"issueIdsOrKeys": ["EX-1", "OTHER-3"]}, None),
        ("POST", f"{API}/issueLink", {"inwardIssue": {"key": "EX-1"}}, None),
        (
            "POST",
            f"{API}/issueLink",
            {"inwardIssue": {"key": "EX-1"}, "outwardIssue": {"key": "EX-2", "id": "10003"}},
            None,
        ),
        (
            "PUT",
            f"{API}/issue/EX-1",
            {"update": {"issuelinks": [{"add": {"outwardIssue": {"key": "OTHER-3"}}}]}},
            None,
        ),
        ("PUT", f"{API}/issue/EX-1", {"fields": {"parent": {"key": "OTHER-3"}}}, None),
        (
            "POST",
            f"{API}/issue/EX-1/transitions",
            {"update": {"parent": [{"set": {"id": "10003"}}]}},
            None,
        ),
        ("PUT", f"{API}/issue/EX-1", OTHER, None),
        ("PUT", f"{API}/issue/EX-1", {"fields": {"project": {"key": "EX", "id": "7"}}}, None),
        ("PUT", f"{API}/issue/EX-1", {"update": {"project": [{"set": {"key": "OTHER"}}]}}, None),
        ("POST", f"{API}/issue", {"fields": {"project": {**OURS, "self": "x"}}}, None),
        (
            "POST",
            f"{API}/issue",
            {"fields": {"project": OURS}, "update": {"project": [{"set": {"key": "OTHER"}}]}},
            None,
        ),
        (
            "POST",
            f"{API}/issue",
            {"fields": {"project": OURS, "issuelinks": [{"outwardIssue": {"key": "OTHER-3"}}]}},
            None,
        ),
        ("POST", f"{API}/search/jql", {"jql": "a = b"}, {"jql": "project = OTHER"}),
        ("GET", f"{API}/user/assignable/search", None, {"project": "OTHER", "issueKey": "EX-1"}),
        ("POST", f"{API}/search/jql", {"jql": "a = b) OR (project = OTHER"}, None),
        ("GET", f"{API}/search/jql", None, {"jql": ["a", "b"]}),
        ("POST", f"{API}/search/jql", 7, None),
        ("GET", f"{API}/search", None, {"jql": "project = OTHER"}),
        ("GET", f"{API}/project/OTHER", None, None),
        ("PUT", f"{API}/project/EX", {}, None),
        ("GET", f"{API}/users/search", None, None),
        ("GET", f"{API}/user/assignable/search", None, {"project": "OTHER"}),
        ("GET", f"{API}/user/assignable/search", None, {"project": "EX", "issueKey": "OTHER-3"}),
        ("GET", f"{API}/issue/EX-1/../OTHER-3", None, None),
        ("GET", f"{API}/issue/%2e%2e/OTHER-3", None, None),
        ("GET", f"{API}/../../secure", None, None),
        ("GET", f"{API}", None, None),
        ("GET", "/rest/api/2/issue/EX-1", None, None),
        ("GET", f"https://evil.example{API}/issue/EX-1", None, None),
        ("GET", f"{API}/issue/EX-1?fields=*all", None, None),
        ("GET", f"{API}/issue/EX-1\r\nX: y", None, None),
        ("PATCH", f"{API}/issue/EX-1", None, None),
        (7, f"{API}/issue/EX-1", None, None),
        ("GET", None, None, None),
        ("GET", f"{API}/issue/EX-1", None, []),
    ],
)
async def test_what_reaches_out_of_the_project_is_refused(
    jira_server: Any, tracker: JiraTracker, method: Any, path: Any, body: Any, query: Any
) -> None:
    success, answer = await use(tracker, method, path, body, query)
    assert not success
    assert "`jira_rest`:" in answer["error"]["message"]
    sent = [(call.path, call.json()) for call in jira_server.calls]
    assert all(
        target == f"{API}/issue/bulkfetch" and asked["fields"] == ["project"]
        for target, asked in sent
    ), "at most the issues were looked up"


async def test_an_issue_that_moved_away_is_no_longer_reached_by_its_old_key(
    jira_server: Any, tracker: JiraTracker
) -> None:
    moved = jira_server.issues["10002"]
    moved["fields"]["project"]["key"] = "OTHER"
    success, answer = await use(tracker, "PUT", f"{API}/issue/EX-2", {"fields": {}})
    assert not success
    assert "EX-2 can't be found in the project EX" in answer["error"]["message"]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_search_is_narrowed_down_to_the_project(
    jira_server: Any, tracker: JiraTracker, method: str
) -> None:
    jira_server.clauses["(labels = x OR project = OTHER)"] = lambda record: True
    given = {"jql": "labels = x OR project = OTHER ORDER BY created", "fields": ["summary"]}
    arguments = {"body": given} if method == "POST" else {"query": {"jql": given["jql"]}}
    success, answer = await use(tracker, method, f"{API}/search/jql", **arguments)
    assert success, answer
    keys = [issue["key"] for issue in answer["body"]["issues"]]
    assert keys == ["EX-1", "EX-2"]


async def test_a_wider_scope_lets_everything_of_the_api_pass_but_no_other_path(
    jira_server: Any, tracker: JiraTracker
) -> None:
    wide = make(jira_server, any_project=True)
    success, answer = await use(wide, "GET", f"{API}/issue/OTHER-3")
    assert success, answer
    success, _ = await use(wide, "GET", "/secure/admin")
    assert not success
    success, _ = await use(wide, "GET", f"{API}/issue/../../../../secure")
    assert not success
    assert len(jira_server.calls) == 1
    await wide.aclose()


async def test_read_only_only_reads(jira_server: Any, tracker: JiraTracker) -> None:
    reader = make(jira_server, read_only=True)
    assert (await use(reader, "GET", f"{API}/issue/EX-1"))[0]
    success, answer = await use(reader, "PUT", f"{API}/issue/EX-2", {})
    assert not success
    assert "read_only" in answer["error"]["message"]
    assert len(jira_server.calls) == 1
    await reader.aclose()


async def test_credentials_never_appear_in_a_result(jira_server: Any, tracker: JiraTracker) -> None:
    success, answer = await use(tracker, "GET", f"{API}/myself")
    assert success
    assert jira_server.token not in json.dumps(answer)
    assert answer["body"]["token"] == "[redacted]"


async def test_a_failed_lookup_is_told_and_sends_nothing_else(
    jira_server: Any, tracker: JiraTracker, jira_fakes: Any
) -> None:
    jira_server.faults.append(jira_fakes.Fault(status=403))
    success, answer = await use(tracker, "PUT", f"{API}/issue/EX-2", {})
    assert not success
    assert "could not be looked up" in answer["error"]["message"]
    assert len(jira_server.calls) == 1


async def test_a_change_is_sent_once(
    jira_server: Any, tracker: JiraTracker, jira_fakes: Any
) -> None:
    for fault in ({"status": 503}, {"abort": True}):
        jira_server.faults.append(jira_fakes.Fault(**fault))
        before = len(jira_server.calls)
        success, _ = await use(tracker, "POST", f"{API}/issue/EX-1/comment", {"body": {}})
        assert not success
        assert len(jira_server.calls) == before + 1
