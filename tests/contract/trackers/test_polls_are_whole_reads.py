"""Polls return what reads of everything would, for any history of a board, on every provider.

The subject polls: it remembers, asks for changes, lets one read answer for another. The oracle is
another tracker that has read nothing before, so that it can only ask. What an issue's age or a
clock says must not matter: edits share instants with the poll before, and the provider's clock is
anywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rest_server import Fault
from tracker_worlds import REMOTE, RemoteHarness, open_harness

from symphony.config.settings import TrackerSettings
from symphony.model.issue import Issue, IssueId
from symphony.trackers import github_settings, gitlab_settings, registry
from symphony.trackers.base import Tracker
from symphony.trackers.github import GitHubTracker
from symphony.trackers.gitlab import GitLabTracker

STATES = ["Todo", "In Progress"]
SECOND_PAGE = {
    # What only the request of a second page holds; Linear and the lists of 100 have none here.
    "jira": ("POST /rest/api/3/search/jql", 2),
    "asana": ("offset-3", 1),
}
EDITS = ("title", "labels", "finish", "reopen", "out", "back")
EVENTS = st.tuples(
    st.sampled_from([*EDITS, "put", "state", "state", "remove", "wait"]),
    st.integers(0, 30),
    st.integers(0, 200),
)
History = list[list[tuple[str, int, int]]]


class Board:
    """A provider with a few issues, the tracker that polls it, and ever new ones beside it."""

    def __init__(self, remote: RemoteHarness, *, changes: bool, options: bool) -> None:
        self.remote = remote
        provider = dict(remote.section["provider"])
        if not options:
            for name in ("dependencies", "blocking_links"):
                provider.pop(name, None)
        self.settings = TrackerSettings.model_validate({**remote.section, "provider": provider})
        self.tracker = self._subject() if changes else self.new_tracker()
        self.ids: dict[int, IssueId] = {}
        self.gone: set[int] = set()

    def new_tracker(self) -> Tracker:
        return registry.build(self.settings, self.remote.environ, Path())

    def _subject(self) -> Tracker:
        """A tracker that reads by changes however short its list is, where it can."""
        match self.settings.kind:
            case "github":
                github, _ = github_settings.resolve(self.settings, self.remote.environ)
                assert github is not None
                return GitHubTracker(github, whole_pages=0)
            case "gitlab":
                gitlab, _ = gitlab_settings.resolve(self.settings, self.remote.environ)
                assert gitlab is not None
                return GitLabTracker(gitlab, whole_pages=0)
            case _:
                return self.new_tracker()

    def happen(self, event: tuple[str, int, int]) -> None:
        kind, which, choice = event
        there = [number for number in self.ids if number not in self.gone]
        if kind == "put" or not there:
            number = len(self.ids) + 1
            # It waits for the one before, where there is one.
            blocked_by = there[-1:] if choice % 3 == 0 else []
            state = STATES[choice % 2]
            self.ids[number] = self.remote.put(number, state=state, blocked_by=blocked_by)
        elif kind == "wait":
            self.remote.server.pass_time(choice)
        else:
            number = there[which % len(there)]
            if kind == "state":
                self.remote.set_state(number, [*STATES, "Done"][choice % 3])
            elif kind == "remove":
                self.gone.add(number)
                self.remote.remove(number)
            else:
                self.remote.change(number, kind, choice)

    async def poll(self, ids: list[IssueId]) -> tuple[list[Issue], list[Issue]]:
        """Both reads, side by side as the scheduler begins them."""
        refreshed, listed = await asyncio.gather(
            self.tracker.fetch_issues_by_ids(ids), self.tracker.fetch_issues_by_states(STATES)
        )
        return refreshed, listed

    async def truth(self, ids: list[IssueId]) -> tuple[list[Issue], list[Issue]]:
        oracle = self.new_tracker()
        try:
            refreshed = await oracle.fetch_issues_by_ids(ids)
            return refreshed, await oracle.fetch_issues_by_states(STATES)
        finally:
            await oracle.aclose()


@asynccontextmanager
async def open_board(
    kind: str, *, changes: bool = False, options: bool = False, skew_s: float = 0.0
) -> AsyncIterator[Board]:
    """A board of eight issues in pages of three, read once."""
    async with open_harness(kind, Path()) as remote:
        remote.server.pass_time(skew_s)
        remote.server.page_size = 3
        board = Board(remote, changes=changes, options=options)
        for number in range(1, 9):
            board.happen(("put", 0, number))
        try:
            await board.tracker.fetch_issues_by_states(STATES)
            yield board
        finally:
            await board.tracker.aclose()


@pytest.mark.parametrize("kind", REMOTE)
@given(
    history=st.lists(st.lists(EVENTS, max_size=5), min_size=1, max_size=5),
    running=st.lists(st.integers(1, 12), max_size=4, unique=True),
    skew_s=st.integers(-100_000, 100_000),
    changes=st.booleans(),
    options=st.booleans(),
)
@example([[("finish", 2, 0)], [("reopen", 2, 0)]], [3, 1], 0, True, False)
@example([[("out", 1, 0), ("remove", 0, 0)], [("back", 0, 0)]], [1, 2], 90_000, False, True)
@example([[("title", 1, 1)], [("title", 1, 2)], []], [2], -90_000, True, True)
@example([[("labels", 1, 2)], [("labels", 1, 0)]], [2], 0, True, False)
@settings(max_examples=8, deadline=None)
async def test_a_poll_returns_what_reads_of_everything_would(
    kind: str, history: History, running: list[int], skew_s: int, changes: bool, options: bool
) -> None:
    async with open_board(kind, changes=changes, options=options, skew_s=skew_s) as board:
        for events in history:
            for event in events:
                board.happen(event)
            ids = [board.ids[number] for number in running if number in board.ids]
            assert await board.poll(ids) == await board.truth(ids)
            board.remote.server.pass_time(30)


@pytest.mark.parametrize("kind", sorted(SECOND_PAGE))
@given(between=st.lists(EVENTS, min_size=1, max_size=4), running=st.sets(st.integers(1, 8)))
@example([("remove", 0, 0)], {4, 5})
@example([("state", 0, 2), ("put", 0, 0)], {1, 4, 8})
@settings(max_examples=8, deadline=None)
async def test_pages_that_shift_during_the_read_lose_no_running_issue(
    kind: str, between: list[tuple[str, int, int]], running: set[int]
) -> None:
    def happens() -> None:
        for event in between:
            board.happen(event)

    async with open_board(kind) as board:
        ids = [board.ids[number] for number in sorted(running)]
        before, _ = await board.truth(ids)
        only, nth = SECOND_PAGE[kind]
        # The first of two such faults lets its request pass, so that the second meets a page.
        board.remote.server.faults.extend(
            Fault(only=only, before=happens if n == nth else lambda: None)
            for n in range(1, nth + 1)
        )
        refreshed, _ = await board.poll(ids)
        assert not board.remote.server.faults
        after, listed = await board.truth(ids)
        stayed = {issue.id for issue in before} & {issue.id for issue in after}
        assert stayed <= {issue.id for issue in refreshed}
        if len(between) == 1:
            # Of several changes some may come before an issue is read and some after.
            assert all(issue in (*before, *after) for issue in refreshed)
        assert await board.poll(ids) == (after, listed)
