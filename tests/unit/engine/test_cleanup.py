"""The clean-up at a start begins at the workspaces on disk."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from symphony.engine.cleanup import finished_with_workspace
from symphony.errors import LedgerError, TrackerError
from symphony.model.issue import Issue, IssueId

asyncio.set_event_loop(None)

STATES = ("Done", "Closed")


def issue(number: int, state: str = "Done", identifier: str | None = None) -> Issue:
    name = identifier or f"A-{number}"
    return Issue(
        id=IssueId(str(number)), identifier=name, title="t", state=state, dispatchable=True
    )


class Board:
    """A tracker that tells what it was asked."""

    def __init__(self, *issues: Issue, ids_fail: bool = False) -> None:
        self.issues = issues
        self.ids_fail = ids_fail
        self.asked: list[object] = []

    async def fetch_issues_by_ids(self, ids):
        self.asked.append(list(ids))
        if self.ids_fail:
            raise TrackerError("tracker_response", "no such ids here")
        return [one for one in self.issues if one.id in ids]

    async def fetch_issues_by_states(self, states):
        self.asked.append(states)
        return [one for one in self.issues if one.state in states]


class Disk:
    def __init__(self, *names: str) -> None:
        self.names = names

    async def existing_paths(self) -> set[str]:
        return {f"/root/{name}" for name in self.names}


class Records:
    def __init__(self, known: dict[str, str] | None) -> None:
        self.known = known

    async def workspace_issues(self):
        if self.known is None:
            raise LedgerError("ledger_damaged", "broken")
        return {f"/root/{name}": IssueId(number) for name, number in self.known.items()}


async def ask(board: Board, disk: Disk, known: dict[str, str] | None) -> list[str]:
    found = await finished_with_workspace(
        STATES, tracker=board, workspaces=disk, ledger=Records(known)
    )
    return [one.identifier for one in found]


async def test_nothing_is_read_where_there_is_no_workspace():
    board = Board(issue(1))
    assert await ask(board, Disk(), {"A-1": "1"}) == []
    assert board.asked == []


async def test_issues_that_the_ledger_knows_are_read_by_id_alone():
    board = Board(issue(1), issue(2, "Todo"), issue(3), issue(4, "closed "))
    known = {"A-1": "1", "A-2": "2", "A-4": "4", "A-9": "9"}
    assert await ask(board, Disk("A-1", "A-2", "A-4"), known) == ["A-1", "A-4"]
    assert board.asked == [["1", "2", "4"]]


async def test_the_terminal_states_are_read_for_what_the_ledger_does_not_know():
    board = Board(issue(1), issue(2), issue(3), issue(4, "Todo"))
    assert await ask(board, Disk("A-1", "A-2", "A-4"), {"A-1": "1"}) == ["A-1", "A-2"]
    assert board.asked == [["1"], STATES]


async def test_a_damaged_ledger_costs_only_the_shorter_read():
    board = Board(issue(1))
    assert await ask(board, Disk("A-1"), None) == ["A-1"]
    assert board.asked == [STATES]


async def test_ids_of_an_earlier_tracker_cost_only_the_shorter_read():
    board = Board(issue(1), ids_fail=True)
    assert await ask(board, Disk("A-1"), {"A-1": "lin-1"}) == ["A-1"]


async def test_a_workspace_is_never_given_to_an_issue_of_another_name():
    board = Board(issue(1, identifier="B-7"))
    assert await ask(board, Disk("A-1"), {"A-1": "1"}) == []


async def test_a_workspace_whose_issue_is_gone_stays_and_is_named():
    with capture_logs() as said:
        assert await ask(Board(), Disk("A-1"), {"A-1": "1"}) == []
    assert said[-1]["paths"] == ["/root/A-1"]


async def test_a_tracker_that_can_not_be_read_is_reported():
    class Down(Board):
        async def fetch_issues_by_states(self, states):
            raise TrackerError("tracker_request", "down")

    with pytest.raises(TrackerError, match="down"):
        await ask(Down(ids_fail=True), Disk("A-1"), {"A-1": "1"})
