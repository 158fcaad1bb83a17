import asyncio
from typing import Any

import pytest
from codex_app_server import (
    InvalidArgument,
    RequestKind,
    RequestOutcome,
    ServerRequestHandlers,
    ServerRequestInfo,
    ServerRequestRecord,
    Tool,
    ToolCallContext,
    ToolOutput,
)

COMMAND = "item/commandExecution/requestApproval"
ASKED = {"fileSystem": {"write": ["/opt/zz"]}, "network": None}


def request(server: Any, method: str, request_id: Any = 0, **params: Any) -> dict[str, Any]:
    ids = {"threadId": server.thread_id, "turnId": server.turn_id, "itemId": "i"}
    return {"id": request_id, "method": method, "params": {**ids, **params}}


CASES: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    (
        "command",
        COMMAND,
        {},
        {
            "decline": {"decision": "decline"},
            "accept": {"decision": "accept"},
            "accept_for_session": {"decision": "acceptForSession"},
        },
    ),
    (
        "file_change",
        "item/fileChange/requestApproval",
        {},
        {
            "decline": {"decision": "decline"},
            "accept": {"decision": "accept"},
            "accept_for_session": {"decision": "acceptForSession"},
        },
    ),
    (
        "permissions",
        "item/permissions/requestApproval",
        {"permissions": ASKED},
        {
            "decline": {"permissions": {}, "scope": "turn"},
            "accept": {"permissions": {"fileSystem": {"write": ["/opt/zz"]}}, "scope": "turn"},
            "accept_for_session": {
                "permissions": {"fileSystem": {"write": ["/opt/zz"]}},
                "scope": "session",
            },
        },
    ),
    (
        "user_input",
        "item/tool/requestUserInput",
        {"questions": [{"id": "q", "options": [{"label": "A"}, {"label": "B"}]}, {"id": "free"}]},
        {
            "decline": {"answers": {}},
            "accept": {"answers": {"q": {"answers": ["A"]}}},
        },
    ),
    (
        "elicitation",
        "mcpServer/elicitation/request",
        {"_meta": None, "mode": "form"},
        {
            "decline": {"action": "decline", "content": None},
            "accept": {"action": "accept", "content": {}},
            "accept_for_session": {"action": "accept", "content": {}},
        },
    ),
    (
        "mcp_tool",
        "mcpServer/elicitation/request",
        {"_meta": {"codex_approval_kind": "mcp_tool_call"}},
        {
            "decline": {"action": "decline", "content": None},
            "accept": {"action": "accept", "content": {}},
            "accept_for_session": {
                "action": "accept",
                "content": {},
                "_meta": {"persist": "session"},
            },
        },
    ),
    (
        "command",
        "execCommandApproval",
        {"conversationId": "t"},
        {
            "decline": {"decision": "denied"},
            "accept": {"decision": "approved"},
            "accept_for_session": {"decision": "approved_for_session"},
        },
    ),
    (
        "file_change",
        "applyPatchApproval",
        {"conversationId": "t"},
        {
            "decline": {"decision": "denied"},
            "accept": {"decision": "approved"},
            "accept_for_session": {"decision": "approved_for_session"},
        },
    ),
]


@pytest.mark.parametrize(
    ("kind", "method", "params", "policy", "answer"),
    [
        pytest.param(kind, method, params, policy, answer, id=f"{method}-{kind}-{policy}")
        for kind, method, params, answers in CASES
        for policy, answer in answers.items()
    ],
)
async def test_a_policy_answers_its_kind_and_no_other(
    server, connect, kind: str, method: str, params: Any, policy: str, answer: Any
) -> None:
    records: list[ServerRequestRecord] = []
    handlers = ServerRequestHandlers(**{kind: policy}, on_answered=records.append)
    await connect(handlers=handlers)
    server.feed(request(server, method, 0, **params))
    assert (await server.replied(0))["result"] == answer
    assert records[0].outcome is RequestOutcome.ANSWERED
    assert records[0].policy == policy
    assert records[0].answer == answer
    for other, other_method, other_params, others in CASES:
        if other != kind:
            server.feed(request(server, other_method, "x" + other_method + other, **other_params))
            reply = await server.replied("x" + other_method + other)
            assert reply["result"] == others["decline"]


async def test_by_default_everything_is_declined(server, connect) -> None:
    await connect()
    for number, (_, method, params, answers) in enumerate(CASES):
        server.feed(request(server, method, number, **params))
        assert (await server.replied(number))["result"] == answers["decline"]


async def test_an_unknown_request_is_refused_at_once(server, connect) -> None:
    records: list[ServerRequestRecord] = []
    await connect(handlers=ServerRequestHandlers(on_answered=records.append))
    for number, method in enumerate(
        ["brand/new", "attestation/generate", "account/chatgptAuthTokens/refresh"]
    ):
        server.feed(request(server, method, number))
        assert (await server.replied(number))["error"]["code"] == -32601
    assert {record.outcome for record in records} == {RequestOutcome.UNSUPPORTED}


async def test_the_time_is_told_and_further_methods_can_be_answered(server, connect) -> None:
    async def answer(info: ServerRequestInfo) -> dict[str, Any]:
        return {"method": info.method, "x": info.params["x"]}

    handlers = ServerRequestHandlers(other={"brand/new": answer}, token_refresh=answer)
    await connect(handlers=handlers)
    server.feed(request(server, "brand/new", 1, x=2), request(server, "currentTime/read", 2))
    assert (await server.replied(1))["result"] == {"method": "brand/new", "x": 2}
    assert (await server.replied(2))["result"]["currentTimeAt"] > 1_700_000_000


async def test_a_callback_decides_with_words_or_the_wires_own_result(server, connect) -> None:
    answers: list[Any] = [
        "cancel",
        {"decision": "acceptForSession"},
        None,
        {"decision": {"acceptWithExecpolicyAmendment": {"execpolicy_amendment": ["ls"]}}},
        "approve",
    ]
    records: list[ServerRequestRecord] = []

    async def decide(info: ServerRequestInfo) -> Any:
        assert info.kind is RequestKind.COMMAND
        return answers[int(info.id)]

    await connect(handlers=ServerRequestHandlers(command=decide, on_answered=records.append))
    sent = []
    for number in range(len(answers)):
        server.feed(request(server, COMMAND, number))
        sent.append((await server.replied(number))["result"]["decision"])
    assert sent == ["cancel", "acceptForSession", "decline", "decline", "decline"]
    assert [record.outcome for record in records] == [
        RequestOutcome.ANSWERED,
        RequestOutcome.ANSWERED,
        RequestOutcome.ANSWERED,
        RequestOutcome.FAILED,
        RequestOutcome.FAILED,
    ]
    assert "allow_persistent" in (records[3].error or "")


async def test_a_handler_that_raises_is_told_to_the_loop_with_its_trace(server, connect) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

    async def decide(info: ServerRequestInfo) -> Any:
        raise KeyError("a fault of the handler")

    await connect(handlers=ServerRequestHandlers(command=decide))
    server.feed(request(server, COMMAND))
    assert (await server.replied(0))["result"]["decision"] == "decline"
    assert told[0]["message"] == f"the handler of {COMMAND} raised"
    assert isinstance(told[0]["exception"], KeyError)


async def test_persistent_answers_pass_only_on_explicit_wish(server, connect) -> None:
    amendment = {"acceptWithExecpolicyAmendment": {"execpolicy_amendment": ["ls"]}}

    async def decide(info: ServerRequestInfo) -> Any:
        return {"decision": amendment}

    await connect(handlers=ServerRequestHandlers(command=decide, allow_persistent=True))
    server.feed(request(server, COMMAND))
    assert (await server.replied(0))["result"] == {"decision": amendment}


async def test_answers_to_questions_may_be_plain_texts(server, connect) -> None:
    async def decide(info: ServerRequestInfo) -> Any:
        return {"q1": "B", "q2": ["x", "y"]}

    await connect(handlers=ServerRequestHandlers(user_input=decide))
    server.feed(request(server, "item/tool/requestUserInput"))
    assert (await server.replied(0))["result"] == {
        "answers": {"q1": {"answers": ["B"]}, "q2": {"answers": ["x", "y"]}}
    }


@pytest.mark.looptime
async def test_a_handler_that_never_returns_is_answered_for_at_its_deadline(
    server, connect
) -> None:
    records: list[ServerRequestRecord] = []

    async def hang(info: ServerRequestInfo) -> Any:
        await asyncio.Event().wait()

    async def hang_tool(arguments: Any, context: ToolCallContext) -> str:
        await asyncio.Event().wait()
        return ""

    handlers = ServerRequestHandlers(
        command=hang, file_change="accept", timeout_s=20, on_answered=records.append
    )
    connection = await connect(handlers=handlers)
    await connection.start_thread(tools=[Tool("slow", "", {}, hang_tool, timeout_s=30)])
    server.feed(
        request(server, COMMAND, 0),
        request(server, "item/tool/call", 1, tool="slow", callId="c", arguments={}),
        request(server, "item/fileChange/requestApproval", 2),
    )
    loop = asyncio.get_running_loop()
    assert (await server.replied(2))["result"] == {"decision": "accept"}
    assert loop.time() < 1
    assert (await server.replied(0))["result"] == {"decision": "decline"}
    assert loop.time() == pytest.approx(20, abs=0.1)
    assert (await server.replied(1))["result"]["success"] is False
    assert loop.time() == pytest.approx(30, abs=0.1)
    assert [record.outcome for record in records] == [
        RequestOutcome.ANSWERED,
        RequestOutcome.TIMED_OUT,
        RequestOutcome.TIMED_OUT,
    ]


async def test_a_handler_that_raises_is_answered_with_the_safe_reply(server, connect) -> None:
    records: list[ServerRequestRecord] = []

    async def fail(info: ServerRequestInfo) -> Any:
        raise ValueError("bad luck")

    await connect(handlers=ServerRequestHandlers(command=fail, on_answered=records.append))
    server.feed(request(server, COMMAND))
    assert (await server.replied(0))["result"] == {"decision": "decline"}
    assert records[0].error == "ValueError: bad luck"


async def test_a_fault_in_on_answered_is_reported_and_harms_nobody(
    server, connect, eventually
) -> None:
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def broken(record: ServerRequestRecord) -> None:
        raise ZeroDivisionError

    await connect(handlers=ServerRequestHandlers(on_answered=broken))
    server.feed(request(server, COMMAND))
    assert (await server.replied(0))["result"] == {"decision": "decline"}
    await eventually(lambda: reported)
    assert isinstance(reported[0]["exception"], ZeroDivisionError)


async def test_a_handler_may_close_the_connection(server, connect, eventually) -> None:
    async def close(info: ServerRequestInfo) -> None:
        await connection.aclose()

    connection = await connect(handlers=ServerRequestHandlers(command=close))
    server.feed(request(server, COMMAND))
    await eventually(lambda: server.closed)
    assert connection.is_closed


async def test_a_request_resolved_elsewhere_gets_no_reply(server, connect, eventually) -> None:
    records: list[ServerRequestRecord] = []
    handlers = ServerRequestHandlers(command="manual", on_answered=records.append)
    connection = await connect(handlers=handlers)
    server.feed(request(server, COMMAND, "r1"))
    await eventually(lambda: connection.pending_requests)
    params = {"threadId": server.thread_id, "requestId": "r1"}
    server.feed({"method": "serverRequest/resolved", "params": params})
    await eventually(lambda: records)
    assert records[0].outcome is RequestOutcome.RESOLVED
    assert not [m for m in server.sent if m.get("id") == "r1"]
    assert connection.pending_requests == []


async def test_a_manual_request_waits_for_a_person_and_is_not_taken_twice(
    server, connect, eventually
) -> None:
    connection = await connect(handlers=ServerRequestHandlers(command="manual"))
    server.feed(request(server, COMMAND, 4, command="ls"), request(server, COMMAND, 4))
    await eventually(lambda: connection.pending_requests)
    (pending,) = connection.pending_requests
    assert pending.info.params["command"] == "ls"
    with pytest.raises(InvalidArgument):
        pending.answer("sure")
    pending.answer("accept_for_session")
    pending.answer("decline")
    assert (await server.replied(4))["result"] == {"decision": "acceptForSession"}


async def test_an_interrupt_declines_what_the_turn_still_asks(server, connect, eventually) -> None:
    records: list[ServerRequestRecord] = []
    handlers = ServerRequestHandlers(command="manual", on_answered=records.append)
    connection = await connect(handlers=handlers)
    thread = await connection.start_thread()
    turn = await thread.run("go").start()
    server.feed(request(server, COMMAND, 0))
    await eventually(lambda: connection.pending_requests)
    await turn.interrupt()
    assert (await server.replied(0))["result"] == {"decision": "decline"}
    assert records[0].outcome is RequestOutcome.CANCELLED


@pytest.mark.parametrize("together", [False, True])
async def test_nobody_is_asked_any_more_once_the_turn_has_ended(
    server, connect, eventually, together: bool
) -> None:
    records: list[ServerRequestRecord] = []
    handlers = ServerRequestHandlers(command="manual", on_answered=records.append)
    connection = await connect(handlers=handlers)
    turn = await (await connection.start_thread()).run("go").start()
    asked = [request(server, COMMAND, 0)]
    if not together:
        server.feed(*asked)
        await eventually(lambda: connection.pending_requests)
        (pending,) = connection.pending_requests
        asked = []
    server.feed(*asked, server.ended())
    await turn

    assert (await server.replied(0))["result"] == {"decision": "decline"}
    await eventually(lambda: records)
    assert records[0].outcome is RequestOutcome.CANCELLED
    assert records[0].error == "the turn ended before anybody had answered"
    assert connection.pending_requests == []
    if not together:
        assert pending.settled
        pending.answer("accept")  # too late, and harmless
    assert len([one for one in server.sent if one.get("id") == 0 and "method" not in one]) == 1


async def test_what_was_answered_and_what_another_turn_asks_outlive_the_end_of_a_turn(
    server, connect, eventually
) -> None:
    connection = await connect(handlers=ServerRequestHandlers(command="manual"))
    turn = await (await connection.start_thread()).run("go").start()
    other = request(server, COMMAND, 1)
    other["params"]["turnId"] = "another"
    server.feed(request(server, COMMAND, 0), other)
    await eventually(lambda: len(connection.pending_requests) == 2)
    first, second = connection.pending_requests
    first.answer("accept")
    server.feed(server.ended())
    await turn
    assert (await server.replied(0))["result"] == {"decision": "accept"}
    assert connection.pending_requests == [second]
    assert not second.settled


async def test_a_tool_that_has_begun_ends_by_itself_though_its_turn_has_ended(
    server, connect
) -> None:
    gate, begun = asyncio.Event(), asyncio.Event()

    async def slow(arguments: Any, context: Any) -> str:
        begun.set()
        await gate.wait()
        return "done"

    tool = Tool(name="slow", description="d", input_schema={"type": "object"}, handler=slow)
    turn = await (await (await connect()).start_thread(tools=[tool])).run("go").start()
    server.feed(tool_call(server, 0, "slow"))
    await begun.wait()
    server.feed(server.ended())
    await turn
    gate.set()
    assert (await server.replied(0))["result"]["success"] is True


def tool_call(server: Any, number: Any, tool: str, **arguments: Any) -> dict[str, Any]:
    return request(
        server,
        "item/tool/call",
        number,
        tool=tool,
        callId=f"c{number}",
        namespace=None,
        arguments=arguments,
    )


async def test_parallel_tool_calls_are_answered_in_the_order_of_their_ends(server, connect) -> None:
    gates = {0: asyncio.Event(), 1: asyncio.Event()}
    contexts: list[ToolCallContext] = []

    async def wait(arguments: Any, context: ToolCallContext) -> str:
        contexts.append(context)
        await gates[arguments["n"]].wait()
        return f"done {arguments['n']}"

    connection = await connect()
    await connection.start_thread(tools=[Tool("wait", "", {"type": "object"}, wait)])
    server.feed(tool_call(server, 0, "wait", n=0), tool_call(server, 1, "wait", n=1))
    gates[1].set()
    assert (await server.replied(1))["result"] == {
        "success": True,
        "contentItems": [{"type": "inputText", "text": "done 1"}],
    }
    assert not [m for m in server.sent if m.get("id") == 0]
    gates[0].set()
    assert (await server.replied(0))["result"]["success"]
    assert contexts[0] == ToolCallContext(server.thread_id, server.turn_id, "c0", "wait", None)


@pytest.mark.parametrize(
    ("result", "success", "items"),
    [
        ("text", True, [{"type": "inputText", "text": "text"}]),
        (None, True, [{"type": "inputText", "text": ""}]),
        ({"data": [1]}, True, [{"type": "inputText", "text": '{"data":[1]}'}]),
        (ToolOutput.text("no", success=False), False, [{"type": "inputText", "text": "no"}]),
        (
            ToolOutput(({"type": "inputImage", "imageUrl": "data:x"},)),
            True,
            [{"type": "inputImage", "imageUrl": "data:x"}],
        ),
        (
            {"success": True, "contentItems": [{"type": "inputText", "text": "w"}]},
            True,
            [{"type": "inputText", "text": "w"}],
        ),
        (object(), False, None),
        ("lone \ud800", False, None),
        (
            RuntimeError("kaputt"),
            False,
            [{"type": "inputText", "text": "t failed: RuntimeError: kaputt"}],
        ),
    ],
)
async def test_whatever_a_tool_returns_becomes_a_valid_answer(
    server, connect, result: Any, success: bool, items: Any
) -> None:
    async def handler(arguments: Any, context: ToolCallContext) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    connection = await connect()
    await connection.start_thread(tools=[Tool("t", "", {}, handler)])
    server.feed(tool_call(server, 9, "t"))
    reply = (await server.replied(9))["result"]
    assert reply["success"] is success
    assert items is None or reply["contentItems"] == items
    assert reply["contentItems"][0]["type"].startswith("input")


async def test_an_unknown_tool_and_an_unknown_thread_fail_cleanly(server, connect) -> None:
    connection = await connect()
    await connection.start_thread()
    server.feed(tool_call(server, 1, "nope"))
    assert (await server.replied(1))["result"] == {
        "success": False,
        "contentItems": [{"type": "inputText", "text": "unknown tool: nope"}],
    }
    server.feed({"id": 2, "method": "item/tool/call", "params": {"tool": 5}})
    assert (await server.replied(2))["result"]["success"] is False


async def test_a_resumed_threads_tools_work_before_the_reply_to_resume(server, connect) -> None:
    async def handler(arguments: Any, context: ToolCallContext) -> str:
        return "again"

    server.answers["thread/resume"] = lambda m: [
        tool_call(server, 0, "t"),
        server.reply(m, {"thread": {"id": server.thread_id}}),
    ]
    connection = await connect()
    await connection.resume_thread(server.thread_id, tools=[Tool("t", "", {}, handler)])
    assert (await server.replied(0))["result"]["contentItems"][0]["text"] == "again"


@pytest.mark.parametrize("name", ["", "a b", "ü", "x.y", "name\n"])
def test_tool_names_that_the_server_refuses_are_refused_here(name: str) -> None:
    async def handler(arguments: Any, context: ToolCallContext) -> str:
        return ""

    with pytest.raises(InvalidArgument, match=r"name=.*letters, digits"):
        Tool(name, "", {}, handler)


async def test_two_tools_of_one_name_are_refused(server, connect) -> None:
    async def handler(arguments: Any, context: ToolCallContext) -> str:
        return ""

    connection = await connect()
    tools = [Tool("t", "", {}, handler), Tool("t", "", {}, handler)]
    with pytest.raises(InvalidArgument, match="two tools"):
        await connection.start_thread(tools=tools)


def test_a_policy_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="command='always'"):
        ServerRequestHandlers(command="always")


async def test_a_person_s_requests_can_be_iterated_and_answered_as_they_come(server, connect):
    connection = await connect(handlers=ServerRequestHandlers(command="manual"))
    method = "item/commandExecution/requestApproval"
    server.feed({"id": 0, "method": method, "params": {"threadId": "t", "command": "one"}})
    seen = []
    async for pending in connection.manual_requests():
        seen.append((pending.info.method, pending.info.params["command"]))
        pending.answer("accept" if len(seen) == 1 else "decline")
        if len(seen) == 1:
            server.feed({"id": 1, "method": method, "params": {"threadId": "t", "command": "two"}})
        else:
            server.end()
    assert seen == [(method, "one"), (method, "two")]
    assert (await server.replied(0))["result"] == {"decision": "accept"}
    assert connection.is_closed
    assert [one async for one in connection.manual_requests()] == []


@pytest.mark.parametrize(
    ("limit", "value"), [("timeout_s", None), ("timeout_s", -1), ("manual_timeout_s", "60")]
)
def test_a_limit_of_handlers_that_is_none_is_refused_by_name(limit: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=f"{limit}={value!r}: give seconds"):
        ServerRequestHandlers(**{limit: value})
