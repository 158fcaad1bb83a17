"""The real attempt on a scripted app-server: no process, no pipe, the same virtual clock.

Role: gives ``runner.attempt.Attempt`` a host whose processes are those of ``World`` and speak the
protocol through ``codex_app_server.testing.ScriptedTransport``. Turns do what ``agents.plan_of``
says: they end well, fail in Codex's own words, ask, fall silent, break off, lose their server.
Invariant: all chance comes from the run's own generator, so a seed tells the same story each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from codex_app_server.scripted import Action, Ask, End, Notify, Result
from codex_app_server.testing import ScriptedTransport

from symphony.config.loading import Workflow
from symphony.errors import HostError
from symphony.hosts.base import CompletedCommand, ExitStatus, ProcessIdentity, ProcessSpec
from symphony.model.resources import HostResources
from symphony.model.run import RunProgress, RunSpec
from symphony.runner.attempt import Attempt, RunnerContext
from symphony.runner.session import HomeGate, SessionOptions

from .agents import plan_of
from .world import Process

if TYPE_CHECKING:
    from .daemon import Lifetime

_FOR_EVER_S = 1e9
_ERRORS: Mapping[str, Any] = {
    "fails": "other",
    "raises": {"responseStreamDisconnected": {"httpStatusCode": None}},
    "bad_model": "badRequest",
    "usage_limit": "usageLimitExceeded",
    "context_window": "contextWindowExceeded",
    "down": "serverOverloaded",
}
_QUESTION = {
    "id": "q",
    "header": "Colour",
    "question": "Which?",
    "options": [{"label": "Red", "description": ""}, {"label": "Blue", "description": ""}],
}


class AppServer:
    """One app-server: what the host hands to a session."""

    def __init__(self, life: Lifetime, spec: RunSpec, process: Process) -> None:
        self.identity = ProcessIdentity(process.pid, 1, "boot")
        self.transport = ScriptedTransport()
        self._life = life
        self._world = life.world
        self._spec = spec
        self._process = process
        self._rng = Random(f"server {life.world.scenario.seed} {spec.run_id}")
        self._plan = plan_of(
            self._rng,
            turn_s=life.world.scenario.turn_s,
            weather=life.world.weather,
            is_quiet=life.world.is_quiet,
        )
        self._turns = 0
        self._turn: asyncio.Task[None] | None = None
        self._ids: dict[str, Any] = {}
        # The world's threads outlive this server, so their names must not depend on it alone.
        self.transport.on_call("thread/start", lambda _: [self._thread(f"thread-{spec.run_id}")])
        self.transport.on_call("turn/start", self._starts)
        self.transport.on_call("turn/interrupt", self._interrupts)
        self._watch = asyncio.create_task(self._until_it_dies(), name=f"server {spec.run_id}")

    def stderr_tail(self) -> str:
        return ""

    async def wait(self) -> ExitStatus:
        await asyncio.wait([self._watch])
        return ExitStatus(code=1)

    async def stop(self, grace_s: float) -> ExitStatus:
        if self._process.is_alive:
            await asyncio.sleep(self._rng.choice([0.05, 0.05, 0.3, grace_s]))
        if not self._life.is_dead:
            self._world.end_process(self._process)
        await self.wait()
        return ExitStatus(code=0)

    async def _until_it_dies(self) -> None:
        try:
            await self._process.lives_for(_FOR_EVER_S)
        except HostError:
            if self._turn is not None:
                self._turn.cancel()
            self.transport.feed(End(1))

    def _thread(self, thread_id: str) -> Result:
        return Result(
            {"thread": {"id": thread_id, "status": {"type": "idle"}}, "model": "scripted"}
        )

    def _starts(self, message: Mapping[str, Any]) -> Sequence[Action]:
        self._turns += 1
        thread_id = message["params"]["threadId"]
        turn_id = f"turn-{self._spec.run_id}-{self._turns}"
        self._ids = {"threadId": thread_id, "turnId": turn_id}
        self._turn = asyncio.create_task(self._plays(), name=turn_id)
        return [
            Result({"turn": {"id": turn_id, "status": "inProgress", "items": []}}),
            Notify("turn/started", {"threadId": thread_id, "turn": {"id": turn_id, "items": []}}),
        ]

    def _interrupts(self, _: Mapping[str, Any]) -> Sequence[Action]:
        if self._turn is None or self._turn.done():
            return [Result()]
        self._turn.cancel()
        return [Result(), self._completed("interrupted")]

    async def _plays(self) -> None:
        await asyncio.sleep(0.01)
        if self._world.model_is_down:
            self._ends("down")
            return
        await self._works_for(self._plan.turn_s)
        if self._turns < self._plan.turns:
            self.transport.feed(self._completed("completed"))
            return
        match self._plan.end:
            case "completes":
                if self._plan.moves_to is not None:
                    self._world.note(f"{self._spec.run_id} moves to {self._plan.moves_to}")
                    self._world.board.change(self._spec.issue_id, state=self._plan.moves_to)
                    await self._works_for(self._rng.uniform(0.1, 4.0))
                self.transport.feed(self._completed("completed"))
            case "exits":
                self._world.end_process(self._process, "exit")
            case "hangs" | "times_out":
                await asyncio.sleep(_FOR_EVER_S)
            case "asks_input":
                params = {**self._ids, "itemId": "item-q", "questions": [_QUESTION]}
                await self._asks("item/tool/requestUserInput", params)
            case "asks_approval":
                params = {**self._ids, "itemId": "item-c", "command": "make", "cwd": "/"}
                await self._asks("item/commandExecution/requestApproval", params)
            case "is_interrupted":
                self.transport.feed(self._completed("interrupted"))
            case "fails":
                self._ends(self._rng.choice(["fails", "raises", "context_window"]))
            case end:
                self._ends(end)

    async def _works_for(self, seconds: float) -> None:
        left, number = seconds, 0
        stall_s = self._life.settings.codex.stall_timeout_s or 600.0
        while left > 0:
            pause = min(left, stall_s * self._rng.uniform(0.2, 0.7))
            await asyncio.sleep(pause)
            left -= pause
            number += 1
            used = self._rng.randint(1, 900)
            total = self._world.use(self._ids["threadId"], used)
            item = {"type": "agentMessage", "id": f"item-{number}", "text": "at work"}
            last = {"inputTokens": used, "outputTokens": used, "totalTokens": 2 * used}
            sums = {
                "inputTokens": total.input_tokens,
                "outputTokens": total.output_tokens,
                "totalTokens": total.total_tokens,
            }
            usage = {"last": last, "total": sums}
            self.transport.feed(
                Notify("item/started", {**self._ids, "item": item}),
                Notify("item/completed", {**self._ids, "item": item}),
                Notify("thread/tokenUsage/updated", {**self._ids, "tokenUsage": usage}),
            )

    async def _asks(self, method: str, params: Mapping[str, Any]) -> None:
        number = len(self.transport.answers)
        self.transport.feed(Ask(method, params))
        await self.transport.until(lambda: len(self.transport.answers) > number)
        answer = list(self.transport.answers.values())[-1].get("result") or {}
        self._world.counts[f"{method.rsplit('/', 1)[1]} answered"] += 1
        is_over = answer.get("decision") == "cancel"
        self.transport.feed(self._completed("interrupted" if is_over else "completed"))

    def _ends(self, end: str) -> None:
        error = {"message": f"it {end}", "codexErrorInfo": _ERRORS[end]}
        self.transport.feed(self._completed("failed", error))

    def _completed(self, status: str, error: Mapping[str, Any] | None = None) -> Notify:
        turn: dict[str, Any] = {"id": self._ids["turnId"], "status": status, "items": []}
        if error is not None:
            turn["error"] = error
        return Notify("turn/completed", {"threadId": self._ids["threadId"], "turn": turn})


class SimHost:
    """The host of one lifetime. Its processes are agents at work in the world."""

    name = "local"

    def __init__(self, life: Lifetime) -> None:
        self._life = life
        self.specs: dict[str, RunSpec] = {}

    async def start(self, spec: ProcessSpec) -> AppServer:
        run = self.specs[spec.run_id]
        await asyncio.sleep(0.05)
        return AppServer(self._life, run, self._life.start_process(run))

    async def run(
        self, spec: ProcessSpec, *, timeout_s: float, output_cap: int = 65536
    ) -> CompletedCommand:
        raise HostError("host_start_failed", f"{spec.argv} is no app-server")

    async def resources(self, directories: Sequence[str]) -> HostResources:
        return HostResources(host=self.name)

    async def aclose(self) -> None:
        """What still lives is ended by the shutdown's own hand."""


class RealAttempts:
    """Builds the attempts of one lifetime."""

    def __init__(self, life: Lifetime, folder: Path) -> None:
        self._life = life
        self._host = SimHost(life)
        self._workflow: Workflow | None = None
        self._context = RunnerContext(
            workflow=self._in_force,
            tracker=lambda: life.trackers.current,  # type: ignore[arg-type,return-value]
            host=self._host,
            workspaces=life.workspaces,  # type: ignore[arg-type]
            ledger=life.ledger,
            clock=life.clock,
            post=life.post,
            session_options=SessionOptions(
                environ={"PATH": "/usr/bin"},
                codex_home=folder / "codex-home",
                temp_root=folder / "runs",
                codex_first=None,
                codex_last=None,
                instance="sim",
                home_gate=HomeGate(),
            ),
            describe=str,
            on_spend=self._spent,
        )

    def make(self, spec: RunSpec, progress: RunProgress) -> Attempt:
        self._host.specs[spec.run_id] = spec
        return Attempt(spec, progress, self._context)

    def _spent(self, run_id: Any) -> None:
        assert self._life.reporter is not None
        self._life.reporter.touch(run_id)

    def _in_force(self) -> Workflow:
        if self._workflow is None or self._workflow.settings is not self._life.settings:
            self._workflow = Workflow(
                path=Path("/WORKFLOW.md"),
                workflow_id="wf",
                settings=self._life.settings,
                prompt_template="Work on {{ issue.title }}.",
                prompt_line=1,
                warnings=(),
                prompt_warnings=(),
                digest="",
                config={},
            )
        return self._workflow
