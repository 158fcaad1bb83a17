"""What the server asks, and what the wide API does, on the real binaries with a scripted model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from codex_app_server import RequestKind, ServerRequestHandlers, ServerRequestRecord
from codex_app_server.errors import (
    ExperimentalRequired,
    InvalidArgument,
    MethodUnavailable,
    RequestError,
)
from codex_app_server.protocol import types
from codex_app_server.subagents import parse_origin
from codex_app_server.versions import mcp_tool_name

from symphony.demo.script import Exec, Patch, Say, Tool, turn

VERSIONS = [
    "wheel",
    pytest.param("0.169.0", marks=pytest.mark.slow),
    pytest.param("0.125.0", marks=pytest.mark.slow),
]
pytestmark = [
    pytest.mark.codex,
    pytest.mark.parametrize("codex_binary", VERSIONS, indirect=True),
]
FREE = {"approval_policy": "never", "sandbox": "danger-full-access"}
OLD = "0.125.0"
ASKING = {"approval_policy": "on-request", "sandbox": "danger-full-access"}
SMALL_MCP = Path(__file__).parent / "servers" / "small_mcp.py"
UNKNOWN_MODEL = "mock-model"
"""A model without metadata gets its MCP tools at once; known ones have to search for them."""
PATCH = "*** Begin Patch\n*** Add File: made.txt\n+made\n*** End Patch\n"
QUESTION = {
    "questions": [
        {
            "id": "q",
            "header": "Pick",
            "question": "Which?",
            "options": [
                {"label": "A", "description": "a"},
                {"label": "B", "description": "b"},
            ],
        }
    ]
}


async def test_commands_and_patches_that_are_accepted_run_and_others_do_not(codex) -> None:
    records: list[ServerRequestRecord] = []

    async def command(request: Any) -> Any:
        return "accept" if "yes.txt" in request.params["command"] else {"decision": "denied"}

    real = await codex(
        A=turn(Exec("touch yes.txt"), Exec("touch no.txt"), Patch(PATCH), Say("ok")),
    )
    handlers = ServerRequestHandlers(
        command=command, file_change="accept_for_session", on_answered=records.append
    )
    connection = await real.open(handlers=handlers)
    thread = await connection.start_thread(
        cwd=str(real.workspace), approval_policy="untrusted", sandbox="danger-full-access"
    )
    await thread.run("Issue: A")
    made = {path.name for path in real.workspace.iterdir()} & {"yes.txt", "no.txt", "made.txt"}
    assert made == {"yes.txt", "made.txt"}
    assert [record.answer for record in records] == [
        {"decision": "accept"},
        {"decision": "decline"},
        {"decision": "acceptForSession"},
    ]
    assert "denied" in records[1].warnings[0]


async def test_an_amendment_in_either_spelling_is_one_the_server_takes(codex) -> None:
    async def amend(request: Any) -> Any:
        words = request.params["proposedExecpolicyAmendment"]
        return {"decision": {"acceptWithExecpolicyAmendment": {"execpolicyAmendment": words}}}

    real = await codex(A=turn(Exec("touch one.txt"), Exec("touch one.txt"), Say("ok")))
    handlers = ServerRequestHandlers(command=amend, allow_persistent=True)
    connection = await real.open(handlers=handlers)
    thread = await connection.start_thread(
        cwd=str(real.workspace), approval_policy="untrusted", sandbox="danger-full-access"
    )
    await thread.run("Issue: A")
    assert (real.workspace / "one.txt").exists()
    assert "touch" in (real.home / "rules" / "default.rules").read_text()


async def test_a_subset_of_permissions_is_what_the_model_gets(codex) -> None:
    async def subset(request: Any) -> Any:
        assert set(request.params["permissions"]["fileSystem"]["write"]) == {"/opt/a", "/opt/b"}
        return {"permissions": {"fileSystem": {"write": ["/opt/a"]}}, "scope": "turn"}

    wanted = {"reason": "because", "permissions": {"file_system": {"write": ["/opt/a", "/opt/b"]}}}
    real = await codex(A=turn(Tool("request_permissions", wanted), Say("ok")))
    connection = await real.open(
        "--enable",
        "request_permissions_tool",
        handlers=ServerRequestHandlers(permissions=subset),
    )
    thread = await connection.start_thread(cwd=str(real.workspace), **ASKING)
    await thread.run("Issue: A")
    output = real.model.requests[-1].conversation.outputs[0]
    assert "/opt/a" in output
    assert "/opt/b" not in output


async def test_a_question_is_answered_by_its_id(codex) -> None:
    async def answer(request: Any) -> Any:
        return {"q": "B"}

    real = await codex(A=turn(Tool("request_user_input", QUESTION), Say("ok")))
    connection = await real.open(
        "--enable",
        "default_mode_request_user_input",
        handlers=ServerRequestHandlers(user_input=answer),
    )
    thread = await connection.start_thread(cwd=str(real.workspace), **ASKING)
    await thread.run("Issue: A")
    assert real.model.requests[-1].conversation.outputs == ('{"answers":{"q":{"answers":["B"]}}}',)


async def test_an_mcp_server_s_form_and_the_approval_of_its_tool_are_told_apart(codex) -> None:
    records: list[ServerRequestRecord] = []

    async def fill_in(request: Any) -> Any:
        return {"action": "accept", "content": {"name": "bob"}}

    handlers = ServerRequestHandlers(
        mcp_tool="accept", elicitation=fill_in, on_answered=records.append
    )
    long = "x" * 130

    def call(tool: str, version: str | None) -> Tool:
        space, name = mcp_tool_name("small", tool, version=version)
        return Tool(name, {}, space)

    real = await codex(
        A=turn(call("mutate", None), call("ask", None), call(long, None), Say("ok")),
        B=turn(call("mutate", OLD), call("ask", OLD), call(long, OLD), Say("ok")),
    )
    connection = await real.open(handlers=handlers)
    server = {"command": sys.executable, "args": [str(SMALL_MCP)]}
    thread = await connection.start_thread(
        cwd=str(real.workspace),
        model=UNKNOWN_MODEL,
        config={"mcp_servers.small": server},
        **ASKING,
    )
    await thread.run("Issue: B" if connection.server.version == OLD else "Issue: A")
    outputs = real.model.requests[-1].conversation.outputs
    for output, expected in zip(outputs, ("did mutate", "bob", "did xxxxxx"), strict=True):
        assert expected in output
    assert [record.request.kind for record in records] == [
        RequestKind.MCP_TOOL,
        RequestKind.ELICITATION,
    ]


async def test_an_mcp_tool_is_not_approved_by_accepting_forms(codex) -> None:
    space, name = mcp_tool_name("small", "mutate")
    old_space, _ = mcp_tool_name("small", "mutate", version=OLD)
    real = await codex(
        A=turn(Tool(name, {}, space), Say("ok")), B=turn(Tool(name, {}, old_space), Say("ok"))
    )
    connection = await real.open(handlers=ServerRequestHandlers(elicitation="accept"))
    server = {"command": sys.executable, "args": [str(SMALL_MCP)]}
    thread = await connection.start_thread(
        cwd=str(real.workspace),
        model=UNKNOWN_MODEL,
        config={"mcp_servers.small": server},
        **ASKING,
    )
    await thread.run("Issue: B" if connection.server.version == OLD else "Issue: A")
    assert "did mutate" not in real.model.requests[-1].conversation.outputs[0]
    if connection.server.version != OLD:  # which lists the servers of config.toml only
        status = await connection.mcp.list_status(thread_id=thread.id)
        assert "mutate" in (status.data or [])[0].tools


async def test_sub_agents_are_linked_to_their_parent_and_waited_for(codex) -> None:
    spawn = {"task_name": "helper", "message": "Issue: B", "fork_turns": "none"}
    real = await codex(
        A=turn(
            Tool("spawn_agent", spawn, "collaboration"),
            Tool("wait_agent", {"timeout_ms": 10000}, "collaboration"),
            Say("ok"),
        ),
        C=turn(Tool("spawn_agent", {"message": "Issue: B"}), Say("ok")),
        B=turn(Say("child done")),
    )
    probe = await real.open()
    old = probe.server.version == OLD
    flags = ("--enable", "multi_agent" if old else "multi_agent_v2")
    connection = await real.open(*flags)
    thread = await connection.start_thread(cwd=str(real.workspace), **FREE)
    running = thread.run("Issue: C" if old else "Issue: A")
    result = await running
    # Three answers of the model in the parent, two where it does not wait; none of the child's.
    assert result.usage.total_tokens == (2 if old else 3) * 1280
    assert len(running.children) == 1
    (child,) = running.children
    agents = connection.subagents(thread)
    end = await agents.wait(child, timeout_s=10)
    assert (end.thread_id, end.status) == (child, "completed")
    assert end.final_message
    listed = await agents.list()
    assert [one.id for one in listed] == [child]
    origin = parse_origin(listed[0].source)
    assert (origin.kind, origin.parent_id, origin.depth) == ("subAgentThreadSpawn", thread.id, 1)
    assert old or origin.agent_path == "/root/helper"


async def test_threads_are_listed_read_reviewed_compacted_and_archived(codex) -> None:
    real = await codex(A=turn(Say("hello")))
    connection = await real.open()
    thread = await connection.start_thread(cwd=str(real.workspace), **FREE)
    await thread.run("Issue: A")
    await thread.set_name("a name")
    read = (await connection.threads.read(thread.id)).thread
    assert read is not None
    assert (read.name, type(read.status)) == ("a name", types.IdleThreadStatus)
    turns = [one async for one in connection.threads.iterate_turns(thread.id, limit=1)]
    assert [one.status for one in turns] == ["completed"]
    review = await thread.review({"type": "custom", "instructions": "Issue: A"})
    kinds = {type(item) for item in review.items}
    assert types.ExitedReviewModeThreadItem in kinds
    await thread.compact(timeout_s=20)
    assert not thread.is_busy
    again = await thread.run("Issue: A")
    assert again.status == "completed"
    await thread.archive()
    live = [one.id async for one in connection.threads.iterate(limit=2)]
    gone = [one.id async for one in connection.threads.iterate(archived=True)]
    assert (thread.id in live, thread.id in gone) == (False, True)


async def test_a_thread_that_another_process_writes_is_forked(codex) -> None:
    real = await codex(A=turn(Say("hello")))
    first = await real.open()
    thread = await first.start_thread(cwd=str(real.workspace), **FREE)
    await thread.run("Issue: A")
    second = await real.open()
    if second.server.version == OLD:
        pytest.skip("0.125 lets two processes write a thread")
    forked = await second.resume_thread(thread.id, fork_when_held=True, **FREE)
    assert forked.id != thread.id
    assert (await forked.run("Issue: A")).final_message == "hello"


async def test_raw_response_items_are_typed_and_come_through_a_subscription(codex) -> None:
    real = await codex(A=turn(Say("hello")))
    connection = await real.open()
    thread = await connection.start_thread(
        cwd=str(real.workspace), experimental_raw_events=True, **FREE
    )
    method = "rawResponseItem/completed"
    events = connection.subscribe(thread_id=thread.id, methods=[method])
    await thread.run("Issue: A")
    events.close_when_read()
    found = [event.params async for event in events]
    assert found
    assert {type(one) for one in found} == {types.RawResponseItemCompletedNotification}


async def test_files_skills_search_and_commands_work(codex, commands_with, eventually) -> None:
    real = await codex()
    folder = real.workspace
    skill = folder / ".agents" / "skills" / "greet" / "SKILL.md"
    skill.parent.mkdir(parents=True)
    text = "---\nname: greet\ndescription: says hello\n---\nSay hello.\n"
    skill.write_text(text)
    connection = await real.open()
    await connection.fs.write_bytes(str(folder / "made.bin"), b"\x00\xff")
    assert await connection.fs.read_bytes(str(folder / "made.bin")) == b"\x00\xff"
    found = await connection.fuzzy_file_search("made.b", [str(folder)])
    assert [one.path for one in found] == ["made.bin"]
    listed = (await connection.skills.list(cwds=[str(folder)], force_reload=True)).data or []
    greet = next(one for entry in listed for one in entry.skills or () if one.name == "greet")
    assert await connection.skills.load(greet) == text
    async with connection.commands.start(["cat"], cwd=str(folder), stdin=True) as cat:
        await cat.write(b"echoed\n", close=True)
        assert b"".join([piece.data async for piece in cat]) == b"echoed\n"
        assert (await cat.wait()).exit_code == 0
    marker = f"6{id(real)}"
    async with connection.commands.start(["sleep", marker]):
        await eventually(lambda: commands_with(marker))
    await eventually(lambda: not commands_with(marker))
    limited = connection.commands.start(["sleep", marker], time_limit_s=0.2)
    assert (await limited.wait()).exit_code == 124


async def test_an_api_key_logs_in_and_a_browser_login_can_be_given_up(codex, callback_port) -> None:
    real = await codex()
    connection = await real.open()
    account = connection.account
    async with connection.subscribe(methods=["account/updated"]) as events:
        assert await account.login_from_environment({"CODEX_API_KEY": "sk-of-a-test"})
        assert (await events.next(10)).data["authMode"] == "apikey"
    assert not await account.login_from_environment({})
    await account.logout()
    async with await account.login_chatgpt() as login:
        assert login.url.startswith("https://")
        assert login.user_code is None
    with pytest.raises(RequestError, match="authentication required"):
        await account.rate_limits()
    assert connection.rate_limits is None


async def test_values_of_older_documents_work_on_every_version(codex) -> None:
    real = await codex(A=turn(Say("ok")))
    connection = await real.open()
    for policy in ("always", "on-failure", {"reject": {"sandbox_approval": True}}):
        thread = await connection.start_thread(
            cwd=str(real.workspace), approval_policy=policy, sandbox="full-access"
        )
        assert thread.warnings
        sandbox = {"type": "fullAccess", "readOnlyAccess": {"type": "fullAccess"}}
        result = await thread.run("Issue: A", sandbox_policy=sandbox)
        assert result.status == "completed"
    with pytest.raises(InvalidArgument, match="approval_policy"):
        await connection.start_thread(approval_policy="sometimes")


async def test_what_a_server_does_not_know_or_allow_is_a_typed_refusal(codex) -> None:
    real = await codex()
    connection = await real.open()
    capabilities = await connection.capabilities()
    assert capabilities.methods is not None
    assert {"thread/start", "model/list"} <= capabilities.methods
    assert not capabilities.supports("newConversation")
    with pytest.raises(MethodUnavailable, match=r"use start_thread \(thread/start\)"):
        await connection.call("newConversation", {})
    plain = await real.open(experimental=False)
    assert not plain.server.experimental
    with pytest.raises(ExperimentalRequired, match="collaborationMode/list"):
        await plain.call("collaborationMode/list", {})
    with pytest.raises(ExperimentalRequired) as caught:
        await plain.call("thread/start", {"dynamicTools": []})
    assert caught.value.capability == "thread/start.dynamicTools"
