"""What passes between an agent and its session's tracker, and what must not (SPEC 10.5, 15.3)."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from symphony.model.issue import Issue
from symphony.model.run import OutcomeKind
from symphony.trackers.base import ToolContext, ToolResult

from .conftest import Bench, ToolTracker

DONE = [{"tool": "move", "arguments": {"state": "Done"}}, {"status": "completed"}]


class SecretiveTracker(ToolTracker):
    """A board whose token lies in a variable, and which remembers for whom its tool was called."""

    secret_environment_names = ("SECRET_OF_OURS",)

    def __init__(self, issues: list[Issue]) -> None:
        super().__init__(issues)
        self.contexts: list[ToolContext] = []

    async def call_tool(self, name: str, arguments: Any, context: ToolContext) -> ToolResult:
        self.contexts.append(context)
        return await super().call_tool(name, arguments, context)


@pytest.fixture
def tracker(bench: Bench) -> SecretiveTracker:
    issue = replace(bench.tracker.issues[0], native_ref={"node": "n-7"})
    bench.tracker = made = SecretiveTracker([issue])
    return made


async def test_a_variable_that_the_tracker_calls_secret_does_not_reach_the_agent(
    bench: Bench, tracker: SecretiveTracker
) -> None:
    assert bench.environ["SECRET_OF_OURS"]
    bench.script(turns=[DONE])
    await bench.run()
    (started,) = bench.recorded("start")
    assert "SECRET_OF_OURS" not in started["env"]
    assert bench.environ["SECRET_OF_OURS"] not in started["env"].values()


async def test_a_tool_is_told_the_issue_as_it_was_read_last_and_its_native_ids(
    bench: Bench, tracker: SecretiveTracker
) -> None:
    again = {"tool": "move", "arguments": {"state": "In Progress"}}
    bench.script(turns=[[again, {"status": "completed"}], DONE])

    assert (await bench.run()).kind is OutcomeKind.COMPLETED

    assert [context.issue.state for context in tracker.contexts] == ["Todo", "In Progress"]
    assert {context.issue.native_ref["node"] for context in tracker.contexts} == {"n-7"}
    assert {context.run_id for context in tracker.contexts} == {bench.progress.run_id}


async def test_lines_about_a_session_name_issue_and_session(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "symphony")
    bench.script(turns=[DONE])
    await bench.run()
    lines = {record.message: vars(record) for record in caplog.records}
    for message in ("Codex session started", "Codex session completed", "Completed agent run"):
        line = lines[message]
        assert (line["issue_id"], line["issue_identifier"]) == ("1", "A-1")
        assert line["session_id"] == f"{bench.progress.thread_id}-turn-1"


async def test_thread_and_turn_make_the_session_id_of_session_started(bench: Bench) -> None:
    bench.script(turns=[DONE])
    await bench.run()
    await bench.ledger.flush()
    events = await bench.ledger.recent_events("A-1")
    (started,) = [event for event in events if event.event == "session_started"]
    assert started.message == f"session started ({bench.progress.session_id})"
    assert bench.progress.session_id == f"{bench.progress.thread_id}-turn-1"
