from __future__ import annotations

import json
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import pytest
from structlog.testing import capture_logs

from symphony.trackers.base import ToolContext, ToolResult
from symphony.trackers.http import HttpClient
from symphony.trackers.rest_tool import MAX_ANSWER, MAX_BODY, RestTool

TOKEN = "ghp_test"
TOOL = RestTool(
    name="github_api",
    provider="GitHub",
    methods=("GET", "POST", "PATCH"),
    example="/repos/octo/demo/issues/1",
    query_name="params",
    scope=lambda method, path: None if path.segments[0] == "repos" else "it is out of scope.",
    secrets=(TOKEN,),
)
READING = RestTool(
    name="github_api",
    provider="GitHub",
    methods=("GET", "POST"),
    example="/x",
    query_name="query",
    scope=lambda method, path: None,
    read_only=True,
)
ISSUE = "/repos/octo/demo/issues/1"


@pytest.fixture
async def http(github_server: Any) -> AsyncIterator[HttpClient]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    http = HttpClient(provider="GitHub", headers=headers, base_url=github_server.url)
    yield http
    await http.aclose()


async def call(http: HttpClient, context: ToolContext, **arguments: Any) -> ToolResult:
    return await TOOL.call("github_api", arguments, context, http)


def error_of(result: ToolResult) -> dict[str, Any]:
    assert not result.success
    found: dict[str, Any] = json.loads(result.text)["error"]
    return found


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (None, "an object with `method` and `path`"),
        ("GET /x", "an object with `method` and `path`"),
        ({"method": "GET"}, "`path`"),
        ({"path": ISSUE}, "`method` must be one of GET, POST, PATCH"),
        ({"method": "PUT", "path": ISSUE}, "`method` must be one of"),
        ({"method": "GET", "path": ISSUE + "?a=b"}, "must not contain a query"),
        ({"method": "GET", "path": ISSUE, "params": [1]}, "`params` must be a JSON object"),
        ({"method": "GET", "path": ISSUE, "params": {"a": {}}}, "`params.a` must be"),
        ({"method": "GET", "path": ISSUE, "params": {"a": "\ud800"}}, "surrogate"),
        ({"method": "POST", "path": ISSUE, "body": float("nan")}, "`body` must be JSON"),
        ({"method": "POST", "path": ISSUE, "body": "x" * MAX_BODY}, "`body` must not be larger"),
        ({"method": "GET", "path": "/user"}, "it is out of scope"),
    ],
)
async def test_bad_arguments_are_a_failed_result_and_no_request(
    github_server: Any, http: HttpClient, context: ToolContext, arguments: Any, words: str
) -> None:
    result = await TOOL.call("github_api", arguments, context, http)
    assert words in error_of(result)["message"]
    assert github_server.calls == []


async def test_query_and_body_arrive_as_they_were_given(
    github_server: Any, http: HttpClient, context: ToolContext
) -> None:
    github_server.add(1)
    params = {"per_page": 5, "labels": "a b&c", "flag": True, "many": [1, "x"]}
    result = await call(http, context, method="get", path=ISSUE, params=params)
    assert result.success
    assert github_server.calls[-1].query == {
        "per_page": ["5"],
        "labels": ["a b&c"],
        "flag": ["true"],
        "many": ["1", "x"],
    }
    result = await call(http, context, method="PATCH", path=ISSUE, body={"title": "\ud83d ü"})
    assert github_server.calls[-1].json() == {"title": "\ud83d ü"}
    assert json.loads(result.text)["body"]["title"] == "? ü"
    github_server.issues[1]["title"] = "Title"


async def test_other_answers_than_success_are_given_back_with_their_body(
    github_server: Any, github_fakes: ModuleType, http: HttpClient, context: ToolContext
) -> None:
    github_server.add(1)
    for fault, status, body in (
        ({"status": 422, "body": b'{"message": "no"}'}, 422, {"message": "no"}),
        ({"status": 500, "body": b"<html>"}, 500, "<html>"),
        ({"status": 301, "headers": {"Location": "/user"}, "body": b"{}"}, 301, {}),
        ({"status": 200, "body": b""}, 200, None),
    ):
        github_server.faults.append(github_fakes.Fault(**fault))
        result = await call(http, context, method="GET", path=ISSUE)
        assert json.loads(result.text) == {"status": status, "body": body}
        assert result.success is (status == 200)
    assert github_server.count() == 4, "nothing is repeated, no redirect followed"


async def test_a_call_without_an_answer_tells_why(
    github_server: Any, github_fakes: ModuleType, http: HttpClient, context: ToolContext
) -> None:
    github_server.add(1)
    github_server.faults.append(github_fakes.Fault(abort=True))
    error = error_of(await call(http, context, method="POST", path=ISSUE))
    assert "before receiving a successful response" in error["message"]
    assert "could not be reached" in error["reason"]
    github_server.faults.append(github_fakes.Fault(body=b"x" * (MAX_ANSWER + 1)))
    error = error_of(await call(http, context, method="GET", path=ISSUE))
    assert f"more than {MAX_ANSWER} bytes" in error["reason"]
    fault = github_fakes.Fault(status=429, headers={"Retry-After": "30"})
    github_server.faults.append(fault)
    result = await call(http, context, method="GET", path=ISSUE)
    assert json.loads(result.text)["retryAfterSeconds"] == 30
    error = error_of(await call(http, context, method="GET", path=ISSUE))
    assert 0 < error["retryAfterSeconds"] <= 30, "the provider is left alone meanwhile"
    assert github_server.count() == 3


async def test_the_token_is_taken_out_of_results(
    github_server: Any, http: HttpClient, context: ToolContext
) -> None:
    github_server.add(1, body=f"Use {TOKEN} please")
    result = await call(http, context, method="GET", path=ISSUE)
    assert result.success
    assert TOKEN not in result.text
    assert "Use [redacted] please" in result.text


async def test_a_change_is_logged_without_its_content(
    github_server: Any, http: HttpClient, context: ToolContext
) -> None:
    github_server.add(1)
    with capture_logs() as logs:
        await call(http, context, method="GET", path=ISSUE)
        await call(http, context, method="PATCH", path=ISSUE, body={"title": "Secret title"})
    (entry,) = logs
    assert entry == {
        "event": "Tracker changed by an agent's tool",
        "log_level": "info",
        "tool": "github_api",
        "method": "PATCH",
        "path": ISSUE,
        "status": 200,
        "issue": "DEMO-1",
        "run_id": "run-1",
    }


async def test_a_read_only_tool_only_reads(
    github_server: Any, http: HttpClient, context: ToolContext
) -> None:
    github_server.add(1)
    properties = READING.spec.input_schema["properties"]
    assert properties["method"]["enum"] == ["GET"]
    assert "query" in properties
    arguments = {"method": "POST", "path": ISSUE}
    result = await READING.call("github_api", arguments, context, http)
    assert "read-only" in error_of(result)["message"]
    assert github_server.calls == []
    assert (await READING.call("github_api", {**arguments, "method": "GET"}, context, http)).success
