"""The ledger's face: awaitable writes that are durable when they return, and reads in threads.

The engine writes here before the act that the record must survive (a run before its process, a
retry before it is shown) and reads here once at start. All writes go through ``writer``'s one
thread; nothing here ever blocks the event loop. No secret is ever given to it.

The scheduler is the authority and the ledger follows: a write for an issue replaces what the ledger
held of it. What fails is raised to the caller, who goes on; the ledger repeats it by itself.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, tzinfo
from functools import partial
from pathlib import Path

from symphony.hosts.base import ProcessIdentity
from symphony.model.clock import Instant
from symphony.model.issue import IssueId
from symphony.model.run import Outcome, RunId, RunSpec
from symphony.model.spend import IdleTurns, Spend
from symphony.model.usage import TokenUsage
from symphony.scheduler.commands import Durable
from symphony.scheduler.placement import LOCAL_HOST

from . import operations, reading, schema, spending
from .codec import capped
from .decisions import bind, end_of_run, outcome_of_run
from .reading import EventRow, LedgerContents, RunRow
from .spending import RunSpend
from .writer import Operation, WriterThread

EVENTS_KEPT = 200
"""Events that are kept of each run; older ones are overwritten."""
MESSAGE_LIMIT = 1000
"""Characters kept of an event's message."""


class Ledger:
    """One workflow's rows in one ledger file.

    Every awaited write raises ``LedgerError`` (``ledger_write_failed``) where it could not be made
    durable. Writes of claims and runs are then kept and made as soon as the disk allows.

    Attributes:
        path: The file.
        notice: What an operator must know about opening it (damage set aside, a backup), or None.
        zone: Returns the time zone of the days whose sums are kept.
    """

    def __init__(
        self,
        path: Path,
        *,
        workflow_id: str,
        clock: Callable[[], Instant],
        opened: schema.OpenedFile,
    ) -> None:
        self.path = path
        self.notice = opened.notice
        self._workflow_id = workflow_id
        self._clock = clock
        self.zone: Callable[[], tzinfo] = lambda: UTC
        ring = operations.EventRing(workflow_id, keep=EVENTS_KEPT)
        self._writer = WriterThread(opened.connection, ring.insert, loop=asyncio.get_running_loop())

    @classmethod
    async def open(cls, path: Path, *, workflow_id: str, clock: Callable[[], Instant]) -> Ledger:
        """Open the file, or make it; a damaged one is set aside (see ``notice``).

        Raises:
            LedgerError: ``ledger_too_new``, or ``ledger_write_failed`` where no file can be made.
        """
        opened = await asyncio.to_thread(schema.open_file, path, now_wall=clock().wall)
        return cls(path, workflow_id=workflow_id, clock=clock, opened=opened)

    @property
    def degraded(self) -> str | None:
        """Why the last write failed, or None while writes succeed."""
        return self._writer.degraded

    @property
    def dropped_events(self) -> int:
        """Events that were lost because the disk failed or did not keep up."""
        return self._writer.dropped_rows

    async def aclose(self) -> None:
        """Write what waits and close the file. Later writes raise ``LedgerError``."""
        await asyncio.to_thread(self._writer.close)

    async def run_started(self, spec: RunSpec, *, started_wall: float) -> None:
        """Record a run and make it its issue's claim. Await it before any process starts."""
        await self._write(
            partial(
                operations.start_run,
                workflow_id=self._workflow_id,
                spec=spec,
                started_wall=started_wall,
                day=self._day(started_wall),
            ),
            f"run {spec.run_id} started",
        )

    async def run_process(self, run_id: RunId, identity: ProcessIdentity) -> None:
        """Record a process of a run, so that a later daemon can end it as an orphan."""
        await self._write(
            partial(
                operations.add_process,
                workflow_id=self._workflow_id,
                run_id=run_id,
                identity=identity,
                wall=self._clock().wall,
            ),
            f"run {run_id} process {identity.pid}",
        )

    async def run_workspace(self, run_id: RunId, path: str) -> None:
        """Record where a run works."""
        await self._write(
            partial(operations.set_workspace, run_id=run_id, path=path), f"run {run_id} workspace"
        )

    async def run_thread(self, run_id: RunId, thread_id: str) -> None:
        """Record a run's thread, for a resume after a restart."""
        await self._write(
            partial(operations.set_thread, run_id=run_id, thread_id=thread_id),
            f"run {run_id} thread",
        )

    async def turn_started(
        self, run_id: RunId, *, turn_id: str, thread_id: str, number: int, wall: float
    ) -> None:
        """Record a turn; ``number`` counts from 1 within the run."""
        await self._write(
            partial(
                operations.start_turn,
                workflow_id=self._workflow_id,
                run_id=run_id,
                turn_id=turn_id,
                thread_id=thread_id,
                number=number,
                wall=wall,
            )
        )

    async def turn_ended(
        self,
        run_id: RunId,
        *,
        turn_id: str,
        status: str,
        wall: float,
        usage: TokenUsage | None = None,
        spend: Spend | None = None,
        error: str | None = None,
    ) -> None:
        """Record a turn's end under the server's ``turn.status``.

        ``usage`` and ``spend`` are of the whole run so far: totals keep them should the daemon die.
        """

        def operation(connection: sqlite3.Connection) -> None:
            operations.end_turn(
                connection, run_id, turn_id=turn_id, status=status, error=error, wall=wall
            )
            spending.set_spend(
                connection,
                RunSpend(run_id=run_id, usage=usage, spend=spend),
                wall=wall,
                day=self._day(wall),
            )

        await self._write(operation, f"run {run_id} turn {turn_id}")

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
        """Record what a run has come to, before it is wound up and the scheduler takes its end.

        Should the daemon die meanwhile, the next one ends the run with it. Usage, seconds and
        spend are of the whole run.
        """
        spent = RunSpend(run_id=run_id, usage=usage, seconds=seconds, spend=spend)
        await self._writer.submit_all(
            [outcome_of_run(spent, outcome, wall=wall, day=self._day(wall))]
        )

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
        """Record the end of a run that no scheduler knows any more; its claim stays as it is.

        Usage, seconds and spend of None mean unknown (a run of a dead daemon): what was recorded
        during the run counts, and it counts as running until it was last heard of.
        """
        spent = RunSpend(run_id=run_id, usage=usage, seconds=seconds, spend=spend)
        await self._writer.submit_all(
            [
                end_of_run(
                    spent, outcome, wall=ended_wall, day=self._day(ended_wall), thread_id=thread_id
                )
            ]
        )

    async def save(self, *commands: Durable) -> None:
        """Make what one step of the scheduler has decided durable: all of it or nothing of it.

        A claim replaces whatever claim its issue had; there is one hold a scope, one park, one row
        of the breaker a class. Dropping what is not there changes nothing.
        """
        wall = self._clock().wall
        await self._writer.submit_all(
            [
                bind(command, workflow_id=self._workflow_id, wall=wall, day=self._day(wall))
                for command in commands
            ]
        )

    def record_event(
        self, run_id: RunId, wall: float, event: str, message: str | None = None
    ) -> None:
        """Keep an event of a run: fire and forget, the newest 200 a run, 1000 characters each."""
        row = (run_id, wall, capped(event, MESSAGE_LIMIT), capped(message, MESSAGE_LIMIT))
        self._writer.post_row(row)

    async def prune(self, *, ended_before_wall: float) -> None:
        """Delete ended runs older than that with their turns and events; totals stay."""
        await self._write(
            partial(
                operations.prune,
                workflow_id=self._workflow_id,
                ended_before_wall=ended_before_wall,
            )
        )

    async def flush(self) -> None:
        """Return when everything that was recorded before is written."""
        await self._writer.submit(lambda _connection: None, after_rows=True)

    async def load(self) -> LedgerContents:
        """Read what a restart needs; the delays of retries are what remains of them now.

        Raises:
            LedgerError: ``ledger_damaged``.
        """
        now = self._clock().wall
        return await asyncio.to_thread(reading.load, self.path, self._workflow_id, now)

    async def recent_events(self, identifier: str, limit: int = 50) -> tuple[EventRow, ...]:
        """Return the newest events of an issue's runs, newest first."""
        return await asyncio.to_thread(
            reading.recent_events, self.path, self._workflow_id, identifier, limit
        )

    async def runs(self, identifier: str | None = None, limit: int = 50) -> tuple[RunRow, ...]:
        """Return the newest runs of one issue, or of all issues, newest first."""
        return await asyncio.to_thread(
            reading.runs, self.path, self._workflow_id, identifier, limit
        )

    async def workspace_issues(self) -> dict[str, IssueId]:
        """Return, by path, the issue whose run worked there last, for workspaces of this machine.

        Raises:
            LedgerError: ``ledger_damaged``.
        """
        return await asyncio.to_thread(
            reading.workspace_issues, self.path, self._workflow_id, LOCAL_HOST
        )

    async def runs_spent(self, runs: Sequence[RunSpend]) -> None:
        """Record what live runs have spent so far; a later record makes up for a failed one."""
        wall = self._clock().wall
        await self._write(
            partial(spending.set_spends, runs=tuple(runs), wall=wall, day=self._day(wall))
        )

    async def run_idle(self, run_id: RunId, idle: IdleTurns) -> None:
        """Record how many turns of a live run's issue have changed nothing."""
        await self._write(partial(spending.set_idle, run_id=run_id, idle=idle))

    def _day(self, wall: float) -> str:
        return datetime.fromtimestamp(wall, UTC).astimezone(self.zone()).date().isoformat()

    async def _write(self, operation: Operation, key: str | None = None) -> None:
        await self._writer.submit(operation, key=key)
