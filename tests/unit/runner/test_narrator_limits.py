"""Rate limits that Codex reports are handed on as they came."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
from codex_app_server.events import Event, Notification

from symphony.model.clock import Instant
from symphony.model.issue import Issue, IssueId
from symphony.model.run import RunId, RunProgress
from symphony.runner.narrator import Narrator


def event(method: str, **params: Any) -> Event:
    raw = json.dumps({"method": method, "params": params}).encode()
    return msgspec.structs.replace(msgspec.json.decode(raw, type=Notification), raw=raw)


def test_limits_are_handed_on_and_hide_nothing_of_what_the_agent_does() -> None:
    issue = Issue(id=IssueId("1"), identifier="A-1", title="x", state="Todo", dispatchable=True)
    progress = RunProgress(
        run_id=RunId("r"),
        issue=issue,
        attempt=None,
        host="local",
        started_mono=0.0,
        started_wall=0.0,
        last_activity_mono=0.0,
    )
    seen: list[Mapping[str, Any]] = []
    narrator = Narrator(
        progress,
        clock=lambda: Instant(3.0, 100.0),
        history=lambda *_: None,
        rate_limits=seen.append,
    )
    limits = {"limitId": "codex", "primary": {"usedPercent": 40, "windowDurationMins": 300}}
    item = event("item/completed", threadId="t", turnId="u", item={"type": "later", "id": "i"})

    narrator.batch([item, event("account/rateLimits/updated", rateLimits=limits)])
    narrator.batch([event("account/rateLimits/updated", rateLimits="none")])

    assert seen == [limits]
    assert progress.last_message is item
    assert progress.last_activity_mono == 3.0
