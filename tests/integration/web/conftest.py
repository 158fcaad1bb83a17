"""A real server over the real snapshot bus, on an ephemeral port and on a control socket."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx2
import pytest

from symphony.observe.bus import SnapshotBus
from symphony.observe.tally import Tally
from symphony.scheduler.snapshot import Snapshot
from symphony.web.backend import RefreshReceipt
from symphony.web.server import WebServer


def load_fake(name: str) -> ModuleType:
    path = Path(__file__).parents[2] / "fakes" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"fakes_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SNAPSHOTS = load_fake("snapshots")


class BusBackend:
    """The backend over a real bus; the scheduler's and the ledger's answers are set by the test."""

    def __init__(self) -> None:
        self.bus = SnapshotBus(SNAPSHOTS.snapshot)
        self.receipt: RefreshReceipt | None = RefreshReceipt(False, SNAPSHOTS.WALL + 0.25)
        self.refreshes = 0
        self.sources: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.run_rows: list[dict[str, Any]] = []
        self.broken = False
        self.counted = Tally()

    def snapshot(self) -> Snapshot | None:
        if self.broken:
            raise RuntimeError("secret detail")
        return self.bus.latest

    def tally(self) -> Tally:
        return self.counted

    def subscribe(self) -> AsyncIterator[Snapshot]:
        return self.bus.subscribe()

    def request_refresh(self, source: str = "api") -> RefreshReceipt | None:
        self.refreshes += 1
        self.sources.append(source)
        return self.receipt

    async def recent_events(self, identifier: str, limit: int) -> list[dict[str, Any]]:
        return self.events[:limit]

    async def runs(self, identifier: str, limit: int) -> list[dict[str, Any]]:
        return self.run_rows[:limit]

    def workspace_path_for(self, identifier: str) -> str | None:
        return f"/srv/workspaces/{identifier}"


class Site:
    """A running server with clients for both of its sockets."""

    def __init__(self, backend: BusBackend, server: WebServer, path: Path) -> None:
        self.backend = backend
        self.server = server
        self.path = path
        self.finished = asyncio.Event()
        self.tcp = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=10)
        self.unix = httpx2.AsyncClient(
            base_url="http://symphony",
            transport=httpx2.AsyncHTTPTransport(uds=str(path)),
            timeout=10,
        )

    def publish(self, snapshot: Snapshot) -> None:
        self.backend.bus.publish(snapshot)


@pytest.fixture
def snapshots() -> ModuleType:
    return SNAPSHOTS


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    backend = BusBackend()
    server = WebServer(backend)
    path = tmp_path / "control.sock"
    server.listen_control(path)
    server.listen_tcp("127.0.0.1", 0)
    site = Site(backend, server, path)

    async def serve() -> None:
        await server.run()
        site.finished.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(serve())
        await server.wait_started()
        async with site.tcp, site.unix:
            yield site
            server.stop()
