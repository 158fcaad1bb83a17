"""A bare driver of the real app-server: these tests check the demo's parts, not our client."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from codex_app_server.binary import resolve_binary
from codex_app_server.errors import BinaryNotFound
from codex_app_server.home import prepare_home, provider_config, write_config

from symphony.demo.story import MODEL, PROVIDER

CACHE = Path(os.environ.get("SYMPHONY_TEST_CACHE", "~/.cache/symphony-tests")).expanduser()
BINARIES = Path(__file__).parents[3] / ".codex-binaries"
CALL_TIMEOUT_S = 50

ToolHandler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


@pytest.fixture(params=["wheel", "0.169.0", pytest.param("0.125.0", marks=pytest.mark.slow)])
def codex(request: pytest.FixtureRequest) -> Path:
    """One native binary of each version that is at hand."""
    if request.param != "wheel":
        folder = BINARIES / request.param
        if not folder.is_dir():
            pytest.skip(f"codex {request.param} is not in .codex-binaries (make codex)")
        return resolve_binary(folder).path
    try:
        return resolve_binary(environment={"PATH": ""}).path
    except BinaryNotFound as error:
        pytest.skip(str(error))


@pytest.fixture
def cache_folder() -> Iterator[Path]:
    """A folder outside of the temp directory, as CODEX_HOME needs."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=CACHE) as folder:
        yield Path(folder)


class AppServer:
    """A running app-server: JSON lines in both directions."""

    def __init__(self, process: asyncio.subprocess.Process, on_tool: ToolHandler) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []
        self.on_tool = on_tool
        self._ids = 0

    async def call(self, method: str, params: dict[str, Any]) -> Any:
        self._ids += 1
        number = self._ids
        self._send({"id": number, "method": method, "params": params})
        reply = await self._read_until(lambda one: one.get("id") == number and "method" not in one)
        assert "error" not in reply, reply
        return reply["result"]

    async def start_thread(self, cwd: Path, tools: list[dict[str, Any]] | None = None) -> str:
        params = {"cwd": str(cwd), "approvalPolicy": "never", "sandbox": "workspace-write"}
        reply = await self.call("thread/start", {**params, "dynamicTools": tools or []})
        return reply["thread"]["id"]

    async def run_turn(self, thread: str, prompt: str, **params: Any) -> dict[str, Any]:
        text = [{"type": "text", "text": prompt}]
        await self.call("turn/start", {"threadId": thread, "input": text, **params})
        done = await self._read_until(lambda one: one.get("method") == "turn/completed")
        return done["params"]["turn"]

    def of(self, method: str) -> list[dict[str, Any]]:
        """All params of a kind of notification so far."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def items(self, kind: str) -> list[dict[str, Any]]:
        """All finished items of a kind so far."""
        items = (params["item"] for params in self.of("item/completed"))
        return [item for item in items if item["type"] == kind]

    def _send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")

    async def _read_until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        assert self.process.stdout is not None
        async with asyncio.timeout(CALL_TIMEOUT_S):
            while line := await self.process.stdout.readline():
                message = json.loads(line)
                self.events.append(message)
                if message.get("method") == "item/tool/call":
                    answer = await self.on_tool(message["params"])
                    self._send({"id": message["id"], "result": answer})
                if wanted(message):
                    return message
        raise AssertionError("the app-server ended")


async def no_tool(params: dict[str, Any]) -> dict[str, Any]:
    raise AssertionError(f"no tool was offered, yet called: {params}")


@pytest.fixture
def app_server(
    codex: Path, cache_folder: Path
) -> Callable[..., AbstractAsyncContextManager[AppServer]]:
    """Starts the binary with a model server's base URL."""

    @asynccontextmanager
    async def start(base_url: str, on_tool: ToolHandler = no_tool) -> AsyncIterator[AppServer]:
        home = prepare_home(cache_folder / "codex", seed=False)
        config = provider_config(base_url, provider=PROVIDER, model=MODEL)
        write_config(home, config)
        user = cache_folder / "user"
        user.mkdir(exist_ok=True)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(user),
            "CODEX_HOME": str(home),
        }
        process = await asyncio.create_subprocess_exec(
            codex,
            "app-server",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment,
            limit=1 << 27,
        )
        server = AppServer(process, on_tool)
        try:
            info = {"name": "demo-test", "version": "0"}
            capabilities = {"experimentalApi": True}
            await server.call("initialize", {"clientInfo": info, "capabilities": capabilities})
            server._send({"method": "initialized"})
            yield server
        finally:
            assert process.stdin is not None
            process.stdin.close()
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await process.wait()

    return start
