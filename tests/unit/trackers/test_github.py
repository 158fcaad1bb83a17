from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from types import ModuleType
from typing import Any

import pytest
from structlog.testing import capture_logs

from symphony.errors import TrackerError
from symphony.model.allowance import Allowance
from symphony.model.issue import IssueId
from symphony.service.pace import observe_pace
from symphony.trackers.github import GitHubTracker
from symphony.trackers.github_settings import GitHubSettings
from symphony.trackers.http import HttpClient

TOKEN = "ghp_test"
LABELS = {"Todo": "todo", "In Progress": "doing", "Done": "done"}


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def make(
    server: Any, *, clock: Callable[[], float] | None = None, whole_pages: int = 3, **fields: Any
) -> GitHubTracker:
    settings = GitHubSettings(
        **{"owner": "octo", "repo": "demo", "token": TOKEN, "api_url": server.url, **fields}
    )
    client = HttpClient(
        provider="GitHub",
        headers={"Authorization": f"Bearer {settings.token}"},
        base_url=settings.api_url,
        retry_wait_s=0.001,
        clock=clock or Clock(),
        wall=lambda: server.now.timestamp(),
    )
    return GitHubTracker(settings, client=client, clock=clock or Clock(), whole_pages=whole_pages)


def ids(*numbers: int) -> list[IssueId]:
    return [IssueId(str(number)) for number in numbers]


def numbers(issues: Any) -> list[int]:
    return [int(issue.id) for issue in issues]


@pytest.fixture
async def tracker(github_server: Any) -> AsyncIterator[GitHubTracker]:
    tracker = make(github_server)
    yield tracker
    await tracker.aclose()


def test_the_description_that_requests_are_checked_with_is_told(github_fakes: ModuleType) -> None:
    api, missing = github_fakes.description()
    if missing:
        print(f"GitHub's REST answers are not checked: {missing}")
        pytest.skip(missing)
    assert "/repos/{owner}/{repo}/issues" in str(list(api.spec["paths"].keys()))


async def test_pages_keep_their_order_and_pull_requests_are_never_dispatchable(
    github_server: Any, tracker: GitHubTracker
) -> None:
    for number in range(1, 251):
        github_server.add(number, pull_request=number % 10 == 0)
    github_server.add(300, state="closed")
    issues = await tracker.fetch_issues_by_states([" OPEN "])
    assert numbers(issues) == list(range(1, 251))
    assert [i for i in numbers(issues) if i % 10 == 0] == [
        int(issue.id) for issue in issues if not issue.dispatchable
    ]
    first = github_server.calls[0]
    assert first.query == {
        "state": ["open"],
        "sort": ["created"],
        "direction": ["asc"],
        "per_page": ["100"],
        "page": ["1"],
    }
    assert first.headers["authorization"] == f"Bearer {TOKEN}"


async def test_states_that_github_does_not_have_make_no_request(
    github_server: Any, tracker: GitHubTracker
) -> None:
    assert await tracker.fetch_issues_by_states(["Todo", "Done"]) == []
    assert github_server.calls == []


async def test_ids_go_in_batches_of_a_hundred(github_server: Any, tracker: GitHubTracker) -> None:
    for number in range(1, 151):
        github_server.add(number, labels=("Bug",), assignee="ann", pull_request=number == 7)
    github_server.remove(3)
    github_server.transfer(4)
    asked = [*range(150, 0, -1), 999, 150]
    found = await tracker.fetch_issues_by_ids(ids(*asked))
    assert numbers(found) == [n for n in range(150, 0, -1) if n not in (3, 4)]
    assert github_server.count() == 2
    assert {issue.labels for issue in found} == {("bug",)}
    assert [i.id for i in found if not i.dispatchable] == ["7"]


async def test_both_ways_to_read_an_issue_agree(github_server: Any, tracker: GitHubTracker) -> None:
    github_server.add(1, labels=("Bug", "UI"), assignee="ann", sub_issues=(2, 1))
    github_server.add(2, state="closed", body=None)
    for number in (1, 2):
        (single,) = await tracker.fetch_issues_by_ids(ids(number))
        pair = await tracker.fetch_issues_by_ids(ids(1, 2))
        assert single == pair[number - 1]
    assert (await tracker.fetch_issues_by_states(["open"]))[0] == pair[0]


@pytest.mark.parametrize("how", ["remove", "transfer", "never"])
async def test_an_issue_that_was_deleted_moved_or_never_there_is_left_out(
    github_server: Any, tracker: GitHubTracker, how: str
) -> None:
    github_server.add(1)
    github_server.add(2)
    if how != "never":
        getattr(github_server, how)(1)
    asked = 9 if how == "never" else 1
    assert await tracker.fetch_issues_by_ids(ids(asked)) == []
    assert numbers(await tracker.fetch_issues_by_ids(ids(asked, 2))) == [2]
    assert not any("/repositories/2" in call.target for call in github_server.calls)


async def test_a_renamed_repository_is_followed_and_its_issues_stay(
    github_server: Any, tracker: GitHubTracker
) -> None:
    github_server.add(1)
    github_server.renamed_to = "octo/renamed"
    assert numbers(await tracker.fetch_issues_by_states(["open"])) == [1]
    assert numbers(await tracker.fetch_issues_by_ids(ids(1))) == [1]


async def test_an_id_that_is_no_number_is_an_error(
    github_server: Any, tracker: GitHubTracker
) -> None:
    for bad in ("GH-1", "0", "-1", "1.0", "\u0661", ""):
        with pytest.raises(TrackerError) as caught:
            await tracker.fetch_issues_by_ids([IssueId(bad)])
        assert caught.value.code == "invalid_github_issue_id"
    assert github_server.calls == []


async def test_a_quiet_board_costs_no_requests_that_count(
    github_server: Any, tracker: GitHubTracker
) -> None:
    for number in range(1, 151):
        github_server.add(number)
    first = await tracker.fetch_issues_by_states(["open"])
    github_server.calls.clear()
    before = tracker.http.not_modified
    for _ in range(5):
        assert await tracker.fetch_issues_by_states(["open"]) == first
    assert github_server.count(modified=True) == 0
    assert (tracker.http.not_modified - before, github_server.count()) == (10, 10)


async def test_an_hour_at_two_hundred_issues_costs_at_most_three_hundred_requests(
    github_server: Any,
) -> None:
    """Two reads at each of 120 polls, as the daemon makes them: the candidates and the running."""
    clock = Clock()
    tracker = make(github_server, clock=clock)
    for number in range(1, 201):
        github_server.add(number)
    for _ in range(120):
        assert len(await tracker.fetch_issues_by_states(["open"])) == 200
        assert len(await tracker.fetch_issues_by_ids(ids(*range(1, 11)))) == 10
        clock.now += 30
        github_server.pass_time(30)
    counted = github_server.count(modified=True)
    print(f"ten running: {counted} requests, and {github_server.count(modified=False)} times 304")
    assert counted <= 130
    github_server.calls.clear()
    assert len(await tracker.fetch_issues_by_states(["open"])) == 200
    assert len(await tracker.fetch_issues_by_ids(ids(*range(1, 201)))) == 200
    # All two hundred running: 120 polls of two batches each.
    assert 120 * github_server.count(modified=True) + 10 <= 300
    await tracker.aclose()


async def test_a_busy_hour_costs_the_pages_of_the_poll_and_one_more(github_server: Any) -> None:
    clock = Clock()
    tracker = make(github_server, clock=clock)
    for number in range(1, 201):
        github_server.add(number)
    await tracker.fetch_issues_by_states(["open"])
    for poll in range(20):
        clock.now += 30
        github_server.pass_time(30)
        github_server.change(poll + 1, title=f"Changed {poll}")
        github_server.change(200 - poll, title=f"Changed {poll}")
        github_server.calls.clear()
        issues = await tracker.fetch_issues_by_states(["open"])
        assert issues[poll].title == f"Changed {poll}"
        assert github_server.count(modified=True) <= 3
    await tracker.aclose()


async def test_a_long_list_is_kept_up_to_date_by_its_changes(github_server: Any) -> None:
    clock = Clock()
    tracker = make(github_server, clock=clock, whole_pages=1)
    for number in range(1, 551):
        github_server.add(number)
    github_server.pass_time(3_600)
    assert len(await tracker.fetch_issues_by_states(["open"])) == 550
    github_server.pass_time(3_600)
    github_server.change(7, state="closed")
    github_server.change(8, title="Changed")
    github_server.add(551)
    github_server.calls.clear()
    issues = await tracker.fetch_issues_by_states(["open"])
    assert numbers(issues) == [*range(1, 7), *range(8, 552)]
    assert issues[6].title == "Changed"
    assert github_server.count() == 2, "the changes and the last page, not six pages"
    github_server.remove(20)
    issues = await tracker.fetch_issues_by_states(["open"])
    assert numbers(issues) == [*range(1, 7), *range(8, 20), *range(21, 552)]
    clock.now += 301
    github_server.calls.clear()
    await tracker.fetch_issues_by_states(["open"])
    assert github_server.count() == 6, "now and then it is read whole"
    await tracker.aclose()


async def test_an_issue_that_slips_to_a_page_already_read_is_not_lost(
    github_server: Any, github_fakes: ModuleType
) -> None:
    tracker = make(github_server)
    for number in range(1, 201):
        github_server.add(number)
    github_server.pass_time(3_600)

    def close() -> None:
        github_server.change(5, state="closed")

    github_server.faults.append(github_fakes.Fault(only="page=2", before=close))
    issues = await tracker.fetch_issues_by_states(["open"])
    assert numbers(issues) == [n for n in range(1, 201) if n != 5]
    await tracker.aclose()


async def test_labels_can_be_the_states(github_server: Any) -> None:
    tracker = make(
        github_server,
        state_labels=LABELS,
        active=("Todo", "In Progress"),
        terminal=frozenset({"closed", "done"}),
        priority_labels={"p0": 1, "p1": 2},
        priority_milestones={"v1": 3},
    )
    github_server.add(1, labels=("todo", "P1", "p0"))
    github_server.add(2, labels=("DOING", "todo"))
    github_server.add(3, labels=("done",))
    github_server.add(4, labels=("doing",), state="closed")
    github_server.add(5)
    github_server.add(6, labels=("done",), state="closed")
    active = await tracker.fetch_issues_by_states(["todo", "In Progress"])
    assert [(i.id, i.state, i.priority) for i in active] == [("1", "Todo", 1), ("2", "Todo", None)]
    assert not any("state=closed" in call.target for call in github_server.calls)
    done = await tracker.fetch_issues_by_states(["Done", "closed"])
    assert {(issue.id, issue.state) for issue in done} == {
        ("3", "Done"),
        ("4", "closed"),
        ("6", "Done"),
    }
    assert await tracker.faults_at_start() == []
    github_server.labels[:] = ["todo", "done"]
    (sentence,) = await tracker.faults_at_start()
    assert "octo/demo has no `doing`" in sentence
    await tracker.aclose()


async def test_the_status_of_a_project_can_be_the_state(github_server: Any) -> None:
    tracker = make(
        github_server,
        project=3,
        project_owner="octo",
        active=("Todo", "In progres"),
        terminal=frozenset({"done", "closed"}),
    )
    for number in range(1, 131):
        github_server.add(number)
    github_server.statuses |= {2: "Done", 3: "In Progress", 4: None, 5: "Todo"}
    github_server.change(5, state="closed")
    github_server.archived.add(6)
    del github_server.statuses[7]
    github_server.add(8, pull_request=True)
    issues = await tracker.fetch_issues_by_states(["Todo", "In Progress"])
    assert numbers(issues) == [1, 3, *range(9, 131)]
    assert issues[1].state == "In Progress"
    found = await tracker.fetch_issues_by_ids(ids(*range(1, 8)))
    assert [(i.id, i.state) for i in found] == [
        ("1", "Todo"),
        ("2", "Done"),
        ("3", "In Progress"),
        ("4", "open"),
        ("5", "closed"),
    ]
    (sentence,) = await tracker.faults_at_start()
    assert "has no `In progres`; did you mean `In Progress`?" in sentence
    await tracker.aclose()


async def test_a_project_that_is_not_shown_is_an_error(github_server: Any) -> None:
    tracker = make(github_server, project=4, project_owner="octo")
    with pytest.raises(TrackerError, match="no project 4 of octo") as caught:
        await tracker.fetch_issues_by_states(["Todo"])
    assert caught.value.code == "github_unknown_project"
    await tracker.aclose()


async def test_blockers_and_sub_issues_hold_an_issue_back_by_setting(github_server: Any) -> None:
    tracker = make(github_server, dependencies=True, sub_issues=True)
    github_server.add(1)
    github_server.add(2, blocked_by=(1,))
    github_server.add(3, sub_issues=(2, 1))
    github_server.add(4, sub_issues=(2, 2))
    issues = await tracker.fetch_issues_by_states(["open"])
    assert [issue.dispatchable for issue in issues] == [True, False, False, True]
    (blocker,) = issues[1].blocked_by
    assert (blocker.id, blocker.identifier, blocker.state) == ("1", "GH-1", "open")
    assert [i.dispatchable for i in await tracker.fetch_issues_by_ids(ids(2, 3))] == [False, False]
    github_server.change(1, state="closed")
    issues = await tracker.fetch_issues_by_states(["open"])
    assert (issues[0].id, issues[0].dispatchable) == ("2", True)
    github_server.calls.clear()
    await tracker.fetch_issues_by_states(["open"])
    assert github_server.count() == 1, "an issue that nothing blocks is not asked for blockers"
    await tracker.aclose()


async def test_a_project_s_issues_are_not_asked_for_blockers_one_by_one(github_server: Any) -> None:
    project = {"project": 3, "project_owner": "octo", "active": ("Todo",)}
    tracker = make(github_server, dependencies=True, **project)
    for number in range(1, 131):
        github_server.add(number, blocked_by=(130,) if number < 3 else ())
    issues = await tracker.fetch_issues_by_states(["Todo"])
    assert [int(issue.id) for issue in issues if not issue.dispatchable] == [1, 2]
    assert github_server.count() == 2 + 2, "two pages, and the blockers of two issues"
    github_server.calls.clear()
    found = await tracker.fetch_issues_by_ids(ids(1, 5, 6))
    assert [issue.dispatchable for issue in found] == [False, True, True]
    assert github_server.count() == 1 + 1
    # A server that does not tell is asked of each issue.
    github_server.lacks = {"issueDependenciesSummary"}
    older = make(github_server, dependencies=True, **project)
    issues = await older.fetch_issues_by_states(["Todo"])
    assert [int(issue.id) for issue in issues if not issue.dispatchable] == [1, 2]
    await tracker.aclose()
    await older.aclose()


async def test_malformed_records_are_dropped_from_polls_with_a_count(
    github_server: Any, github_fakes: ModuleType, tracker: GitHubTracker
) -> None:
    github_server.add(1)
    github_server.add(2, title=" ")
    edit = [None, 7, {"number": "x"}, {"number": 5}]
    fault = github_fakes.Fault(edit=lambda answer: [*answer, *edit])
    github_server.faults.append(fault)
    with capture_logs() as logs:
        issues = await tracker.fetch_issues_by_states(["open"])
    assert numbers(issues) == [1]
    assert [(entry["event"], entry["count"]) for entry in logs] == [
        ("Dropping malformed GitHub issue records", 5)
    ]
    for asked in (ids(2), ids(1, 2)):
        with pytest.raises(TrackerError, match="`title`") as caught:
            await tracker.fetch_issues_by_ids(asked)
        assert caught.value.code == "github_unknown_payload"


STATUS, REQUEST, PAYLOAD = "github_api_status", "github_api_request", "github_unknown_payload"
RATE = {"headers": {"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "0"}}
FAULTS: list[tuple[str, dict[str, Any], int, str, str]] = [
    ("429 with a date", {"status": 429, "headers": {"Retry-After": "30"}}, 1, "rate", STATUS),
    ("429 without one", {"status": 429}, 1, "rate", STATUS),
    ("403 primary limit", {"status": 403, **RATE}, 1, "rate", STATUS),
    (
        "403 secondary limit",
        {"status": 403, "body": b'{"message": "You have exceeded a secondary rate limit"}'},
        1,
        "rate",
        STATUS,
    ),
    ("403 otherwise", {"status": 403, "body": b'{"message": "No."}'}, 1, "status", STATUS),
    ("404", {"status": 404}, 1, "status", STATUS),
    ("410", {"status": 410}, 1, "status", STATUS),
    ("500", {"status": 500}, 3, "status", STATUS),
    ("503", {"status": 503}, 3, "status", STATUS),
    ("reset", {"abort": True}, 3, "request", REQUEST),
    ("cut", {"cut": True}, 3, "request", REQUEST),
    ("truncated", {"body": b'[{"number": 1'}, 1, "response", PAYLOAD),
    ("HTML", {"body": b"<html>Unicorn</html>"}, 1, "response", PAYLOAD),
    ("empty", {"body": b""}, 1, "response", PAYLOAD),
    ("null", {"body": b"null"}, 1, "response", PAYLOAD),
    ("wrong type", {"body": b'{"a": 1}'}, 1, "response", PAYLOAD),
    (
        "another host",
        {"status": 301, "headers": {"Location": "https://evil.example/"}},
        1,
        "status",
        STATUS,
    ),
]
CATEGORIES = {
    "rate": "tracker_rate_limited",
    "status": "tracker_status",
    "request": "tracker_request",
    "response": "tracker_response",
}


@pytest.mark.parametrize(
    ("fault", "times", "kind", "code"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS]
)
async def test_a_fault_on_any_page_fails_the_whole_read(
    github_server: Any,
    github_fakes: ModuleType,
    fault: dict[str, Any],
    times: int,
    kind: str,
    code: str,
) -> None:
    for number in range(1, 151):
        github_server.add(number)
    for page in ("page=1", "page=2"):
        tracker = make(github_server)
        github_server.faults.clear()
        github_server.faults.extend(github_fakes.Fault(only=page, **fault) for _ in range(times))
        with pytest.raises(TrackerError) as caught:
            await tracker.fetch_issues_by_states(["open"])
        assert (caught.value.category, caught.value.code) == (CATEGORIES[kind], code)
        assert TOKEN not in str(caught.value)
        await tracker.aclose()


async def test_a_refusal_by_limit_is_kept_until_it_is_over(
    github_server: Any, github_fakes: ModuleType
) -> None:
    clock = Clock()
    tracker = make(github_server, clock=clock)
    github_server.add(1)
    reset = str(int(github_server.now.timestamp()) + 90)
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset}
    github_server.faults.append(github_fakes.Fault(status=403, headers=headers))
    for left_s in (90.0, 60.0):
        with pytest.raises(TrackerError) as caught:
            await tracker.fetch_issues_by_states(["open"])
        assert caught.value.category == "tracker_rate_limited"
        assert caught.value.retry_after_s == left_s
        clock.now += 30
    assert github_server.count() == 1
    assert tracker.http.rate_limit is not None
    assert tracker.http.rate_limit.remaining == 0
    clock.now += 31
    assert numbers(await tracker.fetch_issues_by_states(["open"])) == [1]
    await tracker.aclose()


GRAPHQL_FAULTS: list[tuple[str, Callable[[Any], Any], str, str]] = [
    ("errors", lambda a: {**a, "errors": [{"message": "x"}]}, "response", "github_graphql_errors"),
    (
        "repository gone",
        lambda a: {"data": None, "errors": [{"type": "NOT_FOUND", "path": ["repository"]}]},
        "response",
        "github_graphql_errors",
    ),
    (
        "nothing said",
        lambda a: {"data": {"repository": {"nameWithOwner": "octo/demo", "i1": None}}},
        "response",
        PAYLOAD,
    ),
    ("no data", lambda a: {}, "response", PAYLOAD),
    ("a list", lambda a: [], "response", PAYLOAD),
    (
        "rate limit",
        lambda a: {"errors": [{"type": "RATE_LIMITED", "message": "slow down"}]},
        "rate",
        STATUS,
    ),
]


@pytest.mark.parametrize(
    ("edit", "kind", "code"), [f[1:] for f in GRAPHQL_FAULTS], ids=[f[0] for f in GRAPHQL_FAULTS]
)
async def test_a_batch_with_errors_leaves_nobody_out(
    github_server: Any,
    github_fakes: ModuleType,
    tracker: GitHubTracker,
    edit: Callable[[Any], Any],
    kind: str,
    code: str,
) -> None:
    github_server.add(1)
    github_server.add(2)
    github_server.faults.append(github_fakes.Fault(edit=edit))
    with pytest.raises(TrackerError) as caught:
        await tracker.fetch_issues_by_ids(ids(1, 2))
    assert (caught.value.category, caught.value.code) == (CATEGORIES[kind], code)


async def test_the_tool_works_in_the_repository_and_nowhere_else(
    github_server: Any, tracker: GitHubTracker, context: Any
) -> None:
    github_server.add(1)
    (spec,) = tracker.agent_tools()
    assert spec.input_schema["required"] == ["method", "path"]
    with capture_logs() as logs:
        done = await tracker.call_tool(
            "github_api",
            {
                "method": "post",
                "path": "/repos/Octo/demo/issues/1/comments",
                "body": {"body": "Hi"},
            },
            context,
        )
    # GitHub takes names in any case; the fake does not.
    assert json.loads(done.text)["status"] == 404
    assert [(e["method"], e["status"], e["run_id"]) for e in logs] == [("POST", 404, "run-1")]
    done = await tracker.call_tool(
        "github_api",
        {"method": "POST", "path": "/repos/octo/demo/issues/1/comments", "body": {"body": "Hi"}},
        context,
    )
    assert done.success
    assert json.loads(done.text)["body"]["body"] == "Hi"
    github_server.calls.clear()
    for method, path in (
        ("GET", "/user"),
        ("GET", "/repos/octo/other/issues"),
        ("GET", "/repos/octo/demo/../other"),
        ("GET", "/repositories/7/issues"),
        ("POST", "/graphql"),
        ("DELETE", "/repos/octo/demo"),
        ("PUT", "/repos/octo/demo/collaborators/me"),
        ("POST", "/repos/octo/demo/hooks.json"),
        ("POST", "/repos/octo/demo/Hooks;x=1"),
        ("POST", "/repos/octo/demo/forks"),
        ("POST", "/repos/octo/demo/generate"),
        ("POST", "/repos/octo/demo/dispatches"),
        ("POST", "/repos/octo/demo/issues/1/sub_issues"),
        ("POST", "/repos/octo/demo/issues/1/dependencies/blocked_by"),
        ("DELETE", "/repos/octo/demo/issues/1/sub_issue.json"),
        ("PATCH", "/repos/octo/demo.json"),
        ("TRACE", "/repos/octo/demo/issues"),
    ):
        result = await tracker.call_tool("github_api", {"method": method, "path": path}, context)
        assert not result.success
        assert "`github_api`: " in json.loads(result.text)["error"]["message"]
    assert github_server.calls == []


@pytest.mark.parametrize(
    ("scope", "path", "allowed"),
    [
        ("owner", "/repos/octo/other/issues", True),
        ("owner", "/orgs/octo/repos", True),
        ("owner", "/repos/evil/other/issues", False),
        ("owner", "/user", False),
        ("any", "/user", True),
        ("any", "/repos/octo/demo/..", False),
    ],
)
async def test_a_wider_scope_is_set(
    github_server: Any, context: Any, scope: str, path: str, allowed: bool
) -> None:
    tracker = make(github_server, tool_scope=scope)
    await tracker.call_tool("github_api", {"method": "GET", "path": path}, context)
    assert bool(github_server.calls) is allowed
    await tracker.aclose()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"status": 401, "body": b"{}"}, "check the token"),
        ({"status": 404, "body": b"{}"}, "check tracker.provider.repo"),
        ({"status": 429, "headers": {"Retry-After": "30"}}, None),
        ({"body": b"<html>"}, None),
    ],
)
async def test_at_start_a_refusal_is_a_fault_and_an_outage_a_warning(
    github_server: Any, github_fakes: ModuleType, fault: dict[str, Any], words: str | None
) -> None:
    tracker = make(github_server, state_labels=LABELS)
    github_server.add(1, labels=tuple(LABELS.values()))
    github_server.faults.append(github_fakes.Fault(**fault))
    with capture_logs() as logs:
        sentences = await tracker.faults_at_start()
    assert [str(words) in sentence for sentence in sentences] == ([True] if words else [])
    assert [e["event"] for e in logs] == (
        [] if words else ["Settings could not be checked with the tracker"]
    )
    await tracker.aclose()


async def test_the_points_of_graphql_are_obeyed_and_shown(github_server: Any) -> None:
    clock = Clock()
    tracker = make(github_server, clock=clock, project=3, project_owner="octo", active=("Todo",))
    for number in range(1, 131):
        github_server.add(number)
    github_server.points = 3
    assert len(await tracker.fetch_issues_by_states(["Todo"])) == 130
    limit = tracker.http.rate_limits["graphql"]
    assert (limit.limit, limit.remaining) == (5_000, 1)
    pace = observe_pace(tracker, webhooks=False, wall=github_server.now.timestamp())
    assert pace.allowances == (Allowance("graphql", 5_000, 1, 600.0),)

    # The last point answers the first page; the second is refused with status 200.
    with pytest.raises(TrackerError) as caught:
        await tracker.fetch_issues_by_states(["Todo"])
    assert caught.value.category == "tracker_rate_limited"
    assert caught.value.retry_after_s == 600.0
    asked = github_server.count()
    clock.now += 599
    with pytest.raises(TrackerError, match="left alone"):
        await tracker.fetch_issues_by_ids(ids(1, 2))
    assert github_server.count() == asked
    clock.now += 2
    github_server.points = 5_000
    assert len(await tracker.fetch_issues_by_states(["Todo"])) == 130
    await tracker.aclose()


async def test_an_issue_in_too_many_projects_is_not_taken_for_gone(github_server: Any) -> None:
    tracker = make(github_server, project=3, project_owner="octo", active=("Todo",))
    github_server.add(1)
    github_server.add(2)
    del github_server.statuses[2]
    github_server.crowded |= {1, 2}
    assert numbers(await tracker.fetch_issues_by_ids(ids(1))) == [1]
    with pytest.raises(TrackerError, match="more than 50 projects") as caught:
        await tracker.fetch_issues_by_ids(ids(1, 2))
    assert caught.value.category == "tracker_pagination"
    await tracker.aclose()


@pytest.mark.parametrize(
    "lacks",
    [{"subIssuesSummary"}, {"subIssuesSummary", "fullDatabaseId"}, {"issueDependenciesSummary"}],
)
async def test_an_older_enterprise_server_is_asked_for_what_it_has(
    github_server: Any, tracker: GitHubTracker, lacks: set[str]
) -> None:
    for number in (1, 2):
        github_server.add(number)
    github_server.lacks = lacks
    for _ in range(2):
        found = await tracker.fetch_issues_by_ids(ids(1, 2))
        assert numbers(found) == [1, 2]
    # Refused once; what it lacks is remembered.
    assert len(github_server.calls) == 3


async def test_a_field_that_nobody_lacks_fails_the_read(
    github_server: Any, tracker: GitHubTracker
) -> None:
    for number in (1, 2):
        github_server.add(number)
    github_server.lacks = {"subIssuesSummary", "milestone"}
    with pytest.raises(TrackerError, match="Field 'milestone' doesn't exist"):
        await tracker.fetch_issues_by_ids(ids(1, 2))
    assert len(github_server.calls) == 1
