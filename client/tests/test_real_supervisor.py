"""Threads that outlive a real app-server which is killed, in both modes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from codex_app_server import (
    ClientInfo,
    Codex,
    Connection,
    ConnectionClosed,
    ServerRequestHandlers,
    ServerRequestInfo,
    SubprocessTransport,
    Supervisor,
    SupervisorEvent,
    WebSocketTransport,
)
from codex_app_server.home import prepare_home, provider_config, write_config

from symphony.demo.model_server import ModelServer
from symphony.demo.script import Exec, IssueScript, Say, Script, turn

pytestmark = pytest.mark.codex
FREE: dict[str, Any] = {"approval_policy": "never", "sandbox": "danger-full-access"}


@pytest.mark.parametrize("mode", ["shared", pytest.param("per_thread", marks=pytest.mark.slow)])
async def test_threads_go_on_after_a_kill(
    codex_binary: Path,
    cache_dir: Path,
    commands_with: Callable[[str], list[int]],
    eventually: Any,
    mode: Any,
) -> None:
    seconds = f"65{os.getpid()}"
    script = Script(
        {
            "A": IssueScript((turn(Exec("echo x >> a.txt"), Say("ok")),)),
            "B": IssueScript((turn(Exec(f"setsid sleep {seconds}"), Say("never")),)),
        }
    )
    events: list[SupervisorEvent] = []
    servers: list[Codex] = []
    async with ModelServer(script) as model:
        home = prepare_home(cache_dir / "codex", seed=False)
        write_config(home, provider_config(await model.start(), model="gpt-5.5"))
        workspace = cache_dir / "workspace"
        workspace.mkdir()

        async def start() -> Codex:
            env = {"HOME": str(cache_dir), "PATH": os.environ["PATH"]}
            servers.append(
                await Codex.start(codex_binary, env=env, env_mode="replace", codex_home=home)
            )
            return servers[-1]

        async with Supervisor(start, mode=mode, on_event=events.append) as supervisor:
            one = await supervisor.start_thread(cwd=workspace, **FREE)
            two = await supervisor.start_thread(cwd=workspace, **FREE)
            ids = [one.id, two.id]
            await one.run("Issue: A")
            hanging = await two.turn("Issue: B")
            await eventually(lambda: commands_with(f"sleep\0{seconds}"))
            os.kill(servers[-1].transport.pid, signal.SIGKILL)
            with pytest.raises(ConnectionClosed):
                await hanging
            assert (await one.run("Issue: A")).final_message == "ok"
            await two.live()
            assert [one.id, two.id] == ids
            assert two.interrupted_turn == hanging.id
            assert not commands_with(f"sleep\0{seconds}")
    shared = mode == "shared"
    assert len(servers) == (2 if shared else 3)
    assert [event.kind for event in events].count("restored") == (2 if shared else 1)
    assert all(server.transport.returncode is not None for server in servers)
    assert (workspace / "a.txt").read_text() == "x\n" * 2


async def test_a_server_that_outlives_its_connection_offers_its_approval_again_once(
    codex_binary: Path, cache_dir: Path, eventually: Any
) -> None:
    pytest.importorskip("websockets")
    if "0.125.0" in str(codex_binary):
        pytest.skip("0.125 has no WebSocket over a unix socket")
    script = Script({"A": IssueScript((turn(Exec("echo x > made.txt"), Say("ok")),))})
    asked: list[int | str] = []
    events: list[SupervisorEvent] = []
    transports: list[WebSocketTransport] = []
    attached = asyncio.Event()

    async def decide(request: ServerRequestInfo) -> str:
        asked.append(request.id)
        if len(asked) == 1:
            await asyncio.Event().wait()
        await attached.wait()
        return "accept"

    async with ModelServer(script) as model:
        home = prepare_home(cache_dir / "codex", seed=False)
        write_config(home, provider_config(await model.start(), model="gpt-5.5"))
        env = {"HOME": str(cache_dir), "PATH": os.environ["PATH"], "CODEX_HOME": str(home)}
        address = f"unix://{cache_dir / 's.sock'}"
        server = await SubprocessTransport.spawn(
            [str(codex_binary), "app-server", "--listen", address], cwd=cache_dir, env=env
        )

        async def start() -> Connection:
            transports.append(await WebSocketTransport.connect(address, retry_for_s=10))
            handlers = ServerRequestHandlers(command=decide)
            client = ClientInfo("test", "1")
            return await Connection.open(transports[-1], client, handlers=handlers)

        try:
            async with Supervisor(start, on_event=events.append) as supervisor:
                thread = await supervisor.start_thread(
                    cwd=str(cache_dir), approval_policy="untrusted", sandbox="danger-full-access"
                )
                cut_off = await thread.turn("Issue: A")
                await eventually(lambda: asked)
                await transports[0].aclose()
                with pytest.raises(ConnectionClosed):
                    await cut_off
                await thread.live()
                restored = events[-1]
                assert (restored.turn_id, restored.still_running) == (cut_off.id, True)
                goes_on = await thread.attach_turn()
                assert goes_on is not None
                assert goes_on.id == cut_off.id
                attached.set()
                assert (await goes_on).final_message == "ok"
                assert not thread.thread.is_busy
                assert (cache_dir / "made.txt").read_text() == "x\n"
                assert asked == [asked[0]] * 2
        finally:
            await server.aclose()


@pytest.mark.slow
async def test_fifty_threads_live_in_one_process(codex_binary: Path, cache_dir: Path) -> None:
    script = Script({"A": IssueScript((turn(Exec("pwd > where.txt"), Say("ok")),))})
    async with ModelServer(script) as model:
        home = prepare_home(cache_dir / "codex", seed=False)
        write_config(home, provider_config(await model.start(), model="gpt-5.5"))
        folders = [cache_dir / f"w{n}" for n in range(50)]
        for folder in folders:
            folder.mkdir()
        env = {"HOME": str(cache_dir), "PATH": os.environ["PATH"]}

        async def start() -> Codex:
            # Fifty login shells start at once; a busy machine takes its time.
            return await Codex.start(
                codex_binary,
                env=env,
                env_mode="replace",
                codex_home=home,
                request_timeout_s=120,
            )

        async with Supervisor(start) as supervisor:
            opening = (supervisor.start_thread(cwd=folder, **FREE) for folder in folders)
            threads = await asyncio.gather(*opening)
            await asyncio.gather(*(thread.run("Issue: A") for thread in threads))
    written = [(folder / "where.txt").read_text().strip() for folder in folders]
    assert written == [str(folder) for folder in folders]
