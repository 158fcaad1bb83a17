"""What real boards hold: nobody assigned, deleted users, a megabyte of text, scripts, controls."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tracker_worlds import RemoteHarness

from symphony.model.issue import Issue, IssueId

TITLES = {
    "linear": "title",
    "github": "title",
    "gitlab": "title",
    "jira": "summary",
    "asana": "name",
}
BODIES = {
    "linear": "description",
    "github": "body",
    "gitlab": "description",
    "jira": "description",
    "asana": "notes",
}
BLANK: dict[str, dict[str, Any]] = {
    "linear": {"description": None, "assignee": None},
    "github": {"body": None, "assignee": None, "assignees": [], "user": None, "milestone": None},
    "gitlab": {
        "description": None,
        "assignee": None,
        "assignees": [],
        "author": None,
        "milestone": None,
        "confidential": True,
    },
    "jira": {"description": None, "assignee": None, "labels": [], "priority": None},
    "asana": {"notes": "", "assignee": None, "tags": [], "custom_fields": []},
}
"""The user who wrote or had it was deleted, and nobody filled in what can be left out."""

OLDER: dict[str, set[str]] = {
    "linear": set(),
    "github": {"sub_issues_summary", "state_reason", "reactions"},
    "gitlab": {
        "references",
        "weight",
        "severity",
        "issue_type",
        "type",
        "epic",
        "epic_iid",
        "assignees",
        "iteration",
        "health_status",
        "blocking_issues_count",
        "has_tasks",
        "task_completion_status",
    },
    "jira": {"labels", "issuelinks", "assignee", "description", "updated", "created"},
    "asana": {"dependencies", "custom_fields", "tags", "assignee", "notes", "permalink_url"},
}
"""What a record may lack: older servers, fields that a site hides, features of paid tiers."""

TEXTS = {
    "emoji": "Fix 👩‍👩‍👧‍👦 and 🇨🇭",
    "right to left": "\u202e\u05ea\u05e7\u05df\u202c",
    "controls": "a\x00b\x1b[31mred\x07\x9b0m",
    "lines": "one\r\ntwo\u2028three\x0bfour",
    "half a pair": "half \ud83d of it",
    "markup": "<script>alert(1)</script> {{ nope }} {% raw",
    "a megabyte": "x" * 1_048_576,
}


def record(remote: RemoteHarness, issue_id: IssueId) -> dict[str, Any]:
    """Where the fake provider keeps the fields of an issue."""
    server, kind = remote.server, remote.tracker.kind
    match kind:
        case "asana":
            found = server.tasks[issue_id]
        case "jira":
            found = server.issues[issue_id]["fields"]
        case "linear":
            found = server.issues[issue_id]
        case _:
            found = server.issues[int(issue_id)]
    assert isinstance(found, dict)
    return found


async def read_both_ways(remote: RemoteHarness, issue_id: IssueId) -> list[Issue]:
    """An issue by its state, by its id, among several ids, and by its name."""
    other = remote.put(2)
    (one,) = await remote.tracker.fetch_issues_by_ids([issue_id])
    listed = await remote.tracker.fetch_issues_by_states(["Todo"])
    several = await remote.tracker.fetch_issues_by_ids([other, issue_id])
    named = await remote.tracker.fetch_issue(one.identifier)
    assert named is not None
    assert [issue.id for issue in several] == [other, issue_id]
    return [one, *(issue for issue in listed if issue.id == issue_id), several[1], named]


async def test_an_issue_that_nobody_filled_in_is_an_issue(remote: RemoteHarness) -> None:
    issue_id = remote.put(1)
    record(remote, issue_id).update(BLANK[remote.tracker.kind])
    found = await read_both_ways(remote, issue_id)
    assert len(found) == 4
    for issue in found:
        assert issue.dispatchable
        assert (issue.description or "", issue.assignee_id, issue.priority or 2) == ("", None, 2)
        assert issue == found[0]


async def test_fields_that_a_server_does_not_send_are_no_fault(remote: RemoteHarness) -> None:
    issue_id = remote.put(1)
    fields = record(remote, issue_id)
    for name in OLDER[remote.tracker.kind]:
        fields.pop(name, None)
    remote.server.check = lambda call, reply: None
    found = await read_both_ways(remote, issue_id)
    assert [issue.dispatchable for issue in found] == [True] * 4


@pytest.mark.parametrize("what", TEXTS)
async def test_any_text_comes_through_the_same_in_every_read(
    remote: RemoteHarness, what: str
) -> None:
    issue_id = remote.put(1)
    kind, text = remote.tracker.kind, TEXTS[what]
    body: Any = text
    if kind == "jira":
        inner = [{"type": "text", "text": text}]
        paragraph = {"type": "paragraph", "content": inner}
        body = {"type": "doc", "version": 1, "content": [paragraph]}
    title = text[:200]
    record(remote, issue_id).update({TITLES[kind]: title, BODIES[kind]: body})
    found = await read_both_ways(remote, issue_id)
    assert len(found) == 4
    expected = text.replace("\ud83d", "?")
    for issue in found:
        assert issue.title == title.replace("\ud83d", "?")
        if kind != "jira":
            assert issue.description == expected
        assert issue.description is not None
        assert len(issue.description) >= len(expected) - 10
        json.dumps([issue.title, issue.description], ensure_ascii=False).encode()


async def test_an_empty_board_is_no_fault(remote: RemoteHarness) -> None:
    if remote.tracker.kind == "jira":
        remote.server.projects["DEMO"] = "DEMO"
    for _ in range(3):
        assert await remote.tracker.fetch_issues_by_states(["Todo", "In Progress"]) == []
