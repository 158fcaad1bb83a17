"""What a version can do, and what old values become for it."""

from __future__ import annotations

import msgspec
import pytest
from codex_app_server.approvals import ServerRequestHandlers, ServerRequestRecord
from codex_app_server.errors import (
    ExperimentalRequired,
    InvalidArgument,
    MethodUnavailable,
    RequestError,
    UnsupportedVersion,
    is_retryable,
)
from codex_app_server.protocol.rpc import Rpc
from codex_app_server.protocol.turn import Failure, TurnMachine
from codex_app_server.tools import Tool, ToolCallContext
from codex_app_server.values import approval_decision, config_overrides, sandbox_policy
from codex_app_server.values import approval_policy as policy_of
from codex_app_server.versions import GONE, known_methods, mcp_tool_name, parse_version, refusal


async def _nothing(arguments: object, context: ToolCallContext) -> str:
    return ""


TOOL = Tool("t", "", {"type": "object"}, _nothing)
GRANULAR = {"sandbox_approval": True, "rules": True, "mcp_elicitations": False}
OLD, NEW = "0.125.0", "0.169.0"


def user_agent(version: str) -> str:
    return f"demo x/y/{version} (Debian)"


# Versions


@pytest.mark.parametrize("version", ["0.124.9", "0.30.0-alpha.1", "0.0.1"])
async def test_a_server_below_the_floor_is_refused_with_both_versions_named(
    server, connect, version
):
    server.answers["initialize"] = lambda m: [server.reply(m, {"userAgent": user_agent(version)})]
    with pytest.raises(UnsupportedVersion, match=rf"Codex {version}.* needs 0\.125\.0 or newer"):
        await connect()
    assert server.closed


@pytest.mark.parametrize("agent", [user_agent("0.125.0"), user_agent("0.0.0"), "odd", ""])
async def test_the_floor_itself_builds_without_a_number_and_odd_agents_are_let_through(
    server, connect, agent
):
    server.answers["initialize"] = lambda m: [server.reply(m, {"userAgent": agent})]
    connection = await connect()
    assert not connection.is_closed


def test_versions_are_compared_by_number_and_no_number_is_the_newest():
    assert parse_version("0.9.0") < parse_version("0.125.0") < parse_version("0.169.0-alpha.2")
    assert parse_version(None) == parse_version("0.0.0") > parse_version("99.0.0")


async def test_the_methods_of_a_server_are_read_from_its_refusal_once(server, connect):
    text = "Invalid request: unknown variant `x`, expected one of `initialize`, `thread/start`"
    server.answers["codex_app_server/probe"] = lambda m: [
        {"id": m["id"], "error": {"code": -32600, "message": text}}
    ]
    connection = await connect()
    capabilities = await connection.capabilities()
    assert capabilities.methods == {"initialize", "thread/start"}
    assert capabilities.supports("thread/start")
    assert not capabilities.supports("fs/copy")
    assert await connection.capabilities() is capabilities
    assert len(server.requests("codex_app_server/probe")) == 1


async def test_a_server_that_lists_nothing_is_taken_to_know_everything(server, connect):
    server.answers["codex_app_server/probe"] = lambda m: [
        {"id": m["id"], "error": {"code": -32601, "message": "method not found"}}
    ]
    connection = await connect()
    assert (await connection.capabilities()).methods is None
    assert (await connection.capabilities()).supports("anything")


def test_a_refusal_of_an_unknown_method_names_its_successor():
    error = refusal(
        "newConversation", -32600, "Invalid request: unknown variant `newConversation`, ...",
        version=NEW,
    )  # fmt: skip
    assert isinstance(error, MethodUnavailable)
    assert error.successor == GONE["newConversation"]
    assert "Codex 0.169.0 does not know newConversation: use start_thread" in str(error)


def test_a_refusal_of_an_unknown_value_is_none_of_the_method():
    error = refusal("thread/start", -32600, "Invalid request: unknown variant `reject`, expected")
    assert type(error) is RequestError


def test_a_refusal_for_want_of_the_capability_names_what_needs_it():
    text = "thread/start.dynamicTools requires experimentalApi capability"
    error = refusal("thread/start", -32600, text)
    assert isinstance(error, ExperimentalRequired)
    assert error.capability == "thread/start.dynamicTools"


def test_a_refusal_without_a_list_tells_no_methods():
    assert known_methods("method not found") is None


# Names of MCP tools: as three binaries showed them to the model


@pytest.mark.parametrize(
    ("version", "server", "tool", "name"),
    [
        (OLD, "we-ird", "dotted.name/slash here", ("mcp__we_ird__", "dotted_name_slash_here")),
        (OLD, "t", "x" * 80, ("mcp__t__", "x" * 43 + "_ee02eb0c080f")),
        (OLD, "l" * 30, "x" * 80, (f"mcp__{'l' * 30}__", "x" * 14 + "_04e4bcd161c7")),
        (NEW, "t", "ünï", ("mcp__t", "_n_")),
        (NEW, "t", "x" * 120, ("mcp__t", "x" * 120)),
        (NEW, "t", "x" * 121, ("mcp__t", "x" * 107 + "_7e51b1b249bf")),
        (NEW, "t", "a-b", ("mcp__t", "a_b_94ab994c36a6")),
    ],
)
def test_mcp_tools_are_named_as_the_server_names_them(version, server, tool, name):
    siblings = ["a_b", "a.b", "a-b", tool]
    assert mcp_tool_name(server, tool, siblings=siblings, version=version) == name


# Policies


def test_old_values_are_kept_for_the_old_version_and_translated_for_the_new_one():
    warnings: list[str] = []
    assert policy_of("on-failure", warnings, OLD) == "on-failure"
    read = {"type": "readOnly", "readOnlyAccess": {"type": "fullAccess"}}
    assert sandbox_policy(read, warnings, OLD) == read
    assert warnings == []
    assert policy_of("on-failure", warnings, NEW) == "on-request"
    assert sandbox_policy(read, warnings, NEW) == {"type": "readOnly"}
    assert [one.split(":")[0] for one in warnings] == [
        "approval_policy",
        "sandbox_policy.readOnlyAccess",
    ]


def test_a_granular_policy_may_carry_its_name_as_a_type():
    assert policy_of({"type": "granular", **GRANULAR}, []) == {"granular": GRANULAR}


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"sandbox_approval": True}, "granular lacks rules, mcp_elicitations"),
        ({**GRANULAR, "rules": "yes"}, "granular.rules='yes': use true or false"),
        ({**GRANULAR, "everything": True}, "granular.everything is unknown: use sandbox_approval"),
    ],
)
async def test_a_malformed_granular_policy_is_refused_and_not_dropped(
    server, connect, flags, complaint
):
    connection = await connect()
    with pytest.raises(InvalidArgument, match=complaint):
        await connection.start_thread(approval_policy={"type": "granular", **flags})
    assert server.requests("thread/start") == []


@pytest.mark.parametrize(
    "options", [{"approval_policy": {"granular": GRANULAR}}, {"tools": [TOOL]}]
)
async def test_what_needs_the_capability_is_refused_before_it_is_sent(server, connect, options):
    connection = await connect(experimental=False)
    with pytest.raises(ExperimentalRequired):
        await connection.start_thread(**options)
    assert server.requests("thread/start") == []


async def test_forks_and_resumes_translate_like_starts(server, connect):
    server.answers["thread/fork"] = lambda m: [server.reply(m, {"thread": {"id": "f"}})]
    connection = await connect()
    forked = await connection.fork_thread("t", sandbox="full-access", approval_policy="always")
    assert server.requests("thread/fork")[0]["params"] == {
        "threadId": "t",
        "excludeTurns": True,
        "sandbox": "danger-full-access",
        "approvalPolicy": "untrusted",
    }
    assert len(forked.warnings) == 2


def test_overrides_are_translated_and_a_policy_that_is_refused_as_configuration_says_so():
    warnings: list[str] = []
    given = {"sandbox_mode": "full-access", "approval_policy": {"reject": {"rules": True}}, "x": 1}
    assert config_overrides(given, warnings, NEW) == {
        "sandbox_mode": "danger-full-access",
        "approval_policy": {
            "granular": {"sandbox_approval": True, "rules": False, "mcp_elicitations": True}
        },
        "x": 1,
    }
    assert all(one.startswith("config.") for one in warnings)
    assert len(warnings) == 2
    with pytest.raises(InvalidArgument, match="approval_policy='untrusted' to the thread"):
        config_overrides({"approval_policy": "untrusted"}, [], NEW)
    assert config_overrides({"approval_policy": "untrusted"}, [], OLD)


# Answers to approvals


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"approved": True}, {"decision": "accept"}),
        ({"approved": False}, {"decision": "decline"}),
        ({"decision": "approved_for_session"}, {"decision": "acceptForSession"}),
        ({"decision": "allow"}, {"decision": "accept"}),
        (
            {"decision": {"acceptWithExecpolicyAmendment": {"execpolicyAmendment": ["ls"]}}},
            {"decision": {"acceptWithExecpolicyAmendment": {"execpolicy_amendment": ["ls"]}}},
        ),
    ],
)
def test_old_answers_to_an_approval_are_translated_with_a_warning(given, sent):
    warnings: list[str] = []
    assert approval_decision(given, warnings) == sent
    assert len(warnings) == 1


@pytest.mark.parametrize(
    "given",
    [
        {"decision": "maybe"},
        {},
        {"decision": {"acceptWithMagic": {}}},
        {"decision": {"acceptWithExecpolicyAmendment": {"prefix": ["ls"]}}},
    ],
)
def test_an_answer_that_the_server_would_take_for_a_failure_is_refused(given):
    with pytest.raises(InvalidArgument, match="decision"):
        approval_decision(given, [])


async def test_the_record_of_a_translated_answer_tells_what_was_translated(server, connect):
    records: list[ServerRequestRecord] = []

    async def approve(request):
        return {"approved": True}

    await connect(handlers=ServerRequestHandlers(command=approve, on_answered=records.append))
    server.feed(
        {"id": 0, "method": "item/commandExecution/requestApproval", "params": {"threadId": "t"}}
    )
    assert (await server.replied(0))["result"] == {"decision": "accept"}
    assert records[0].warnings == ("approved: is no member of the reply, sent decision='accept'",)


# Failures


def test_tokens_that_nobody_refreshed_are_no_reason_to_try_the_turn_again():
    refused = "auth refresh request failed: code=-32603 message=nobody"
    lost = Failure.decode({"message": refused, "codexErrorInfo": "other"})
    assert (lost.code, is_retryable(lost.code, lost.http_status)) == ("unauthorized", False)


def test_the_status_of_an_older_server_s_failure_is_read_from_its_words():
    words = "unexpected status 401 Unauthorized: no, url: http://127.0.0.1/v1/responses"
    failure = Failure.decode({"message": words, "codexErrorInfo": "other"})
    assert (failure.code, failure.http_status) == ("other", 401)
    assert not is_retryable(failure.code, failure.http_status)
    assert (
        Failure.decode({"message": "stream ended", "codexErrorInfo": "other"}).http_status is None
    )


def test_children_are_found_in_the_items_of_every_version(server):
    items = [
        {"type": "subAgentActivity", "id": "1", "kind": "started", "agentThreadId": "new"},
        {"type": "collabAgentToolCall", "id": "2", "tool": "spawnAgent",
         "receiverThreadIds": ["old"]},
        {"type": "collabAgentToolCall", "id": "3", "tool": "wait", "receiverThreadIds": ["other"]},
    ]  # fmt: skip
    rpc, machine = Rpc(1 << 20), TurnMachine(server.thread_id, turn_id=server.turn_id)
    lines = [
        msgspec.json.encode(server.event("item/completed", item=item)) + b"\n" for item in items
    ]
    for run in rpc.receive(b"".join(lines), 0.0):
        machine.feed(run.events)
    assert machine.children == {"new", "old"}
