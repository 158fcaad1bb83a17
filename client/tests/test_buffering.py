"""A limit over several connections: the one that holds the most ends, the others go on."""

from __future__ import annotations

import copy

import pytest
from codex_app_server import (
    BufferBudget,
    BufferLimitExceeded,
    ClientInfo,
    Connection,
    ConnectionClosed,
    InvalidArgument,
)

CLIENT = ClientInfo(name="tests", version="1")


@pytest.fixture
def open_one(server):
    """Opens a connection to a scripted server of its own; returns both."""
    make_server = type(server)

    async def open_one(budget, **options):
        server = make_server()
        return server, await Connection.open(server, CLIENT, buffer_budget=budget, **options)

    return open_one


@pytest.fixture
def taken_in(eventually):
    """Waits until the connections of a budget hold so much."""

    async def taken_in(budget, held_bytes):
        await eventually(lambda: budget.held_bytes == held_bytes)

    return taken_in


async def test_the_connection_that_holds_the_most_ends_and_the_others_go_on(open_one, taken_in):
    budget = BufferBudget(10_000)
    servers, connections = zip(*[await open_one(budget) for _ in range(3)], strict=True)
    for server, size in zip(servers, (3_000, 5_000, 1_000), strict=True):
        server.feed_bytes(b"x" * size)
    await taken_in(budget, 9_000)

    servers[2].feed_bytes(b"x" * 1_500)
    error = await connections[1].closed

    assert isinstance(error, BufferLimitExceeded)
    assert isinstance(error, ConnectionClosed)
    assert (error.limit_bytes, error.held_bytes, error.own_bytes) == (10_000, 10_500, 5_000)
    assert "more than the limit of 10000" in str(error)
    assert str(copy.copy(error)) == str(error)
    assert budget.held_bytes == 5_500
    with pytest.raises(BufferLimitExceeded):
        await connections[1].call("model/list", {})
    # A line that ends gives back what it took; its sender works as before.
    for server in (servers[0], servers[2]):
        server.feed_bytes(b"\n")
    await taken_in(budget, 0)
    for connection in (connections[0], connections[2]):
        assert await connection.start_thread(cwd="/repo")
        assert connection.malformed_lines == 1
    for connection in connections:
        await connection.aclose()


async def test_the_one_that_asks_for_too_much_is_ended_where_it_holds_the_most(open_one, taken_in):
    budget = BufferBudget(1_000)
    server, connection = await open_one(budget)
    other, well = await open_one(budget)
    other.feed_bytes(b"x" * 400)
    await taken_in(budget, 400)
    server.feed_bytes(b"x" * 700)
    assert isinstance(await connection.closed, BufferLimitExceeded)
    assert budget.held_bytes == 400
    assert not well.is_closed
    await connection.aclose()
    await well.aclose()
    assert budget.held_bytes == 0


async def test_a_line_beyond_its_own_cap_holds_nothing_of_the_budget(open_one, taken_in):
    budget = BufferBudget(10_000)
    server, connection = await open_one(budget, max_line_bytes=2_000)
    server.feed_bytes(b"x" * 1_999)
    await taken_in(budget, 1_999)
    server.feed_bytes(b"x" * 50_000)
    await taken_in(budget, 0)
    server.feed_bytes(b"\n")
    assert await connection.start_thread(cwd="/repo")
    await connection.aclose()


async def test_many_small_holders_are_ended_one_by_one_until_it_fits(open_one, taken_in):
    budget = BufferBudget(1_000)
    opened = [await open_one(budget) for _ in range(5)]
    for server, _ in opened:
        server.feed_bytes(b"x" * 200)
    await taken_in(budget, 1_000)
    budget.max_bytes = 500
    opened[0][0].feed_bytes(b"x")
    await taken_in(budget, 400)
    assert sum(connection.is_closed for _, connection in opened) == 3
    for _, connection in opened:
        await connection.aclose()


@pytest.mark.parametrize("wrong", [0, -1, 1.5, None, "256"])
def test_a_limit_is_a_count(wrong):
    with pytest.raises(InvalidArgument, match="max_bytes"):
        BufferBudget(wrong)


async def test_what_is_no_budget_is_refused_by_name(open_one):
    with pytest.raises(InvalidArgument, match="buffer_budget"):
        await open_one(256)
