from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from types import ModuleType
from typing import Any

import pytest
from structlog.testing import capture_logs

from symphony.errors import TrackerError
from symphony.model.issue import IssueId
from symphony.trackers.gitlab import GitLabTracker
from symphony.trackers.gitlab_settings import GitLabSettings
from symphony.trackers.http import HttpClient

TOKEN = "glpat-test"
LABELS = {"Todo": "todo", "Doing": "doing", "Done": "done"}


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def make(
    server: Any, *, clock: Callable[[], float] | None = None, whole_pages: int = 3, **fields: Any
) -> GitLabTracker:
    settings = GitLabSettings(
        **{"project_path": "group/demo", "api_key": TOKEN, "api_url": server.api_url, **fields}
    )
    client = HttpClient(
        provider="GitLab",
        headers={"PRIVATE-TOKEN": TOKEN},
        base_url=settings.api_url,
        retry_wait_s=0.001,
        clock=clock or Clock(),
        wall=lambda: server.now.timestamp(),
    )
    return GitLabTracker(settings, client=client, clock=clock or Clock(), whole_pages=whole_pages)


def ids(*numbers: int) -> list[IssueId]:
    return [IssueId(str(number)) for number in numbers]


def numbers(issues: Any) -> list[int]:
    return [int(issue.id) for issue in issues]


@pytest.fixture
async def tracker(gitlab_server: Any) -> AsyncIterator[GitLabTracker]:
    tracker = make(gitlab_server)
    yield tracker
    await tracker.aclose()


async def test_the_fake_answers_with_the_keys_of_the_documented_example(
    gitlab_server: Any, gitlab_fakes: ModuleType
) -> None:
    gitlab_server.add(5)
    documented = gitlab_fakes.example("issue")
    assert {k: type(v) for k, v in gitlab_server.issues[5].items()} == {
        k: type(v) for k, v in documented.items()
    }
    gitlab_server.add(1)
    gitlab_server.add(2, blocked_by=(1,))
    payload = {
        "query": "query Q($path: ID!, $iids: [String!]) { project(fullPath: $path) { "
        "issues(iids: $iids, first: 5) { nodes { iid reference(full: true) blockedByIssues { "
        "nodes { iid reference(full: true) state } pageInfo { hasNextPage } } } } } }",
        "variables": {"path": "group/demo", "iids": ["2"]},
    }
    assert gitlab_server._graphql(payload).payload == gitlab_fakes.example("blockers")


async def test_pages_keep_their_order(gitlab_server: Any, tracker: GitLabTracker) -> None:
    for number in range(1, 251):
        gitlab_server.add(number)
    gitlab_server.add(300, state="closed")
    issues = await tracker.fetch_issues_by_states([" OPENED ", "merged"])
    assert numbers(issues) == list(range(1, 251))
    first = gitlab_server.calls[0]
    assert first.path == "/api/v4/projects/group%2Fdemo/issues"
    assert first.headers["private-token"] == TOKEN
    assert numbers(await tracker.fetch_issues_by_states(["closed"])) == [300]


async def test_states_that_gitlab_does_not_have_make_no_request(
    gitlab_server: Any, tracker: GitLabTracker
) -> None:
    assert await tracker.fetch_issues_by_states(["Todo", "open"]) == []
    assert gitlab_server.calls == []


async def test_ids_go_in_batches_of_a_hundred(gitlab_server: Any, tracker: GitLabTracker) -> None:
    for number in range(1, 151):
        gitlab_server.add(number)
    gitlab_server.remove(3)
    gitlab_server.change(4, state="closed")
    found = await tracker.fetch_issues_by_ids(ids(*range(150, 0, -1), 999, 150))
    assert numbers(found) == [n for n in range(150, 0, -1) if n != 3]
    assert {i.id: i.state for i in found}["4"] == "closed"
    assert gitlab_server.count() == 2
    again = await tracker.fetch_issues_by_ids(ids(*range(150, 0, -1), 999))
    assert again == found
    assert gitlab_server.count(modified=True) == 2, "the same question gets a 304"


async def test_an_id_that_is_no_number_is_an_error(
    gitlab_server: Any, tracker: GitLabTracker
) -> None:
    for bad in ("GL-1", "0", "1.0", ""):
        with pytest.raises(TrackerError) as caught:
            await tracker.fetch_issues_by_ids([IssueId(bad)])
        assert caught.value.code == "invalid_gitlab_issue_id"
    assert gitlab_server.calls == []


async def test_a_quiet_hour_costs_a_handful_of_requests(gitlab_server: Any) -> None:
    clock = Clock()
    tracker = make(gitlab_server, clock=clock)
    for number in range(1, 201):
        gitlab_server.add(number)
    for _ in range(120):
        assert len(await tracker.fetch_issues_by_states(["opened"])) == 200
        assert len(await tracker.fetch_issues_by_ids(ids(*range(1, 11)))) == 10
        clock.now += 30
        gitlab_server.pass_time(30)
    counted, quiet = gitlab_server.count(modified=True), gitlab_server.count(modified=False)
    print(f"{counted} requests, and {quiet} times 304")
    assert counted <= 10
    assert counted + quiet <= 370
    await tracker.aclose()


async def test_a_long_list_is_kept_up_to_date_by_its_changes(gitlab_server: Any) -> None:
    clock = Clock()
    tracker = make(gitlab_server, clock=clock, whole_pages=1)
    for number in range(1, 351):
        gitlab_server.add(number)
    gitlab_server.pass_time(3_600)
    assert len(await tracker.fetch_issues_by_states(["opened"])) == 350
    gitlab_server.pass_time(3_600)
    gitlab_server.change(7, state="closed")
    gitlab_server.change(8, title="Changed")
    gitlab_server.calls.clear()
    issues = await tracker.fetch_issues_by_states(["opened"])
    assert numbers(issues) == [*range(1, 7), *range(8, 351)]
    assert issues[6].title == "Changed"
    assert gitlab_server.count() == 2
    gitlab_server.remove(20)
    issues = await tracker.fetch_issues_by_states(["opened"])
    assert numbers(issues) == [*range(1, 7), *range(8, 20), *range(21, 351)]
    await tracker.aclose()


@pytest.mark.parametrize(
    "how", [{"state_labels": {k: f"flow::{v}" for k, v in LABELS.items()}}, {"state_scope": "flow"}]
)
async def test_scoped_labels_can_be_the_states(gitlab_server: Any, how: dict[str, Any]) -> None:
    tracker = make(
        gitlab_server,
        active=("Todo", "Doing"),
        terminal=frozenset({"closed", "done"}),
        priority_labels={"p0": 1},
        priority_weights={"3": 2},
        **how,
    )
    gitlab_server.add(1, labels=("flow::todo", "P0"))
    gitlab_server.add(2, labels=("Flow::Doing",))
    gitlab_server.add(3, labels=("flow::done",), weight=None)
    gitlab_server.add(4, labels=("flow::doing",), state="closed")
    gitlab_server.add(5)
    active = await tracker.fetch_issues_by_states(["Todo", "Doing"])
    assert [(i.id, i.state.lower(), i.priority) for i in active] == [
        ("1", "todo", 1),
        ("2", "doing", 2),
    ]
    assert not any("state=closed" in call.target for call in gitlab_server.calls)
    done = await tracker.fetch_issues_by_states(["Done", "closed"])
    assert {(issue.id, issue.state.lower()) for issue in done} == {("3", "done"), ("4", "closed")}
    assert await tracker.faults_at_start() == []
    gitlab_server.labels.remove("flow::todo")
    one_missing = await tracker.faults_at_start()
    assert len(one_missing) == (1 if "state_labels" in how else 0), "a scope grows as it is used"
    gitlab_server.labels.clear()
    faults = await tracker.faults_at_start()
    assert [f"has no `{label}`" in " ".join(faults) for label in ("flow::todo", "flow::doing")] == [
        True,
        True,
    ]
    await tracker.aclose()


async def test_blocking_links_hold_an_issue_back_by_setting(gitlab_server: Any) -> None:
    tracker = make(gitlab_server, blocking_links=True)
    gitlab_server.add(1)
    gitlab_server.add(2, blocked_by=(1,))
    for number in range(3, 61):
        gitlab_server.add(number)
    issues = await tracker.fetch_issues_by_states(["opened"])
    assert [i.id for i in issues if not i.dispatchable] == ["2"]
    (blocker,) = issues[1].blocked_by
    assert (blocker.id, blocker.identifier, blocker.state) == ("1", "GL-1", "opened")
    assert gitlab_server.count() == 3, "a page, and two batches of blockers"
    gitlab_server.change(1, state="closed")
    (issue,) = await tracker.fetch_issues_by_ids(ids(2))
    assert issue.dispatchable
    await tracker.aclose()


async def test_malformed_records_are_dropped_from_polls_with_a_count(
    gitlab_server: Any, gitlab_fakes: ModuleType, tracker: GitLabTracker
) -> None:
    gitlab_server.add(1)
    gitlab_server.add(2, title=" ")
    fault = gitlab_fakes.Fault(edit=lambda answer: [*answer, None, {"iid": True}])
    gitlab_server.faults.append(fault)
    with capture_logs() as logs:
        issues = await tracker.fetch_issues_by_states(["opened"])
    assert numbers(issues) == [1]
    assert [(entry["event"], entry["count"]) for entry in logs] == [
        ("Dropping malformed GitLab issue records", 3)
    ]
    with pytest.raises(TrackerError, match="`title`") as caught:
        await tracker.fetch_issues_by_ids(ids(1, 2))
    assert caught.value.code == "gitlab_unknown_payload"


STATUS, REQUEST, PAYLOAD = "gitlab_api_status", "gitlab_api_request", "gitlab_unknown_payload"
RATE, BAD = "tracker_rate_limited", "tracker_response"
FAULTS: list[tuple[str, dict[str, Any], int, str, str]] = [
    ("429 with a date", {"status": 429, "headers": {"Retry-After": "30"}}, 1, RATE, STATUS),
    ("429 without one", {"status": 429}, 1, RATE, STATUS),
    ("401", {"status": 401}, 1, "tracker_status", STATUS),
    ("403", {"status": 403}, 1, "tracker_status", STATUS),
    ("404", {"status": 404}, 1, "tracker_status", STATUS),
    ("410", {"status": 410}, 1, "tracker_status", STATUS),
    ("502", {"status": 502}, 3, "tracker_status", STATUS),
    ("reset", {"abort": True}, 3, "tracker_request", REQUEST),
    ("cut", {"cut": True}, 3, "tracker_request", REQUEST),
    ("truncated", {"body": b'[{"iid": 1'}, 1, BAD, PAYLOAD),
    ("HTML", {"body": b"<html>Sign in</html>"}, 1, BAD, PAYLOAD),
    ("empty", {"body": b""}, 1, BAD, PAYLOAD),
    ("wrong type", {"body": b'{"a": 1}'}, 1, BAD, PAYLOAD),
    (
        "another host",
        {"status": 301, "headers": {"Location": "https://evil.example/"}},
        1,
        "tracker_status",
        STATUS,
    ),
]


@pytest.mark.parametrize(
    ("fault", "times", "category", "code"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS]
)
async def test_a_fault_fails_the_whole_read(
    gitlab_server: Any,
    gitlab_fakes: ModuleType,
    fault: dict[str, Any],
    times: int,
    category: str,
    code: str,
) -> None:
    for number in range(1, 151):
        gitlab_server.add(number)
    for only, asked in (("page=2", None), ("iids[]=101", ids(*range(1, 121)))):
        tracker = make(gitlab_server)
        gitlab_server.faults.clear()
        gitlab_server.faults.extend(gitlab_fakes.Fault(only=only, **fault) for _ in range(times))
        read = tracker.fetch_issues_by_states(["opened"])
        if asked is not None:
            read.close()
            read = tracker.fetch_issues_by_ids(asked)
        with pytest.raises(TrackerError) as caught:
            await read
        assert (caught.value.category, caught.value.code) == (category, code)
        assert TOKEN not in str(caught.value)
        await tracker.aclose()


async def test_the_tool_works_in_the_project_and_nowhere_else(
    gitlab_server: Any, tracker: GitLabTracker, context: Any
) -> None:
    gitlab_server.add(1)
    path = "/projects/group%2Fdemo/issues/1/notes"
    arguments = {"method": "post", "path": path, "body": {"body": "Hi"}}
    done = await tracker.call_tool("gitlab_api", arguments, context)
    assert done.success
    answer = json.loads(done.text)
    assert (answer["status"], answer["body"]["body"]) == (201, "Hi")
    by_number = {"method": "GET", "path": "/projects/42/issues", "query": {"state": "opened"}}
    assert not (await tracker.call_tool("gitlab_api", by_number, context)).success
    await tracker.fetch_issues_by_states(["opened"])
    assert (await tracker.call_tool("gitlab_api", by_number, context)).success
    gitlab_server.calls.clear()
    for method, path in (
        ("GET", "/user"),
        ("GET", "/projects/group%2Fother/issues"),
        ("GET", "/projects/group%2Fdemo/../other"),
        ("GET", "/projects/group%252Fdemo/issues"),
        ("GET", "/projects/group%2Fdemo%2F..%2Fother/issues"),
        ("GET", "/projects/group%2Fdemo/issues%2F1"),
        ("GET", "/projects/7/issues"),
        ("DELETE", "/projects/group%2Fdemo"),
        ("POST", "/projects/group%2Fdemo/members"),
        ("PATCH", "/projects/group%2Fdemo/issues/1"),
    ):
        result = await tracker.call_tool("gitlab_api", {"method": method, "path": path}, context)
        assert not result.success
        assert "`gitlab_api`: " in json.loads(result.text)["error"]["message"]
    assert gitlab_server.calls == []


ELSEWHERE = [
    ("POST", "issues/1/move", None, {"to_project_id": 7}),
    ("POST", "issues/1/move", {"to_project_id": "7"}, None),
    ("POST", "issues/1/links", None, {"target_project_id": "group/other", "target_issue_iid": 1}),
    ("POST", "merge_requests", None, {" Target_Project_ID": 7}),
    ("GET", "issues", {"sudo": "root"}, None),
    ("GET", "issues", {"private_token[]": ["glpat-of-somebody"]}, None),
    ("POST", "issues/1/notes", None, {"body": "x", "sudo": "root"}),
    ("POST", "hooks.json", None, {"url": "https://evil.example"}),
    ("POST", "Members;x", None, {"user_id": 1}),
]


@pytest.mark.parametrize(("method", "part", "query", "body"), ELSEWHERE)
async def test_a_call_that_names_another_project_or_user_is_refused(
    gitlab_server: Any,
    tracker: GitLabTracker,
    context: Any,
    method: str,
    part: str,
    query: Any,
    body: Any,
) -> None:
    path = f"/projects/group%2Fdemo/{part}"
    arguments = {"method": method, "path": path, "query": query, "body": body}
    result = await tracker.call_tool("gitlab_api", arguments, context)
    assert not result.success
    assert "`gitlab_api`: " in json.loads(result.text)["error"]["message"]
    assert gitlab_server.calls == []


async def test_a_call_that_names_its_own_project_passes(
    gitlab_server: Any, tracker: GitLabTracker, context: Any
) -> None:
    path = "/projects/group%2Fdemo/issues/1/links"
    body = {"target_project_id": "Group/demo", "target_issue_iid": 2}
    arguments = {"method": "POST", "path": path, "body": body}
    await tracker.call_tool("gitlab_api", arguments, context)
    assert [call.method for call in gitlab_server.calls] == ["POST"]


@pytest.mark.parametrize(
    ("scope", "path", "allowed"),
    [
        ("group", "/projects/group%2Fother/issues", True),
        ("group", "/projects/groupies%2Fother/issues", False),
        ("group", "/user", False),
        ("any", "/user", True),
    ],
)
async def test_a_wider_scope_is_set(
    gitlab_server: Any, context: Any, scope: str, path: str, allowed: bool
) -> None:
    tracker = make(gitlab_server, tool_scope=scope)
    await tracker.call_tool("gitlab_api", {"method": "GET", "path": path}, context)
    assert bool(gitlab_server.calls) is allowed
    await tracker.aclose()
