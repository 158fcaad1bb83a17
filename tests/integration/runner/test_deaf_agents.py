"""An app-server that ignores interrupts holds nothing up: not a stop, a limit or a question."""

from __future__ import annotations

import asyncio
import json

import pytest

from symphony.model.run import OutcomeKind, StopReason

from .conftest import Bench

ASKING = {
    "ask": "item/tool/requestUserInput",
    "params": {"questions": [{"id": "q", "question": "Which colour?", "options": []}]},
}
SPENDING = {
    "notify": "thread/tokenUsage/updated",
    "params": {"tokenUsage": {"total": {"inputTokens": 900, "totalTokens": 900}}},
}


@pytest.mark.parametrize("lingers", [False, True])
@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (StopReason.OPERATOR, OutcomeKind.CANCELLED),
        (StopReason.TERMINAL, OutcomeKind.CANCELLED),
        (StopReason.STALLED, OutcomeKind.STALLED),
    ],
)
async def test_a_stop_asks_once_and_then_ends_the_process(
    bench: Bench,
    reason: StopReason,
    kind: OutcomeKind,
    lingers: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench.script(turns=[[{"hang": True}]], deaf=True, linger=lingers)
    attempt = bench.attempt()
    await bench.ledger.run_started(attempt.spec, started_wall=1.0)
    running = asyncio.create_task(attempt.run())
    await bench.until(lambda: bench.progress.turn_id)
    await bench.ledger.flush()  # with that the turn's start is told, and its end waited for

    attempt.stop(reason)
    outcome = await running

    assert (outcome.kind, outcome.stop_reason) == (kind, reason)
    # Nothing was asked after the interrupt: what was waited for is that one reply.
    assert [one["method"] for one in bench.received()][-1] == "turn/interrupt"
    assert len(bench.received("turn/interrupt")) == 1
    assert "Agent did not end its turn" in caplog.text
    assert bench.hooks_run() == 1


async def test_a_question_ends_the_run_of_a_deaf_agent_too(bench: Bench) -> None:
    bench.script(turns=[[ASKING, {"hang": True}]], deaf=True)
    outcome = await bench.run()
    assert outcome.kind is OutcomeKind.INPUT_REQUIRED
    assert "Which colour?" in outcome.message
    assert bench.received("turn/interrupt") != []


async def test_a_deaf_agent_spends_nothing_more_once_its_budget_is_spent(bench: Bench) -> None:
    bench.configure("budget: {turn: {tokens: 500}}\n")
    bench.script(turns=[[SPENDING, {"hang": True}]], deaf=True)
    outcome = await bench.run()
    assert outcome.category == "budget_turn"
    assert bench.received("turn/interrupt") != []


async def test_a_deaf_agent_that_never_begins_is_ended_too(bench: Bench) -> None:
    command = bench.workflow.settings.codex.command
    codex = {"command": command, "first_event_timeout_ms": 100, "stall_timeout_ms": 0}
    bench.configure(f"codex: {json.dumps(codex)}\n")
    bench.script(turns=[[{"hang": True}]], deaf=True)
    outcome = await bench.run()
    assert (outcome.kind, outcome.category) == (OutcomeKind.TIMED_OUT, "turn_timeout")
    assert "codex.first_event_timeout_ms" in outcome.message


async def test_the_thread_of_a_deaf_agent_is_resumed(bench: Bench) -> None:
    bench.script(turns=[[{"hang": True}]], deaf=True, user_agent="symphony/0.169.0 (Linux) x")
    attempt = bench.attempt()
    await bench.ledger.run_started(attempt.spec, started_wall=1.0)
    running = asyncio.create_task(attempt.run())
    await bench.until(lambda: bench.progress.turn_id)
    await bench.ledger.flush()  # with that the turn's start is told, and its end waited for
    thread = bench.progress.thread_id
    attempt.stop(StopReason.STALLED)
    await running

    bench.script(turns=[[{"status": "completed"}]], user_agent="symphony/0.169.0 (Linux) x")
    bench.configure("agent: {max_turns: 1}\n")
    outcome = await bench.run(thread_id=thread)

    assert outcome.kind is OutcomeKind.COMPLETED
    assert [one["params"]["threadId"] for one in bench.received("thread/resume")] == [thread]
