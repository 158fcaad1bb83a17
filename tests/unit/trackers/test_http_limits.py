from __future__ import annotations

from datetime import UTC, datetime

import pytest

from symphony.errors import TrackerError
from symphony.trackers.http_cache import EtagStore
from symphony.trackers.http_limits import (
    Breaker,
    RateLimit,
    answer_class,
    keep_limit,
    parse_rate_limit,
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(provider="Test", threshold=3, cooldown_s=10.0, clock=clock)


def refused(breaker: Breaker) -> TrackerError:
    with pytest.raises(TrackerError) as caught:
        breaker.admit()
    return caught.value


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.admit()
        breaker.failed("tracker_request", "no route")


def test_failures_in_a_row_open_it_with_the_category_of_the_last(
    breaker: Breaker, clock: Clock
) -> None:
    fail(breaker, 2)
    breaker.admit()
    breaker.succeeded()
    fail(breaker, 2)
    assert breaker.state == "closed"
    breaker.admit()
    breaker.failed("tracker_status", "it answered with HTTP 503", 503)
    clock.now += 4
    error = refused(breaker)
    assert (error.category, error.status, error.retry_after_s) == ("tracker_status", 503, 6.0)
    assert "3 failures in a row" in error.message
    assert "HTTP 503" in error.message
    assert breaker.state == "open"


def test_one_canary_goes_first_and_its_success_closes_it(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 10
    assert breaker.state == "half_open"
    breaker.admit()
    refused(breaker)
    breaker.succeeded()
    assert breaker.state == "closed"
    breaker.admit()
    breaker.admit()


def test_a_canary_that_fails_doubles_the_wait(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    for wait_s in (10, 20, 40):
        assert refused(breaker).retry_after_s == wait_s
        clock.now += wait_s
        fail(breaker)
    for _ in range(20):
        clock.now += 600
        fail(breaker)
    assert refused(breaker).retry_after_s == 600.0


def test_a_canary_that_is_cancelled_gives_its_place_to_the_next(
    breaker: Breaker, clock: Clock
) -> None:
    fail(breaker, 3)
    clock.now += 10
    breaker.admit()
    breaker.abandoned()
    breaker.admit()


def test_a_hold_is_kept_over_the_success_of_a_call_that_was_under_way(
    breaker: Breaker, clock: Clock
) -> None:
    breaker.admit()
    breaker.hold(60, category="tracker_rate_limited", reason="used up")
    breaker.succeeded()
    assert refused(breaker).category == "tracker_rate_limited"
    breaker.hold(5, category="tracker_request", reason="shorter")
    assert refused(breaker).retry_after_s == 60.0


def test_nobody_is_left_alone_for_more_than_an_hour(breaker: Breaker) -> None:
    breaker.hold(86_400, category="tracker_rate_limited", reason="used up")
    assert refused(breaker).retry_after_s == 3_600.0


@pytest.mark.parametrize(
    ("reset", "wall"),
    [
        ("1760000000", 1_760_000_000.0),
        ("30", 1_030.0),
        ("2026-01-01T00:00:00Z", datetime(2026, 1, 1, tzinfo=UTC).timestamp()),
        ("soon", None),
        ("T", None),
        ("\u0663", None),
    ],
)
def test_a_reset_is_read_in_each_providers_spelling(reset: str, wall: float | None) -> None:
    headers = {"ratelimit-remaining": "7", "ratelimit-reset": reset}
    assert parse_rate_limit(headers, 1_000.0) == RateLimit(None, 7, wall)


def test_a_budget_keeps_its_name() -> None:
    headers = {"x-ratelimit-limit": "5000", "x-ratelimit-resource": "graphql"}
    assert parse_rate_limit(headers) == RateLimit(5000, None, None, "graphql")


def test_kept_answers_are_bounded_and_belong_to_their_credentials() -> None:
    store: EtagStore[str] = EtagStore(max_entries=2, max_bytes=100)
    mine = store.scope_of({"Authorization": "a"})
    assert "a" != mine != store.scope_of({"Authorization": "b"})
    store.put("u1", mine, "one", headers={"etag": '"1"'}, size=40)
    assert store.validators("u1", mine) == {"If-None-Match": '"1"'}
    assert store.get("u1", store.scope_of({"Authorization": "b"})) is None
    store.put("u2", mine, "two", headers={"last-modified": "then"}, size=40)
    assert store.validators("u2", mine) == {"If-Modified-Since": "then"}
    assert store.get("u1", mine) == "one"
    store.put("u3", mine, "three", headers={"etag": "3"}, size=40)
    assert [store.get(url, mine) for url in ("u1", "u2", "u3")] == ["one", None, "three"]
    store.put("u4", mine, "four", headers={"etag": "4"}, size=90)
    assert len(store) == 1
    store.put("u4", mine, "bare", headers={}, size=1)
    assert len(store) == 0
    store.put("u5", mine, "huge", headers={"etag": "5"}, size=101)
    assert len(store) == 0


def test_a_provider_that_names_ever_new_budgets_takes_no_more_memory() -> None:
    limits: dict[str, RateLimit] = {}
    for number in range(100):
        keep_limit(limits, RateLimit(1, number, None, f"budget-{number}"))
    keep_limit(limits, RateLimit(1, 7, None, "budget-95"))
    keep_limit(limits, RateLimit(1, 8, None, "x" * 1_000_000))
    assert list(limits)[-2:] == ["budget-95", "x" * 64]
    assert len(limits) == 8
    assert limits["budget-95"].remaining == 7


@pytest.mark.parametrize(
    ("status", "name"),
    [(200, "2xx"), (204, "2xx"), (304, "304"), (301, "3xx"), (401, "401"), (403, "403"),
     (404, "404"), (422, "4xx"), (429, "429"), (503, "5xx"), (100, "other"), (700, "other"),
     (None, "none")],
)  # fmt: skip
def test_answers_are_counted_under_few_names(status: int | None, name: str) -> None:
    assert answer_class(status) == name
