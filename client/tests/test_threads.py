"""What a thread can do beside its turns, against the scripted server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from codex_app_server.errors import (
    ActiveWriter,
    InvalidArgument,
    RequestError,
    RequestTimeout,
    TurnFailed,
    TurnInProgress,
    TurnInterrupted,
)


def accepts(server: Any, *methods: str) -> None:
    for method in methods:
        server.answers[method] = lambda m: [server.reply(m, {})]


async def test_a_compaction_ends_with_its_turn_and_keeps_others_out(server, connect):
    accepts(server, "thread/compact/start")
    thread = await (await connect()).start_thread()
    compacting = asyncio.create_task(thread.compact())
    await server.until(lambda: server.requests("thread/compact/start"))
    assert thread.is_busy
    with pytest.raises(TurnInProgress, match="compaction"):
        await thread.run("go")
    server.feed(server.ended(turn="c"))
    await compacting
    assert not thread.is_busy


@pytest.mark.parametrize(
    ("status", "error"),
    [("interrupted", TurnInterrupted), ("failed", TurnFailed), ("melted", TurnFailed)],
)
async def test_a_compaction_that_does_not_complete_raises(server, connect, status, error):
    server.answers["thread/compact/start"] = lambda m: [
        server.reply(m, {}),
        server.ended(status, turn="c", error={"message": "no", "codexErrorInfo": "badRequest"}),
    ]
    thread = await (await connect()).start_thread()
    with pytest.raises(error) as caught:
        await thread.compact()
    assert caught.value.turn_id == "c"
    assert not thread.is_busy


async def test_a_compaction_without_an_end_is_given_up_and_one_refused_is_told(server, connect):
    accepts(server, "thread/compact/start")
    thread = await (await connect()).start_thread()
    with pytest.raises(RequestTimeout, match="thread/compact/start within"):
        await thread.compact(timeout_s=0.01)
    server.answers["thread/compact/start"] = lambda m: [
        {"id": m["id"], "error": {"code": -32600, "message": "nothing to compact"}}
    ]
    with pytest.raises(RequestError, match="nothing to compact"):
        await thread.compact()
    assert not thread.is_busy


async def test_a_busy_thread_is_neither_compacted_nor_left(server, connect):
    thread = await (await connect()).start_thread()
    turn = await thread.run("go").start()
    with pytest.raises(TurnInProgress):
        await thread.compact()
    with pytest.raises(TurnInProgress):
        await thread.unsubscribe()
    assert server.requests("thread/unsubscribe") == []
    server.feed(server.ended())
    await turn
    accepts(server, "thread/unsubscribe", "thread/archive")
    await thread.archive()


async def test_a_review_is_a_turn_like_any_other(server, connect):
    started = {"turn": {"id": server.turn_id, "status": "inProgress"}}
    server.answers["review/start"] = lambda m: [
        server.reply(m, started),
        server.message("looks good"),
        server.ended(),
    ]
    thread = await (await connect()).start_thread()
    result = await thread.review({"type": "baseBranch", "branch": "main"})
    assert result.final_message == "looks good"
    assert server.requests("review/start")[0]["params"] == {
        "threadId": thread.id,
        "target": {"type": "baseBranch", "branch": "main"},
        "delivery": "inline",
    }
    with pytest.raises(InvalidArgument, match="target"):
        thread.review({"branch": "main"})


async def test_a_thread_that_another_process_holds_is_forked_with_the_same_options(server, connect):
    held = {"code": -32600, "message": "thread t already has an active writer"}
    server.answers["thread/resume"] = lambda m: [{"id": m["id"], "error": held}]
    server.answers["thread/fork"] = lambda m: [server.reply(m, {"thread": {"id": "copy"}})]
    connection = await connect()
    with pytest.raises(ActiveWriter):
        await connection.resume_thread("t")
    thread = await connection.resume_thread("t", fork_when_held=True, cwd="/w", sandbox="read-only")
    assert thread.id == "copy"
    assert server.requests("thread/fork")[0]["params"] == {
        "threadId": "t",
        "excludeTurns": True,
        "cwd": "/w",
        "sandbox": "read-only",
    }


async def test_other_refusals_of_a_resume_are_not_answered_with_a_fork(server, connect):
    lost = {"code": -32600, "message": "no rollout found for thread id t"}
    server.answers["thread/resume"] = lambda m: [{"id": m["id"], "error": lost}]
    connection = await connect()
    with pytest.raises(RequestError, match="no rollout"):
        await connection.resume_thread("t", fork_when_held=True)
    assert server.requests("thread/fork") == []
