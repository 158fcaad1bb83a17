"""Long reads beside other work."""

from __future__ import annotations

import asyncio

from symphony.trackers.rest_reads import A_TURN, in_turns


async def test_others_work_while_a_long_list_is_gone_through() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    found = [record async for record in in_turns(range(3 * A_TURN + 1))]
    assert found == [*range(3 * A_TURN + 1)]
    assert turns == 3
    task.cancel()


async def test_a_short_list_keeps_its_turn() -> None:
    task = asyncio.create_task(asyncio.sleep(0))
    assert [record async for record in in_turns("abc")] == ["a", "b", "c"]
    assert not task.done()
    await task
