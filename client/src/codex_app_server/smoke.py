"""The smoke test of ``codex-app-server smoke``: turn, resume, interrupt and preempt, in order.

It reconciles what this library believes with what a server does. Invariant: a step that fails
says why and the next ones still run where they can; every step has a deadline; a command counts as
interrupted only when its processes are gone, where they can be seen. It runs against the user's own
Codex, login and model; against a real Codex with a `codex_app_server.scripted_model`; or dry,
against `codex_app_server.testing`, which shows that this installation works.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from msgspec import Struct

from codex_app_server.cleanup import thread_processes
from codex_app_server.connection import ClientInfo, Connection
from codex_app_server.errors import (
    BinaryNotFound,
    CodexError,
    InvalidArgument,
    MissingExtra,
    TurnInProgress,
    TurnInterrupted,
)
from codex_app_server.home import HomeError, provider_config, write_config
from codex_app_server.launch import Codex
from codex_app_server.launch_plan import private_home
from codex_app_server.scripted_model import ScriptedModel
from codex_app_server.testing import ScriptedTransport, WaitFor, agent_turn
from codex_app_server.threads import Thread
from codex_app_server.turns import Turn

__all__ = ["STEPS", "SmokeStep", "dry_connection", "run_smoke", "scripted_codex"]

STEPS = ("turn", "resume", "interrupt", "preempt")
QUICK_PROMPT = "Reply with the single word: ok. Do not run anything."
SLOW_PROMPT = "Run `sleep 20` in the shell, then reply done."
MODEL = "gpt-5.5"
APPEARS_S = 2.0
GONE_S = 5.0
POLL_S = 0.05
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
    local: bool = True,
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
        local: Whether the commands run on this machine, so that their end can be seen.
        on_step: Told of each step as it ends.

    Raises:
        BinaryNotFound: There is no Codex to start; so for what else keeps one from being started
            (`HomeError`, `InvalidArgument`, `MissingExtra`).
    """
    wanted = set(steps)
    smoke = _Smoke(open_connection, thread_options or {}, quick_prompt, slow_prompt)
    smoke.local = local
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
    except (BinaryNotFound, HomeError, InvalidArgument, MissingExtra):
        raise
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
        self.local = True

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

    async def _command_of(self, running: Turn) -> list[int]:
        """Wait until a turn runs a command; return the processes of it that can be seen here."""
        seen = ""
        async for event in running:
            seen = event.method
            item = event.data.get("item") if seen == "item/started" else None
            if isinstance(item, dict) and item.get("type") == "commandExecution":
                break
        if running.done:
            raise _Failed(f"the turn ended ({seen}) before it ran a command")
        return await _poll(running.thread, bool, APPEARS_S) if self.local else []

    async def _gone(self, thread: Thread, commands: list[int]) -> str:
        """Wait for the end of a command's processes and say how that went."""
        if not commands:
            return "its command cannot be seen from here"
        left = await _poll(thread, lambda pids: not pids, GONE_S)
        if left:
            raise _Failed(f"the command outlives the interrupt: processes {left}")
        return f"its command (process {commands[0]}) is gone"

    async def interrupt(self) -> str:
        async with self._open() as connection:
            thread = await connection.start_thread(**self._options)
            running = thread.run(self._slow)
            async with running:
                commands = await self._command_of(running)
                await running.interrupt()
            await _expect_interrupted(running)
            return f"the turn was interrupted; {await self._gone(thread, commands)}"

    async def preempt(self) -> str:
        async with self._open() as connection:
            thread = await connection.start_thread(**self._options)
            running = thread.run(self._slow)
            async with running:
                commands = await self._command_of(running)
                try:
                    await thread.run(self._quick)
                except TurnInProgress:
                    pass
                else:
                    raise _Failed("a second turn was let in beside the first one")
                await running.interrupt()
            result = await thread.run(self._quick)
            await _expect_interrupted(running)
            if result.turn_id == running.id or not result.final_message:
                raise _Failed("the second prompt got no answer of its own")
            ended = await self._gone(thread, commands)
            return f"a second prompt took the place of the first: {result.final_message!r}; {ended}"


async def _poll(thread: Thread, enough: Callable[[list[int]], bool], limit_s: float) -> list[int]:
    """Look at the processes of a thread's commands until it is enough."""
    deadline = asyncio.get_running_loop().time() + limit_s
    while True:
        pids = await asyncio.to_thread(thread_processes, thread.id)
        if enough(pids) or asyncio.get_running_loop().time() >= deadline:
            return pids
        await asyncio.sleep(POLL_S)


async def _expect_interrupted(running: Turn) -> None:
    try:
        await running
    except TurnInterrupted:
        return
    raise _Failed("the turn completed although it was interrupted")


@asynccontextmanager
async def scripted_codex(
    codex: str | os.PathLike[str] | None = None, config: Mapping[str, Any] | None = None
) -> AsyncIterator[Open]:
    """Yield what opens connections to a real Codex whose model is scripted: no login, no network.

    Args:
        codex: The binary; looked for by default.
        config: Overrides of its configuration.

    Raises:
        HomeError: There is no place for a CODEX_HOME.
    """
    async with ScriptedModel() as model:
        home = private_home(os.environ, seed=False)
        try:
            write_config(home, provider_config(model.base_url, model=MODEL))

            @asynccontextmanager
            async def connect() -> AsyncIterator[Connection]:
                async with await Codex.start(
                    codex, codex_home=home, config=config or {}, env={"NO_PROXY": "127.0.0.1"}
                ) as running:
                    yield running.connection

            yield connect
        finally:
            shutil.rmtree(home, ignore_errors=True)


def dry_connection() -> Open:
    """Return what opens connections to a server in memory that passes all steps: no Codex."""

    def answer(message: dict[str, Any]) -> Any:
        if message["params"]["input"][0]["text"] == QUICK_PROMPT:
            return agent_turn("ok")(message)
        command = {"type": "commandExecution", "command": "sleep 20", "status": "inProgress"}
        return agent_turn(command, WaitFor("turn/interrupt"))(message)

    @asynccontextmanager
    async def connect() -> AsyncIterator[Connection]:
        transport = ScriptedTransport().on_call("turn/start", answer)
        async with await Connection.open(transport, ClientInfo("smoke", "1")) as connection:
            yield connection

    return connect
