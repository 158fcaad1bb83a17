"""What polling costs: 200 active issues, ten of them running, a poll every 30 s, no options.

The table stands in docs/trackers/requests.md; what a 304 answers is counted apart. Ten polls are
made and taken times twelve, since they are alike but for what comes with every tenth of them.
A row that is out of date fails with the measured one.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from tracker_worlds import RemoteHarness

from symphony.config.settings import TrackerSettings
from symphony.engine.trackers import fetch_from_owners
from symphony.trackers import registry
from symphony.trackers.base import Metered

DOCS = Path(__file__).resolve().parents[3] / "docs" / "trackers" / "requests.md"
ISSUES, RUNNING, POLLS = 200, 10, 10
AN_HOUR = 120 // POLLS
OPTIONS = ("dependencies", "blocking_links")

BUSY = {
    "quiet": lambda remote, number: None,
    # One issue of the second page, so that a part of the list stays as it was.
    "busy": lambda remote, number: remote.set_state(ISSUES - number, "In Progress"),
    "leaving": lambda remote, number: remote.set_state(number + 1, "Done"),
}
PAGES = {"linear": 1}
"""Requests of a poll that finds everything as it was; the others read 200 issues in two pages."""


async def spent(remote: RemoteHarness, kind: str) -> tuple[int, int, int]:
    """Requests of an hour that count, those that were answered with 304, and the dearest poll."""
    provider = {k: v for k, v in remote.section["provider"].items() if k not in OPTIONS}
    settings = TrackerSettings.model_validate({**remote.section, "provider": provider})
    tracker = registry.build(settings, remote.environ, Path())
    assert isinstance(tracker, Metered)
    states = settings.active_states
    found = {issue.id: issue for issue in await tracker.fetch_issues_by_states(states)}
    running = list(found)[:RUNNING]
    await tracker.fetch_issues_by_ids(running)
    before = (tracker.http.requests, tracker.http.not_modified)
    dearest, left = 0, 0
    for number in range(POLLS):
        remote.server.pass_time(30)
        BUSY[kind](remote, number)
        left += kind == "leaving"
        at = tracker.http.requests
        # Side by side and in this order, as the scheduler begins a cycle.
        answer, candidates = await asyncio.gather(
            fetch_from_owners(running, owners={}, default=tracker),
            tracker.fetch_issues_by_states(states),
        )
        refreshed = answer.issues
        assert (len(refreshed), len(candidates)) == (len(running), ISSUES - left)
        if number < POLLS - 1:
            # The last of ten polls is a whole read on Linear.
            dearest = max(dearest, tracker.http.requests - at)
        # Whoever left is stopped, and not asked for again.
        running = [issue.id for issue in refreshed if issue.state != "Done"]
    sent, unchanged = tracker.http.requests - before[0], tracker.http.not_modified - before[1]
    await tracker.aclose()
    return (sent - unchanged) * AN_HOUR, unchanged * AN_HOUR, dearest


async def test_an_hour_of_polls_costs_what_the_table_says(remote: RemoteHarness) -> None:
    for number in range(1, ISSUES + 1):
        remote.put(number)
    remote.server.pass_time(3_600)
    kind = remote.tracker.kind
    costs = [await spent(remote, how) for how in BUSY]
    cells = " | ".join(f"{sent} | {unchanged}" for sent, unchanged, _ in costs)
    rows = [r for r in DOCS.read_text(encoding="utf-8").splitlines() if r.startswith(f"| `{kind}`")]
    assert rows == [f"| `{kind}` | {cells} |"]
    sent, unchanged, _ = costs[0]
    assert sent + unchanged <= 300, "a quiet board"
    assert all(dearest <= PAGES.get(kind, 2) + 1 for *_, dearest in costs)
