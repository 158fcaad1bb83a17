"""Silent runs are found by monotonic time, and reported until something is done about them."""

from __future__ import annotations

from itertools import pairwise

from symphony.engine.stalls import AGAIN_MAX_S, AGAIN_S, SilenceReports, silent_runs
from symphony.model.issue import Issue, IssueId
from symphony.model.run import RunId, RunProgress

RUN = RunId("r-1")


def progress(*, heard: float = 0.0, busy_until: float | None = None) -> RunProgress:
    issue = Issue(id=IssueId("1"), identifier="A-1", title="x", state="Todo", dispatchable=True)
    return RunProgress(
        run_id=RUN,
        issue=issue,
        attempt=None,
        host="local",
        started_mono=0.0,
        started_wall=0.0,
        last_activity_mono=heard,
        busy_until_mono=busy_until,
    )


def test_a_run_is_silent_once_it_has_said_nothing_for_longer_than_the_limit() -> None:
    assert silent_runs({RUN: progress(heard=10.0)}, limit=5.0, now=15.0) == []
    assert silent_runs({RUN: progress(heard=10.0)}, limit=5.0, now=15.5) == [(RUN, 5.5)]


def test_what_is_in_flight_is_alive_up_to_its_own_limit() -> None:
    assert silent_runs({RUN: progress(busy_until=99.0)}, limit=5.0, now=98.0) == []
    assert silent_runs({RUN: progress(busy_until=99.0)}, limit=5.0, now=99.0) == [(RUN, 99.0)]


def test_a_run_that_stays_silent_is_reported_again_ever_more_rarely() -> None:
    reports, times, now = SilenceReports(), [], 0.0
    while now < 4000:
        if reports.due([(RUN, now)], now=now):
            times.append(now)
        now += 5.0
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[:4] == [AGAIN_S, 2 * AGAIN_S, 4 * AGAIN_S, 8 * AGAIN_S]
    assert set(gaps[4:]) == {AGAIN_MAX_S}


def test_a_run_that_was_heard_of_again_begins_anew() -> None:
    reports = SilenceReports()
    silent = [(RUN, 400.0)]
    assert reports.due(silent, now=0.0) == silent
    assert reports.due(silent, now=1.0) == []
    assert reports.due([], now=2.0) == []
    assert reports.due(silent, now=3.0) == silent
