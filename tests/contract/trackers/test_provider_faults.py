"""What every tracker behind HTTP does with a provider that fails, whatever provider it is."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from rest_server import Fault, RestServer
from tracker_worlds import RemoteHarness

from symphony.errors import TrackerError
from symphony.model.issue import Issue
from symphony.trackers.http import MAX_ANSWER_BYTES


async def failure(remote: RemoteHarness, *faults: Fault) -> TrackerError:
    """The error of a state read that meets these faults; the next read must be well again."""
    issue_id = remote.put(1)
    remote.server.faults.extend(faults)
    with pytest.raises(TrackerError) as caught:
        await remote.tracker.fetch_issues_by_states(["Todo"])
    remote.server.faults.clear()
    (issue,) = await remote.tracker.fetch_issues_by_states(["Todo"])
    assert issue.id == issue_id
    return caught.value


@pytest.mark.parametrize("status", [400, 403, 404, 410])
async def test_a_refusal_fails_the_read_with_its_status(remote: RemoteHarness, status: int) -> None:
    error = await failure(remote, Fault(status=status, body=b'{"message": "no"}'))
    assert (error.category, error.status) == ("tracker_status", status)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>busy</html>", b"[", b'"text"', b"7", b"{}", b"\xff\xfe", b"[" * 100_000],
    ids=["empty", "html", "truncated", "text", "number", "object", "no text", "deep"],
)
async def test_an_answer_of_another_shape_fails_the_read(
    remote: RemoteHarness, body: bytes
) -> None:
    error = await failure(remote, Fault(body=body))
    assert error.category in ("tracker_response", "tracker_pagination")


async def test_an_answer_beyond_the_cap_fails_the_read(remote: RemoteHarness) -> None:
    error = await failure(remote, Fault(body=b" " * (MAX_ANSWER_BYTES + 1)))
    assert error.category == "tracker_response"
    assert f"more than {MAX_ANSWER_BYTES} bytes" in error.message


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_to_another_host_is_not_followed(
    remote: RemoteHarness, status: int
) -> None:
    async with RestServer() as elsewhere:
        fault = Fault(status=status, headers={"Location": f"{elsewhere.url}/issues"})
        error = await failure(remote, fault)
        assert elsewhere.calls == []
    assert (error.category, error.status) == ("tracker_status", status)
    assert remote.server.token not in error.message


async def test_a_connection_that_breaks_once_is_tried_again(remote: RemoteHarness) -> None:
    issue_id = remote.put(1)
    remote.server.faults.extend([Fault(abort=True), Fault(status=503)])
    (issue,) = await remote.tracker.fetch_issues_by_states(["Todo"])
    assert issue.id == issue_id


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "90"}], ids=["undated", "dated"])
async def test_a_provider_that_limits_us_is_left_alone(
    remote: RemoteHarness, headers: dict[str, str]
) -> None:
    remote.put(1)
    body = json.dumps({"message": "slow down"}).encode()
    remote.server.faults.extend(Fault(status=429, headers=headers, body=body) for _ in range(20))
    for _ in range(5):
        with pytest.raises(TrackerError) as caught:
            await remote.tracker.fetch_issues_by_states(["Todo"])
        assert caught.value.category == "tracker_rate_limited"
    before = remote.requests()
    with pytest.raises(TrackerError) as caught:
        await remote.tracker.fetch_issues_by_states(["Todo"])
    assert remote.requests() == before
    assert caught.value.category == "tracker_rate_limited"
    assert caught.value.retry_after_s is not None
    assert before <= 5
    if headers:
        assert before == 1
        assert 80 < caught.value.retry_after_s <= 90


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_provider_that_stays_out_of_order_fails_the_read(
    remote: RemoteHarness, status: int
) -> None:
    error = await failure(remote, *(Fault(status=status, body=b"<html>") for _ in range(3)))
    assert (error.category, error.status) == ("tracker_status", status)


@pytest.mark.parametrize(
    ("said", "least_s", "most_s"),
    [
        ("90", 90, 90),
        ("Thu, 01 Jan 2026 12:01:30 GMT", 90, 90),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0, 0),
        ("-5", 0, 0),
        ("99999999999", 3_600, 86_400),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 3_600, 86_400),
        ("inf", 3_600, 86_400),
        ("soon", 0, 600),
        ("nan", 0, 600),
        ("1, 2", 0, 600),
        ("Thu, 99 Foo 2026 25:61:61 GMT", 0, 600),
    ],
)
async def test_a_wait_that_a_provider_asks_for_is_bounded_whatever_it_writes(
    remote: RemoteHarness, said: str, least_s: float, most_s: float
) -> None:
    remote.put(1)
    body = json.dumps({"message": "slow down"}).encode()
    fault = {"status": 429, "headers": {"Retry-After": said}, "body": body}
    remote.server.faults.extend(Fault(**fault) for _ in range(3))
    tracker = remote.in_a_hurry(5.0)
    with pytest.raises(TrackerError) as caught:
        await tracker.fetch_issues_by_states(["Todo"])
    assert caught.value.category == "tracker_rate_limited"
    assert least_s <= (caught.value.retry_after_s or 0) <= most_s
    await tracker.aclose()


@pytest.mark.parametrize("fault", [{"abort": True}, {"cut": True}], ids=["reset", "cut short"])
async def test_a_connection_that_keeps_breaking_fails_the_read(
    remote: RemoteHarness, fault: dict[str, Any]
) -> None:
    error = await failure(remote, *(Fault(**fault) for _ in range(3)))
    assert error.category == "tracker_request"


async def test_a_provider_that_says_nothing_is_given_up(remote: RemoteHarness) -> None:
    remote.put(1)
    tracker = remote.in_a_hurry(0.05)
    remote.server.faults.append(Fault(hold=True))
    with pytest.raises(TrackerError) as caught:
        await tracker.fetch_issues_by_states(["Todo"])
    assert caught.value.category == "tracker_request"
    assert len(await tracker.fetch_issues_by_states(["Todo"])) == 1
    await tracker.aclose()


async def test_a_read_that_is_under_way_when_its_tracker_is_closed_gets_its_answer(
    remote: RemoteHarness,
) -> None:
    issue_id = remote.put(1)
    asked, gate = asyncio.Event(), asyncio.Event()
    remote.server.faults.append(Fault(before=asked.set, gate=gate))
    read = asyncio.create_task(remote.tracker.fetch_issues_by_ids([issue_id]))
    await asked.wait()
    await remote.tracker.aclose()
    gate.set()
    assert [issue.id for issue in await read] == [issue_id]


@pytest.mark.parametrize("status", [301, 403, 410, 500])
async def test_a_refusal_of_a_batch_takes_nobody_for_gone(
    remote: RemoteHarness, status: int
) -> None:
    ids = [remote.put(number) for number in range(1, 4)]
    headers = {"Location": "https://elsewhere.example/"} if status == 301 else {}
    for _ in range(3):
        remote.server.faults.append(Fault(status=status, headers=headers, body=b"{}"))
    with pytest.raises(TrackerError) as caught:
        await remote.tracker.fetch_issues_by_ids(ids)
    assert (caught.value.category, caught.value.status) == ("tracker_status", status)
    remote.server.faults.clear()
    assert len(await remote.tracker.fetch_issues_by_ids(ids)) == 3


async def outcome(read: Awaitable[list[Issue]]) -> list[Issue] | str:
    """The issues of a read, or the category of its failure."""
    try:
        return await read
    except TrackerError as error:
        return error.category


def retyped(value: Any, how: Callable[[Any], Any], depth: int = 0) -> Any:
    """A payload whose lists and outer objects stay, and whose plain values have another type."""
    if isinstance(value, dict) and value:
        return {key: retyped(inner, how, depth + 1) for key, inner in value.items()}
    if isinstance(value, list) and value:
        return [retyped(inner, how, depth + 1) for inner in value]
    return how(value)


WRONG: list[Callable[[Any], Any]] = [
    lambda value: None,
    lambda value: {"value": value},
    lambda value: [value],
    lambda value: str(value) if not isinstance(value, str) else 7,
    lambda value: not value,
    lambda value: "\ud800" if isinstance(value, str) else value,
    lambda value: 1e308 * 10 if isinstance(value, int) else value,
    lambda value: -1 if isinstance(value, int) else value,
]


@pytest.mark.parametrize("how", range(len(WRONG)))
async def test_values_of_other_types_fail_a_read_or_leave_records_out(
    remote: RemoteHarness, how: int
) -> None:
    ids = [remote.put(number) for number in range(1, 4)]
    for read in (
        lambda: remote.tracker.fetch_issues_by_states(["Todo"]),
        lambda: remote.tracker.fetch_issues_by_ids(ids),
    ):
        edit = Fault(edit=lambda payload: retyped(payload, WRONG[how]))
        remote.server.faults.append(edit)
        found = await outcome(read())
        if isinstance(found, str):
            assert found in ("tracker_response", "tracker_pagination")
        else:
            assert all(issue.id.strip() and issue.title.strip() for issue in found)
        remote.server.faults.clear()
        assert [issue.id for issue in await read()] == ids


MANY = 210


@pytest.mark.parametrize("change", ["one leaves", "one comes", "one leaves and one comes"])
async def test_pages_that_shift_while_they_are_read_show_nobody_twice_and_the_next_read_all(
    remote: RemoteHarness, change: str
) -> None:
    first, *others = [remote.put(number) for number in range(11, MANY)]
    ids, came = {first, *others}, []

    def shift() -> None:
        if "leaves" in change:
            remote.remove(11)
        if "comes" in change:
            came.append(remote.put(1))

    # The second request is that for the second page, or the one that goes beside it.
    remote.server.faults.extend([Fault(before=lambda: None), Fault(before=shift)])
    shown = [issue.id for issue in await remote.tracker.fetch_issues_by_states(["Todo"])]
    assert remote.server.faults == type(remote.server.faults)()
    assert len(set(shown)) == len(shown)
    assert len(set(shown) ^ ids) <= 3
    gone = {first} if "leaves" in change else set()
    expected = (ids - gone) | set(came)
    found = [issue.id for issue in await remote.tracker.fetch_issues_by_states(["Todo"])]
    assert len(found) == len(expected)
    assert set(found) == expected


async def test_a_page_that_comes_again_and_again_is_no_list(remote: RemoteHarness) -> None:
    for number in range(1, MANY):
        remote.put(number)
    pages: list[Any] = []

    def stuck(payload: Any) -> Any:
        pages.append(payload)
        return pages[0]

    remote.server.faults.extend(Fault(edit=stuck) for _ in range(4))
    found = await outcome(remote.tracker.fetch_issues_by_states(["Todo"]))
    if isinstance(found, str):
        assert found in ("tracker_pagination", "tracker_response")
    else:
        # Pages that are asked for by their number end where the provider says so.
        assert remote.tracker.kind in ("github", "gitlab")
        assert len({issue.id for issue in found}) == len(found)
    remote.server.faults.clear()
    assert len(await remote.tracker.fetch_issues_by_states(["Todo"])) == MANY - 1


SCOPES = {
    "linear": "tracker.provider.project_slug",
    "github": "tracker.provider.repo",
    "gitlab": "tracker.provider.project_path",
    "jira": "tracker.provider.project_key",
    "asana": "tracker.provider.project_gid",
}


@pytest.mark.parametrize("count", [1, 3])
async def test_a_scope_that_can_t_be_seen_any_more_takes_nobody_for_gone(
    remote: RemoteHarness, count: int
) -> None:
    ids = [remote.put(number) for number in range(1, count + 1)]
    reads = [
        lambda: remote.tracker.fetch_issues_by_states(["Todo"]),
        lambda: remote.tracker.fetch_issues_by_ids(ids),
    ]
    assert [len(await read()) for read in reads] == [count, count]
    remote.server.hidden = True
    for read in (*reads, *reads):
        before = remote.requests()
        with pytest.raises(TrackerError) as caught:
            await read()
        assert SCOPES[remote.tracker.kind] in caught.value.message
        assert remote.requests() - before <= 3
    remote.server.hidden = False
    assert [len(await read()) for read in reads] == [count, count]


async def test_the_last_issue_that_goes_is_gone_all_the_same(remote: RemoteHarness) -> None:
    issue_id = remote.put(1)
    assert len(await remote.tracker.fetch_issues_by_states(["Todo"])) == 1
    remote.remove(1)
    assert await remote.tracker.fetch_issues_by_ids([issue_id]) == []
    assert await remote.tracker.fetch_issues_by_states(["Todo"]) == []


REVOKED: dict[str, dict[str, Any]] = {
    "401": {"status": 401, "body": b'{"message": "Bad credentials"}'},
    "403": {"status": 403, "body": b'{"message": "Forbidden"}'},
    "404": {"status": 404, "body": b'{"message": "Not Found"}'},
    "410": {"status": 410, "body": b'{"message": "Gone"}'},
    "moved": {"status": 301, "headers": {"Location": "https://elsewhere.example/"}},
    "proxy": {"status": 200, "body": b"<html>Please log in</html>"},
    "proxy 407": {"status": 407, "body": b"<html>Please log in</html>"},
    "limit": {"status": 429, "headers": {"Retry-After": "3600"}, "body": b"{}"},
    "outage": {"abort": True},
}
AN_HOUR, EVERY = 3_600, 60


@pytest.mark.parametrize("how", REVOKED)
async def test_an_hour_of_a_fault_costs_few_requests_and_takes_nobody_for_gone(
    remote: RemoteHarness, how: str
) -> None:
    now = 0.0
    tracker = remote.in_a_hurry(5.0, lambda: now)
    ids = [remote.put(number) for number in range(1, 4)]

    async def poll() -> list[list[Issue] | BaseException]:
        return await asyncio.gather(
            tracker.fetch_issues_by_ids(ids),
            tracker.fetch_issues_by_states(["Todo"]),
            return_exceptions=True,
        )

    await poll()
    remote.server.faults.extend(Fault(**REVOKED[how]) for _ in range(3_000))
    before, said = remote.requests(), set()
    for _ in range(AN_HOUR // EVERY):
        for found in await poll():
            assert isinstance(found, TrackerError)
            said.add(re.sub(r"\d+(?= (?:s|failures)\b)", "", found.message))
        now += EVERY
    cost = remote.requests() - before
    assert cost <= {"limit": 3, "outage": 60}.get(how, 3 * AN_HOUR // EVERY)
    # Whoever logs a message once, as the scheduler does, has few to log.
    assert len(said) <= 4
    remote.server.faults.clear()
    now += 600
    assert [len(found) for found in await poll() if isinstance(found, list)] == [3, 3]
    await tracker.aclose()
