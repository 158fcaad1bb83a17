"""What a scraper reads, by the parsers of Prometheus and OpenMetrics themselves."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import snapshots
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as read_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as read_prometheus

from symphony.model.run import OutcomeKind
from symphony.model.spend import Quantity, Spend
from symphony.observe.metrics import render
from symphony.observe.tally import Tally
from symphony.scheduler.budget_rows import BudgetRow, BudgetsRow, LimitRow
from symphony.scheduler.snapshot import (
    BreakerRow,
    HoldRow,
    ResourcesRow,
    Snapshot,
    TrackerLimitRow,
    TrackerRow,
)

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
DOCS = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"
BUDGET = BudgetsRow(
    date="2030-03-17",
    day=BudgetRow(
        scope="day",
        spent=Spend(),
        limits=(LimitRow(Quantity.USD, 20_000_000, 2_500_000, 0),),
        shut="the day's budget is spent",
    ),
    total=BudgetRow(scope="total", spent=Spend(), limits=(LimitRow(Quantity.WALL, 9_000, 10, 0),)),
)


def everything(**changes: Any) -> Snapshot:
    """A snapshot with some of everything that can be shown."""
    limit = TrackerLimitRow(resource="core", limit=5_000, remaining=4_321, reset_wall=1.9e9)
    fields: dict[str, Any] = {
        "tracker": TrackerRow(
            kind="github",
            answers={"2xx": 7, "304": 9, "429": 1, "none": 2},
            rate_limits=(limit, replace(limit, resource="graphql", remaining=None)),
            breaker="half_open",
        ),
        "breakers": (
            BreakerRow(
                failure_class="model",
                state="open",
                why="the model's provider fails",
                failures=5,
                issues=3,
                since_wall=snapshots.WALL,
                until_wall=snapshots.WALL + 60,
                cooldown_s=60.0,
                canary=None,
            ),
        ),
        "holds": (
            HoldRow(identifier="MT-1", kind="pause", reason="later", by="mia", since_wall=1.0),
        ),
        "resources": (
            ResourcesRow(
                host="build-1",
                free_memory_mb=512,
                memory_limit="",
                free_disk_mb=None,
                disk_path="/srv",
                memory_pressure=None,
                shortage="less than 1024 MB of memory",
            ),
        ),
        "budget": BUDGET,
        "tracker_error": "GitHub could not be reached with token ghp_secret",
        "parked": "usage limit",
    }
    snapshot: Snapshot = snapshots.busy(**{**fields, **changes})
    return snapshot


def counted() -> Tally:
    tally = Tally()
    tally.run_ended(OutcomeKind.COMPLETED)
    tally.run_ended(OutcomeKind.STALLED)
    tally.run_ended(OutcomeKind.STALLED)
    tally.poll_ended("ok", seconds=0.1, wall=1_000.0)
    tally.poll_ended("ok", seconds=0.3, wall=2_000.0)
    tally.poll_ended("tracker_status", seconds=200.0, wall=3_000.0)
    tally.poll_ended("never heard of", seconds=0.0, wall=3_000.0)
    return tally


def samples(content: bytes, *, openmetrics: bool = False) -> dict[tuple[str, ...], float]:
    """Values by name and the labels' values, in the order of the labels' names."""
    read = read_openmetrics if openmetrics else read_prometheus
    found: dict[tuple[str, ...], float] = {}
    for family in read(content.decode()):
        for sample in family.samples:
            found[sample.name, *sample.labels.values()] = sample.value
    return found


@pytest.mark.parametrize("openmetrics", [False, True])
def test_a_scraper_reads_the_work_the_tracker_and_what_hinders(openmetrics: bool) -> None:
    accept = OPENMETRICS if openmetrics else "text/plain"
    content, media_type = render(everything(), counted(), version="1.2.3", accept=accept)
    assert media_type.startswith("application/openmetrics-text" if openmetrics else "text/plain")
    found = samples(content, openmetrics=openmetrics)
    expected = {
        ("symphony_build_info", "1.2.3"): 1,
        ("symphony_issues", "running"): 3,
        ("symphony_issues", "retrying"): 3,
        ("symphony_issues", "blocked"): 1,
        ("symphony_issues", "waiting"): 2,
        ("symphony_retries", "failure"): 2,
        ("symphony_retries", "continuation"): 1,
        ("symphony_retries", "recovery"): 0,
        ("symphony_agents_limit",): 10,
        ("symphony_tokens_total", "input"): 250_000,
        ("symphony_tokens_total", "cached_input"): 120_000,
        ("symphony_run_seconds_total",): 4321.4,
        ("symphony_runs_ended_total", "completed"): 1,
        ("symphony_runs_ended_total", "stalled"): 2,
        ("symphony_runs_ended_total", "failed"): 0,
        ("symphony_polls_total", "ok"): 2,
        ("symphony_polls_total", "tracker_status"): 1,
        ("symphony_polls_total", "other"): 1,
        ("symphony_poll_seconds_bucket", "0.1"): 2,
        ("symphony_poll_seconds_bucket", "0.25"): 2,
        ("symphony_poll_seconds_bucket", "0.5"): 3,
        ("symphony_poll_seconds_bucket", "+Inf"): 4,
        ("symphony_poll_seconds_count",): 4,
        ("symphony_poll_seconds_sum",): pytest.approx(200.4),
        ("symphony_poll_success_timestamp_seconds",): 2_000,
        ("symphony_poll_interval_seconds",): 30,
        ("symphony_tracker_requests_total", "2xx"): 7,
        ("symphony_tracker_requests_total", "304"): 9,
        ("symphony_tracker_requests_total", "none"): 2,
        ("symphony_tracker_rate_limit", "core"): 5_000,
        ("symphony_tracker_rate_remaining", "core"): 4_321,
        ("symphony_tracker_rate_reset_timestamp_seconds", "graphql"): 1.9e9,
        ("symphony_tracker_breaker", "half_open"): 1,
        ("symphony_tracker_breaker", "closed"): 0,
        ("symphony_failure_breaker", "model", "open"): 1,
        ("symphony_failure_breaker", "model", "closed"): 0,
        ("symphony_failure_breaker", "host", "closed"): 1,
        ("symphony_problem", "tracker"): 1,
        ("symphony_problem", "ledger"): 0,
        ("symphony_no_starts", "parked"): 1,
        ("symphony_no_starts", "all_work_held"): 0,
        ("symphony_held_issues",): 1,
        ("symphony_budget_limit", "usd", "day"): 20,
        ("symphony_budget_spent", "usd", "day"): 2.5,
        ("symphony_budget_limit", "seconds", "total"): 9,
        ("symphony_budget_shut", "day"): 1,
        ("symphony_budget_shut", "total"): 0,
        ("symphony_host_free_memory_bytes", "build-1"): 512 * 2**20,
        ("symphony_host_short", "build-1"): 1,
    }
    assert {key: found.get(key) for key in expected} == expected
    assert ("symphony_tracker_rate_remaining", "graphql") not in found
    assert found["process_resident_memory_bytes",] > 0


def test_before_the_first_snapshot_the_counts_are_there() -> None:
    found = samples(render(None, counted(), version="1")[0])
    assert found["symphony_runs_ended_total", "stalled"] == 2
    assert not any(name.startswith("symphony_issues") for name, *_ in found)


def test_the_number_of_series_does_not_grow_with_the_board() -> None:
    few = everything()
    many = everything(
        running=tuple(snapshots.running(f"MT-{n}") for n in range(300)),
        retrying=tuple(snapshots.retrying(f"RT-{n}") for n in range(300)),
        blocked=tuple(snapshots.blocked(f"BL-{n}", category=f"c-{n}") for n in range(300)),
        waiting=tuple(snapshots.waiting(f"WT-{n}") for n in range(300)),
    )
    tally = counted()
    for number in range(300):
        tally.poll_ended(f"strange-{number}", seconds=0.1, wall=1.0)
    series = set(samples(render(few, counted(), version="1")[0]))
    assert set(samples(render(many, tally, version="1")[0])) == series


def test_nothing_that_somebody_wrote_is_shown() -> None:
    text = render(everything(), counted(), version="1")[0].decode()
    for written in ("MT-", "parser", "alert(", "secret", "colour", "mia", "later", "/srv", "demo"):
        assert written not in text


def test_every_family_is_documented() -> None:
    content = render(everything(), counted(), version="1")[0].decode()
    families = {f.name for f in read_prometheus(content) if f.name.startswith("symphony_")}
    documented = set(
        re.findall(r"^\| `(symphony_\w+?)(?:_total)?`", DOCS.read_text(), re.MULTILINE)
    )
    assert families == documented
