from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symphony.model.issue import BlockerRef, Issue
from symphony.trackers.jira_records import Reading, fields, to_issue
from symphony.trackers.jira_settings import DEFAULT_PRIORITIES, JiraSettings
from symphony.trackers.rest_records import Malformed

DATA = Path(__file__).resolve().parents[2] / "data" / "jira"
SETTINGS = JiraSettings(
    base_url="https://x.example", email="a@x.example", api_token="t", project_key="EX"
)
READING = Reading(settings=SETTINGS, terminal=frozenset({"done"}))


def documented() -> dict[str, Any]:
    record: dict[str, Any] = json.loads((DATA / "issue.json").read_text("utf-8"))
    return record


def record_with(**changes: Any) -> dict[str, Any]:
    record = documented()
    record["fields"] |= changes
    return record


def test_the_documented_issue_is_normalised() -> None:
    issue = to_issue(documented(), READING)
    assert (issue.id, issue.identifier, issue.state) == ("10002", "EX-1", "To Do")
    assert issue.title == "Main order flow broken"
    assert issue.description == "Order entry fails when selecting supplier."
    assert issue.url == "https://x.example/browse/EX-1"
    assert issue.assignee_id == "5b10a2844c20165700ede21g"
    assert issue.labels == ("bugfix", "blitz_test")
    assert issue.blocked_by == (BlockerRef("10004", "EX-3", "Open"),)
    assert not issue.dispatchable
    assert (issue.priority, issue.branch_name, issue.native_ref) == (None, None, None)
    assert issue.created_at is not None
    assert issue.created_at.isoformat() == "2026-01-18T07:02:31+00:00"
    assert issue.updated_at is not None
    assert issue.updated_at.isoformat() == "2026-01-19T08:12:00.123000+00:00"


@pytest.mark.parametrize(
    ("category", "name", "blocker", "dispatchable"),
    [
        ("new", "Open", "In Progress", False),
        ("new", "Open", " DONE ", True),
        ("new", "Open", None, False),
        ("new", "Open", " ", False),
        ("indeterminate", "To Do", "In Progress", True),
        (None, "To Do", "In Progress", False),
        (None, " TODO ", "In Progress", False),
        (None, "Open", "In Progress", True),
        ("", "Todo", "In Progress", False),
    ],
)
def test_blockers_hold_back_what_nobody_began(
    category: Any, name: str, blocker: Any, dispatchable: bool
) -> None:
    link = {
        "type": {"name": " blocks "},
        "inwardIssue": {"id": " ", "key": "EX-9", "fields": {"status": {"name": blocker}}},
    }
    status = {"name": name, **({} if category is None else {"statusCategory": {"key": category}})}
    issue = to_issue(record_with(status=status, issuelinks=[link]), READING)
    assert issue.dispatchable is dispatchable
    assert issue.blocked_by[0].id is None
    assert issue.blocked_by[0].state == (blocker.strip() or None if blocker else None)


@pytest.mark.parametrize(
    "link",
    [
        {"type": {"name": "Blocks"}, "outwardIssue": {"id": "1", "key": "EX-9"}},
        {"type": {"name": "Relates"}, "inwardIssue": {"id": "1", "key": "EX-9"}},
        {"type": {"name": "Blocks"}, "inwardIssue": "EX-9"},
        {"type": None, "inwardIssue": {}},
        7,
    ],
)
def test_only_inward_links_that_block_are_blockers(link: Any) -> None:
    assert to_issue(record_with(issuelinks=[link]), READING).blocked_by == ()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("summary", None),
        ("summary", " "),
        ("summary", 7),
        ("status", None),
        ("status", {"name": ""}),
        ("project", None),
        ("project", {"key": "OTHER"}),
    ],
)
def test_a_record_without_a_required_field_is_malformed(key: str, value: Any) -> None:
    with pytest.raises(Malformed, match=f"`{key}`"):
        to_issue(record_with(**{key: value}), READING)
    for broken in (None, [], {}, {**documented(), "id": 10002}, {**documented(), "key": " "}):
        with pytest.raises(Malformed):
            to_issue(broken, READING)


def test_project_keys_compare_without_case() -> None:
    assert to_issue(record_with(project={"key": " ex "}), READING).identifier == "EX-1"


@pytest.mark.parametrize(
    ("key", "value", "field"),
    [
        ("description", 7, "description"),
        ("description", "  ", "description"),
        ("description", {"type": "doc", "content": []}, "description"),
        ("created", "yesterday", "created_at"),
        ("created", 7, "created_at"),
        ("assignee", "mia", "assignee_id"),
        ("assignee", None, "assignee_id"),
    ],
)
def test_unusable_optional_values_become_null(key: str, value: Any, field: str) -> None:
    assert getattr(to_issue(record_with(**{key: value}), READING), field) is None


def test_a_description_that_is_text_is_taken_as_it_is() -> None:
    assert to_issue(record_with(description=" plain "), READING).description == "plain"


def test_priorities_are_mapped_where_a_map_is_set() -> None:
    assert "priority" not in fields(SETTINGS)
    mapped = replace(SETTINGS, priorities=DEFAULT_PRIORITIES)
    assert "priority" in fields(mapped)
    reading = Reading(settings=mapped)
    assert to_issue(documented(), reading).priority == 3
    assert to_issue(record_with(priority={"name": "Whatever"}), reading).priority is None
    assert to_issue(record_with(priority=None), reading).priority is None


def test_a_description_may_be_markdown() -> None:
    heading = {
        "type": "heading",
        "attrs": {"level": 2},
        "content": [{"type": "text", "text": "Goal"}],
    }
    reading = Reading(settings=replace(SETTINGS, markdown=True))
    record = record_with(description={"type": "doc", "version": 1, "content": [heading]})
    assert to_issue(record, reading).description == "## Goal"
    assert to_issue(record, READING).description == "Goal"


KEYS = [*documented()["fields"], "name", "key", "statusCategory", "type", "inwardIssue", "content"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*KEYS, "text", "attrs", "marks"]), inner, max_size=4)
    ),
    max_leaves=10,
)


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=6), st.booleans(), st.booleans())
def test_any_json_is_an_issue_or_malformed(
    changes: dict[str, Any], by_category: bool, markdown: bool
) -> None:
    reading = Reading(
        settings=replace(
            SETTINGS, by_category=by_category, markdown=markdown, priorities=DEFAULT_PRIORITIES
        )
    )
    try:
        issue = to_issue(record_with(**changes), reading)
    except Malformed:
        return
    assert isinstance(issue, Issue)
    assert all(text.strip() for text in (issue.id, issue.identifier, issue.title, issue.state))
    assert all(label == label.strip().lower() for label in issue.labels)
    assert issue.priority is None or type(issue.priority) is int
    str(issue.description).encode()
