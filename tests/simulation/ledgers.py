"""The ledger as it stands at a crash: a model in memory, and the real one without its thread.

Both write in batches some time after they are asked, and tell their caller later still, so a crash
can fall before the write, between two writes, and between the write and the word of it. While the
disk fails, writes raise, are kept, and are made once it is well.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from symphony.errors import LedgerError
from symphony.hosts.base import ProcessIdentity
from symphony.ledger import Ledger, operations, schema
from symphony.ledger.decisions import bind
from symphony.ledger.ledger import EVENTS_KEPT
from symphony.ledger.reading import LedgerContents, OpenRun, read_only
from symphony.ledger.spending import RunSpend
from symphony.ledger.writer import Operation, Part, WriterThread
from symphony.model.clock import Instant
from symphony.model.issue import Issue, IssueId
from symphony.model.run import Outcome, RunId, RunSpec
from symphony.model.spend import NO_SPEND, IdleTurns, Spend
from symphony.model.usage import TokenUsage
from symphony.scheduler import commands as c
from symphony.scheduler.commands import SaveClaim
from symphony.scheduler.events import (
    BreakerRecord,
    Hold,
    Override,
    RaiseOrder,
    Restored,
    RestoredClaim,
    RestoredPark,
    RestoredSpend,
    RunEnded,
)

from .world import RunOutcome

T = TypeVar("T")
DIED = "daemon_ended"


@dataclass(slots=True)
class Disk:
    """What survives. ``fails`` and ``delay`` are the world's.

    Attributes:
        dies_in: After so many more writes the daemon is killed, those that wait with it; None: not.
        has_died: That has come.
        writes: How many there were.
        wrote: Is told of each order that has been written.
    """

    fails: Callable[[], bool]
    delay: Callable[[], float]
    wrote: Callable[[object], None]
    store: Store = field(default_factory=lambda: Store())
    dies_in: int | None = None
    has_died: bool = False
    writes: int = 0

    def lets_through(self, waiting: deque[T]) -> list[T]:
        """Take the writes that are made now: all that wait, or as many as are left until death."""
        number = len(waiting) if self.dies_in is None else min(self.dies_in, len(waiting))
        if self.dies_in is not None:
            self.dies_in -= number
            self.has_died = self.dies_in == 0
        self.writes += number
        return [waiting.popleft() for _ in range(number)]


@dataclass(slots=True)
class RunRecord:
    spec: RunSpec
    started_wall: float
    seen_wall: float
    usage: TokenUsage = field(default_factory=TokenUsage)
    seconds: float = 0.0
    spend: Spend = NO_SPEND
    ended: Outcome | None = None
    thread_id: str | None = None
    workspace_path: str | None = None
    processes: list[ProcessIdentity] = field(default_factory=list)


@dataclass(slots=True)
class ClaimRecord:
    claim: SaveClaim
    saved_wall: float
    run_id: RunId | None = None
    stopped: str | None = None
    outcome: Outcome | None = None


@dataclass(slots=True)
class Store:
    """The rows."""

    runs: dict[RunId, RunRecord] = field(default_factory=dict)
    claims: dict[IssueId, ClaimRecord] = field(default_factory=dict)
    holds: dict[str | None, Hold] = field(default_factory=dict)
    breakers: dict[str, BreakerRecord] = field(default_factory=dict)
    override: Override | None = None
    raises: dict[str, RaiseOrder] = field(default_factory=dict)
    sums: dict[tuple[IssueId, str], Spend] = field(default_factory=dict)
    identifiers: dict[IssueId, str] = field(default_factory=dict)
    park: tuple[float, str, float] | None = None

    def charge(self, issue: Issue, wall: float, spend: Spend) -> None:
        key = (issue.id, datetime.fromtimestamp(wall, UTC).date().isoformat())
        self.sums[key] = self.sums.get(key, Spend()) + spend
        self.identifiers[issue.id] = issue.identifier

    def start(self, spec: RunSpec, wall: float) -> None:
        if spec.run_id not in self.runs:
            self.charge(spec.issue, wall, Spend(runs=1))
        self.runs.setdefault(spec.run_id, RunRecord(spec, wall, wall, thread_id=spec.thread_id))
        claim = SaveClaim(
            kind="running",
            issue=spec.issue,
            attempt=spec.attempt,
            retry_kind=spec.retry_kind,
            error=spec.previous_error,
            thread_id=spec.thread_id,
            host=spec.host,
            since_wall=wall,
            failures=spec.failures,
            idle=spec.idle,
            reply=spec.reply,
        )
        self.claims[spec.issue_id] = ClaimRecord(claim, wall, spec.run_id)

    def use(self, row: RunSpend, wall: float) -> None:
        run, usage, seconds = self.runs.get(row.run_id), row.usage, row.seconds
        if run is None:
            return
        before = run.seconds
        run.usage = run.usage if usage is None else run.usage + usage.since(run.usage)
        run.seconds = max(
            run.seconds, run.seen_wall - run.started_wall if seconds is None else seconds
        )
        run.seen_wall = max(run.seen_wall, wall)
        passed = Spend(wall_ms=int((run.seconds - before) * 1000))
        charged = passed if row.spend is None else row.spend.since(run.spend)
        run.spend = run.spend + charged
        self.charge(run.spec.issue, wall, charged)

    def end(self, row: RunSpend, outcome: Outcome, wall: float, thread_id: str | None) -> None:
        self.use(row, wall)
        self.settle(row.run_id, None)
        run = self.runs.get(row.run_id)
        if run is not None:
            run.ended = outcome
            run.thread_id = thread_id or run.thread_id

    def change(self, run_id: RunId, **fields: Any) -> None:
        run = self.runs.get(run_id)
        if run is not None:
            for name, value in fields.items():
                setattr(run, name, value)

    def settle(self, run_id: RunId, outcome: Outcome | None) -> None:
        for record in self.claims.values():
            if record.run_id == run_id:
                record.outcome = outcome

    def stop(self, run_id: RunId, reason: str | None) -> None:
        for record in self.claims.values():
            if record.run_id == run_id:
                record.stopped = reason

    def save(self, command: c.Durable, wall: float) -> None:
        match command:
            case c.SaveEnd(ended):
                row = RunSpend(
                    run_id=ended.run_id, usage=ended.usage, seconds=ended.seconds, spend=ended.spend
                )
                self.end(row, ended.outcome, wall, ended.thread_id)
            case c.SaveClaim():
                self.claims[command.issue.id] = ClaimRecord(command, wall)
            case c.DropClaim(issue_id):
                self.claims.pop(issue_id, None)
            case c.SaveStop(run_id, _, reason):
                self.stop(run_id, reason)
            case c.SavePark(until_wall, reason):
                self.park = (until_wall, reason, wall)
            case c.DropPark():
                self.park = None
            case c.SaveHold(hold):
                self.holds[hold.scope] = hold
            case c.DropHold(scope):
                self.holds.pop(scope, None)
            case c.SaveBreaker(record):
                self.breakers[record.failure_class] = record
            case c.DropBreaker(name):
                self.breakers.pop(name, None)
            case c.SaveRaise(order):
                self.raises[order.scope] = order
            case c.SaveOverride(override):
                self.override = override

    def half_written(self) -> list[RunId]:
        """Runs that are their issue's claim though they have ended, and not with their daemon."""
        claimed = {record.run_id for record in self.claims.values()}
        return [
            run_id
            for run_id, run in self.runs.items()
            if run_id in claimed and run.ended is not None and run.ended.category != DIED
        ]

    def restored(self, now_wall: float) -> Restored:
        usage, seconds = TokenUsage(), 0.0
        for run in self.runs.values():
            usage = usage + run.usage
            seconds += run.seconds
        return Restored(
            tuple(self._claim(one, now_wall) for one in self.claims.values()),
            usage,
            seconds,
            tuple(self.holds.values()),
            tuple(self.breakers.values()),
            self._spend(),
            self._park(now_wall),
            self.override,
        )

    def _spend(self) -> RestoredSpend:
        issues: dict[IssueId, Spend] = {}
        days: dict[str, Spend] = {}
        for (issue_id, day), spend in self.sums.items():
            issues[issue_id] = issues.get(issue_id, Spend()) + spend
            days[day] = days.get(day, Spend()) + spend
        return RestoredSpend(issues, dict(self.identifiers), days, tuple(self.raises.values()))

    def _park(self, now_wall: float) -> RestoredPark | None:
        if self.park is None:
            return None
        until_wall, reason, saved_wall = self.park
        return RestoredPark(until_wall, reason, max(0.0, until_wall - max(now_wall, saved_wall)))

    def _claim(self, record: ClaimRecord, now_wall: float) -> RestoredClaim:
        claim = record.claim
        run = self.runs.get(record.run_id) if record.run_id is not None else None
        delay_s = None
        if claim.due_wall is not None:
            delay_s = max(0.0, claim.due_wall - max(now_wall, record.saved_wall))
        ended = run.ended if run is not None else None
        return RestoredClaim(
            kind=claim.kind,
            issue=claim.issue,
            attempt=claim.attempt,
            retry_kind=claim.retry_kind,
            error=(ended.message if ended is not None else None) or claim.error,
            delay_s=delay_s,
            thread_id=(run.thread_id if run is not None else None) or claim.thread_id,
            host=claim.host,
            workspace_path=(run.workspace_path if run is not None else None)
            or claim.workspace_path,
            blocked_category=claim.blocked_category,
            since_wall=claim.since_wall,
            failures=claim.failures,
            crossed=claim.crossed,
            idle=claim.idle,
            question=claim.question,
            reply=claim.reply,
            seen=claim.seen,
            stopped=record.stopped,
            ended=self._ended(record),
        )

    def _ended(self, record: ClaimRecord) -> RunEnded | None:
        run = None if record.run_id is None else self.runs.get(record.run_id)
        if record.run_id is None or run is None or record.outcome is None:
            return None
        return RunEnded(
            run_id=record.run_id,
            outcome=record.outcome,
            usage=run.usage,
            seconds=run.seconds,
            thread_id=run.thread_id,
            host=record.claim.host,
            workspace_path=run.workspace_path,
            spend=run.spend,
            idle=record.claim.idle,
        )

    def open_runs(self) -> tuple[OpenRun, ...]:
        return tuple(
            OpenRun(
                run_id=run_id,
                issue_id=run.spec.issue_id,
                issue_identifier=run.spec.issue.identifier,
                processes=tuple(run.processes),
                workspace_path=run.workspace_path,
                host=run.spec.host,
                thread_id=run.thread_id,
                started_wall=run.started_wall,
            )
            for run_id, run in self.runs.items()
            if run.ended is None
        )


_Parts = Sequence[tuple[str, Callable[[], object]]]


def key_of(command: c.Durable) -> str:
    """Which owed write this one replaces."""
    return bind(command, workflow_id="wf", wall=0.0, day="").key or ""


class ModelLedger:
    """The ledger's face over rows in memory."""

    degraded: str | None = None
    has_failed = False

    def __init__(self, disk: Disk, clock: Callable[[], Instant]) -> None:
        self._disk = disk
        self._store = disk.store
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[_Parts, asyncio.Future[None]]] = deque()
        self._owed: dict[str, Callable[[], object]] = {}
        self._is_planned = False

    async def run_started(self, spec: RunSpec, *, started_wall: float) -> None:
        def start() -> None:
            self._store.start(spec, started_wall)
            self._disk.wrote(spec)

        await self._write(f"run {spec.run_id} started", start)

    async def run_process(self, run_id: RunId, identity: ProcessIdentity) -> None:
        def add() -> None:
            if run_id in self._store.runs:
                self._store.runs[run_id].processes.append(identity)

        await self._write(f"run {run_id} process", add)

    async def run_workspace(self, run_id: RunId, path: str) -> None:
        await self._write(
            f"run {run_id} workspace", lambda: self._store.change(run_id, workspace_path=path)
        )

    async def run_thread(self, run_id: RunId, thread_id: str) -> None:
        await self._write(
            f"run {run_id} thread", lambda: self._store.change(run_id, thread_id=thread_id)
        )

    async def turn_started(self, run_id: RunId, **_: Any) -> None:
        await self._write(f"run {run_id} turn", lambda: None)

    async def turn_ended(
        self,
        run_id: RunId,
        *,
        wall: float,
        usage: TokenUsage | None = None,
        spend: Spend | None = None,
        **_: Any,
    ) -> None:
        row = RunSpend(run_id=run_id, usage=usage, spend=spend)
        await self._write(f"run {run_id} turn", lambda: self._store.use(row, wall))

    async def runs_spent(self, runs: Sequence[RunSpend]) -> None:
        wall, rows = self._clock().wall, tuple(runs)

        def spent() -> None:
            for row in rows:
                self._store.use(row, wall)

        await self._write("", spent)

    async def run_idle(self, run_id: RunId, idle: IdleTurns) -> None:
        def keep() -> None:
            for record in self._store.claims.values():
                if record.run_id == run_id:
                    record.claim = replace(record.claim, idle=idle)

        await self._write(f"run {run_id} idle", keep)

    async def run_outcome(
        self,
        run_id: RunId,
        outcome: Outcome,
        *,
        usage: TokenUsage,
        seconds: float,
        spend: Spend,
        wall: float,
    ) -> None:
        row = RunSpend(run_id=run_id, usage=usage, seconds=seconds, spend=spend)

        def keep() -> None:
            self._store.use(row, wall)
            self._store.settle(run_id, outcome)
            self._disk.wrote(RunOutcome(run_id, outcome))

        await self._write(f"run {run_id} outcome", keep)

    async def run_ended(
        self,
        run_id: RunId,
        outcome: Outcome,
        usage: TokenUsage | None = None,
        seconds: float | None = None,
        *,
        ended_wall: float,
        thread_id: str | None = None,
        spend: Spend | None = None,
    ) -> None:
        row = RunSpend(run_id=run_id, usage=usage, seconds=seconds, spend=spend)
        await self._write(
            f"run {run_id} ended", lambda: self._store.end(row, outcome, ended_wall, thread_id)
        )

    async def save(self, *commands: c.Durable) -> None:
        wall = self._clock().wall
        await self._write_all(
            [(key_of(command), partial(self._save, command, wall)) for command in commands]
        )

    def _save(self, command: c.Durable, wall: float) -> None:
        self._store.save(command, wall)
        self._disk.wrote(command)

    def record_event(self, *_: Any) -> None:
        """History is no concern of the scheduler."""

    async def flush(self) -> None:
        await self._write("flush", lambda: None)

    def half_written(self) -> list[RunId]:
        return self._store.half_written()

    async def load(self) -> LedgerContents:
        await asyncio.sleep(0.001)
        return LedgerContents(
            restored=self._store.restored(self._clock().wall), open_runs=self._store.open_runs()
        )

    async def workspace_issues(self) -> dict[str, IssueId]:
        runs = sorted(self._disk.store.runs.values(), key=lambda run: run.started_wall)
        return {
            run.workspace_path: run.spec.issue_id for run in runs if run.workspace_path is not None
        }

    async def aclose(self) -> None:
        self._commit()

    def _write(self, key: str, apply: Callable[[], object]) -> asyncio.Future[None]:
        return self._write_all([(key, apply)])

    def _write_all(self, parts: _Parts) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((parts, future))
        self._plan(self._disk.delay())
        return future

    def _plan(self, delay_s: float) -> None:
        if not self._is_planned:
            self._is_planned = True
            self._loop.call_later(delay_s, self._commit)

    def _commit(self) -> None:
        self._is_planned = False
        if self._disk.fails():
            self.has_failed = True
            writes, self._waiting = list(self._waiting), deque()
            for parts, _ in writes:
                for key, apply in parts:
                    if key:
                        self._owed.pop(key, None)
                        self._owed[key] = apply
            self._loop.call_soon(self._tell, writes, True)
            self._plan(5.0)
            return
        for apply in self._owed.values():
            apply()
        self._owed.clear()
        writes = self._disk.lets_through(self._waiting)
        for parts, _ in writes:
            for _, apply in parts:
                apply()
        self._loop.call_soon(self._tell, writes, False)

    def _tell(
        self, writes: Sequence[tuple[_Parts, asyncio.Future[None]]], is_failure: bool
    ) -> None:
        for _, future in writes:
            if future.done():
                continue
            if is_failure:
                future.set_exception(LedgerError("ledger_write_failed", "the disk fails"))
            else:
                future.set_result(None)


class SteppedWriter(WriterThread):
    """The real writer, its thread played by timers of the loop."""

    def __init__(
        self, connection: sqlite3.Connection, row_sink: Any, *, disk: Disk, path: Path
    ) -> None:
        self.degraded = None
        self.dropped_rows = 0
        self._connection = connection
        self._row_sink = row_sink
        self._loop = asyncio.get_running_loop()
        self._retry_s = 5.0
        self._wake = threading.Condition()
        self._writes = deque()
        self._rows = deque()
        self._owed = {}
        self._closing = False
        self._disk = disk
        self._is_planned = False
        self.tells: Sequence[object] = ()

    def submit_all(self, parts: Sequence[Part], **kwargs: Any) -> asyncio.Future[None]:
        future = super().submit_all(
            [*parts, *(Part(self._told(one)) for one in self.tells)], **kwargs
        )
        self.tells = ()
        self._plan(self._disk.delay())
        return future

    def _told(self, order: object) -> Operation:
        """What tells that the write which it belongs to is made."""
        return lambda _connection: self._disk.wrote(order)

    def close(self) -> None:
        self._turn()
        self._closing = True
        self._connection.close()

    def kill(self) -> None:
        """The process is gone: an open transaction is rolled back by the next one."""
        self._connection.close()

    def _plan(self, delay_s: float) -> None:
        if not self._is_planned:
            self._is_planned = True
            self._loop.call_later(delay_s, self._turn)

    def _turn(self) -> None:
        self._is_planned = False
        if self._closing:
            return
        writes, rows = self._disk.lets_through(self._writes), list(self._rows)
        self._rows.clear()
        self._process(writes, rows)
        if self._owed:
            self._plan(self._retry_s)

    def _transact(self, writes: Any, rows: list[Any]) -> None:
        if self._disk.fails():
            raise OSError("disk I/O error")
        super()._transact(writes, rows)


class SqliteLedger(Ledger):
    """The real ledger on a real file, with the stepped writer."""

    def __init__(self, path: Path, *, disk: Disk, clock: Callable[[], Instant]) -> None:
        opened = schema.open_file(path, now_wall=clock().wall)
        self.path = path
        self.notice = opened.notice
        self._workflow_id = "wf"
        self._clock = clock
        self.zone = lambda: UTC
        ring = operations.EventRing("wf", keep=EVENTS_KEPT)
        self.writer = SteppedWriter(opened.connection, ring.insert, disk=disk, path=path)
        self._writer = self.writer

    async def aclose(self) -> None:
        self.writer.close()

    async def run_started(self, spec: RunSpec, *, started_wall: float) -> None:
        done = super().run_started(spec, started_wall=started_wall)
        self.writer.tells = [spec]
        await done

    async def run_outcome(self, run_id: RunId, outcome: Outcome, **spent: Any) -> None:
        done = super().run_outcome(run_id, outcome, **spent)
        self.writer.tells = [RunOutcome(run_id, outcome)]
        await done

    async def save(self, *commands: c.Durable) -> None:
        self.writer.tells = commands
        await super().save(*commands)

    def half_written(self) -> list[RunId]:
        query = """
            SELECT run_id FROM claims JOIN runs USING (run_id)
            WHERE ended_wall IS NOT NULL AND coalesce(category, '') <> ?
        """
        with read_only(self.path) as connection:
            return [RunId(run_id) for (run_id,) in connection.execute(query, (DIED,))]
