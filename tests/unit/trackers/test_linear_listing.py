"""Polls by changes return what a whole read would, for any history of a board."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import linear_server as linear_module
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from symphony.errors import TrackerError
from symphony.model.issue import Issue, IssueId
from symphony.trackers.http import HttpClient
from symphony.trackers.linear import LinearTracker
from symphony.trackers.linear_settings import SUB_ISSUES, LinearSettings

STATES = ["Todo", "In Progress"]
ALL_STATES = [*STATES, "In Review", "Done"]
CHANGES = "SymphonyLinearChanges"
PERIOD = 300.0
FREE = "independent"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make(
    server: Any,
    *,
    clock: Clock | None = None,
    whole_every: int = 1_000,
    sub_issues: str = "independent",
) -> LinearTracker:
    resolved = LinearSettings(
        endpoint=server.endpoint,
        api_key=server.token,
        project_slug="demo",
        team="demo",
        assignee=None,
        secret_environment_names=("LINEAR_API_KEY",),
        sub_issues=sub_issues,
    )
    headers = {"Authorization": server.token}
    client = HttpClient(provider="Linear", headers=headers, retry_wait_s=0.001)
    return LinearTracker(
        resolved,
        terminal_states=["Done"],
        active_states=STATES,
        client=client,
        clock=clock or Clock(),
        whole_every=whole_every,
    )


@pytest.fixture
async def tracker(linear_server: Any) -> AsyncIterator[LinearTracker]:
    tracker = make(linear_server)
    yield tracker
    await tracker.aclose()


@pytest.fixture
async def oracle(linear_server: Any) -> AsyncIterator[LinearTracker]:
    """Reads everything each time."""
    oracle = make(linear_server, whole_every=1)
    yield oracle
    await oracle.aclose()


async def cycle(tracker: LinearTracker, ids: list[IssueId]) -> tuple[list[Issue], list[Issue]]:
    """Both reads of a poll, as the scheduler begins them."""
    refreshed, candidates = await asyncio.gather(
        tracker.fetch_issues_by_ids(ids), tracker.fetch_issues_by_states(STATES)
    )
    return refreshed, candidates


def operations(server: Any, since: int = 0) -> list[str]:
    return [request.operation for request in server.requests[since:]]


def happen(server: Any, event: tuple[str, int, int]) -> None:
    """One change of the board; all are such that Linear moves ``updatedAt``, or shows a mark."""
    kind, which, choice = event
    ids = list(server.issues)
    if kind == "add" or not ids:
        number = len(server.calls) * 1_000 + len(ids) + choice * 100
        if not any(i.endswith(f"{number:012d}") for i in ids):
            stamp = server.now.isoformat().replace("+00:00", "Z")
            server.add(number, state=ALL_STATES[choice % 4], createdAt=stamp, updatedAt=stamp)
        return
    issue_id = ids[which % len(ids)]
    issue = server.issues[issue_id]
    match kind:
        case "state":
            server.change(issue_id, state=ALL_STATES[choice % 4])
        case "title":
            server.change(issue_id, title=f"Title {choice}")
        case "description":
            # Twice within the same instant is not told apart by any mark; see the test below.
            server.pass_time(0.001)
            server.change(issue_id, description=f"Text {choice}")
        case "label":
            server.change(issue_id, labels=sorted({*issue["labels"]} ^ {f"label-{choice % 3}"}))
        case "assign":
            server.change(issue_id, assignee=[None, "user-1", "user-2"][choice % 3])
        case "delete":
            del server.issues[issue_id]
        case "archive":
            # Archiving leaves ``updatedAt`` alone here: the marks show it all the same.
            issue["archived"] = not issue.get("archived")
            if issue["parent"] in server.issues and not issue["archived"]:
                # That it is back shows in its parent, as a sub-issue that was made.
                server.pass_time(0.001)
                server.change(issue["parent"], family=(issue_id, len(server.calls), which))
        case "project":
            server.change(issue_id, project=["demo", "other", None][choice % 3])
        case "parent":
            parent = ids[choice % len(ids)]
            server.pass_time(0.001)
            moved = None if parent in (issue["parent"], issue_id) else parent
            for changed in {issue_id, issue["parent"], parent} - {None}:
                if changed in server.issues:
                    # Both ends show that they changed, as the test below does not take for granted.
                    server.change(changed, family=(issue_id, moved))
            server.change(issue_id, parent=moved)
        case "relation":
            other = ids[choice % len(ids)]
            relations = [r for r in issue["relations"] if r[1] != other]
            if len(relations) == len(issue["relations"]):
                relations.append(("blocks" if choice % 4 else "related", other))
            server.pass_time(0.001)
            server.change(issue_id, relations=relations)


KINDS = [
    *("add", "state", "state", "title", "description", "label", "assign"),
    *("delete", "archive", "project", "relation", "parent"),
]
EVENTS = st.tuples(st.sampled_from(KINDS), st.integers(0, 30), st.integers(0, 11))


@given(
    st.integers(0, 12),
    st.lists(st.lists(EVENTS, max_size=5), min_size=1, max_size=6),
    st.lists(st.integers(0, 30), max_size=3),
    st.booleans(),
    st.sampled_from(SUB_ISSUES),
)
@example(3, [[("relation", 0, 1)], [("state", 1, 3)], [("delete", 1, 0)]], [0, 1], True, FREE)
@example(3, [[("relation", 0, 1)], [], [("delete", 1, 0)]], [], False, FREE)
@example(3, [[("relation", 0, 1)], [("project", 1, 1)], [("archive", 1, 0)]], [], True, FREE)
@example(
    3, [[("archive", 0, 0)], [("archive", 0, 0), ("state", 0, 3)], [("state", 0, 0)]], [2], 1, FREE
)
@example(4, [[("parent", 0, 3)], [("state", 3, 2)], [("state", 3, 0)]], [], True, "with_parent")
@example(4, [[("parent", 3, 0)], [("state", 3, 3)], [("parent", 3, 0)]], [], True, "before_parent")
@example(
    4, [[("parent", 3, 0)], [("archive", 3, 0)], [("archive", 3, 0)]], [], True, "before_parent"
)
@settings(max_examples=40, deadline=None)
async def test_a_poll_by_changes_returns_what_a_whole_read_would(
    count: int,
    history: list[list[tuple[str, int, int]]],
    running: list[int],
    time_passes: bool,
    sub_issues: str,
) -> None:
    async with linear_module.LinearServer() as server:
        for number in range(1, count + 1):
            server.add(number, state=ALL_STATES[number % 4])
        tracker = make(server, sub_issues=sub_issues)
        oracle = make(server, whole_every=1, sub_issues=sub_issues)
        await tracker.fetch_issues_by_states(STATES)
        for events in history:
            for event in events:
                happen(server, event)
            if time_passes:
                server.pass_time(30)
            ids = [IssueId(i) for n, i in enumerate(server.issues) if n in running]
            refreshed, candidates = await cycle(tracker, ids)
            assert candidates == await oracle.fetch_issues_by_states(STATES)
            assert refreshed == await oracle.fetch_issues_by_ids(ids)
        assert operations(server).count(CHANGES) == len(history), "every poll was one by changes"
        await tracker.aclose()
        await oracle.aclose()


@given(st.lists(EVENTS, min_size=1, max_size=3), st.lists(EVENTS, min_size=1, max_size=3))
@example([("title", 0, 1), ("title", 1, 1)], [("state", 0, 3), ("delete", 1, 0)])
@settings(max_examples=40, deadline=None)
async def test_what_happens_between_the_requests_of_a_poll_shows_in_the_next(
    before: list[tuple[str, int, int]], between: list[tuple[str, int, int]]
) -> None:
    def happens() -> None:
        server.pass_time(1)
        for event in between:
            happen(server, event)

    async with linear_module.LinearServer() as server:
        for number in range(1, 9):
            server.add(number, state=ALL_STATES[number % 2])
        tracker, oracle = make(server), make(server, whole_every=1)
        await tracker.fetch_issues_by_states(STATES)
        server.pass_time(30)
        for event in before:
            happen(server, event)
        server.faults.append(linear_module.Fault(only="SymphonyLinearIssuesById", before=happens))
        first = {issue.id for issue in await oracle.fetch_issues_by_states(STATES)}
        issues = await tracker.fetch_issues_by_states(STATES)
        listed = {issue.id for issue in issues}
        assert {issue.state for issue in issues} <= set(STATES)
        last = {issue.id for issue in await oracle.fetch_issues_by_states(STATES)}
        assert first & last <= listed <= first | last
        server.faults.clear()
        server.pass_time(30)
        found = await tracker.fetch_issues_by_states(STATES)
        assert found == await oracle.fetch_issues_by_states(STATES)
        await tracker.aclose()
        await oracle.aclose()


async def test_a_quiet_poll_is_one_request_with_its_reconcile_read(
    linear_server: Any, tracker: LinearTracker
) -> None:
    ids = [IssueId(linear_server.add(n)) for n in range(1, 121)]
    await tracker.fetch_issues_by_states(STATES)
    before = len(linear_server.calls)
    refreshed, candidates = await cycle(tracker, ids[:10])
    assert [issue.id for issue in candidates] == ids
    assert [issue.id for issue in refreshed] == ids[:10]
    assert operations(linear_server, before) == [CHANGES]


async def test_long_lists_of_marks_ids_and_blockers_are_read_to_their_end(
    linear_server: Any, tracker: LinearTracker, oracle: LinearTracker
) -> None:
    blockers = [linear_server.add(n, state="Done", project="other") for n in range(1, 302)]
    for n in range(1, 302):
        linear_server.add(1_000 + n, blockers=(blockers[n - 1],))
    ids = [issue.id for issue in await tracker.fetch_issues_by_states(STATES)]
    linear_server.pass_time(30)
    linear_server.change(blockers[300 - 1], state="Todo")
    linear_server.change(blockers[0], state="Todo")
    refreshed, candidates = await cycle(tracker, ids[20:90])
    assert candidates == await oracle.fetch_issues_by_states(STATES)
    assert [issue.id for issue in refreshed] == ids[20:90]
    assert [n for n, issue in enumerate(candidates) if not issue.dispatchable] == [0, 299]
    assert operations(linear_server).count(CHANGES) == 1


async def test_a_read_by_id_without_a_poll_goes_alone_and_is_never_remembered(
    linear_server: Any, tracker: LinearTracker
) -> None:
    issue_id = IssueId(linear_server.add(1))
    blocker = linear_server.add(2, state="In Progress")
    await tracker.fetch_issues_by_states(STATES)
    # No mark shows these two; whoever asks for the issue itself sees them.
    linear_server.issues[issue_id]["relations"] = [("blocks", blocker)]
    linear_server.issues[issue_id]["labels"] = ["old"]
    linear_server.label_names["old"] = "new"
    before = len(linear_server.calls)
    (issue,) = await tracker.fetch_issues_by_ids([issue_id])
    assert not issue.dispatchable
    assert issue.labels == ("new",)
    assert operations(linear_server, before) == ["SymphonyLinearIssuesById"]


@pytest.mark.parametrize("by_time", [False, True])
async def test_what_no_mark_shows_comes_with_the_next_whole_read(
    linear_server: Any, by_time: bool
) -> None:
    issue_id = linear_server.add(1, labels=("old",))
    blocker = linear_server.add(2, state="In Progress")
    clock = Clock()
    tracker = make(linear_server, clock=clock, whole_every=1_000 if by_time else 3)
    await tracker.fetch_issues_by_states(STATES)
    linear_server.issues[issue_id]["relations"] = [("blocks", blocker)]
    linear_server.label_names["old"] = "new"
    for _ in range(2):
        (issue, _other) = await tracker.fetch_issues_by_states(STATES)
        assert issue.dispatchable
        assert issue.labels == ("old",)
    clock.now += PERIOD if by_time else 0.0
    (issue, _other) = await tracker.fetch_issues_by_states(STATES)
    assert not issue.dispatchable
    assert issue.labels == ("new",)
    await tracker.aclose()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("state", "In Progress"),
        ("state", "Done"),
        ("title", "Another"),
        ("priority", 1),
        ("identifier", "OPS-1"),
        ("branchName", "ops/1"),
        ("assignee", "user-2"),
        ("labels", ["new"]),
        ("team", "OPS"),
        ("archived", True),
        ("project", "other"),
    ],
)
async def test_a_mark_shows_what_leaves_no_trace_in_the_time_of_the_last_update(
    linear_server: Any, tracker: LinearTracker, oracle: LinearTracker, field: str, value: Any
) -> None:
    issue_id = linear_server.add(1)
    linear_server.add(2)
    await tracker.fetch_issues_by_states(STATES)
    before = await oracle.fetch_issues_by_states(STATES)
    linear_server.issues[issue_id][field] = value
    found = await tracker.fetch_issues_by_states(STATES)
    assert found == await oracle.fetch_issues_by_states(STATES) != before
    assert CHANGES in operations(linear_server)


async def test_a_second_change_within_the_same_instant_shows_one_poll_later(
    linear_server: Any, tracker: LinearTracker
) -> None:
    issue_id = linear_server.add(1)
    await tracker.fetch_issues_by_states(STATES)
    linear_server.change(issue_id, description="first")
    (issue,) = await tracker.fetch_issues_by_states(STATES)
    assert issue.description == "first"
    linear_server.change(issue_id, description="second")
    before = len(linear_server.calls)
    (issue,) = await tracker.fetch_issues_by_states(STATES)
    assert issue.description == "second"
    assert operations(linear_server, before) == [CHANGES]


async def test_after_a_failed_poll_everything_is_read(
    linear_server: Any, tracker: LinearTracker, fakes: ModuleType
) -> None:
    issue_id = IssueId(linear_server.add(1))
    await tracker.fetch_issues_by_states(STATES)
    linear_server.faults.append(fakes.Fault(only=CHANGES, status=403, body=b"{}"))
    poll = asyncio.create_task(tracker.fetch_issues_by_states(STATES))
    (issue,) = await tracker.fetch_issues_by_ids([issue_id])
    assert issue.id == issue_id, "the read by id goes alone when the poll fails"
    with pytest.raises(TrackerError, match="HTTP 403"):
        await poll
    before = len(linear_server.calls)
    assert len(await tracker.fetch_issues_by_states(STATES)) == 1
    assert operations(linear_server, before) == ["SymphonyLinearPoll"]


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 400, "body": b'{"errors":[{"message":"Query too complex"}]}'},
        {"edit": lambda answer: {**answer, "errors": [{"message": "partial outage"}]}},
        {"edit": lambda _: {"data": {"marks": {"nodes": [{"id": None}], "pageInfo": {}}}}},
        {"edit": lambda _: {"data": {"marks": None}}},
    ],
    ids=["refused", "errors", "an issue without an id", "no marks"],
)
async def test_where_changes_are_not_answered_everything_is_read_at_once(
    linear_server: Any,
    tracker: LinearTracker,
    oracle: LinearTracker,
    fakes: ModuleType,
    fault: dict[str, Any],
) -> None:
    linear_server.add(1)
    await tracker.fetch_issues_by_states(STATES)
    linear_server.add(2)
    linear_server.faults.append(fakes.Fault(only=CHANGES, **fault))
    before = len(linear_server.calls)
    found = await tracker.fetch_issues_by_states(STATES)
    assert found == await oracle.fetch_issues_by_states(STATES)
    assert operations(linear_server, before)[:2] == [CHANGES, "SymphonyLinearPoll"]


async def test_changes_that_are_refused_twice_are_not_asked_for_again_for_a_while(
    linear_server: Any, fakes: ModuleType
) -> None:
    clock = Clock()
    tracker = make(linear_server, clock=clock, whole_every=1_000)
    refused = {"status": 400, "body": b'{"errors":[{"message":"Query too complex"}]}'}
    linear_server.faults += [fakes.Fault(only=CHANGES, **refused) for _ in range(3)]
    linear_server.add(1)
    await tracker.fetch_issues_by_states(STATES)
    for asks_for_changes in (True, True, False, False):
        before = len(linear_server.calls)
        await tracker.fetch_issues_by_states(STATES)
        assert (CHANGES in operations(linear_server, before)) is asks_for_changes
    clock.now += 2 * PERIOD
    await tracker.fetch_issues_by_states(STATES)  # whole, for its age
    before = len(linear_server.calls)
    await tracker.fetch_issues_by_states(STATES)
    assert CHANGES in operations(linear_server, before)
    await tracker.aclose()


async def test_a_poll_that_is_cancelled_lets_its_companion_go_alone(
    linear_server: Any, tracker: LinearTracker, fakes: ModuleType
) -> None:
    issue_id = IssueId(linear_server.add(1))
    await tracker.fetch_issues_by_states(STATES)
    arrived = asyncio.Event()
    fault = fakes.Fault(only=CHANGES, before=arrived.set, gate=asyncio.Event())
    linear_server.faults.append(fault)
    poll = asyncio.create_task(tracker.fetch_issues_by_states(STATES))
    read = asyncio.create_task(tracker.fetch_issues_by_ids([issue_id]))
    await arrived.wait()
    poll.cancel()
    (issue,) = await read
    assert issue.id == issue_id
    with pytest.raises(asyncio.CancelledError):
        await poll
    assert len(await tracker.fetch_issues_by_states(STATES)) == 1


async def test_other_states_are_read_whole_and_finished_ones_are_not_remembered(
    linear_server: Any, tracker: LinearTracker
) -> None:
    linear_server.add(1)
    linear_server.add(2, state="Done")
    await tracker.fetch_issues_by_states(STATES)
    assert len(await tracker.fetch_issues_by_states(["Done"])) == 1
    assert len(await tracker.fetch_issues_by_states(STATES)) == 1
    assert len(await tracker.fetch_issues_by_states(["Todo"])) == 1
    poll = "SymphonyLinearPoll"
    assert operations(linear_server) == [poll, poll, CHANGES, poll]
