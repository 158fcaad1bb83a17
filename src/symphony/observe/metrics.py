"""The daemon's figures in the text form of Prometheus.

Role: turns a snapshot and a tally into samples, when a scraper asks. Nothing is collected in the
background, and prometheus-client is imported with this module, at the first scrape.
Invariant: labels come from closed sets, from the settings (hosts) or from a bounded list (budgets
of a tracker's rate limit), never from issues; no text that an agent, a tracker or a person wrote is
shown.
Neighbours: ``tally`` counts; ``web`` serves what ``render`` returns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from symphony.model.failure import FailureClass
from symphony.model.run import OutcomeKind, RetryKind
from symphony.model.spend import Quantity
from symphony.scheduler.budget_rows import BudgetRow
from symphony.scheduler.eligibility import GateName
from symphony.scheduler.snapshot import Snapshot, TrackerRow

from .tally import POLL_BUCKETS_S, POLL_RESULTS, Tally

BREAKER_STATES = ("closed", "half_open", "open")
Values = Mapping[tuple[()], float] | Mapping[tuple[str], float] | Mapping[tuple[str, str], float]
"""Samples by the values of their labels."""

_SCALES = {Quantity.USD: 1_000_000, Quantity.WALL: 1_000}
_UNITS = {Quantity.USD: "usd", Quantity.WALL: "seconds"}


def render(
    snapshot: Snapshot | None, tally: Tally, *, version: str, accept: str = ""
) -> tuple[bytes, str]:
    """Return the samples and their media type, as ``accept`` asks.

    Args:
        snapshot: The last one, or None before the first: then only the tally is shown.
        tally: What was counted.
        version: The daemon's.
        accept: The scraper's header.
    """
    registry = CollectorRegistry()
    registry.register(_Samples(snapshot, tally, version))
    ProcessCollector(registry=registry)
    encode, media_type = choose_encoder(accept)
    content: bytes = encode(registry)
    return content, media_type


class _Samples(Collector):
    def __init__(self, snapshot: Snapshot | None, tally: Tally, version: str) -> None:
        self._snapshot = snapshot
        self._tally = tally
        self._version = version

    def collect(self) -> Iterator[Metric]:
        yield _gauge(
            "symphony_build_info", "The daemon's version.", {(self._version,): 1}, "version"
        )
        yield from _counted(self._tally)
        snapshot = self._snapshot
        if snapshot is not None:
            yield from _work(snapshot)
            yield from _hindrances(snapshot)
            yield from _budgets(snapshot)
            yield from _resources(snapshot)
            if snapshot.tracker is not None:
                yield from _tracker(snapshot.tracker)


def _counted(tally: Tally) -> Iterator[Metric]:
    yield _counter(
        "symphony_runs_ended",
        "Runs that ended since the daemon started, by outcome.",
        {(kind.value,): tally.runs[kind] for kind in OutcomeKind},
        "outcome",
    )
    yield _counter(
        "symphony_polls",
        "Reads of candidates since the daemon started, by result.",
        {(result,): tally.polls[result] for result in POLL_RESULTS},
        "result",
    )
    buckets, count = [], 0
    for bound, found in zip((*map(str, POLL_BUCKETS_S), "+Inf"), tally.poll_buckets, strict=True):
        count += found
        buckets.append((bound, count))
    durations = HistogramMetricFamily("symphony_poll_seconds", "How long reads of candidates took.")
    durations.add_metric([], buckets, tally.poll_seconds)
    yield durations
    if tally.polled_wall is not None:
        yield _gauge(
            "symphony_poll_success_timestamp_seconds",
            "When candidates were last read well.",
            {(): tally.polled_wall},
        )


def _work(snapshot: Snapshot) -> Iterator[Metric]:
    lists = {
        "running": snapshot.running,
        "retrying": snapshot.retrying,
        "blocked": snapshot.blocked,
        "waiting": snapshot.waiting,
        "cleaning": snapshot.cleaning,
    }
    sizes = {(name,): float(len(rows)) for name, rows in lists.items()}
    yield _gauge("symphony_issues", "Issues by what becomes of them.", sizes, "status")
    kinds = Counter(row.retry_kind for row in snapshot.retrying)
    retries = {(kind.value,): float(kinds[kind.value]) for kind in RetryKind}
    yield _gauge("symphony_retries", "Issues in the retry queue, by reason.", retries, "kind")
    gates = Counter(row.gate for row in snapshot.waiting)
    shut = {(gate.value,): float(gates[gate.value]) for gate in GateName}
    yield _gauge("symphony_waiting", "Candidates by the first gate that is shut.", shut, "gate")
    agents = snapshot.max_concurrent_agents
    yield _gauge("symphony_agents_limit", "Runs that may be live at once.", {(): agents})
    usage = snapshot.usage
    tokens = {
        ("input",): usage.input_tokens,
        ("cached_input",): usage.cached_input_tokens,
        ("output",): usage.output_tokens,
        ("reasoning_output",): usage.reasoning_output_tokens,
    }
    help_text = "Tokens of all runs; cached ones are part of input, reasoning of output."
    yield _counter("symphony_tokens", help_text, tokens, "kind")
    seconds = {(): snapshot.seconds_running}
    yield _counter("symphony_run_seconds", "Time of all runs, live ones included.", seconds)
    interval = {(): snapshot.polling.interval_s}
    yield _gauge("symphony_poll_interval_seconds", "Between two polls, as in force.", interval)


def _hindrances(snapshot: Snapshot) -> Iterator[Metric]:
    """What keeps work from going on as it should: each a 1."""
    problems = {
        "config": snapshot.config_error,
        "tracker": snapshot.tracker_error,
        "webhooks": snapshot.webhook_error,
        "places": snapshot.lost,
        "ledger": snapshot.ledger_error,
    }
    yield _gauge(
        "symphony_problem",
        "Parts that an operator should look at.",
        {(part,): float(text is not None) for part, text in problems.items()},
        "part",
    )
    holds = {
        "all work held": any(hold.identifier is None for hold in snapshot.holds),
        "parked": snapshot.parked is not None,
        "outside active hours": snapshot.hours is not None and not snapshot.hours.lets_start,
        "stopping": snapshot.shutting_down,
    }
    yield _gauge(
        "symphony_no_starts",
        "Why nothing starts for now.",
        {(reason.replace(" ", "_"),): float(holds[reason]) for reason in holds},
        "reason",
    )
    held = sum(hold.identifier is not None for hold in snapshot.holds)
    yield _gauge("symphony_held_issues", "Issues that an operator holds back.", {(): held})
    rows = {row.failure_class: row.state for row in snapshot.breakers}
    yield _gauge(
        "symphony_failure_breaker",
        "1 for the state in which the breaker of a class of failures is.",
        {
            (name.value, state): float(rows.get(name.value, "closed") == state)
            for name in FailureClass
            for state in BREAKER_STATES
        },
        "failure_class",
        "state",
    )


def _budgets(snapshot: Snapshot) -> Iterator[Metric]:
    if snapshot.budget is None:
        return
    scopes: tuple[BudgetRow, ...] = (snapshot.budget.day, snapshot.budget.total)
    limits = {
        (row.scope, _UNITS.get(one.quantity, one.quantity.value)): (
            one.limit / _SCALES.get(one.quantity, 1),
            one.spent / _SCALES.get(one.quantity, 1),
        )
        for row in scopes
        for one in row.limits
    }
    names = ("scope", "quantity")
    limit = {key: pair[0] for key, pair in limits.items()}
    yield _gauge("symphony_budget_limit", "Limits of the day and of all work.", limit, *names)
    spent = {key: pair[1] for key, pair in limits.items()}
    yield _gauge("symphony_budget_spent", "What of these limits is spent.", spent, *names)
    shut = {(row.scope,): float(row.shut is not None) for row in scopes}
    yield _gauge("symphony_budget_shut", "Whether a budget lets nothing start.", shut, "scope")


def _resources(snapshot: Snapshot) -> Iterator[Metric]:
    rows = snapshot.resources
    memory = {(r.host,): r.free_memory_mb * 2.0**20 for r in rows if r.free_memory_mb is not None}
    yield _gauge("symphony_host_free_memory_bytes", "Memory that a host has left.", memory, "host")
    disk = {(r.host,): r.free_disk_mb * 2.0**20 for r in rows if r.free_disk_mb is not None}
    yield _gauge("symphony_host_free_disk_bytes", "Disk that a host has left.", disk, "host")
    short = {(row.host,): float(row.shortage is not None) for row in rows}
    yield _gauge("symphony_host_short", "Whether a host has too little left.", short, "host")


def _tracker(row: TrackerRow) -> Iterator[Metric]:
    answers = {(status,): float(count) for status, count in row.answers.items()}
    yield _counter(
        "symphony_tracker_requests",
        "Requests sent to the tracker since it was configured, by the status of their answer.",
        answers,
        "status",
    )
    limits = row.rate_limits
    names = {"limit": "Requests of a window of the tracker's rate limit.",
             "remaining": "Requests that are left in it."}  # fmt: skip
    for name, help_text in names.items():
        values = {(one.resource or "",): getattr(one, name) for one in limits}
        known = {key: float(value) for key, value in values.items() if value is not None}
        yield _gauge(f"symphony_tracker_rate_{name}", help_text, known, "resource")
    resets = {(o.resource or "",): o.reset_wall for o in limits if o.reset_wall is not None}
    help_text = "When the window ends."
    yield _gauge("symphony_tracker_rate_reset_timestamp_seconds", help_text, resets, "resource")
    if row.breaker is not None:
        states = {(state,): float(row.breaker == state) for state in BREAKER_STATES}
        help_text = "1 for the state of the breaker of calls to the tracker."
        yield _gauge("symphony_tracker_breaker", help_text, states, "state")


def _gauge(name: str, help_text: str, values: Values, *labels: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, help_text, labels=labels)
    _fill(family, values)
    return family


def _counter(name: str, help_text: str, values: Values, *labels: str) -> CounterMetricFamily:
    family = CounterMetricFamily(name, help_text, labels=labels)
    _fill(family, values)
    return family


def _fill(
    family: GaugeMetricFamily | CounterMetricFamily,
    values: Values,
) -> None:
    for labels, value in values.items():
        family.add_metric(labels, value)
