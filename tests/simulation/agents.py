"""Agents that finish, fail, ask, hang, exit and move issues; each run has chance of its own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from symphony.errors import HostError, LedgerError, SymphonyError, TrackerError
from symphony.hosts.base import ProcessIdentity
from symphony.model.question import Ask, Option, Question, QuestionKind
from symphony.model.run import Outcome, OutcomeKind, Phase, RunProgress, RunSpec, StopReason
from symphony.model.spend import Raise
from symphony.runner.budget import RunBudget
from symphony.runner.idling import IdleWatch
from symphony.runner.outcomes import outcome_of, stopped
from symphony.scheduler.events import RunIssueChanged

from .scenario import Weather
from .world import InvariantBroken, Process

if TYPE_CHECKING:
    from .daemon import Lifetime

_BAD_ENDS = (
    *(["fails"] * 5),
    *(["hangs"] * 3),
    *(["exits"] * 3),
    *(["asks_input"] * 2),
    *(["asks_approval"] * 2),
    "times_out",
    "is_interrupted",
    "bad_model",
    "usage_limit",
    "context_window",
    "raises",
)


class AgentBug(RuntimeError):
    """What no attempt expects: the executor makes an outcome of it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What an agent is going to do. ``moves_to`` is where it moves its issue at the end."""

    turns: int
    turn_s: float
    end: str
    moves_to: str | None


def plan_of(rng: Random, *, turn_s: float, weather: Weather, is_quiet: bool) -> Plan:
    if is_quiet:
        return Plan(1, rng.uniform(5.0, 60.0), "completes", rng.choice(["Review", "Done"]))
    end = rng.choice(_BAD_ENDS) if rng.random() < weather.agents_misbehave else "completes"
    if end == "completes" and rng.random() < weather.asks:
        end = rng.choice(["asks_input", "asks_input", "asks_approval"])
    if weather.usage_limits and rng.random() < weather.usage_limits:
        end = "usage_limit"
    moves_to = rng.choice([None, None, "In Progress", "Review", "Done", "Cancelled"])
    return Plan(rng.randint(1, 4), rng.expovariate(1 / turn_s) + 0.5, end, moves_to)


class SimAttempt:
    """The worker of one run: the shape of ``runner.attempt.Attempt`` around a simulated agent."""

    def __init__(self, spec: RunSpec, progress: RunProgress, life: Lifetime) -> None:
        self.spec = spec
        self.tracker = life.trackers.current
        self._progress = progress
        self._life = life
        self._world = life.world
        self._rng = Random(f"run {life.world.scenario.seed} {spec.run_id}")
        self._plan = plan_of(
            self._rng,
            turn_s=life.world.scenario.turn_s,
            weather=life.world.weather,
            is_quiet=life.world.is_quiet,
        )
        self._budget = RunBudget(
            spec, progress, settings=lambda: life.settings.budget, clock=life.clock
        )
        self._idle = IdleWatch(
            progress,
            limit=lambda: life.settings.budget.no_progress_turns,
            tree_mark=self._tree_mark,
            record=lambda idle: self._record(life.ledger.run_idle(spec.run_id, idle)),
        )
        self._stopped: Outcome | None = None
        self._is_last_turn = False
        self._body: asyncio.Task[Outcome] | None = None
        self._process: Process | None = None
        self._workspace: Any = None

    def stop(self, reason: StopReason) -> None:
        if self._stopped is None:
            self._stopped = stopped(reason, f"stopped by the scheduler ({reason.value})")
            if self._body is not None:
                self._body.cancel()

    def end_after_turn(self) -> None:
        self._is_last_turn = True

    def raise_issue_limits(self, amounts: Raise) -> None:
        self._budget.raise_issue_limits(amounts)

    async def run(self) -> Outcome:
        if self._stopped is not None:
            return self._stopped
        self._body = asyncio.create_task(self._work(), name=f"attempt {self.spec.run_id}")
        try:
            outcome = await asyncio.shield(self._body)
        except asyncio.CancelledError:
            if not self._body.done():
                self._body.cancel()
                await asyncio.wait([self._body])
            if self._stopped is None:
                await self._finish()
                raise
            outcome = self._stopped
        except SymphonyError as error:
            outcome = outcome_of(error)
        except Exception:
            # The real attempt makes an outcome of it; here the executor has to.
            await self._finish()
            raise
        await self._finish(outcome)
        return outcome

    async def _work(self) -> Outcome:
        life, spec, progress = self._life, self.spec, self._progress
        self._workspace = await life.workspaces.prepare(spec)
        progress.workspace_path = self._workspace.path
        await self._record(life.ledger.run_workspace(spec.run_id, self._workspace.path))
        await life.workspaces.before_run(self._workspace, spec)
        progress.phase = Phase.LAUNCHING_AGENT_PROCESS
        self._process = process = life.start_process(spec)
        progress.process_id = process.pid
        identity = ProcessIdentity(process.pid, 1, "boot")
        await self._record(life.ledger.run_process(spec.run_id, identity))
        await process.lives_for(self._rng.uniform(0.05, 3.0))
        self._heard()
        thread_id = spec.thread_id or f"thread-{spec.run_id}"
        progress.thread_id = thread_id
        known = self._world.threads.get(thread_id)
        if known is not None:
            progress.meter.set_baseline(thread_id, known)
        await self._record(life.ledger.run_thread(spec.run_id, thread_id))
        progress.phase = Phase.STREAMING_TURN
        return self._budget.before_next_turn() or await self._turns()

    async def _turns(self) -> Outcome:
        number = 1
        while True:
            ended = await self._turn(number)
            if ended is not None:
                return ended
            if self._is_last_turn or not await self._goes_on():
                return Outcome(kind=OutcomeKind.COMPLETED)
            nowhere = await self._idle.turn_ended(self._progress.issue, changed=False)
            if nowhere is not None:
                return nowhere
            if number >= self._life.settings.agent.max_turns:
                return Outcome(kind=OutcomeKind.COMPLETED)
            spent = self._budget.before_next_turn()
            if spent is not None:
                return spent
            number += 1

    async def _turn(self, number: int) -> Outcome | None:
        progress, run_id = self._progress, self.spec.run_id
        turn_id = f"turn-{run_id}-{number}"
        progress.turn_id, progress.turn_count = turn_id, number
        self._heard()
        await self._record(
            self._life.ledger.turn_started(
                run_id,
                turn_id=turn_id,
                thread_id=progress.thread_id or "",
                number=number,
                wall=self._life.clock().wall,
            )
        )
        is_last = number >= self._plan.turns
        if self._world.model_is_down:
            return Outcome(kind=OutcomeKind.FAILED, category="turn_failed", code="serverOverloaded")
        self._budget.begin_turn()
        await self._works_for(self._plan.turn_s)
        self._budget.end_turn()
        ended = self._budget.outcome
        if ended is None and is_last:
            ended = await self._ends()
        if is_last and ended is None and self._plan.moves_to is not None:
            self._world.note(f"{run_id} moves {self.spec.issue_id} to {self._plan.moves_to}")
            self._world.board.change(self.spec.issue_id, state=self._plan.moves_to)
            await self._works_for(self._rng.uniform(0.1, 4.0))
        await self._record(
            self._life.ledger.turn_ended(
                run_id,
                turn_id=turn_id,
                status="completed" if ended is None else ended.kind.value,
                wall=self._life.clock().wall,
                usage=progress.usage,
                spend=progress.spend(self._life.clock().mono),
            )
        )
        return ended

    async def _works_for(self, seconds: float) -> None:
        assert self._process is not None
        stall_s = self._life.settings.codex.stall_timeout_s or 600.0
        left = seconds
        while left > 0:
            pause = min(left, stall_s * self._rng.uniform(0.2, 0.7))
            await self._process.lives_for(pause)
            left -= pause
            self._heard()
            self._life.used(self.spec.run_id, self._progress, self._rng.randint(1, 900))
            self._budget.look()
            if self._budget.crossed is not None:
                return

    async def _ends(self) -> Outcome | None:
        assert self._process is not None
        failed = OutcomeKind.FAILED
        match self._plan.end:
            case "completes":
                return None
            case "fails":
                return Outcome(kind=failed, category="turn_failed", message="the model failed")
            case "hangs":
                await self._process.lives_for(4000.0)
                return Outcome(kind=OutcomeKind.TIMED_OUT, category="turn_timeout")
            case "exits":
                self._world.end_process(self._process, "exit")
                await self._process.lives_for(0.0)
            case "asks_input":
                return Outcome(
                    kind=OutcomeKind.INPUT_REQUIRED,
                    category="turn_input_required",
                    question=self._question(),
                )
            case "asks_approval":
                return Outcome(
                    kind=OutcomeKind.APPROVAL_REQUIRED,
                    category="approval_required",
                    question=Question(kind=QuestionKind.COMMAND, text="run make", detail="make"),
                )
            case "times_out":
                return Outcome(kind=OutcomeKind.TIMED_OUT, category="turn_timeout")
            case "is_interrupted":
                return Outcome(kind=OutcomeKind.INTERRUPTED, category="turn_cancelled")
            case "bad_model":
                return Outcome(
                    kind=failed, category="turn_failed", code="badRequest", retryable=False
                )
            case "usage_limit":
                wait_s = self._rng.choice([None, -5.0, 60.0, 1500.0])
                at = None if wait_s is None else self._life.clock().wall + wait_s
                return Outcome(
                    kind=failed, category="turn_failed", code="usageLimitExceeded", retry_at=at
                )
            case "context_window":
                return Outcome(kind=failed, category="turn_failed", code="contextWindowExceeded")
        raise AgentBug("an attempt that raises")

    def _question(self) -> Question | None:
        """What it asks; now and then a record of it is missing, as of a former version."""
        if self._rng.random() < 0.1:
            return None
        options = (Option(label="Red"), Option(label="Blue"))
        ask = Ask(id="q", text=f"Which, {self.spec.run_id}?", options=options)
        return Question(kind=QuestionKind.INPUT, text=ask.text, asks=(ask,))

    async def _goes_on(self) -> bool:
        try:
            # Adapters give up by themselves some time.
            async with asyncio.timeout(100.0):
                assert self._life.reads is not None
                found = await self._life.reads.read(self.tracker, [self.spec.issue_id])
        except TimeoutError as error:
            raise TrackerError("tracker_request", "no answer") from error
        if not found:
            return False
        self._progress.issue = found[0]
        self._life.post(RunIssueChanged(self.spec.run_id, found[0]))
        tracker = self._life.settings.tracker
        return (
            found[0].state_key in tracker.active_state_keys
            and found[0].dispatchable
            and set(tracker.required_labels) <= set(found[0].labels)
        )

    async def _tree_mark(self) -> str | None:
        """What the turn left: often something new, sometimes nobody can tell."""
        await asyncio.sleep(0.05)
        trees = self._world.trees
        if self._rng.random() < 0.6:
            trees[self.spec.issue_id] = trees.get(self.spec.issue_id, 0) + 1
        told = self._rng.random() < 0.95
        return str(trees.get(self.spec.issue_id, 0)) if told else None

    def _heard(self) -> None:
        self._progress.last_activity_mono = self._life.clock().mono
        self._progress.last_event = "item/updated"

    async def _record(self, write: Any) -> None:
        try:
            await write
        except LedgerError:
            self._world.note(f"{self.spec.run_id}: ledger write failed")

    async def _finish(self, outcome: Outcome | None = None) -> None:
        progress = self._progress
        progress.phase = Phase.FINISHING
        if outcome is not None:
            now = self._life.clock()
            await self._record(
                self._life.ledger.run_outcome(
                    self.spec.run_id,
                    outcome,
                    usage=progress.usage,
                    seconds=now.mono - progress.started_mono,
                    spend=progress.spend(now.mono),
                    wall=now.wall,
                )
            )
        process = self._process
        if process is not None and process.is_alive:
            try:
                await process.lives_for(self._rng.choice([0.05, 0.05, 0.3, 5.0]))
            except HostError:
                self._world.note(f"{self.spec.run_id}: its process went by itself")
            finally:
                if not self._life.is_dead:
                    self._world.end_process(process)
        if self._workspace is not None:
            await self._life.workspaces.after_run(self._workspace, self.spec)


__all__ = ["AgentBug", "InvariantBroken", "SimAttempt"]
