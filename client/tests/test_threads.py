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


def _running(turn_id: str, status: str = "inProgress") -> dict[str, object]:
    return {"data": [{"id": turn_id, "status": status, "items": []}], "nextCursor": None}


async def test_a_turn_that_another_client_started_is_attached_to(server, connect):
    def running(request):
        # What happens while the reply is on its way is the turn's too.
        return [
            server.delta("early", turnId="theirs"),
            server.reply(request, _running("theirs")),
            server.message("said", turn="theirs"),
        ]

    server.answers["thread/turns/list"] = running
    thread = await (await connect()).resume_thread(server.thread_id)
    attached = await thread.attach_turn()
    assert attached is not None
    assert (attached.id, thread.turn) == ("theirs", attached)
    server.feed(server.ended(turn="theirs"))
    events = [event.method async for event in attached]
    assert events == ["item/agentMessage/delta", "item/completed", "turn/completed"]
    assert (await attached).final_message == "said"
    assert not thread.is_busy


@pytest.mark.parametrize("answer", [_running("over", "completed"), {"data": []}, {}])
async def test_nothing_is_attached_to_where_no_turn_runs(server, connect, answer):
    server.answers["thread/turns/list"] = lambda m: [server.reply(m, answer)]
    thread = await (await connect()).resume_thread(server.thread_id)
    thread.linger("over")
    assert await thread.attach_turn() is None
    assert (thread.turn, thread.last_turn, thread.is_busy) == (None, None, False)


async def test_a_refused_look_for_the_running_turn_leaves_the_thread_as_it_was(server, connect):
    refused = {"code": -32600, "message": "no"}
    server.answers["thread/turns/list"] = lambda m: [{"id": m["id"], "error": refused}]
    thread = await (await connect()).resume_thread(server.thread_id)
    thread.linger("theirs")
    with pytest.raises(RequestError, match="no"):
        await thread.attach_turn()
    assert (thread.turn, thread.last_turn, thread.is_busy) == (None, None, True)
    with pytest.raises(TurnInProgress):
        await thread.run("go")


async def test_giving_up_to_attach_leaves_the_turn_alone_and_it_can_be_had_later(server, connect):
    asked = []
    server.answers["thread/turns/list"] = lambda m: asked.append(m) or []
    thread = await (await connect()).resume_thread(server.thread_id)
    attaching = asyncio.create_task(thread.attach_turn())
    await server.until(lambda: server.requests("thread/turns/list"))
    attaching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attaching
    again = asyncio.create_task(thread.attach_turn())
    server.feed(server.reply(asked[0], _running("theirs")))
    attached = await again
    assert attached is not None
    assert attached.id == "theirs"
    assert server.requests("turn/interrupt") == []
