"""SPEC 8.2 and 8.4 once more, in the oracle's own words: who is wanted, and when a retry is due."""

from __future__ import annotations

from dataclasses import dataclass

from symphony.config.settings import Settings
from symphony.model.clock import Instant
from symphony.model.issue import Issue
from symphony.model.run import Outcome, OutcomeKind, RetryKind, RunSpec, StopReason
from symphony.scheduler.events import RunEnded


@dataclass(slots=True)
class Due:
    """What the next run of an issue must be, and when it may start at the earliest."""

    attempt: int | None
    kind: RetryKind
    failures: int
    not_before: float


@dataclass(slots=True)
class Live:
    """A run whose end the scheduler has not been told."""

    spec: RunSpec
    failures: int
    stop: StopReason | None = None


def standing(issue: Issue, settings: Settings) -> str:
    """Return ``terminal``, ``inactive``, ``unroutable`` or ``wanted``."""
    tracker = settings.tracker
    state = issue.state.strip().lower()
    if state in {name.lower() for name in tracker.terminal_states}:
        return "terminal"
    if state not in {name.lower() for name in tracker.active_states}:
        return "inactive"
    lacks = set(tracker.required_labels) - set(issue.labels)
    return "unroutable" if lacks or not issue.dispatchable else "wanted"


def is_within(windows: tuple[str, ...], wall: float) -> bool:
    """Say whether ``HH:MM-HH:MM`` windows, of every day in UTC, let work start."""
    minute = wall % 86_400 / 60
    spans = [[_minutes(end) for end in window.split("-")] for window in windows]
    return not spans or any(
        start <= minute < end if start < end else minute >= start or minute < end
        for start, end in spans
    )


def _minutes(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 60 + int(minutes)


def is_usage_limit(outcome: Outcome) -> bool:
    return (outcome.code or "").lower() == "usagelimitexceeded"


def due_after(live: Live, event: RunEnded, settings: Settings, now: Instant) -> Due:
    """Return what the next run must be after this end, and when it may start."""
    outcome = event.outcome
    if outcome.kind is OutcomeKind.COMPLETED:
        return Due(1, RetryKind.CONTINUATION, 0, now.mono + 1.0)
    if live.stop is StopReason.BUDGET_DAY:
        return Due(live.spec.attempt, RetryKind.RECOVERY, live.failures, now.mono + 1.0)
    wait_s = (outcome.retry_at or 0.0) - now.wall
    cap_s = settings.agent.max_retry_backoff_ms / 1000
    if is_usage_limit(outcome):
        wait_s = wait_s if wait_s > 0 else cap_s
        return Due(live.spec.attempt, RetryKind.FAILURE, live.failures, now.mono + wait_s)
    failures = live.failures + 1
    # Jitter shortens by a tenth at most.
    delay_s = min(10.0 * 2 ** min(failures - 1, 30), cap_s) * 0.9
    return Due(failures, RetryKind.FAILURE, failures, now.mono + max(delay_s, wait_s))
