"""How far apart the polls are: budgets of the tracker and webhooks, in virtual time."""

from __future__ import annotations

import pytest

from symphony.model.allowance import Allowance
from symphony.scheduler.commands import FetchCandidates, Level, Note
from symphony.scheduler.events import CandidatesFailed, PaceObserved, RefreshRequested
from symphony.scheduler.pacing import RESERVE, Pace


def told(remaining: int, reset_in_s: float, limit: int | None = 1_000) -> PaceObserved:
    return PaceObserved((Allowance("", limit, remaining, reset_in_s),))


def plan(pace: Pace, mono: float = 0.0, longest_s: float = 600.0) -> float:
    return pace.plan(30.0, floor_s=120.0, longest_s=longest_s, mono=mono)


def observe(pace: Pace, remaining: int, reset_in_s: float, mono: float = 0.0) -> None:
    event = told(remaining, reset_in_s)
    pace.observe(event.allowances, webhooks=False, mono=mono)


def test_without_a_word_of_the_tracker_the_configured_interval_counts() -> None:
    pace = Pace()
    assert plan(pace) == 30.0
    assert pace.reason is None


def test_an_ample_budget_changes_nothing() -> None:
    pace = Pace()
    observe(pace, 990, 3_600)
    observe(pace, 986, 3_570, 30.0)
    pace.end_cycle()
    assert plan(pace, 30.0) == 30.0
    assert pace.reason is None


def test_a_scarce_one_is_shared_out_among_the_polls_of_its_window() -> None:
    pace = Pace()
    observe(pace, 320, 3_600)
    observe(pace, 300, 3_600)
    pace.end_cycle()
    # 200 may be used, a poll costs 20: ten polls in an hour.
    assert plan(pace) == 360.0
    assert pace.reason == (
        "the tracker has 300 of 1000 requests left for 3600 s, and a poll costs about 20"
    )


@pytest.mark.parametrize(("remaining", "reset_in_s"), [(0, 900.0), (99, 900.0), (0, 1e9)])
def test_an_empty_one_waits_for_its_reset_and_never_longer_than_is_allowed(
    remaining: int, reset_in_s: float
) -> None:
    pace = Pace()
    observe(pace, remaining, reset_in_s)
    pace.end_cycle()
    assert plan(pace) == 600.0
    assert plan(pace, longest_s=10_000.0) == min(reset_in_s, 10_000.0)
    assert plan(pace, longest_s=5.0) == 30.0


def test_a_new_window_brings_the_configured_interval_back() -> None:
    pace = Pace()
    observe(pace, 320, 100)
    observe(pace, 110, 100)
    pace.end_cycle()
    assert plan(pace) == 100.0
    assert plan(pace, 101.0) == 30.0
    observe(pace, 1_000, 3_600, 101.0)
    pace.end_cycle()
    # The cost of before is still believed in part, and there is enough for it.
    assert plan(pace, 101.0) == pytest.approx(3_600 * 105 / 900)
    pace.end_cycle()
    pace.end_cycle()
    pace.end_cycle()
    assert plan(pace, 101.0) < 60


def test_the_tightest_of_several_budgets_counts_and_is_named() -> None:
    pace = Pace()
    both = (Allowance("core", 5_000, 4_000, 60.0), Allowance("graphql", None, 0, 400.0))
    pace.observe(both, webhooks=False, mono=0.0)
    assert plan(pace) == 400.0
    assert pace.reason is not None
    assert "0 requests (graphql) left" in pace.reason


def test_a_day_of_polls_never_uses_the_reserve_up_and_never_stops() -> None:
    """1000 requests an hour, a poll that costs 30 every 30 s would need 3600."""
    pace, mono, window_end, remaining, gaps = Pace(), 0.0, 3_600.0, 1_000, []
    lowest = remaining
    while mono < 86_400:
        if mono >= window_end:
            window_end += 3_600 * (1 + (mono - window_end) // 3_600)
            remaining = 1_000
        remaining -= 30
        lowest = min(lowest, remaining)
        observe(pace, remaining, window_end - mono, mono)
        pace.end_cycle()
        gaps.append(plan(pace, mono))
        mono += gaps[-1]
    assert lowest > 0
    assert lowest >= 1_000 * RESERVE - 2 * 30
    assert max(gaps) <= 600.0
    assert min(gaps) == 30.0
    assert len(gaps) > 24 * 25


def test_the_poll_waits_as_long_as_the_budget_asks_and_says_why(drive) -> None:
    driver = drive(polling={"interval_ms": 30_000})
    driver.start()
    driver.send(told(100, 500.0))
    driver.wake(30)
    driver.offer()
    assert driver.wakes_in() == pytest.approx(470.0)
    # Whoever asks for a poll gets it at once all the same.
    assert isinstance(driver.send(RefreshRequested())[0], FetchCandidates)
    driver.offer()
    driver.wake(470)
    driver.send(told(1_000, 3_600.0))
    driver.offer()
    assert driver.wakes_in() == 30.0


def test_webhooks_that_are_well_make_the_poll_a_floor_until_they_are_not(drive) -> None:
    driver = drive(webhooks={"poll_interval_ms": 120_000})
    driver.start()
    driver.send(PaceObserved((), webhooks=True))
    driver.wake(30)
    driver.offer()
    assert driver.wakes_in() == 120.0
    driver.advance(50)
    driver.send(PaceObserved((), webhooks=False))
    assert driver.wakes_in() == 0.0


def test_a_tracker_that_can_not_be_read_is_a_warning_once_and_its_end_a_line(drive) -> None:
    driver = drive()
    driver.start()

    def fail(message: str) -> list[tuple[Level, str]]:
        (fetch,) = driver.wake(30)
        failed = CandidatesFailed(fetch.cause, "tracker_request", message, None)
        return [(n.level, n.message) for n in driver.send(failed) if isinstance(n, Note)]

    failed = "candidate fetch failed"
    assert fail("left alone for another 12 s: gone") == [(Level.WARNING, failed)]
    assert fail("left alone for another 3 s: gone") == [(Level.DEBUG, failed)]
    assert fail("HTTP 404") == [(Level.WARNING, failed)]
    assert fail("HTTP 500") == [(Level.WARNING, failed)]
    # The breaker's refusals and what its canaries meet take turns.
    assert fail("HTTP 404") == [(Level.DEBUG, failed)]
    assert fail("left alone: 7 failures in a row") == [(Level.WARNING, failed)]
    assert fail("left alone: 8 failures in a row") == [(Level.DEBUG, failed)]
    driver.wake(30)
    notes = [n.message for n in driver.offer() if isinstance(n, Note)]
    assert notes == ["the tracker can be read again"]
    driver.wake(30)
    assert not [n for n in driver.offer() if isinstance(n, Note)]
