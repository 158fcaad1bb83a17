"""What a connection reports becomes a run's record, whatever shape it has."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from codex_app_server.events import Event, Notification

from symphony.model.clock import Instant
from symphony.model.issue import Issue, IssueId
from symphony.model.run import RunId, RunProgress
from symphony.runner.narrator import Narrator

ISSUE = Issue(id=IssueId("1"), identifier="A-1", title="one", state="Todo", dispatchable=True)


def make_progress() -> RunProgress:
    return RunProgress(
        run_id=RunId("r"),
        issue=ISSUE,
        attempt=None,
        host="local",
        started_mono=0.0,
        started_wall=0.0,
        last_activity_mono=0.0,
    )


def event(method: str, **params: Any) -> Event:
    raw = json.dumps({"method": method, "params": params}).encode()
    return msgspec.structs.replace(msgspec.json.decode(raw, type=Notification), raw=raw)


@pytest.mark.parametrize("usage", [5, None, {"total": {"inputTokens": "many"}}, {"total": None}])
def test_tokens_of_another_shape_do_not_hide_the_rest_of_a_batch(usage: Any) -> None:
    progress, history = make_progress(), []
    narrator = Narrator(
        progress,
        clock=lambda: Instant(3.0, 100.0),
        history=lambda name, _: history.append(name),
        rate_limits=lambda _: None,
    )
    item = event("item/completed", threadId="t", turnId="u", item={"type": "later", "id": "i"})

    narrator.batch([event("thread/tokenUsage/updated", threadId="t", tokenUsage=usage), item])

    assert history == ["item/completed"]
    assert progress.last_message is item
    assert progress.usage.total_tokens == 0
