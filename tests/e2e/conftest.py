"""A daemon as users run it: the installed command, the real Codex, a scripted model on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from codex_app_server.binary import resolve_binary
from codex_app_server.errors import BinaryNotFound
from codex_app_server.home import provider_config, write_config

from symphony.demo.model_server import ModelServer
from symphony.demo.repository import DemoSample, make_sample
from symphony.demo.story import MODEL, PROVIDER, demo_script

ROOT = Path(__file__).resolve().parents[2]
NPM = ROOT / ".codex-binaries" / "0.169.0"


def wheel_binary() -> Path:
    try:
        return resolve_binary(environment={}).path
    except BinaryNotFound as error:
        pytest.skip(str(error))


def npm_binary() -> Path:
    if not NPM.is_dir():
        pytest.skip("npm's Codex 0.169.0 is not here; `make codex VERSION=0.169.0` fetches it")
    return resolve_binary(NPM, environment={}).path


@pytest.fixture(params=["wheel", "npm-0.169.0"])
def codex_binary(request: pytest.FixtureRequest) -> Path:
    """The PyPI package's binary, and npm's of the pinned version."""
    return wheel_binary() if request.param == "wheel" else npm_binary()


async def eventually(
    look: Callable[[], Any], *, limit_s: float = 60.0, what: str = "the condition"
) -> Any:
    """Return the first true answer of ``look``; fail when the time is up."""
    deadline = time.monotonic() + limit_s
    while True:
        answer = await asyncio.to_thread(look)
        if answer:
            return answer
        if time.monotonic() > deadline:
            pytest.fail(f"waited {limit_s} s for {what}")
        await asyncio.sleep(0.05)


def marked_processes(marker: str) -> dict[int, str]:
    """Return pid and command of the processes that carry this text in their environment."""
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if marker.encode() in (entry / "environ").read_bytes():
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found[int(entry.name)] = command.strip()
        except OSError:
            continue
    return {pid: command for pid, command in found.items() if command}


@dataclass
class Board:
    """The demo's board with a model server, and daemons on it."""

    root: Path
    sample: DemoSample
    environ: dict[str, str]
    server: ModelServer
    daemons: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start a daemon of the board's workflow."""
        log = (self.root / f"stderr-{len(self.daemons)}.txt").open("wb")
        daemon = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "symphony",
            str(self.sample.workflow_path),
            "--instance",
            self.instance,
            *arguments,
            env=self.environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        log.close()
        self.daemons.append(daemon)
        return daemon

    @property
    def instance(self) -> str:
        return self.root.name

    @property
    def marker(self) -> str:
        """What every process of a run carries in its environment."""
        return f"SYMPHONY_INSTANCE={self.instance}"

    @property
    def socket(self) -> Path:
        from symphony.config.state_dir import locate

        return locate(self.sample.workflow_path, instance=self.instance, env=self.environ).socket

    def api(self, path: str) -> Any:
        """GET a path of the API over the control socket."""
        from symphony.cli.status import _UnixConnection

        connection = _UnixConnection(str(self.socket))
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        except OSError:
            return None
        finally:
            connection.close()

    def agents_by_workspace(self) -> dict[str, list[int]]:
        """Return the pids of app-servers by the workspace they were started in.

        A command that an app-server is about to start looks like it until it has called exec; such
        a child of another one does not count.
        """
        servers: dict[int, tuple[int, str]] = {}
        for pid, command in marked_processes(self.marker).items():
            if "app-server" not in command or "bash" in command.split()[0]:
                continue
            try:
                stat = Path(f"/proc/{pid}/stat").read_text()
                servers[pid] = (
                    int(stat.rpartition(")")[2].split()[1]),
                    os.readlink(f"/proc/{pid}/cwd"),
                )
            except OSError:
                continue
        found: dict[str, list[int]] = {}
        for pid, (parent, place) in servers.items():
            if parent not in servers:
                found.setdefault(place, []).append(pid)
        return found

    def log(self) -> str:
        """Return what the daemons wrote to stderr and, newest last, to their log files."""
        places = [*sorted(self.root.glob("stderr-*.txt")), *sorted(self.root.rglob("*.log"))]
        return "".join(path.read_text(errors="replace") for path in places)


@pytest.fixture
async def board(
    cache_dir: Path, codex_binary: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Board]:
    """The sample board, repository and workflow in a directory outside the temp directory."""
    sample = await asyncio.to_thread(make_sample, cache_dir)
    home, login = cache_dir / "home", cache_dir / "login"
    home.mkdir()
    login.mkdir()
    async with ModelServer(demo_script(pause_s=0.02)) as server:
        base_url = await server.start()
        write_config(login, provider_config(base_url, model=MODEL, provider=PROVIDER))
        environ = {
            "PATH": f"{codex_binary.parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home),
            "CODEX_HOME": str(login),
            "XDG_STATE_HOME": str(cache_dir / "state"),
            "XDG_CACHE_HOME": str(cache_dir / "cache"),
            "LANG": "C.UTF-8",
        }
        found = Board(cache_dir, sample, environ, server)
        yield found
        report = getattr(request.node, "call_report", None)
        if report is not None and report.failed:
            print(json.dumps(await asyncio.to_thread(found.api, "/api/v1/state"), indent=1))
            print(found.log()[-20000:])
        for daemon in found.daemons:
            if daemon.returncode is None:
                daemon.send_signal(signal.SIGKILL)
                await daemon.wait()
    left = await eventually(
        lambda: not marked_processes(found.marker) or None, limit_s=10, what="all processes to go"
    )
    assert left


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()
    if report.when == "call":
        item.call_report = report
