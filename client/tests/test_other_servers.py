"""Servers that are not Codex, or not sound: what they leave out, write twice, or spoil."""

import asyncio
import json
from typing import Any

import pytest
from codex_app_server import (
    RequestError,
    RequestOutcome,
    ServerRequestHandlers,
    ServerRequestRecord,
    TurnFailed,
    TurnInterrupted,
    tool,
)
from codex_app_server.protocol.mending import mended
from codex_app_server.protocol.rpc import Rpc, Run

THE_TURN: Any = object()
COMMAND = "item/commandExecution/requestApproval"


def bad(message: dict[str, Any], text: bytes) -> bytes:
    """Return a message's line with bytes in the place of BAD."""
    return json.dumps(message).encode().replace(b"BAD", text) + b"\n"


@pytest.mark.parametrize("before_the_reply", [False, True])
@pytest.mark.parametrize(
    "params",
    [
        None,
        {},
        [],
        {"turn": None},
        {"threadId": None, "turnId": None, "turn": {"status": "completed"}},
        {"turnId": 5, "turn": {"id": [], "status": "completed"}},
        {"turn": {"id": THE_TURN}},
        {"turn": {"id": THE_TURN, "status": None, "items": None, "error": None}},
    ],
)
async def test_an_end_without_ids_or_status_ends_the_only_turn(
    server, connect, params, before_the_reply
) -> None:
    named = json.loads(json.dumps(params, default=lambda _: server.turn_id))
    end = {"method": "turn/completed", **({} if params is None else {"params": named})}

    def answer(message: dict[str, Any]) -> list[Any]:
        reply = server.reply(message, {"turn": {"id": server.turn_id}})
        return [end, reply] if before_the_reply else [reply, end]

    server.answers["turn/start"] = answer
    thread = await (await connect()).start_thread()
    turn = thread.run("go")
    assert [event.method async for event in turn] == ["turn/completed"]
    assert (await turn).status == "completed"


async def test_items_and_tokens_without_ids_are_the_only_turns(server, connect) -> None:
    item = {"type": "agentMessage", "id": "m", "text": "Done."}
    usage = {"total": {"totalTokens": 7}, "last": {"totalTokens": 7}}
    server.answers["turn/start"] = lambda m: [
        server.reply(m, {"turn": {"id": server.turn_id}}),
        {"method": "item/completed", "params": {"item": item}},
        {"method": "thread/tokenUsage/updated", "params": {"tokenUsage": usage}},
        {"method": "account/rateLimits/updated", "params": {"rateLimits": {}}},
        {"method": "turn/completed"},
    ]
    turn = (await (await connect()).start_thread()).run("go")
    methods = [event.method async for event in turn]
    assert methods == ["item/completed", "thread/tokenUsage/updated", "turn/completed"]
    result = await turn
    assert (result.final_message, result.usage.total_tokens) == ("Done.", 7)


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([{"method": "turn/failed", "params": {"error": {"message": "no disk"}}}], "no disk"),
        ([{"method": "turn/failed", "params": {"turn": {"error": {"message": "x"}}}}], "x"),
        ([{"method": "turn/failed"}], "the server gave no reason"),
        ([{"method": "turn/completed", "params": {"turn": {"error": {"message": "y"}}}}], "y"),
        (
            [
                {"method": "error", "params": {"error": {"message": "z"}, "willRetry": False}},
                {"method": "turn/completed"},
            ],
            "z",
        ),
    ],
)
async def test_a_failure_without_a_status_is_no_success(server, connect, events, message) -> None:
    server.answers["turn/start"] = lambda m: [
        server.reply(m, {"turn": {"id": server.turn_id}}),
        *events,
    ]
    thread = await (await connect()).start_thread()
    with pytest.raises(TurnFailed) as failure:
        await thread.run("go")
    assert failure.value.message == message


async def test_a_retried_error_before_an_end_without_a_status_is_a_success(server, connect) -> None:
    server.answers["turn/start"] = lambda m: [
        server.reply(m, {"turn": {"id": server.turn_id}}),
        {"method": "error", "params": {"error": {"message": "z"}, "willRetry": True}},
        {"method": "turn/completed"},
    ]
    assert (await (await (await connect()).start_thread()).run("go")).status == "completed"


async def test_a_cancelled_turn_of_an_older_protocol_is_interrupted(server, connect) -> None:
    server.answers["turn/start"] = lambda m: [
        server.reply(m, {"turn": {"id": server.turn_id}}),
        {"method": "turn/cancelled", "params": {"threadId": server.thread_id}},
    ]
    thread = await (await connect()).start_thread()
    with pytest.raises(TurnInterrupted):
        await thread.run("go")


async def test_an_end_without_ids_ends_none_of_two_turns(server, connect) -> None:
    ids = iter(("a", "b"))
    server.answers["thread/start"] = lambda m: [server.reply(m, {"thread": {"id": next(ids)}})]
    server.answers["turn/start"] = lambda m: [
        server.reply(m, {"turn": {"id": f"turn of {m['params']['threadId']}"}})
    ]
    connection = await connect()
    first = await (await connection.start_thread()).run("go").start()
    second = await (await connection.start_thread()).run("go").start()
    server.feed({"method": "turn/completed"})
    # The turn's id alone says enough.
    server.feed({"method": "turn/completed", "params": {"turn": {"id": "turn of b"}}})
    assert (await second).status == "completed"
    assert not first.done
    server.feed({"method": "turn/completed", "params": {"turnId": "turn of nobody"}})
    server.feed({"method": "turn/completed"})
    assert (await first).thread_id == "a"


@pytest.mark.parametrize("text", [b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"\\\\\\udfff"])
async def test_a_text_that_no_decoder_takes_costs_only_its_bad_letters(
    server, connect, text
) -> None:
    item = {"type": "agentMessage", "id": "m", "text": "a BAD b"}
    error = {"message": "why BAD", "codexErrorInfo": "unauthorized"}
    server.answers["turn/start"] = lambda m: [
        server.reply(m, {"turn": {"id": server.turn_id}}),
        bad(server.delta("one"), b""),
        *[bad(server.delta("BAD"), text) for _ in range(3)],
        bad(server.event("item/completed", item=item), text),
        bad(server.ended("failed", error=error), text),
    ]
    connection = await connect()
    turn = (await connection.start_thread()).run("go", queue_limit=1)
    await turn.start()
    events = [event async for event in turn]
    completed = next(event for event in events if event.method == "item/completed")
    assert "\ufffd" in completed.params.item.text
    assert completed.params.item.text.startswith("a ")
    assert completed.raw.count(text) == 1
    deltas = "".join(event.params.delta for event in events if event.is_delta)
    assert deltas.startswith("one")
    assert deltas.count("\ufffd") >= 3
    with pytest.raises(TurnFailed, match=r"why .*\ufffd") as failure:
        await turn
    assert failure.value.code == "unauthorized"
    assert connection.malformed_lines == 0


def test_a_byte_order_mark_before_a_reply_or_an_event_is_passed_over() -> None:
    rpc = Rpc()
    request_id, _ = rpc.request("a", {})
    mark = b"\xef\xbb\xbf"
    event = b'{"method":"m","params":{"a":"\xc3\xa9"}}\n'
    reply, run = rpc.receive(b'%s{"id":%d,"result":1}\n%s%s' % (mark, request_id, mark, event), 0.0)
    assert getattr(reply, "id", None) == request_id
    assert isinstance(run, Run)
    assert run.events[0].data == {"a": "é"}
    assert rpc.malformed == 0


@pytest.mark.parametrize(
    "line",
    [
        b'{"a":"\\ud83d\\ude00"}',
        b'{"a":"\\\\ud800"}',
        '{"a":"é"}'.encode(),
        b"not json \\",
        b"",
    ],
)
def test_a_line_that_needs_no_mending_is_left_alone(line: bytes) -> None:
    assert mended(line) is None


async def test_a_reply_without_result_and_error_is_an_error_at_once(server, connect) -> None:
    server.answers["model/list"] = lambda m: [{"id": m["id"]}]
    connection = await connect()
    with pytest.raises(RequestError, match="neither a result nor an error"):
        await connection.call("model/list", {})


@pytest.mark.parametrize("spell", [float, str])
async def test_a_reply_whose_id_is_spelt_otherwise_is_understood_at_once(
    server, connect, spell
) -> None:
    for method in ("initialize", "model/list"):
        server.answers[method] = lambda m: [{"id": spell(m["id"]), "result": {"userAgent": "x"}}]
    connection = await connect(request_timeout_s=1e6)  # a time-out would never come
    assert await connection.call("model/list", {}) == {"userAgent": "x"}
    server.answers["model/list"] = lambda m: [{"id": spell(m["id"]), "error": {"message": "no"}}]
    with pytest.raises(RequestError, match="no"):
        await connection.call("model/list", {})
    assert connection.unmatched_replies == connection.malformed_lines == 0


async def test_an_odd_list_of_sub_agents_harms_nobody(server, connect) -> None:
    item = {"type": "collabAgentToolCall", "tool": "spawnAgent", "id": "c"}
    server.answers["turn/start"] = lambda m: [
        server.reply(m, {"turn": {"id": server.turn_id}}),
        server.event("item/started", item={**item, "receiverThreadIds": [[], {}, 3, None, "kid"]}),
        server.ended(),
    ]
    turn = (await (await connect()).start_thread()).run("go")
    assert (await turn).status == "completed"
    assert turn.children == {"kid"}


async def test_a_request_that_names_no_thread_is_the_only_turns(
    server, connect, eventually
) -> None:
    @tool
    async def look_up(word: str) -> str:
        return f"{word}!"

    server.answers["turn/start"] = lambda m: [
        server.reply(m, {"turn": {"id": server.turn_id}}),
        {
            "id": 0,
            "method": "item/tool/call",
            "params": {"tool": "look_up", "arguments": {"word": "a"}},
        },
        {"id": "x", "method": COMMAND, "params": {"command": "ls"}},
    ]
    connection = await connect(handlers=ServerRequestHandlers(command="manual"))
    turn = await (await connection.start_thread(tools=[look_up])).run("go").start()
    answer = (await server.replied(0))["result"]
    assert answer == {"success": True, "contentItems": [{"type": "inputText", "text": "a!"}]}
    assert turn.waiting
    (pending,) = connection.pending_requests
    assert pending.info.thread_id == server.thread_id
    pending.answer("accept")
    assert (await server.replied("x"))["result"] == {"decision": "accept"}
    # Nobody answers this one: the interrupted turn does not wait for it either.
    server.feed({"id": "y", "method": COMMAND, "params": {"command": "ls"}})
    await eventually(lambda: connection.pending_requests)
    await turn.interrupt()
    assert (await server.replied("y"))["result"] == {"decision": "decline"}


async def test_an_id_that_is_used_again_at_once_is_answered_again(server, connect) -> None:
    send = server.send
    asked, seen = 1, asyncio.Event()

    async def send_and_ask_again(data: bytes) -> None:
        nonlocal asked
        await send(data)
        if asked < 3 and "method" not in json.loads(data):
            asked += 1
            # The next request is read before the first one's task has ended.
            seen.clear()
            server.feed(
                {"id": 0, "method": COMMAND, "params": {}}, {"method": "read", "params": {}}
            )
            await seen.wait()

    server.send = send_and_ask_again
    await connect(on_events=lambda events: seen.set())
    server.feed({"id": 0, "method": COMMAND, "params": {}})
    await server.until(lambda: sum("method" not in one for one in server.sent) == 3)


async def test_a_request_that_is_taken_back_at_once_is_still_told_of(server, connect) -> None:
    told: list[ServerRequestRecord] = []
    connection = await connect(handlers=ServerRequestHandlers(on_answered=told.append))
    params = {"threadId": server.thread_id, "requestId": 0}
    server.feed(
        {"id": 0, "method": COMMAND, "params": {}},
        {"method": "serverRequest/resolved", "params": params},
    )
    server.feed({"id": 1, "method": COMMAND, "params": {}})
    await server.replied(1)
    assert [record.outcome for record in told] == [RequestOutcome.RESOLVED, RequestOutcome.ANSWERED]
    assert not connection.pending_requests
