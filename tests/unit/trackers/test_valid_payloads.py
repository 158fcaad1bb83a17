"""Whatever a provider's own description allows is a valid issue or told as malformed."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import asana_server
import linear_server
import pytest
from graphql import FieldNode, OperationDefinitionNode, parse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from payloads import from_graphql, from_openapi

from symphony.model.issue import Issue
from symphony.trackers import asana_records, github_records, linear_records
from symphony.trackers.asana_settings import AsanaSettings
from symphony.trackers.github_settings import GitHubSettings
from symphony.trackers.linear_queries import documents
from symphony.trackers.linear_settings import SUB_ISSUES
from symphony.trackers.rest_records import Malformed

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def check(issue: Issue) -> None:
    """What every adapter promises of an issue (SPEC 11.3)."""
    assert all(text.strip() for text in (issue.id, issue.identifier, issue.title, issue.state))
    assert all(label == label.strip().lower() != "" for label in issue.labels)
    assert len(set(issue.labels)) == len(issue.labels)
    assert issue.priority is None or type(issue.priority) is int
    assert all(at is None or at.tzinfo is not None for at in (issue.created_at, issue.updated_at))
    assert issue.dispatchable is (issue.withheld is None)
    json.dumps(issue.native_ref, allow_nan=False)
    texts = [issue.title, issue.description or "", issue.withheld or "", *issue.labels]
    texts += [blocker.identifier or "" for blocker in issue.blocked_by]
    "".join(texts).encode()


def schemas(name: str) -> Path:
    folder = os.environ.get("SYMPHONY_SCHEMAS")
    beside = Path(__file__).resolve().parents[3].parent / "shared" / "schemas"
    path = (Path(folder) if folder else beside) / name
    if not path.is_file():
        pytest.skip(f"{name} not found (SYMPHONY_SCHEMAS)")
    return path


@pytest.mark.parametrize("sub_issues", SUB_ISSUES)
def test_any_issue_of_linears_schema(sub_issues: str) -> None:
    document = parse(documents(sub_issues).by_states)
    (operation,) = document.definitions
    assert isinstance(operation, OperationDefinitionNode)
    (issues,) = operation.selection_set.selections
    assert isinstance(issues, FieldNode)
    assert issues.selection_set is not None
    nodes = issues.selection_set.selections[0]
    assert isinstance(nodes, FieldNode)
    assert nodes.selection_set is not None
    payloads = from_graphql(linear_server.schema(), document, nodes.selection_set, "Issue")
    routing = linear_records.Routing(
        None, frozenset({"done"}), blocked_anywhere=True, sub_issues=sub_issues
    )

    @given(payloads)
    @settings(suppress_health_check=SLOW)
    def holds(node: Any) -> None:
        with contextlib.suppress(linear_records.Malformed):
            check(linear_records.to_issue(node, routing))

    holds()


def test_any_issue_of_githubs_description() -> None:
    document = json.loads(schemas("github_issues.openapi.json").read_text("utf-8"))
    records = from_openapi({"$ref": "#/components/schemas/issue"}, document)
    rules = [
        GitHubSettings(owner="octo", repo="demo", token="t"),
        GitHubSettings(
            owner="octo",
            repo="demo",
            token="t",
            sub_issues=True,
            dependencies=True,
            state_labels={"Todo": "a"},
            priority_labels={"a": 1},
        ),
    ]

    @given(records, st.lists(records, max_size=2), st.sampled_from(rules))
    @settings(suppress_health_check=SLOW, max_examples=60)
    def holds(record: Any, blockers: list[Any], configured: GitHubSettings) -> None:
        found = github_records.to_blockers(blockers, configured)
        with contextlib.suppress(Malformed):
            issue = github_records.to_issue(
                record, configured, github_records.Extras(blocked_by=found)
            )
            check(issue)
            assert issue.dispatchable is False or record.get("pull_request") is None

    holds()


def test_any_task_of_asanas_description() -> None:
    schemas("asana_oas.yaml")
    document = asana_server.document()
    if document is None:
        pytest.skip("the description of Asana can't be read here")
    tasks = from_openapi({"$ref": "#/components/schemas/TaskResponse"}, document)
    configured = AsanaSettings(
        api_key="t",
        project_gid="900",
        active=("Todo",),
        terminal=("Done",),
        completed_state="Done",
        dependencies=True,
        priority_field="Priority",
        priorities={"high": 1},
    )
    membership = {"project": {"gid": "900"}, "section": {"gid": "5", "name": "Todo"}}

    @given(tasks, st.booleans(), tasks)
    @settings(suppress_health_check=SLOW, max_examples=60)
    def holds(task: Any, ours: bool, other: Any) -> None:
        if ours and isinstance(task, dict):
            task = {**task, "memberships": [membership, *(task.get("memberships") or [])]}
        others = dict.fromkeys(asana_records.dependency_gids(task), other)
        asana_records.is_outside(task, configured)
        with contextlib.suppress(Malformed):
            check(asana_records.to_issue(task, configured, others))

    holds()
