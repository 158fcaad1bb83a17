from __future__ import annotations

from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import pytest
from structlog.testing import capture_logs

from symphony.errors import TrackerError
from symphony.model.issue import BlockerRef, IssueId
from symphony.trackers.asana import AsanaTracker, headers
from symphony.trackers.asana_settings import AsanaSettings
from symphony.trackers.http import HttpClient

TOKEN = "asana-token"
ACTIVE = ["To Do", "Doing"]


def make(server: Any, *, client: dict[str, Any] | None = None, **settings: Any) -> AsanaTracker:
    given = {
        "api_key": TOKEN,
        "project_gid": "900",
        "active": ("To Do", "Doing"),
        "terminal": ("Done",),
        "completed_state": "Done",
        **settings,
    }
    resolved = AsanaSettings(endpoint=server.endpoint, **given)
    http = HttpClient(
        provider="Asana",
        headers=headers(resolved),
        base_url=server.endpoint,
        retry_wait_s=0.001,
        **(client or {}),
    )
    return AsanaTracker(resolved, client=http)


@pytest.fixture
async def tracker(asana_server: Any) -> AsyncIterator[AsanaTracker]:
    tracker = make(asana_server)
    yield tracker
    await tracker.aclose()
    assert asana_server.problems == []


def test_the_description_that_requests_are_checked_with_is_told(asana_fakes: ModuleType) -> None:
    api, missing = asana_fakes.description()
    if missing:
        pytest.skip(f"requests and answers are not checked: {missing}")
    assert api is not None


async def test_the_description_refuses_what_asana_does_not_have(
    asana_server: Any, asana_fakes: ModuleType
) -> None:
    _, missing = asana_fakes.description()
    if missing:
        pytest.skip(f"requests and answers are not checked: {missing}")
    tracker = make(asana_server, client={"attempts": 1})
    answer = await tracker.http.request("GET", "/projects/900/tasks", query={"limit": 1000})
    assert answer.status == 599
    asana_server.add(1, name=7)
    answer = await tracker.http.request("GET", "/projects/900/tasks", query={"opt_fields": "name"})
    assert answer.status == 599
    action = {"method": "get", "relative_path": "/tasks/7", "options": {"fields": ["gid"]}}
    answer = await tracker.http.post_json(
        "/batch", {"data": {"actions": [action]}}, idempotent=True
    )
    assert answer.status == 599
    assert len(asana_server.problems) == 3
    asana_server.problems.clear()
    await tracker.aclose()


async def test_a_poll_of_active_sections_leaves_completed_tasks_at_asana(
    asana_server: Any, tracker: AsanaTracker
) -> None:
    ids = [asana_server.add(n, section=ACTIVE[n % 2]) for n in range(1, 251)]
    asana_server.add(900, completed=True)
    asana_server.add(901, project="1")
    issues = await tracker.fetch_issues_by_states([" doing ", "To Do", "To Do"])
    assert [issue.id for issue in issues] == ids
    queries = [call.query for call in asana_server.calls]
    assert [query.get("offset") for query in queries] == [None, ["offset-100"], ["offset-200"]]
    assert all(query["completed_since"] == ["now"] for query in queries)
    assert asana_server.calls[0].headers["authorization"] == f"Bearer {TOKEN}"


async def test_a_completed_task_in_an_active_section_is_terminal(
    asana_server: Any, tracker: AsanaTracker
) -> None:
    closed = asana_server.add(1, section="Doing", completed=True)
    done = asana_server.add(2, section="Done")
    assert await tracker.fetch_issues_by_states(ACTIVE) == []
    issues = await tracker.fetch_issues_by_states(["Done"])
    assert [(issue.id, issue.state) for issue in issues] == [(closed, "Done"), (done, "Done")]
    assert not issues[0].dispatchable
    (issue,) = await tracker.fetch_issues_by_ids([IssueId(closed)])
    assert issue.state == "Done"


async def test_many_ids_are_looked_up_in_the_list_and_only_the_rest_one_by_one(
    asana_server: Any, tracker: AsanaTracker
) -> None:
    ids = [IssueId(asana_server.add(n)) for n in range(1, 201)]
    await tracker.fetch_issues_by_states(ACTIVE)
    for n in range(12):
        asana_server.tasks[ids[n]]["completed"] = True
    before = len(asana_server.calls)
    found = await tracker.fetch_issues_by_ids([*reversed(ids), ids[0]])
    assert [issue.id for issue in found] == list(reversed(ids))
    assert [issue.state for issue in found[-12:]] == ["Done"] * 12
    paths = [call.path.removeprefix("/api/1.0") for call in asana_server.calls[before:]]
    assert paths == ["/projects/900/tasks"] * 2 + ["/batch"] * 2


async def test_ids_before_the_first_poll_go_in_batches_of_ten(
    asana_server: Any, tracker: AsanaTracker
) -> None:
    ids = [IssueId(asana_server.add(n)) for n in range(1, 26)]
    other = IssueId(asana_server.add(99, project="1"))
    asked = [*ids, IssueId("77"), other, IssueId("../users/me"), ids[0]]
    found = await tracker.fetch_issues_by_ids(asked)
    assert [issue.id for issue in found] == ids
    sizes = [len(call.json()["data"]["actions"]) for call in asana_server.calls]
    assert sorted(sizes) == [7, 10, 10]


async def test_one_id_is_one_plain_request(asana_server: Any, tracker: AsanaTracker) -> None:
    gid = IssueId(asana_server.add(1))
    assert len(await tracker.fetch_issues_by_ids([gid])) == 1
    assert await tracker.fetch_issues_by_ids([IssueId("77")]) == []
    assert await tracker.fetch_issues_by_ids([IssueId("no-number")]) == []
    # The third asks whether the project can be seen, since none of the asked tasks is there.
    paths = [call.path.rpartition("/1.0")[2] for call in asana_server.calls]
    assert paths == [f"/tasks/{gid}", "/tasks/77", "/projects/900/sections"]


async def test_dependencies_hold_a_task_back_where_that_is_set(asana_server: Any) -> None:
    tracker = make(asana_server, dependencies=True)
    near = asana_server.add(1, section="Doing")
    far = asana_server.add(2, project="1", section="Doing")
    closed = asana_server.add(3, completed=True)
    free = asana_server.add(4, blockers=(closed,))
    held = asana_server.add(5, blockers=(near,))
    held_far = asana_server.add(6, blockers=(far, "77"))
    begun = asana_server.add(7, section="Doing", blockers=(near,))
    issues = {issue.id: issue for issue in await tracker.fetch_issues_by_states(ACTIVE)}
    assert issues[IssueId(held)].blocked_by == (BlockerRef(near, f"ASANA-{near}", "Doing"),)
    assert issues[IssueId(free)].blocked_by[0].state == "Done"
    assert [issues[IssueId(i)].dispatchable for i in (free, held, held_far, begun)] == [
        True,
        False,
        False,
        True,
    ]
    assert [b.state for b in issues[IssueId(held_far)].blocked_by] == ["Doing", None]
    assert len(asana_server.calls) == 2, "the list, and a batch for what is not in it"
    assert asana_server.problems == []
    await tracker.aclose()


async def test_a_custom_field_may_be_the_priority(asana_server: Any) -> None:
    tracker = make(asana_server, priority_field="priority", priorities={"high": 1, "low": 3})
    field = {"gid": "31", "resource_type": "custom_field", "name": "Priority", "type": "enum"}
    option = {"gid": "32", "resource_type": "enum_option", "name": " High "}
    asana_server.add(1, custom_fields=[{**field, "enum_value": option}])
    asana_server.add(2, custom_fields=[{**field, "enum_value": None}])
    asana_server.add(3, custom_fields=[{**field, "enum_value": None, "number_value": 2}])
    issues = await tracker.fetch_issues_by_states(["To Do"])
    assert [issue.priority for issue in issues] == [1, None, 2]
    await tracker.aclose()


async def test_malformed_records_are_dropped_from_polls_with_a_count(
    asana_server: Any, tracker: AsanaTracker
) -> None:
    bad, good = asana_server.add(1, name=" "), asana_server.add(2)
    with capture_logs() as logs:
        issues = await tracker.fetch_issues_by_states(["To Do"])
    assert [issue.id for issue in issues] == [good]
    assert [(e["event"], e["count"]) for e in logs] == [
        ("Dropping malformed Asana issue records", 1)
    ]
    with pytest.raises(TrackerError, match="`name`") as caught:
        await tracker.fetch_issues_by_ids([IssueId(good), IssueId(bad)])
    assert caught.value.code == "asana_unknown_payload"


def without_next(page: Any) -> Any:
    return {"data": page.get("data", [])}


UNKNOWN = ("tracker_response", "asana_unknown_payload")
STATUS = ("tracker_status", "asana_api_status")
FAULTS: list[Any] = [
    ("no json object", {"edit": lambda _: []}, UNKNOWN),
    ("no data", {"edit": lambda _: {}}, UNKNOWN),
    ("data of another type", {"edit": lambda a: {**a, "data": 7}}, UNKNOWN),
    ("null data", {"edit": lambda a: {**a, "data": None}}, UNKNOWN),
    ("html", {"body": b"<html>"}, UNKNOWN),
    ("empty", {"body": b""}, UNKNOWN),
    ("truncated", {"body": b'{"data": [{"gid"'}, UNKNOWN),
    ("deep", {"body": b"[" * 200_000}, UNKNOWN),
    ("403", {"status": 403}, STATUS),
    ("402", {"status": 402}, STATUS),
    ("a redirect", {"status": 301, "headers": {"Location": "/"}}, STATUS),
    ("a limit", {"status": 429}, ("tracker_rate_limited", "asana_api_status")),
]


@pytest.mark.parametrize(("fault", "error"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
@pytest.mark.parametrize("read", ["states", "id", "ids"])
async def test_a_faulty_answer_fails_the_whole_read(
    asana_server: Any,
    tracker: AsanaTracker,
    asana_fakes: ModuleType,
    read: str,
    fault: dict[str, Any],
    error: tuple[str, str],
) -> None:
    ids = [IssueId(asana_server.add(n)) for n in (1, 2)]
    asana_server.faults.append(asana_fakes.Fault(**fault))
    call = (
        tracker.fetch_issues_by_states(ACTIVE)
        if read == "states"
        else tracker.fetch_issues_by_ids(ids[:1] if read == "id" else ids)
    )
    with pytest.raises(TrackerError) as caught:
        await call
    assert (caught.value.category, caught.value.code) == error
    assert TOKEN not in str(caught.value)
    assert len(asana_server.calls) == 1, "such an answer is not asked for again"


@pytest.mark.parametrize(
    ("next_page", "category", "code"),
    [
        ({}, "tracker_pagination", "asana_missing_next_page_offset"),
        ({"offset": " "}, "tracker_pagination", "asana_missing_next_page_offset"),
        ({"offset": "offset-0"}, "tracker_pagination", "asana_repeated_offset"),
        (7, "tracker_response", "asana_unknown_payload"),
        ("absent", "tracker_response", "asana_unknown_payload"),
    ],
)
async def test_a_page_that_does_not_say_what_follows_fails_the_read(
    asana_server: Any,
    tracker: AsanaTracker,
    asana_fakes: ModuleType,
    next_page: Any,
    category: str,
    code: str,
) -> None:
    asana_server.add(1)

    def edit(page: Any) -> Any:
        return without_next(page) if next_page == "absent" else {**page, "next_page": next_page}

    asana_server.faults.extend(asana_fakes.Fault(edit=edit) for _ in range(2))
    with pytest.raises(TrackerError) as caught:
        await tracker.fetch_issues_by_states(ACTIVE)
    assert (caught.value.category, caught.value.code) == (category, code)


async def test_a_task_on_two_pages_is_one(
    asana_server: Any, tracker: AsanaTracker, asana_fakes: ModuleType
) -> None:
    ids = [asana_server.add(n) for n in (1, 2)]
    edit = lambda page: {**page, "data": [*page["data"], page["data"][0]]}  # noqa: E731 - one use
    asana_server.faults.append(asana_fakes.Fault(edit=edit))
    issues = await tracker.fetch_issues_by_states(ACTIVE)
    assert [issue.id for issue in issues] == ids


@pytest.mark.parametrize(
    ("result", "error"),
    [
        ({"status_code": 403, "body": {}}, STATUS),
        ({"status_code": 500, "body": {}}, STATUS),
        ({"status_code": 429, "body": {}}, ("tracker_rate_limited", "asana_api_status")),
        ({"status_code": "200", "body": {}}, UNKNOWN),
        ({"status_code": 200, "body": None}, UNKNOWN),
        ({"status_code": 200, "body": {"data": None}}, UNKNOWN),
        ({"status_code": 200, "body": {"data": {"gid": []}}}, UNKNOWN),
        (7, UNKNOWN),
    ],
)
async def test_a_faulty_action_of_a_batch_fails_the_read(
    asana_server: Any,
    tracker: AsanaTracker,
    asana_fakes: ModuleType,
    result: Any,
    error: tuple[str, str],
) -> None:
    ids = [IssueId(asana_server.add(n)) for n in (1, 2)]
    edit = lambda answer: {"data": [answer["data"][0], result]}  # noqa: E731 - one use
    asana_server.faults.append(asana_fakes.Fault(edit=edit))
    with pytest.raises(TrackerError) as caught:
        await tracker.fetch_issues_by_ids(ids)
    assert (caught.value.category, caught.value.code) == error


async def test_a_task_that_is_gone_is_left_out_of_a_batch(
    asana_server: Any, tracker: AsanaTracker, asana_fakes: ModuleType
) -> None:
    ids = [IssueId(asana_server.add(n)) for n in (1, 2)]
    gone = {"status_code": 410, "body": {}}
    edit = lambda answer: {"data": [answer["data"][0], gone]}  # noqa: E731 - one use
    asana_server.faults.append(asana_fakes.Fault(edit=edit))
    assert [i.id for i in await tracker.fetch_issues_by_ids(ids)] == ids[:1]
    asana_server.faults.append(asana_fakes.Fault(edit=lambda a: {"data": a["data"][:1]}))
    with pytest.raises(TrackerError, match="does not answer each"):
        await tracker.fetch_issues_by_ids(ids)


async def test_passing_faults_of_reads_are_mended_by_another_try(
    asana_server: Any, tracker: AsanaTracker, asana_fakes: ModuleType
) -> None:
    ids = [IssueId(asana_server.add(n)) for n in (1, 2)]
    for fault in ({"status": 503}, {"abort": True}):
        asana_server.faults.append(asana_fakes.Fault(**fault))
    assert len(await tracker.fetch_issues_by_states(ACTIVE)) == 2
    asana_server.faults.append(asana_fakes.Fault(cut=True))
    assert len(await tracker.fetch_issues_by_ids(ids)) == 2
    assert len(asana_server.calls) == 5


async def test_a_server_that_hangs_is_given_up(asana_server: Any, asana_fakes: ModuleType) -> None:
    tracker = make(asana_server, client={"silence_timeout_s": 0.05, "attempts": 1})
    asana_server.faults.append(asana_fakes.Fault(hold=True))
    with pytest.raises(TrackerError, match="silent too long") as caught:
        await tracker.fetch_issues_by_states(ACTIVE)
    assert (caught.value.category, caught.value.code) == ("tracker_request", "asana_api_request")
    await tracker.aclose()


async def test_a_rate_limit_tells_how_long_to_wait(
    asana_server: Any, tracker: AsanaTracker, asana_fakes: ModuleType
) -> None:
    asana_server.faults.append(asana_fakes.Fault(status=429, headers={"Retry-After": "30"}))
    for _ in range(2):
        with pytest.raises(TrackerError) as caught:
            await tracker.fetch_issues_by_states(ACTIVE)
        assert caught.value.category == "tracker_rate_limited"
        assert caught.value.retry_after_s == pytest.approx(30, abs=2)
    assert len(asana_server.calls) == 1, "until then nothing is sent"


async def test_faults_of_token_project_and_sections_are_told_at_start(asana_server: Any) -> None:
    tracker = make(asana_server, active=("To Do", "Doin"), terminal=("Done", "Shipped"))
    (fault,) = await tracker.faults_at_start()
    assert fault.startswith("tracker.active_states")
    assert "did you mean `Doing`?" in fault
    await tracker.aclose()
    for settings, word in (
        ({"api_key": "wrong"}, "tracker.provider.api_key"),
        ({"project_gid": "901"}, "tracker.provider.project_gid"),
    ):
        tracker = make(asana_server, **settings)
        (fault,) = await tracker.faults_at_start()
        assert word in fault
        await tracker.aclose()


async def test_an_asana_that_is_away_at_start_is_no_fault_of_the_settings(
    asana_server: Any, tracker: AsanaTracker, asana_fakes: ModuleType
) -> None:
    asana_server.faults.extend(asana_fakes.Fault(status=500) for _ in range(3))
    with capture_logs() as logs:
        assert await tracker.faults_at_start() == []
    assert "could not be checked" in logs[-1]["event"]


async def test_a_cycle_with_two_hundred_running_tasks_costs_four_requests(
    asana_server: Any, tracker: AsanaTracker
) -> None:
    ids = [IssueId(asana_server.add(n)) for n in range(1, 201)]
    assert len(await tracker.fetch_issues_by_states(ACTIVE)) == 200
    before = len(asana_server.calls)
    assert len(await tracker.fetch_issues_by_ids(ids)) == 200
    assert len(await tracker.fetch_issues_by_states(ACTIVE)) == 200
    assert len(asana_server.calls) - before == 4
