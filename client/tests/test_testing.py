"""The transports for users' tests, and the words of ``codex exec``; no process, no network."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from codex_app_server import (
    ClientInfo,
    Connection,
    ConnectionClosed,
    ExecClient,
    InvalidArgument,
    RecordingError,
    RequestError,
    RequestKind,
    ServerRequestHandlers,
    TurnFailed,
    TurnInterrupted,
)
from codex_app_server.protocol.exec_events import ExecTranslator
from codex_app_server.protocol.turn import TokenUsage
from codex_app_server.testing import (
    Ask,
    End,
    RawBytes,
    RecordedLine,
    RecordingTransport,
    Refusal,
    ReplayTransport,
    Result,
    ScriptedTransport,
    Scrubber,
    WaitFor,
    agent_turn,
    read_recording,
)

INFO = ClientInfo("test", "1")


async def test_rules_are_used_up_in_order_before_the_default() -> None:
    server = ScriptedTransport().on("model/list", Result({"data": [1]}), times=1)
    server.on("model/list", Refusal("no", code=-7, data={"x": 1}))
    server.on_call("turn/start", agent_turn("First."), times=1)
    async with await Connection.open(server, INFO) as connection:
        assert await connection.call("model/list", {}) == {"data": [1]}
        with pytest.raises(RequestError) as caught:
            await connection.call("model/list", {})
        assert (caught.value.code, caught.value.data) == (-7, {"x": 1})
        with pytest.raises(RequestError, match="does not know no/rule"):
            await connection.call("no/rule", {})
        thread = await connection.start_thread(model="m")
        first = await thread.run("one")
        assert (first.final_message, first.usage.total_tokens) == ("First.", 1050)
        second = await thread.run("two")
        assert (second.final_message, second.usage.total_tokens) == ("two", 1050)
        assert len(server.requests("turn/start")) == 2
    assert server.is_closed


async def test_the_server_can_ask_write_junk_fail_and_end() -> None:
    asked: list[RequestKind] = []

    async def answer(request: Any) -> str:
        asked.append(request.kind)
        return "accept"

    ask = Ask("item/commandExecution/requestApproval", {"threadId": "thread-1", "turnId": "x"})
    server = ScriptedTransport().on_call(
        "turn/start", agent_turn("a", ask, RawBytes(b"junk\n"), "b"), times=1
    )
    error = {"message": "no", "codexErrorInfo": "unauthorized"}
    server.on_call("turn/start", agent_turn(status="failed", error=error), times=1)
    server.on_call("turn/start", agent_turn("c", End(3)))
    handlers = ServerRequestHandlers(command=answer)
    async with await Connection.open(server, INFO, handlers=handlers) as connection:
        thread = await connection.start_thread()
        assert (await thread.run("x")).final_message == "b"
        assert asked == [RequestKind.COMMAND]
        assert server.answers[0]["result"] == {"decision": "accept"}
        assert connection.malformed_lines == 1
        with pytest.raises(TurnFailed) as caught:
            await thread.run("x")
        assert caught.value.code == "unauthorized"
        with pytest.raises(ConnectionClosed) as gone:
            await thread.run("x")
        assert gone.value.returncode == 3


async def test_an_interrupt_refused_before_the_turn_began_is_sent_again() -> None:
    def start(message: dict[str, Any]) -> list[Any]:
        reply, started, *rest = agent_turn(WaitFor("turn/interrupt"))(message)
        return [reply, WaitFor("turn/interrupt"), started, *rest]

    server = ScriptedTransport().on_call("turn/start", start)
    server.on("turn/interrupt", Refusal("no active turn to interrupt"), times=1)
    async with await Connection.open(server, INFO) as connection:
        running = (await connection.start_thread()).run("x")
        await running.start()
        await running.interrupt()
        with pytest.raises(TurnInterrupted):
            await running
    assert len(server.requests("turn/interrupt")) == 2


async def test_secrets_never_reach_a_recording(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    secrets = ["sesame-1", 'with "quotes"']
    transport = RecordingTransport(ScriptedTransport(), file, redact=secrets)
    async with await Connection.open(transport, INFO) as connection:
        await (await connection.start_thread()).run('sesame-1 and with "quotes"')
    text = file.read_text()
    assert "sesame" not in text
    assert "quotes" not in text
    assert "[redacted]" in text
    with pytest.raises(RecordingError, match="too short"):
        RecordingTransport(ScriptedTransport(), file, redact=["abc"])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
async def test_a_full_disk_stops_the_recording_and_not_the_session() -> None:
    transport = RecordingTransport(ScriptedTransport(), "/dev/full")
    async with await Connection.open(transport, INFO) as connection:
        assert (await (await connection.start_thread()).run("hi")).final_message == "hi"
    assert transport.error is not None
    assert "No space left" in str(transport.error)


async def test_a_replay_gives_replies_the_ids_of_its_client_and_refuses_what_it_has_not() -> None:
    lines = [
        (">", {"id": 41, "method": "initialize"}),
        ("<", {"id": 41, "result": {"userAgent": "a/0.169.0 (x)"}}),
        (">", {"id": 42, "method": "model/list"}),
        ("<", {"id": 42, "result": {"n": 1}}),
        (">", {"id": 43, "method": "model/list"}),
        ("<", {"id": 43, "result": {"n": 2}}),
        (">", {"id": 44, "method": "skills/list"}),
        ("<", {"id": 44, "result": {"n": 3}}),
    ]
    recording = [RecordedLine(way, 0.0, json.dumps(line)) for way, line in lines]  # type: ignore[arg-type] # as in the table
    transport = ReplayTransport(recording)
    async with await Connection.open(transport, INFO) as connection:
        assert await connection.call("model/list", {}) == {"n": 1}
        with pytest.raises(RequestError, match="no \\(further\\) fs/readFile"):
            await connection.call("fs/readFile", {})
        assert await connection.call("model/list", {}) == {"n": 2}
        assert (transport.waits_for, transport.finished) == ("skills/list", False)
        assert await connection.call("skills/list", {}) == {"n": 3}
        assert isinstance(await connection.closed, ConnectionClosed)
    assert transport.unexpected == ["fs/readFile"]


def test_a_bad_recording_is_named_by_its_line(tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"dir":"<","t":0,"line":"{}"}\n{"dir":"?"}\n')
    with pytest.raises(RecordingError, match="line 2"):
        read_recording(file)


def test_a_scrubber_replaces_the_same_by_the_same() -> None:
    scrub = Scrubber({"/home/ann": "/home/user", "/home/ann/x": "/x"})
    one, two = "01a1fd25-e09e-74c1-943c-73e02be4ab8b", "01a1fd25-e0b6-7742-9de8-d610c8205536"
    assert scrub(f"{one} /home/ann/x {two} {one} /home/ann") == (
        "00000000-0000-7000-8000-000000000001 /x 00000000-0000-7000-8000-000000000002 "
        "00000000-0000-7000-8000-000000000001 /home/user"
    )


def _translate(translator: ExecTranslator, *messages: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for message in messages for one in translator.translate(message)]


def test_usage_of_exec_is_split_into_total_and_what_the_turn_added() -> None:
    translator = ExecTranslator("t", TokenUsage(400, 300, 0, 0, 100))
    usage = {"input_tokens": 500, "output_tokens": 160}
    out = _translate(
        translator,
        {"type": "thread.started", "thread_id": "x"},
        {"type": "turn.completed", "usage": usage},
    )
    counts = out[1]["params"]["tokenUsage"]
    assert (counts["total"]["totalTokens"], counts["last"]["totalTokens"]) == (660, 260)
    assert translator.ended


@pytest.mark.parametrize(
    ("words", "info"),
    [
        ("unexpected status 401 Unauthorized", {"httpConnectionFailed": {"httpStatusCode": 401}}),
        ("You've hit your usage limit.", "usageLimitExceeded"),
        ("stream disconnected before completion", "responseStreamDisconnected"),
        ("whatever", "other"),
    ],
)
def test_the_cause_of_a_failed_exec_is_read_from_its_words(words: str, info: Any) -> None:
    translator = ExecTranslator("t")
    (end,) = translator.translate({"type": "turn.failed", "error": {"message": words}})
    assert end["params"]["turn"]["error"]["codexErrorInfo"] == info


def test_lines_of_exec_that_nobody_knows_go_on_as_they_are() -> None:
    (event,) = ExecTranslator("t").translate({"type": "new.kind", "x": 1})
    assert event["method"] == "exec/new.kind"
    assert event["params"]["x"] == 1


async def test_arguments_of_exec_are_checked_before_anything_starts() -> None:
    client = ExecClient("/nonexistent")
    for bad in ({"prompt": " "}, {"prompt": "\ud800"}, {"prompt": "x", "sandbox": "y"}):
        with pytest.raises(InvalidArgument):
            client.run(**bad)
    run = client.run("x", arguments=["--full-auto"], approval_policy="on-request")
    assert [warning.partition(":")[0] for warning in run.warnings] == [
        "arguments",
        "approval_policy",
    ]
    with pytest.raises(InvalidArgument, match="shell command"):
        ExecClient("codex exec")
