"""The gate before a fresh CODEX_HOME: one goes first, and those that have waited go on together."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from symphony.runner.session import HomeGate


class Starts:
    """Counts who is behind the gate; they stay until they are let go."""

    def __init__(self, home: Path) -> None:
        self.gate = HomeGate()
        self.inside: set[int] = set()
        self._home = home
        self._changed = asyncio.Condition()
        self._answered: set[int] = set()

    async def start(self, number: int, *, fails: bool = False) -> None:
        async with self.gate.passage(self._home):
            async with self._changed:
                self.inside.add(number)
                self._changed.notify_all()
                await self._changed.wait_for(lambda: number in self._answered)
            if fails:
                raise OSError

    async def answer(self, *numbers: int) -> None:
        async with self._changed:
            self._answered.update(numbers)
            self._changed.notify_all()

    async def wait_for(self, *numbers: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.inside >= set(numbers))


async def test_those_that_wait_for_the_first_go_on_together(tmp_path: Path) -> None:
    starts = Starts(tmp_path)
    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(starts.start(number))
        await starts.wait_for(0)
        assert starts.inside == {0}
        await starts.answer(0)
        await starts.wait_for(1, 2, 3, 4)  # none of them has answered yet
        await starts.answer(1, 2, 3, 4)


async def test_where_the_first_fails_the_next_goes_alone_again(tmp_path: Path) -> None:
    starts = Starts(tmp_path)
    first = asyncio.create_task(starts.start(0, fails=True))
    async with asyncio.TaskGroup() as group:
        for number in (1, 2, 3):
            group.create_task(starts.start(number))
        await starts.wait_for(0)
        await starts.answer(0)
        with suppress(OSError):
            await first
        await starts.wait_for(1)
        assert starts.inside == {0, 1}
        await starts.answer(1)
        await starts.wait_for(2, 3)
        await starts.answer(2, 3)
