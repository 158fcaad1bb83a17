"""Sessions over a scripted server: options, ends, and every kind of message."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from codex_app_server import (
    ApprovalNeeded,
    CodexError,
    ConnectionClosed,
    InputNeeded,
    InvalidArgument,
    ServerRequestHandlers,
    Session,
    TurnFailed,
    TurnInProgress,
    TurnInterrupted,
    TurnTimeout,
    messages,
    run,
    run_turn,
    start_session,
    stop_session,
    tool,
    unsupported_tool_result,
)

Messages = list[messages.SessionMessage]
SPEC = {"name": "query", "description": "Runs a query.", "inputSchema": {"type": "object"}}


@pytest.fixture
def seen() -> Messages:
    return []


def names(seen: Messages) -> list[str]:
    return [message.event for message in seen if message.event != "notification"]


def start_ends(server: Any, *before: Any, **end: Any) -> None:
    """Let every turn end at once, after these messages."""
    server.answers["turn/start"] = lambda m: [
        server.reply(m, {"turn": {"id": server.turn_id, "status": "inProgress"}}),
        *before,
        server.ended(**end),
    ]


def asks(server: Any, method: str, **params: Any) -> None:
    """Let every turn ask something; it goes on when the test says so."""
    ids = {"threadId": server.thread_id, "turnId": server.turn_id}
    server.answers["turn/start"] = lambda m: [
        server.reply(m, {"turn": {"id": server.turn_id, "status": "inProgress"}}),
        {"method": method, "id": 0, "params": {**ids, **params}},
    ]


COMMAND = "item/commandExecution/requestApproval"
PERMISSIONS = "item/permissions/requestApproval"
INPUT = "item/tool/requestUserInput"
QUESTIONS = [
    {"id": "q1", "question": "Which?", "options": [{"label": "A (Recommended)"}, {"label": "B"}]},
    {"id": "q2", "question": "Why?", "options": None},
]


async def test_one_prompt_is_run_and_everything_is_told(
    server: Any, seen: Messages, tmp_path: Any
) -> None:
    start_ends(
        server,
        server.message("All done."),
        {"method": "from/the/future", "params": {}},
        b"no json\n",
    )
    server.answers["thread/name/set"] = lambda m: [server.reply(m, {})]
    result = await run(
        tmp_path, "Fix it", transport=server, title="ABC-1: Fix", on_message=seen.append
    )
    assert result.session_id == f"{server.thread_id}-{server.turn_id}"
    assert (result.result, result.final_message) == ("turn_completed", "All done.")
    assert (result.thread_id, result.turn_id) == (server.thread_id, server.turn_id)
    assert sorted(names(seen)) == [
        "malformed",
        "other_message",
        "session_started",
        "turn_completed",
    ]
    assert {message.session_id for message in seen[-1:]} == {result.session_id}
    assert server.closed
    (thread,) = server.requests("thread/start")
    assert thread["params"] == {
        "cwd": str(tmp_path),
        "approvalPolicy": "never",
        "sandbox": "workspace-write",
    }


async def test_turns_share_the_thread_and_override_what_the_session_has(
    server: Any, tmp_path: Any
) -> None:
    start_ends(server)
    server.answers["thread/name/set"] = lambda m: [server.reply(m, {})]
    session = await start_session(
        tmp_path,
        transport=server,
        approval_policy="on-request",
        sandbox="read-only",
        model="m",
        thread_options={"developer_instructions": "Be brief."},
    )
    await run_turn(session, "One", title="T")
    await run_turn(
        session,
        "Two",
        title="T",
        approval_policy="untrusted",
        sandbox_policy={"type": "workspaceWrite"},
        effort="high",
        output_schema={"type": "object"},
    )
    await stop_session(session)
    await stop_session(session)
    (thread,) = server.requests("thread/start")
    assert thread["params"]["developerInstructions"] == "Be brief."
    assert [m["params"]["name"] for m in server.requests("thread/name/set")] == ["T"]
    one, two = (message["params"] for message in server.requests("turn/start"))
    assert "approvalPolicy" not in one
    assert two["approvalPolicy"] == "untrusted"
    assert two["sandboxPolicy"] == {"type": "workspaceWrite"}
    assert (two["effort"], two["outputSchema"]) == ("high", {"type": "object"})


async def test_a_thread_can_be_gone_on_with(server: Any, tmp_path: Any) -> None:
    start_ends(server)
    async with await Session.start(tmp_path, transport=server, resume=server.thread_id) as session:
        await session.run("Go on")
    assert server.requests("thread/start") == []
    assert server.requests("thread/resume")[0]["params"]["threadId"] == server.thread_id


async def test_a_name_that_the_server_refuses_costs_nothing(server: Any, tmp_path: Any) -> None:
    start_ends(server)
    server.answers["thread/name/set"] = lambda m: [{"id": m["id"], "error": {"code": -32600}}]
    result = await run(tmp_path, "x", transport=server, title="T")
    assert result.result == "turn_completed"


@pytest.mark.parametrize(
    ("end", "error", "event"),
    [
        ({"status": "failed", "error": {"message": "no"}}, TurnFailed, "turn_failed"),
        ({"status": "interrupted"}, TurnInterrupted, "turn_cancelled"),
    ],
)
async def test_ends_other_than_completed_are_raised_and_told(
    server: Any, seen: Messages, tmp_path: Any, end: Any, error: Any, event: str
) -> None:
    start_ends(server, **end)
    with pytest.raises(error):
        await run(tmp_path, "x", transport=server, on_message=seen.append)
    assert names(seen) == ["session_started", event]
    assert isinstance(seen[-1].error, error)  # type: ignore[attr-defined]


async def test_a_lost_server_is_an_error_of_ours(
    server: Any, seen: Messages, tmp_path: Any
) -> None:
    session = await Session.start(tmp_path, transport=server, on_message=seen.append)
    running = asyncio.create_task(session.run("x"))
    await server.until(lambda: server.requests("turn/start"))
    server.end()
    with pytest.raises(ConnectionClosed):
        await running
    assert names(seen)[-1] == "turn_ended_with_error"
    await session.stop()


@pytest.mark.looptime
async def test_the_turns_total_limit_is_an_hour_unless_told(
    server: Any, seen: Messages, tmp_path: Any
) -> None:
    loop = asyncio.get_running_loop()
    session = await Session.start(tmp_path, transport=server, on_message=seen.append)
    started = loop.time()
    with pytest.raises(TurnTimeout, match="total limit of 3600 s"):
        await session.run("x")
    assert loop.time() - started == pytest.approx(3600, abs=30)
    with pytest.raises(TurnTimeout, match="idle limit of 5 s"):
        await session.run("x", idle_timeout_s=5.0)
    assert names(seen).count("turn_ended_with_error") == 2
    await session.stop()


async def test_a_cancelled_run_interrupts_its_turn(
    server: Any, seen: Messages, tmp_path: Any
) -> None:
    session = await Session.start(tmp_path, transport=server, on_message=seen.append)
    running = asyncio.create_task(session.run("x"))
    await server.until(lambda: server.requests("turn/start"))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert server.requests("turn/interrupt")
    assert names(seen)[-1] == "turn_cancelled"
    await session.stop()


@pytest.mark.looptime
async def test_a_session_says_how_long_an_ignored_interrupt_is_waited_for(
    server: Any, tmp_path: Any
) -> None:
    server.answers["turn/interrupt"] = lambda m: []
    session = await Session.start(tmp_path, transport=server)
    with pytest.raises(TurnTimeout):
        await session.run("x", turn_timeout_s=5.0, interrupt_timeout_s=2.0)
    assert asyncio.get_running_loop().time() == pytest.approx(7, abs=0.1)
    await session.stop()


async def test_a_second_turn_at_once_is_refused(server: Any, tmp_path: Any) -> None:
    session = await Session.start(tmp_path, transport=server)
    running = asyncio.create_task(session.run("x"))
    await server.until(lambda: server.requests("turn/start"))
    with pytest.raises(TurnInProgress):
        await session.run("y")
    await session.interrupt()
    with pytest.raises(TurnInterrupted):
        await running
    await session.interrupt()
    await session.stop()


async def test_a_start_that_fails_is_told_and_leaves_nothing(
    server: Any, seen: Messages, tmp_path: Any
) -> None:
    server.answers["thread/start"] = lambda m: [{"id": m["id"], "error": {"code": -1}}]
    with pytest.raises(CodexError):
        await run(tmp_path, "x", transport=server, on_message=seen.append)
    assert names(seen) == ["startup_failed"]
    assert server.closed


async def test_a_turn_that_cannot_start_is_told_too(
    server: Any, seen: Messages, tmp_path: Any
) -> None:
    server.answers["turn/start"] = lambda m: [{"id": m["id"], "error": {"code": -1}}]
    with pytest.raises(CodexError):
        await run(tmp_path, "x", transport=server, on_message=seen.append)
    assert names(seen) == ["startup_failed"]


async def test_approvals_are_given_where_the_policy_is_never(
    server: Any, seen: Messages, tmp_path: Any
) -> None:
    asks(server, COMMAND)
    session = await Session.start(tmp_path, transport=server, on_message=seen.append)
    running = asyncio.create_task(session.run("x"))
    assert (await server.replied(0))["result"] == {"decision": "accept"}
    server.feed(server.ended())
    await running
    assert "approval_auto_approved" in names(seen)
    await session.stop()


@pytest.mark.parametrize(
    ("method", "params", "reply", "event", "error"),
    [
        (COMMAND, {}, {"decision": "cancel"}, "approval_required", ApprovalNeeded),
        (
            PERMISSIONS,
            {"permissions": {"network": True}},
            {"permissions": {}, "scope": "turn"},
            "approval_required",
            ApprovalNeeded,
        ),
        (INPUT, {"questions": QUESTIONS}, {"answers": {}}, "turn_input_required", InputNeeded),
    ],
)
async def test_what_nobody_answers_ends_the_turn(
    server: Any,
    seen: Messages,
    tmp_path: Any,
    method: str,
    params: Any,
    reply: Any,
    event: str,
    error: Any,
) -> None:
    asks(server, method, **params)
    session = await Session.start(
        tmp_path, transport=server, approval_policy="on-request", on_message=seen.append
    )
    with pytest.raises(error) as caught:
        await session.run("x")
    assert caught.value.request.method == method
    assert (await server.replied(0))["result"] == reply
    assert names(seen) == ["session_started", event, "turn_ended_with_error"]
    assert server.requests("turn/interrupt")
    await session.stop()


async def test_a_turn_that_ends_before_its_refusal_reaches_it_is_refused_all_the_same(
    server: Any, seen: Messages, tmp_path: Any
) -> None:
    asks(server, INPUT, questions=QUESTIONS)
    server.answers["turn/interrupt"] = lambda m: [
        {"id": m["id"], "error": {"code": -32600, "message": "no active turn"}},
        server.ended("completed"),
    ]
    session = await Session.start(
        tmp_path, transport=server, approval_policy="untrusted", on_message=seen.append
    )
    with pytest.raises(InputNeeded):
        await session.run("x")
    assert names(seen)[-1] == "turn_ended_with_error"
    assert "turn_completed" not in names(seen)
    await session.stop()


async def test_questions_are_answered_without_a_person(
    server: Any, seen: Messages, tmp_path: Any
) -> None:
    asks(server, INPUT, questions=QUESTIONS)
    session = await Session.start(
        tmp_path, transport=server, approval_policy="untrusted", on_message=seen.append
    )
    running = asyncio.create_task(session.run("x", auto_approve=True))
    answers = (await server.replied(0))["result"]["answers"]
    assert answers["q1"] == {"answers": ["A (Recommended)"]}
    assert "non-interactive" in answers["q2"]["answers"][0]
    server.feed(server.ended())
    await running
    assert "tool_input_auto_answered" in names(seen)
    await session.stop()


async def test_handlers_of_ones_own_are_asked_and_told_of(
    server: Any, seen: Messages, tmp_path: Any
) -> None:
    records: list[Any] = []
    handlers = ServerRequestHandlers(command="decline", on_answered=records.append)
    asks(server, COMMAND)
    session = await Session.start(
        tmp_path, transport=server, handlers=handlers, on_message=seen.append
    )
    running = asyncio.create_task(session.run("x"))
    assert (await server.replied(0))["result"] == {"decision": "decline"}
    server.feed(server.ended())
    await running
    assert "approval_required" in names(seen)
    assert len(records) == 1
    await session.stop()


async def _slow(name: str, arguments: Any) -> Any:
    return {"success": True, "contentItems": []}


def _broken(name: str, arguments: Any) -> Any:
    raise RuntimeError("kaputt")


@pytest.mark.parametrize(
    ("executor", "event", "success"),
    [
        (lambda name, arguments: {"success": True, "contentItems": []}, "completed", True),
        (_slow, "completed", True),
        (_broken, "failed", False),
        (lambda name, arguments: unsupported_tool_result(name), "unsupported", False),
        (None, "unsupported", False),
    ],
)
async def test_tools_given_as_mappings_are_answered_by_the_executor(
    server: Any, seen: Messages, tmp_path: Any, executor: Any, event: str, success: bool
) -> None:
    asks(server, "item/tool/call", tool="query", callId="c", arguments={"q": 1}, namespace=None)
    session = await Session.start(tmp_path, transport=server, tools=[SPEC], on_message=seen.append)
    running = asyncio.create_task(session.run("x", tool_executor=executor))
    assert (await server.replied(0))["result"]["success"] is success
    server.feed(server.ended())
    await running
    expected = {
        "completed": "tool_call_completed",
        "failed": "tool_call_failed",
        "unsupported": "unsupported_tool_call",
    }[event]
    assert expected in names(seen)
    assert server.requests("thread/start")[0]["params"]["dynamicTools"] == [SPEC]
    await session.stop()


async def test_decorated_tools_and_unknown_ones_are_told_of(
    server: Any, seen: Messages, tmp_path: Any
) -> None:
    @tool
    async def known() -> str:
        return "yes"

    session = await Session.start(tmp_path, transport=server, tools=[known], on_message=seen.append)
    for name, event in (("known", "tool_call_completed"), ("nope", "unsupported_tool_call")):
        server.sent.clear()
        asks(server, "item/tool/call", tool=name, callId="c", arguments={}, namespace=None)
        running = asyncio.create_task(session.run("x"))
        await server.replied(0)
        server.feed(server.ended())
        await running
        assert event in names(seen)
    await session.stop()


async def test_a_request_of_a_later_version_is_told_of(
    server: Any, seen: Messages, tmp_path: Any
) -> None:
    asks(server, "from/the/future")
    session = await Session.start(tmp_path, transport=server, on_message=seen.append)
    running = asyncio.create_task(session.run("x"))
    assert "error" in await server.replied(0)
    server.feed(server.ended())
    await running
    assert "other_message" in names(seen)
    await session.stop()


async def test_a_callback_that_raises_is_reported_and_nothing_is_lost(
    server: Any, tmp_path: Any
) -> None:
    reported: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))

    def broken(message: messages.SessionMessage) -> None:
        raise RuntimeError(message.event)

    start_ends(server)
    result = await run(tmp_path, "x", transport=server, on_message=broken)
    assert result.result == "turn_completed"
    assert {"session_started", "turn_completed"} <= {str(error) for error in reported}


def test_every_kind_of_message_has_a_name_of_its_own() -> None:
    assert len(messages.EVENTS) == 16
    kinds = messages.SessionMessage.__subclasses__()
    assert sorted(kind.event for kind in kinds) == sorted(messages.EVENTS)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"colour": "red"}, "unknown options: 'colour'"),
        ({"tools": [{"description": "x"}]}, "use a Tool or name"),
        ({"sandbox": "open"}, "sandbox='open'"),
        ({"tools": "query"}, "tools='query': give a list of tools"),
        ({"on_message": 3}, "on_message=3: give a function"),
        ({"read_timeout_s": "5"}, "read_timeout_s='5': give seconds"),
        ({"auto_approve": "yes"}, "auto_approve='yes'"),
    ],
)
async def test_options_that_make_no_sense_are_refused(
    server: Any, tmp_path: Any, options: Any, text: str
) -> None:
    with pytest.raises(InvalidArgument, match=text):
        await Session.start(tmp_path, transport=server, **options)


async def test_unknown_options_of_a_turn_and_folders_that_are_not_there_are_refused(
    server: Any, tmp_path: Any
) -> None:
    with pytest.raises(InvalidArgument, match="workspace=3"):
        await Session.start(3, transport=server)  # type: ignore[arg-type] # what is tested
    with pytest.raises(InvalidArgument, match="is not a directory"):
        await Session.start(tmp_path / "none", transport=server)
    session = await Session.start(tmp_path, transport=server)
    with pytest.raises(InvalidArgument, match="unknown options: 'colour'"):
        await session.run("x", colour="red")  # type: ignore[call-arg] # what is tested
    for options in ({"turn_timeout_s": -1}, {"title": None}, {"output_schema": []}):
        with pytest.raises(InvalidArgument, match=next(iter(options))):
            await session.run("x", **options)  # type: ignore[arg-type] # what is tested
    assert server.requests("turn/start") == []
    await session.stop()
