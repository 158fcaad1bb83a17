from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symphony.model.issue import BlockerRef, Issue
from symphony.trackers.linear_records import Routing, to_issue
from symphony.trackers.rest_records import Malformed

ANYBODY = Routing(None, frozenset({"done"}))

NODE: dict[str, Any] = {
    "id": "uuid-1",
    "identifier": "DEMO-1",
    "title": "Title",
    "description": "Text",
    "priority": 2.0,
    "state": {"name": "Todo"},
    "branchName": "demo/1",
    "url": "https://x.example",
    "assignee": {"id": "user-1"},
    "labels": {"nodes": [{"name": " Bug "}, {"name": "bug"}, {"name": ""}, None]},
    "inverseRelations": {"nodes": []},
    "createdAt": "2026-01-01T10:00:00.000Z",
    "updatedAt": "2026-01-02T10:00:00.000+02:00",
}


def relation(kind: Any, state: Any) -> dict[str, Any]:
    return {"type": kind, "issue": {"id": "b", "identifier": "B-1", "state": {"name": state}}}


def test_every_field_is_normalised() -> None:
    issue = to_issue(NODE, ANYBODY)
    assert issue.labels == ("bug",)
    assert (issue.priority, issue.branch_name, issue.assignee_id) == (2, "demo/1", "user-1")
    assert issue.created_at is not None
    assert issue.created_at.isoformat() == "2026-01-01T10:00:00+00:00"
    assert issue.updated_at is not None
    assert issue.updated_at.isoformat() == "2026-01-02T08:00:00+00:00"
    assert issue.native_ref is None
    assert issue.dispatchable


@pytest.mark.parametrize(
    ("key", "value", "field"),
    [
        ("priority", "high", "priority"),
        ("priority", True, "priority"),
        ("priority", 1.5, "priority"),
        ("description", 7, "description"),
        ("createdAt", 7, "created_at"),
        ("createdAt", "yesterday", "created_at"),
        ("createdAt", "2026-01-01T10:00:00", "created_at"),
        ("createdAt", "0001-01-01T00:00:00+14:00", "created_at"),
        ("assignee", "x", "assignee_id"),
        ("branchName", " ", "branch_name"),
    ],
)
def test_unusable_optional_values_become_null(key: str, value: Any, field: str) -> None:
    assert getattr(to_issue({**NODE, key: value}, ANYBODY), field) is None


@pytest.mark.parametrize("key", ["id", "identifier", "title", "state"])
@pytest.mark.parametrize("value", [None, "", " ", 7, {"name": " "}, []])
def test_a_record_without_a_required_field_is_malformed(key: str, value: Any) -> None:
    with pytest.raises(Malformed, match=f"`{key}`"):
        to_issue({**NODE, key: value}, ANYBODY)


@pytest.mark.parametrize(
    ("state", "kind", "blocker_state", "dispatchable"),
    [
        ("Todo", "blocks", "In Progress", False),
        (" TODO ", " Blocks ", "In Progress", False),
        ("Todo", "blocks", " done ", True),
        ("Todo", "blocks", None, False),
        ("Todo", "related", "In Progress", True),
        ("In Progress", "blocks", "Todo", True),
    ],
)
def test_open_or_unknown_blockers_hold_an_issue_in_todo(
    state: str, kind: str, blocker_state: Any, dispatchable: bool
) -> None:
    relations = {"nodes": [relation(kind, blocker_state), 7]}
    node = {**NODE, "state": {"name": state}, "inverseRelations": relations}
    issue = to_issue(node, ANYBODY)
    assert issue.dispatchable is dispatchable
    if kind.strip().lower() == "blocks":
        expected = blocker_state.strip() if blocker_state else None
        assert issue.blocked_by == (BlockerRef("b", "B-1", expected),)


@pytest.mark.parametrize(
    ("assignee", "dispatchable"),
    [({"id": "user-1"}, True), ({"id": "user-2"}, False), (None, False)],
)
def test_with_an_assignee_only_that_user_s_issues_are_ours(
    assignee: Any, dispatchable: bool
) -> None:
    routing = Routing("user-1", frozenset())
    assert to_issue({**NODE, "assignee": assignee}, routing).dispatchable is dispatchable


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*NODE, "name", "nodes", "type", "issue"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(list(NODE)), JSON, max_size=6), st.booleans())
def test_any_json_is_an_issue_or_malformed(changes: dict[str, Any], complete: bool) -> None:
    try:
        issue = to_issue({**NODE, **changes} if complete else changes, ANYBODY)
    except Malformed:
        return
    assert isinstance(issue, Issue)
    assert all(text.strip() for text in (issue.id, issue.identifier, issue.title, issue.state))
    assert all(label == label.strip().lower() for label in issue.labels)
    assert issue.priority is None or type(issue.priority) is int


@pytest.mark.parametrize(
    ("team", "dispatchable"), [({"key": "ENG"}, True), ({"key": "OPS"}, False), (None, False)]
)
def test_with_a_team_only_its_issues_are_ours(team: Any, dispatchable: bool) -> None:
    routing = Routing(None, frozenset(), team="eng")
    assert to_issue({**NODE, "team": team}, routing).dispatchable is dispatchable
    assert to_issue({**NODE, "team": team}, ANYBODY).dispatchable is True


@pytest.mark.parametrize(("anywhere", "dispatchable"), [(False, True), (True, False)])
def test_open_blockers_hold_an_issue_back_beyond_todo_by_setting(
    anywhere: bool, dispatchable: bool
) -> None:
    relation = {"type": "blocks", "issue": {"id": "b", "state": {"name": "Todo"}}}
    node = {
        **NODE,
        "state": {"name": "In Progress"},
        "inverseRelations": {"nodes": [relation]},
    }
    routing = Routing(None, frozenset({"done"}), blocked_anywhere=anywhere)
    assert to_issue(node, routing).dispatchable is dispatchable


def family(**fields: Any) -> dict[str, Any]:
    return {**NODE, **fields}


PARENT = {"id": "p", "identifier": "DEMO-9", "state": {"name": "Backlog"}}
CHILDREN = {
    "nodes": [
        {"id": "c1", "identifier": "DEMO-2", "state": {"name": "Done"}},
        {"id": "c2", "identifier": "DEMO-3", "state": {"name": "Todo"}},
    ]
}


@pytest.mark.parametrize(
    ("rule", "fields", "withheld"),
    [
        ("independent", {"parent": PARENT, "children": CHILDREN}, None),
        ("before_parent", {"children": CHILDREN}, "blocked by DEMO-3 (Todo)"),
        ("before_parent", {"children": {"nodes": CHILDREN["nodes"][:1]}}, None),
        ("before_parent", {"children": CHILDREN, "state": {"name": "In Progress"}}, None),
        ("before_parent", {"children": {"nodes": [{"id": "c3"}]}}, "blocked by c3"),
        ("before_parent", {"parent": PARENT}, None),
        (
            "with_parent",
            {"parent": PARENT},
            "its parent DEMO-9 is in state 'Backlog', which is not active",
        ),
        ("with_parent", {"parent": {**PARENT, "state": {"name": "in progress"}}}, None),
        (
            "with_parent",
            {"parent": {"id": "p"}},
            "its parent p is in an unknown state, which is not active",
        ),
        ("with_parent", {"parent": PARENT, "state": {"name": "In Progress"}}, None),
        ("with_parent", {"parent": None, "children": CHILDREN}, None),
        ("never", {"parent": PARENT}, "a sub-issue of DEMO-9 (sub_issues: never)"),
        (
            "never",
            {"parent": PARENT, "state": {"name": "In Progress"}},
            "a sub-issue of DEMO-9 (sub_issues: never)",
        ),
        ("never", {"children": CHILDREN}, None),
    ],
)
def test_what_a_sub_issue_and_its_parent_wait_for_is_set(
    rule: str, fields: dict[str, Any], withheld: str | None
) -> None:
    routing = Routing(
        None, frozenset({"done"}), sub_issues=rule, active=frozenset({"todo", "in progress"})
    )
    issue = to_issue(family(**fields), routing)
    assert issue.withheld == withheld
    assert issue.dispatchable is (withheld is None)


def test_open_sub_issues_are_listed_with_the_blockers() -> None:
    routing = Routing(None, frozenset({"done"}), sub_issues="before_parent")
    relations = {"nodes": [relation("blocks", "Todo")]}
    issue = to_issue(family(inverseRelations=relations, children=CHILDREN), routing)
    assert [blocker.identifier for blocker in issue.blocked_by] == ["B-1", "DEMO-2", "DEMO-3"]
    assert issue.withheld == "blocked by B-1 (Todo), DEMO-3 (Todo)"


def test_what_keeps_an_issue_back_is_told() -> None:
    stranger = to_issue(NODE, Routing("user-2", frozenset()))
    assert stranger.withheld == "assigned to user-1, not to user-2"
    elsewhere = to_issue(family(team={"key": "OPS"}), Routing(None, frozenset(), "eng"))
    assert elsewhere.withheld == "an issue of the team OPS, not of ENG"
