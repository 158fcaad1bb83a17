"""Reads that go to several trackers: each answers for its own issues, and nothing is left over."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from symphony.engine.trackers import FormerFaults, OwnersAnswer, fetch_from_owners
from symphony.errors import TrackerError
from symphony.model.issue import Issue, IssueId
from symphony.trackers.memory import MemoryTracker

REVOKED = TrackerError("tracker_status", "answered with HTTP 401; check the token", status=401)


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


def make_issue(name: str) -> Issue:
    return Issue(id=IssueId(name), identifier=name, title=name, state="Todo", dispatchable=True)


async def test_each_issue_is_read_from_its_owner_and_the_rest_from_the_tracker_in_force() -> None:
    former, present = MemoryTracker([make_issue("A")]), MemoryTracker([make_issue("B")])
    answer = await fetch_from_owners(
        [IssueId("A"), IssueId("B")], owners={IssueId("A"): former}, default=present
    )
    assert [issue.id for issue in answer.issues] == ["A", "B"]
    assert (answer.unread, answer.asked) == (frozenset(), 2)


@pytest.mark.parametrize("failing", ["former", "present"])
async def test_a_tracker_that_refuses_says_nothing_of_the_issues_of_another(failing: str) -> None:
    former, present = MemoryTracker([make_issue("A")]), MemoryTracker([make_issue("B")])
    broken, lost = (former, "A") if failing == "former" else (present, "B")
    broken.failure = REVOKED
    answer = await fetch_from_owners(
        [IssueId("A"), IssueId("B")], owners={IssueId("A"): former}, default=present
    )
    assert answer.unread == {lost}
    assert {issue.id for issue in answer.issues} == {"A", "B"} - {lost}
    assert answer.error_of(broken) is REVOKED
    assert answer.error_of(former if broken is present else present) is None


async def test_a_read_that_is_given_up_leaves_no_other_read_behind() -> None:
    silent, other = SilentTracker(), SilentTracker()
    read = asyncio.create_task(
        fetch_from_owners(
            [IssueId("A"), IssueId("B")], owners={IssueId("A"): silent}, default=other
        )
    )
    await silent.asked.wait()
    await other.asked.wait()
    read.cancel()
    with pytest.raises(asyncio.CancelledError):
        await read
    assert silent.given_up.is_set()
    assert other.given_up.is_set()


async def test_a_former_tracker_that_can_not_be_read_is_told_once_with_the_mend() -> None:
    former, present = MemoryTracker([make_issue("A")]), MemoryTracker([make_issue("B")])
    faults = FormerFaults()

    async def read() -> OwnersAnswer:
        owners = {IssueId("A"): former}
        answer = await fetch_from_owners(
            [IssueId("A"), IssueId("B")], owners=owners, default=present
        )
        faults.tell(answer, owners.values(), present)
        return answer

    former.failure = present.failure = REVOKED
    with capture_logs() as logs:
        for _ in range(3):
            await read()
    (line,) = logs
    assert line["log_level"] == "warning"
    assert (line["kind"], line["issues"]) == ("memory", ["A"])
    assert "check the token" in line["problem"]
    assert "stop these runs" in line["mend"]
    former.failure = None
    with capture_logs() as logs:
        await read()
        await read()
    assert [line["event"] for line in logs] == ["The former tracker can be read again"]
