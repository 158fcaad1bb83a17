from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from symphony.demo.model_server import ModelServer
from symphony.demo.script import (
    DroppedStream,
    Exec,
    Fail,
    FailedResponse,
    IssueScript,
    RateLimits,
    Reply,
    Say,
    Script,
    turn,
)

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def script(*turns: Any, **more: Any) -> Script:
    return Script({"A": IssueScript(turns)}, **more)


def asking(text: str = "Issue: A") -> bytes:
    message = {"type": "message", "role": "user", "content": [{"text": text}]}
    return json.dumps({"input": [message]}).encode()


def post(body: bytes, *fields: str) -> bytes:
    lines = ["POST /v1/responses HTTP/1.1", f"content-length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


@asynccontextmanager
async def serving(model: Script) -> AsyncIterator[tuple[ModelServer, int]]:
    async with ModelServer(model) as server:
        url = await server.start()
        yield server, int(url.removeprefix("http://127.0.0.1:").removesuffix("/v1"))


async def say(port: int, data: bytes) -> bytes:
    """Send bytes on a connection of their own and return all that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return await reader.read()
    finally:
        writer.close()


async def read_json(stream: Stream) -> tuple[bytes, Any]:
    head = await stream[0].readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head, json.loads(await stream[0].readexactly(length))


def events(answer: bytes) -> list[Any]:
    body = answer.partition(b"\r\n\r\n")[2].decode()
    return [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: ")]


async def test_a_reply_is_a_stream_of_events_with_the_headers_of_the_limits():
    limits = RateLimits(10, 20, 1, 2)
    model = script(turn(Say("hi")), rate_limits=lambda count: limits if count == 2 else None)
    async with serving(model) as (server, port):
        first, second = [await say(port, post(asking())) for _ in range(2)]
    assert events(first)[-1]["type"] == "response.completed"
    assert b"x-codex" not in first
    assert b"\r\nx-codex-primary-used-percent: 10\r\n" in second
    assert [request.number for request in server.requests] == [1, 2]


async def test_a_connection_is_kept_for_more_requests():
    async with serving(script(turn(Fail(429, times=1), Say("x")))) as (_, port):
        stream = await asyncio.open_connection("127.0.0.1", port)
        stream[1].write(b"GET /v1/models?client_version=1 HTTP/1.1\r\n\r\n" + post(asking()))
        assert (await read_json(stream))[1] == {"data": [], "models": []}
        head, error = await read_json(stream)
        assert head.startswith(b"HTTP/1.1 429 ")
        assert error["error"]["code"] == "server_error"
        stream[1].write(post(asking()))
        assert events(await stream[0].read())[0]["type"] == "response.created"
        stream[1].close()


async def test_a_body_may_come_in_chunks():
    body = asking()
    chunks = b"5\r\n" + body[:5] + b"\r\n%x;a=b\r\n" % len(body[5:]) + body[5:] + b"\r\n0\r\n\r\n"
    head = b"POST /v1/responses HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serving(script(turn(Say("hi")))) as (server, port):
        await say(port, head + chunks)
    assert server.requests[0].issue == "A"


async def test_many_ask_at_once_and_a_slow_one_holds_nobody_up():
    opened, waiting = asyncio.Event(), asyncio.Event()

    async def gate(conversation: object) -> None:
        waiting.set()
        await opened.wait()

    issues = {
        "SLOW": IssueScript((turn(Reply((Say("late"),), gate=gate)),)),
        "A": IssueScript((turn(Say("soon")),)),
    }
    async with serving(Script(issues)) as (server, port):
        slow = asyncio.ensure_future(say(port, post(asking("Issue: SLOW"))))
        await waiting.wait()
        fast = await asyncio.gather(*(say(port, post(asking())) for _ in range(50)))
        assert not slow.done()
        opened.set()
        assert events(await slow)[-1]["type"] == "response.completed"
    assert all(b"soon" in answer for answer in fast)
    assert server.count == 51


async def test_a_client_that_goes_away_costs_nothing():
    async with serving(script(turn(Say("word " * 5000)))) as (_, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post(asking()))
        await writer.drain()
        writer.transport.abort()
        _, half = await asyncio.open_connection("127.0.0.1", port)
        half.write(b"POST /v1/responses HTTP/1.1\r\ncontent-length: 99\r\n\r\n{")
        half.write_eof()
        assert events(await say(port, post(asking())))[-1]["type"] == "response.completed"
        half.close()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"POST /v1/responses HTTP/1.1\r\ncontent-length: x\r\n\r\n", 400),
        (b"POST /v1/responses HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST /v1/responses HTTP/1.1\r\ncontent-length: 999999999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", 400),
        (b"GET /v1/files HTTP/1.1\r\nconnection: close\r\n\r\n", 404),
        (post(b"no json", "connection: close"), 400),
        (post(b"[]", "connection: close"), 400),
    ],
)
async def test_a_bad_request_gets_its_status(data: bytes, status: int):
    async with serving(script(turn(Say("hi")))) as (server, port):
        assert (await say(port, data)).startswith(b"HTTP/1.1 %d " % status)
    assert server.count == 0


async def test_faults_are_remembered_for_an_issue_and_its_attempt():
    steps = turn(FailedResponse("rate_limit_exceeded"), DroppedStream("half a"), Say("whole"))
    async with serving(script(steps)) as (server, port):
        failed, dropped, whole = [await say(port, post(asking())) for _ in range(3)]
        await say(port, post(asking("Issue: A\nAttempt: 2")))
    assert events(failed)[-1]["response"]["error"]["code"] == "rate_limit_exceeded"
    deltas = [event["delta"] for event in events(dropped) if "delta" in event]
    assert (deltas, events(dropped)[-1]["type"]) == (["half ", "a"], "response.output_text.delta")
    assert events(whole)[-1]["type"] == "response.completed"
    assert [request.place for request in server.requests] == [0, 1, 2, 0]


async def test_retry_after_is_sent_where_it_is_given():
    async with serving(script(turn(Fail(429, retry_after_s=7)))) as (_, port):
        answer = await say(port, post(asking(), "connection: close"))
    assert b"\r\nretry-after: 7\r\n" in answer


async def test_closing_ends_what_is_open():
    async def gate(conversation: object) -> None:
        waiting.set()
        await asyncio.Event().wait()

    waiting = asyncio.Event()
    async with serving(script(turn(Reply((Exec("x"),), gate=gate)))) as (server, port):
        idle = await asyncio.open_connection("127.0.0.1", port)
        asked = asyncio.ensure_future(say(port, post(asking())))
        await waiting.wait()
        await server.aclose()
        results = await asyncio.gather(asked, idle[0].read(), return_exceptions=True)
        idle[1].close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
    assert all(result == b"" or isinstance(result, ConnectionError) for result in results)


async def test_only_the_last_requests_are_kept():
    async with ModelServer(script(turn(Say("hi"))), keep=2) as server:
        port = int((await server.start()).rpartition(":")[2].removesuffix("/v1"))
        for _ in range(3):
            await say(port, post(asking()))
        assert [request.number for request in server.requests] == [2, 3]
        assert server.count == 3
