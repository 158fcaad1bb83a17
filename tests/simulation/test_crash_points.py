"""The daemon is killed after each write of the ledger in turn: what was decided is whole or not.

Every story is an eventful day of its own (agents that ask and fail, operators who stop, resume and
answer, people who move issues); the oracle compares what a start restores with what was known.
"""

from __future__ import annotations

from functools import cache

import pytest

from tests.simulation.simulate import simulate

HOURS = 0.4
STORIES = (18, 133)
"""Rows in memory, and the real ledger on a file."""
PARTS = 10


@cache
def writes_of(seed: int) -> int:
    return simulate(seed, hours=HOURS, dies_after=0).writes


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("seed", STORIES)
def test_a_crash_after_any_write_of_the_ledger_loses_and_doubles_nothing(seed: int, part: int):
    for number in range(1 + part, writes_of(seed) + 1, PARTS):
        assert simulate(seed, hours=HOURS, dies_after=number).lifetimes > 2


@pytest.mark.parametrize("seed", STORIES)
def test_some_of_these_crashes_come_just_after_an_agents_last_word(seed: int):
    days = (
        simulate(seed, hours=HOURS, dies_after=number) for number in range(1, writes_of(seed) + 1)
    )
    assert any(day.counts["runs wound up after a crash"] for day in days)


@pytest.mark.parametrize("seed", STORIES)
def test_the_days_that_are_cut_short_hold_what_could_be_lost(seed: int):
    whole = simulate(seed, hours=HOURS, dies_after=0)
    assert whole.writes > 50
    for kind in ("blocks stopped_by_operator", "blocks approval_required", "answered runs"):
        assert whole.counts[kind] > 0, whole.counts
