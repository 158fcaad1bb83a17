"""The checklist's lines that only a real binary can answer. The model is scripted; no network."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from codex_app_server import (
    ActiveWriter,
    ConnectionClosed,
    Event,
    InvalidParams,
    RequestError,
    RequestKind,
    ServerRequestHandlers,
    ServerRequestRecord,
    Tool,
    ToolCallContext,
    TurnFailed,
    TurnInProgress,
    TurnInterrupted,
    UnknownNotification,
)

from symphony.demo.script import Exec, Fail, Patch, Reply, Say, turn
from symphony.demo.script import Tool as Call

pytestmark = pytest.mark.codex
FREE = {"approval_policy": "never", "sandbox": "danger-full-access"}
PATCH = "*** Begin Patch\n*** Add File: made.txt\n+made\n*** End Patch\n"


async def test_a_turn_runs_and_every_event_has_its_type(codex) -> None:
    events: list[Event] = []
    real = await codex(A=turn(Exec("echo hi > out.txt"), Say("All done.")))
    connection = await real.open(on_events=events.extend)
    thread = await connection.start_thread(cwd=str(real.workspace), **FREE)
    running = thread.run("Issue: A")
    seen = [event.method async for event in running]
    result = await running
    assert seen[-1] == "turn/completed"
    assert result.final_message == "All done."
    assert (real.workspace / "out.txt").read_text() == "hi\n"
    assert result.usage.total_tokens > 0
    assert connection.server.version is not None
    assert connection.malformed_lines == connection.unmatched_replies == 0
    odd = [e for e in events if isinstance(e.params, InvalidParams | UnknownNotification)]
    assert odd == []


async def test_a_request_with_id_0_is_answered_and_reported(codex) -> None:
    records: list[ServerRequestRecord] = []
    real = await codex(
        A=turn(Exec("touch asked.txt"), Patch(PATCH), Say("ok")), B=turn(Patch(PATCH), Say("ok"))
    )
    handlers = ServerRequestHandlers(command="accept", on_answered=records.append)
    connection = await real.open(handlers=handlers)
    thread = await connection.start_thread(
        cwd=str(real.workspace), approval_policy="untrusted", sandbox="danger-full-access"
    )
    result = await thread.run("Issue: A")
    assert result.status == "completed"
    assert (real.workspace / "asked.txt").exists()
    assert not (real.workspace / "made.txt").exists()
    assert [(record.request.kind, record.request.id) for record in records] == [
        (RequestKind.COMMAND, 0),
        (RequestKind.FILE_CHANGE, 1),
    ]
    assert [record.answer for record in records] == [
        {"decision": "accept"},
        {"decision": "decline"},
    ]


async def test_parallel_tool_calls_reach_the_model_whatever_the_order_of_their_ends(codex) -> None:
    second_done = asyncio.Event()

    async def echo(arguments: Any, context: ToolCallContext) -> str:
        # Versions before 0.169 ask for one call at a time, others for both at once.
        if arguments["n"] == 1 and at_once:
            await second_done.wait()
        else:
            second_done.set()
        return f"echo {arguments['n']}"

    async def fail(arguments: Any, context: ToolCallContext) -> str:
        raise RuntimeError("kaputt")

    real = await codex(
        A=turn(Reply((Call("echo", {"n": 1}), Call("echo", {"n": 2}), Call("fail", {}))), Say("ok"))
    )
    connection = await real.open()
    at_once = connection.server.version == "0.169.0"
    schema = {"type": "object", "properties": {}}
    thread = await connection.start_thread(
        cwd=str(real.workspace),
        tools=[Tool("echo", "e", schema, echo), Tool("fail", "f", schema, fail)],
        **FREE,
    )
    await thread.run("Issue: A")
    outputs = real.model.requests[-1].conversation.outputs
    assert outputs == ("echo 1", "echo 2", "fail failed: RuntimeError: kaputt")


@pytest.mark.parametrize("how", ["interrupt", "cancel"])
async def test_interrupting_ends_the_command_that_runs(
    codex, commands_with: Callable[[str], list[int]], eventually: Any, how: str
) -> None:
    marker = f"sleep 61{os.getpid()}"
    real = await codex(A=turn(Exec(f"echo started; {marker}; true"), Say("ok")))
    connection = await real.open()
    thread = await connection.start_thread(cwd=str(real.workspace), **FREE)
    running = thread.run("Issue: A")
    waiting = asyncio.create_task(running.result())
    await eventually(lambda: commands_with(marker))
    if how == "interrupt":
        await running.interrupt()
        with pytest.raises(TurnInterrupted):
            await waiting
    else:
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert running.done
    await eventually(lambda: not commands_with(marker))


@pytest.mark.parametrize(
    ("fault", "code", "retryable"),
    [
        (Fail(400, "invalid_request_error", times=None), None, False),
        (Fail(429, "slow_down", times=None), "responseTooManyFailedAttempts", True),
        (Fail(429, "usage_limit_reached", times=None), "usageLimitExceeded", True),
    ],
)
async def test_failures_of_the_provider_come_as_typed_errors(
    codex, fault: Fail, code: str | None, retryable: bool
) -> None:
    real = await codex(A=turn(fault), B=turn(Say("ok")))
    connection = await real.open()
    thread = await connection.start_thread(cwd=str(real.workspace), **FREE)
    with pytest.raises(TurnFailed) as caught:
        await thread.run("Issue: A")
    assert code is None or (caught.value.code, caught.value.retryable) == (code, retryable)
    other = await connection.start_thread(cwd=str(real.workspace), **FREE)
    assert (await other.run("Issue: B")).final_message == "ok"


async def test_a_killed_process_ends_every_waiter_and_its_thread_can_be_resumed(
    codex, commands_with: Callable[[str], list[int]], eventually: Any
) -> None:
    calls: list[str] = []

    async def note(arguments: Any, context: ToolCallContext) -> str:
        calls.append(context.thread_id)
        return "noted"

    marker = f"sleep 62{os.getpid()}"
    tool = Tool("note", "n", {"type": "object", "properties": {}}, note)
    real = await codex(
        A=turn(Call("note", {}), Say("ok")), B=turn(Exec(f"{marker}; true"), Say("never"))
    )
    connection = await real.open()
    thread = await connection.start_thread(cwd=str(real.workspace), tools=[tool], **FREE)
    first = await thread.run("Issue: A")
    running = asyncio.create_task(thread.run("Issue: A").result())
    await running
    hanging = await connection.start_thread(cwd=str(real.workspace), **FREE)
    waiting = asyncio.create_task(hanging.run("Issue: B").result())
    await eventually(lambda: commands_with(marker))
    second = await real.open()
    if second.server.version != "0.125.0":  # which lets two processes write a thread
        with pytest.raises(ActiveWriter, match=thread.id):
            await second.resume_thread(thread.id)
    os.kill(real.transports[0].pid, signal.SIGKILL)
    with pytest.raises(ConnectionClosed) as caught:
        await waiting
    assert caught.value.returncode == -signal.SIGKILL
    resumed = await second.resume_thread(thread.id, tools=[tool], **FREE)
    again = await resumed.run("Issue: A")
    assert again.final_message == "ok"
    assert calls == [thread.id] * len(calls)
    assert 0 < again.usage.total_tokens <= 2 * first.usage.total_tokens
    await eventually(lambda: not commands_with(marker))


async def test_a_child_that_cannot_be_asked_politely_leaves_nothing_behind(
    codex, commands_with: Callable[[str], list[int]], eventually: Any
) -> None:
    marker = f"sleep 63{os.getpid()}"
    real = await codex(A=turn(Exec(f"{marker}; true"), Say("never")))
    connection = await real.open()
    thread = await connection.start_thread(cwd=str(real.workspace), **FREE)
    waiting = asyncio.create_task(thread.run("Issue: A").result())
    await eventually(lambda: commands_with(marker))
    await connection.aclose()
    with pytest.raises(ConnectionClosed):
        await waiting
    assert real.transports[0].returncode == 0
    await eventually(lambda: not commands_with(marker))


async def test_a_line_of_megabytes_arrives_whole(codex) -> None:
    real = await codex(A=turn(Say("ok")))
    (real.workspace / "big.txt").write_bytes(b"x" * 5_000_000)
    connection = await real.open()
    reply = await connection.call("fs/readFile", {"path": str(real.workspace / "big.txt")})
    assert len(reply["dataBase64"]) > 6_600_000


@pytest.mark.slow
async def test_a_line_of_130_megabytes_of_the_real_server_arrives_whole(codex) -> None:
    real = await codex()
    size = 98_000_000
    with (real.workspace / "big.bin").open("wb") as file:
        file.truncate(size)
    connection = await real.open()
    reply = await connection.call("fs/readFile", {"path": str(real.workspace / "big.bin")})
    assert len(reply["dataBase64"]) == (size + 2) // 3 * 4 > 130_000_000
    assert connection.malformed_lines == 0


async def test_a_busy_thread_takes_a_steer_and_refuses_a_second_turn(codex) -> None:
    asked, opened = asyncio.Event(), asyncio.Event()

    async def gate(arguments: Any, context: ToolCallContext) -> str:
        asked.set()
        await opened.wait()
        return "open"

    real = await codex(A=turn(Call("gate", {}), Say("ok")))
    connection = await real.open()
    tool = Tool("gate", "g", {"type": "object", "properties": {}}, gate)
    thread = await connection.start_thread(cwd=str(real.workspace), tools=[tool], **FREE)
    running = await thread.run("Issue: A").start()
    with pytest.raises(TurnInProgress, match=str(running.id)):
        await thread.run("It would be merged into the first.")
    await asked.wait()
    await running.steer("Turn left.")
    # What the refusal keeps away: the server takes a second start for a steer, without a word.
    told = {"threadId": thread.id, "input": [{"type": "text", "text": "Then right."}]}
    merged = (await connection.call("turn/start", told))["turn"]["id"]
    # 0.125 merges it too, under an id that never ends.
    assert merged == running.id or connection.server.version == "0.125.0"
    opened.set()
    assert (await running).final_message == "ok"
    assert real.model.requests[-1].conversation.prompts == (
        "Issue: A",
        "Turn left.",
        "Then right.",
    )


async def test_usage_after_a_resume_is_the_turns_own(codex) -> None:
    real = await codex(A=turn(Say("ok")))
    first = await real.open()
    thread = await first.start_thread(cwd=str(real.workspace), **FREE)
    usages = [(await thread.run("Issue: A")).usage for _ in range(2)]
    await first.aclose()
    second = await real.open()
    resumed = await second.resume_thread(thread.id, **FREE)
    usages += [(await resumed.run("Issue: A")).usage for _ in range(2)]
    assert [one.total_tokens for one in usages] == [1280] * 4
    assert resumed.usage_total is not None
    assert resumed.usage_total.total_tokens == 4 * 1280


async def test_an_unknown_method_is_refused_and_the_connection_goes_on(codex) -> None:
    real = await codex(A=turn(Say("ok")))
    connection = await real.open()
    with pytest.raises(RequestError):
        await connection.call("no/such/method", {})
    thread = await connection.start_thread(cwd=str(real.workspace), **FREE)
    assert (await thread.run("Issue: A")).final_message == "ok"


async def test_many_threads_of_one_process_keep_apart(codex) -> None:
    real = await codex(A=turn(Exec("pwd > where.txt"), Say("ok")))
    connection = await real.open()
    folders = [real.workspace / str(n) for n in range(8)]
    for folder in folders:
        folder.mkdir()

    async def one(folder: Any) -> None:
        thread = await connection.start_thread(cwd=str(folder), **FREE)
        await thread.run("Issue: A")

    await asyncio.gather(*map(one, folders))
    assert [f.joinpath("where.txt").read_text().strip() for f in folders] == list(map(str, folders))
