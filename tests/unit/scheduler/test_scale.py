"""1,000 runs and 10,000 candidates go through the scheduler whole.

What that costs (processor time) is printed and kept in the report, not judged: a machine that is
busy or slow would fail a limit. ``pytest -rP`` shows it.
"""

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


def cost(what, seconds, record_property):
    record_property(what, seconds)
    print(f"{what}: {seconds * 1000:.2f} ms")


@pytest.mark.parametrize("limit", [1_000, 11_000])
def test_a_tick_over_ten_thousand_candidates_fills_every_slot(
    loaded, issue, settings, limit, record_property
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
    cost("tick", spent, record_property)


def test_three_hundred_failures_among_a_thousand_runs_are_all_kept(loaded, record_property):
    driver, _, specs = loaded
    failed = Outcome(kind=OutcomeKind.FAILED, message="fault")
    spent = []
    for spec in specs[:300]:
        moved = replace(spec.issue, state="In Progress")
        spent.append(timed(driver, RunIssueChanged(spec.run_id, moved)))
        spent.append(timed(driver, RunSilent(spec.run_id, 1.0)))
        spent.append(timed(driver, RunEnded(spec.run_id, failed, TokenUsage(), 1.0)))
    assert len(driver.state.claims) == 1_000
    cost("step, median", median(spent), record_property)


def test_a_snapshot_shows_a_thousand_runs(loaded, record_property):
    driver, *_ = loaded
    begin = time.process_time()
    shown = build_snapshot(driver.state, {}, driver.now, sequence=1, rate_limits=None)
    cost("snapshot", time.process_time() - begin, record_property)
    assert len(shown.running) == 1000
