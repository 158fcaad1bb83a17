"""A malformed record is told of once, again when it changes, and again when it comes back."""

from __future__ import annotations

from typing import Any

from structlog.testing import capture_logs

from symphony.trackers.dropped_records import DroppedRecords
from symphony.trackers.rest_records import Malformed

TODO = ["Todo"]


def told(dropped: DroppedRecords, *records: Any, kind: list[str] = TODO) -> list[tuple[int, str]]:
    with capture_logs() as logs:
        dropped.tell(kind, [(record, Malformed("`title` is missing")) for record in records])
    assert all(log["event"] == "Dropping malformed Linear issue records" for log in logs)
    return [(log["count"], log["problems"]) for log in logs]


def test_each_record_is_told_once_and_again_when_it_changes() -> None:
    dropped = DroppedRecords("Linear")
    first, second = {"id": "u-1", "identifier": "A-1"}, {"number": 7}
    assert told(dropped, first) == [(1, "A-1: `title` is missing")]
    assert told(dropped, first) == []
    assert told(dropped, first, second) == [(2, "7: `title` is missing")]
    assert told(dropped, first, second) == []
    assert told(dropped, {**first, "updatedAt": "now"}, second) == [(2, "A-1: `title` is missing")]
    assert told(dropped, second) == []
    assert told(dropped, first, second) == [(2, "A-1: `title` is missing")], "it came back"


def test_reads_of_other_states_do_not_make_it_forget() -> None:
    dropped = DroppedRecords("Linear")
    assert len(told(dropped, {"id": "1"})) == 1
    assert told(dropped, kind=["Done"]) == []
    assert told(dropped, {"id": "1"}) == []


def test_what_is_kept_is_bounded() -> None:
    dropped = DroppedRecords("Linear")
    assert len(told(dropped, {"id": "1"})) == 1
    for number in range(20):
        told(dropped, {"id": "1"}, kind=[f"state {number}"])
    assert len(told(dropped, {"id": "1"})) == 1, "the oldest kind of read was forgotten"


def test_any_record_has_a_name_that_can_be_shown() -> None:
    dropped = DroppedRecords("Linear")
    found = told(dropped, None, [], "x", {"id": True}, {"id": "a\nb\ud800"}, {"gid": "9" * 200})
    ((count, problems),) = found
    assert count == 6
    assert problems.startswith("a record without an id: ")
    problems.encode()
