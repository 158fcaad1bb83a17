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


def usage(total: int, last: int) -> Event:
    def counts(tokens: int) -> dict[str, int]:
        return {
            "inputTokens": tokens,
            "outputTokens": 0,
            "totalTokens": tokens,
            "cachedInputTokens": 0,
            "reasoningOutputTokens": 0,
        }

    told = {"total": counts(total), "last": counts(last)}
    return event("thread/tokenUsage/updated", threadId="t", turnId="u", tokenUsage=told)


AGENT = event("item/started", threadId="t", turnId="u", item={"type": "reasoning", "id": "i"})


@pytest.mark.parametrize(
    ("events", "used", "repeats_early"),
    [
        ([usage(500, 100), AGENT, usage(530, 30)], 30, False),
        ([usage(500, 100), AGENT, usage(530, 30), AGENT, usage(540, 10)], 40, True),
        ([AGENT, usage(530, 30), AGENT, usage(540, 10)], 40, False),
        ([usage(500, 100)], 0, False),
    ],
)
def test_a_resumed_thread_is_charged_with_its_own_tokens_alone(
    events: list[Event], used: int, repeats_early: bool
) -> None:
    """Codex repeats the old total at a resume, before the agent has done anything, or does not."""
    progress = make_progress()
    narrator = Narrator(
        progress, clock=lambda: Instant(3.0, 100.0), history=lambda *_: None, rate_limits=print
    )
    narrator.call_began(1.0)  # a hook before the session
    narrator.call_ended()
    narrator.resuming()
    if repeats_early:
        narrator.batch(events[:1])
        events = events[1:]
    narrator.resumed("t")

    narrator.batch(events)

    assert progress.usage.total_tokens == used
    assert progress.cost.unpriced_tokens == used


def test_a_full_context_window_is_not_counted_as_spent() -> None:
    """Codex then reports the whole window as the thread's total, beside what was really used."""
    progress = make_progress()
    narrator = Narrator(
        progress,
        clock=lambda: Instant(3.0, 100.0),
        history=lambda *_: None,
        rate_limits=lambda _: None,
    )

    def report(total: int, sent: int, received: int) -> None:
        counts = {
            "totalTokens": total,
            "inputTokens": sent,
            "outputTokens": received,
            "cachedInputTokens": 0,
            "reasoningOutputTokens": 0,
        }
        usage = {"total": counts, "last": counts, "modelContextWindow": 258_400}
        ids = {"threadId": "t", "turnId": "u"}
        narrator.batch([event("thread/tokenUsage/updated", **ids, tokenUsage=usage)])

    report(258_400, 0, 0)
    assert progress.usage.total_tokens == 0
    report(260_960, 2_400, 160)
    assert progress.usage.total_tokens == 2_560
    report(400_000, 380_000, 20_000)
    assert progress.usage.total_tokens == 400_000
