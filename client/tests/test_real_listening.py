"""A real server that listens: the address it has by itself, pings, and turns that outlive clients.

0.163.0 and 0.169.0 serve all of this alike. 0.125.0 serves ``ws://`` too; behind ``unix://`` it has
a bare socket that speaks no WebSocket.
"""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from codex_app_server import (
    ClientInfo,
    Connection,
    ConnectionClosed,
    Turn,
    TurnInProgress,
    TurnInterrupted,
    WebSocketTransport,
)
from codex_app_server.websocket import default_socket_path

from symphony.demo.script import Exec, Say, turn

pytest.importorskip("websockets", reason="needs the extra [websocket]")
pytestmark = pytest.mark.codex
OLD = "0.125.0"
INFO = ClientInfo("test", "1")
FREE: dict[str, Any] = {"approval_policy": "never", "sandbox": "danger-full-access"}


async def _listen(real: Any) -> str:
    url = await real.free_url()
    await real.spawn("app-server", "--listen", url)
    return str(url)


async def _until_a_command_runs(running: Turn) -> None:
    async for event in running:
        if event.method == "item/started" and event.data["item"]["type"] == "commandExecution":
            return


async def test_the_address_without_a_path_is_where_the_server_listens_by_itself(
    codex, codex_binary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "0.125.0" in str(codex_binary):
        pytest.skip("0.125 has no WebSocket over a unix socket")
    real = await codex(A=turn(Say("ok")))
    await real.spawn("app-server", "--listen", "unix://")
    monkeypatch.setenv("CODEX_HOME", str(real.home))
    transport = await WebSocketTransport.connect("unix://", retry_for_s=20)
    assert transport.url == f"unix://{default_socket_path({'CODEX_HOME': str(real.home)})}"
    async with await Connection.open(transport, INFO) as connection:
        thread = await connection.start_thread(cwd=str(real.workspace), **FREE)
        assert (await thread.run("Issue: A")).final_message == "ok"


async def test_a_server_answers_pings_while_a_turn_says_nothing(codex) -> None:
    real = await codex(A=turn(Exec("sleep 1.5"), Say("ok")))
    url = await _listen(real)
    transport = await WebSocketTransport.connect(url, retry_for_s=20, keepalive_s=0.3)
    async with await Connection.open(transport, INFO) as connection:
        thread = await connection.start_thread(cwd=str(real.workspace), **FREE)
        assert (await thread.run("Issue: A")).final_message == "ok"


async def test_a_server_that_answers_no_ping_is_given_up(codex) -> None:
    real = await codex(A=turn(Exec("sleep 60.75"), Say("ok")))
    url = await _listen(real)
    transport = await WebSocketTransport.connect(url, retry_for_s=20, keepalive_s=0.3)
    async with await Connection.open(transport, INFO) as connection:
        thread = await connection.start_thread(cwd=str(real.workspace), **FREE)
        running = thread.run("Issue: A")
        await _until_a_command_runs(running)
        frozen = real.transports[-1]
        frozen.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(ConnectionClosed, match="ping"):
                await running
        finally:
            frozen.send_signal(signal.SIGCONT)
    async with await Connection.open(await WebSocketTransport.connect(url), INFO) as again:
        attached = await (await again.resume_thread(thread.id)).attach_turn()
        assert attached is not None
        await attached.interrupt()


async def test_a_turn_that_outlives_its_connection_is_attached_to_and_awaited(codex) -> None:
    real = await codex(A=turn(Exec("cat pipe"), Say("ok")))
    os.mkfifo(real.workspace / "pipe")
    url = await _listen(real)
    first = await Connection.open(await WebSocketTransport.connect(url, retry_for_s=20), INFO)
    thread = await first.start_thread(cwd=str(real.workspace), **FREE)
    running = thread.run("Issue: A")
    await _until_a_command_runs(running)
    await first.aclose()
    with pytest.raises(ConnectionClosed):
        await running
    async with await Connection.open(await WebSocketTransport.connect(url), INFO) as again:
        resumed = await again.resume_thread(thread.id)
        attached = await resumed.attach_turn()
        assert attached is not None
        assert (attached.id, attached.is_attached) == (running.id, True)
        assert await resumed.attach_turn() is attached
        with pytest.raises(TurnInProgress):
            await resumed.run("Go on")
        await asyncio.to_thread((real.workspace / "pipe").write_text, "go")
        result = await attached
        assert result.final_message == "ok"
        kinds = {event.data["item"]["type"] for event in result.item_events}
        assert "agentMessage" in kinds
        # 0.125 does not always tell the end of a command to a client that came later.
        assert "commandExecution" in kinds or again.server.version == OLD
        assert await resumed.attach_turn() is None
        assert (await resumed.run("Go on")).status == "completed"


async def test_an_attached_turn_is_interrupted_with_its_command(
    codex, commands_with, eventually
) -> None:
    real = await codex(A=turn(Exec("sleep 77.25"), Say("ok")))
    url = await _listen(real)
    first = await Connection.open(await WebSocketTransport.connect(url, retry_for_s=20), INFO)
    thread = await first.start_thread(cwd=str(real.workspace), **FREE)
    await thread.run("Issue: A").start()
    await eventually(lambda: commands_with("sleep\x0077.25"))
    await first.aclose()
    async with await Connection.open(await WebSocketTransport.connect(url), INFO) as again:
        attached = await (await again.resume_thread(thread.id)).attach_turn()
        assert attached is not None
        await attached.interrupt()
        with pytest.raises(TurnInterrupted):
            await attached
        await eventually(lambda: not commands_with("sleep\x0077.25"))
