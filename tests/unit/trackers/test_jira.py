from __future__ import annotations

from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import pytest
from structlog.testing import capture_logs

from symphony.errors import TrackerError
from symphony.model.issue import IssueId
from symphony.trackers.http import HttpClient
from symphony.trackers.jira import JiraTracker
from symphony.trackers.jira_reads import headers
from symphony.trackers.jira_settings import JiraSettings

TOKEN = "jira-token"


def make(
    server: Any,
    *,
    client: dict[str, Any] | None = None,
    active: tuple[str, ...] = ("To Do", "In Progress"),
    terminal: tuple[str, ...] = ("Done",),
    **settings: Any,
) -> JiraTracker:
    given = {"email": "mia@example.com", "api_token": TOKEN, "project_key": "EX", **settings}
    resolved = JiraSettings(base_url=server.url, **given)
    http = HttpClient(
        provider="Jira",
        headers=headers(resolved),
        base_url=server.url,
        retry_wait_s=0.001,
        **(client or {}),
    )
    return JiraTracker(resolved, active_states=active, terminal_states=terminal, client=http)


@pytest.fixture
async def tracker(jira_server: Any) -> AsyncIterator[JiraTracker]:
    tracker = make(jira_server)
    yield tracker
    await tracker.aclose()


async def test_a_search_asks_for_the_project_and_the_states_as_they_are_spelled(
    jira_server: Any, tracker: JiraTracker
) -> None:
    jira_server.statuses['He said "\\"'] = ("77", 2, "new", "To Do")
    wanted = jira_server.add(1, state='He said "\\"')
    jira_server.add(2, project="OTHER")
    issues = await tracker.fetch_issues_by_states(["To Do", 'He said "\\"', "To Do"])
    assert [issue.id for issue in issues] == [wanted]
    (request,) = jira_server.requests
    assert (request.method, request.path) == ("POST", "/rest/api/3/search/jql")
    assert request.body == {
        "jql": 'project = "EX" AND status IN ("To Do", "He said \\"\\\\\\"")',
        "fields": [
            "summary",
            "description",
            "status",
            "labels",
            "assignee",
            "created",
            "updated",
            "project",
            "issuelinks",
        ],
        "maxResults": 100,
    }
    assert request.headers["authorization"].startswith("Basic ")


async def test_pages_are_followed_by_their_tokens(jira_server: Any, tracker: JiraTracker) -> None:
    ids = [jira_server.add(n) for n in range(1, 251)]
    issues = await tracker.fetch_issues_by_states(["To Do"])
    assert [issue.id for issue in issues] == ids
    tokens = [request.body.get("nextPageToken") for request in jira_server.requests]
    assert tokens == [None, "page-100", "page-200"]


async def test_an_issue_on_two_pages_is_one_and_one_that_moved_on_is_left_out(
    jira_server: Any, tracker: JiraTracker, jira_fakes: ModuleType
) -> None:
    ids = [jira_server.add(n) for n in range(1, 4)]

    def shifted(page: Any) -> Any:
        page["issues"].append(page["issues"][0])
        page["issues"][1]["fields"]["status"]["name"] = "Done"
        return page

    jira_server.faults.append(jira_fakes.Fault(edit=shifted))
    issues = await tracker.fetch_issues_by_states(["To Do"])
    assert [issue.id for issue in issues] == [ids[0], ids[2]]


async def test_ids_go_in_batches_of_a_hundred_and_keep_the_asked_order(
    jira_server: Any, tracker: JiraTracker
) -> None:
    ids = [IssueId(jira_server.add(n)) for n in range(1, 102)]
    other = IssueId(jira_server.add(900, project="OTHER"))
    asked = [*reversed(ids), IssueId("99999"), other, ids[0]]
    found = await tracker.fetch_issues_by_ids(asked)
    assert [issue.id for issue in found] == list(reversed(ids))
    sizes = [len(request.body["issueIdsOrKeys"]) for request in jira_server.requests]
    assert sorted(sizes) == [3, 100]


async def test_an_issue_that_jira_could_not_load_for_now_is_not_gone(
    jira_server: Any, tracker: JiraTracker
) -> None:
    issue_id = jira_server.add(1)
    jira_server.unloadable.add(issue_id)
    with pytest.raises(TrackerError, match="could not be loaded") as caught:
        await tracker.fetch_issues_by_ids([IssueId(issue_id)])
    assert caught.value.code == "jira_unknown_payload"


async def test_what_was_not_asked_for_is_ignored_and_what_names_no_project_fails(
    jira_server: Any, tracker: JiraTracker, jira_fakes: ModuleType
) -> None:
    first, second = (jira_server.add(n) for n in (1, 2))

    def with_stranger(answer: Any) -> Any:
        answer["issues"].append({"id": second, "fields": None})
        return answer

    def without_project(answer: Any) -> Any:
        del answer["issues"][0]["fields"]["project"]
        return answer

    jira_server.faults.append(jira_fakes.Fault(edit=with_stranger))
    assert len(await tracker.fetch_issues_by_ids([IssueId(first)])) == 1
    jira_server.faults.append(jira_fakes.Fault(edit=without_project))
    with pytest.raises(TrackerError, match="names no project"):
        await tracker.fetch_issues_by_ids([IssueId(first)])


async def test_malformed_records_are_dropped_from_polls_with_a_count(
    jira_server: Any, tracker: JiraTracker
) -> None:
    bad = jira_server.add(1, summary=" ")
    good = jira_server.add(2)
    with capture_logs() as logs:
        issues = await tracker.fetch_issues_by_states(["To Do"])
    assert [issue.id for issue in issues] == [good]
    assert [(entry["event"], entry["count"]) for entry in logs] == [
        ("Dropping malformed Jira issue records", 1)
    ]
    with pytest.raises(TrackerError, match="`summary`"):
        await tracker.fetch_issues_by_ids([IssueId(good), IssueId(bad)])


async def test_a_status_that_the_project_does_not_have_does_not_fail_the_others(
    jira_server: Any, tracker: JiraTracker
) -> None:
    wanted = jira_server.add(1)
    with capture_logs() as logs:
        issues = await tracker.fetch_issues_by_states(["To Do", "Shipped"])
    assert [issue.id for issue in issues] == [wanted]
    assert logs[0]["states"] == ["Shipped"]
    before = len(jira_server.requests)
    assert len(await tracker.fetch_issues_by_states(["To Do", "Shipped"])) == 1
    assert len(jira_server.requests) == before + 1, "the unknown state is remembered"
    assert await tracker.fetch_issues_by_states(["Shipped"]) == []


async def test_states_may_be_status_categories(jira_server: Any) -> None:
    jira_server.statuses["Code Review"] = ("9", 4, "indeterminate", "In Bearbeitung")
    tracker = make(jira_server, by_category=True)
    blocker = jira_server.add(1, state="Done")
    waiting = jira_server.add(2, blockers=(blocker,))
    issues = await tracker.fetch_issues_by_states(["to do", "Done", "Nobody's"])
    assert [(issue.id, issue.state) for issue in issues] == [(blocker, "Done"), (waiting, "To Do")]
    assert issues[1].dispatchable
    assert jira_server.requests[0].body["jql"] == (
        'project = "EX" AND statusCategory IN ("To Do", "Done")'
    )
    review = IssueId(jira_server.add(3, state="Code Review"))
    (issue,) = await tracker.fetch_issues_by_ids([review])
    assert issue.state == "In Progress", "the same state whatever language the site speaks"
    assert await tracker.fetch_issues_by_states(["Nobody's"]) == []
    assert await tracker.faults_at_start() == []
    await tracker.aclose()


async def test_a_filter_narrows_both_reads_down(jira_server: Any) -> None:
    first, second = (IssueId(jira_server.add(n)) for n in (1, 2))
    clause = "sprint in openSprints() AND (component = Web)"
    jira_server.clauses[clause] = lambda record: record["id"] == first
    filters = ("sprint in openSprints()", "(component = Web)")
    tracker = make(jira_server, filters=filters)
    issues = await tracker.fetch_issues_by_states(["To Do"])
    assert [issue.id for issue in issues] == [first]
    found = await tracker.fetch_issues_by_ids([second, first])
    assert [issue.id for issue in found] == [first]
    jira_server.clauses.clear()
    with pytest.raises(TrackerError, match="filters could not be matched"):
        await tracker.fetch_issues_by_ids([first])
    await tracker.aclose()


def without_is_last(page: Any) -> Any:
    return {key: value for key, value in page.items() if key != "isLast"}


def repeated(page: Any) -> Any:
    return {**page, "isLast": False, "nextPageToken": "page-0"}


def without_token(page: Any) -> Any:
    return {"issues": page["issues"], "isLast": False}


LOGIN = {"X-Seraph-LoginReason": "AUTHENTICATED_FAILED"}
FAULTS: list[Any] = [
    ("no json object", {"edit": lambda _: []}, "tracker_response", "jira_unknown_payload"),
    ("null issues", {"edit": lambda a: {**a, "issues": None}}, "tracker_response", None),
    ("a number", {"edit": lambda a: {**a, "issues": 7}}, "tracker_response", None),
    ("html", {"body": b"<html>login</html>"}, "tracker_response", "jira_unknown_payload"),
    ("empty", {"body": b""}, "tracker_response", "jira_unknown_payload"),
    ("truncated", {"body": b'{"issues": [{"id"'}, "tracker_response", "jira_unknown_payload"),
    ("deep", {"body": b"[" * 200_000}, "tracker_response", "jira_unknown_payload"),
    ("404", {"status": 404}, "tracker_status", "jira_api_status"),
    ("410", {"status": 410}, "tracker_status", "jira_api_status"),
    ("403", {"status": 403}, "tracker_status", "jira_api_status"),
    ("a redirect", {"status": 302, "headers": {"Location": "/"}}, "tracker_status", None),
    ("a login that failed", {"headers": LOGIN}, "tracker_status", "jira_api_status"),
    ("a limit", {"status": 429}, "tracker_rate_limited", "jira_api_status"),
]


@pytest.mark.parametrize(
    ("fault", "category", "code"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS]
)
@pytest.mark.parametrize("read", ["states", "ids"])
async def test_a_faulty_answer_fails_the_whole_read(
    jira_server: Any,
    tracker: JiraTracker,
    jira_fakes: ModuleType,
    read: str,
    fault: dict[str, Any],
    category: str,
    code: str | None,
) -> None:
    issue_id = IssueId(jira_server.add(1))
    jira_server.faults.append(jira_fakes.Fault(**fault))
    call = (
        tracker.fetch_issues_by_ids([issue_id])
        if read == "ids"
        else tracker.fetch_issues_by_states(["To Do"])
    )
    with pytest.raises(TrackerError) as caught:
        await call
    assert caught.value.category == category
    assert code is None or caught.value.code == code
    assert TOKEN not in str(caught.value)
    assert len(jira_server.requests) == 1, "such an answer is not asked for again"


@pytest.mark.parametrize(
    ("edit", "category", "code"),
    [
        (without_is_last, "tracker_response", "jira_unknown_payload"),
        (without_token, "tracker_pagination", "jira_missing_next_page_token"),
        (repeated, "tracker_pagination", "jira_repeated_page_token"),
    ],
)
async def test_a_page_that_does_not_say_what_follows_fails_the_read(
    jira_server: Any,
    tracker: JiraTracker,
    jira_fakes: ModuleType,
    edit: Any,
    category: str,
    code: str,
) -> None:
    jira_server.add(1)
    jira_server.faults.append(jira_fakes.Fault(edit=edit))
    # The token of `repeated` means the first page to the fake, which is then sent again.
    jira_server.faults.append(jira_fakes.Fault(edit=edit))
    with pytest.raises(TrackerError) as caught:
        await tracker.fetch_issues_by_states(["To Do"])
    assert (caught.value.category, caught.value.code) == (category, code)


async def test_passing_faults_of_reads_are_mended_by_another_try(
    jira_server: Any, tracker: JiraTracker, jira_fakes: ModuleType
) -> None:
    jira_server.add(1)
    for fault in ({"status": 503}, {"abort": True}):
        jira_server.faults.append(jira_fakes.Fault(**fault))
    assert len(await tracker.fetch_issues_by_states(["To Do"])) == 1
    jira_server.faults.append(jira_fakes.Fault(cut=True))
    assert len(await tracker.fetch_issues_by_states(["To Do"])) == 1
    assert len(jira_server.requests) == 5


async def test_faults_that_last_are_errors_after_a_few_tries(
    jira_server: Any, tracker: JiraTracker, jira_fakes: ModuleType
) -> None:
    jira_server.faults.extend(jira_fakes.Fault(status=500, body=b"oops") for _ in range(9))
    with pytest.raises(TrackerError, match="HTTP 500: oops") as caught:
        await tracker.fetch_issues_by_states(["To Do"])
    assert (caught.value.category, caught.value.code) == ("tracker_status", "jira_api_status")
    assert len(jira_server.requests) == 3


async def test_a_server_that_hangs_is_given_up(jira_server: Any, jira_fakes: ModuleType) -> None:
    tracker = make(jira_server, client={"silence_timeout_s": 0.05, "attempts": 1})
    jira_server.faults.append(jira_fakes.Fault(hold=True))
    with pytest.raises(TrackerError, match="silent too long") as caught:
        await tracker.fetch_issues_by_states(["To Do"])
    assert (caught.value.category, caught.value.code) == ("tracker_request", "jira_api_request")
    await tracker.aclose()


async def test_a_rate_limit_tells_how_long_to_wait(
    jira_server: Any, tracker: JiraTracker, jira_fakes: ModuleType
) -> None:
    limits = {"Retry-After": "77", "X-RateLimit-Remaining": "0", "X-RateLimit-Limit": "350"}
    jira_server.faults.append(jira_fakes.Fault(status=429, headers=limits))
    for sent in (1, 1):
        with pytest.raises(TrackerError) as caught:
            await tracker.fetch_issues_by_states(["To Do"])
        assert caught.value.category == "tracker_rate_limited"
        assert caught.value.retry_after_s == pytest.approx(77, abs=2)
        assert len(jira_server.requests) == sent, "until then nothing is sent"
    assert tracker.http.rate_limit is not None
    assert tracker.http.rate_limit.remaining == 0


async def test_a_fault_of_one_batch_gives_nothing_partial(
    jira_server: Any, tracker: JiraTracker, jira_fakes: ModuleType
) -> None:
    ids = [IssueId(jira_server.add(n)) for n in range(1, 150)]
    jira_server.faults.append(jira_fakes.Fault(status=400))
    with pytest.raises(TrackerError):
        await tracker.fetch_issues_by_ids(ids)


async def test_a_refused_token_is_named_by_its_keys(jira_server: Any) -> None:
    tracker = make(jira_server, api_token="wrong")
    with pytest.raises(TrackerError, match=r"tracker\.provider\.api_token") as caught:
        await tracker.fetch_issues_by_states(["To Do"])
    assert caught.value.status == 401
    assert "wrong" not in str(caught.value)
    (fault,) = await tracker.faults_at_start()
    assert "tracker.provider.email" in fault
    await tracker.aclose()


async def test_states_that_can_t_be_meant_are_faults_at_start(jira_server: Any) -> None:
    jira_server.add(1)
    tracker = make(jira_server, active=("to do", "In Progres"), terminal=("Donee", "Shipped"))
    faults = await tracker.faults_at_start()
    assert [fault.partition(":")[0] for fault in faults] == [
        "tracker.active_states",
        "tracker.terminal_states",
    ]
    assert "did you mean `In Progress`?" in faults[0]
    assert "did you mean `Done`?" in faults[1]
    await tracker.aclose()
    tracker = make(jira_server, active=("Shipped",))
    (fault,) = await tracker.faults_at_start()
    assert "it has `To Do`, `In Progress`, `Done`" in fault
    await tracker.aclose()
    tracker = make(jira_server, project_key="NONE")
    (fault,) = await tracker.faults_at_start()
    assert "tracker.provider.project_key" in fault
    await tracker.aclose()


async def test_a_jira_that_is_away_at_start_is_no_fault_of_the_settings(
    jira_server: Any, tracker: JiraTracker, jira_fakes: ModuleType
) -> None:
    jira_server.faults.extend(jira_fakes.Fault(status=500) for _ in range(3))
    with capture_logs() as logs:
        assert await tracker.faults_at_start() == []
    assert "could not be checked" in logs[-1]["event"]


async def test_a_cycle_with_two_hundred_running_issues_costs_four_requests(
    jira_server: Any, tracker: JiraTracker
) -> None:
    ids = [IssueId(jira_server.add(n)) for n in range(1, 201)]
    assert len(await tracker.fetch_issues_by_ids(ids)) == 200
    assert len(await tracker.fetch_issues_by_states(["To Do", "In Progress"])) == 200
    assert len(jira_server.calls) == 4


async def test_a_project_that_was_given_another_key_is_told_and_stops_nobody(
    jira_server: Any, tracker: JiraTracker
) -> None:
    issue_id = IssueId(jira_server.add(1))
    assert len(await tracker.fetch_issues_by_ids([issue_id])) == 1
    jira_server.projects["EX"] = "NEW"
    jira_server.issues[issue_id]["fields"]["project"]["key"] = "NEW"
    jira_server.issues[issue_id]["key"] = "NEW-1"
    for read in (
        tracker.fetch_issues_by_ids([issue_id]),
        tracker.fetch_issues_by_states(["To Do"]),
    ):
        with pytest.raises(TrackerError, match="`EX` is called `NEW` now; set that key"):
            await read
