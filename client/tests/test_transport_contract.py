"""One suite over every transport: a server behind pipes, processes, sockets and recordings."""

from __future__ import annotations

import asyncio
import os
import runpy
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from codex_app_server import (
    ClientInfo,
    Connection,
    ConnectionClosed,
    FdTransport,
    SubprocessTransport,
    Transport,
    TurnInterrupted,
    WebSocketTransport,
)
from codex_app_server.testing import RecordingTransport, ReplayTransport, read_recording

from symphony.demo.script import Exec, Say, turn

SERVER = Path(__file__).parent / "data/scripted_server.py"
server_code = runpy.run_path(str(SERVER))
scripted, bridge = server_code["scripted"], server_code["bridge"]
FAKES = ["scripted", "replay", "recording", "fd", "subprocess", "ws", "unix", "wss"]
REAL = ["codex stdio", "codex ws", "codex unix", "codex wss"]
WHEEL = ["wheel stdio", "wheel ws", "wheel unix", "wheel wss"]
QUICK, SLOW = "Issue: A", "Issue: B\nand wait"


class Peer:
    """A transport to a server, and how to end the server without a word."""

    def __init__(self, transport: Transport, die: Callable[[], Any]) -> None:
        self.transport = transport
        self.die = die


async def _fd(stack: AsyncExitStack) -> Peer:
    (read, their_write), (their_read, write) = os.pipe(), os.pipe()
    theirs = await FdTransport.open(read_fd=their_read, write_fd=their_write)
    serving = asyncio.create_task(bridge(scripted(), theirs))
    stack.callback(serving.cancel)
    return Peer(await FdTransport.open(read_fd=read, write_fd=write), serving.cancel)


async def _subprocess(stack: AsyncExitStack) -> Peer:
    transport = await SubprocessTransport.spawn([sys.executable, str(SERVER)])
    return Peer(transport, lambda: transport.send_signal(signal.SIGKILL))


async def _recording(stack: AsyncExitStack, folder: Path) -> Peer:
    inner = scripted()
    return Peer(RecordingTransport(inner, folder / "session.jsonl"), inner.aclose)


async def _replay(stack: AsyncExitStack, folder: Path) -> Peer:
    path = folder / "recorded.jsonl"
    connection = await Connection.open(RecordingTransport(scripted(), path), ClientInfo("a", "1"))
    thread = await connection.start_thread()
    await thread.run(QUICK)
    waiting = (await connection.start_thread()).run(SLOW)
    await waiting.start()
    await waiting.interrupt()
    await connection.aclose()
    transport = ReplayTransport(read_recording(path))
    return Peer(transport, transport.aclose)


Behind = Callable[[str], Awaitable[tuple[str, dict[str, Any]]]]


@pytest.fixture
async def behind_tls(request: pytest.FixtureRequest, front: type[Any]) -> AsyncIterator[Behind]:
    """Returns ``await behind_tls(url)``: the address of a front for it, and how to connect."""
    async with AsyncExitStack() as stack:

        async def start(url: str) -> tuple[str, dict[str, Any]]:
            authority = request.getfixturevalue("authority")
            server = front(urlsplit(url).port, authority.server("IP:127.0.0.1"))
            await stack.enter_async_context(server)
            return f"wss://127.0.0.1:{server.port}", {"ssl": authority.trusted()}

        yield start


async def _websocket(stack: AsyncExitStack, folder: Path, kind: str, behind_tls: Behind) -> Peer:
    server = pytest.importorskip("websockets.asyncio.server", reason="needs extra [websocket]")

    class Pipe:
        def __init__(self, connection: Any) -> None:
            self.connection = connection

        async def receive(self) -> bytes:
            try:
                return await self.connection.recv(decode=False) + b"\n"
            except OSError:
                return b""

        async def send(self, data: bytes) -> None:
            for line in data.splitlines():
                await self.connection.send(line, text=True)

        async def aclose(self) -> None:
            await self.connection.close()

    open_ones: list[Any] = []

    async def serve(connection: Any) -> None:
        open_ones.append(connection)
        await bridge(scripted(), Pipe(connection))

    if kind == "unix":
        path = str(folder / "server.sock")
        listening = await stack.enter_async_context(server.unix_serve(serve, path))
        url = f"unix://{path}"
    else:
        listening = await stack.enter_async_context(server.serve(serve, "127.0.0.1", 0))
        url = f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    options: dict[str, Any] = {}
    if kind == "wss":
        url, options = await behind_tls(url)
    transport = await WebSocketTransport.connect(url, **options)
    return Peer(transport, lambda: [one.transport.abort() for one in open_ones])


async def _real(
    stack: AsyncExitStack, codex: Any, folder: Path, kind: str, behind_tls: Behind
) -> Peer:
    real = await codex(A=turn(Say("Done.")), B=turn(Exec("sleep 300"), Say("never")))
    if kind == "stdio":
        transport = await real.spawn("app-server")
        return Peer(transport, lambda: transport.send_signal(signal.SIGKILL))
    pytest.importorskip("websockets", reason="needs the extra [websocket]")
    url = f"unix://{folder}/codex.sock" if kind == "unix" else await real.free_url()
    server = await real.spawn("app-server", "--listen", url)
    stack.push_async_callback(server.aclose)
    options: dict[str, Any] = {}
    if kind == "wss":
        url, options = await behind_tls(url)
    connected = await WebSocketTransport.connect(url, retry_for_s=20, **options)
    return Peer(connected, lambda: server.send_signal(signal.SIGKILL))


@pytest.fixture(
    params=[
        *FAKES,
        *(pytest.param(kind, marks=pytest.mark.codex) for kind in REAL),
        *(pytest.param(kind, marks=[pytest.mark.codex, pytest.mark.slow]) for kind in WHEEL),
    ],
)
async def peer(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    newest_codex: Any,
    wheel_codex: Any,
    behind_tls: Behind,
) -> AsyncIterator[Peer]:
    kind = str(request.param)
    async with AsyncExitStack() as stack:
        if " " in kind:
            which, _, word = kind.partition(" ")
            codex = newest_codex if which == "codex" else wheel_codex
            made = await _real(stack, codex, tmp_path, word, behind_tls)
        elif kind == "scripted":
            server = scripted()
            made = Peer(server, server.aclose)
        elif kind in ("replay", "recording"):
            made = await {"replay": _replay, "recording": _recording}[kind](stack, tmp_path)
        elif kind in ("fd", "subprocess"):
            made = await {"fd": _fd, "subprocess": _subprocess}[kind](stack)
        else:
            made = await _websocket(stack, tmp_path, kind, behind_tls)
        stack.push_async_callback(made.transport.aclose)
        yield made


FREE = {"approval_policy": "never", "sandbox": "danger-full-access"}


async def test_a_whole_session_passes(peer: Peer, tmp_path: Path) -> None:
    assert isinstance(peer.transport, Transport)
    async with await Connection.open(peer.transport, ClientInfo("test", "1")) as connection:
        thread = await connection.start_thread(cwd=str(tmp_path), **FREE)
        running = thread.run(QUICK)
        methods = [event.method async for event in running]
        assert methods[-1] == "turn/completed"
        assert "item/agentMessage/delta" in methods
        assert (await running).final_message == "Done."
        # A thread of its own: the scripted model goes by the first prompt of a thread.
        other = await connection.start_thread(cwd=str(tmp_path), **FREE)
        waiting = other.run(SLOW)
        await waiting.start()
        await waiting.interrupt()
        with pytest.raises(TurnInterrupted):
            await waiting
        assert connection.malformed_lines == connection.unmatched_replies == 0


async def test_the_end_of_the_server_ends_every_waiter(peer: Peer, tmp_path: Path) -> None:
    async with await Connection.open(peer.transport, ClientInfo("test", "1")) as connection:
        thread = await connection.start_thread(cwd=str(tmp_path), **FREE)
        await thread.run(QUICK)
        other = await connection.start_thread(cwd=str(tmp_path), **FREE)
        waiting = asyncio.create_task(other.run(SLOW).result())
        await asyncio.wait([waiting], timeout=0.05)
        ended = peer.die()
        if ended is not None and hasattr(ended, "__await__"):
            await ended
        with pytest.raises(ConnectionClosed):
            await waiting
        assert isinstance(await connection.closed, ConnectionClosed)
        with pytest.raises(ConnectionClosed):
            await connection.call("thread/list", {})


async def test_closing_wakes_the_reader_and_refuses_what_comes_later(peer: Peer) -> None:
    reading = asyncio.create_task(peer.transport.receive())
    await asyncio.wait([reading], timeout=0.01)
    await peer.transport.aclose()
    await peer.transport.aclose()
    assert await reading == b""
    with pytest.raises(ConnectionClosed):
        await peer.transport.send(b'{"method":"initialized"}\n')
