"""What the scheduler is told of a tracker's budgets."""

from __future__ import annotations

from symphony.model.allowance import Allowance
from symphony.scheduler.events import PaceObserved
from symphony.service.pace import observe_pace
from symphony.trackers.github import GitHubTracker
from symphony.trackers.github_settings import GitHubSettings
from symphony.trackers.http_limits import RateLimit
from symphony.trackers.memory import MemoryTracker


def test_each_budget_that_tells_enough_is_passed_on_in_seconds_from_now() -> None:
    tracker = GitHubTracker(GitHubSettings(owner="octo", repo="demo", token="ghp_test"))
    tracker.http.rate_limits |= {
        "core": RateLimit(5_000, 4_000, 1_060.0, "core"),
        "graphql": RateLimit(None, 7, 990.0, "graphql"),
        "search": RateLimit(30, None, 1_060.0, "search"),
        "": RateLimit(30, 3, None),
    }
    assert observe_pace(tracker, webhooks=True, wall=1_000.0) == PaceObserved(
        (Allowance("core", 5_000, 4_000, 60.0), Allowance("graphql", None, 7, -10.0)), webhooks=True
    )


def test_a_tracker_without_http_has_none() -> None:
    assert observe_pace(MemoryTracker(), webhooks=False, wall=0.0) == PaceObserved(())
