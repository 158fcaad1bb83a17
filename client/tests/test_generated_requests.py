"""The generated requests: complete, current, and what they refuse before anything is sent."""

from __future__ import annotations

import asyncio
import base64
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from codex_app_server import Connection
from codex_app_server.api import WideApi
from codex_app_server.errors import (
    ConnectionClosed,
    ExperimentalRequired,
    InvalidArgument,
    RequestTimeout,
    UnexpectedReply,
)
from codex_app_server.protocol import requests, types

ROOT = Path(__file__).parents[2]
GENERATOR = ROOT / "client/tools/generate_requests.py"


def methods() -> dict[str, Any]:
    """Wire method -> the function that sends it."""
    found = {}
    for family in requests.FAMILIES.values():
        for name, function in vars(family).items():
            if inspect.iscoroutinefunction(function) and not name.startswith("_"):
                assert function.__doc__ is not None
                found[function.__doc__.split("``")[1]] = function
    return found


def test_every_request_of_the_schema_has_a_method_or_a_place_of_its_own():
    assert methods().keys() | requests.APART.keys() == types.CLIENT_REQUESTS.keys()
    assert not methods().keys() & requests.APART.keys()


def test_every_family_is_an_attribute_of_a_connection():
    names = {name for name, value in vars(WideApi).items() if hasattr(value, "attrname")}
    assert names - {"_ask"} == set(requests.FAMILIES)


def test_experimental_requests_say_so_in_their_docstrings():
    for method, function in methods().items():
        experimental = types.CLIENT_REQUESTS[method].experimental
        assert function.__doc__.endswith(" Experimental.") == experimental, method


async def test_arguments_that_are_not_given_are_not_sent_and_none_is_null(server, connect):
    server.answers["model/list"] = lambda m: [server.reply(m, {"data": []})]
    connection: Connection = await connect()
    await connection.models.list(limit=3, cursor=None)
    assert server.requests("model/list")[0]["params"] == {"limit": 3, "cursor": None}


async def test_a_list_is_read_page_by_page_until_there_is_no_cursor(server, connect):
    pages = {
        None: {"data": [{"id": "a"}, {"id": "b"}], "nextCursor": "2"},
        "2": {"data": [{"id": "c"}], "nextCursor": None},
    }
    server.answers["model/list"] = lambda m: [server.reply(m, pages[m["params"].get("cursor")])]
    connection = await connect()
    assert [one.id async for one in connection.models.iterate(limit=2)] == ["a", "b", "c"]
    assert len(server.requests("model/list")) == 2


async def test_a_cursor_that_does_not_move_ends_the_iteration(server, connect):
    page = {"data": [{"id": "a"}], "nextCursor": "same"}
    server.answers["model/list"] = lambda m: [server.reply(m, page)]
    connection = await connect()
    assert len([one async for one in connection.models.iterate()]) == 2


@pytest.mark.parametrize(
    ("family", "name", "arguments", "complaint"),
    [
        ("models", "list", {"limit": "many"}, r"model/list: limit='many': Expected `int"),
        ("skills", "list", {"cwds": "/w"}, r"skills/list: cwds='/w': Expected `array`, got `str`"),
        ("threads", "list", {"sort_key": "size"}, "thread/list: sort_key='size': use created_at"),
        ("fs", "read_file", {"path": "a\ud800"}, r"fs/readFile: path='a.*: cannot be sent as JSON"),
        ("config", "write_value", {"key_path": "a", "merge_strategy": "replace", "value": object()},
         "config/value/write: value=.*: cannot be sent as JSON"),
        ("account", "start_login", {"params": {"type": "fax"}}, "account/login/start: .*fax"),
    ],
)  # fmt: skip
async def test_a_wrong_value_is_refused_with_its_name_before_it_is_sent(
    server, connect, family, name, arguments, complaint
):
    connection = await connect()
    sent = len(server.sent)
    with pytest.raises(InvalidArgument, match=complaint):
        await getattr(getattr(connection, family), name)(**arguments)
    assert len(server.sent) == sent


async def test_an_enum_value_of_a_newer_server_is_let_through(server, connect):
    server.answers["initialize"] = lambda m: [server.reply(m, {"userAgent": "x/0.999.0 (y)"})]
    server.answers["thread/list"] = lambda m: [server.reply(m, {"data": []})]
    connection = await connect()
    await connection.threads.list(sort_key="size")
    assert server.requests("thread/list")[0]["params"] == {"sortKey": "size"}


async def test_an_experimental_request_needs_the_capability(server, connect):
    connection = await connect(experimental=False)
    with pytest.raises(ExperimentalRequired) as caught:
        await connection.terminals.clean("t")
    assert caught.value.capability == "thread/backgroundTerminals/clean"
    assert server.requests("thread/backgroundTerminals/clean") == []


async def test_an_answer_of_another_shape_is_an_unexpected_reply(server, connect):
    server.answers["model/list"] = lambda m: [server.reply(m, {"data": 5})]
    connection = await connect()
    with pytest.raises(UnexpectedReply, match=r"model/list: Expected `array"):
        await connection.models.list()


async def test_an_answer_whose_text_is_no_utf_8_is_an_unexpected_reply(server, connect):
    def answer(m: Any) -> list[Any]:
        return [b'{"id":%d,"result":{"data":[],"nextCursor":"\xf3-"}}\n' % m["id"]]

    server.answers["model/list"] = answer
    connection = await connect()
    with pytest.raises(UnexpectedReply, match=r"model/list: a text is no UTF-8"):
        await connection.models.list()
    with pytest.raises(UnexpectedReply, match=r"model/list: a text is no UTF-8"):
        await connection.call("model/list", {})
    assert connection.malformed_lines == 0


async def test_an_answer_with_a_tag_of_a_later_version_stays_readable(server, connect):
    answer = {"type": "telepathy", "loginId": "l"}
    server.answers["account/login/start"] = lambda m: [server.reply(m, answer)]
    connection = await connect()
    reply = await connection.account.start_login({"type": "chatgpt"})
    assert (reply.tag, reply.value) == ("telepathy", answer)


@pytest.mark.codex
def test_the_file_is_what_the_pinned_binary_gives():
    folder = ROOT / ".codex-binaries" / types.SCHEMA_VERSION
    codex = next(folder.glob("vendor/*/bin/codex"), None)
    if codex is None:
        pytest.skip(f"codex {types.SCHEMA_VERSION} is not in .codex-binaries (make codex)")
    command = [sys.executable, str(GENERATOR), "--codex", str(codex), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.strip()) == (0, "up to date")


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("options", "answered"),
    [({}, False), ({"timeout_ms": 60_000}, True), ({"disable_timeout": True}, True)],
)
async def test_a_command_has_the_time_that_its_caller_allows_it(
    server, connect, pass_time, options, answered
):
    connection = await connect()
    running = asyncio.create_task(connection.commands.exec(["x"], **options))
    await server.until(lambda: server.requests("command/exec"))
    await pass_time(50)
    server.feed(server.reply(server.requests("command/exec")[0], {"exitCode": 0}))
    if answered:
        assert (await running).exit_code == 0
    else:
        with pytest.raises(RequestTimeout):
            await running


# Streamed commands


def piece(process_id: str, text: bytes, stream: str = "stdout") -> dict[str, object]:
    data = base64.b64encode(text).decode()
    members = {"processId": process_id, "stream": stream, "deltaBase64": data, "capReached": False}
    return {"method": "command/exec/outputDelta", "params": members}


async def test_the_output_of_a_command_is_its_own_and_ends_with_it(server, connect):
    def run(m):
        own = m["params"]["processId"]
        done = server.reply(m, {"exitCode": 3, "stdout": "", "stderr": ""})
        return [piece("other", b"no"), piece(own, b"a\n"), piece(own, b"b", "stderr"), done]

    server.answers["command/exec"] = run
    connection = await connect()
    async with connection.commands.start(["x"], cwd="/w", time_limit_s=2) as command:
        seen = [(one.stream, one.data) async for one in command]
        ended = await command.wait()
    assert seen == [("stdout", b"a\n"), ("stderr", b"b")]
    assert ended.exit_code == 3
    sent = server.requests("command/exec")[0]["params"]
    assert (sent["cwd"], sent["timeoutMs"], sent["streamStdoutStderr"]) == ("/w", 2000, True)


async def test_leaving_the_block_of_a_command_terminates_it(server, connect):
    started = []

    def terminate(m):
        done = {"exitCode": 143, "stdout": "", "stderr": ""}
        return [server.reply(m, {}), server.reply(started[0], done)]

    server.answers["command/exec"] = lambda m: started.append(m) or []
    server.answers["command/exec/terminate"] = terminate
    connection = await connect()
    async with connection.commands.start(["x"]) as command:
        await server.until(lambda: started)
    assert len(server.requests("command/exec/terminate")) == 1
    assert (await command.wait()).exit_code == 143


async def test_a_write_that_comes_before_the_server_has_begun_is_repeated(server, connect):
    early = {"code": -32600, "message": 'no active command/exec for process id "x"'}
    tries = []

    def write(m):
        tries.append(m)
        return [{"id": m["id"], "error": early}] if len(tries) == 1 else [server.reply(m, {})]

    server.answers["command/exec/write"] = write
    server.answers["command/exec/terminate"] = lambda m: [
        server.reply(m, {}),
        server.reply(server.requests("command/exec")[0], {"exitCode": 0}),
    ]
    connection = await connect()
    async with connection.commands.start(["cat"], stdin=True) as command:
        await command.write(b"hi", close=True)
    assert [one["params"]["deltaBase64"] for one in tries] == ["aGk="] * 2


async def test_a_lost_connection_ends_a_command(server, connect):
    connection = await connect()
    command = connection.commands.start(["x"])
    await server.until(lambda: server.requests("command/exec"))
    server.end()
    with pytest.raises(ConnectionClosed):
        await command.wait()
    with pytest.raises(ConnectionClosed):
        [one async for one in command]
