from __future__ import annotations

import contextlib
import json
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symphony.model.issue import BlockerRef, Issue
from symphony.trackers.gitlab_records import to_blockers, to_issue
from symphony.trackers.gitlab_settings import GitLabSettings
from symphony.trackers.rest_records import Malformed

PLAIN = GitLabSettings(project_path="group/demo", api_key="t")
SCOPED = GitLabSettings(
    project_path="group/demo",
    api_key="t",
    state_scope="flow",
    priority_weights={"3": 2},
    active=("todo",),
    terminal=frozenset({"closed", "done"}),
    blocking_links=True,
)


@pytest.fixture
def record(gitlab_fakes: ModuleType) -> dict[str, Any]:
    found: dict[str, Any] = gitlab_fakes.example("issue")
    return found


def test_the_documented_example_is_normalised(record: dict[str, Any]) -> None:
    issue = to_issue(record, PLAIN)
    assert (issue.id, issue.identifier, issue.title) == ("1", "GL-1", "Issue 1")
    assert (issue.state, issue.dispatchable, issue.description) == ("opened", True, "Do it.")
    assert issue.url == "https://gitlab.example/group/demo/-/issues/1"
    assert (issue.assignee_id, issue.labels, issue.priority) == ("7", ("bug",), None)
    assert issue.native_ref == {
        "id": 9001,
        "iid": 1,
        "project_id": 42,
        "project_path": "group/demo",
        "references": {"short": "#1", "relative": "#1", "full": "group/demo#1"},
    }
    assert issue.created_at is not None
    assert issue.created_at.isoformat() == "2026-01-01T12:00:00+00:00"


@pytest.mark.parametrize(
    ("fields", "assignee"),
    [
        ({"assignees": [], "assignee": {"id": 9}}, "9"),
        ({"assignees": [{"username": "ann"}]}, "ann"),
        ({"assignees": [{"id": "x", "username": " "}]}, None),
        ({"assignees": None, "assignee": None}, None),
    ],
)
def test_the_assignee_is_a_number_else_a_name(
    record: dict[str, Any], fields: dict[str, Any], assignee: str | None
) -> None:
    assert to_issue({**record, **fields}, PLAIN).assignee_id == assignee


@pytest.mark.parametrize(
    ("key", "value"), [("iid", None), ("iid", True), ("iid", "1"), ("title", " "), ("state", None)]
)
def test_a_record_without_a_required_field_is_malformed(
    record: dict[str, Any], key: str, value: Any
) -> None:
    with pytest.raises(Malformed, match=f"`{key}`"):
        to_issue({**record, key: value}, PLAIN)


@pytest.mark.parametrize(
    ("state", "labels", "expected"),
    [
        ("opened", ["flow::Todo"], "todo"),
        ("opened", ["flow::"], "opened"),
        ("opened", ["overflow::todo"], "opened"),
        ("closed", ["flow::todo"], "closed"),
        ("closed", ["flow::done"], "done"),
    ],
)
def test_the_value_of_a_scoped_label_is_the_state(
    record: dict[str, Any], state: str, labels: list[str], expected: str
) -> None:
    issue = to_issue({**record, "state": state, "labels": labels}, SCOPED)
    assert (issue.state, issue.priority) == (expected, 2)


@pytest.mark.parametrize(
    ("state", "label", "dispatchable"),
    [
        ("opened", "todo", False),
        ("closed", "todo", True),
        (None, "todo", False),
        ("opened", "doing", True),
    ],
)
def test_open_or_unknown_blockers_hold_an_issue_where_it_would_start(
    record: dict[str, Any], state: str | None, label: str, dispatchable: bool
) -> None:
    labelled = {**record, "labels": [f"flow::{label}"]}
    issue = to_issue(labelled, SCOPED, (BlockerRef("2", "GL-2", state),))
    assert issue.dispatchable is dispatchable


def test_blockers_of_other_projects_keep_their_reference(gitlab_fakes: ModuleType) -> None:
    (node,) = gitlab_fakes.example("blockers")["data"]["project"]["issues"]["nodes"]
    other = {"iid": "9", "reference": "group/other#9", "state": "closed"}
    node["blockedByIssues"]["nodes"] += [other, None, {"iid": None}]
    assert to_blockers(node) == (
        BlockerRef("1", "GL-1", "opened"),
        BlockerRef(None, "group/other#9", "closed"),
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)
KEYS = ["id", "iid", "project_id", "title", "description", "state", "labels", "weight"]
KEYS += ["assignees", "assignee", "web_url", "references", "created_at", "updated_at"]


def check(issue: Issue) -> None:
    assert all(s.strip() for s in (issue.id, issue.identifier, issue.title, issue.state))
    assert all(label == label.strip().lower() != "" for label in issue.labels)
    assert len(set(issue.labels)) == len(issue.labels)
    json.dumps(issue.native_ref, allow_nan=False)
    "".join([issue.title, issue.description or "", *issue.labels]).encode()


@given(st.dictionaries(st.sampled_from(KEYS), JSON))
@settings(max_examples=200, deadline=None)
def test_the_example_with_any_values_is_a_valid_issue_or_malformed(changes: Any) -> None:
    base = {"iid": 1, "title": "t", "state": "opened"}
    for configured in (PLAIN, SCOPED):
        for value in (changes, {**base, **changes}):
            with contextlib.suppress(Malformed):
                check(to_issue(value, configured))
    to_blockers(changes)
