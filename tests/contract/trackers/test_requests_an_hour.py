"""What polling costs: 200 active issues, ten of them running, a poll every 30 s, no options.

The table stands in docs/trackers/requests.md; what a 304 answers is counted apart. Ten polls are
made and taken times twelve, since they are alike but for what comes with every tenth of them.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tracker_worlds import REMOTE, RemoteHarness

from symphony.config.settings import TrackerSettings
from symphony.engine.trackers import fetch_from_owners
from symphony.trackers import registry
from symphony.trackers.base import Metered

DOCS = Path(__file__).resolve().parents[3] / "docs" / "trackers" / "requests.md"
ISSUES, RUNNING, POLLS = 200, 10, 10
AN_HOUR = 120 // POLLS
OPTIONS = ("dependencies", "blocking_links")

COSTS = {
    # kind: requests of a quiet hour, those with 304; of an hour with a change before each poll
    "linear": (168, 0, 276, 0),
    "github": (120, 240, 360, 120),
    "gitlab": (0, 360, 240, 240),
    "jira": (360, 0, 360, 0),
    "asana": (480, 0, 480, 0),
}


async def spent(remote: RemoteHarness, *, changing: bool) -> tuple[int, int]:
    """Requests of an hour that count, and those that were answered with 304."""
    provider = {k: v for k, v in remote.section["provider"].items() if k not in OPTIONS}
    settings = TrackerSettings.model_validate({**remote.section, "provider": provider})
    tracker = registry.build(settings, remote.environ, Path())
    assert isinstance(tracker, Metered)
    states = settings.active_states
    running = [issue.id for issue in await tracker.fetch_issues_by_states(states)][:RUNNING]
    await tracker.fetch_issues_by_ids(running)
    before = (tracker.http.requests, tracker.http.not_modified)
    for number in range(POLLS):
        remote.server.pass_time(30)
        if changing:
            # One issue of the second page, so that a part of the list stays as it was.
            remote.set_state(ISSUES - number, "In Progress")
        # Side by side and in this order, as the scheduler begins a cycle.
        refreshed, candidates = await asyncio.gather(
            fetch_from_owners(running, owners={}, default=lambda: tracker),
            tracker.fetch_issues_by_states(states),
        )
        assert (len(refreshed), len(candidates)) == (RUNNING, ISSUES)
    sent, unchanged = tracker.http.requests - before[0], tracker.http.not_modified - before[1]
    await tracker.aclose()
    return (sent - unchanged) * AN_HOUR, unchanged * AN_HOUR


async def test_an_hour_of_polls_costs_what_the_table_says(remote: RemoteHarness) -> None:
    for number in range(1, ISSUES + 1):
        remote.put(number)
    remote.server.pass_time(3_600)
    quiet = await spent(remote, changing=False)
    busy = await spent(remote, changing=True)
    kind = remote.tracker.kind
    assert (*quiet, *busy) == COSTS[kind]


@pytest.mark.parametrize("kind", REMOTE)
def test_the_published_table_is_the_measured_one(kind: str) -> None:
    quiet, quiet_304, busy, busy_304 = COSTS[kind]
    row = f"| `{kind}` | {quiet} | {quiet_304} | {busy} | {busy_304} |"
    assert row in DOCS.read_text(encoding="utf-8")
