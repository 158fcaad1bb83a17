"""One turn of ``codex exec`` in a process of its own: its events, its limits, its end.

Invariants: the prompt goes through stdin, which then ends; when a run is done its process and all
that it started are gone, whoever gave it up.

Made by `codex_app_server.exec`; `codex_app_server.exec_command` has its command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
import uuid
from collections.abc import AsyncGenerator, Generator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec

from codex_app_server.cleanup import sweep
from codex_app_server.errors import (
    CodexError,
    ConnectionClosed,
    ExecFailed,
    TurnFailed,
    TurnInterrupted,
    TurnTimeout,
)
from codex_app_server.events import Event
from codex_app_server.exec_command import (
    ExecOrder,
    schema_file,
)
from codex_app_server.exec_usage import recorded_total
from codex_app_server.launch_plan import LaunchPlan
from codex_app_server.process import SubprocessTransport
from codex_app_server.protocol.exec_events import ExecTranslator
from codex_app_server.protocol.framing import LineSplitter, Oversized
from codex_app_server.protocol.mending import DECODE_ERRORS, decode_mended
from codex_app_server.protocol.rpc import Rpc, Run, encode_message
from codex_app_server.protocol.turn import TokenUsage, TurnMachine
from codex_app_server.sink import Sink
from codex_app_server.turns import TurnResult, TurnTimeouts

if TYPE_CHECKING:
    from codex_app_server.exec import ExecClient

__all__ = ["ExecRun"]

EXIT_S = 5.0
SIGNAL_S = 2.0
STDERR_IN_ERROR = 1000
_HINTS = (
    ("--skip-git-repo-check", "cwd is no git repository: pass skip_git_repo_check=True"),
    ("no rollout found", "there is no such thread in this CODEX_HOME"),
    ("active writer", "another process has this thread open: end it first"),
)


class ExecRun:
    """One turn in a process of its own. Made by `ExecClient.run`.

    Iterate it for its events, await it for its `TurnResult`, or both, as a `Turn`.
    ``async with run:`` ends the process if the block is left before its end.

    Attributes:
        id: Of the turn, given here; exec knows none.
        timeouts: Its limits.
        warnings: What was translated in values that the caller gave, and what the result lacks.
    """

    def __init__(
        self,
        client: ExecClient,
        order: ExecOrder,
        *,
        timeouts: TurnTimeouts,
        warnings: list[str],
        sink: Sink,
        keep_items: bool,
    ) -> None:
        self.id = f"exec-{uuid.uuid4()}"
        self.timeouts = timeouts
        self.warnings = warnings
        self._client = client
        self._order = order
        self._loop = asyncio.get_running_loop()
        self._sink = sink
        self._translator = ExecTranslator(self.id)
        self._machine = TurnMachine("", keep_items=keep_items)
        self._rpc = Rpc()
        self._iterating = False
        self._discard = False
        self._changed = asyncio.Event()
        self._caught_up = asyncio.Event()
        self._transport: SubprocessTransport | None = None
        self._plan: LaunchPlan | None = None
        self._began = 0.0
        self._task: asyncio.Task[None] | None = None
        self._stopping: Literal["", "interrupt", "total", "idle", "first_event"] = ""
        self._error: CodexError | None = None
        self._started_at = self._last_at = 0.0
        self._heard = False

    # -- facts ---------------------------------------------------------------------------------

    @property
    def thread_id(self) -> str | None:
        """The thread, to be resumed later; None until Codex has told it."""
        return self._translator.thread_id

    @property
    def done(self) -> bool:
        """Whether it has ended, in whatever way, and its process is gone."""
        return self._task is not None and self._task.done()

    @property
    def usage(self) -> TokenUsage:
        """Tokens that the turn added to its thread; zeros until its end."""
        return self._machine.usage

    # -- what a caller does --------------------------------------------------------------------

    async def start(self) -> Self:
        """Start the process; does nothing when started already."""
        if self._task is None:
            self._task = self._loop.create_task(self._live(), name="codex-exec")
        return self

    async def interrupt(self) -> None:
        """End the process and all that it started; returns when they are gone."""
        if self._task is None or self._task.done():
            return
        self._stop("interrupt")
        await asyncio.wait([self._task])

    def __await__(self) -> Generator[Any, None, TurnResult]:
        return self.result().__await__()

    async def result(self) -> TurnResult:
        """Start the process if need be, wait for its end and return the turn's result.

        Cancelling the wait ends the process and all that it started.

        Raises:
            TurnFailed: The turn failed; exec tells the cause in words, which `TurnFailed.code`
                is read from where they are known.
            TurnInterrupted: It was interrupted.
            TurnTimeout: A limit of `TurnTimeouts` ran out.
            ExecFailed: The process ended without a turn's end: wrong arguments, no git repository,
                no such thread, killed.
            BinaryNotFound: There is no binary.
        """
        if not self._iterating:
            self._discard = True
            self._sink.clear()
        await self.start()
        assert self._task is not None
        await self._until(self._task)
        return self._result()

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        """Start the process if need be and yield its events up to its end."""
        if self._iterating:
            raise RuntimeError("this run is iterated already")
        self._iterating, self._discard = True, False
        try:
            await self.start()
            assert self._task is not None
            while True:
                while self._sink.events:
                    yield self._sink.pop()
                self._caught_up.set()
                if self._task.done():
                    break
                self._changed.clear()
                waiting = self._loop.create_task(self._changed.wait(), name="codex-exec-events")
                try:
                    await self._until(self._task, waiting)
                finally:
                    waiting.cancel()
        finally:
            self._iterating = False
            self._caught_up.set()
        if self._error is not None:
            raise self._error

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.interrupt()

    # -- the inside ----------------------------------------------------------------------------

    async def _until(self, *tasks: asyncio.Task[Any]) -> None:
        """Wait until one of the tasks is done; cancelled, end the process first."""
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self.interrupt()
            raise

    def _stop(self, why: Literal["interrupt", "total", "idle", "first_event"]) -> None:
        if not self._stopping:
            self._stopping = why
            self._caught_up.set()
            if self._transport is not None:
                self._transport.send_signal(signal.SIGINT)
                self._loop.call_later(SIGNAL_S, self._transport.send_signal, signal.SIGKILL)

    async def _live(self) -> None:
        """The whole life of the process; never raises but for a fault of ours."""
        try:
            with schema_file(self._order.schema) as schema_path:
                self._plan = plan = self._client.plan(self._order.command(schema_path))
                await self._learn_baseline(plan)
                self._transport = await plan.spawn()
                try:
                    await self._converse(self._transport)
                finally:
                    await self._clean_up(self._transport, plan)
                self._finish(self._transport, plan)
        except CodexError as error:
            self._error = error
        finally:
            self._changed.set()

    async def _learn_baseline(self, plan: LaunchPlan) -> None:
        resume = self._order.resume
        if resume is None:
            self._translator.baseline = TokenUsage()
        else:
            self._began = time.time()
            await self._look_up(resume, plan)

    async def _look_up(self, thread_id: str, plan: LaunchPlan, before: float | None = None) -> None:
        known = self._client.usage_totals.get(thread_id)
        if known is None:
            known = await asyncio.to_thread(recorded_total, plan.env, thread_id, before)
        self._translator.baseline = known

    async def _thread_known(self, thread_id: str) -> None:
        """The thread of ``last`` or of a name has got its id: find its total of before."""
        if self._translator.baseline is None and self._plan is not None:
            await self._look_up(thread_id, self._plan, self._began)
            if self._translator.baseline is None:
                self.warnings.append(
                    "usage: what the thread used before is not known, so it counts"
                )

    async def _converse(self, transport: SubprocessTransport) -> None:
        feeding = self._loop.create_task(self._feed(transport), name="codex-exec-input")
        self._started_at = self._last_at = self._loop.time()
        splitter = LineSplitter()
        try:
            if self._stopping:
                transport.send_signal(signal.SIGINT)
            while chunk := await self._receive(transport):
                await self._take(splitter.feed(chunk))
            await self._take(splitter.finish())
            await transport.exit_status(EXIT_S)
        finally:
            feeding.cancel()
            await asyncio.wait([feeding])

    async def _feed(self, transport: SubprocessTransport) -> None:
        with contextlib.suppress(ConnectionClosed):
            # A process that ends before it has read all says why on stderr.
            await transport.send(self._order.stdin)
            await transport.close_input()

    async def _receive(self, transport: SubprocessTransport) -> bytes:
        """Return the next bytes; empty at the end and when a limit runs out."""
        while True:
            due, kind = self._due()
            try:
                async with asyncio.timeout_at(due):
                    while self._iterating and self._sink.wants_pause and not self._stopping:
                        self._caught_up.clear()
                        await self._caught_up.wait()
                        self._last_at = self._loop.time()
                    return await transport.receive()
            except TimeoutError:
                if self._translator.ended or self._stopping:
                    return b""
                assert kind is not None
                self._stop(kind)

    def _due(self) -> tuple[float | None, Literal["total", "idle", "first_event"] | None]:
        if self._translator.ended or self._stopping:
            return self._loop.time() + EXIT_S, None
        limits = self.timeouts
        found: list[tuple[float, Literal["total", "idle", "first_event"]]] = []
        if limits.total_s:
            found.append((self._started_at + limits.total_s, "total"))
        if limits.idle_s and not self._sink.wants_pause:
            found.append((self._last_at + limits.idle_s, "idle"))
        if limits.first_event_s and not self._heard:
            found.append((self._started_at + limits.first_event_s, "first_event"))
        return min(found) if found else (None, None)

    async def _take(self, lines: Sequence[bytes | Oversized]) -> None:
        for line in lines:
            message = _message(line)
            if message is None:
                self._deliver(line if isinstance(line, bytes) else line.head)
                continue
            self._last_at, self._heard = self._loop.time(), True
            for one in self._translator.translate(message):
                self._deliver(encode_message(one))
            if message.get("type") == "thread.started" and self.thread_id is not None:
                await self._thread_known(self.thread_id)

    def _deliver(self, line: bytes) -> None:
        thread_id = self._translator.thread_id
        if thread_id is not None:
            self._machine.thread_id = thread_id
        if self._machine.turn_id is None:
            # Before the thread is told of, if it ever is: a turn may fail before that.
            self._machine.bind(self.id)
        for run in self._rpc.receive(line.removesuffix(b"\n") + b"\n", self._loop.time()):
            if isinstance(run, Run):
                self._machine.feed(run.events)
                if not self._discard:
                    self._sink.push(run.events, may_block=self._iterating)
        self._changed.set()

    async def _clean_up(self, transport: SubprocessTransport, plan: LaunchPlan) -> None:
        await transport.aclose(0.5)
        threads = [self.thread_id] if self.thread_id is not None else []
        await asyncio.to_thread(sweep, plan.run, threads)
        plan.remove_home()

    def _finish(self, transport: SubprocessTransport, plan: LaunchPlan) -> None:
        translator = self._translator
        if translator.total is not None and translator.thread_id is not None:
            self._client.usage_totals[translator.thread_id] = translator.total
        if translator.ended:
            return
        if self._stopping:
            for one in translator.interrupted():
                self._deliver(encode_message(one))
            if self._stopping != "interrupt":
                self._error = self._expired(self._stopping)
            return
        stderr = plan.stderr(transport)
        said = stderr.strip()[-STDERR_IN_ERROR:]
        hint = next((hint for words, hint in _HINTS if words in said), None)
        status = transport.returncode
        text = f"codex exec ended with status {status} and no result"
        text += f": {hint}" if hint else ""
        raise ExecFailed(text + (f" ({said})" if said else ""), returncode=status, stderr=stderr)

    def _expired(self, kind: Literal["total", "idle", "first_event"]) -> TurnTimeout:
        limit_s = getattr(self.timeouts, f"{kind}_s")
        return TurnTimeout(kind, limit_s, thread_id=self.thread_id or "", turn_id=self.id)

    def _result(self) -> TurnResult:
        assert self._task is not None
        self._task.result()
        if self._error is not None:
            raise self._error
        outcome, thread_id = self._machine.outcome, self.thread_id or ""
        if outcome is None or outcome.status == "interrupted":
            raise TurnInterrupted(thread_id=thread_id, turn_id=self.id)
        if outcome.failure is not None:
            raise TurnFailed(
                outcome.failure.message,
                thread_id=thread_id,
                turn_id=self.id,
                code=outcome.failure.code,
                http_status=outcome.failure.http_status,
            )
        return TurnResult(
            thread_id=thread_id,
            turn_id=self.id,
            status="completed",
            final_message=self._machine.final_message,
            item_events=tuple(self._machine.items),
            usage=self._machine.usage,
            diff=None,
            duration_s=None,
        )


def _message(line: bytes | Oversized) -> dict[str, Any] | None:
    """Return a line's message, or None where it is none."""
    if isinstance(line, Oversized):
        return None
    try:
        message = decode_mended(msgspec.json.decode, line)
    except DECODE_ERRORS:
        return None
    return message if isinstance(message, dict) else None
