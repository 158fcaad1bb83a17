"""One implementation, started on a workflow of its own and ended without a trace.

Invariant: one daemon at a time; after ``stop`` no process of it lives, whatever it left behind.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
import processes
from fake_linear import ACTIVE, PROJECT, TERMINAL

STOP_LIMIT_S = 20.0
LEFTOVER_AFTER_S = 0.3
PROMPT = """\
ISSUE_ID={{ issue.id }}

Work on {{ issue.identifier }}: {{ issue.title }}

{{ issue.description }}
"""


class DaemonFailed(Exception):
    """The implementation did not do what the measurement waits for."""


@dataclass(frozen=True)
class Implementation:
    """A name for the table and a command with the places {workflow}, {port} and {logs}."""

    name: str
    command: str
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass
class AgentLog:
    """What the stand-ins for Codex have noted; read as it grows."""

    path: Path
    offset: int = 0
    times: dict[str, list[float]] = field(default_factory=dict)
    starts: Counter[str] = field(default_factory=Counter)

    def read(self) -> None:
        """Take in what has been added since."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read()
        complete = data.rfind(b"\n") + 1
        self.offset += complete
        for line in data[:complete].decode().splitlines():
            at, _, event, directory = line.split(" ", 3)
            self.times.setdefault(event, []).append(float(at))
            if event == "thread_start":
                self.starts[directory] += 1

    def since(self, event: str, start: float) -> list[float]:
        """Return how long after ``start`` each event of that kind came."""
        return [at - start for at in self.times.get(event, ()) if at >= start]


@dataclass
class Stopped:
    """How the end went: seconds from SIGTERM to exit (None: it had to be killed), and what of it
    was still alive 0.3 s later."""

    exit_s: float | None
    leftovers: int


class Daemon:
    """A running implementation; use ``async with``.

    Attributes:
        started_at: Just before the process was made (monotonic seconds).
        log: Of its agents.
    """

    def __init__(
        self,
        implementation: Implementation,
        *,
        endpoint: str,
        directory: Path,
        agent: Path,
        agent_options: str,
        polling_s: float = 60.0,
        slots: int = 200,
    ) -> None:
        self.implementation = implementation
        self.port = _free_port()
        self.log = AgentLog(directory / "agents.log")
        self._directory = directory
        self._stack = AsyncExitStack()
        self._stopped = False
        command = f"{agent} --log {self.log.path} {agent_options}"
        self._workflow = _workflow(
            endpoint=endpoint,
            workspaces=directory / "workspaces",
            command=command,
            polling_s=polling_s,
            slots=slots,
        )

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=20)
        self._http = await self._stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
        self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._stopped:
            await self.stop()
        await self._stack.aclose()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _start(self) -> None:
        places = {name: self._directory / name for name in ("home", "logs", "cache", "state")}
        for path in places.values():
            path.mkdir(parents=True)
        workflow = self._directory / "WORKFLOW.md"
        workflow.write_text(self._workflow)
        command = self.implementation.command.format(
            workflow=workflow, port=self.port, logs=places["logs"]
        )
        env = {
            "HOME": str(places["home"]),
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "LINEAR_API_KEY": "a key that no server checks",
            "XDG_CACHE_HOME": str(places["cache"]),
            "XDG_STATE_HOME": str(places["state"]),
            **self.implementation.env,
        }
        self._output = self._directory / "output.txt"
        with self._output.open("wb") as output:
            self.started_at = time.monotonic()
            self._process = subprocess.Popen(
                shlex.split(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=env,
                cwd=self._directory,
                start_new_session=True,
                preexec_fn=processes.die_with_parent,  # safe: the driver has one thread
            )

    # -- what it does ---------------------------------------------------------------------------

    async def http_ready(self, limit_s: float = 60.0) -> float:
        """Wait for the API; return when it first answered (monotonic seconds)."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            with suppress(DaemonFailed):
                await self.state()
                return time.monotonic()
            self.check_alive()
            await asyncio.sleep(0.005)
        raise DaemonFailed(f"no answer at port {self.port} within {limit_s:.0f} s")

    async def state(self) -> dict[str, Any]:
        """Return /api/v1/state."""
        status, body = await self._request("GET", "state")
        if status != 200:
            raise DaemonFailed(f"/api/v1/state answered {status}")
        state: dict[str, Any] = json.loads(body)
        return state

    async def refresh(self) -> bool:
        """Ask for a poll now; False where the daemon is too busy to take that."""
        status, _ = await self._request("POST", "refresh")
        return status < 300

    async def _request(self, method: str, name: str) -> tuple[int, bytes]:
        url = f"http://127.0.0.1:{self.port}/api/v1/{name}"
        try:
            async with self._http.request(method, url) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise DaemonFailed(f"/api/v1/{name}: {type(error).__name__}: {error}") from error

    async def agent_events(
        self, event: str, count: int, *, since: float, limit_s: float
    ) -> list[float]:
        """Wait for so many events of the agents; return their seconds since ``since``, sorted."""
        end = time.monotonic() + limit_s
        while True:
            self.log.read()
            found = self.log.since(event, since)
            if len(found) >= count:
                return sorted(found)
            if time.monotonic() >= end:
                raise DaemonFailed(f"{len(found)} of {count} {event} within {limit_s:.0f} s")
            self.check_alive()
            await asyncio.sleep(0.01)

    async def settled(self, limit_s: float = 90.0) -> None:
        """Wait until no agent lives and nothing runs or waits for a retry."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            if not processes.agents(processes.descendants()):
                state = await self.state()
                # The reference answers with an error in place of the lists while it is busy.
                if state.get("running") == [] and state.get("retrying") == []:
                    return
            await asyncio.sleep(0.05)
        raise DaemonFailed(f"agents or retries were left after {limit_s:.0f} s")

    def check_alive(self) -> None:
        """Raise DaemonFailed if it has ended."""
        code = self._process.poll()
        if code is not None:
            tail = self._output.read_text(errors="replace")[-600:]
            raise DaemonFailed(f"it ended with {code}:\n{tail}")

    # -- the end --------------------------------------------------------------------------------

    async def stop(self) -> Stopped:
        """Send SIGTERM, wait, look for what is left, and kill that."""
        self._stopped = True
        asked = time.monotonic()
        self._process.terminate()
        exit_s: float | None = None
        while time.monotonic() < asked + STOP_LIMIT_S:
            if self._process.poll() is not None:
                exit_s = time.monotonic() - asked
                break
            await asyncio.sleep(0.002)
        await asyncio.sleep(LEFTOVER_AFTER_S)
        processes.reap(self._process.pid)
        left = [p for p in processes.descendants() if p.pid != self._process.pid]
        processes.kill_descendants()
        return Stopped(exit_s, len(left))


def _workflow(
    *, endpoint: str, workspaces: Path, command: str, polling_s: float, slots: int
) -> str:
    """Return a WORKFLOW.md in the form that both implementations read."""
    front_matter: dict[str, dict[str, Any]] = {
        "tracker": {
            "kind": "linear",
            "endpoint": endpoint,
            "api_key": "$LINEAR_API_KEY",
            "project_slug": PROJECT,
            "active_states": list(ACTIVE),
            "terminal_states": list(TERMINAL),
        },
        "polling": {"interval_ms": round(polling_s * 1000)},
        "workspace": {"root": str(workspaces)},
        "agent": {"max_concurrent_agents": slots, "max_turns": 5},
        "codex": {
            "command": command,
            "approval_policy": "never",
            "thread_sandbox": "workspace-write",
        },
        # A screen that nobody looks at is not measured.
        "observability": {"dashboard_enabled": False},
    }
    lines = ["---"]
    for section, values in front_matter.items():
        lines.append(f"{section}:")
        lines += [f"  {name}: {json.dumps(value)}" for name, value in values.items()]
    return "\n".join([*lines, "---", PROMPT])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
