"""What is watched beside a turn: a person is needed, or the agent never begins.

Both end the turn by interrupting it and leave the outcome for ``attempt`` to take. Apart from
``engine.stalls``, which measures silence between events: a turn that was accepted and brings
nothing but bookkeeping is told from one that has fallen silent, and by a limit of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from symphony.model.run import Outcome, OutcomeKind
from symphony.runner.ending import EndableTurn
from symphony.runner.narrator import Narrator
from symphony.runner.requests import RequestPolicy


class TurnWatch:
    """Watches one turn.

    Attributes:
        mute: The outcome where the agent gave no sign in time, else None.
    """

    def __init__(self, requests: RequestPolicy, narrator: Narrator, *, name: str) -> None:
        self.mute: Outcome | None = None
        self._requests = requests
        self._narrator = narrator
        self._name = name
        self._tasks: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def over(self, turn: EndableTurn) -> AsyncIterator[None]:
        """Hold this from before the turn's start to its end."""
        self._narrator.sign.clear()
        self._watch("requests", turn)
        try:
            yield
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)

    def began(self, turn: EndableTurn, first_event_s: float | None) -> None:
        """Take note that Codex has accepted the turn; the agent's time runs from here."""
        if first_event_s is not None:
            self._tasks.append(
                asyncio.create_task(
                    self._expect_sign(turn, first_event_s), name=f"first event {self._name}"
                )
            )

    def _watch(self, what: str, turn: EndableTurn) -> None:
        waiting = self._requests.interrupt_when_blocked(turn)
        self._tasks.append(asyncio.create_task(waiting, name=f"{what} {self._name}"))

    async def _expect_sign(self, turn: EndableTurn, limit_s: float) -> None:
        try:
            async with asyncio.timeout(limit_s):
                await self._narrator.sign.wait()
            return
        except TimeoutError:
            self.mute = Outcome(
                kind=OutcomeKind.TIMED_OUT,
                category="turn_timeout",
                message=f"the agent gave no sign of life within {limit_s:g} s of the turn's start "
                "(codex.first_event_timeout_ms)",
            )
        await turn.interrupt()
