"""Seeded days of the whole engine under faults; README.md beside this file tells how to read them.

A failure names its seed and the one command that replays it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation.simulate import SeedFailed, simulate

ROOT = Path(__file__).resolve().parents[2]
EVERY_TIME = 300
BATCH = 10
REAL_ATTEMPTS = 40
REAL_BATCH = 10
NIGHTLY = int(os.environ.get("SIMULATION_SEEDS", "10000"))
NIGHTLY_BATCH = 100


@pytest.mark.parametrize("first", range(0, EVERY_TIME, BATCH))
def test_nothing_is_lost_doubled_or_early_whatever_goes_wrong(first: int) -> None:
    for seed in range(first, first + BATCH):
        assert simulate(seed).steps > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(EVERY_TIME, EVERY_TIME + NIGHTLY, NIGHTLY_BATCH))
def test_nothing_goes_wrong_in_many_more_seeds(first: int) -> None:
    for seed in range(first, first + NIGHTLY_BATCH):
        assert simulate(seed).steps > 0


@pytest.mark.parametrize("first", range(0, REAL_ATTEMPTS, REAL_BATCH))
def test_nothing_is_lost_or_doubled_where_the_runner_s_own_attempts_work(first: int) -> None:
    for seed in range(first, first + REAL_BATCH):
        assert simulate(seed, real_attempts=True).steps > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(REAL_ATTEMPTS, REAL_ATTEMPTS + NIGHTLY // 20, 50))
def test_nothing_goes_wrong_in_many_more_seeds_of_real_attempts(first: int) -> None:
    for seed in range(first, first + 50):
        assert simulate(seed, real_attempts=True).steps > 0


def test_the_days_of_real_attempts_hold_the_ends_that_a_run_can_have() -> None:
    counts: Counter[str] = Counter()
    for seed in range(REAL_ATTEMPTS // 2):
        counts += simulate(seed, real_attempts=True).counts
    ends = (
        "completed",
        "turn_input_required",
        "approval_required",
        "port_exit",
        "stalled",
        "turn_timeout",
        "responseStreamDisconnected",
        "serverOverloaded",
        "stopped_operator",
    )
    assert [end for end in ends if not counts[f"ends {end}"]] == [], counts


def test_a_seed_tells_the_same_story_in_every_process() -> None:
    script = (
        "from tests.simulation.simulate import simulate\n"
        "print([simulate(seed).digest for seed in (2, 3, 7)])\n"
        "print([simulate(seed, real_attempts=True).digest for seed in (1, 7)])"
    )
    stories = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONHASHSEED": hash_seed,
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(stories) == 1


def test_the_days_hold_restarts_runs_and_hours_enough() -> None:
    reports = [simulate(seed) for seed in range(16)]
    assert sum(report.lifetimes for report in reports) > 3 * len(reports)
    assert sum(report.starts for report in reports) > 5 * len(reports)
    assert sum(report.simulated_s for report in reports) > 3600 * len(reports) / 2


def test_a_daemon_that_forgets_its_orphans_is_found_out() -> None:
    failures = []
    for seed in range(60):
        try:
            simulate(seed, sweeps=False)
        except SeedFailed as failure:
            failures.append((seed, str(failure)))
            if "two live agents" in str(failure):
                break
    assert any("two live agents" in text for _, text in failures)
    seed, text = failures[0]
    assert f"-m tests.simulation --seed {seed} --trace" in text


def test_each_tracker_of_live_runs_is_read_on_its_own() -> None:
    counts: Counter[str] = Counter()
    for seed in range(4):
        counts += simulate(seed, hours=3.0, moves=2.0).counts
    assert counts["issues of an owner that failed"] > 0, counts


def test_the_days_hold_blocks_that_end_in_every_way() -> None:
    counts: Counter[str] = Counter()
    for seed in range(40):
        counts += simulate(seed).counts
    ways = ("answered runs", "unblocked by a change", "unblocked by time", "stops taken back")
    assert all(counts[way] for way in ways), counts
