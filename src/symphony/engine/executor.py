"""Carries the scheduler's commands out, each beside the loop, each with a deadline.

One method a command. A command with a cause gets exactly one answer: what fails or takes too long
becomes the failing answer. A run gets exactly one RunEnded, whatever happens to its attempt.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from itertools import chain
from typing import Any, Protocol, TypeVar, assert_never

from symphony.engine.cleanup import finished_with_workspace
from symphony.engine.trackers import READ_DEADLINE_S, FormerFaults, fetch_from_owners
from symphony.engine.write_faults import WriteFaults
from symphony.errors import LedgerError, SymphonyError, TrackerError
from symphony.ledger import Ledger
from symphony.model.clock import Instant
from symphony.model.issue import IssueId
from symphony.model.run import Outcome, RunId, RunProgress, RunSpec, StopReason
from symphony.model.spend import NO_SPEND, Raise
from symphony.observe.logs import get_logger
from symphony.observe.tally import Tally
from symphony.runner.finishing import Finishing, progress_of
from symphony.runner.outcomes import outcome_of
from symphony.scheduler import commands as c
from symphony.scheduler import events as e
from symphony.trackers.base import Tracker
from symphony.trackers.shared_reads import ReadIssues, read_alone
from symphony.workspaces.manager import Workspaces

_log = get_logger(__name__)

C = TypeVar("C")


class Worker(Protocol):
    """What works on one run: an attempt, or what winds up a run of an earlier daemon.

    Attributes:
        spec: The run.
        tracker: The one that it is bound to.
    """

    spec: RunSpec
    tracker: Tracker

    async def run(self) -> Outcome:
        """Work until the run is over; return why it ended."""

    def stop(self, reason: StopReason) -> None:
        """End early."""

    def end_after_turn(self) -> None:
        """End well once the present turn has."""

    def raise_issue_limits(self, amounts: Raise) -> None:
        """Take what operators have added to the issue's limits, in all."""


AttemptFactory = Callable[[RunSpec, RunProgress], Worker]


class Executor:
    """Does what the scheduler decided and posts what came of it.

    Args:
        tasks: Owns every task of this executor.
        post: The mailbox.
        tracker: Returns the tracker that is in force now.
        workspaces: Removes workspaces and lists those on disk.
        ledger: Made durable before a run starts.
        make_attempt: Builds the worker of one run.
        polled: Set once a first read of candidates has ended, well or not.
        progress: Live records by run; entries exist from StartRun until the scheduler has taken
            RunEnded.
        describe: Turns a run's newest event into a line for people.
        before_poll: Called before candidates are read (the workflow file is looked at again, in
            case its watch missed something: SPEC 6.2).
        observe_pace: Returns what the distance of the polls depends on; asked after each read.
        retire: Closes trackers that a reload has replaced; called after each run with those that
            the runs left are bound to.
        tally: Counts ended runs and polls.
        read_issues: Reads issues by id.
    """

    def __init__(
        self,
        *,
        tasks: asyncio.TaskGroup,
        post: Callable[[e.Event], None],
        clock: Callable[[], Instant],
        tracker: Callable[[], Tracker],
        workspaces: Workspaces,
        ledger: Ledger,
        make_attempt: AttemptFactory,
        progress: dict[RunId, RunProgress],
        describe: Callable[[Any], str],
        before_poll: Callable[[], None] = lambda: None,
        observe_pace: Callable[[], e.PaceObserved] | None = None,
        retire: Callable[[Sequence[Tracker]], Coroutine[Any, Any, None]] | None = None,
        tally: Tally | None = None,
        read_issues: ReadIssues = read_alone,
    ) -> None:
        self._tally = tally or Tally()
        self._tasks = tasks
        self._post = post
        self._clock = clock
        self._tracker = tracker
        self._workspaces = workspaces
        self._ledger = ledger
        self._make_attempt = make_attempt
        self._attempts: dict[RunId, Worker] = {}
        self._ended: list[RunId] = []
        self._unrecorded: dict[RunId, e.RunEnded] = {}
        self._describe = describe
        self._before_poll = before_poll
        self._observe_pace = observe_pace
        self._retire = retire
        self._read_issues = read_issues
        self._running: set[asyncio.Task[None]] = set()
        self._reading: set[asyncio.Task[None]] = set()
        self._write_faults = WriteFaults()
        self._former_faults = FormerFaults()
        self._asked: defaultdict[asyncio.Task[Any] | None, list[Tracker]] = defaultdict(list)
        self._idle = asyncio.Event()
        self._idle.set()
        self.polled = asyncio.Event()
        self.progress = progress

    def execute(self, commands: Sequence[c.Command]) -> None:
        """Start carrying these commands out, in this order where order matters (the ledger)."""
        self._forget_ended()
        self._save([command for command in commands if isinstance(command, c.Durable)])
        for command in commands:
            if isinstance(command, c.Durable):
                continue
            match command:
                case c.FetchCandidates():
                    self._spawn_read("candidates", self._fetch_candidates, command)
                case c.FetchTerminal():
                    self._spawn_read("terminal", self._fetch_terminal, command)
                case c.RefreshIssues():
                    self._spawn_read(f"refresh {command.purpose}", self._refresh, command)
                case c.StartRun():
                    self._start_run(command.spec)
                case c.FinishRun():
                    self._finish_run(command)
                case c.StopRun():
                    self._stop_run(command)
                case c.CleanWorkspace():
                    self._spawn(f"clean {command.issue.identifier}", self._clean(command))
                case c.RaiseIssue():
                    self._raise_issue(command)
                case c.EndAfterTurn():
                    self._end_after_turn(command)
                case c.Note():
                    self._note(command)
                case _:
                    assert_never(command)

    @property
    def attempts(self) -> Sequence[Worker]:
        """The attempts that are under way."""
        return tuple(self._attempts.values())

    async def idle(self) -> None:
        """Wait until no run is under way."""
        await self._idle.wait()

    async def drained(self) -> None:
        """Wait until nothing at all is under way, writes of the ledger included.

        Reads of the tracker are given up: a shutdown waits for no answer that nobody acts on. A run
        whose end the scheduler has not taken by then is left to the next start, with its outcome.
        """
        for task in self._reading:
            task.cancel()
        while self._running or self._unrecorded:
            if not self._running:
                self._leave_ends()
            await asyncio.wait(self._running)

    def _leave_ends(self) -> None:
        wall = self._clock().wall
        for run_id, ended in self._unrecorded.items():
            write = self._ledger.run_outcome(
                run_id,
                ended.outcome,
                usage=ended.usage,
                seconds=ended.seconds,
                spend=ended.spend or NO_SPEND,
                wall=wall,
            )
            self._spawn(f"outcome {run_id}", self._write(f"outcome of {run_id}", write))
        self._unrecorded.clear()

    def cancel_all(self) -> None:
        """Cancel what is under way; for a shutdown that was forced."""
        for task in self._running:
            task.cancel()

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._tasks.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def _spawn_read(
        self, name: str, read: Callable[[C], Coroutine[Any, Any, None]], command: C
    ) -> None:
        task = self._spawn(name, self._keeping_open(read, command))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def _keeping_open(
        self, read: Callable[[C], Coroutine[Any, Any, None]], command: C
    ) -> None:
        """Read while a reload and the ends of runs close none of the trackers that are asked."""
        task = asyncio.current_task()
        try:
            await read(command)
        finally:
            asked = self._asked.pop(task, [])
        if any(tracker is not self._tracker() for tracker in asked):
            await self._close_unbound()

    def _asking(self, tracker: Tracker) -> Tracker:
        """Keep this tracker open until the read that calls this has ended."""
        self._asked[asyncio.current_task()].append(tracker)
        return tracker

    async def _close_unbound(self) -> None:
        if self._retire is not None:
            bound = [attempt.tracker for attempt in self._attempts.values()]
            await self._retire([*bound, *chain.from_iterable(self._asked.values())])

    def _save(self, commands: Sequence[c.Durable]) -> None:
        """Make what one step has decided durable: one transaction, so that no crash halves it."""
        if not commands:
            return
        for command in commands:
            if isinstance(command, c.SaveEnd):
                self._unrecorded.pop(command.ended.run_id, None)
        what = ", ".join(type(command).__name__ for command in commands[:3])
        self._spawn(what, self._write(what, self._ledger.save(*commands)))

    async def _write(self, what: str, write: Coroutine[Any, Any, None]) -> None:
        try:
            await write
        except LedgerError as error:
            self._write_faults.failed(what, error.message)
        else:
            self._write_faults.succeeded()

    async def _fetch_candidates(self, command: c.FetchCandidates) -> None:
        try:
            await self._read_candidates(command)
        finally:
            self.polled.set()

    async def _read_candidates(self, command: c.FetchCandidates) -> None:
        began, result = self._clock(), "ok"
        try:
            self._before_poll()
            async with asyncio.timeout(READ_DEADLINE_S):
                issues = await self._asking(self._tracker()).fetch_issues_by_states(command.states)
        except Exception as error:
            category, message, retry_after_s = _tracker_fault(error)
            result = category
            self._answer(e.CandidatesFailed(command.cause, category, message, retry_after_s))
        else:
            self._answer(e.CandidatesFetched(command.cause, issues))
        now = self._clock()
        self._tally.poll_ended(result, seconds=now.mono - began.mono, wall=now.wall)

    def _answer(self, event: e.Event) -> None:
        """Post the answer of a read, after what the tracker has said of its budgets with it."""
        if self._observe_pace is not None:
            self._post(self._observe_pace())
        self._post(event)

    async def _refresh(self, command: c.RefreshIssues) -> None:
        in_force, owners = self._asking(self._tracker()), self._owners()
        for owner in owners.values():
            self._asking(owner)
        answer = await fetch_from_owners(
            command.ids, owners=owners, default=in_force, read=self._read_issues
        )
        self._former_faults.tell(answer, owners.values(), in_force)
        error, failed = answer.error_of(in_force), None
        if error is not None:
            category, message, retry_after_s = _tracker_fault(error)
            failed = e.RefreshFailed(command.cause, category, message, retry_after_s)
        if failed is not None and answer.asked == len(answer.faults):
            self._answer(failed)
        else:
            self._answer(
                e.IssuesRefreshed(command.cause, answer.issues, unread=answer.unread, failed=failed)
            )

    def _owners(self) -> dict[IssueId, Tracker]:
        return {attempt.spec.issue_id: attempt.tracker for attempt in self._attempts.values()}

    async def _fetch_terminal(self, command: c.FetchTerminal) -> None:
        try:
            async with asyncio.timeout(READ_DEADLINE_S):
                issues = await finished_with_workspace(
                    command.states,
                    tracker=self._asking(self._tracker()),
                    workspaces=self._workspaces,
                    ledger=self._ledger,
                )
        except Exception as error:
            category, message, _ = _tracker_fault(error)
            self._post(e.TerminalFailed(command.cause, category, message))
        else:
            self._post(e.TerminalFetched(command.cause, issues))

    def _start_run(self, spec: RunSpec) -> None:
        now = self._clock()
        progress = RunProgress(
            run_id=spec.run_id,
            issue=spec.issue,
            attempt=spec.attempt,
            host=spec.host,
            started_mono=now.mono,
            started_wall=now.wall,
            last_activity_mono=now.mono,
            idle=spec.idle,
        )
        worker = self._make_attempt(spec, progress)
        self._begin(spec, progress, worker, self._start(spec, progress, worker))

    def _finish_run(self, command: c.FinishRun) -> None:
        spec, ended = command.spec, command.ended
        progress = progress_of(spec, ended, self._clock())
        worker = Finishing(spec, ended, workspaces=self._workspaces, tracker=self._tracker())
        self._begin(spec, progress, worker, self._run(spec, progress, worker))

    def _begin(
        self,
        spec: RunSpec,
        progress: RunProgress,
        worker: Worker,
        work: Coroutine[Any, Any, None],
    ) -> None:
        self.progress[spec.run_id] = progress
        self._attempts[spec.run_id] = worker
        self._idle.clear()
        self._spawn(f"run {spec.issue.identifier} {spec.run_id}", work)

    async def _start(self, spec: RunSpec, progress: RunProgress, worker: Worker) -> None:
        # Without this row a crash would leave no record of the run; with a ledger that can't be
        # written the run goes on all the same, and the start-up sweep finds it by its marker.
        await self._write(
            f"start {spec.run_id}",
            self._ledger.run_started(spec, started_wall=progress.started_wall),
        )
        await self._run(spec, progress, worker)

    async def _run(self, spec: RunSpec, progress: RunProgress, attempt: Worker) -> None:
        try:
            outcome = await attempt.run()
        except Exception as error:
            _log.exception("Attempt failed unexpectedly", run_id=spec.run_id)
            outcome = outcome_of(error)
        now = self._clock()
        seconds, spend = now.mono - progress.started_mono, progress.spend(now.mono)
        ended = e.RunEnded(
            run_id=spec.run_id,
            outcome=outcome,
            usage=progress.usage,
            seconds=seconds,
            thread_id=progress.thread_id,
            host=progress.host,
            workspace_path=progress.workspace_path,
            session_id=progress.session_id,
            last_event=progress.last_event,
            last_message=self._last_words(progress),
            last_event_wall=progress.last_event_wall,
            spend=spend,
            idle=progress.idle,
        )
        # The end is recorded with what the scheduler makes of it: recorded alone, a crash before
        # the rest would have the ledger forget what the run asked for, or how often it has failed.
        del self._attempts[spec.run_id]
        self._ended.append(spec.run_id)
        self._unrecorded[spec.run_id] = ended
        if not self._attempts:
            self._idle.set()
        self._tally.run_ended(outcome.kind)
        self._post(ended)
        await self._close_unbound()

    def _last_words(self, progress: RunProgress) -> str:
        try:
            return self._describe(progress.last_message)
        except Exception:
            # The run's end must reach the scheduler; what it said last is a comfort.
            _log.exception("Last message could not be told", run_id=progress.run_id)
            return ""

    def _forget_ended(self) -> None:
        """Drop the records of ended runs once the scheduler takes events again.

        It takes all that waits in one go, the ends of these runs among it. Until then a snapshot
        must still find their tokens here, or its totals would fall.
        """
        for run_id in self._ended:
            del self.progress[run_id]
        self._ended.clear()

    def _stop_run(self, command: c.StopRun) -> None:
        attempt = self._attempts.get(command.run_id)
        if attempt is not None:
            attempt.stop(command.reason)

    def _end_after_turn(self, command: c.EndAfterTurn) -> None:
        attempt = self._attempts.get(command.run_id)
        if attempt is not None:
            attempt.end_after_turn()

    def _raise_issue(self, command: c.RaiseIssue) -> None:
        attempt = self._attempts.get(command.run_id)
        if attempt is not None:
            attempt.raise_issue_limits(command.amounts)

    async def _clean(self, command: c.CleanWorkspace) -> None:
        error: str | None = None
        try:
            await self._workspaces.remove(command.issue, path=command.workspace_path)
        except SymphonyError as fault:
            error = fault.message
        except Exception as fault:
            _log.exception("Workspace removal failed", issue_identifier=command.issue.identifier)
            error = f"{type(fault).__name__}: {fault}"
        self._post(e.CleanupEnded(command.cause, command.issue.id, error))

    def _note(self, note: c.Note) -> None:
        getattr(_log, note.level.value)(note.message, **note.fields)


def _tracker_fault(error: Exception) -> tuple[str, str, float | None]:
    match error:
        case TrackerError():
            return error.category, error.message, error.retry_after_s
        case TimeoutError():
            return "tracker_request", f"no answer within {READ_DEADLINE_S:.0f} s", None
        case _:
            _log.error("Tracker read failed unexpectedly", exc_info=error)
            return "tracker_response", f"{type(error).__name__}: {error}", None
