"""The tool ``linear_graphql`` against a fake Linear: scope by look-up, read-only, limits, audit."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import pytest
from structlog.testing import capture_logs

from symphony.model.issue import Issue, IssueId
from symphony.trackers.base import ToolContext
from symphony.trackers.http import HttpClient
from symphony.trackers.linear import LinearTracker
from symphony.trackers.linear_settings import LinearSettings
from symphony.trackers.tool_results import MAX_ANSWER, MAX_BODY

Use = Callable[..., Any]
MOVE = (
    'mutation U($id: String!) { issueUpdate(id: $id, input: {stateId: "state-Done"}) { success } }'
)
COMMENT = (
    'mutation C($id: String!) { commentCreate(input: {issueId: $id, body: "b"}) '
    "{ success comment { id } } }"
)


@asynccontextmanager
async def tool(server: Any, **options: Any) -> AsyncIterator[Use]:
    settings = LinearSettings(
        endpoint=server.endpoint,
        api_key=server.token,
        project_slug="demo",
        assignee=None,
        secret_environment_names=(),
        **options,
    )
    client = HttpClient(provider="Linear", headers={"Authorization": server.token})
    tracker = LinearTracker(settings, terminal_states=["Done"], client=client)
    issue = Issue(
        id=IssueId("00000000-0000-4000-8000-000000000001"),
        identifier="DEMO-1",
        title="One",
        state="Todo",
        dispatchable=True,
    )
    context = ToolContext(issue=issue, run_id="run-1")

    async def use(query: Any, **variables: Any) -> tuple[bool, Any]:
        arguments = {"query": query, "variables": variables}
        result = await tracker.call_tool("linear_graphql", arguments, context)
        return result.success, json.loads(result.text)

    try:
        yield use
    finally:
        await tracker.aclose()


async def test_the_current_issue_is_in_scope_without_a_look_up(linear_server: Any) -> None:
    linear_server.add(1)
    async with tool(linear_server) as use:
        assert (await use(MOVE, id="DEMO-1"))[0]
        assert (await use(COMMENT, id="00000000-0000-4000-8000-000000000001"))[0]
    assert [request.operation for request in linear_server.requests] == ["U", "C"]


async def test_other_issues_are_looked_up_before_anything_is_sent(linear_server: Any) -> None:
    linear_server.teams["other"] = ["DEMO"]
    second = linear_server.add(2)
    foreign = linear_server.add(3, project="other")
    homeless = linear_server.add(4, project=None)
    async with tool(linear_server) as use:
        assert (await use(MOVE, id=second))[0]
        assert (await use(MOVE, id="DEMO-2"))[0]
        for outside in (foreign, homeless, "DEMO-3"):
            success, answer = await use(MOVE, id=outside)
            assert not success
            assert "does not belong to the project" in answer["error"]["message"]
        success, answer = await use(MOVE, id="DEMO-99")
        assert not success
        assert "Linear does not show all of issue" in answer["error"]["message"]
    assert linear_server.issues[foreign]["state"] == "Todo"
    sent = [request.operation for request in linear_server.requests]
    assert sent == ["SymphonyLinearScope", "U"] * 2 + ["SymphonyLinearScope"] * 4


async def test_projects_teams_comments_and_relations_are_judged_by_where_they_are(
    linear_server: Any,
) -> None:
    linear_server.teams["other"] = ["ELSE"]
    linear_server.add(1)
    foreign = linear_server.add(3, project="other", team="ELSE")
    linear_server.comments["mine"] = {"issueId": "00000000-0000-4000-8000-000000000001"}
    linear_server.comments["theirs"] = {"issueId": foreign}
    update = 'mutation { issueUpdate(id: "DEMO-1", input: {%s}) { success } }'
    async with tool(linear_server) as use:
        for inside in (
            update % 'projectId: "project-demo"',
            update % 'projectId: "demo", teamId: "team-DEMO"',
            update % 'projectMilestoneId: "milestone-project-demo"',
            'mutation { commentDelete(id: "mine") { success } }',
            '{ team(id: "DEMO") { key name } }',
        ):
            assert (await use(inside))[0], inside
        for outside in (
            update % 'projectId: "project-other"',
            update % 'teamId: "team-ELSE"',
            update % 'projectMilestoneId: "milestone-project-other"',
            'mutation { commentDelete(id: "theirs") { success } }',
            f'{{ issueRelation(id: "DEMO-1+{foreign}") {{ id }} }}',
            '{ team(id: "ELSE") { key } }',
            '{ project(id: "project-other") { name } }',
        ):
            success, answer = await use(outside)
            assert not success
            assert "does not belong to the project" in answer["error"]["message"], outside
    assert "theirs" in linear_server.comments


async def test_a_team_s_scope_takes_in_all_issues_of_the_project_s_teams(
    linear_server: Any,
) -> None:
    linear_server.teams |= {"other": ["DEMO"], "far": ["ELSE"]}
    near = linear_server.add(2, project="other")
    far = linear_server.add(3, project="far", team="ELSE")
    update = 'mutation U { issueUpdate(id: "DEMO-1", input: {projectId: "%s"}) { success } }'
    linear_server.add(1)
    async with tool(linear_server, tool_scope="team") as use:
        assert (await use(MOVE, id=near))[0]
        assert (await use(update % "project-other"))[0]
        for outside in (await use(MOVE, id=far), await use(update % "project-far")):
            assert "does not belong to the team" in outside[1]["error"]["message"]


async def test_any_scope_sends_what_it_is_given(linear_server: Any) -> None:
    foreign = linear_server.add(3, project="other")
    async with tool(linear_server, tool_scope="any") as use:
        assert (await use(MOVE, id=foreign))[0]
        success, answer = await use("{ nonsense ")
        assert not success
        assert answer["error"]["status"] == 400


@pytest.mark.parametrize("scope", ["project", "any"])
async def test_a_read_only_tool_sends_no_mutation(linear_server: Any, scope: str) -> None:
    linear_server.add(1)
    async with tool(linear_server, tool_scope=scope, read_only=True) as use:
        success, answer = await use(MOVE, id="DEMO-1")
        assert not success
        assert "tracker.provider.read_only" in answer["error"]["message"]
        success, answer = await use("mutation { broken ")
        assert not success
        assert linear_server.requests == []
        assert (await use('{ issue(id: "DEMO-1") { title } }'))[0]


async def test_mutations_leave_a_line_in_the_log_and_reads_none(
    linear_server: Any, fakes: ModuleType
) -> None:
    linear_server.add(1)
    async with tool(linear_server) as use:
        with capture_logs() as logs:
            await use('{ issue(id: "DEMO-1") { title } }')
            await use(MOVE, id="DEMO-1")
            linear_server.faults.append(fakes.Fault(abort=True))
            await use(COMMENT, id="DEMO-1")
    assert [(entry["action"], entry["status"], entry["issue"]) for entry in logs] == [
        ("issueUpdate", 200, "DEMO-1"),
        ("commentCreate", None, "DEMO-1"),
    ]


async def test_sizes_are_limited_both_ways(linear_server: Any, fakes: ModuleType) -> None:
    linear_server.add(1)
    async with tool(linear_server) as use:
        success, answer = await use(MOVE, id="x" * MAX_BODY)
        assert not success
        assert f"at most {MAX_BODY} bytes" in answer["error"]["message"]
        assert linear_server.requests == []
        linear_server.faults.append(fakes.Fault(body=b"x" * (MAX_ANSWER + 1)))
        success, answer = await use("{ viewer { id } }")
        assert not success
        assert f"more than {MAX_ANSWER} bytes" in answer["error"]["reason"]


async def test_a_token_that_linear_repeats_is_not_shown(
    linear_server: Any, fakes: ModuleType
) -> None:
    async with tool(linear_server) as use:
        body = json.dumps({"data": {"said": f"token {linear_server.token}"}}).encode()
        for status in (200, 400):
            linear_server.faults.append(fakes.Fault(status=status, body=body))
            _, answer = await use("{ viewer { id } }")
            assert linear_server.token not in json.dumps(answer)
            assert "[redacted]" in json.dumps(answer)


async def test_the_operations_that_agents_use_most_pass(linear_server: Any) -> None:
    """Shapes of Symphony's own guide for agents, on the current issue."""
    linear_server.add(1)
    linear_server.comments["mine"] = {"issueId": "00000000-0000-4000-8000-000000000001"}
    reads = [
        "query A($key: String!) { issue(id: $key) { id identifier title state { id name } "
        "project { id name } branchName url description updatedAt } }",
        "query T($key: String!) { issue(id: $key) { id team { id key name } } }",
        "query N($key: String!) { issue(id: $key) { comments(first: 5) { nodes { id body } } } }",
    ]
    async with tool(linear_server) as use:
        for query in reads:
            success, answer = await use(query, key="DEMO-1")
            assert success, answer
        success, answer = await use(COMMENT, id="DEMO-1")
        assert success, answer
