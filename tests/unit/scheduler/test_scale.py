"""Cost with 1,000 runs and 10,000 candidates, in processor time so that a busy machine is fair."""

from __future__ import annotations

import time
from dataclasses import replace
from statistics import median

import pytest

from symphony.model.run import Outcome, OutcomeKind
from symphony.model.usage import TokenUsage
from symphony.scheduler.commands import RefreshPurpose, StartRun
from symphony.scheduler.events import (
    CandidatesFetched,
    IssuesRefreshed,
    Restored,
    RunEnded,
    RunIssueChanged,
    RunSilent,
    SettingsChanged,
    WakeUp,
)
from symphony.scheduler.publish import build_snapshot
from symphony.scheduler.state import next_wakeup
from symphony.scheduler.step import step

TICK_S = 0.2
STEP_S = 0.001


@pytest.fixture
def loaded(drive, issue):
    """1,000 runs, every slot taken."""
    driver = drive(agent={"max_concurrent_agents": 1000})
    board = [issue(f"R-{number}") for number in range(1000)]
    driver.send(Restored())
    driver.offer(*board)
    driver.show(RefreshPurpose.DISPATCH, *board)
    return driver, board, [command.spec for command in driver.of(StartRun)]


def timed(driver, event):
    """Return the processor time of one step alone, its checks left out."""
    begin = time.process_time()
    commands = step(driver.state, event, driver.now)
    next_wakeup(driver.state)
    spent = time.process_time() - begin
    driver.history += commands
    return spent


@pytest.mark.parametrize("limit", [1_000, 11_000])
def test_a_tick_over_ten_thousand_candidates_takes_less_than_a_fifth_of_a_second(
    loaded, issue, settings, limit
):
    driver, board, _ = loaded
    driver.send(SettingsChanged(settings(agent={"max_concurrent_agents": limit})))
    candidates = [*board, *(issue(f"C-{number}") for number in range(10_000))]
    driver.advance(30)
    spent = timed(driver, WakeUp())
    reconcile = driver.refresh(RefreshPurpose.RECONCILE)
    spent += timed(driver, IssuesRefreshed(reconcile.cause, [replace(one) for one in board]))
    spent += timed(driver, CandidatesFetched(driver.candidates_cause(), candidates))
    assert len(driver.state.claims) == limit
    assert spent < TICK_S


def test_an_ordinary_step_takes_less_than_a_millisecond(loaded):
    driver, _, specs = loaded
    failed = Outcome(kind=OutcomeKind.FAILED, message="fault")
    spent = []
    for spec in specs[:300]:
        moved = replace(spec.issue, state="In Progress")
        spent.append(timed(driver, RunIssueChanged(spec.run_id, moved)))
        spent.append(timed(driver, RunSilent(spec.run_id, 1.0)))
        spent.append(timed(driver, RunEnded(spec.run_id, failed, TokenUsage(), 1.0)))
    assert median(spent) < STEP_S


def test_a_snapshot_of_a_thousand_runs_takes_less_than_a_tenth_of_a_second(loaded):
    driver, *_ = loaded
    begin = time.process_time()
    shown = build_snapshot(driver.state, {}, driver.now, sequence=1, rate_limits=None)
    assert time.process_time() - begin < 0.1
    assert len(shown.running) == 1000
