"""The smoke test of ``codex-app-server smoke``: turn, resume, interrupt and preempt, in order.

It reconciles what this library believes with what a server does. Invariant: a step that fails
says why and the next ones still run where they can; every step has a deadline. Scripted, it runs
against `codex_app_server.testing` and shows that this installation works.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from msgspec import Struct

from codex_app_server.connection import ClientInfo, Connection
from codex_app_server.errors import CodexError, TurnInProgress, TurnInterrupted
from codex_app_server.testing import ScriptedTransport, WaitFor, agent_turn
from codex_app_server.threads import Thread

__all__ = ["STEPS", "SmokeStep", "run_smoke", "scripted_connection"]

STEPS = ("turn", "resume", "interrupt", "preempt")
QUICK_PROMPT = "Reply with the single word: ok. Do not run anything."
SLOW_PROMPT = "Run `sleep 20` in the shell, then reply done."
Open = Callable[[], AbstractAsyncContextManager[Connection]]


class SmokeStep(Struct, frozen=True):
    """How one step went.

    Attributes:
        name: Of `STEPS`.
        ok: Whether the server did what was expected.
        detail: What happened, in a sentence.
        seconds: How long it took.
    """

    name: str
    ok: bool
    detail: str
    seconds: float


class _Failed(Exception):
    """A step found something else than it expected."""


async def run_smoke(
    open_connection: Open,
    *,
    steps: Iterable[str] = STEPS,
    thread_options: dict[str, Any] | None = None,
    quick_prompt: str = QUICK_PROMPT,
    slow_prompt: str = SLOW_PROMPT,
    step_timeout_s: float = 180.0,
    on_step: Callable[[SmokeStep], None] = lambda step: None,
) -> list[SmokeStep]:
    """Run the steps and return how they went.

    Args:
        open_connection: Opens a connection to the server under test; ``resume`` opens another one.
        steps: Which of `STEPS`; ``resume`` runs ``turn`` before it.
        thread_options: For `Connection.start_thread`.
        quick_prompt: Of a turn that ends soon.
        slow_prompt: Of a turn that runs a command long enough to be interrupted.
        step_timeout_s: Deadline of each step.
        on_step: Told of each step as it ends.
    """
    wanted = set(steps)
    smoke = _Smoke(open_connection, thread_options or {}, quick_prompt, slow_prompt)
    if "resume" in wanted:
        wanted.add("turn")
    results = []
    for name in STEPS:
        if name in wanted:
            results.append(await _timed(name, getattr(smoke, name), step_timeout_s))
            on_step(results[-1])
    return results


async def _timed(name: str, run: Callable[[], Awaitable[str]], timeout_s: float) -> SmokeStep:
    loop = asyncio.get_running_loop()
    began, ok = loop.time(), False
    try:
        async with asyncio.timeout(timeout_s):
            detail = await run()
        ok = True
    except TimeoutError:
        detail = f"nothing after {timeout_s:g} s"
    except (CodexError, _Failed) as error:
        detail = str(error)
    return SmokeStep(name, ok, detail, round(loop.time() - began, 3))


class _Smoke:
    """The steps; the thread of the first one is resumed by the second."""

    def __init__(
        self, open_connection: Open, options: dict[str, Any], quick: str, slow: str
    ) -> None:
        self._open = open_connection
        self._options = options
        self._quick = quick
        self._slow = slow
        self._thread_id: str | None = None

    async def turn(self) -> str:
        async with self._open() as connection:
            thread = await connection.start_thread(**self._options)
            result = await thread.run(self._quick)
            self._thread_id = thread.id
            if not result.final_message:
                raise _Failed("the turn completed without a message")
            tokens = result.usage.total_tokens
            return f"completed with {len(result.final_message)} characters and {tokens} tokens"

    async def resume(self) -> str:
        if self._thread_id is None:
            raise _Failed("there is no thread to resume: the step `turn` failed")
        async with self._open() as connection:
            thread = await connection.resume_thread(self._thread_id, **self._options)
            if thread.id != self._thread_id:
                raise _Failed(f"thread {self._thread_id} came back as {thread.id}")
            await thread.run(self._quick)
            return f"thread {thread.id} goes on over a second connection"

    async def interrupt(self) -> str:
        async with self._open() as connection:
            thread = await connection.start_thread(**self._options)
            return await self._interrupt(thread)

    async def _interrupt(self, thread: Thread) -> str:
        running = thread.run(self._slow)
        seen = ""
        async with running:
            async for event in running:
                seen = event.method
                item = event.data.get("item") if seen == "item/started" else None
                if isinstance(item, dict) and item.get("type") == "commandExecution":
                    break
            if running.done:
                raise _Failed(f"the turn ended ({seen}) before it ran a command")
            await running.interrupt()
        try:
            await running
        except TurnInterrupted:
            return "a running command was interrupted and its turn ended so"
        raise _Failed("the turn completed although it was interrupted")

    async def preempt(self) -> str:
        async with self._open() as connection:
            thread = await connection.start_thread(**self._options)
            running = thread.run(self._slow)
            async with running:
                try:
                    await thread.run(self._quick)
                except TurnInProgress:
                    pass
                else:
                    raise _Failed("a second turn was let in beside the first one")
                await running.interrupt()
            await thread.run(self._quick)
            return "a second turn was refused, and ran after the interrupt of the first one"


def scripted_connection() -> Open:
    """Return what opens connections to a scripted server that passes all steps."""

    def answer(message: dict[str, Any]) -> Any:
        if message["params"]["input"][0]["text"] != SLOW_PROMPT:
            return agent_turn("ok")(message)
        command = {"type": "commandExecution", "command": "sleep 20", "status": "inProgress"}
        return agent_turn(command, WaitFor("turn/interrupt"))(message)

    @asynccontextmanager
    async def connect() -> AsyncIterator[Connection]:
        transport = ScriptedTransport().on_call("turn/start", answer)
        async with await Connection.open(transport, ClientInfo("smoke", "1")) as connection:
            yield connection

    return connect
