from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symphony.config.settings import TrackerSettings
from symphony.errors import TrackerError
from symphony.model.issue import Issue
from symphony.trackers import registry
from symphony.trackers.asana_records import fields, is_outside, to_issue
from symphony.trackers.asana_settings import DEFAULT_PRIORITIES, AsanaSettings, resolve
from symphony.trackers.rest_records import Malformed

SETTINGS = AsanaSettings(
    api_key="t",
    project_gid="900",
    active=("To Do", "Doing"),
    terminal=("Done",),
    completed_state="Done",
)
MEMBERSHIP = {"project": {"gid": "900"}, "section": {"gid": "501", "name": "To Do"}}
TASK: dict[str, Any] = {
    "gid": "12",
    "name": "Fix it",
    "notes": " text ",
    "completed": False,
    "resource_subtype": "default_task",
    "assignee": {"gid": "14641"},
    "tags": [{"name": " Bug "}, {"name": "bug"}, {"name": " "}, None],
    "memberships": [{"project": {"gid": "1"}, "section": {"name": "X"}}, MEMBERSHIP],
    "permalink_url": "https://app.asana.com/0/900/12",
    "created_at": "2026-01-18T07:02:31.000Z",
    "modified_at": "2026-01-19T09:12:00.123Z",
}


def test_every_field_is_normalised() -> None:
    issue = to_issue(TASK, SETTINGS)
    assert (issue.id, issue.identifier, issue.title) == ("12", "ASANA-12", "Fix it")
    assert (issue.state, issue.description, issue.labels) == ("To Do", "text", ("bug",))
    assert (issue.assignee_id, issue.url) == ("14641", "https://app.asana.com/0/900/12")
    assert issue.native_ref == {"task_gid": "12", "project_gid": "900", "section_gid": "501"}
    assert (issue.priority, issue.blocked_by, issue.branch_name) == (None, (), None)
    assert issue.updated_at is not None
    assert issue.updated_at.isoformat() == "2026-01-19T09:12:00.123000+00:00"
    assert issue.dispatchable


@pytest.mark.parametrize(
    ("changes", "dispatchable"),
    [
        ({"resource_subtype": "milestone"}, True),
        ({"resource_subtype": "approval"}, True),
        ({"resource_subtype": "section"}, False),
        ({"completed": True}, False),
        ({"completed": None}, False),
        ({"completed": "false"}, False),
    ],
)
def test_open_tasks_are_dispatched_sections_and_completed_ones_not(
    changes: dict[str, Any], dispatchable: bool
) -> None:
    assert to_issue({**TASK, **changes}, SETTINGS).dispatchable is dispatchable


def test_a_completed_task_is_terminal_wherever_it_lies() -> None:
    closed = {**TASK, "completed": True}
    assert to_issue(closed, SETTINGS).state == "Done"
    several = replace(SETTINGS, terminal=("Done", "to do"))
    assert to_issue(closed, several).state == "To Do", "its own terminal section"
    assert to_issue(closed, replace(SETTINGS, terminal=(), completed_state=None)).state == "To Do"


@pytest.mark.parametrize(
    "changes",
    [
        {"gid": None},
        {"gid": " "},
        {"name": 7},
        {"memberships": None},
        {"memberships": []},
        {"memberships": [{"project": {"gid": "900"}, "section": None}]},
        {"memberships": [{"project": {"gid": "900"}, "section": {"name": " "}}]},
    ],
)
def test_a_record_without_a_required_field_is_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        to_issue({**TASK, **changes}, SETTINGS)
    assert is_outside({**TASK, **changes}, SETTINGS) is (changes == {"memberships": []})


def test_fields_are_asked_for_where_a_setting_needs_them() -> None:
    assert "dependencies" not in fields(SETTINGS)
    assert "dependencies" in fields(replace(SETTINGS, dependencies=True))
    assert "custom_fields.enum_value.name" in fields(replace(SETTINGS, priority_field="p"))


KEYS = [*TASK, "dependencies", "custom_fields", "project", "section", "parent", "enum_value"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=10,
)


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=6), JSON)
def test_any_json_is_an_issue_or_malformed(changes: dict[str, Any], other: Any) -> None:
    wide = replace(SETTINGS, dependencies=True, priority_field="name")
    task = {**TASK, "dependencies": [{"gid": "13"}], **changes}
    is_outside(task, wide)
    try:
        issue = to_issue(task, wide, {"13": other})
    except Malformed:
        return
    assert isinstance(issue, Issue)
    assert all(text.strip() for text in (issue.id, issue.identifier, issue.title, issue.state))
    assert all(label == label.strip().lower() for label in issue.labels)
    assert issue.priority is None or type(issue.priority) is int


ENVIRON = {"ASANA_PAT": "pat-1"}
STATES = {"active_states": ["To Do"], "terminal_states": ["Done", "Dropped"]}


def tracker(provider: dict[str, Any], **states: Any) -> TrackerSettings:
    return TrackerSettings(kind="asana", provider=provider, **{**STATES, **states})


def problems(provider: dict[str, Any], environ: dict[str, str] = ENVIRON) -> dict[str, str]:
    found, faults = resolve(tracker(provider), environ)
    assert (found is None) == bool(faults)
    return {fault.path.removeprefix("tracker.provider."): str(fault) for fault in faults}


def test_settings_have_their_defaults() -> None:
    found, faults = resolve(tracker({"project_gid": "$GID"}), {**ENVIRON, "GID": " 900 "})
    assert faults == []
    assert found is not None
    assert (found.project_gid, found.api_key) == ("900", "pat-1")
    assert found.endpoint == "https://app.asana.com/api/1.0"
    assert found.completed_state == "Done"
    assert found.priorities == DEFAULT_PRIORITIES
    assert found.secret_environment_names == ("ASANA_PAT",)
    assert "pat-1" not in repr(found)


def test_all_faults_come_at_once_with_keys_names_and_mends() -> None:
    found = problems(
        {
            "endpoint": "http://app.asana.com",
            "api_key": 7,
            "project_gid": 900,
            "priorities": {"High": 1},
            "completed_state": "Nowhere",
            "dependencies": "yes",
            "read_only": 1,
            "tool_scope": "all",
            "projct_gid": "9",
        }
    )
    assert "invalid_asana_endpoint" in found["endpoint"]
    assert "missing_asana_api_key" in found["api_key"]
    assert "export ASANA_PAT" in found["api_key"]
    assert "put it in quotes (missing_asana_project_gid)" in found["project_gid"]
    assert "`priority_field`" in found["priorities"]
    assert "tracker.terminal_states" in found["completed_state"]
    assert "did you mean `project_gid`?" in found["projct_gid"]
    assert {"dependencies", "read_only", "tool_scope"} <= set(found)


@pytest.mark.parametrize("gid", [" ", "../users", "9/0", "٣", None, "$NONE", "$bad-name"])
def test_a_project_is_digits_only(gid: Any) -> None:
    assert "missing_asana_project_gid" in problems({"project_gid": gid})["project_gid"]


@pytest.mark.parametrize("key", ["$MINE", "$bad-name", " ", "a\nb"])
def test_a_missing_token_is_a_fault_that_does_not_show_it(key: str) -> None:
    found, faults = resolve(tracker({"project_gid": "9", "api_key": key}), {"MINE": ""})
    assert found is None
    assert faults[0].value is None
    assert "missing_asana_api_key" in str(faults[0])


def test_states_have_no_default() -> None:
    settings = TrackerSettings(kind="asana", provider={"project_gid": "9"})
    assert [str(fault).rpartition("(")[2] for fault in resolve(settings, ENVIRON)[1]] == [
        "missing_asana_active_states)",
        "missing_asana_terminal_states)",
    ]
    settings = tracker({"project_gid": "9"}, active_states=[" "], terminal_states=[])
    (fault,) = resolve(settings, ENVIRON)[1]
    assert "invalid_asana_states" in fault.problem


def test_the_registry_builds_it_and_names_a_missing_token(tmp_path: Path) -> None:
    built = registry.build(tracker({"project_gid": "9", "api_key": "$P"}), {"P": "x"}, tmp_path)
    assert built.kind == "asana"
    assert built.secret_environment_names == ("ASANA_PAT", "P")
    with pytest.raises(TrackerError, match="export ASANA_PAT") as caught:
        registry.build(tracker({"project_gid": "9"}), {}, tmp_path)
    assert caught.value.category == "missing_tracker_secret"
