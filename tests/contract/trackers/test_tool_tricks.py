"""What an agent may try with a provider's tool: nothing of it leaves the scope, or the machine.

The agent is taken for hostile. Each call here names something in scope in a way that some server,
proxy or library reads as something else, or hides a change or a second call behind a first one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tracker_worlds import RemoteHarness, open_harness

from symphony.config.settings import TrackerSettings
from symphony.model.issue import Issue
from symphony.trackers import registry
from symphony.trackers.base import ToolContext, Tracker

HERE = {
    "github": "/repos/octo/demo",
    "gitlab": "/projects/group%2Fdemo",
    "jira": "/rest/api/3",
    "asana": "/projects/900",
}
TRICKS = [
    "{here}/../..",
    "{here}/%2e%2e/%2E%2E/user",
    "{here}/.%2e/user",
    "{here}/%252e%252e/user",
    "{here}/..%2f../user",
    "{here}/..;/user",
    "{here}/..;a=b/user",
    "{here}/..\\user",
    "{here}/%5c..%5cuser",
    "{here}//evil.example/user",
    "//evil.example{here}",
    "/\\evil.example{here}",
    "\\\\evil.example{here}",
    "https://evil.example{here}",
    "HTTPS://evil.example{here}",
    "@evil.example{here}",
    "user:pass@evil.example{here}",
    "{here}/x?url=//evil.example",
    "{here}/x%3furl=1#",
    "{here}/x#fragment",
    "{here}/\u2025/user",
    "{here}/\uff0e\uff0e/user",
    "{here}/%EF%BC%8E%EF%BC%8E/user",
    "{here}\uff0f..\uff0fuser",
    "{here}/%c0%ae%c0%ae/user",
    "{here}/\u202e/user",
    "{here}/a\x00b",
    "{here}/a%00b",
    "{here}/a\r\nHost: evil.example",
    "{here}/a%0d%0aHost:%20evil.example",
    "{here}/a\tb",
    "\u2044evil.example{here}",
]


async def current(tracker: Tracker) -> Issue:
    (issue, *_) = await tracker.fetch_issues_by_states(["Todo"])
    return issue


async def use(tracker: Tracker, arguments: Any, issue: Issue) -> tuple[bool, Any]:
    (spec,) = tracker.agent_tools()
    result = await tracker.call_tool(spec.name, arguments, ToolContext(issue=issue, run_id="r"))
    return result.success, json.loads(result.text)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_path_that_means_another_one_is_refused_and_nothing_sent(
    remote: RemoteHarness, method: str
) -> None:
    kind = remote.tracker.kind
    if kind == "linear":
        pytest.skip("the tool of linear takes no path")
    remote.put(1)
    issue = await current(remote.tracker)
    before = remote.requests()
    for trick in TRICKS:
        path = trick.format(here=HERE[kind])
        success, answer = await use(remote.tracker, {"method": method, "path": path}, issue)
        assert not success, path
        assert "`path`" in answer["error"]["message"], path
    assert remote.requests() == before


@pytest.mark.parametrize(
    "method",
    [
        "get\r\nX: y",
        "GET /x",
        "PROPFIND",
        "CONNECT",
        "",
        ["GET"],
        {"a": 1},
        True,
        "\uff27\uff25\uff34",
    ],
)
async def test_a_method_that_is_none_is_refused(remote: RemoteHarness, method: Any) -> None:
    kind = remote.tracker.kind
    if kind == "linear":
        pytest.skip("the tool of linear takes no method")
    remote.put(1)
    issue = await current(remote.tracker)
    before = remote.requests()
    success, answer = await use(remote.tracker, {"method": method, "path": HERE[kind]}, issue)
    assert not success
    assert "`method`" in answer["error"]["message"]
    assert remote.requests() == before


async def test_a_list_of_calls_is_no_call(remote: RemoteHarness) -> None:
    remote.put(1)
    issue = await current(remote.tracker)
    before = remote.requests()
    good = {"method": "GET", "path": HERE.get(remote.tracker.kind), "query": "{ viewer { id } }"}
    for batch in ([good, good], [], json.dumps([good]), 7):
        success, answer = await use(remote.tracker, batch, issue)
        assert not success
        assert answer["error"]["message"]
    assert remote.requests() == before


CHANGES = {
    "linear": [
        {"query": 'mutation { commentDelete(id: "c") { success } }'},
        {"query": 'query A { viewer { id } } mutation B { commentDelete(id: "c") { success } }'},
        {
            "query": "mutation { ...F } "
            'fragment F on Mutation { commentDelete(id: "c") { success } }'
        },
        {"query": 'mutation { viewer: commentDelete(id: "c") { success } }'},
        'mutation { commentDelete(id: "c") { success } }',
        {"query": '# query\nmutation\n{ commentDelete(id: "c") { success } }'},
    ],
    "rest": [
        {"method": "post", "path": "{here}/issues"},
        {"method": " DELETE ", "path": "{here}/issues/1"},
        {"method": "PUT", "path": "{here}/issues/1", "body": {"state_event": "close"}},
    ],
}


async def test_a_tool_that_only_reads_sends_no_change_however_it_is_dressed(
    remote: RemoteHarness,
) -> None:
    remote.put(1)
    issue = await current(remote.tracker)
    provider = {**remote.section["provider"], "read_only": True}
    settings = TrackerSettings.model_validate({**remote.section, "provider": provider})
    tracker = registry.build(settings, remote.environ, Path())
    before = remote.requests()
    kind = remote.tracker.kind
    for change in CHANGES["linear" if kind == "linear" else "rest"]:
        arguments = change
        if isinstance(change, dict) and kind != "linear":
            path = change["path"].format(here=HERE[kind])
            arguments = {**change, "path": path}
        success, answer = await use(tracker, arguments, issue)
        assert not success
        assert "read_only" in answer["error"]["message"], answer
    assert remote.requests() == before
    await tracker.aclose()


def outside(inner: str) -> dict[str, Any]:
    return {"query": inner}


FAR = [
    outside('{ issue(id: "DEMO-2") { title } }'),
    outside('{ mine: issue(id: "DEMO-1") { id } issue(id: "DEMO-2") { title } }'),
    outside('{ DEMO1: issue(id: "DEMO-2") { title } }'),
    outside('query Q { ...F } fragment F on Query { issue(id: "DEMO-2") { title } }'),
    outside('{ ... on Query { ... { issue(id: "DEMO-2") { title } } } }'),
    {"query": "query Q($id: String!) { issue(id: $id) { title } }", "variables": {"id": "DEMO-2"}},
    outside('query Q($id: String = "DEMO-2") { issue(id: $id) { title } }'),
    outside('query A { issue(id: "DEMO-1") { id } } query B { issue(id: "DEMO-2") { title } }'),
    outside('{ issue(id: "DEMO-1") @skip(if: true) { id } issue(id: "DEMO-2") { id } }'),
    outside('{ issue(id: """DEMO-2""") { title } }'),
    outside('{ issue(id: "DEMO\\u002d2") { title } }'),
    outside('mutation { issueUpdate(id: "DEMO-2", input: {title: "x"}) { success } }'),
    outside('mutation { issueUpdate(id: "DEMO-1", input: {parentId: "DEMO-2"}) { success } }'),
    {
        "query": "mutation M($i: IssueUpdateInput!) "
        '{ issueUpdate(id: "DEMO-1", input: $i) { success } }',
        "variables": {"i": {"teamId": "team-OPS"}},
    },
    outside('mutation { issueBatchUpdate(ids: ["DEMO-1", "DEMO-2"], input: {}) { success } }'),
]


@pytest.mark.parametrize("arguments", FAR)
async def test_a_document_that_reaches_another_project_is_looked_up_and_not_sent(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    async with open_harness("linear", tmp_path) as remote:
        remote.put(1)
        remote.put(2, project="other", team="OPS")
        issue = await current(remote.tracker)
        before = remote.requests()
        success, answer = await use(remote.tracker, arguments, issue)
        assert not success
        assert "tool_scope" in answer["error"]["message"], answer
        asked = [request.operation for request in remote.server.requests[before:]]
        assert set(asked) <= {"SymphonyLinearScope"}
