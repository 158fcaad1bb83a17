"""What the HTTP layer does with requests of REST trackers, against a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import pytest

from symphony.errors import TrackerError
from symphony.trackers.http import HttpClient, RateLimit, status_error

LIST = "/repos/octo/demo/issues"
QUERY = {"state": "open", "per_page": 100, "page": 1}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def http(github_server: Any, clock: Clock) -> AsyncIterator[HttpClient]:
    http = HttpClient(
        provider="GitHub",
        headers={"Authorization": "Bearer ghp_test"},
        base_url=github_server.url + "/",
        retry_wait_s=0.001,
        clock=clock,
        wall=lambda: github_server.now.timestamp(),
    )
    yield http
    await http.aclose()


async def test_a_304_is_the_kept_answer_and_counted_apart(
    github_server: Any, http: HttpClient
) -> None:
    github_server.add(1)
    first = await http.request("GET", LIST, query=QUERY, conditional=True)
    github_server.pass_time(60)
    second = await http.request("GET", LIST, query=QUERY, conditional=True)
    assert (first.not_modified, second.not_modified, second.status) == (False, True, 200)
    assert second.json() == first.json()
    assert second.headers["date"] != first.headers["date"]
    assert (http.requests, http.not_modified) == (2, 1)
    assert http.answers == {"2xx": 1, "304": 1}
    github_server.change(1, title="Changed")
    third = await http.request("GET", LIST, query=QUERY, conditional=True)
    assert third.json()[0]["title"] == "Changed"
    plain = await http.request("GET", LIST, query=QUERY)
    assert not plain.not_modified
    assert "if-none-match" not in github_server.calls[-1].headers


async def test_a_redirect_is_followed_on_the_same_host_only(
    github_server: Any, github_fakes: ModuleType, http: HttpClient
) -> None:
    github_server.add(1)
    github_server.renamed_to = "octo/renamed"
    answer = await http.request("GET", LIST, query=QUERY, redirects="same_host")
    assert (answer.status, len(answer.json())) == (200, 1)
    given = await http.request("GET", LIST, redirects="give")
    assert given.status == 301
    port = github_server.port
    for location in (
        "https://evil.example/",
        f"http://localhost:{port}/repos",
        f"https://127.0.0.1:{port}/repos",
        f"http://127.0.0.1:{port + 1}/repos",
        f"http://user@127.0.0.1:{port}/repos",
        "//evil.example/repos",
        "http://[bad/",
        None,
    ):
        headers = {"Location": location} if location else {}
        github_server.faults.append(github_fakes.Fault(status=302, headers=headers))
        before = github_server.count()
        with pytest.raises(TrackerError, match="redirect") as caught:
            await http.request("GET", "/user", redirects="same_host")
        assert (caught.value.category, caught.value.status) == ("tracker_status", 302)
        assert github_server.count() == before + 1
    with pytest.raises(TrackerError, match="redirect"):
        await http.request("POST", LIST, json={}, redirects="same_host")


async def test_redirects_in_a_circle_come_to_an_end(
    github_server: Any, github_fakes: ModuleType, http: HttpClient
) -> None:
    fault = {"status": 302, "headers": {"Location": "/user"}}
    github_server.faults.extend(github_fakes.Fault(**fault) for _ in range(9))
    with pytest.raises(TrackerError, match="redirect"):
        await http.request("GET", "/user", redirects="same_host")
    assert github_server.count() == 4
    github_server.faults.clear()


async def test_failures_in_a_row_stop_the_calls_until_a_canary_succeeds(
    github_server: Any, github_fakes: ModuleType, http: HttpClient, clock: Clock
) -> None:
    github_server.add(1)
    github_server.faults.extend(github_fakes.Fault(status=500) for _ in range(15))
    for _ in range(5):
        assert (await http.request("GET", LIST)).status == 500
    assert github_server.count() == 15
    with pytest.raises(TrackerError, match="5 failures in a row") as caught:
        await http.request("GET", LIST)
    assert caught.value.category == "tracker_status"
    assert caught.value.retry_after_s == 15.0
    assert github_server.count() == 15
    clock.now += 15
    assert (await http.request("GET", LIST)).status == 200
    assert http.breaker.state == "closed"


async def test_who_calls_beside_a_canary_shares_its_fate(
    github_server: Any, github_fakes: ModuleType, http: HttpClient, clock: Clock
) -> None:
    async def calls() -> tuple[list[Any], int]:
        http.hold(10, "used up")
        clock.now += 10
        before = github_server.count()
        calls = [http.request("GET", LIST) for _ in range(3)]
        found = await asyncio.gather(*calls, return_exceptions=True)
        return found, github_server.count() - before

    github_server.add(1)
    found, sent = await calls()
    assert ([answer.status for answer in found], sent) == ([200] * 3, 3)
    github_server.faults.extend(github_fakes.Fault(status=500) for _ in range(9))
    found, sent = await calls()
    assert sent == 3, "the tries of the canary"
    assert sum(isinstance(one, TrackerError) for one in found) == 2


async def test_a_cancelled_canary_lets_the_next_one_go(
    github_server: Any, github_fakes: ModuleType, http: HttpClient, clock: Clock
) -> None:
    http.hold(10, "used up")
    clock.now += 10
    held = asyncio.Event()
    github_server.faults.append(github_fakes.Fault(hold=True, before=held.set))
    canary = asyncio.create_task(http.request("GET", LIST))
    await held.wait()
    canary.cancel()
    with pytest.raises(asyncio.CancelledError):
        await canary
    assert (await http.request("GET", LIST)).status == 200


async def test_only_so_many_calls_run_at_a_time(
    github_server: Any, github_fakes: ModuleType
) -> None:
    headers = {"Authorization": "Bearer ghp_test"}
    http = HttpClient(
        provider="GitHub", headers=headers, base_url=github_server.url, max_concurrent=2
    )
    gate, second = asyncio.Event(), asyncio.Event()
    github_server.faults.append(github_fakes.Fault(gate=gate, only=LIST))
    github_server.faults.append(github_fakes.Fault(gate=gate, only=LIST, before=second.set))
    calls = asyncio.gather(*(http.request("GET", LIST) for _ in range(5)))
    await asyncio.wait_for(second.wait(), 30)
    # Whatever else was on its way then has come before somebody else's call is answered.
    other = HttpClient(provider="GitHub", headers=headers, base_url=github_server.url)
    for _ in range(5):
        await other.request("GET", LIST)
    assert github_server.count() == 2 + 5
    gate.set()
    await calls
    assert github_server.count() == 5 + 5
    await http.aclose()
    await other.aclose()


async def test_a_change_is_sent_once_whatever_happens(
    github_server: Any, github_fakes: ModuleType, http: HttpClient
) -> None:
    for fault in ({"abort": True}, {"status": 503}):
        github_server.faults.append(github_fakes.Fault(**fault))
        before = github_server.count()
        try:
            answer = await http.request("PATCH", LIST + "/1", json={"title": "x"})
            assert answer.status == 503
        except TrackerError as error:
            failed = error
        assert github_server.count() == before + 1
    assert failed.category == "tracker_request"


async def test_budgets_are_kept_apart(
    github_server: Any, github_fakes: ModuleType, http: HttpClient
) -> None:
    for resource, left in (("core", "7"), ("graphql", "9")):
        headers = {"X-RateLimit-Remaining": left, "X-RateLimit-Resource": resource}
        headers["X-RateLimit-Reset"] = str(int(github_server.now.timestamp()) + 30)
        github_server.faults.append(github_fakes.Fault(headers=headers))
        await http.request("GET", LIST)
    assert {name: limit.remaining for name, limit in http.rate_limits.items()} == {
        "core": 7,
        "graphql": 9,
    }
    assert isinstance(http.rate_limit, RateLimit)
    assert http.reset_in_s() == 30.0


async def test_an_answer_that_is_no_success_has_its_usual_error(
    github_server: Any, http: HttpClient
) -> None:
    github_server.token = "another"
    answer = await http.request("GET", LIST)
    error = status_error("GitHub", answer, code="github_api_status", hint="check the token")
    assert (error.category, error.status, error.code) == ("tracker_status", 401, error.code)
    assert "HTTP 401; check the token" in error.message
    limited = status_error("GitHub", answer, code="x", rate_limited=True)
    assert limited.category == "tracker_rate_limited"
