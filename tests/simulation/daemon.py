"""One lifetime of the daemon: the real scheduler and engine, composed as the service does it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from symphony.config.settings import Settings
from symphony.engine.executor import Executor
from symphony.engine.loop import Loop, Mailbox
from symphony.engine.publisher import Publisher
from symphony.engine.recovery import recover
from symphony.engine.spending import SpendReporter
from symphony.engine.stalls import watch_for_stalls
from symphony.engine.trackers import TrackerSlot
from symphony.model.allowance import Allowance
from symphony.model.clock import Instant
from symphony.model.issue import IssueId
from symphony.model.question import Answer
from symphony.model.resources import HostResources
from symphony.model.run import RunId, RunProgress, RunSpec
from symphony.model.spend import Raise
from symphony.scheduler.claims import Blocked
from symphony.scheduler.commands import Command
from symphony.scheduler.events import (
    CandidatesFailed,
    CandidatesFetched,
    CleanupEnded,
    ConfigBroken,
    ConfigRepaired,
    ControlAction,
    ControlRequested,
    Event,
    IssuesRefreshed,
    PaceObserved,
    RefreshFailed,
    RefreshRequested,
    ResourcesRead,
    RunEnded,
    SettingsChanged,
    ShutdownRequested,
    TerminalFailed,
    TerminalFetched,
)
from symphony.scheduler.publish import build_snapshot
from symphony.scheduler.snapshot import Snapshot
from symphony.scheduler.state import SchedulerState, new_state
from symphony.trackers.shared_reads import SharedReads

from .agents import SimAttempt
from .app_servers import RealAttempts
from .ledgers import Disk, ModelLedger, SqliteLedger
from .oracle import Oracle
from .scenario import settings_of
from .timeline import VirtualLoop
from .world import InvariantBroken, Process, SimWorkspaces, World

SHUTDOWN_LIMIT_S = 25.0
REPORT_ALL_S = 300.0
_ANSWERS = (
    CandidatesFetched,
    CandidatesFailed,
    IssuesRefreshed,
    RefreshFailed,
    RefreshRequested,
    TerminalFetched,
    TerminalFailed,
    CleanupEnded,
)


class WatchedMailbox(Mailbox):
    """Tells the oracle what the scheduler is about to be told."""

    def __init__(self, oracle: Oracle) -> None:
        super().__init__()
        self._oracle = oracle

    @property
    def is_empty(self) -> bool:
        return not self._events

    def take(self) -> Event | None:
        event = super().take()
        self._oracle.told(event)
        return event


class Lifetime:
    """From start to crash or stop.

    Attributes:
        is_dead: It has crashed or stopped; nothing of it may touch the world.
        is_up: It has told the scheduler what it remembers.
        stopped: It has gone through its shutdown.
        fault: What has ended it though it must not, or None.
    """

    def __init__(
        self,
        world: World,
        *,
        number: int,
        sections: dict[str, Any],
        disk: Disk,
        path: Path | None,
        folder: Path,
    ) -> None:
        self.world = world
        self.number = number
        self.sections = sections
        self.settings: Settings = settings_of(sections)
        self.rng = Random(f"life {world.scenario.seed} {number}")
        self._pace_rng = Random(f"pace {world.scenario.seed} {number}")
        self.loop = VirtualLoop(world.timeline, lambda: self.rng.uniform(0.0005, 0.02))
        self.state: SchedulerState = new_state(
            self.settings, workflow_id="wf", seed=self.rng.getrandbits(128)
        )
        self.progress: dict[RunId, RunProgress] = {}
        self.trackers = TrackerSlot(world.trackers[scope_of(sections)])
        self.workspaces = SimWorkspaces(world)
        self.ledger: Any = None
        self.executor: Executor | None = None
        self.reporter: SpendReporter | None = None
        self.oracle = Oracle(self)
        self.mailbox = WatchedMailbox(self.oracle)
        self.is_dead = self.is_up = self.stopped = False
        self.fault: BaseException | None = None
        self.file: dict[str, Any] | None = sections
        self.broken_since: str | None = None
        self._seen: dict[str, Any] | None = sections
        self._disk = disk
        self._path = path
        self._folder = folder
        self._real: RealAttempts | None = None
        self._stop: asyncio.Event | None = None
        self._force: asyncio.Event | None = None
        self._late: set[asyncio.TimerHandle] = set()
        self.snapshot: Snapshot | None = None
        self.loop.enter()
        self.main = self.loop.create_task(self._main(), name="daemon")

    def clock(self) -> Instant:
        return self.world.timeline.now()

    # What the service composes

    async def _main(self) -> None:
        self._stop, self._force = asyncio.Event(), asyncio.Event()
        self.ledger = self._open_ledger()
        self.oracle.finds(self.ledger.half_written())
        restored = await recover(
            self.ledger, instance="sim", clock=self.clock, sweep=self.world.sweep
        )
        for host in sorted(self.world.short):
            self.tell_resources(host)
        self.mailbox.post(restored)
        self.is_up = True
        async with asyncio.TaskGroup() as tasks:
            await self._serve(tasks)
        await self.ledger.aclose()
        self.stopped = True

    def _open_ledger(self) -> Any:
        if self._path is None:
            return ModelLedger(self._disk, self.clock)
        return SqliteLedger(self._path, disk=self._disk, clock=self.clock)

    async def _serve(self, tasks: asyncio.TaskGroup) -> None:
        assert self._stop is not None
        self.reads = SharedReads(tasks)
        self.executor = Executor(
            tasks=tasks,
            post=self._post_from_executor,
            clock=self.clock,
            tracker=lambda: self.trackers.current,  # type: ignore[arg-type,return-value]
            workspaces=self.workspaces,  # type: ignore[arg-type]
            ledger=self.ledger,
            make_attempt=self._make_attempt,
            progress=self.progress,
            describe=str,
            before_poll=self.look_at_file,
            observe_pace=self._observe_pace,
            read_issues=self.reads.read,
        )
        publisher = Publisher(
            build=self._build,
            publish=self._publish,
            durable=self.ledger.flush,
            progress=self.progress,
            settle=str,
        )
        loop = Loop(
            state=self.state,
            mailbox=self.mailbox,
            execute=self._execute,
            clock=self.clock,
            stepped=lambda: self._stepped(publisher),
        )
        self.reporter = SpendReporter(
            progress=self.progress,
            post=self.mailbox.post,
            ledger=self.ledger,
            clock=self.clock,
            all_s=REPORT_ALL_S,
        )
        endless: list[Coroutine[Any, Any, None]] = [
            loop.run(),
            self.reporter.run(),
            watch_for_stalls(
                progress=self.progress,
                limit_s=lambda: self.settings.codex.stall_timeout_s,
                now=lambda: self.clock().mono,
                post=self.mailbox.post,
            ),
        ]
        if self.world.scenario.publishes:
            endless.append(publisher.run())
        background = [tasks.create_task(self._endless(work)) for work in endless]
        await self._stop.wait()
        await self._shut_down(self.executor, background)

    async def _endless(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            self.fault = error
            raise

    async def _shut_down(self, executor: Executor, background: list[asyncio.Task[None]]) -> None:
        self.mailbox.post(ShutdownRequested())
        if not await self._runs_ended(executor):
            self.world.note("runs are killed")
            self.oracle.is_forced = True
            for process in self.world.alive():
                if process.lifetime == self.number:
                    self.world.end_process(process, "killed")
            executor.cancel_all()
        with suppress(TimeoutError):
            async with asyncio.timeout(5.0):
                await self.mailbox.caught_up()
        await executor.drained()
        for task in background:
            task.cancel()
        await asyncio.wait(background)

    async def _runs_ended(self, executor: Executor) -> bool:
        assert self._force is not None
        ended = asyncio.create_task(executor.idle())
        forced = asyncio.create_task(self._force.wait())
        try:
            await asyncio.wait(
                (ended, forced), timeout=SHUTDOWN_LIMIT_S, return_when=asyncio.FIRST_COMPLETED
            )
            return ended.done()
        finally:
            for task in (ended, forced):
                task.cancel()
            await asyncio.wait((ended, forced))

    def request_stop(self) -> None:
        assert self._stop is not None
        assert self._force is not None
        if self._stop.is_set():
            self._force.set()
        self._stop.set()

    # The seams

    def _make_attempt(self, spec: RunSpec, progress: RunProgress) -> Any:
        if not self.world.scenario.real_attempts:
            return SimAttempt(spec, progress, self)
        if self._real is None:
            self._real = RealAttempts(self, self._folder)
        return self._real.make(spec, progress)

    def start_process(self, spec: RunSpec) -> Process:
        if self.is_dead:
            raise InvariantBroken("a dead daemon starts a process")
        self.oracle.process_starts(spec)
        return self.world.start_process(spec, self.number)

    def used(self, run_id: RunId, progress: RunProgress, tokens: int) -> None:
        assert progress.thread_id is not None
        total = self.world.use(progress.thread_id, tokens)
        added = progress.meter.report(progress.thread_id, total)
        progress.cost.add(added, self.settings.budget.price_of(progress.model))
        assert self.reporter is not None
        self.reporter.touch(run_id)

    def post(self, event: Event) -> None:
        self.mailbox.post(event)

    def _post_from_executor(self, event: Event) -> None:
        weather, rng = self.world.weather, self.rng
        if isinstance(event, PaceObserved):
            self.mailbox.post(event)
            return
        if isinstance(event, RunEnded):
            self.oracle.run_reported(event)
            self.mailbox.post(event)
            if rng.random() < weather.ended_doubled:
                self._later(event)
            return
        assert isinstance(event, _ANSWERS)
        if rng.random() < weather.answer_late:
            self._later(event)
        else:
            self.mailbox.post(event)
        if rng.random() < weather.answer_doubled:
            self._later(event)

    def _observe_pace(self) -> PaceObserved:
        """What a tracker may say of its budgets, true or not; and webhooks that come and go."""
        rng = self._pace_rng
        if rng.random() < 0.5:
            return PaceObserved((), rng.random() < 0.2)
        limit = rng.choice([None, 60, 5_000])
        remaining = rng.randrange((limit or 100) + 1)
        reset_in_s = rng.choice([-5.0, 0.0, 20.0, 3_600.0])
        return PaceObserved((Allowance("", limit, remaining, reset_in_s),), rng.random() < 0.2)

    def _later(self, event: Event) -> None:
        delay_s = self.rng.choice([0.0, 0.2, 4.0, 9.0, 40.0])
        self.loop.call_later(delay_s, self.mailbox.post, event)

    def _execute(self, commands: list[Command]) -> None:
        self.oracle.commanded(commands)
        assert self.executor is not None
        self.executor.execute(commands)

    def _stepped(self, publisher: Publisher) -> None:
        self.oracle.stepped()
        publisher.request()

    def _build(self) -> Snapshot:
        return build_snapshot(self.state, self.progress, self.clock(), sequence=1, rate_limits=None)

    def _publish(self, snapshot: Snapshot) -> None:
        self.oracle.shown(snapshot)

    # What the ledger holds, for the oracle

    def check_recorded(self, spec: RunSpec) -> None:
        """A process starts: the run must be durable by then, unless the disk fails."""
        if self._path is None and not self.ledger.has_failed:
            record = self._disk.store.runs.get(spec.run_id)
            if record is None or record.ended is not None:
                raise InvariantBroken(f"{spec} has a process but no row")

    def check_durable(self, snapshot: Snapshot) -> None:
        """A published retry or block must be in the ledger."""
        if self._path is not None or self.ledger.has_failed:
            return
        for kind, rows in (("retry", snapshot.retrying), ("blocked", snapshot.blocked)):
            for row in rows:
                held = self._disk.store.claims.get(IssueId(row.issue_id))
                # A restored run is shown as a retry; the ledger still calls it running.
                recovers = row.issue_id in self.oracle.recovering
                if held is None or held.claim.kind != ("running" if recovers else kind):
                    raise InvariantBroken(f"shown but not durable: {row}, {held}")

    # The workflow file

    def look_at_file(self) -> None:
        """Take over what the file holds, as the store's watch or its look before a poll does."""
        if self.is_dead or not self.is_up or self.file is self._seen:
            return
        before, self._seen = self._seen, self.file
        if self.file is None:
            self.mailbox.post(ConfigBroken("line 3: not a map"))
        elif self.file is self.sections:
            if before is None:
                self.mailbox.post(ConfigRepaired())
        else:
            if scope_of(self.file) != scope_of(self.sections):
                self.trackers.exchange(self.world.trackers[scope_of(self.file)])
            self.sections = self.file
            self.settings = settings_of(self.file)
            self.mailbox.post(SettingsChanged(self.settings))

    def tell_resources(self, host: str) -> None:
        """What the watch of the host has read."""
        free_mb = 1 if host in self.world.short else 9000
        self.mailbox.post(ResourcesRead(HostResources(host=host, free_memory_mb=free_mb)))

    def refresh(self) -> None:
        if not self.is_dead:
            self.mailbox.post(RefreshRequested())

    def order(
        self,
        action: ControlAction,
        identifier: str | None,
        amounts: Raise | None = None,
        answer: Answer | None = None,
    ) -> None:
        """An operator's order, or one that comes when nobody listens any more."""
        if not self.is_dead and self.is_up:
            by = Raise() if amounts is None else amounts
            self.mailbox.post(
                ControlRequested(
                    action, identifier, "because", amounts=by, answer=answer, for_s=1800.0
                )
            )

    def blocked(self) -> list[Blocked]:
        return [claim for claim in self.state.claims if isinstance(claim, Blocked)]

    # Its end

    def crash(self) -> None:
        self.is_dead = True
        self.world.memory.died = self.world.timeline.mono
        self.world.daemon_died()
        self._close()

    def end(self) -> None:
        """After its shutdown: nothing of it may be left."""
        self.is_dead = True
        self.world.memory.died = self.world.timeline.mono
        self.oracle.ended()
        left = [task for task in asyncio.all_tasks(self.loop) if task is not self.main]
        self._close()
        if left:
            raise InvariantBroken(f"tasks outlive the shutdown: {left}")

    def _close(self) -> None:
        if isinstance(self.ledger, SqliteLedger):
            self.ledger.writer.kill()
        self.loop.abandon()


def scope_of(sections: dict[str, Any]) -> str:
    return str(sections["tracker"]["provider"]["board"])
