"""A real attempt (host, workspaces, ledger, client) on a scripted app-server."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from symphony.config.loading import Workflow, load_workflow
from symphony.hosts.local import LocalHost
from symphony.ledger import Ledger
from symphony.model.clock import Instant
from symphony.model.issue import Issue, IssueId
from symphony.model.run import Outcome, RunId, RunProgress, RunSpec
from symphony.runner.attempt import Attempt, RunnerContext
from symphony.runner.session import HomeGate, SessionOptions
from symphony.scheduler.events import Event
from symphony.service.view import describe
from symphony.trackers import registry
from symphony.trackers.base import ToolContext, ToolResult, ToolSpec
from symphony.trackers.memory import MemoryTracker
from symphony.workspaces.manager import Workspaces

APP_SERVER = Path(__file__).resolve().parents[2] / "fakes" / "app_server.py"


def clock() -> Instant:
    return Instant(time.monotonic(), time.time())


class ToolTracker(MemoryTracker):
    """A board in memory with a tool ``move``, as trackers with tools have."""

    def agent_tools(self) -> list[ToolSpec]:
        schema = {"type": "object", "properties": {"state": {"type": "string"}}}
        return [ToolSpec("move", "Move the issue.", schema)]

    async def call_tool(self, name: str, arguments: Any, context: ToolContext) -> ToolResult:
        self.update(context.issue.id, state=arguments["state"])
        return ToolResult(True, json.dumps({"state": arguments["state"]}))


@dataclass
class Bench:
    """Runs attempts."""

    root: Path
    tracker: ToolTracker
    host: LocalHost
    ledger: Ledger
    environ: dict[str, str]
    events: list[Event]
    workflow: Workflow
    context: dict[str, Any] = field(default_factory=dict)
    """What differs from a daemon's context."""

    def configure(self, front_matter: str = "", prompt: str = "Work on {{ issue.title }}.") -> None:
        """Write and load a workflow whose command is the scripted app-server."""
        command = f"{shlex.quote(sys.executable)} -S {shlex.quote(str(APP_SERVER))} script.json"
        path = self.root / "WORKFLOW.md"
        path.write_text(
            "---\n"
            "tracker: {kind: memory}\n"
            f"workspace: {{root: {json.dumps(str(self.root / 'workspaces'))}}}\n"
            f"{front_matter}"
            f"hooks: {{before_run: {json.dumps(f'cp {self.root}/script.json .')},"
            f" after_run: {json.dumps(f'echo after >> {self.root}/hooks.txt')}}}\n"
            + ("" if "codex:" in front_matter else f"codex: {{command: {json.dumps(command)}}}\n")
            + f"---\n{prompt}\n"
        )
        self.workflow = load_workflow(path, environ=self.environ, profiles=registry.PROFILES)

    def script(self, **script: Any) -> None:
        """Say what the app-server does."""
        script.setdefault("record", str(self.root / "record.jsonl"))
        (self.root / "script.json").write_text(json.dumps(script))

    def attempt(self, **spec: Any) -> Attempt:
        """Return an attempt at the issue A-1."""
        issue = spec.pop("issue", self.tracker.issues[0])
        run_id = RunId(uuid.uuid4().hex[:12])
        chosen = RunSpec(
            **{"run_id": run_id, "issue": issue, "attempt": None, "retry_kind": None, **spec}
        )
        now = clock()
        self.progress = RunProgress(
            run_id=run_id,
            issue=issue,
            attempt=chosen.attempt,
            host="local",
            started_mono=now.mono,
            started_wall=now.wall,
            last_activity_mono=now.mono,
        )
        return Attempt(chosen, self.progress, self._context())

    async def run(self, **spec: Any) -> Outcome:
        """Run one attempt to its end."""
        attempt = self.attempt(**spec)
        await self.ledger.run_started(attempt.spec, started_wall=time.time())
        return await attempt.run()

    def _context(self) -> RunnerContext:
        cache = self.root / "cache"
        return RunnerContext(
            workflow=lambda: self.workflow,
            tracker=lambda: self.tracker,
            host=self.host,
            workspaces=Workspaces(
                settings=lambda: self.workflow.settings,
                host=self.host,
                environ=self.environ,
                secret_names=lambda: (),
            ),
            ledger=self.ledger,
            clock=clock,
            post=self.events.append,
            session_options=SessionOptions(
                environ=self.environ,
                codex_home=cache / "home",
                temp_root=cache / "tmp",
                codex_first=None,
                codex_last=None,
                instance="test",
                home_gate=HomeGate(),
            ),
            describe=describe,
            **self.context,
        )

    def received(self, method: str | None = None) -> list[dict[str, Any]]:
        """Return the messages that the app-server was sent, of one method or all."""
        lines = self.recorded("received")
        messages = [line["message"] for line in lines]
        return [m for m in messages if method is None or m.get("method") == method]

    def recorded(self, event: str) -> list[dict[str, Any]]:
        path = self.root / "record.jsonl"
        if not path.exists():
            return []
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]

    def hooks_run(self) -> int:
        path = self.root / "hooks.txt"
        return len(path.read_text().splitlines()) if path.exists() else 0

    async def until(self, look: Callable[[], Any], *, limit_s: float = 20.0) -> Any:
        """Wait until ``look`` is true."""
        async with asyncio.timeout(limit_s):
            while not (answer := look()):  # noqa: ASYNC110  # a file of another process
                await asyncio.sleep(0.01)
        return answer


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "SECRET_OF_OURS": "s3cret-value",
    }
    (tmp_path / "home").mkdir()
    instance = uuid.uuid4().hex
    host = LocalHost(instance=instance)
    ledger = await Ledger.open(tmp_path / "ledger.sqlite3", workflow_id="w", clock=clock)
    issue = Issue(
        id=IssueId("1"), identifier="A-1", title="Paint the shed", state="Todo", dispatchable=True
    )
    made = Bench(tmp_path, ToolTracker([issue]), host, ledger, environ, [], None)  # type: ignore[arg-type]  # configure() sets it
    made.configure()
    made.script()
    yield made
    await host.aclose()
    await ledger.aclose()
    left = [
        pid
        for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
        if f"SYMPHONY_INSTANCE={instance}".encode() in _environment(pid)
    ]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
