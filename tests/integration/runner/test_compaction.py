"""A full window of a thread that can't be compacted fails the run; the next begins anew."""

from __future__ import annotations

from typing import Any

import pytest

from symphony.model.run import OutcomeKind

from .conftest import Bench

VERSIONED = "symphony/0.169.0 (Linux) x"
FULL = [
    {
        "status": "failed",
        "error": {"message": "no room", "codexErrorInfo": "contextWindowExceeded"},
    }
]


@pytest.mark.parametrize(
    ("script", "asked"),
    [
        ({"user_agent": VERSIONED, "refuse": ["thread/compact/start"]}, 1),
        # A server that tells no version may know four requests and no more.
        ({}, 0),
    ],
)
async def test_a_thread_that_can_not_be_compacted_fails_the_run(
    bench: Bench, script: dict[str, Any], asked: int
) -> None:
    bench.script(turns=[FULL], **script)
    outcome = await bench.run()
    assert (outcome.kind, outcome.code) == (OutcomeKind.FAILED, "contextWindowExceeded")
    assert outcome.retryable
    assert len(bench.received("thread/compact/start")) == asked
    assert len(bench.received("turn/start")) == 1


async def test_the_last_turn_of_a_run_is_not_worth_a_compaction(bench: Bench) -> None:
    bench.configure("agent: {max_turns: 1}\n")
    bench.script(turns=[FULL], user_agent=VERSIONED)
    outcome = await bench.run()
    assert outcome.code == "contextWindowExceeded"
    assert bench.received("thread/compact/start") == []
