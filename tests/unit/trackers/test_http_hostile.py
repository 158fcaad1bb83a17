"""What a hostile or broken provider can't do to the HTTP layer and to those who read answers."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from symphony.errors import TrackerError
from symphony.trackers import github_queries
from symphony.trackers.http import Answer, HttpClient, parse_rate_limit, parse_retry_after
from symphony.trackers.http_limits import LONGEST_WAIT_S

LIST = "/repos/octo/demo/issues"
CAP = 1 << 20
ZEROS = bytes(64 << 20)


@pytest.fixture
async def http(github_server: Any) -> AsyncIterator[HttpClient]:
    http = HttpClient(
        provider="GitHub",
        headers={"Authorization": "Bearer ghp_test"},
        base_url=github_server.url,
        retry_wait_s=0.001,
        max_bytes=CAP,
        wall=lambda: github_server.now.timestamp(),
    )
    yield http
    await http.aclose()


@pytest.mark.parametrize("layers", [1, 2, 3])
async def test_a_packed_bomb_costs_no_more_than_the_cap(
    github_server: Any, github_fakes: ModuleType, http: HttpClient, layers: int
) -> None:
    body = ZEROS
    for _ in range(layers):
        body = gzip.compress(body)
    headers = {"Content-Encoding": ", ".join(["gzip"] * layers)}
    github_server.faults.append(github_fakes.Fault(body=body, headers=headers))
    with pytest.raises(TrackerError, match=f"more than {CAP} bytes") as caught:
        await http.request("GET", LIST)
    assert caught.value.category == "tracker_response"


@pytest.mark.parametrize(
    "body",
    [gzip.compress(b'{"a": 1}' * 100)[:-20], b"no gzip at all", gzip.compress(b"[]")[:3]],
    ids=["cut short", "plain", "hardly begun"],
)
async def test_a_body_that_can_not_be_unpacked_whole_is_no_success(
    github_server: Any, github_fakes: ModuleType, http: HttpClient, body: bytes
) -> None:
    headers = {"Content-Encoding": "gzip"}
    github_server.faults.extend(github_fakes.Fault(body=body, headers=headers) for _ in range(3))
    # What is no packing at all is no answer; of a packing that ends early JSON is not whole.
    with pytest.raises(
        (TrackerError, ValueError), match=r"could not be reached|Unterminated|Expect"
    ):
        (await http.request("GET", LIST)).json()
    github_server.faults.clear()


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_no_redirect_carries_the_token_to_another_host(
    github_server: Any, github_fakes: ModuleType, http: HttpClient, status: int, method: str
) -> None:
    async with github_fakes.GitHubServer() as thief:
        places = [thief.url + LIST, f"http://localhost:{github_server.port}{LIST}"]
        places += [f"//127.0.0.1:{thief.port}{LIST}", f"http://a@127.0.0.1:{thief.port}/"]
        places += [f"http://127.0.0.1:{github_server.port}\\@127.0.0.1:{thief.port}/"]
        for place in places:
            fault = github_fakes.Fault(status=status, headers={"Location": place})
            github_server.faults.append(fault)
            before = github_server.count()
            with pytest.raises(TrackerError) as caught:
                await http.request(method, LIST, redirects="same_host", idempotent=True)
            assert (caught.value.category, caught.value.status) == ("tracker_status", status)
            assert github_server.count() == before + 1
        assert thief.calls == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_change_is_not_repeated_elsewhere_even_on_the_same_host(
    github_server: Any, github_fakes: ModuleType, http: HttpClient, status: int
) -> None:
    headers = {"Location": f"{github_server.url}{LIST}"}
    github_server.faults.append(github_fakes.Fault(status=status, headers=headers))
    with pytest.raises(TrackerError, match="redirects are not followed"):
        await http.request("POST", LIST, json={}, redirects="same_host")
    assert github_server.count() == 1


@pytest.mark.parametrize("drift_s", [-7_200.0, 7_200.0])
async def test_clocks_that_differ_make_no_wait_longer_or_shorter(
    github_server: Any, github_fakes: ModuleType, drift_s: float
) -> None:
    ours = github_server.now.timestamp() + drift_s
    http = HttpClient(
        provider="GitHub",
        headers={"Authorization": "Bearer ghp_test"},
        base_url=github_server.url,
        attempts=1,
        wall=lambda: ours,
    )
    reset = int(github_server.now.timestamp()) + 90
    limits = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(reset)}
    until = "Thu, 01 Jan 2026 12:01:30 GMT"
    github_server.faults.append(
        github_fakes.Fault(status=503, headers={**limits, "Retry-After": until})
    )
    answer = await http.request("GET", LIST)
    assert answer.retry_after_s == pytest.approx(90.0)
    assert http.reset_in_s() == pytest.approx(90.0)
    # A proxy's old answer tells an old time; then our own clock is the better one.
    old = {**limits, "Age": "600"}
    github_server.faults.append(github_fakes.Fault(status=503, headers=old))
    await http.request("GET", LIST)
    assert http.reset_in_s() == pytest.approx(max(1.0, 90.0 - drift_s))
    await http.aclose()


@given(st.text(max_size=60))
@example("9" * 5_000)
@example("-1e400")
@example("Thu, 01 Jan 99999 00:00:00 GMT")
@example("Thu, 01 Jan 0001 00:00:00 +2359")
@example("Thu, 99 Foo 2026 99:99:99 GMT")
@example("0x10")
def test_any_wish_to_wait_is_read_as_a_bounded_time_or_as_none(value: str) -> None:
    for now in (0.0, 1.9e9):
        wait_s = parse_retry_after(value, now)
        assert wait_s is None or 0.0 <= wait_s <= LONGEST_WAIT_S


@given(st.dictionaries(st.sampled_from(["limit", "remaining", "reset", "resource"]), st.text()))
@example({"reset": "9999-12-31T23:59:59.999999-23:59"})
@example({"reset": "9" * 18})
@example({"reset": "T"})
def test_any_rate_limit_headers_are_read_or_left(headers: dict[str, str]) -> None:
    named = {f"x-ratelimit-{name}": value for name, value in headers.items()}
    found = parse_rate_limit(named, 1.9e9)
    assert found is None or found.remaining is None or found.remaining >= 0


@pytest.mark.parametrize("errors", [["text"], "text", {"message": "no"}, [None], 1, True])
def test_data_beside_errors_of_any_form_is_no_answer(errors: Any) -> None:
    node = {"number": 1, "repository": {"nameWithOwner": "o/r"}}
    body = {"data": {"repository": {"nameWithOwner": "o/r", "i1": node}}, "errors": errors}
    with pytest.raises(TrackerError) as caught:
        github_queries.found_issues(body, [1])
    assert (caught.value.category, caught.value.code) == (
        "tracker_response",
        "github_graphql_errors",
    )


def test_json_that_is_nested_without_end_is_no_json() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        Answer(200, {}, b"[" * 1_000_000).json()
