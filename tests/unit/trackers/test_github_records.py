from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symphony.model.issue import BlockerRef, Issue
from symphony.trackers.github_records import Extras, from_graphql, to_blockers, to_issue
from symphony.trackers.github_settings import GitHubSettings
from symphony.trackers.rest_records import Malformed

PLAIN = GitHubSettings(owner="octo", repo="demo", token="t")
LABELLED = GitHubSettings(
    owner="octo",
    repo="demo",
    token="t",
    state_labels={"Todo": "todo", "Done": "done"},
    sub_issues=True,
    dependencies=True,
    priority_labels={"p0": 1},
    priority_milestones={"v1": 3},
    active=("Todo",),
    terminal=frozenset({"closed", "done"}),
)
RECORD: dict[str, Any] = {
    "id": 5_000_000_001,
    "node_id": "I_1",
    "number": 1,
    "title": "Title",
    "body": "Text",
    "state": "open",
    "html_url": "https://github.com/octo/demo/issues/1",
    "assignee": {"login": "ann"},
    "labels": [{"name": " Bug "}, "bug", "", None, {"name": 7}, "UI"],
    "milestone": {"title": "V1"},
    "created_at": "2026-01-01T10:00:00Z",
    "updated_at": "2026-01-02T10:00:00+02:00",
}


def test_every_field_is_normalised() -> None:
    issue = to_issue(RECORD, PLAIN)
    assert (issue.id, issue.identifier, issue.title) == ("1", "GH-1", "Title")
    assert (issue.state, issue.dispatchable, issue.description) == ("open", True, "Text")
    assert issue.url == "https://github.com/octo/demo/issues/1"
    assert (issue.assignee_id, issue.labels, issue.priority) == ("ann", ("bug", "ui"), None)
    assert issue.native_ref == {
        "id": 5_000_000_001,
        "node_id": "I_1",
        "number": 1,
        "repo": "octo/demo",
    }
    assert issue.updated_at is not None
    assert issue.updated_at.isoformat() == "2026-01-02T08:00:00+00:00"
    assert to_issue({**RECORD, "id": None, "node_id": 7}, PLAIN).native_ref == {
        "number": 1,
        "repo": "octo/demo",
    }


@pytest.mark.parametrize(
    ("key", "value", "field"),
    [
        ("body", None, "description"),
        ("body", 7, "description"),
        ("html_url", " ", "url"),
        ("assignee", "ann", "assignee_id"),
        ("created_at", "yesterday", "created_at"),
        ("created_at", "2026-01-01T10:00:00", "created_at"),
    ],
)
def test_unusable_optional_values_become_null(key: str, value: Any, field: str) -> None:
    assert getattr(to_issue({**RECORD, key: value}, PLAIN), field) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("number", None),
        ("number", "1"),
        ("number", True),
        ("number", 0),
        ("title", " "),
        ("title", None),
        ("state", ""),
        ("state", 7),
    ],
)
def test_a_record_without_a_required_field_is_malformed(key: str, value: Any) -> None:
    with pytest.raises(Malformed, match=f"`{key}`"):
        to_issue({**RECORD, key: value}, PLAIN)
    for nothing in (None, [], "x", 7):
        with pytest.raises(Malformed):
            to_issue(nothing, PLAIN)


@pytest.mark.parametrize(
    ("state", "labels", "expected"),
    [
        ("open", [], "open"),
        ("open", ["TODO"], "Todo"),
        ("open", ["done", "todo"], "Todo"),
        ("open", ["done"], "Done"),
        ("closed", ["todo"], "closed"),
        ("closed", ["done"], "Done"),
        ("closed", [], "closed"),
    ],
)
def test_a_closed_issue_is_closed_unless_its_label_is_terminal(
    state: str, labels: list[str], expected: str
) -> None:
    assert to_issue({**RECORD, "state": state, "labels": labels}, LABELLED).state == expected


def test_labels_go_before_milestones_in_priority() -> None:
    assert to_issue(RECORD, LABELLED).priority == 3
    assert to_issue({**RECORD, "labels": ["P0"]}, LABELLED).priority == 1


@pytest.mark.parametrize(
    ("fields", "blocker_state", "dispatchable"),
    [
        ({}, None, True),
        ({"pull_request": {}}, None, False),
        ({}, "open", False),
        ({}, "CLOSED", True),
        ({}, "", False),
        ({"labels": ["doing"]}, "open", True),
        ({"sub_issues_summary": {"total": 2, "completed": 1}}, None, False),
        ({"sub_issues_summary": {"total": 2, "completed": 2}}, None, True),
        ({"sub_issues_summary": "x"}, None, True),
    ],
)
def test_what_an_issue_waits_for(
    fields: dict[str, Any], blocker_state: str | None, dispatchable: bool
) -> None:
    blockers = () if blocker_state is None else (BlockerRef("2", "GH-2", blocker_state or None),)
    record = {**RECORD, "labels": ["todo"], **fields}
    assert to_issue(record, LABELLED, Extras(None, blockers)).dispatchable is dispatchable


def test_blockers_of_other_repositories_keep_their_name() -> None:
    records = [
        {"number": 2, "state": "open", "repository_url": "https://x.example/repos/Octo/Demo"},
        {"number": 3, "state": "open", "repository_url": "https://x.example/repos/octo/other"},
        {"number": "x"},
        None,
    ]
    assert to_blockers(records, PLAIN) == (
        BlockerRef("2", "GH-2", "open"),
        BlockerRef(None, "octo/other#3", "open"),
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)
NAMES = st.sampled_from(["todo", "Done", " BUG ", "", "p0"])
VALID = st.fixed_dictionaries(
    {
        "number": st.integers(min_value=1, max_value=2**40),
        "title": st.text(min_size=1).filter(lambda text: text.strip() != ""),
        "state": st.sampled_from(["open", "closed"]),
    },
    optional={
        "id": st.integers(min_value=0),
        "node_id": st.text(),
        "body": st.none() | st.text(),
        "labels": st.lists(NAMES | st.fixed_dictionaries({"name": NAMES | st.none()})),
        "assignee": st.none() | st.fixed_dictionaries({"login": st.text()}),
        "milestone": st.none() | st.fixed_dictionaries({"title": st.text()}),
        "pull_request": st.fixed_dictionaries({"url": st.text()}),
        "created_at": st.datetimes().map(lambda when: when.isoformat() + "Z"),
        "sub_issues_summary": st.fixed_dictionaries(
            {"total": st.integers(), "completed": st.integers()}
        ),
    },
)


def check(issue: Issue) -> None:
    assert all(s.strip() for s in (issue.id, issue.identifier, issue.title, issue.state))
    assert all(label == label.strip().lower() != "" for label in issue.labels)
    assert len(set(issue.labels)) == len(issue.labels)
    assert issue.priority is None or type(issue.priority) is int
    json.dumps(issue.native_ref, allow_nan=False)
    "".join([issue.title, issue.description or "", *issue.labels]).encode()


@given(VALID, st.sampled_from([PLAIN, LABELLED]), st.none() | st.text())
@settings(max_examples=150, deadline=None)
def test_a_valid_record_is_a_valid_issue(
    record: dict[str, Any], configured: GitHubSettings, status: str | None
) -> None:
    issue = to_issue(record, configured, Extras(status))
    check(issue)
    assert issue.dispatchable is False or "pull_request" not in record


@given(JSON | st.dictionaries(st.sampled_from([*RECORD, "pull_request"]), JSON))
@settings(max_examples=200, deadline=None)
def test_any_json_is_a_valid_issue_or_malformed(record: Any) -> None:
    for configured in (PLAIN, LABELLED):
        with contextlib.suppress(Malformed):
            check(to_issue(record, configured))
    to_blockers(record, PLAIN)


GRAPHQL = ["id", "fullDatabaseId", "number", "title", "body", "closed", "url", "createdAt"]


@given(st.dictionaries(st.sampled_from([*GRAPHQL, "labels", "assignees", "__typename"]), JSON))
@settings(max_examples=150, deadline=None)
def test_any_graphql_node_is_a_valid_issue_or_malformed(node: dict[str, Any]) -> None:
    with contextlib.suppress(Malformed):
        check(to_issue(from_graphql(node), LABELLED))
