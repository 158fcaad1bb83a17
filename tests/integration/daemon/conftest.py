"""The daemon as a process, on a local board, with a scripted app-server."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from symphony.cli.status import fetch
from symphony.errors import ControlError
from symphony.trackers.local_board import Board

APP_SERVER = Path(__file__).resolve().parents[2] / "fakes" / "app_server.py"


@dataclass
class Place:
    """A workflow with its board, and daemons of it."""

    root: Path
    board: Board
    environ: dict[str, str]
    instance: str
    daemons: list[asyncio.subprocess.Process] = field(default_factory=list)

    @property
    def workflow(self) -> Path:
        return self.root / "WORKFLOW.md"

    def configure(self, **sections: Any) -> None:
        """Write the workflow, as an editor does: a new file in the place of the old one."""
        command = (
            f"{shlex.quote(sys.executable)} -S {shlex.quote(str(APP_SERVER))} ../../script.json"
        )
        front = {
            "tracker": {"kind": "local", "provider": {"path": "board"}},
            "polling": {"interval_ms": 500},
            "workspace": {"root": "workspaces"},
            **sections,
        }
        front["codex"] = {"command": command, **sections.get("codex", {})}
        lines = [f"{key}: {json.dumps(value)}" for key, value in front.items()]
        self.write("\n".join(["---", *lines, "---", "Issue: {{ issue.identifier }}", ""]))

    def write(self, text: str) -> None:
        fresh = self.root / "WORKFLOW.md.new"
        fresh.write_text(text)
        fresh.replace(self.workflow)

    def script(self, **script: Any) -> None:
        script.setdefault("record", str(self.root / "record.jsonl"))
        fresh = self.root / "script.json.new"
        fresh.write_text(json.dumps(script))
        fresh.replace(self.root / "script.json")

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        with (self.root / "stderr.txt").open("ab") as log:
            daemon = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "symphony", str(self.workflow), "--instance", self.instance, *arguments),
                env=self.environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.daemons.append(daemon)
        await self.until(self.state)
        return daemon

    async def stop(self) -> int:
        daemon = self.daemons[-1]
        daemon.send_signal(signal.SIGTERM)
        return await daemon.wait()

    def get(self, path: str) -> Any:
        """GET a path of the API; None while no daemon answers."""
        try:
            return fetch(self.workflow, path, instance=self.instance, environ=self.environ)
        except ControlError:
            return None

    def state(self) -> Any:
        state = self.get("/api/v1/state")
        return None if state is None or "error" in state else state

    def rows(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return ``running``, ``retrying`` or ``blocked`` of the API by identifier."""
        return {row["issue_identifier"]: row for row in (self.state() or {}).get(kind, ())}

    def record(self) -> list[dict[str, Any]]:
        """Return what the app-servers have written down, all in one file."""
        path = self.root / "record.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def starts(self) -> list[dict[str, Any]]:
        return [entry for entry in self.record() if entry["event"] == "start"]

    def command(self, *words: str, status: int = 0) -> str:
        """Run ``symphony WORDS`` about this daemon; return what it said."""
        where = ("--workflow", str(self.workflow), "--instance", self.instance)
        done = subprocess.run(
            [sys.executable, "-m", "symphony", *words, *where],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def log(self) -> str:
        return (self.root / "stderr.txt").read_text()

    def processes(self) -> list[int]:
        marker = f"SYMPHONY_INSTANCE={self.instance}".encode()
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if marker in Path(f"/proc/{pid}/environ").read_bytes():
                    found.append(int(pid))
            except OSError:
                continue
        return found

    async def until(self, look: Callable[[], Any], *, limit_s: float = 30.0) -> Any:
        """Wait until ``look``, which asks the daemon or its files, answers something true."""
        async with asyncio.timeout(limit_s):
            while not (answer := await asyncio.to_thread(look)):  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.02)
        return answer


@pytest.fixture
async def place(tmp_path: Path, cache_dir: Path) -> AsyncIterator[Place]:
    (tmp_path / "home").mkdir()
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_CACHE_HOME": str(cache_dir),
    }
    board = Board.create(tmp_path / "board", prefix="AB")
    made = Place(tmp_path, board, environ, f"test-{uuid.uuid4().hex[:12]}")
    made.configure()
    made.script()
    yield made
    for daemon in made.daemons:
        if daemon.returncode is None:
            daemon.send_signal(signal.SIGKILL)
            await daemon.wait()
    await made.until(lambda: not made.processes(), limit_s=10)
