"""How a turn ends early: by an interrupt, a cancelled wait, a time limit."""

import asyncio
from typing import Any

import pytest
from codex_app_server import (
    InvalidArgument,
    ServerRequestHandlers,
    TurnInProgress,
    TurnInterrupted,
    TurnTimeout,
    TurnTimeouts,
)

CHILD = "01a1fd25-ffff-74c1-943c-73e02be4ab8b"


async def test_interrupting_also_cleans_the_background_terminals(server, connect) -> None:
    thread = await (await connect()).start_thread()
    turn = await thread.run("go").start()
    await turn.interrupt()
    assert turn.done
    assert [m["method"] for m in server.sent[-2:]] == [
        "turn/interrupt",
        "thread/backgroundTerminals/clean",
    ]
    with pytest.raises(TurnInterrupted):
        await turn
    await turn.interrupt()
    assert len(server.requests("turn/interrupt")) == 1


@pytest.mark.parametrize("how", ["result", "iterate", "with"])
async def test_cancelling_whoever_waits_interrupts_the_turn(server, connect, how: str) -> None:
    thread = await (await connect()).start_thread()
    turn = await thread.run("go").start()
    waiting = asyncio.Event()

    async def wait() -> None:
        waiting.set()  # what follows runs up to its wait at once
        if how == "result":
            await turn
        elif how == "iterate":
            assert [event async for event in turn]
        else:
            async with turn:
                await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.requests("turn/interrupt")
    assert server.requests("thread/backgroundTerminals/clean")
    assert thread.turn is None


async def test_cancelling_while_the_turn_starts_interrupts_it_once_it_has_its_id(
    server, connect
) -> None:
    server.answers["turn/start"] = lambda m: []
    thread = await (await connect()).start_thread()
    turn = thread.run("go")
    task = asyncio.create_task(turn.result())
    await server.until(lambda: server.requests("turn/start"))
    task.cancel()  # seen before what arrives later
    server.feed(server.reply(server.requests("turn/start")[0], {"turn": {"id": server.turn_id}}))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(server.requests("turn/interrupt")) == 1


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("limits", "kind"),
    [
        (TurnTimeouts(total_s=10), "total"),
        (TurnTimeouts(idle_s=10), "idle"),
        (TurnTimeouts(first_event_s=10), "first_event"),
    ],
)
async def test_each_limit_interrupts_and_says_which_it_was(
    server, connect, limits: TurnTimeouts, kind: str
) -> None:
    thread = await (await connect()).start_thread()
    turn = thread.run("go", timeouts=limits)
    with pytest.raises(TurnTimeout) as caught:
        await turn
    assert (caught.value.kind, caught.value.limit_s) == (kind, 10)
    assert server.requests("turn/interrupt")
    assert asyncio.get_running_loop().time() == pytest.approx(10, abs=0.1)


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("options", "waited_s"),
    [({}, 10.0), ({"timeouts": TurnTimeouts(interrupt_s=1.5)}, 1.5)],
)
@pytest.mark.parametrize("answers", [True, False])
async def test_a_server_that_ignores_interrupts_is_waited_for_as_long_as_the_turn_says(
    server, connect, options: dict[str, Any], waited_s: float, answers: bool
) -> None:
    server.answers["turn/interrupt"] = lambda m: [server.reply(m, {})] if answers else []
    thread = await (await connect()).start_thread()
    turn = await thread.run("go", **options).start()
    loop = asyncio.get_running_loop()
    began = loop.time()

    task = asyncio.create_task(turn.result())
    await server.until(lambda: server.requests("turn/start"))
    loop.call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task

    assert loop.time() - began == pytest.approx(waited_s)
    assert not turn.done
    await turn.interrupt(0.25)
    assert loop.time() - began == pytest.approx(waited_s + 0.25)


@pytest.mark.looptime
async def test_a_limit_ends_the_turn_though_its_server_ignores_interrupts(server, connect) -> None:
    server.answers["turn/interrupt"] = lambda m: []
    thread = await (await connect()).start_thread()
    with pytest.raises(TurnTimeout):
        await thread.run("go", timeouts=TurnTimeouts(total_s=10, interrupt_s=3))
    assert asyncio.get_running_loop().time() == pytest.approx(13, abs=0.1)


@pytest.mark.parametrize("value", [0, -1, None, "2", float("nan"), True])
def test_an_interrupt_always_has_a_limit(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="interrupt_s="):
        TurnTimeouts(interrupt_s=value)


@pytest.mark.looptime
async def test_activity_of_a_sub_agent_and_a_pending_approval_are_not_silence(
    server, connect, pass_time
) -> None:
    handlers = ServerRequestHandlers(command="manual")
    connection = await connect(handlers=handlers)
    thread = await connection.start_thread()
    turn = await thread.run("go", timeouts=TurnTimeouts(idle_s=10)).start()
    server.feed(
        server.event(
            "item/started", item={"type": "subAgentActivity", "id": "s", "agentThreadId": CHILD}
        )
    )
    await pass_time(8)
    server.feed(server.delta("busy", threadId=CHILD, turnId="c"))
    await pass_time(8)
    assert not turn.done
    server.feed(
        {
            "id": 0,
            "method": "item/commandExecution/requestApproval",
            "params": {"threadId": server.thread_id, "turnId": server.turn_id},
        }
    )
    await pass_time(500)
    assert turn.waiting
    assert not turn.done
    (pending,) = connection.pending_requests
    pending.answer("accept")
    assert (await server.replied(0))["result"] == {"decision": "accept"}
    with pytest.raises(TurnTimeout):
        await turn


@pytest.mark.looptime
async def test_a_thread_that_waits_on_approval_elsewhere_is_not_silent(
    server, connect, pass_time
) -> None:
    thread = await (await connect()).start_thread()
    turn = await thread.run("go", timeouts=TurnTimeouts(idle_s=10)).start()
    status = {"type": "active", "activeFlags": ["waitingOnApproval"]}
    params = {"threadId": server.thread_id, "status": status}
    server.feed({"method": "thread/status/changed", "params": params})
    await pass_time(200)
    assert turn.waiting
    assert not turn.done
    params = {"threadId": server.thread_id, "status": {"type": "active", "activeFlags": []}}
    server.feed({"method": "thread/status/changed", "params": params})
    with pytest.raises(TurnTimeout):
        await turn


@pytest.mark.looptime
async def test_a_server_that_ignores_the_interrupt_cannot_hold_the_caller(
    server, connect, eventually
) -> None:
    thread = await (await connect()).start_thread()
    server.answers["turn/interrupt"] = lambda m: []
    turn = thread.run("go", timeouts=TurnTimeouts(total_s=10))
    with pytest.raises(TurnTimeout):
        await turn
    assert asyncio.get_running_loop().time() < 25
    with pytest.raises(TurnInProgress, match=server.turn_id):
        await thread.run("it would be merged into the first")
    server.feed(server.ended("interrupted"))
    await eventually(lambda: not thread.is_busy)
    assert (await thread.run("again").start()).id == server.turn_id
