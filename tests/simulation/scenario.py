"""What a seed stands for: board, settings, weather and length, all drawn at its start."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

from symphony.config.blocked import CHANGES
from symphony.config.settings import Settings

ACTIVE = ("Todo", "In Progress")
TERMINAL = ("Done", "Cancelled")
STATES = (*ACTIVE, "Review", *TERMINAL)
BOARDS = ("one", "two")
HALF_HOURS = tuple(f"{hour:02}:00-{hour:02}:30" for hour in range(24))
NIGHT = ("22:00-01:20",)


@dataclass(slots=True)
class Weather:
    """How much goes wrong. Rates are per hour, chances per occasion; all zero is a calm day."""

    read_error: float = 0.0
    read_lost: float = 0.0
    read_slow: float = 0.0
    read_empty: float = 0.0
    read_partial: float = 0.0
    read_raises: float = 0.0
    answer_doubled: float = 0.0
    answer_late: float = 0.0
    ended_doubled: float = 0.0
    orphan: float = 0.0
    disk_slow: float = 0.0
    clean_fails: float = 0.0
    prepare_fails: float = 0.0
    slow_finish: float = 0.0
    agents_misbehave: float = 0.0
    outages: float = 0.0
    crashes: float = 0.0
    shutdowns: float = 0.0
    host_losses: float = 0.0
    disk_failures: float = 0.0
    clock_jumps: float = 0.0
    reloads: float = 0.0
    moves: float = 0.0
    storms: float = 0.0
    people: float = 0.0
    orders: float = 0.0
    model_outages: float = 0.0
    shortages: float = 0.0
    asks: float = 0.0
    answers: float = 0.0
    hasty_stops: float = 0.0
    usage_limits: float = 0.0
    dies_winding_up: float = 0.0


EVENTFUL: dict[str, float] = {
    "agents_misbehave": 0.4,
    "asks": 0.4,
    "answers": 60.0,
    "orders": 12.0,
    "hasty_stops": 12.0,
    "usage_limits": 0.1,
    "people": 12.0,
    "orphan": 0.3,
}
"""A day on which everybody has much to say and nothing breaks but what a crash point breaks."""


@dataclass(slots=True)
class Scenario:
    """One seed's choices."""

    seed: int
    hours: float
    issues: int
    sections: dict[str, Any]
    weather: Weather
    turn_s: float
    uses_sqlite: bool
    publishes: bool
    real_attempts: bool = False
    rng: Random = field(repr=False, default_factory=Random)


def scenario_of(seed: int) -> Scenario:
    """Return what this seed stands for."""
    rng = Random(f"scenario {seed}")
    publishes = seed % 15 == 7
    interval_s = rng.choice([1, 5, 15, 30, 30, 60, 120, 300])
    # Short intervals cost steps: about the same number of polls for every seed.
    hours = rng.uniform(0.3, 0.6) if publishes else max(0.3, min(6.0, interval_s / 40))
    scenario = Scenario(
        seed=seed,
        hours=hours,
        issues=rng.randint(1, 9),
        sections=_sections(rng, interval_s),
        weather=_busy_operators(_weather(rng), rng) if seed % 6 == 1 else _weather(rng),
        turn_s=rng.choice([20.0, 120.0, 400.0]),
        uses_sqlite=seed % 10 == 3,
        publishes=publishes,
        rng=rng,
    )
    if scenario.weather.crashes > 0:
        # Chance of its own: what else a seed stands for stays as it is.
        scenario.weather.dies_winding_up = Random(f"window {seed}").choice([0.0, 0.1, 0.4])
    return scenario


def _weather(rng: Random) -> Weather:
    """Each kind of trouble is absent, rare or frequent; a fair part of all seeds has few."""
    level = rng.choice([0.0, 0.3, 0.6, 1.0])

    def some(rare: float, often: float) -> float:
        return 0.0 if rng.random() > level else rng.choice([rare, rare, often])

    return Weather(
        read_error=some(0.03, 0.3),
        read_lost=some(0.005, 0.05),
        read_slow=some(0.05, 0.4),
        read_empty=some(0.02, 0.25),
        read_partial=some(0.03, 0.3),
        read_raises=some(0.01, 0.05),
        answer_doubled=some(0.05, 0.3),
        answer_late=some(0.05, 0.3),
        ended_doubled=some(0.1, 0.5),
        orphan=some(0.2, 0.7),
        disk_slow=some(0.05, 0.4),
        clean_fails=some(0.05, 0.4),
        prepare_fails=some(0.03, 0.2),
        slow_finish=some(0.05, 0.3),
        agents_misbehave=some(0.2, 0.6),
        outages=some(0.5, 2.0),
        crashes=some(1.0, 8.0),
        shutdowns=some(0.5, 3.0),
        host_losses=some(0.5, 3.0),
        disk_failures=some(0.5, 2.0),
        clock_jumps=some(0.5, 4.0),
        reloads=some(1.0, 6.0),
        storms=some(0.5, 3.0),
        people=rng.choice([1.0, 6.0, 30.0]),
        orders=some(0.5, 4.0),
        model_outages=some(0.5, 2.0),
        shortages=some(0.5, 3.0),
        asks=rng.choice([0.02, 0.3, 0.6]),
        answers=rng.choice([0.0, 6.0, 60.0]),
        hasty_stops=some(0.5, 4.0),
    )


def _busy_operators(weather: Weather, rng: Random) -> Weather:
    """A day of orders and of crashes among them, so that what was ordered must outlive them."""
    weather.orders = rng.choice([4.0, 20.0])
    weather.hasty_stops = rng.choice([4.0, 20.0])
    weather.answers = rng.choice([6.0, 60.0])
    weather.crashes = rng.choice([4.0, 12.0])
    weather.usage_limits = rng.choice([0.1, 0.5])
    weather.slow_finish = rng.choice([0.1, 0.5])
    return weather


def _sections(rng: Random, interval_s: float) -> dict[str, Any]:
    hosts = rng.choice([[], [], ["a"], ["a", "b"], ["a", "b", "c"]])
    return {
        "tracker": {
            "kind": "memory",
            "provider": {"board": "one"},
            "active_states": ACTIVE,
            "terminal_states": TERMINAL,
            "required_labels": rng.choice([(), (), ("agent",)]),
        },
        "polling": {
            "interval_ms": int(interval_s * 1000),
            "max_interval_ms": int(interval_s * 3000),
        },
        "webhooks": {"poll_interval_ms": int(interval_s * 2000)},
        "agent": {
            "max_concurrent_agents": rng.randint(1, 5),
            "max_turns": rng.randint(1, 4),
            "max_retry_backoff_ms": rng.choice([10_000, 60_000, 300_000]),
            "max_concurrent_agents_by_state": rng.choice([{}, {"todo": 1}, {"in progress": 2}]),
            "unblock_on": rng.choice([CHANGES, CHANGES, CHANGES[:1], CHANGES[1:], ()]),
            "blocked_retry_ms": rng.choice([{}, {}, 900_000, {"input": 60_000}, {"fault": 5_000}]),
            "active_hours": rng.choice([(), (), HALF_HOURS, NIGHT]),
            "active_hours_timezone": "UTC",
            "after_hours": rng.choice(["continue", "drain"]),
        },
        "breaker": {
            "failures": rng.choice([0, 1, 2, 3, 5]),
            "window_ms": rng.choice([300_000, 3_600_000]),
            "cooldown_ms": rng.choice([30_000, 600_000]),
            "max_cooldown_ms": rng.choice([100_000, 3_600_000]),
        },
        "codex": {"stall_timeout_ms": rng.choice([0, 30_000, 300_000, 300_000])},
        "budget": _budget(rng),
        "worker": {
            "ssh_hosts": hosts,
            "max_concurrent_agents_per_host": rng.choice([None, 1, 2]),
        },
    }


def _budget(rng: Random) -> dict[str, Any]:
    """Limits that a few runs reach, in some of all seeds."""
    idle = rng.choice([0, 1, 3, 10])
    if rng.random() < 0.6:
        return {"no_progress_turns": idle}

    def some(*values: int) -> int | None:
        return rng.choice([None, None, *values])

    day, total = some(15_000, 60_000), some(60_000, 200_000)
    return {
        "turn": {"tokens": some(1_500, 4_000), "wall_ms": some(300_000)},
        "run": {"tokens": some(3_000, 9_000), "usd": rng.choice([None, None, "0.05"])},
        "issue": {
            "tokens": some(8_000, 30_000),
            "wall_ms": some(1_800_000),
            "attempts": some(3, 8),
        },
        "day": {"tokens": day, "usd": rng.choice([None, None, "0.5"])},
        "total": {"tokens": total},
        "no_progress_turns": idle,
        "prices": {"default": {"input_per_million": 5, "output_per_million": 20}},
    }


def changed(sections: dict[str, Any], rng: Random) -> dict[str, Any]:
    """Return another valid version of the workflow file."""
    fresh = _sections(rng, sections["polling"]["interval_ms"] / 1000 * rng.choice([0.5, 1, 1, 2]))
    fresh["polling"]["interval_ms"] = max(1_000, fresh["polling"]["interval_ms"])
    picked = dict(sections)
    for name in rng.sample(sorted(fresh), rng.randint(1, 3)):
        picked[name] = fresh[name]
    if rng.random() < 0.25:
        board = rng.choice(BOARDS)
        picked["tracker"] = {**picked["tracker"], "provider": {"board": board}}
    else:
        picked["tracker"] = {**picked["tracker"], "provider": sections["tracker"]["provider"]}
    return picked


def for_real_attempts(scenario: Scenario) -> None:
    """Let this day's runs be those of the runner: one host, and policies under which Codex asks.

    Faults that a simulated agent meets in its own way (a lost host, an adapter that raises) are
    left out: the real attempt has them from the real hosts.
    """
    scenario.real_attempts = True
    scenario.weather.host_losses = scenario.weather.read_raises = 0.0
    scenario.weather.agents_misbehave = max(scenario.weather.agents_misbehave, 0.3)
    scenario.sections = on_one_host(scenario.sections, scenario.rng)


def on_one_host(sections: dict[str, Any], rng: Random) -> dict[str, Any]:
    policy = rng.choice([None, "on-request", "on-request", "never"])
    codex = {**sections["codex"], **({} if policy is None else {"approval_policy": policy})}
    return {**sections, "codex": codex, "worker": {**sections["worker"], "ssh_hosts": []}}


def settings_of(sections: dict[str, Any]) -> Settings:
    return Settings.model_validate(sections)
