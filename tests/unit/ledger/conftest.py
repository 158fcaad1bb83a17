import asyncio
from datetime import UTC, datetime, timedelta, timezone

import pytest

from symphony.ledger import Ledger
from symphony.model.clock import Instant
from symphony.model.issue import BlockerRef, Issue, IssueId
from symphony.model.run import RunId, RunSpec

# Else looptime asks for a loop before a test has one, and Python 3.11 makes one that stays open.
asyncio.set_event_loop(None)

START = 1_800_000_000.0


class Clock:
    def __init__(self):
        self.wall = START

    def __call__(self):
        return Instant(mono=self.wall - START, wall=self.wall)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite3"


@pytest.fixture
async def open_ledger(path, clock):
    """Opens ledgers of the same file; those still open are closed at the end."""
    opened = []

    async def open_one(workflow_id="wf"):
        ledger = await Ledger.open(path, workflow_id=workflow_id, clock=clock)
        opened.append(ledger)
        return ledger

    yield open_one
    for ledger in opened:
        await ledger.aclose()


@pytest.fixture
async def ledger(open_ledger):
    return await open_ledger()


@pytest.fixture
def make_issue():
    def make(number=1, **changes):
        fields = {
            "id": IssueId(f"id-{number}"),
            "identifier": f"ABC-{number}",
            "title": "Ümläut 🎉 \ud800 title",
            "state": "In Progress",
            "dispatchable": True,
            "description": "line one\nline two\x00\x1b[31m",
            "priority": 2,
            "branch_name": "abc/1",
            "url": "https://tracker.example/1",
            "assignee_id": "me",
            "labels": ("a", "b"),
            "blocked_by": (BlockerRef("x", None, "Done"), BlockerRef()),
            "native_ref": {"node": [1, 2.5, None, {"deep": True}], "id": "gid"},
            "created_at": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
            "updated_at": datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=-3))),
        }
        return Issue(**(fields | changes))

    return make


@pytest.fixture
def make_spec(make_issue):
    def make(run="run-1", number=1, **changes):
        fields = {
            "run_id": RunId(run),
            "issue": make_issue(number),
            "attempt": None,
            "retry_kind": None,
        }
        return RunSpec(**(fields | changes))

    return make
