"""What exists whether or not the daemon lives: processes, workspaces, threads, hosts, the disk."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from symphony.errors import HostError, WorkspaceError
from symphony.hosts.base import ProcessIdentity
from symphony.hosts.sweep import EndedProcess
from symphony.model.issue import Issue, IssueId
from symphony.model.run import Outcome, RunId, RunSpec
from symphony.model.usage import TokenUsage
from symphony.scheduler.commands import SaveEnd
from symphony.scheduler.events import BreakerRecord
from symphony.workspaces.manager import Workspace

from .board import Board, SimTracker
from .scenario import BOARDS, Scenario, Weather
from .timeline import Timeline


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """The ledger is told what a run has come to that is being wound up."""

    run_id: RunId
    outcome: Outcome


class InvariantBroken(AssertionError):
    """What must never be has come to be."""


@dataclass(slots=True)
class Process:
    """An agent at work on some host."""

    pid: int
    run_id: RunId
    issue_id: IssueId
    host: str
    lifetime: int
    end: str | None = None
    _waiter: asyncio.Future[None] | None = None

    @property
    def is_alive(self) -> bool:
        return self.end is None

    async def lives_for(self, seconds: float) -> None:
        """Wait; raises where it dies meanwhile."""
        if self.end is None:
            loop = asyncio.get_running_loop()
            waiter = self._waiter = loop.create_future()
            timer = loop.call_later(seconds, _settle, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                self._waiter = None
        if self.end == "host":
            raise HostError("host_lost", f"host {self.host} is lost")
        if self.end is not None:
            raise HostError("port_exit", "the app-server exited")

    def kill(self, why: str) -> None:
        if self.end is None:
            self.end = why
            if self._waiter is not None:
                _settle(self._waiter)


def _settle(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


@dataclass(slots=True)
class Memory:
    """What the oracle remembers of earlier lifetimes.

    Attributes:
        failures: Failed runs in a row behind each claim that was ever made, by what it shows.
        saved: When each issue's saved retry is due, and how the wall clock stood to it.
        durable: Tokens of runs whose end is surely in the ledger.
        claims: What the ledger was last told of each issue, and by which order.
        breakers: The same of each class of failures.
        replies: The answer that goes with each issue, and by which order.
        stopped: The live run of an issue that an operator has stopped, and by which order.
        followed: Runs whose end has given their issue another claim, or none.
        specs: What each run was started with.
        newest: The run of each issue that was started last.
        outcomes: What runs have come to whose end is not on the disk, as far as that is there.
        recorded: Runs whose end is on the disk.
        park: When the park that the ledger was told of ends, how the wall clock stood, and by
            which order; None for no park.
        holds: Whether the ledger was told that a scope is held, and by which order.
        number: Of the order to the ledger that is looked at; 0 is what a start has found there.
        written: The highest number that is on the disk. Orders are written as they were given.
        passed_over: An order that was not written though a later one was, or None.
        died: When the last lifetime ended.
        disk_has_failed: What the ledger was told may not be what it holds.
    """

    run_ids: set[RunId] = field(default_factory=set)
    failures: dict[tuple[Any, ...], int] = field(default_factory=dict)
    saved: dict[IssueId, tuple[float, float]] = field(default_factory=dict)
    durable: dict[RunId, int] = field(default_factory=dict)
    claims: dict[IssueId, tuple[str | None, int]] = field(default_factory=dict)
    replies: dict[IssueId, tuple[str | None, int]] = field(default_factory=dict)
    stopped: dict[IssueId, tuple[RunId, int]] = field(default_factory=dict)
    followed: set[RunId] = field(default_factory=set)
    specs: dict[RunId, RunSpec] = field(default_factory=dict)
    newest: dict[IssueId, RunId] = field(default_factory=dict)
    outcomes: dict[RunId, Outcome] = field(default_factory=dict)
    recorded: set[RunId] = field(default_factory=set)
    park: tuple[float | None, float, int] = (None, 0.0, 0)
    died: float = 0.0
    disk_has_failed: bool = False
    spent: int = 0
    shown_tokens: dict[int, int] = field(default_factory=dict)
    breakers: dict[str, tuple[BreakerRecord | None, int]] = field(default_factory=dict)
    holds: dict[str | None, tuple[bool, int]] = field(default_factory=dict)
    number: int = 0
    written: int = 0
    passed_over: str | None = None
    _given: int = 0
    _numbers: dict[int, tuple[object, int]] = field(default_factory=dict)

    def give(self, orders: Sequence[object]) -> None:
        """Number what the ledger is told now; ``number_of`` has it."""
        for order in orders:
            self._given += 1
            # The order is kept, so that no other one gets its identity.
            self._numbers[id(order)] = (order, self._given)

    def number_of(self, order: object) -> int:
        return self._numbers[id(order)][1]

    def wrote(self, order: object) -> None:
        """The ledger has put this order on the disk; those that were given before it are there."""
        if isinstance(order, RunOutcome):
            if order.run_id not in self.recorded:
                self.outcomes[order.run_id] = order.outcome
            return
        if isinstance(order, SaveEnd):
            self.outcomes.pop(order.ended.run_id, None)
            self.recorded.add(order.ended.run_id)
        _, number = self._numbers.pop(id(order), (None, self.written))
        if number > self.written + 1 and not self.disk_has_failed:
            self.passed_over = f"{self.written + 1} of {self._given}, before {order}"
        self.written = max(self.written, number)

    def restart(self) -> None:
        """What was not written by now never will be."""
        self.written, self.passed_over = self._given, None
        self._numbers.clear()

    def is_written(self, number: int) -> bool:
        """Say whether an order must be found by the next start: it, or a later one, is written."""
        return number <= self.written and not self.disk_has_failed

    @property
    def durable_tokens(self) -> int:
        return sum(self.durable.values())


@dataclass(slots=True)
class World:
    """All of it. ``note`` takes a line for the trace, ``die_within`` has the daemon killed soon."""

    scenario: Scenario
    timeline: Timeline
    weather: Weather
    note: Callable[[str], None]
    die_within: Callable[[float], None]
    rng: Random = field(init=False)
    fate: Random = field(init=False)
    board: Board = field(init=False)
    trackers: dict[str, SimTracker] = field(init=False)
    processes: dict[int, Process] = field(default_factory=dict)
    workspaces: dict[str, str] = field(default_factory=dict)
    threads: dict[str, TokenUsage] = field(default_factory=dict)
    trees: dict[IssueId, int] = field(default_factory=dict)
    marks: dict[str, int] = field(default_factory=dict)
    dead_hosts: set[str] = field(default_factory=set)
    disk_fails: bool = False
    pids: int = 0
    starts: int = 0
    steps: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    is_quiet: bool = False
    model_is_down: bool = False
    short: set[str] = field(default_factory=set)
    traces: bool = False
    sweeps: bool = True
    wound_up: set[RunId] = field(default_factory=set)
    memory: Memory = field(default_factory=Memory)

    def __post_init__(self) -> None:
        seed = self.scenario.seed
        self.rng = Random(f"world {seed}")
        self.fate = Random(f"winding up {seed}")
        self.board = Board(self.scenario, Random(f"people {seed}"))
        rng = Random(f"tracker {seed}")
        self.trackers = {
            scope: SimTracker(self.board, scope=scope, weather=self.weather, rng=rng)
            for scope in BOARDS
        }

    # Processes

    def start_process(self, spec: RunSpec, lifetime: int) -> Process:
        """Start an agent.

        Raises:
            HostError: The host is lost.
            InvariantBroken: Another agent is at work on the issue.
        """
        if spec.host in self.dead_hosts:
            raise HostError("host_lost", f"host {spec.host} does not answer")
        for other in self.alive():
            if other.issue_id == spec.issue_id:
                raise InvariantBroken(
                    f"two live agents on {spec.issue_id}: {other.run_id} and {spec.run_id}"
                )
        self.pids += 1
        self.starts += 1
        process = Process(self.pids, spec.run_id, spec.issue_id, spec.host, lifetime)
        self.processes[process.pid] = process
        return process

    def alive(self) -> list[Process]:
        return list(self.processes.values())

    def end_process(self, process: Process, why: str = "ended") -> None:
        process.kill(why)
        self.processes.pop(process.pid, None)

    def daemon_died(self) -> None:
        """The supervisor sees the end of its channel and kills; now and then it is killed too."""
        for process in self.alive():
            if self.rng.random() < self.weather.orphan:
                self.note(f"orphan stays: {process.run_id}")
                # Nobody of the dead daemon is to be woken by its end.
                process._waiter = None
            else:
                self.end_process(process, "supervisor")

    def sweep(
        self,
        identities: Sequence[ProcessIdentity],
        *,
        run_ids: Collection[str] = (),
        instance: str | None = None,
        **_: Any,
    ) -> list[EndedProcess]:
        """End what carries one of these marks, as ``hosts.sweep.end_trees`` does."""
        if not self.sweeps:
            return []
        found = [one for one in self.alive() if instance is not None or one.run_id in run_ids]
        for process in found:
            self.end_process(process, "swept")
        return [EndedProcess(one.pid, one.run_id, "codex app-server", True) for one in found]

    def lose_host(self, host: str) -> None:
        self.dead_hosts.add(host)
        for process in self.alive():
            if process.host == host:
                self.end_process(process, "host")

    # Threads

    def use(self, thread_id: str, tokens: int) -> TokenUsage:
        """Add to a thread's running total and return it."""
        total = self.threads.get(thread_id, TokenUsage())
        self.memory.spent += 2 * tokens
        self.threads[thread_id] = total = total + TokenUsage(tokens, tokens, 2 * tokens)
        return total


class SimWorkspaces:
    """The workspaces' face towards executor and attempts; directories are names in a map."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def existing_paths(self) -> set[str]:
        await asyncio.sleep(0.001)
        return set(self._world.workspaces.values())

    async def prepare(self, spec: RunSpec) -> Workspace:
        world = self._world
        await asyncio.sleep(world.rng.uniform(0.01, 2.0))
        if world.rng.random() < world.weather.prepare_fails:
            raise WorkspaceError("workspace_root_unwritable", "the root can't be written")
        name = spec.issue.identifier
        path = world.workspaces.setdefault(name, f"/workspaces/{name}")
        return Workspace(path, name, "/workspaces", True)

    async def before_run(self, workspace: Workspace, spec: RunSpec) -> None:
        await asyncio.sleep(0.01)

    async def tree_mark(self, path: str) -> str | None:
        """What the turn left: often something new, sometimes nobody can tell."""
        world = self._world
        await asyncio.sleep(0.05)
        if world.rng.random() < 0.6:
            world.marks[path] = world.marks.get(path, 0) + 1
        return str(world.marks.get(path, 0)) if world.rng.random() < 0.95 else None

    async def find(self, issue: Issue, path: str) -> Workspace | None:
        await asyncio.sleep(0.001)
        if self._world.workspaces.get(issue.identifier) != path:
            return None
        return Workspace(path, issue.identifier, "/workspaces", False)

    async def after_run(self, workspace: Workspace, spec: RunSpec) -> None:
        world = self._world
        slow = world.rng.random() < world.weather.slow_finish
        await asyncio.sleep(world.rng.uniform(10.0, 59.0) if slow else 0.01)
        if world.fate.random() < world.weather.dies_winding_up:
            world.die_within(5.0)
            await asyncio.sleep(5.0)
        world.wound_up.add(spec.run_id)

    async def remove(self, issue: Issue, *, path: str | None = None) -> bool:
        world = self._world
        for process in world.alive():
            if process.issue_id == issue.id:
                raise InvariantBroken(f"{issue.identifier} is cleaned under {process.run_id}")
        await asyncio.sleep(world.rng.uniform(0.01, 3.0))
        if world.rng.random() < world.weather.clean_fails:
            raise WorkspaceError("workspace_remove_failed", "the directory resists")
        return world.workspaces.pop(issue.identifier, None) is not None
