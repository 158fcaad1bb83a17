from __future__ import annotations

import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from symphony.errors import TrackerError
from symphony.trackers.http import (
    Answer,
    HttpClient,
    RateLimit,
    parse_rate_limit,
    parse_retry_after,
)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (" 0.5 ", 0.5),
        ("-3", 0.0),
        ("nan", None),
        ("inf", 86_400.0),
        ("soon", None),
        ("", None),
        ("Thu, 01 Jan 1970 00:00:30 GMT", 20.0),
        ("Thu, 01 Jan 1970 00:00:05 GMT", 0.0),
    ],
)
def test_retry_after_is_read_as_seconds_from_now(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, 10.0) == seconds


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"x-ratelimit-limit": "lots"}, None),
        (
            {
                "x-ratelimit-limit": "60",
                "x-ratelimit-remaining": "59",
                "x-ratelimit-reset": "1760000000",
            },
            RateLimit(60, 59, 1_760_000_000.0),
        ),
        (
            {
                "x-ratelimit-requests-remaining": "0",
                "x-ratelimit-requests-reset": "1760000000500",
            },
            RateLimit(None, 0, 1_760_000_000.5),
        ),
    ],
)
def test_rate_limit_headers_are_read(headers: dict[str, str], expected: RateLimit | None) -> None:
    assert parse_rate_limit(headers) == expected


def test_an_excerpt_is_one_short_printable_line() -> None:
    assert Answer(500, {}, b"a\n\x1b[31m b\xff").excerpt() == "a [31m b\ufffd"
    assert len(Answer(500, {}, b"x" * 9000).excerpt()) == 300


def client(**options: Any) -> HttpClient:
    headers = {"Authorization": "lin_api_test"}
    return HttpClient(provider="Linear", headers=headers, retry_wait_s=0.001, **options)


async def test_an_answer_above_the_cap_is_refused(linear_server: Any, fakes: ModuleType) -> None:
    http = client(max_bytes=1000)
    linear_server.faults.append(fakes.Fault(body=b"x" * 1001))
    with pytest.raises(TrackerError, match="more than 1000 bytes") as caught:
        await http.post_json(linear_server.endpoint, {"query": "{}"}, idempotent=True)
    assert caught.value.category == "tracker_response"
    await http.aclose()


async def test_a_silent_server_costs_the_deadline_and_no_retry(
    linear_server: Any, fakes: ModuleType
) -> None:
    for options, words in (
        ({"total_timeout_s": 0.1}, "no complete answer in 0.1 s"),
        ({"silence_timeout_s": 0.1}, "silent too long"),
    ):
        http = client(**options)
        linear_server.faults.append(fakes.Fault(hold=True))
        with pytest.raises(TrackerError, match=words) as caught:
            await http.post_json(linear_server.endpoint, {"query": "{}"}, idempotent=True)
        assert caught.value.category == "tracker_request"
        assert http.requests == 1
        await http.aclose()


async def test_a_redirect_is_not_followed(linear_server: Any, fakes: ModuleType) -> None:
    http = client()
    headers = {"Location": f"http://localhost:{linear_server.port}/graphql"}
    linear_server.faults.append(fakes.Fault(status=307, headers=headers))
    with pytest.raises(TrackerError, match="redirects are not followed") as caught:
        await http.post_json(linear_server.endpoint, {"query": "{}"}, idempotent=True)
    assert caught.value.status == 307
    assert len(linear_server.requests) == 1, "the token went to the configured host only"
    await http.aclose()


async def test_a_short_wish_to_wait_is_obeyed_and_a_long_one_returned(
    linear_server: Any, fakes: ModuleType
) -> None:
    http = client()
    payload = {"query": "query V { viewer { id } }"}
    linear_server.faults.append(fakes.Fault(status=429, headers={"Retry-After": "0"}))
    answer = await http.post_json(linear_server.endpoint, payload, idempotent=True)
    assert (answer.status, http.requests) == (200, 2)
    linear_server.faults.append(fakes.Fault(status=503, headers={"Retry-After": "60"}))
    answer = await http.post_json(linear_server.endpoint, payload, idempotent=True)
    assert (answer.status, answer.retry_after_s, http.requests) == (503, 60.0, 3)
    await http.aclose()


@pytest.mark.parametrize("endpoint", ["http://", "http://a..b/", "nonsense"])
async def test_an_unusable_address_is_an_error_and_no_crash(endpoint: str) -> None:
    http = client()
    with pytest.raises(TrackerError) as caught:
        await http.post_json(endpoint, {}, idempotent=True)
    assert caught.value.category == "tracker_request"
    await http.aclose()


def test_the_adapters_load_no_http_library_before_the_first_call() -> None:
    script = (
        "import sys, symphony.trackers.linear, symphony.trackers.local\n"
        "print([m for m in ('httpx2', 'stamina', 'watchfiles', 'ruamel') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


BASIC = "bWVAeC5vcmc6YXRsLy0xMjM0NTY="


@pytest.mark.parametrize(
    ("headers", "secret"),
    [
        ({"Authorization": "Bearer ghp_abc123"}, "ghp_abc123"),
        ({"PRIVATE-TOKEN": "glpat-1234"}, "glpat-1234"),
        ({"Authorization": f"Basic {BASIC}"}, "atl/-123456"),
        ({"Authorization": f"Basic {BASIC}"}, "atl\\/-123456"),
        ({"Authorization": f"Basic {BASIC}"}, "atl%2F-123456"),
        ({"Authorization": f"Basic {BASIC}"}, BASIC),
    ],
)
async def test_an_answer_never_holds_the_token_that_was_sent(
    linear_server: Any, fakes: ModuleType, headers: dict[str, str], secret: str
) -> None:
    body = f'{{"said": "{"x" * 290} no: {secret}"}}'.encode()
    echo = {"X-Echo": f"token={secret}"}
    linear_server.faults.append(fakes.Fault(status=403, body=body, headers=echo))
    http = HttpClient(provider="X", headers=headers)
    answer = await http.post_json(linear_server.endpoint, {"query": "{}"}, idempotent=False)
    await http.aclose()
    assert secret not in str(answer)
    assert answer.json() == {"said": f"{'x' * 290} no: [redacted]"}
    assert answer.headers["x-echo"] == "token=[redacted]"
    assert "no: [redacted]" in answer.excerpt(9000)


async def test_a_short_password_is_no_reason_to_change_what_a_provider_says(
    linear_server: Any, fakes: ModuleType
) -> None:
    linear_server.faults.append(fakes.Fault(body=b'{"title": "a test"}'))
    http = HttpClient(provider="X", headers={"Authorization": "test"})
    answer = await http.post_json(linear_server.endpoint, {"query": "{}"}, idempotent=False)
    await http.aclose()
    assert answer.json() == {"title": "a test"}
