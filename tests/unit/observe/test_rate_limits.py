"""Both generations of Codex's rate-limit payload."""

import math
from typing import Any

import pytest

from symphony.observe.rate_limits import format_wait, read_rate_limits

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("payload", "line"),
    [
        (
            {
                "limitId": "codex",
                "primary": {"usedPercent": 43, "windowDurationMins": 300, "resetsAt": NOW + 720},
                "secondary": {"usedPercent": 7, "windowDurationMins": 10080},
                "credits": {"hasCredits": True, "unlimited": False, "balance": "12.5"},
            },
            "codex | primary 43% used reset 12m | secondary 7% used | credits 12.50",
        ),
        (
            {
                "limit_id": "gpt-5",
                "primary": {"remaining": 12345, "limit": 20000, "reset_in_seconds": 30},
                "secondary": {"remaining": 45, "limit": 60, "reset_in_seconds": 12},
                "credits": {"has_credits": True, "balance": 9876.5},
            },
            "gpt-5 | primary 12,345/20,000 reset 30s | secondary 45/60 reset 12s | credits 9876.50",
        ),
        (
            {"rateLimits": {"limitName": "pro", "credits": {"unlimited": True}}},
            "pro | primary n/a | secondary n/a | credits unlimited",
        ),
        (
            {"primary": {"remaining": 5}, "credits": {"hasCredits": True}},
            "unknown | primary remaining 5 | secondary n/a | credits available",
        ),
        (
            {"primary": {"limit": 5}, "credits": {"hasCredits": False}},
            "unknown | primary limit 5 | secondary n/a | credits none",
        ),
    ],
)
def test_a_payload_becomes_a_line(payload: Any, line: str) -> None:
    limits = read_rate_limits(payload, now_wall=NOW)
    assert limits is not None
    assert limits.line == line


@pytest.mark.parametrize("payload", [None, 3, [], {}, {"primary": None, "credits": None}])
def test_a_payload_without_a_limit_is_none(payload: Any) -> None:
    assert read_rate_limits(payload, now_wall=NOW) is None


def test_the_used_share_follows_from_what_remains() -> None:
    limits = read_rate_limits({"primary": {"remaining": 5, "limit": 20}}, now_wall=NOW)
    assert limits is not None
    assert limits.buckets[0].used_percent == 75.0


def test_figures_that_are_no_numbers_are_left_out() -> None:
    payload = {
        "primary": {"usedPercent": math.inf, "remaining": True, "limit": "many"},
        "limitId": "x",
    }
    limits = read_rate_limits(payload, now_wall=NOW)
    assert limits is not None
    assert limits.buckets == ()


def test_a_share_stays_between_0_and_100() -> None:
    limits = read_rate_limits({"primary": {"usedPercent": 140}}, now_wall=NOW)
    assert limits is not None
    assert limits.buckets[0].used_percent == 100.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (29.2, "30s"),
        (95, "95s"),
        (720, "12m"),
        (18000, "5h"),
        (18180, "5h 3m"),
        (180000, "2d 2h"),
        (604800, "7d"),
    ],
)
def test_a_wait_is_told_in_its_largest_useful_unit(seconds: float, text: str) -> None:
    assert format_wait(seconds) == text
