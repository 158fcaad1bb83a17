from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from structlog.testing import capture_logs

from symphony.config.settings import TrackerSettings
from symphony.errors import TrackerError
from symphony.model.issue import IssueId
from symphony.trackers import registry
from symphony.trackers.base import ToolContext, Tracker
from symphony.trackers.http import HttpClient
from symphony.trackers.linear import LinearTracker
from symphony.trackers.linear_settings import LinearSettings

TOKEN = "lin_api_test"


def make(server: Any, *, assignee: str | None = None, token: str = TOKEN) -> LinearTracker:
    settings = LinearSettings(
        endpoint=server.endpoint,
        api_key=token,
        project_slug="demo",
        assignee=assignee,
        secret_environment_names=("LINEAR_API_KEY",),
    )
    client = HttpClient(
        provider="Linear", headers={"Authorization": token}, retry_wait_s=0.001, attempts=3
    )
    return LinearTracker(settings, terminal_states=["Done"], client=client)


@pytest.fixture
async def tracker(linear_server: Any) -> AsyncIterator[LinearTracker]:
    tracker = make(linear_server)
    yield tracker
    await tracker.aclose()


def test_the_schema_that_requests_are_checked_with_is_told(fakes: ModuleType) -> None:
    if fakes.schema_path() is None:
        pytest.skip("linear.graphql not found (SYMPHONY_SCHEMAS): checked on an excerpt only")
    assert "Issue" in fakes.schema().type_map


async def test_pages_keep_their_order(linear_server: Any, tracker: LinearTracker) -> None:
    ids = [linear_server.add(n) for n in range(1, 121)]
    linear_server.add(500, project="other")
    linear_server.add(501, state="Done")
    issues = await tracker.fetch_issues_by_states(["Todo", "Todo"])
    assert [issue.id for issue in issues] == ids
    assert [request.operation for request in linear_server.requests] == ["SymphonyLinearPoll"] * 3
    assert linear_server.requests[0].variables["stateNames"] == ["Todo"]
    assert linear_server.requests[0].headers["authorization"] == TOKEN


async def test_ids_go_in_batches_of_fifty(linear_server: Any, tracker: LinearTracker) -> None:
    ids = [IssueId(linear_server.add(n)) for n in range(1, 56)]
    other = IssueId(linear_server.add(99, project="other"))
    asked = [*reversed(ids), IssueId("gone"), other, ids[0]]
    found = await tracker.fetch_issues_by_ids(asked)
    assert [issue.id for issue in found] == list(reversed(ids))
    sizes = sorted(request.variables["first"] for request in linear_server.requests)
    assert sizes == [7, 50]


async def test_labels_and_blockers_past_the_first_page_are_fetched(
    linear_server: Any, tracker: LinearTracker
) -> None:
    done = [linear_server.add(n, state="Done") for n in range(1, 121)]
    last = linear_server.add(121, state="In Progress")
    names = tuple(f"label-{n:03}" for n in range(130))
    blocked = IssueId(linear_server.add(200, labels=names, blockers=(*done, last)))
    (issue,) = await tracker.fetch_issues_by_ids([blocked])
    assert issue.labels == names
    assert len(issue.blocked_by) == 121
    assert not issue.dispatchable, "the only open blocker is the last of 121"
    linear_server.issues[last]["state"] = "Done"
    (issue,) = await tracker.fetch_issues_by_states(["Todo"])
    assert issue.dispatchable


async def test_sub_issues_past_the_first_page_are_fetched(linear_server: Any) -> None:
    parent = linear_server.add(1)
    for number in range(2, 74):
        linear_server.add(number, state="Done", parent=parent)
    last = linear_server.add(99, state="Backlog", parent=parent)
    settings = section(linear_server, ("Todo", "In Progress"), sub_issues="before_parent")
    tracker = registry.build(settings, {"KEY": TOKEN}, Path())
    (issue,) = await tracker.fetch_issues_by_states(["Todo"])
    assert len(issue.blocked_by) == 73
    assert issue.withheld == "blocked by DEMO-99 (Backlog)"
    # What happens to a sub-issue leaves no trace in its parent, and is seen all the same.
    linear_server.issues[last]["state"] = "Done"
    (issue,) = await tracker.fetch_issues_by_states(["Todo"])
    assert issue.dispatchable
    assert linear_server.requests[-1].operation == "SymphonyLinearChanges"
    await tracker.aclose()


async def test_a_sub_issue_starts_once_its_parent_is_active_where_that_is_set(
    linear_server: Any,
) -> None:
    parent = linear_server.add(1, state="Backlog", project=None)
    linear_server.add(2, parent=parent)
    settings = section(linear_server, ("Todo", "In Progress"), sub_issues="with_parent")
    tracker = registry.build(settings, {"KEY": TOKEN}, Path())
    (issue,) = await tracker.fetch_issues_by_states(["Todo"])
    assert issue.withheld == "its parent DEMO-1 is in state 'Backlog', which is not active"
    linear_server.issues[parent]["state"] = "In Progress"
    (issue,) = await tracker.fetch_issues_by_states(["Todo"])
    assert issue.dispatchable
    await tracker.aclose()


async def test_the_family_is_asked_for_where_a_setting_needs_it(
    linear_server: Any, tracker: LinearTracker
) -> None:
    linear_server.add(1)
    await tracker.fetch_issues_by_states(["Todo"])
    (request,) = linear_server.requests
    assert "children" not in request.query
    assert "parent" not in request.query


async def test_the_viewer_is_asked_once(linear_server: Any) -> None:
    mine = linear_server.add(1, assignee="user-1")
    linear_server.add(2, assignee="user-2")
    linear_server.add(3)
    tracker = make(linear_server, assignee="me")
    for _ in range(3):
        issues = await tracker.fetch_issues_by_states(["Todo"])
        assert [issue.id for issue in issues if issue.dispatchable] == [mine]
    operations = [request.operation for request in linear_server.requests]
    assert operations.count("SymphonyLinearViewer") == 1
    await tracker.aclose()


async def test_a_viewer_without_an_id_is_an_error(linear_server: Any, fakes: ModuleType) -> None:
    tracker = make(linear_server, assignee="me")
    linear_server.faults.append(fakes.Fault(edit=lambda answer: {"data": {"viewer": None}}))
    with pytest.raises(TrackerError, match="assignee: me") as caught:
        await tracker.fetch_issues_by_states(["Todo"])
    assert caught.value.code == "missing_linear_viewer_identity"
    await tracker.aclose()


async def test_malformed_records_are_dropped_from_polls_with_a_count(
    linear_server: Any, tracker: LinearTracker
) -> None:
    linear_server.add(1, title=" ")
    good = linear_server.add(2)
    bad = linear_server.add(3, identifier="")
    with capture_logs() as logs:
        issues = await tracker.fetch_issues_by_states(["Todo"])
    assert [issue.id for issue in issues] == [good]
    assert [(entry["event"], entry["count"]) for entry in logs] == [
        ("Dropping malformed Linear issue records", 2)
    ]
    with pytest.raises(TrackerError, match="`identifier`") as caught:
        await tracker.fetch_issues_by_ids([IssueId(good), IssueId(bad)])
    assert caught.value.code == "linear_unknown_payload"


def without_page_info(answer: dict[str, Any]) -> dict[str, Any]:
    del answer["data"]["issues"]["pageInfo"]
    return answer


def paged(cursor: Any) -> Any:
    def edit(answer: dict[str, Any]) -> dict[str, Any]:
        answer["data"]["issues"]["pageInfo"] = {"hasNextPage": True, "endCursor": cursor}
        return answer

    return edit


def with_errors(answer: dict[str, Any]) -> dict[str, Any]:
    answer["data"]["issues"]["nodes"] = []
    return {**answer, "errors": [{"message": "partial outage"}]}


FAULTS: list[tuple[str, dict[str, Any], str, str | None]] = [
    ("data beside errors", {"edit": with_errors}, "tracker_response", "linear_graphql_errors"),
    ("no data", {"edit": lambda _: {}}, "tracker_response", "linear_unknown_payload"),
    ("null data", {"edit": lambda _: {"data": None}}, "tracker_response", "linear_unknown_payload"),
    (
        "null issues",
        {"edit": lambda _: {"data": {"issues": None}}},
        "tracker_response",
        "linear_unknown_payload",
    ),
    ("a list", {"edit": lambda _: []}, "tracker_response", "linear_unknown_payload"),
    ("html", {"body": b"<html>"}, "tracker_response", "linear_unknown_payload"),
    ("empty", {"body": b""}, "tracker_response", "linear_unknown_payload"),
    ("truncated", {"body": b'{"data": {"iss'}, "tracker_response", "linear_unknown_payload"),
    ("deep", {"body": b"[" * 200_000}, "tracker_response", "linear_unknown_payload"),
    ("404", {"status": 404, "body": b"no"}, "tracker_status", "linear_api_status"),
    (
        "a redirect",
        {"status": 302, "headers": {"Location": "http://127.0.0.1:1/"}},
        "tracker_status",
        "linear_api_status",
    ),
    (
        "a rate limit as an error",
        {"status": 400, "body": b'{"errors":[{"extensions":{"code":"RATELIMITED"}}]}'},
        "tracker_rate_limited",
        "linear_api_status",
    ),
]


@pytest.mark.parametrize(
    ("fault", "category", "code"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS]
)
@pytest.mark.parametrize("read", ["states", "ids"])
async def test_a_faulty_answer_fails_the_whole_read(
    linear_server: Any,
    tracker: LinearTracker,
    fakes: ModuleType,
    read: str,
    fault: dict[str, Any],
    category: str,
    code: str,
) -> None:
    issue_id = IssueId(linear_server.add(1))
    linear_server.faults.append(fakes.Fault(**fault))
    call = (
        tracker.fetch_issues_by_ids([issue_id])
        if read == "ids"
        else tracker.fetch_issues_by_states(["Todo"])
    )
    with pytest.raises(TrackerError) as caught:
        await call
    assert (caught.value.category, caught.value.code) == (category, code)
    assert TOKEN not in str(caught.value)
    assert len(linear_server.requests) == 1, "such an answer is not asked for again"


@pytest.mark.parametrize(
    ("edit", "code"),
    [(without_page_info, "linear_missing_page_info"), (paged(None), "linear_missing_end_cursor")],
)
async def test_a_page_that_does_not_say_what_follows_fails_the_read(
    linear_server: Any, tracker: LinearTracker, fakes: ModuleType, edit: Any, code: str
) -> None:
    linear_server.add(1)
    linear_server.faults.append(fakes.Fault(edit=edit))
    with pytest.raises(TrackerError) as caught:
        await tracker.fetch_issues_by_states(["Todo"])
    assert (caught.value.category, caught.value.code) == ("tracker_pagination", code)


async def test_a_batch_of_ids_is_one_page_unless_the_answer_says_otherwise(
    linear_server: Any, tracker: LinearTracker, fakes: ModuleType
) -> None:
    ids = [IssueId(linear_server.add(n)) for n in (1, 2)]
    linear_server.faults.append(fakes.Fault(edit=without_page_info))
    assert len(await tracker.fetch_issues_by_ids(ids)) == 2
    linear_server.faults.append(fakes.Fault(edit=paged("cursor-1")))
    with pytest.raises(TrackerError) as caught:
        await tracker.fetch_issues_by_ids(ids)
    assert caught.value.code == "linear_cut_batch"


async def test_a_cursor_that_does_not_advance_ends_the_read(
    linear_server: Any, tracker: LinearTracker, fakes: ModuleType
) -> None:
    linear_server.add(1)
    linear_server.faults.extend(fakes.Fault(edit=paged("cursor-0")) for _ in range(3))
    with pytest.raises(TrackerError) as caught:
        await tracker.fetch_issues_by_states(["Todo"])
    assert caught.value.category == "tracker_pagination"
    assert len(linear_server.requests) == 2


async def test_a_fault_on_a_later_page_gives_nothing_partial(
    linear_server: Any, tracker: LinearTracker, fakes: ModuleType
) -> None:
    for n in range(1, 61):
        linear_server.add(n)
    linear_server.faults.append(fakes.Fault())
    linear_server.faults.append(fakes.Fault(edit=with_errors))
    with pytest.raises(TrackerError, match="partial outage"):
        await tracker.fetch_issues_by_states(["Todo"])


async def test_passing_faults_of_reads_are_mended_by_another_try(
    linear_server: Any, tracker: LinearTracker, fakes: ModuleType
) -> None:
    linear_server.add(1)
    linear_server.faults.append(fakes.Fault(status=503, body=b"busy"))
    linear_server.faults.append(fakes.Fault(abort=True))
    assert len(await tracker.fetch_issues_by_states(["Todo"])) == 1
    assert len(linear_server.requests) == 3


async def test_faults_that_last_are_errors_after_a_few_tries(
    linear_server: Any, tracker: LinearTracker, fakes: ModuleType
) -> None:
    linear_server.faults.extend(fakes.Fault(status=500, body=b"oops") for _ in range(9))
    with pytest.raises(TrackerError, match="HTTP 500: oops") as caught:
        await tracker.fetch_issues_by_states(["Todo"])
    assert (caught.value.category, caught.value.status) == ("tracker_status", 500)
    assert len(linear_server.requests) == 3


async def test_a_rate_limit_tells_how_long_to_wait(
    linear_server: Any, tracker: LinearTracker, fakes: ModuleType
) -> None:
    headers = {"Retry-After": "77", "X-RateLimit-Requests-Remaining": "0"}
    linear_server.faults.append(fakes.Fault(status=429, headers=headers))
    with pytest.raises(TrackerError, match="77 s") as caught:
        await tracker.fetch_issues_by_states(["Todo"])
    assert caught.value.category == "tracker_rate_limited"
    assert caught.value.retry_after_s == 77
    assert len(linear_server.requests) == 1
    assert tracker.http.rate_limit is not None
    assert tracker.http.rate_limit.remaining == 0


async def test_a_refused_token_is_named_by_its_key(linear_server: Any) -> None:
    tracker = make(linear_server, token="wrong")
    with pytest.raises(TrackerError, match=r"tracker\.provider\.api_key") as caught:
        await tracker.fetch_issues_by_states(["Todo"])
    assert caught.value.status == 401
    assert "wrong" not in str(caught.value)
    await tracker.aclose()


async def test_an_endpoint_that_nobody_serves_is_a_transport_error(linear_server: Any) -> None:
    tracker = make(linear_server)
    await linear_server.__aexit__(None, None, None)
    with pytest.raises(TrackerError, match="could not be reached") as caught:
        await tracker.fetch_issues_by_states(["Todo"])
    assert (caught.value.category, caught.value.code) == ("tracker_request", "linear_api_request")
    await tracker.aclose()
    await linear_server.__aenter__()


MOVE = (
    "mutation U($id: String!, $stateId: String!) { issueUpdate(id: $id, input: "
    "{stateId: $stateId}) { success issue { id state { name } } } }"
)
COMMENT = (
    "mutation C($issueId: String!, $body: String!) { commentCreate(input: "
    "{issueId: $issueId, body: $body}) { success comment { id } } }"
)


async def use(tracker: Tracker, context: ToolContext, arguments: Any) -> tuple[bool, Any]:
    result = await tracker.call_tool("linear_graphql", arguments, context)
    return result.success, json.loads(result.text)


async def test_the_tool_moves_and_comments(
    linear_server: Any, tracker: LinearTracker, context: ToolContext
) -> None:
    issue_id = linear_server.add(1)
    variables: dict[str, Any] = {"id": issue_id, "stateId": "state-Done"}
    success, answer = await use(tracker, context, {"query": MOVE, "variables": variables})
    assert success
    assert answer["data"]["issueUpdate"]["issue"]["state"]["name"] == "Done"
    variables = {"issueId": issue_id, "body": "hello \ud800"}
    success, _ = await use(tracker, context, {"query": COMMENT, "variables": variables})
    assert success
    assert linear_server.comments["comment-1"]["body"].startswith("hello")
    assert (await use(tracker, context, " query { viewer { id } } "))[0]


async def test_reads_and_the_tool_carry_the_token_of_the_settings(
    linear_server: Any, context: ToolContext
) -> None:
    settings = TrackerSettings(
        kind="linear",
        provider={"endpoint": linear_server.endpoint, "api_key": "$KEY", "project_slug": "demo"},
        terminal_states=("Done",),
        active_states=("Todo",),
    )
    tracker = registry.build(settings, {"KEY": TOKEN}, Path())
    issue_id = linear_server.add(1)
    assert [issue.id for issue in await tracker.fetch_issues_by_states(["Todo"])] == [issue_id]
    assert (await use(tracker, context, {"query": "query { viewer { id } }"}))[0]
    await tracker.aclose()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (None, "expects either a GraphQL query string or an object"),
        ([], "expects either a GraphQL query string or an object"),
        ("  ", "requires a non-empty `query`"),
        ({}, "requires a non-empty `query`"),
        ({"query": " "}, "requires a non-empty `query`"),
        ({"query": 3}, "requires a non-empty `query`"),
        ({"query": "{ viewer { id } }", "variables": []}, "must be a JSON object"),
    ],
)
async def test_bad_arguments_are_failed_results_without_a_request(
    linear_server: Any, tracker: LinearTracker, context: ToolContext, arguments: Any, words: str
) -> None:
    success, answer = await use(tracker, context, arguments)
    assert not success
    assert words in answer["error"]["message"]
    assert linear_server.requests == []


async def test_graphql_errors_are_a_failure_that_keeps_the_answer(
    linear_server: Any, tracker: LinearTracker, context: ToolContext
) -> None:
    success, answer = await use(tracker, context, '{ issue(id: "DEMO-1") { id } viewer { id } }')
    assert not success
    assert answer["errors"][0]["message"] == "Entity not found: Issue"
    success, answer = await use(tracker, context, '{ issue(id: "DEMO-1") { nonsense } }')
    assert not success
    assert answer["error"]["status"] == 400
    assert "nonsense" in answer["error"]["response"]["errors"][0]["message"]


async def test_a_mutation_is_never_sent_twice(
    linear_server: Any, tracker: LinearTracker, context: ToolContext, fakes: ModuleType
) -> None:
    for fault in (fakes.Fault(abort=True), fakes.Fault(status=503, body=b"busy")):
        linear_server.faults.append(fault)
        before = len(linear_server.requests)
        variables = {"id": "DEMO-1", "stateId": "state-Done"}
        success, answer = await use(tracker, context, {"query": MOVE, "variables": variables})
        assert not success
        assert "Linear GraphQL request failed" in answer["error"]["message"]
        assert len(linear_server.requests) == before + 1


async def test_an_unknown_tool_is_refused_with_the_list(
    tracker: LinearTracker, context: ToolContext
) -> None:
    result = await tracker.call_tool("local_board", {}, context)
    assert not result.success
    assert json.loads(result.text)["error"] == {
        "message": 'Unsupported dynamic tool: "local_board".',
        "supportedTools": ["linear_graphql"],
    }


def section(server: Any, states: tuple[str, ...], **provider: Any) -> TrackerSettings:
    provider = {
        "endpoint": server.endpoint,
        "api_key": "$KEY",
        "project_slug": "demo",
        **provider,
    }
    return TrackerSettings(
        kind="linear", provider=provider, active_states=states, terminal_states=("Done", "Closed")
    )


@pytest.mark.parametrize(
    ("states", "provider", "words"),
    [
        (("Todo", "In Progress"), {}, []),
        (("todo",), {}, ["spells `todo` as `Todo`"]),
        (("Todo", "In Progres"), {"team": "demo"}, ["`In Progres`; did you mean `In Progress`?"]),
        (("Todo",), {"team": "OPS"}, ["tracker.provider.team"]),
        (("Todo",), {"project_slug": "dmeo"}, ["tracker.provider.project_slug"]),
    ],
)
async def test_what_linear_does_not_know_is_named_at_start(
    linear_server: Any, states: tuple[str, ...], provider: dict[str, Any], words: list[str]
) -> None:
    tracker = registry.build(section(linear_server, states, **provider), {"KEY": TOKEN}, Path())
    assert isinstance(tracker, LinearTracker)
    faults = await tracker.faults_at_start()
    assert len(faults) == len(words)
    assert all(word in fault for word, fault in zip(words, faults, strict=True))
    await tracker.aclose()
