"""What every tracker behind HTTP does with a provider that fails, whatever provider it is."""

from __future__ import annotations

import json

import pytest
from rest_server import Fault, RestServer
from tracker_worlds import RemoteHarness

from symphony.errors import TrackerError
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
