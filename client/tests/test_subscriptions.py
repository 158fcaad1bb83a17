"""Streams of notifications beside the turns."""

from __future__ import annotations

import asyncio

import pytest
from codex_app_server.errors import ConnectionClosed, InvalidArgument


async def test_a_subscription_gets_what_it_asked_for_and_nothing_else(server, connect):
    connection = await connect()
    async with connection.subscribe(thread_id="a", methods=["x/y", "turn/started"]) as events:
        server.feed(
            server.event("x/y", threadId="b"),
            server.event("z", threadId="a"),
            server.event("x/y", threadId="a", n=1),
            server.event("turn/started", threadId="a", n=2),
        )
        seen = [await events.next(5), await events.next(5)]
    assert [(event.method, event.data["n"]) for event in seen] == [("x/y", 1), ("turn/started", 2)]


async def test_without_conditions_it_gets_everything_also_what_concerns_no_thread(server, connect):
    connection = await connect()
    async with connection.subscribe() as events:
        server.feed({"method": "account/updated", "params": {}}, server.event("x"))
        assert [(await events.next(5)).method for _ in range(2)] == ["account/updated", "x"]


async def test_a_turn_and_a_subscription_both_get_its_events(server, connect):
    connection = await connect()
    thread = await connection.start_thread()
    events = connection.subscribe(thread_id=thread.id)
    turn = await thread.run("go").start()
    server.feed(server.delta("hi"), server.ended())
    await turn
    events.close_when_read()
    assert [event.method async for event in events] == ["item/agentMessage/delta", "turn/completed"]


async def test_an_unread_subscription_keeps_its_bound_by_dropping_the_oldest(server, connect):
    connection = await connect()
    events = connection.subscribe(limit=3, drop="drop_oldest")
    last = connection.subscribe(methods=["end"])
    server.feed(*(server.event("x", n=n) for n in range(10)), server.event("end"))
    await last.next(5)
    assert events.dropped == 8
    assert [(await events.next(5)).data.get("n") for _ in range(3)] == [8, 9, None]


async def test_deltas_are_merged_over_the_bound_and_lifecycle_events_stay(server, connect):
    connection = await connect()
    events = connection.subscribe(limit=2)
    last = connection.subscribe(methods=["end"])
    server.feed(*(server.delta(f"{n} ") for n in range(6)), server.event("x"), server.event("end"))
    await last.next(5)
    events.close_when_read()
    seen = [event async for event in events]
    assert [event.method for event in seen][-2:] == ["x", "end"]
    texts = [event.params.delta for event in seen[:-2]]
    assert "".join(texts) == "0 1 2 3 4 5 "
    assert len(texts) == 3


async def test_the_end_of_the_connection_is_told_after_the_last_event(server, connect):
    connection = await connect()
    events = connection.subscribe()
    server.feed(server.event("x"))
    server.end()
    assert (await events.next(5)).method == "x"
    with pytest.raises(ConnectionClosed):
        await events.next(5)


async def test_closing_ends_a_reader_that_waits(connect, eventually):
    connection = await connect()
    events = connection.subscribe()

    async def read() -> list[object]:
        return [event async for event in events]

    reader = asyncio.create_task(read())
    await eventually(lambda: events._wake is not None)
    events.close()
    assert await reader == []


async def test_a_wait_that_runs_out_leaves_the_subscription_usable(server, connect):
    connection = await connect()
    events = connection.subscribe()
    with pytest.raises(TimeoutError):
        await events.next(0.01)
    server.feed(server.event("x"))
    assert (await events.next(5)).method == "x"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"methods": "turn/started"}, "give a list"),
        ({"methods": 5}, "methods=5: give a list"),
        ({"methods": ["a", 5]}, "give a list"),
        ({"limit": 0}, "limit=0"),
        ({"limit": "9"}, "limit='9'"),
        ({"thread_id": 5}, "thread_id=5: give a thread's id"),
        ({"drop": "everything"}, "drop='everything'"),
    ],
)
async def test_wrong_options_are_refused(connect, options, complaint):
    connection = await connect()
    with pytest.raises(InvalidArgument, match=complaint):
        connection.subscribe(**options)


async def test_nobody_subscribes_to_a_connection_that_has_ended(connect):
    connection = await connect()
    await connection.aclose()
    with pytest.raises(ConnectionClosed, match="closed here"):
        connection.subscribe()
