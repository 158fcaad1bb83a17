import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from codex_app_server import (
    ConnectionClosed,
    Event,
    InvalidArgument,
    MalformedLine,
    RequestError,
    RequestTimeout,
    TokenUsage,
    TurnFailed,
    TurnInProgress,
    TurnInterrupted,
    TurnTimeouts,
    UnexpectedReply,
)
from codex_app_server.protocol.rpc import Rpc, Run
from codex_app_server.protocol.turn import TurnMachine

CHILD = "01a1fd25-ffff-74c1-943c-73e02be4ab8b"


def usage(total: int, last: int) -> dict[str, Any]:
    def count(n: int) -> dict[str, int]:
        return {"totalTokens": n, "inputTokens": n, "outputTokens": 0}

    return {"total": count(total), "last": count(last)}


async def test_a_whole_turn_in_one_read_is_neither_lost_nor_hangs(server, connect) -> None:
    server.answers["turn/start"] = lambda m: [
        server.event("turn/started", turn={"id": server.turn_id}),
        server.reply(m, {"turn": {"id": server.turn_id}}),
        server.delta("he"),
        server.delta("llo"),
        server.message("hello"),
        server.ended(),
    ]
    thread = await (await connect()).start_thread(cwd="/w")
    turn = thread.run("go")
    methods = [event.method async for event in turn]
    assert methods == [
        "turn/started",
        "item/agentMessage/delta",
        "item/agentMessage/delta",
        "item/completed",
        "turn/completed",
    ]
    result = await turn
    assert result.final_message == "hello"
    assert result.status == "completed"
    assert result.duration_s == 0.007
    assert turn.session_id == f"{server.thread_id}-{server.turn_id}"
    assert [item.text for item in result.items] == ["hello"]


async def test_events_before_the_reply_to_turn_start_are_kept(server, connect) -> None:
    server.answers["turn/start"] = lambda m: []
    thread = await (await connect()).start_thread()
    turn = thread.run("go")
    waiting = asyncio.create_task(turn.result())
    await server.until(lambda: server.requests("turn/start"))
    server.feed(
        server.event("turn/started", turn={"id": server.turn_id}),
        server.message("old", turn="an-older-turn"),
        server.message("new"),
        server.ended(turn="an-older-turn"),
        server.ended(),
    )
    server.feed(server.reply(server.requests("turn/start")[0], {"turn": {"id": server.turn_id}}))
    result = await waiting
    assert result.final_message == "new"
    assert len(result.item_events) == 1


async def test_replies_that_come_before_their_requests_are_matched(server, connect) -> None:
    server.answers = {}
    server.feed(
        {"id": 1, "result": {"userAgent": "x/1.2.3 y"}},
        {"id": 2, "result": {"thread": {"id": "t"}}},
        {"id": 3, "result": {"turn": {"id": "u"}}},
        {
            "id": 0,
            "method": "item/commandExecution/requestApproval",
            "params": {"threadId": "t", "turnId": "u"},
        },
    )
    connection = await connect()
    assert connection.server.version == "1.2.3"
    thread = await connection.start_thread()
    turn = await thread.run("go").start()
    assert (thread.id, turn.id) == ("t", "u")
    assert (await server.replied(0))["result"] == {"decision": "decline"}
    server.feed(server.ended(thread="t", turn="u"))
    assert (await turn).turn_id == "u"


async def test_a_sub_agents_end_is_not_the_turns(server, connect, eventually) -> None:
    server.answers["turn/start"] = lambda m: [
        server.reply(m, {"turn": {"id": server.turn_id}}),
        server.event(
            "item/started",
            item={"type": "subAgentActivity", "id": "s", "kind": "started", "agentThreadId": CHILD},
        ),
        server.ended("failed", thread=CHILD, turn="child-turn"),
        server.ended("failed", thread=CHILD, turn=server.turn_id),
        server.ended("failed", turn="another-turn"),
    ]
    thread = await (await connect()).start_thread()
    turn = await thread.run("go").start()
    await eventually(lambda: turn.children == {CHILD})
    assert not turn.done
    server.feed(server.message("parent"), server.ended())
    assert (await turn).final_message == "parent"


@pytest.mark.parametrize(
    ("info", "code", "status", "retryable"),
    [
        ("usageLimitExceeded", "usageLimitExceeded", None, True),
        ("contextWindowExceeded", "contextWindowExceeded", None, False),
        ({"httpConnectionFailed": {"httpStatusCode": 401}}, "httpConnectionFailed", 401, False),
        (
            {"responseTooManyFailedAttempts": {"httpStatusCode": 429}},
            "responseTooManyFailedAttempts",
            429,
            True,
        ),
        (
            {"responseStreamDisconnected": {"httpStatusCode": None}},
            "responseStreamDisconnected",
            None,
            True,
        ),
        ("badRequest", "badRequest", None, False),
        ("somethingNew", "somethingNew", None, False),
        (None, "other", None, True),
        ([1], "other", None, True),
    ],
)
async def test_a_failed_status_raises_with_its_code(
    server, connect, info: Any, code: str, status: int | None, retryable: bool
) -> None:
    error = {"message": "broken", "codexErrorInfo": info, "additionalDetails": "more"}
    limits = {"limitId": "codex", "primary": {"usedPercent": 100, "resetsAt": 1800000000}}
    server.answers["turn/start"] = lambda m: [
        {"method": "account/rateLimits/updated", "params": {"rateLimits": limits}},
        server.reply(m, {"turn": {"id": server.turn_id}}),
        server.ended("failed", error=error),
    ]
    thread = await (await connect()).start_thread()
    with pytest.raises(TurnFailed, match="broken") as caught:
        await thread.run("go")
    failure = caught.value
    assert (failure.code, failure.http_status, failure.retryable) == (code, status, retryable)
    assert failure.resets_at == (1800000000 if code == "usageLimitExceeded" else None)
    assert failure.details == "more"


async def test_interrupted_and_unknown_statuses_are_not_success(server, connect) -> None:
    thread = await (await connect()).start_thread()
    for status, kind in [("interrupted", TurnInterrupted), ("vanished", TurnFailed)]:
        turn = await thread.run("go").start()
        server.feed(server.ended(status))
        with pytest.raises(kind):
            await turn


async def test_a_retried_error_is_an_event_and_drops_open_items(server, connect) -> None:
    thread = await (await connect()).start_thread()
    turn = await thread.run("go").start()
    server.feed(
        server.event("item/started", item={"type": "agentMessage", "id": "a", "text": ""}),
        server.event("error", error={"message": "Reconnecting... 1/5"}, willRetry=True),
        server.event("item/started", item={"type": "agentMessage", "id": "b", "text": ""}),
        server.message("done", item="b"),
        server.ended(),
    )
    methods = [event.method async for event in turn]
    assert methods.count("error") == 1
    result = await turn
    assert result.final_message == "done"
    assert len(result.item_events) == 1


def machine_of(server: Any) -> tuple[TurnMachine, Callable[..., None]]:
    """A turn's automaton alone, and what feeds it messages."""
    rpc, machine = Rpc(), TurnMachine(server.thread_id, turn_id=server.turn_id)

    def feed(*messages: Any) -> None:
        lines = b"".join(json.dumps(message).encode() + b"\n" for message in messages)
        for run in rpc.receive(lines, 0.0):
            assert isinstance(run, Run)
            machine.feed(run.events)

    return machine, feed


def test_items_that_are_open_when_a_stream_is_retried_are_dropped(server) -> None:
    machine, feed = machine_of(server)
    feed(server.event("item/started", item={"type": "agentMessage", "id": "a", "text": ""}))
    assert machine.open_items == ["a"]
    feed(server.event("error", error={"message": "no"}, willRetry=False))
    assert machine.open_items == ["a"]
    feed(server.event("error", error={"message": "Reconnecting... 1/5"}, willRetry=True))
    assert machine.open_items == []
    assert machine.outcome is None


def test_only_the_end_of_its_own_thread_and_turn_is_the_turns(server) -> None:
    machine, feed = machine_of(server)
    feed(server.ended(thread=CHILD), server.ended(turn="another"))
    assert machine.outcome is None
    feed(server.ended())
    assert machine.outcome is not None


async def test_an_item_that_completes_after_its_turn_harms_nobody(server, connect) -> None:
    seen: list[Event] = []
    thread = await (await connect(on_events=seen.extend)).start_thread()
    turn = await thread.run("go").start()
    server.feed(server.ended())
    await turn
    server.feed(server.message("late"))
    second = thread.run("again")
    server.answers["turn/start"] = lambda m: [
        server.reply(m, {"turn": {"id": "second"}}),
        server.message("late too"),
        server.message("mine", turn="second"),
        server.ended(turn="second"),
    ]
    result = await second
    assert result.final_message == "mine"
    assert len(result.item_events) == 1
    assert [event.method for event in seen].count("item/completed") == 3


async def test_junk_in_the_middle_of_a_turn_is_passed_over(server, connect) -> None:
    seen: list[Event] = []
    connection = await connect(on_events=seen.extend, max_line_bytes=4096)
    thread = await connection.start_thread()
    turn = await thread.run("go").start()
    server.feed(
        server.delta("a"),
        b"warning: this is not JSON\n",
        b"\xff\xfe\n",
        server.event("who/knows", item={"type": "?"}),
        server.event("item/completed", item={"type": "novelty", "id": "n"}),
        b'{"method":"item/agentMessage/delta","params":{"delta":"' + b"x" * 9000 + b'"}}\n',
        server.delta("b"),
        server.ended(),
    )
    deltas = [event.params.delta async for event in turn if event.is_delta]
    assert deltas == ["a", "b"]
    assert (await turn).status == "completed"
    assert connection.malformed_lines == 3
    assert sum(isinstance(event, MalformedLine) for event in seen) == 3


async def test_the_end_of_the_stream_reaches_every_waiter_at_once(server, connect) -> None:
    server.returncode = 3
    connection = await connect()
    thread = await connection.start_thread()
    turn = await thread.run("go").start()
    waiters = [
        asyncio.create_task(turn.result()),
        asyncio.create_task(connection.call("model/list", {})),
        asyncio.create_task(_collect(turn)),
    ]
    await server.until(lambda: server.requests("model/list"))
    server.end()
    async with asyncio.timeout(30):
        results = await asyncio.gather(*waiters, return_exceptions=True)
    assert [type(result) for result in results] == [ConnectionClosed] * 3
    assert {result.returncode for result in results} == {3}
    with pytest.raises(ConnectionClosed):
        await connection.call("model/list", {})
    with pytest.raises(ConnectionClosed):
        await thread.run("again")
    assert (await connection.closed).returncode == 3


async def _collect(turn: Any) -> list[Event]:
    return [event async for event in turn]


async def test_a_second_turn_in_a_busy_thread_is_refused_here(server, connect) -> None:
    thread = await (await connect()).start_thread()
    first = await thread.run("one").start()
    with pytest.raises(TurnInProgress, match=server.turn_id):
        await thread.run("two")
    assert len(server.requests("turn/start")) == 1
    server.feed(server.ended())
    await first
    assert await thread.run("three").start()


async def test_a_refused_start_frees_the_thread(server, connect) -> None:
    thread = await (await connect()).start_thread()
    working = server.answers["turn/start"]
    server.answers["turn/start"] = lambda m: [
        {"id": m["id"], "error": {"code": -32600, "message": "no"}}
    ]
    with pytest.raises(RequestError, match="no"):
        await thread.run("one")
    server.answers["turn/start"] = lambda m: [server.reply(m, {"turn": {}})]
    with pytest.raises(UnexpectedReply, match=r"turn\.id"):
        await thread.run("two")
    with pytest.raises(InvalidArgument, match="surrogate"):
        await thread.run("\udcff")
    server.answers["turn/start"] = working
    assert (await thread.run("three").start()).id == server.turn_id


@pytest.mark.looptime
async def test_a_start_whose_reply_is_lost_is_interrupted_if_it_began(server, connect) -> None:
    thread = await (await connect()).start_thread()
    server.answers["turn/start"] = lambda m: [
        server.event("turn/started", turn={"id": server.turn_id})
    ]
    with pytest.raises(RequestTimeout, match="turn/start"):
        await thread.run("go", start_timeout_s=5)
    (interrupt,) = server.requests("turn/interrupt")
    assert interrupt["params"]["turnId"] == server.turn_id
    assert thread.turn is None


async def test_usage_is_what_the_turn_added(server, connect) -> None:
    connection = await connect()
    for opened, total, last, added in [
        (await connection.start_thread(), 120, 120, 120),
        (await connection.resume_thread("resumed"), 500, 100, 100),
    ]:
        server.answers["turn/start"] = lambda m, opened=opened, total=total, last=last: [
            server.reply(m, {"turn": {"id": "u"}}),
            server.event(
                "thread/tokenUsage/updated",
                threadId=CHILD,
                turnId="c",
                tokenUsage=usage(9000, 9000),
            ),
            server.event("item/started", threadId=opened.id, turnId="u", item={"type": "plan"}),
            server.event(
                "thread/tokenUsage/updated",
                threadId=opened.id,
                turnId="u",
                tokenUsage=usage(total, last),
            ),
            server.event(
                "thread/tokenUsage/updated",
                threadId=opened.id,
                turnId="u",
                tokenUsage=usage(total + 7, 7),
            ),
            server.ended(thread=opened.id, turn="u"),
        ]
        result = await opened.run("go")
        assert result.usage.total_tokens == added + 7
        assert opened.usage_total == TokenUsage(total + 7, total + 7)
        again = await opened.run("go")
        assert again.usage.total_tokens == 0


async def test_a_total_that_is_repeated_when_a_resumed_thread_goes_on_is_not_spent_again(
    server, connect
) -> None:
    thread = await (await connect()).resume_thread(server.thread_id)
    turn = await thread.run("go").start()
    prompt = {"type": "userMessage", "id": "p"}
    server.feed(
        server.event("item/started", item=prompt),
        server.event("item/completed", item=prompt),
        # As 0.125 does: the total as it was, with the last step of the turn before.
        server.event("thread/tokenUsage/updated", tokenUsage=usage(2560, 1280)),
        server.message("ok"),
        server.event("thread/tokenUsage/updated", tokenUsage=usage(3840, 1280)),
        server.ended(),
    )
    assert (await turn).usage.total_tokens == 1280


async def test_the_final_answer_goes_before_later_commentary(server, connect) -> None:
    thread = await (await connect()).start_thread()
    turn = await thread.run("go").start()
    server.feed(
        server.message("answer", item="1", phase="final_answer"),
        server.message("by the way", item="2", phase="commentary"),
        server.event("turn/diff/updated", diff="one"),
        server.event("turn/diff/updated", diff="two"),
        server.ended(),
    )
    result = await turn
    assert (result.final_message, result.diff) == ("answer", "two")


async def test_a_slow_reader_gets_merged_deltas_and_every_other_event(
    server, connect, eventually
) -> None:
    thread = await (await connect()).start_thread()
    turn = await thread.run("go", queue_limit=10).start()
    for n in range(500):
        server.feed(server.delta(f"{n};", item=f"m{n % 2}"))
        if n % 50 == 0:
            server.feed(server.event("item/started", item={"type": "plan", "id": str(n)}))
    server.feed(server.ended())
    events = [event async for event in _after_the_end(turn, eventually)]
    deltas = [event for event in events if event.is_delta]
    assert len(deltas) < 15
    assert sum(event.merged for event in deltas) == 500
    for item in (0, 1):
        text = "".join(e.params.delta for e in deltas if e.params.item_id == f"m{item}")
        assert text == "".join(f"{n};" for n in range(item, 500, 2))
    assert [event.method for event in events].count("item/started") == 10
    assert events[-1].method == "turn/completed"
    assert turn.dropped_deltas == 0


async def _after_the_end(turn: Any, eventually: Any) -> Any:
    await eventually(lambda: turn.done)
    async for event in turn:
        yield event


async def test_dropping_deltas_keeps_lifecycle_events(server, connect, eventually) -> None:
    thread = await (await connect()).start_thread()
    turn = await thread.run("go", queue_limit=10, overflow="drop_deltas").start()
    server.feed(*[server.delta("x") for _ in range(100)], server.message("x"), server.ended())
    events = [event async for event in _after_the_end(turn, eventually)]
    assert len(events) == 12
    assert turn.dropped_deltas == 90


async def test_a_blocking_iterator_stops_the_reader_but_never_its_own_calls(
    server, connect
) -> None:
    server.answers["model/list"] = lambda m: [server.reply(m, {"data": []})]
    connection = await connect()
    thread = await connection.start_thread()
    turn = await thread.run("go", queue_limit=10, overflow="block").start()
    for n in range(50):
        server.feed(*[server.delta(str(n)) for _ in range(20)])
    server.feed(server.ended())
    seen = waiting = 0
    async for event in turn:
        if seen % 100 == 0:
            assert await connection.call("model/list", {}) == {"data": []}
        waiting = max(waiting, len(turn._sink.events))
        seen += event.is_delta
    assert seen == 1000
    assert turn.dropped_deltas == 0


async def test_nothing_is_sent_before_a_turn_is_started(server, connect) -> None:
    server.answers["model/list"] = lambda m: [server.reply(m, {})]
    connection = await connect()
    thread = await connection.start_thread()
    turn = thread.run(
        "go",
        cwd="/w",
        effort="high",
        output_schema={"type": "object"},
        service_tier="fast",
    )
    await connection.call("model/list", {})  # whatever was under way has left before this
    assert turn.id is None
    assert not server.requests("turn/start")
    await turn.start()
    (request,) = server.requests("turn/start")
    assert request["params"] == {
        "threadId": server.thread_id,
        "input": [{"type": "text", "text": "go"}],
        "cwd": "/w",
        "effort": "high",
        "outputSchema": {"type": "object"},
        "serviceTier": "fast",
    }


async def test_a_lone_surrogate_in_a_prompt_is_refused_here(server, connect) -> None:
    thread = await (await connect()).start_thread()
    with pytest.raises(InvalidArgument, match=r"U\+D83D"):
        await thread.run("half an emoji: \ud83d")
    assert not server.requests("turn/start")
    assert not thread.is_busy


async def test_steering_names_the_running_turn(server, connect) -> None:
    server.answers["turn/steer"] = lambda m: [server.reply(m, {"turnId": server.turn_id})]
    thread = await (await connect()).start_thread()
    turn = await thread.run("go").start()
    await turn.steer("left")
    (request,) = server.requests("turn/steer")
    assert request["params"]["expectedTurnId"] == server.turn_id
    assert json.dumps(request["params"]["input"]) == '[{"type": "text", "text": "left"}]'


async def test_an_iteration_goes_on_where_the_one_before_was_left(server, connect) -> None:
    thread = await (await connect()).start_thread()
    turn = await thread.run("go").start()
    server.feed(server.delta("a"), server.delta("b"), server.delta("c"), server.ended())
    async for event in turn:
        assert event.params.delta == "a"
        break
    rest = [event async for event in turn]
    assert [event.params.delta for event in rest[:2]] == ["b", "c"]
    assert [event.method for event in rest[2:]] == ["turn/completed"]
    assert (await turn).status == "completed"


async def test_an_iteration_that_another_one_took_over_says_so(server, connect) -> None:
    thread = await (await connect()).start_thread()
    turn = await thread.run("go").start()
    server.feed(server.delta("a"), server.delta("b"), server.ended())
    first = aiter(turn)
    await anext(first)
    second = aiter(turn)
    assert (await anext(second)).params.delta == "b"
    with pytest.raises(RuntimeError, match="another iteration"):
        await anext(first)
    assert [event.method async for event in second] == ["turn/completed"]


async def test_an_iteration_that_waits_is_not_taken_over(server, connect) -> None:
    thread = await (await connect()).start_thread()
    turn = await thread.run("go").start()
    waiting, late = (asyncio.ensure_future(anext(aiter(turn))) for _ in range(2))
    with pytest.raises(RuntimeError, match="iterated already"):
        await late
    server.feed(server.delta("a"), server.ended())
    assert (await waiting).params.delta == "a"


@pytest.mark.parametrize(
    ("argument", "value", "words"),
    [
        ("cwd", 5, "cwd=5: give a path as text"),
        ("cwd", b"/repo", "cwd=b'/repo': give a path as text"),
        ("model", 5, "model=5: give a name"),
        ("effort", 7, "effort=7: give a word"),
        ("output_schema", "{}", "output_schema='{}': give a mapping"),
        ("timeouts", 5, "timeouts=5: give TurnTimeouts"),
        ("start_timeout_s", "5", "start_timeout_s='5': give seconds above 0"),
        ("start_timeout_s", -1, "start_timeout_s=-1: give seconds above 0"),
        ("overflow", "drop", "overflow='drop': give one of coalesce, drop_deltas, block"),
        ("queue_limit", 0, "queue_limit=0: give a number from 1"),
        ("keep_items", "no", "keep_items='no': give True or False"),
        ("input", None, "input=None: give a text, or items"),
        ("input", 5, "input=5: give a text, or items"),
    ],
)
async def test_an_argument_that_makes_no_sense_is_refused_by_name(
    server, connect, argument, value, words
) -> None:
    thread = await (await connect()).start_thread()
    with pytest.raises(InvalidArgument, match=re.escape(words)):
        thread.run(**{"input": "go", argument: value})
    assert not thread.is_busy
    assert server.requests("turn/start") == []


@pytest.mark.parametrize("value", [-1, "5", True])
def test_a_time_limit_that_is_none_is_refused_by_name(value) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(f"total_s={value!r}: give seconds")):
        TurnTimeouts(total_s=value)


async def test_an_empty_text_does_not_steer(server, connect) -> None:
    thread = await (await connect()).start_thread()
    turn = await thread.run("go").start()
    with pytest.raises(InvalidArgument, match="text=''"):
        await turn.steer("")
    assert server.requests("turn/steer") == []
