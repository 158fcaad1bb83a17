"""Answers the server's requests beside the reader, each in a task with a deadline.

Invariants: every request is settled exactly once (a reply, an error, or known to be taken back);
a handler that hangs or raises yields the safe reply; handlers never run on the reader; requests
of an interrupted turn are declined and their handlers cancelled, and a person is asked nothing more
once the turn has ended by itself. A request that arrives again under an id that is still open (a
replay) is not handled twice.

`codex_app_server.approvals` knows the shapes, `codex_app_server.tools` runs tools; the
connection owns the broker and gives it a way to send.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

from codex_app_server.approvals import (
    Answer,
    Callback,
    RequestKind,
    RequestOutcome,
    ServerRequestHandlers,
    ServerRequestInfo,
    ServerRequestRecord,
    encode_answer,
    is_persistent,
    kind_of,
    safe_reply,
)
from codex_app_server.errors import CodexError, ConnectionClosed, InvalidArgument
from codex_app_server.protocol.rpc import INTERNAL_ERROR, METHOD_NOT_FOUND, Rpc, ServerRequest
from codex_app_server.tools import Tool, ToolCallContext, call_tool

__all__ = ["Broker", "PendingRequest"]

Send = Callable[[bytes], Awaitable[None]]
FindTool = Callable[[str, str, str | None], Tool | None]


class PendingRequest:
    """A request that waits for a person (policy ``manual``).

    Attributes:
        info: What is asked.
        settled: Answered, or not to be answered any more: taken back, past its limit, or its turn
            has ended. ``on_answered`` of the handlers is told which it was.
    """

    def __init__(self, info: ServerRequestInfo) -> None:
        self.info = info
        self.settled = False
        self._answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def answer(self, answer: Answer) -> None:
        """Settle it with an answer as a callback would return it; the first one counts.

        Raises:
            InvalidArgument: An answer that this kind of request does not know; it stays open.
        """
        encode_answer(self.info, answer)
        if not self._answer.done():
            self._answer.set_result(answer)

    @property
    def is_answered(self) -> bool:
        """Whether an answer was given, though it may not have been sent yet."""
        return self._answer.done()

    async def wait(self) -> Answer:
        """Wait for the answer."""
        return await self._answer


class Broker:
    """The open server requests of one connection.

    Args:
        handlers: Policies.
        send: Writes a line.
        find_tool: ``(thread_id, name, namespace)`` to the tool, or None.
    """

    def __init__(self, handlers: ServerRequestHandlers, send: Send, find_tool: FindTool) -> None:
        self._closed = False
        self.token_refresh: Callback | None = None
        self._handlers = handlers
        self._send = send
        self._find_tool = find_tool
        self._open: dict[int | str, tuple[ServerRequestInfo, asyncio.Task[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._begun: set[int | str] = set()
        self._manual: dict[int | str, PendingRequest] = {}
        self._listeners: set[asyncio.Queue[PendingRequest | None]] = set()
        self._interrupted: set[int | str] = set()
        self._resolved: set[int | str] = set()
        self._outlived: set[int | str] = set()

    @property
    def pending(self) -> list[PendingRequest]:
        """Requests that wait for a person, oldest first."""
        return list(self._manual.values())

    async def manual_requests(self) -> AsyncGenerator[PendingRequest, None]:
        """Yield the requests that wait for a person, and each new one, until the broker closes."""
        queue: asyncio.Queue[PendingRequest | None] = asyncio.Queue()
        for pending in self.pending:
            queue.put_nowait(pending)
        self._listeners.add(queue)
        try:
            while not self._closed and (found := await queue.get()) is not None:
                if not found.settled:
                    yield found
        finally:
            self._listeners.discard(queue)

    def waits(self, thread_id: str) -> bool:
        """Tell whether a thread waits for an answer of ours that is no tool's."""
        return any(
            info.thread_id == thread_id and info.kind is not RequestKind.TOOL_CALL
            for info, _ in self._open.values()
        )

    def accept(self, request: ServerRequest) -> None:
        """Begin to answer a request; returns at once."""
        if request.id in self._open:
            return
        params = request.params if isinstance(request.params, dict) else {}
        item_id = params.get("itemId", params.get("callId"))
        info = ServerRequestInfo(
            id=request.id,
            method=request.method,
            kind=kind_of(request.method, params),
            thread_id=request.thread_id or _text(params.get("conversationId")),
            turn_id=request.turn_id,
            item_id=_text(item_id),
            params=params,
        )
        task = asyncio.get_running_loop().create_task(
            self._settle(info, request.received_at), name=f"codex-request-{request.method}"
        )
        self._open[request.id] = (info, task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _decided(self, request_id: int | str) -> None:
        # Before the answer leaves: the server may use the id again as soon as it has read it.
        self._open.pop(request_id, None)
        self._begun.discard(request_id)
        self._interrupted.discard(request_id)
        self._resolved.discard(request_id)
        self._outlived.discard(request_id)

    def _stop(self, request_id: int | str, task: asyncio.Task[None]) -> None:
        # A task that is cancelled before its first step would never settle anything.
        if request_id in self._begun:
            task.cancel()

    def resolved(self, request_id: int | str) -> None:
        """The server needs no answer any more: cancel the handler, send nothing."""
        entry = self._open.get(request_id)
        if entry is not None:
            self._resolved.add(request_id)
            self._stop(request_id, entry[1])

    def interrupt(self, thread_id: str, turn_id: str | None) -> None:
        """Decline what a turn still asks."""
        for request_id, (info, task) in self._open.items():
            # A thread has one turn at a time; some requests name none.
            if info.thread_id == thread_id and info.turn_id in (None, turn_id):
                self._interrupted.add(request_id)
                self._stop(request_id, task)

    def turn_ended(self, thread_id: str, turn_id: str) -> None:
        """Give up what a turn asks of a person: the server awaits no answer any more.

        Tools and callbacks go on to their own end: they may have begun to do something.
        """
        for request_id, (info, task) in self._open.items():
            if (info.thread_id, info.turn_id) == (thread_id, turn_id):
                self._outlived.add(request_id)
                pending = self._manual.get(request_id)
                if pending is not None and not pending.is_answered:
                    task.cancel()

    async def aclose(self) -> None:
        """Cancel all handlers and wait for their end."""
        self._closed = True
        for queue in self._listeners:
            queue.put_nowait(None)
        current = asyncio.current_task()  # a handler may be the one who closes
        tasks = [task for task in self._tasks if task is not current]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _settle(self, info: ServerRequestInfo, asked_at: float) -> None:
        policy, answer, error = "none", None, None
        warnings: list[str] = []
        outcome = RequestOutcome.ANSWERED
        self._begun.add(info.id)
        try:
            if info.id in self._resolved or info.id in self._interrupted:
                raise asyncio.CancelledError
            policy, answer = await self._decide(info, warnings)
        except asyncio.CancelledError:
            if info.id in self._resolved:
                outcome = RequestOutcome.RESOLVED
            else:
                outcome = RequestOutcome.CANCELLED
                if info.id in self._interrupted | self._outlived:
                    answer = safe_reply(info)
                if info.id in self._outlived:
                    error = "the turn ended before anybody had answered"
        except TimeoutError:
            outcome, error = RequestOutcome.TIMED_OUT, "the handler passed its deadline"
            answer = safe_reply(info)
        except _UnsupportedError:
            outcome, error = RequestOutcome.UNSUPPORTED, f"{info.method} is not supported"
        except Exception as problem:
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"the handler of {info.method} raised", "exception": problem}
            )
            outcome, error = RequestOutcome.FAILED, f"{type(problem).__name__}: {problem}"
            answer = safe_reply(info)
        self._decided(info.id)
        await self._reply(info, outcome, answer, error)
        self._tell(
            ServerRequestRecord(
                request=info,
                outcome=outcome,
                answer=answer,
                policy=policy,
                error=error,
                asked_at=asked_at,
                answered_at=asyncio.get_running_loop().time(),
                warnings=tuple(warnings),
            )
        )

    def _tell(self, record: ServerRequestRecord) -> None:
        if self._handlers.on_answered is None:
            return
        try:
            self._handlers.on_answered(record)
        except Exception as error:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "on_answered of a codex connection raised", "exception": error}
            )

    async def _reply(
        self,
        info: ServerRequestInfo,
        outcome: RequestOutcome,
        answer: Mapping[str, Any] | None,
        error: str | None,
    ) -> None:
        if answer is not None:
            line = self._encode_reply(info, answer)
        elif error is not None:
            code = METHOD_NOT_FOUND if outcome is RequestOutcome.UNSUPPORTED else INTERNAL_ERROR
            line = Rpc.reply_error(info.id, code, error.encode("utf-8", "replace").decode())
        else:
            return
        try:
            await self._send(line)
        except ConnectionClosed:
            return

    @staticmethod
    def _encode_reply(info: ServerRequestInfo, answer: Mapping[str, Any]) -> bytes:
        try:
            return Rpc.reply(info.id, answer)
        except InvalidArgument as problem:
            # An answer that JSON cannot carry: the model may still read why.
            if info.kind is RequestKind.TOOL_CALL:
                text = str(problem).encode("utf-8", "replace").decode()
                items = [{"type": "inputText", "text": f"the tool's output {text}"}]
                return Rpc.reply(info.id, {"success": False, "contentItems": items})
            return Rpc.reply(info.id, safe_reply(info) or {})

    async def _decide(
        self, info: ServerRequestInfo, warnings: list[str]
    ) -> tuple[str, dict[str, Any]]:
        if info.kind is RequestKind.TOOL_CALL:
            return "tool", await self._call_tool(info)
        if info.kind is RequestKind.CURRENT_TIME and info.method not in self._handlers.other:
            return "accept", {"currentTimeAt": int(time.time())}
        policy = self._handlers.policy_for(info)
        if info.kind is RequestKind.TOKEN_REFRESH and self.token_refresh is not None:
            policy = self.token_refresh
        if policy is None:
            raise _UnsupportedError
        if isinstance(policy, str) and policy != "manual":
            return policy, self._checked(info, policy, warnings)
        if isinstance(policy, str):
            return policy, self._checked(info, await self._ask(info), warnings)
        async with asyncio.timeout(self._handlers.timeout_s):
            answer = await policy(info)
        return "callback", self._checked(info, answer, warnings)

    def _checked(
        self, info: ServerRequestInfo, answer: Answer, warnings: list[str]
    ) -> dict[str, Any]:
        result = encode_answer(info, answer, warnings)
        if is_persistent(result) and not self._handlers.allow_persistent:
            raise CodexError("an answer that outlives the session needs allow_persistent=True")
        return result

    async def _ask(self, info: ServerRequestInfo) -> Answer:
        if info.id in self._outlived:
            raise asyncio.CancelledError
        self._manual[info.id] = pending = PendingRequest(info)
        for queue in self._listeners:
            queue.put_nowait(pending)
        try:
            async with asyncio.timeout(self._handlers.manual_timeout_s):
                return await pending.wait()
        finally:
            pending.settled = True
            del self._manual[info.id]

    async def _call_tool(self, info: ServerRequestInfo) -> dict[str, Any]:
        name = _text(info.params.get("tool")) or ""
        context = ToolCallContext(
            thread_id=info.thread_id or "",
            turn_id=info.turn_id or "",
            call_id=_text(info.params.get("callId")) or "",
            tool=name,
            namespace=_text(info.params.get("namespace")),
        )
        tool = self._find_tool(context.thread_id, name, context.namespace)
        limit = tool.timeout_s if tool is not None else None
        async with asyncio.timeout(self._handlers.timeout_s if limit is None else limit):
            output = await call_tool(tool, info.params.get("arguments"), context)
        return output.encode()


class _UnsupportedError(Exception):
    """No policy can answer this request."""


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
