"""A scripted model behind OpenAI's Responses API, on loopback: no account, no network, no key.

It speaks as much HTTP/1.1 as Codex needs: ``POST .../responses`` answered by server-sent events,
``GET .../models`` by an empty list. Invariant: a request never harms another one; a broken client
costs its own connection. Event shapes are those that the real binary accepts. ``script`` decides
what is said, ``events`` writes it, this module carries it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from symphony.demo.conversation import Conversation, read_conversation
from symphony.demo.events import broken_stream, failed_stream, reply_stream
from symphony.demo.script import Answer, DroppedStream, Fail, FailedResponse, Script

MAX_HEAD = 64 * 1024
MAX_BODY = 128 * 1024 * 1024
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 413: "Content Too Large"}


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One request to the model and how it was answered.

    Attributes:
        number: Counts from 1 over the life of the server.
        issue: As the script found it, or None.
        conversation: Where the thread stood.
        place: Which answer of the turn was given, counted from 0.
        answer: What was given.
        body: The request as received.
    """

    number: int
    issue: str | None
    conversation: Conversation
    place: int
    answer: Answer
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Http:
    method: str
    path: str
    keep_alive: bool
    body: bytes


class _BadRequest(Exception):
    """The client's bytes are no request that we take; the connection ends after the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ModelServer:
    """Serves a script until it is closed.

    Args:
        script: What the model does.
        keep: How many of the last requests ``requests`` holds.
    """

    def __init__(self, script: Script, *, keep: int = 200) -> None:
        self.requests: deque[ModelRequest] = deque(maxlen=keep)
        self._script = script
        self._failures: Counter[tuple[object, ...]] = Counter()
        self._count = 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def count(self) -> int:
        """How many times the model was asked."""
        return self._count

    async def start(self, *, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen, and return the base URL for a ``model_providers`` entry of Codex.

        Raises:
            OSError: The address cannot be used.
        """
        self._server = await asyncio.start_server(
            self._connected, host, port, limit=MAX_HEAD, backlog=256
        )
        port = self._server.sockets[0].getsockname()[1]
        return f"http://{host}:{port}/v1"

    async def aclose(self) -> None:
        """Stop listening and break off what is open; closing twice does no harm."""
        self._closed = True
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    async def __aenter__(self) -> ModelServer:
        """Enter a block that closes the server at its end; ``start`` is called by the user."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        await self.aclose()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection; asyncio owns the task, ``aclose`` ends it."""
        task = asyncio.current_task()
        assert task is not None, "asyncio runs a connection in a task"
        self._connections.add(task)
        try:
            # A connection that was accepted just before the end is not known to aclose.
            while not self._closed and await self._serve_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client is gone, as a killed agent is
        except asyncio.CancelledError:
            # From aclose. Python 3.11 logs a cancelled connection task as an error, so end quietly.
            writer.transport.abort()
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; tell whether the connection may carry another one."""
        try:
            request = await _read_request(reader)
        except _BadRequest as error:
            _write_json(writer, error.status, {"error": {"message": str(error)}}, close=True)
            await writer.drain()
            return False
        if request is None:
            return False
        route = request.path.partition("?")[0].rstrip("/").rpartition("/")[2]
        if request.method == "POST" and route == "responses":
            return await self._respond(request, writer)
        if request.method == "GET" and route == "models":
            _write_json(writer, 200, {"data": [], "models": []}, close=not request.keep_alive)
        else:
            body = {"error": {"message": f"no {request.method} {request.path} here"}}
            _write_json(writer, 404, body, close=not request.keep_alive)
        await writer.drain()
        return request.keep_alive

    async def _respond(self, request: _Http, writer: asyncio.StreamWriter) -> bool:
        body = _decode(request.body)
        if body is None:
            message = {"error": {"message": "the body is no JSON object"}}
            _write_json(writer, 400, message, close=not request.keep_alive)
            await writer.drain()
            return request.keep_alive
        asked = self._choose(body)
        limits = self._script.rate_limits(asked.number)
        headers = limits.headers() if limits else {}
        if self._script.pause_s:
            await asyncio.sleep(self._script.pause_s)
        if isinstance(asked.answer, Fail):
            _write_failure(writer, asked.answer, headers, close=not request.keep_alive)
            await writer.drain()
            return request.keep_alive
        await self._stream(asked, headers, writer)
        return False

    def _choose(self, body: Mapping[str, Any]) -> ModelRequest:
        conversation = read_conversation(body)
        issue = self._script.issue_in(conversation)
        at = (issue, conversation.attempt, conversation.finished_turns)
        place, answer = self._script.answer(
            conversation, lambda place: self._failures[(*at, place)]
        )
        if isinstance(answer, Fail | FailedResponse | DroppedStream):
            self._failures[(*at, place)] += 1
        self._count += 1
        asked = ModelRequest(self._count, issue, conversation, place, answer, body)
        self.requests.append(asked)
        return asked

    async def _stream(
        self, asked: ModelRequest, headers: Mapping[str, str], writer: asyncio.StreamWriter
    ) -> None:
        """Send server-sent events; the end of the connection ends the stream."""
        answer, name = asked.answer, f"resp_{asked.number}"
        if isinstance(answer, DroppedStream):
            events = broken_stream(name, answer)
        elif isinstance(answer, FailedResponse):
            events = failed_stream(name, answer)
        else:
            assert not isinstance(answer, Fail), "answered without a stream"
            if answer.gate is not None:
                await answer.gate(asked.conversation)
            events = reply_stream(name, answer, asked.conversation)
        fields = {"content-type": "text/event-stream", "connection": "close", **headers}
        writer.write(_head(200, fields))
        for event in events:
            kind = event["type"]
            writer.write(f"event: {kind}\ndata: {json.dumps(event)}\n\n".encode())
            await writer.drain()
        if isinstance(answer, DroppedStream):
            writer.transport.abort()


def _decode(body: bytes) -> Mapping[str, Any] | None:
    with contextlib.suppress(ValueError):
        value = json.loads(body)
        if isinstance(value, dict):
            return value
    return None


async def _read_request(reader: asyncio.StreamReader) -> _Http | None:
    """Read one request; None where the client closed before it."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    except asyncio.LimitOverrunError as error:
        raise _BadRequest(400, "the header is too long") from error
    first, *lines = head.decode("latin-1").split("\r\n")
    try:
        method, path, version = first.split(" ")
    except ValueError as error:
        raise _BadRequest(400, "this is no HTTP request") from error
    pairs = (line.partition(":") for line in lines if line)
    fields = {name.strip().lower(): value.strip() for name, _, value in pairs}
    close = fields.get("connection", "").lower() == "close" or version == "HTTP/1.0"
    if fields.get("transfer-encoding", "").lower() == "chunked":
        body = await _read_chunks(reader)
    else:
        body = await reader.readexactly(_length(fields.get("content-length", "0"), 10))
    return _Http(method, path, not close, body)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    parts, total = [], 0
    while True:
        line = await reader.readuntil(b"\r\n")
        size = _length(line.partition(b";")[0].decode("latin-1").strip(), 16)
        total += size
        if total > MAX_BODY:
            raise _BadRequest(413, "the body is too long")
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
        if size == 0:
            return b"".join(parts)


def _length(text: str, base: int) -> int:
    try:
        size = int(text, base)
    except ValueError:
        size = -1
    if size < 0:
        raise _BadRequest(400, f"{text!r} is no length")
    if size > MAX_BODY:
        raise _BadRequest(413, "the body is too long")
    return size


def _head(status: int, fields: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _write_json(
    writer: asyncio.StreamWriter,
    status: int,
    value: Mapping[str, Any],
    *,
    close: bool,
    headers: Mapping[str, str] | None = None,
) -> None:
    body = json.dumps(value).encode()
    fields = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close" if close else "keep-alive",
        **(headers or {}),
    }
    writer.write(_head(status, fields) + body)


def _write_failure(
    writer: asyncio.StreamWriter, fail: Fail, headers: Mapping[str, str], *, close: bool
) -> None:
    error = {"message": fail.message, "type": fail.code, "code": fail.code}
    if fail.retry_after_s is not None:
        headers = {**headers, "retry-after": str(fail.retry_after_s)}
    _write_json(writer, fail.status, {"error": error}, close=close, headers=headers)
