"""The main job on the real Codex: a board becomes commits, a changed board and a visible result."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest

from symphony.demo.repository import add_sixth_issue, verify
from tests.e2e.conftest import Board, eventually, marked_processes

pytestmark = [pytest.mark.codex, pytest.mark.timeout(120)]


def all_done(board: Board) -> bool:
    return all(report.ok for report in verify(board.sample))


async def test_the_board_is_worked_off_and_nothing_is_left(board: Board) -> None:
    daemon = await board.start("--port", "0")
    page = await eventually(lambda: running_page(board, "DEMO-4"), what="DEMO-4 to be at work")
    await eventually(lambda: any(r.ok for r in verify(board.sample)), what="a first issue")
    await asyncio.to_thread(add_sixth_issue, board.sample)
    await eventually(lambda: all_done(board), limit_s=60, what="all issues")
    state = await eventually(lambda: board.api("/api/v1/state"), what="the API")
    daemon.send_signal(signal.SIGTERM)

    assert await daemon.wait() == 0
    assert not marked_processes(board.marker)
    reports = {report.identifier: report for report in verify(board.sample)}
    assert len(reports) == 6
    assert all(report.commit for report in reports.values())
    assert {report.state for report in reports.values()} == {"Done"}
    assert state["codex_totals"]["total_tokens"] > 0
    assert state["rate_limits"]["primary"]["usedPercent"] > 0
    assert page["workspace"]["path"].endswith("/workspaces/DEMO-4")
    assert page["running"]["turn_count"] == 1
    assert "session_started" in {event["event"] for event in page["recent_events"]}


def running_page(board: Board, identifier: str) -> dict[str, Any] | None:
    page = board.api(f"/api/v1/{identifier}")
    if not page or page.get("status") != "running":
        return None
    events = {event["event"] for event in page["recent_events"]}
    started = "session_started" in events and page["running"]["turn_count"] == 1
    return page if started else None


async def test_events_and_turns_of_each_run_are_in_the_ledger(board: Board) -> None:
    daemon = await board.start()
    add_sixth_issue(board.sample)
    await eventually(lambda: all_done(board), limit_s=60, what="all issues")
    daemon.send_signal(signal.SIGTERM)
    assert await daemon.wait() == 0

    rows = await history(board)

    # One needs two turns, one fails first: both as the story tells it.
    assert rows["DEMO-4"]["turns"] == [2]
    assert rows["DEMO-2"]["outcomes"][-1] == "failed"
    assert len(rows["DEMO-2"]["turns"]) == 2
    for row in rows.values():
        assert "session_started" in row["events"]
        assert "tool_call_completed" in row["events"]
        assert row["tokens"] > 0
    assert "session_id=" in board.log()
    assert "issue_identifier=DEMO-1" in board.log()


async def history(board: Board) -> dict[str, dict[str, Any]]:
    from symphony.config.loading import workflow_id
    from symphony.config.state_dir import locate
    from symphony.ledger import Ledger
    from symphony.service.options import read_clock

    state_dir = locate(board.sample.workflow_path, instance=board.instance, env=board.environ)
    ledger = await Ledger.open(
        state_dir.ledger, workflow_id=workflow_id(board.sample.workflow_path), clock=read_clock
    )
    try:
        rows = {}
        for report in verify(board.sample):
            runs = await ledger.runs(report.identifier)
            events = await ledger.recent_events(report.identifier, 500)
            rows[report.identifier] = {
                "turns": [run.turns for run in runs],
                "outcomes": [run.outcome.kind.value for run in runs if run.outcome],
                "events": {event.event for event in events},
                "tokens": sum(run.usage.total_tokens for run in runs),
            }
        return rows
    finally:
        await ledger.aclose()


async def test_a_killed_daemon_leaves_nothing_and_the_next_one_finishes_the_board(
    board: Board,
) -> None:
    doubled: list[dict[str, list[int]]] = []

    def watch() -> bool:
        agents = board.agents_by_workspace()
        doubled.extend({place: pids} for place, pids in agents.items() if len(pids) > 1)
        return bool(agents)

    add_sixth_issue(board.sample)
    first = await board.start()
    await eventually(watch, what="the first agents")
    await eventually(
        lambda: watch() and board.server.count >= 6, what="agents in the middle of their work"
    )
    first.send_signal(signal.SIGKILL)
    await first.wait()
    await eventually(
        lambda: not board.agents_by_workspace(), limit_s=10, what="the agents to be ended"
    )
    assert not all_done(board)

    second = await board.start()
    await eventually(lambda: watch() is None or all_done(board), limit_s=60, what="all issues")
    second.send_signal(signal.SIGTERM)

    assert await second.wait() == 0
    assert doubled == []
    assert not marked_processes(board.marker)
    rows = await history(board)
    assert "interrupted" in {outcome for row in rows.values() for outcome in row["outcomes"]}


async def test_a_second_daemon_on_the_same_workflow_is_refused_with_the_holder(
    board: Board,
) -> None:
    first = await board.start()
    await eventually(lambda: board.api("/api/v1/state"), what="the API")

    second = await board.start()

    assert await second.wait() == 1
    assert str(first.pid) in board.log()
    first.send_signal(signal.SIGTERM)
    assert await first.wait() == 0
