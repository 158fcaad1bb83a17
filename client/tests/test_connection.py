import asyncio
import re
from typing import Any

import pytest
from codex_app_server import (
    ActiveWriter,
    ClientInfo,
    CodexError,
    Connection,
    ConnectionClosed,
    Event,
    InvalidArgument,
    Overloaded,
    RequestError,
    RequestTimeout,
    SubprocessTransport,
    Tool,
    UnexpectedReply,
)


async def test_the_handshake_names_us_and_reads_the_version(server, connect) -> None:
    connection = await connect(opt_out=["skills/changed"])
    initialize, initialized = server.sent
    assert initialize == {
        "id": 1,
        "method": "initialize",
        "params": {
            "clientInfo": {"name": "test", "version": "1"},
            "capabilities": {
                "experimentalApi": True,
                "optOutNotificationMethods": ["skills/changed"],
            },
        },
    }
    assert initialized == {"method": "initialized", "params": {}}
    assert connection.server.version == "0.169.0"
    assert connection.server.experimental


async def test_the_experimental_capability_is_given_up_where_it_is_refused(server, connect) -> None:
    def initialize(m: dict[str, Any]) -> list[Any]:
        if m["params"]["capabilities"]:
            return [{"id": m["id"], "error": {"code": -32600, "message": "unknown capability"}}]
        return [server.reply(m, {"userAgent": "odd agent"})]

    server.answers["initialize"] = initialize
    connection = await connect()
    assert not connection.server.experimental
    assert connection.server.version is None


async def test_opting_out_of_the_end_of_turns_is_refused(server, connect) -> None:
    with pytest.raises(InvalidArgument, match="turn/completed"):
        await connect(opt_out=["turn/completed"])


@pytest.mark.looptime
async def test_a_failed_handshake_closes_the_transport(server, connect) -> None:
    server.answers["initialize"] = lambda m: []
    with pytest.raises(RequestTimeout):
        await connect(request_timeout_s=5)
    assert server.closed


async def test_a_server_that_ends_in_the_handshake_is_a_typed_error(server) -> None:
    server.answers["initialize"] = lambda m: [b""]
    server.returncode = 127
    with pytest.raises(ConnectionClosed, match="127"):
        await Connection.open(server, ClientInfo("test", "1"))


async def test_a_transport_that_fails_ends_every_waiter(server, connect) -> None:
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    connection = await connect()
    call = asyncio.create_task(connection.call("x", {}))
    await server.until(lambda: server.requests("x"))
    server.feed_bytes("no bytes at all")
    with pytest.raises(ConnectionClosed, match="TypeError"):
        await call
    assert len(reported) == 1


async def test_a_program_that_is_no_server_tells_its_exit_status() -> None:
    transport = await SubprocessTransport.spawn(["sh", "-c", "exit 127"])
    with pytest.raises(ConnectionClosed) as caught:
        await Connection.open(transport, ClientInfo("test", "1"))
    assert caught.value.returncode == 127


@pytest.mark.slow
async def test_a_line_of_130_megabytes_is_read(server, connect) -> None:
    connection = await connect()
    body = b"x" * 130_000_000
    server.answers["fs/readFile"] = lambda m: []
    call = asyncio.create_task(connection.call("fs/readFile", {}))
    await server.until(lambda: server.requests("fs/readFile"))
    line = b'{"id":%d,"result":"' % server.sent[-1]["id"] + body + b'"}\n'
    server.feed_bytes(*[line[at : at + 262144] for at in range(0, len(line), 262144)])
    assert len(await call) == 130_000_000


@pytest.mark.looptime
async def test_a_lost_reply_is_a_deadline_error_and_the_connection_stays_usable(
    server, connect
) -> None:
    connection = await connect()
    with pytest.raises(RequestTimeout, match=r"no reply to config/read within 3 s"):
        await connection.call("config/read", {}, timeout_s=3)
    server.feed(server.reply(server.requests("config/read")[0], {}))
    server.answers["config/read"] = lambda m: [server.reply(m, {"a": 1})]
    assert await connection.call("config/read", {}) == {"a": 1}
    assert connection.unmatched_replies == 1


@pytest.mark.looptime
async def test_an_idempotent_call_is_sent_again_when_its_reply_is_lost(server, connect) -> None:
    connection = await connect()

    def second_time(m: dict[str, Any]) -> list[Any]:
        return [server.reply(m, 5)] if len(server.requests("model/list")) == 2 else []

    server.answers["model/list"] = second_time
    assert await connection.call("model/list", {}, timeout_s=10, idempotent=True) == 5
    assert asyncio.get_running_loop().time() == pytest.approx(5, abs=0.1)


def _overloaded(m: dict[str, Any]) -> dict[str, Any]:
    return {"id": m["id"], "error": {"code": -32001, "message": "Server overloaded"}}


@pytest.mark.looptime
async def test_overload_is_retried_with_growing_pauses(server, connect) -> None:
    connection = await connect()

    def fourth_time(m: dict[str, Any]) -> list[Any]:
        enough = len(server.requests("model/list")) == 4
        return [server.reply(m, "ok") if enough else _overloaded(m)]

    server.answers["model/list"] = fourth_time
    assert await connection.call("model/list", {}) == "ok"
    assert 0.875 <= asyncio.get_running_loop().time() <= 1.85
    server.answers["model/list"] = lambda m: [_overloaded(m)]
    with pytest.raises(Overloaded, match="overloaded"):
        await connection.call("model/list", {}, timeout_s=5)


async def test_no_more_than_64_calls_are_ever_under_way(server, connect) -> None:
    connection = await connect()
    asked: list[Any] = []
    under_way: list[int] = []
    answered = 0

    def count(m: Any) -> list[Any]:
        asked.append(m)
        under_way.append(len(asked) - answered)
        return []

    server.answers["model/list"] = count
    calls = [asyncio.create_task(connection.call("model/list", {})) for _ in range(1000)]
    while answered < 1000:
        await server.until(lambda n=answered: len(asked) == min(n + 64, 1000))
        waiting, answered = asked[answered:], len(asked)
        server.feed(*[server.reply(m, m["id"]) for m in reversed(waiting)])
    assert len(set(await asyncio.gather(*calls))) == 1000
    assert max(under_way) == 64


async def test_refusals_are_typed(server, connect) -> None:
    connection = await connect()
    error = {"code": -32602, "message": "too large", "data": {"max_chars": 1}}
    server.answers["x"] = lambda m: [{"id": m["id"], "error": error}]
    with pytest.raises(RequestError, match="too large") as caught:
        await connection.call("x", {})
    assert (caught.value.code, caught.value.data) == (-32602, {"max_chars": 1})
    busy = {"code": -32600, "message": "thread t already has an active writer"}
    server.answers["thread/resume"] = lambda m: [{"id": m["id"], "error": busy}]
    with pytest.raises(ActiveWriter, match=r"thread t .*fork_when_held=True"):
        await connection.resume_thread("t")


@pytest.mark.parametrize("result", [{}, {"thread": {}}, {"thread": {"id": 5}}, [], None])
async def test_a_thread_without_an_id_is_a_typed_error(server, connect, result: Any) -> None:
    server.answers["thread/start"] = lambda m: [server.reply(m, result)]
    with pytest.raises(UnexpectedReply, match=r"no thread\.id"):
        await (await connect()).start_thread()


async def test_starting_a_thread_sends_what_was_given_and_translates_old_values(
    server, connect
) -> None:
    async def handler(arguments: Any, context: Any) -> str:
        return "x"

    connection = await connect()
    thread = await connection.start_thread(
        cwd="/w",
        approval_policy={"reject": {"sandbox_approval": True, "rules": False}},
        sandbox="full-access",
        tools=[Tool("t", "d", {"type": "object"}, handler)],
        config={"features.x": True},
        service_name="s",
    )
    (request,) = server.requests("thread/start")
    assert request["params"] == {
        "cwd": "/w",
        "approvalPolicy": {
            "granular": {"sandbox_approval": False, "rules": True, "mcp_elicitations": True}
        },
        "sandbox": "danger-full-access",
        "dynamicTools": [{"name": "t", "description": "d", "inputSchema": {"type": "object"}}],
        "config": {"features.x": True},
        "serviceName": "s",
    }
    assert len(thread.warnings) == 2
    assert thread.info["model"] == "m"
    thread.run("x", sandbox_policy={"type": "workspaceWrite", "readOnlyAccess": {"type": "x"}})
    assert "readOnlyAccess" in thread.warnings[2]


@pytest.mark.parametrize(
    "options",
    [
        {"approval_policy": "sometimes"},
        {"approval_policy": {"granular": {"rules": True}}},
        {"approval_policy": {"granular": {"sandbox_approval": "yes"}}},
        {"approval_policy": {"reject": {"typo": True}}},
        {"sandbox": "open"},
        {"developer_instructions": "\ud800"},
    ],
)
async def test_values_that_no_server_knows_are_refused_before_sending(
    server, connect, options: dict[str, Any]
) -> None:
    connection = await connect()
    with pytest.raises(InvalidArgument):
        await connection.start_thread(**options)
    assert not server.requests("thread/start")


async def test_resuming_leaves_the_turns_out(server, connect) -> None:
    connection = await connect()
    thread = await connection.resume_thread("abc", cwd="/w")
    (request,) = server.requests("thread/resume")
    assert request["params"] == {"threadId": "abc", "cwd": "/w", "excludeTurns": True}
    assert thread.usage_total is None
    assert await connection.resume_thread("abc") is thread


async def test_a_null_snapshot_never_erases_a_good_one(server, connect, eventually) -> None:
    seen: list[Event] = []
    connection = await connect(on_events=seen.extend)
    assert connection.rate_limits is None
    good = {"limitId": "codex", "primary": {"usedPercent": 43, "resetsAt": 18}, "planType": "pro"}
    nulls = {"limitId": "codex", "primary": None, "secondary": None, "planType": None}
    part = {"limitId": "codex", "primary": {"usedPercent": 44, "resetsAt": None}}
    other = {"limitId": "other", "primary": {"usedPercent": 1}}

    def limits(value: Any) -> dict[str, Any]:
        return {"method": "account/rateLimits/updated", "params": {"rateLimits": value}}

    server.feed(limits(nulls))
    server.feed(limits(good), limits(nulls), limits(None), limits([]))
    await eventually(lambda: len(seen) == 5)
    assert connection.rate_limits == good
    server.feed(limits(other), limits(part), limits(nulls))
    await eventually(lambda: len(seen) == 8)
    assert connection.rate_limits == {
        "limitId": "codex",
        "primary": {"usedPercent": 44, "resetsAt": 18},
        "planType": "pro",
    }
    # An update that names no limit is one of the limit that was told of last.
    unnamed = {"limitId": None, "primary": {"usedPercent": 45, "resetsAt": None}}
    server.feed(limits(unnamed), limits({"limitId": [], "secondary": {"usedPercent": 2}}))
    await eventually(lambda: len(seen) == 10)
    assert connection.rate_limits["primary"] == {"usedPercent": 45, "resetsAt": 18}
    assert connection.rate_limits["secondary"] == {"usedPercent": 2}
    assert connection.rate_limits["planType"] == "pro"


async def test_a_fault_in_on_events_is_reported_and_harms_nobody(server, connect) -> None:
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def broken(events: list[Event]) -> None:
        raise ZeroDivisionError

    connection = await connect(on_events=broken)
    thread = await connection.start_thread()
    turn = await thread.run("go").start()
    server.feed(server.ended())
    assert (await turn).status == "completed"
    assert isinstance(reported[0]["exception"], ZeroDivisionError)


async def test_closing_ends_what_waits_and_can_be_done_twice(server, connect) -> None:
    connection = await connect()
    thread = await connection.start_thread()
    turn = await thread.run("go").start()
    waiting = [asyncio.create_task(turn.result()), asyncio.create_task(connection.call("x", {}))]
    await server.until(lambda: server.requests("x"))
    await connection.aclose()
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, ConnectionClosed)
    await connection.aclose()
    assert server.closed
    assert "closed here" in (await connection.closed).reason
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not [task for task in others if task.get_name().startswith("codex")]


async def test_closing_while_a_turn_starts_is_a_typed_error(server, connect) -> None:
    server.answers["turn/start"] = lambda m: []
    connection = await connect()
    thread = await connection.start_thread()
    waiting = asyncio.create_task(thread.run("go").result())
    await server.until(lambda: server.requests("turn/start"))
    await connection.aclose()
    with pytest.raises(ConnectionClosed):
        await waiting


async def test_naming_a_thread(server, connect) -> None:
    server.answers["thread/name/set"] = lambda m: [server.reply(m, {})]
    thread = await (await connect()).start_thread()
    await thread.set_name("ABC-1: fix")
    (request,) = server.requests("thread/name/set")
    assert request["params"] == {"threadId": thread.id, "name": "ABC-1: fix"}


def test_every_error_of_the_package_has_one_root() -> None:
    from codex_app_server import errors

    kinds = [getattr(errors, name) for name in errors.__all__ if name[0].isupper()]
    assert all(issubclass(kind, CodexError) for kind in kinds)
    for kind in kinds:
        assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("client_info", "demo"),
        ("request_timeout_s", -1),
        ("request_timeout_s", "5"),
        ("thread_start_timeout_s", None),
        ("max_in_flight", 0),
        ("max_line_bytes", 0),
        ("handlers", "accept"),
        ("on_events", 5),
        ("experimental", "yes"),
        ("opt_out", "skills/changed"),
    ],
)
async def test_a_connection_refuses_an_argument_by_name_and_closes_its_transport(
    server, argument, value
) -> None:
    options = {"client_info": ClientInfo("demo", "1"), argument: value}
    with pytest.raises(InvalidArgument, match=f"{argument}="):
        await Connection.open(server, **options)
    assert server.closed
    assert server.sent == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"method": 5}, "method=5: give a name"),
        ({"method": ""}, "method='': give a name"),
        ({"method": "model/list", "params": [1]}, "model/list: params=[1]: give a mapping"),
        ({"method": "model/list", "timeout_s": "5"}, "model/list: timeout_s='5': give seconds"),
        ({"method": "model/list", "timeout_s": -1}, "model/list: timeout_s=-1: give seconds"),
    ],
)
async def test_a_call_refuses_an_argument_by_name(server, connect, arguments, words) -> None:
    connection = await connect()
    sent = len(server.sent)
    with pytest.raises(InvalidArgument, match=re.escape(words)):
        await connection.call(**arguments)
    assert len(server.sent) == sent


@pytest.mark.parametrize(
    ("method", "argument", "value", "words"),
    [
        ("start_thread", "cwd", 5, "cwd=5: give a path as text"),
        ("start_thread", "model", 5, "model=5: give a name"),
        ("start_thread", "tools", "look_up", "tools='look_up': give a list of tools"),
        ("start_thread", "tools", [5], "tools=[5]: give a list of tools"),
        ("start_thread", "config", 5, "config=5: give a mapping"),
        ("start_thread", "ephemeral", "x", "ephemeral='x': give True, False or None"),
        ("start_thread", "developer_instructions", 5, "developer_instructions=5: give a text"),
        ("start_thread", "timeout_s", 0, "timeout_s=0: give seconds above 0"),
        ("resume_thread", "thread_id", None, "thread_id=None: give a thread's id"),
        ("resume_thread", "fork_when_held", 1, "fork_when_held=1: give True or False"),
        ("fork_thread", "thread_id", "", "thread_id='': give a thread's id"),
    ],
)
async def test_opening_a_thread_refuses_an_argument_by_name(
    server, connect, method, argument, value, words
) -> None:
    connection = await connect()
    sent = len(server.sent)
    known = {} if method == "start_thread" else {"thread_id": "t"}
    with pytest.raises(InvalidArgument, match=re.escape(words)):
        await getattr(connection, method)(**{**known, argument: value})
    assert len(server.sent) == sent
    assert connection.open_threads == []


@pytest.mark.parametrize("method", ["start_thread", "resume_thread", "fork_thread"])
async def test_a_thread_that_opens_too_slowly_is_told_with_the_cause_and_the_setting(
    server: Any, connect: Any, method: str
) -> None:
    server.answers.clear()
    server.answers["initialize"] = lambda m: [server.reply(m, {"userAgent": "x/0.169.0 (y)"})]
    connection = await connect(thread_start_timeout_s=0.01)
    arguments = () if method == "start_thread" else ("t",)
    with pytest.raises(RequestTimeout, match=r"login shell.*thread_start_timeout_s") as caught:
        await getattr(connection, method)(*arguments)
    assert (caught.value.timeout_s, caught.value.hint is None) == (0.01, False)
