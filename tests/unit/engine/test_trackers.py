"""Reads that go to several trackers: all of it or one error, and nothing left over."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from symphony.engine.trackers import fetch_from_owners
from symphony.errors import TrackerError
from symphony.model.issue import Issue, IssueId
from symphony.trackers.memory import MemoryTracker


class SilentTracker(MemoryTracker):
    """Never answers."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.given_up = asyncio.Event()

    async def fetch_issues_by_ids(self, ids: Sequence[IssueId]) -> list[Issue]:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.given_up.set()
        raise AssertionError("nobody sets that event")


class LateFailure(MemoryTracker):
    """Fails once another tracker has been asked."""

    def __init__(self, after: asyncio.Event) -> None:
        super().__init__()
        self._after = after

    async def fetch_issues_by_ids(self, ids: Sequence[IssueId]) -> list[Issue]:
        await self._after.wait()
        raise TrackerError("tracker_request", "down")


def make_issue(name: str) -> Issue:
    return Issue(id=IssueId(name), identifier=name, title=name, state="Todo", dispatchable=True)


async def test_each_issue_is_read_from_its_owner_and_the_rest_from_the_tracker_in_force() -> None:
    former, present = MemoryTracker([make_issue("A")]), MemoryTracker([make_issue("B")])
    found = await fetch_from_owners(
        [IssueId("A"), IssueId("B")], owners={IssueId("A"): former}, default=lambda: present
    )
    assert [issue.id for issue in found] == ["A", "B"]


async def test_a_read_that_fails_leaves_no_other_read_behind() -> None:
    silent = SilentTracker()
    failing = LateFailure(silent.asked)
    with pytest.raises(TrackerError, match="down"):
        await fetch_from_owners(
            [IssueId("A"), IssueId("B")], owners={IssueId("A"): silent}, default=lambda: failing
        )
    assert silent.given_up.is_set()
