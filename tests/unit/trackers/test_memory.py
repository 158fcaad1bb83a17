from __future__ import annotations

import asyncio
import json

import pytest

from symphony.errors import TrackerError
from symphony.model.issue import Issue, IssueId
from symphony.trackers.base import ToolContext
from symphony.trackers.memory import MemoryTracker


async def test_every_change_wakes_the_watchers(context: ToolContext) -> None:
    tracker = MemoryTracker()
    first, second = tracker.changes(), tracker.changes()
    waiting = [asyncio.ensure_future(anext(watch)) for watch in (first, second)]
    tracker.put(context.issue)
    await asyncio.gather(*waiting)
    again = asyncio.ensure_future(anext(first))
    await asyncio.wait([again], timeout=0)
    assert not again.done()
    tracker.update("DEMO-1", state="Done")
    await again
    last = asyncio.ensure_future(anext(second))
    tracker.remove("DEMO-1")
    await last
    assert tracker.issues == ()


async def test_a_failure_that_is_set_fails_every_read(context: ToolContext) -> None:
    tracker = MemoryTracker([context.issue])
    tracker.failure = TrackerError("tracker_request", "down")
    with pytest.raises(TrackerError, match="down"):
        await tracker.fetch_issues_by_states(["Todo"])
    with pytest.raises(TrackerError, match="down"):
        await tracker.fetch_issues_by_ids([IssueId("DEMO-1")])
    tracker.failure = None
    found: list[Issue] = await tracker.fetch_issues_by_states([" TODO "])
    assert found == [context.issue]
    assert tracker.reads == 3


async def test_there_are_no_tools(context: ToolContext) -> None:
    tracker = MemoryTracker()
    assert tracker.agent_tools() == ()
    result = await tracker.call_tool("x", {}, context)
    assert not result.success
    assert json.loads(result.text)["error"]["supportedTools"] == []
