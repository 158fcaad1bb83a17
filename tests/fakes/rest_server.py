"""A REST provider on a real loopback socket, for tests: the part that all providers share.

A subclass answers ``handle(call)`` with a ``Reply``; this class adds what providers add: ETags and
304, a Date from a clock that tests move, faults for the requests that they hit, a log of the calls.
The server runs in the test's loop: ``async with GitHubServer() as server``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Fault:
    """What one request gets instead of its answer.

    ``edit`` changes the JSON of the true answer; ``body`` and ``status`` replace it; ``abort``
    closes the connection; ``cut`` sends only the first half; ``hold`` keeps it open until the end,
    ``gate`` until it is set.
    """

    edit: Callable[[Any], Any] | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    abort: bool = False
    cut: bool = False
    hold: bool = False
    gate: asyncio.Event | None = None
    only: str = ""
    """Applies to the first request whose label, method and target as a rule, holds this text."""
    before: Callable[[], None] | None = None
    """Called before the answer is made, for changes of the world between two requests."""


@dataclass
class Call:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    status: int = 0

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def segments(self) -> list[str]:
        return [unquote(part) for part in self.path.split("/")[1:]]

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query, keep_blank_values=True, strict_parsing=False)

    def one(self, name: str, default: str = "") -> str:
        return self.query.get(name, [default])[-1]

    def json(self) -> Any:
        return json.loads(self.body) if self.body else None


@dataclass
class Reply:
    status: int
    payload: Any
    headers: dict[str, str] = field(default_factory=dict)


class RestServer:
    """The socket, the clock, the faults and the log."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.faults: deque[Fault] = deque()
        self.now = datetime(2026, 1, 1, 12, tzinfo=UTC)
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._over = asyncio.Event()
        self._gates: set[asyncio.Event] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def handle(self, call: Call) -> Reply:
        raise AssertionError("a provider answers")

    def label(self, call: Call) -> str:
        """What the ``only`` of a fault is looked for in."""
        return f"{call.method} {unquote(call.target)}"

    def check(self, call: Call, reply: Reply) -> None:
        """Check request and answer against the provider's description; a failure is a 599."""

    def count(self, *, modified: bool | None = None) -> int:
        """Requests so far: all, or those that got no 304 (True), or those that did (False)."""
        return sum(modified is None or (c.status != 304) == modified for c in self.calls)

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    async def __aenter__(self) -> Any:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._over.set()
        for gate in self._gates:
            gate.set()
        self._server.close()
        for writer in list(self._writers):
            writer.close()
        await self._server.wait_closed()
        await asyncio.gather(*self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                first, *lines = head.decode("latin-1").split("\r\n")[:-2]
                headers = {k.lower(): v.strip() for k, _, v in (x.partition(":") for x in lines)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                method, target, _ = first.split(" ")
                if not await self._answer(writer, Call(method, target, headers, body)):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self._writers.discard(writer)
            self._tasks.discard(task)

    async def _answer(self, writer: asyncio.StreamWriter, call: Call) -> bool:
        self.calls.append(call)
        label = self.label(call)
        fault = next((f for f in self.faults if f.only in label), None)
        if fault is not None:
            self.faults.remove(fault)
            if fault.before is not None:
                fault.before()
            if fault.abort:
                writer.transport.abort()
                return False
            if fault.hold:
                await self._over.wait()
                return False
            if fault.gate is not None:
                self._gates.add(fault.gate)
                await fault.gate.wait()
        writer.write(self._bytes(call, self._faulty(call, fault), fault))
        await writer.drain()
        return not (fault is not None and fault.cut)

    def _faulty(self, call: Call, fault: Fault | None) -> Reply:
        reply = self.handle(call)
        if fault is None or fault.before is not None:
            self.check(call, reply)
            return reply
        if fault.edit is not None:
            reply.payload = fault.edit(reply.payload)
        reply.status = fault.status or reply.status
        reply.headers |= fault.headers
        return reply

    def _bytes(self, call: Call, reply: Reply, fault: Fault | None) -> bytes:
        body = b"" if reply.status == 204 else json.dumps(reply.payload).encode()
        if fault is not None and fault.body is not None:
            body = fault.body
        headers = {"Date": format_datetime(self.now, usegmt=True), **reply.headers}
        if call.method == "GET" and reply.status == 200:
            digest = hashlib.sha1(body + str(reply.headers).encode()).hexdigest()
            headers["ETag"] = f'W/"{digest}"'
            if call.headers.get("if-none-match") == headers["ETag"]:
                reply.status, body = 304, b""
        call.status = reply.status
        head = [f"HTTP/1.1 {reply.status} Fake", "Content-Type: application/json"]
        if reply.status != 304:
            head.append(f"Content-Length: {len(body)}")
        head += [f"{name}: {value}" for name, value in headers.items()]
        if fault is not None and fault.cut:
            body = body[: len(body) // 2]
        return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def moment(when: datetime) -> str:
    """RFC 3339 to the second, as GitHub writes it."""
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")
