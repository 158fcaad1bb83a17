"""One attempt: workspace, hooks, prompt, process, session, turns, outcome (SPEC 10.7, 16.5).

An attempt never raises for what it meets: it returns an outcome. However it ends, its processes are
gone and its ``after_run`` hook has run when ``run`` returns (behaviours: also on cancellation).
What is frozen for the attempt (command, policies, sandbox, tools, tracker) is read once at its
start; what is live (time limits, turns, states, labels, hooks) is read when it is used.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import codex_app_server as codex

from symphony.config.loading import Workflow
from symphony.config.settings import Settings
from symphony.errors import SymphonyError, TrackerError
from symphony.hosts.base import Host, HostProcess
from symphony.ledger import Ledger
from symphony.model.clock import Instant
from symphony.model.issue import Issue, normalize_state
from symphony.model.run import (
    Outcome,
    OutcomeKind,
    Phase,
    RunId,
    RunProgress,
    RunSpec,
    StopReason,
)
from symphony.model.spend import Raise
from symphony.runner.budget import RunBudget
from symphony.runner.ending import HASTY_GRACE_S, STOP_GRACE_S, tell_cut_off
from symphony.runner.idling import IdleWatch
from symphony.runner.instructions import Instructions
from symphony.runner.narrator import Narrator
from symphony.runner.outcomes import outcome_of, stopped
from symphony.runner.session import Session, SessionOptions, launch_session
from symphony.runner.turn_faults import CONTEXT_WINDOW
from symphony.runner.watching import TurnWatch
from symphony.scheduler.events import Event, RunIssueChanged
from symphony.trackers.base import Tracker
from symphony.trackers.shared_reads import ReadIssues, read_alone
from symphony.workspaces.manager import Workspace, Workspaces

_log = logging.getLogger(__name__)

LAUNCHES = 3
"""How often Codex is started for a run before it has to do without the links to its helpers."""

ISSUE_READ_S = 60.0
"""Deadline of the read of the issue after a turn; a tracker that hangs must not hold a run.

Past it the read counts as failed, and with it the run (SPEC 16.5); its thread is resumed.
"""

COMPACTION_S = 600.0
"""How long the model may take to summarise a thread whose history is full."""

TREE_MARK_S = 30.0
"""A workspace that takes longer to look at counts as changed."""

LAST_WORDS_S = 15.0
"""How long a turn may go on after the agent itself has moved its issue out of the active states.

Agents move the issue and then finish: they push, comment, answer. A watched board is read again
within milliseconds, so without this time every such turn would be cut off.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerContext:
    """What every attempt of a daemon shares.

    Attributes:
        workflow: Returns the workflow that is in force now.
        tracker: Returns the tracker that is in force now; an attempt asks once.
        session_options: What a session needs beside the settings.
        describe: Turns an event (of the wire, or one of our own) into a line for people.
        on_rate_limits: Takes rate limits as Codex reports them.
        issue_read_s: Deadline of the read of the issue after a turn.
        on_spend: Told that a run has spent tokens.
        read_issues: Reads issues by id.
    """

    workflow: Callable[[], Workflow]
    tracker: Callable[[], Tracker]
    host: Host
    workspaces: Workspaces
    ledger: Ledger
    clock: Callable[[], Instant]
    post: Callable[[Event], None]
    session_options: SessionOptions
    describe: Callable[[Any], str]
    on_rate_limits: Callable[[Mapping[str, Any]], None] = lambda limits: None
    issue_read_s: float = ISSUE_READ_S
    on_spend: Callable[[RunId], None] = lambda run_id: None
    read_issues: ReadIssues = read_alone


class Attempt:
    """The worker of one run."""

    def __init__(self, spec: RunSpec, progress: RunProgress, context: RunnerContext) -> None:
        self.spec = spec
        self._progress = progress
        self._context = context
        self._issue = spec.issue
        self.tracker = context.tracker()
        self._narrator = Narrator(
            progress,
            clock=context.clock,
            history=self._history,
            rate_limits=context.on_rate_limits,
            price_of=lambda model: context.workflow().settings.budget.price_of(model),
            spent=self._spent,
        )
        self._budget = RunBudget(
            spec,
            progress,
            settings=lambda: context.workflow().settings.budget,
            clock=context.clock,
        )
        self._idle = IdleWatch(
            progress,
            limit=lambda: context.workflow().settings.budget.no_progress_turns,
            tree_mark=self._tree_mark,
            record=lambda idle: self._record(context.ledger.run_idle(spec.run_id, idle)),
        )
        self._instructions = Instructions(spec)
        self._completed_turns = 0
        self._reads_only = False
        self._stopped: Outcome | None = None
        self._last_turn = False
        self._body: asyncio.Task[Outcome] | None = None
        self._workspace: Workspace | None = None
        self._session: Session | None = None

    def stop(self, reason: StopReason) -> None:
        """End the attempt early; the first reason counts, and asking again asks with force."""
        if self._stopped is not None:
            if self._body is not None:
                self._body.cancel()
            return
        self._stopped = stopped(reason, self._stop_message(reason))
        if self._body is None:
            return
        if reason in _ISSUE_LEFT and self._session is not None and self._session.acted:
            asyncio.get_running_loop().call_later(LAST_WORDS_S, self._body.cancel)
        else:
            self._body.cancel()

    def end_after_turn(self) -> None:
        """Let the attempt end well once its present turn has."""
        self._last_turn = True

    def raise_issue_limits(self, amounts: Raise) -> None:
        """Take what operators have added to the issue's limits, in all."""
        self._budget.raise_issue_limits(amounts)

    def _spent(self) -> None:
        self._budget.look()
        self._context.on_spend(self.spec.run_id)

    async def run(self) -> Outcome:
        """Work until the attempt is over; return why it ended."""
        self._log("info", "Starting agent run", attempt=self.spec.attempt)
        if self._stopped is not None:
            return self._stopped
        self._body = asyncio.create_task(self._work(), name=f"attempt {self.spec.run_id}")
        try:
            outcome = await asyncio.shield(self._body)
        except asyncio.CancelledError:
            await self._end_body()
            ordered = self._ordered_outcome()
            if ordered is None:
                await self._finish()
                raise
            outcome = ordered
        except Exception as error:
            outcome = self._outcome_of(error)
        await self._finish(outcome)
        self._progress.phase = outcome.phase
        self._report_end(outcome)
        return outcome

    async def _end_body(self) -> None:
        if self._body is not None and not self._body.done():
            self._body.cancel()
            await asyncio.wait([self._body])

    def _ordered_outcome(self) -> Outcome | None:
        return self._stopped

    def _stop_message(self, reason: StopReason) -> str:
        if reason is StopReason.STALLED:
            silent_s = self._context.clock().mono - self._progress.last_activity_mono
            return f"stalled for {silent_s * 1000:.0f}ms without codex activity"
        return f"stopped by the scheduler ({reason.value})"

    def _outcome_of(self, error: Exception) -> Outcome:
        if not isinstance(error, (SymphonyError, codex.CodexError)):
            self._log("exception", "Agent run failed unexpectedly")
        if self._session is not None and isinstance(error, codex.ConnectionClosed):
            return self._session.exit_outcome(error)
        return outcome_of(error)

    async def _work(self) -> Outcome:
        frozen = self._context.workflow()
        settings = self._frozen_settings(frozen.settings)
        workspace = await self._prepare()
        self._phase(Phase.BUILDING_PROMPT)
        prompt = await asyncio.to_thread(self._instructions.first, frozen, self._issue)
        self._phase(Phase.LAUNCHING_AGENT_PROCESS)
        options = self._context.session_options
        async with options.home_gate.passage(options.codex_home):
            session = await self._open_session(settings, workspace)
        refused = self._budget.before_next_turn()
        if refused is not None:
            return refused
        if session.knows_issue:
            prompt = await asyncio.to_thread(self._instructions.resumed, frozen, self._issue)
        return await self._turns(session, prompt)

    def _frozen_settings(self, settings: Settings) -> Settings:
        """Return the settings whose policies hold for this run; a profile may narrow them."""
        profile = settings.agent.profile_of(self._issue)
        self._progress.profile = None if profile is None else profile.name
        self._reads_only = profile is not None and profile.read_only
        return settings.reading_only() if self._reads_only else settings

    async def _prepare(self) -> Workspace:
        # Hooks and git have limits of their own: their silence is no stall.
        self._narrator.call_began(_preparation_limit_s(self._context.workflow().settings))
        try:
            return await self._prepare_workspace()
        finally:
            self._narrator.call_ended()

    async def _prepare_workspace(self) -> Workspace:
        workspace = await self._context.workspaces.prepare(self.spec)
        # From here on after_run runs, also where before_run fails.
        self._workspace = workspace
        self._progress.workspace_path = self._instructions.workspace = workspace.path
        await self._record(self._context.ledger.run_workspace(self.spec.run_id, workspace.path))
        await self._context.workspaces.before_run(workspace, self.spec)
        return workspace

    async def _open_session(self, settings: Settings, workspace: Workspace) -> Session:
        if self.spec.thread_id is not None:
            self._narrator.resuming()
        try:
            session = await self._connected(settings, workspace)
            thread = await session.open(
                tracker=self.tracker, narrator=self._narrator, issue=lambda: self._issue
            )
        except codex.CodexError as error:
            self._narrator.happened("startup_failed", {"reason": str(error)})
            raise
        self._progress.thread_id = thread.id
        model = thread.info.get("model")
        self._progress.model = model if isinstance(model, str) else None
        if session.resumed:
            self._narrator.resumed(thread.id)
        else:
            self._narrator.began_anew()
        await self._record(self._context.ledger.run_thread(self.spec.run_id, thread.id))
        return session

    async def _connected(self, settings: Settings, workspace: Workspace) -> Session:
        """Start the app-server and shake hands; again where it can't find its own helpers."""
        for launch in range(1, LAUNCHES + 1):
            session = self._session = await launch_session(
                spec=self.spec,
                workspace=workspace.path,
                settings=settings,
                tracker=self.tracker,
                host=self._context.host,
                options=self._context.session_options,
                narrator=self._narrator,
            )
            await self._process_started(session.process)
            self._phase(Phase.INITIALIZING_SESSION)
            await session.connect(self._narrator)
            if not session.lacks_aliases:
                break
            self._log("warning", "Codex could not make the links to its helpers", launch=launch)
            if launch < LAUNCHES:
                await session.close(STOP_GRACE_S)
        return session

    async def _process_started(self, process: HostProcess) -> None:
        self._progress.process_id = process.identity.pid
        await self._record(self._context.ledger.run_process(self.spec.run_id, process.identity))

    async def _turns(self, session: Session, prompt: str) -> Outcome:
        number = 1
        while True:
            self._phase(Phase.STREAMING_TURN)
            ended = await self._one_turn(session, prompt, number)
            if ended is not None:
                if not await self._made_room(session, ended, number):
                    return ended
                number += 1
                prompt = await asyncio.to_thread(self._instructions.after_compaction)
                continue
            self._completed_turns += 1
            if self._stopped is not None:
                return Outcome(kind=OutcomeKind.COMPLETED, stop_reason=self._stopped.stop_reason)
            issue = await self._read_issue_again()
            workflow = self._context.workflow()
            if issue is None or not _continues(issue, workflow.settings):
                return Outcome(kind=OutcomeKind.COMPLETED)
            if not self._last_turn:
                goes_nowhere = await self._idle.turn_ended(issue, changed=session.changed)
                if goes_nowhere is not None:
                    return goes_nowhere
            last = self._why_last(workflow.settings, number)
            if last is not None:
                self._log("info", last, turn=number)
                return Outcome(kind=OutcomeKind.COMPLETED)
            spent = self._budget.before_next_turn()
            if spent is not None:
                return spent
            number += 1
            prompt = await asyncio.to_thread(
                self._instructions.later, workflow, self._issue, number
            )
            self._log("info", "Continuing agent run", turn=number, profile=self._progress.profile)

    def _why_last(self, settings: Settings, number: int) -> str | None:
        """Return why there is no further turn in this run though the issue is active, or None."""
        profile = settings.agent.profile_of(self._issue)
        self._progress.profile = None if profile is None else profile.name
        if self._last_turn:
            return "Ending after this turn, as ordered"
        if number >= settings.agent.turns_for(profile):
            return "Reached agent.max_turns"
        if (profile is not None and profile.read_only) is not self._reads_only:
            # Policies are frozen for a run; the next one, in the same thread, has the other ones.
            return "Ending for a profile with other permissions"
        return None

    async def _made_room(self, session: Session, ended: Outcome, number: int) -> bool:
        """Compact a thread whose history is full; False where that can't be done or helped not.

        Then the run fails, and the next one begins a new thread with the reason in its prompt.
        """
        if ended.code != CONTEXT_WINDOW or self._stopped is not None:
            return False
        if session.compactions > self._completed_turns or self._budget.before_next_turn():
            return False
        if self._why_last(self._context.workflow().settings, number) is not None:
            return False
        self._narrator.happened("compaction_started", {"reason": ended.message})
        self._narrator.call_began(COMPACTION_S)
        try:
            made_room = await session.compact(COMPACTION_S)
        finally:
            self._narrator.call_ended()
        self._log("info", "Compacted a full thread", done=made_room, turn=number)
        return made_room

    async def _one_turn(self, session: Session, prompt: str, number: int) -> Outcome | None:
        """Run one turn; return an outcome where it ended the attempt, None where it completed."""
        settings = self._context.workflow().settings
        choice = await session.choose_model(settings, self._issue)
        progress = self._progress
        progress.model = choice.model or progress.model
        # What the thread began with, or was rerouted to, is not this turn's.
        progress.models.pop(progress.thread_id or "", None)
        refused = self._budget.refused_price()
        if refused is not None:
            return refused
        turn = session.turn(prompt, choice, idle_s=settings.codex.turn_timeout_s)
        watch = TurnWatch(session.requests, self._narrator, name=self.spec.run_id)
        try:
            endable = session.endable(turn)
            async with watch.over(endable), self._budget.over(endable):
                await turn.start()
                watch.began(endable, settings.codex.first_event_timeout_s)
                await self._turn_started(turn, number)
                if number == 1:
                    await session.name_thread(f"{self._issue.identifier}: {self._issue.title}")
                result = await turn
        except codex.CodexError as error:
            outcome = (
                session.blocked or watch.mute or self._budget.outcome or self._outcome_of(error)
            )
            self._narrator.happened(
                _TURN_EVENTS.get(outcome.kind, "turn_ended_with_error"),
                {"reason": outcome.message, "category": outcome.category},
            )
            self._log("warning", "Codex session ended with error", error=outcome.message)
            await self._turn_ended(outcome.kind.value, outcome.message)
            return outcome
        if session.blocked is not None:
            return session.blocked
        self._narrator.happened("turn_completed", {"turn_id": result.turn_id})
        self._log("info", "Codex session completed", turn=number)
        await self._turn_ended("completed")
        return None

    async def _turn_started(self, turn: codex.Turn, number: int) -> None:
        progress = self._progress
        turn_id, thread_id = turn.id or "", progress.thread_id or ""
        progress.turn_id = turn_id
        progress.turn_count = number
        self._narrator.happened(
            "session_started",
            {
                "session_id": progress.session_id,
                "thread_id": progress.thread_id,
                "turn_id": turn_id,
            },
        )
        self._log("info", "Codex session started", turn=number)
        await self._record(
            self._context.ledger.turn_started(
                self.spec.run_id,
                turn_id=turn_id,
                thread_id=thread_id,
                number=number,
                wall=self._context.clock().wall,
            )
        )

    async def _turn_ended(self, status: str, error: str | None = None) -> None:
        if self._progress.turn_id is None:
            return
        await self._record(
            self._context.ledger.turn_ended(
                self.spec.run_id,
                turn_id=self._progress.turn_id,
                status=status,
                wall=self._context.clock().wall,
                usage=self._progress.usage,
                spend=self._progress.spend(self._context.clock().mono),
                error=error,
            )
        )

    async def _read_issue_again(self) -> Issue | None:
        try:
            async with asyncio.timeout(self._context.issue_read_s):
                found = await self._context.read_issues(self.tracker, [self._issue.id])
        except TimeoutError:
            raise TrackerError(
                "tracker_request",
                f"the tracker gave no answer within {self._context.issue_read_s:g} s",
            ) from None
        if not found:
            return None
        self._issue = found[0]
        self._progress.issue = found[0]
        self._context.post(RunIssueChanged(self.spec.run_id, found[0]))
        return found[0]

    async def _finish(self, outcome: Outcome | None = None) -> None:
        """Leave nothing of the run but what it has made; ``outcome`` is None where it is unknown.

        What follows can take minutes, so the outcome is recorded first: should the daemon die
        meanwhile, the next one does not have the agent go on though it has had its last word.
        """
        self._progress.phase = Phase.FINISHING
        settings = self._context.workflow().settings
        self._narrator.call_began(settings.hooks.timeout_s + 2 * settings.workspace.git_timeout_s)
        async with asyncio.TaskGroup() as tasks:
            if outcome is not None:
                tasks.create_task(self._record(self._outcome_write(outcome)))
            if self._session is not None:
                tasks.create_task(self._close(self._session))
        if self._workspace is not None:
            await self._context.workspaces.after_run(self._workspace, self.spec)

    async def _close(self, session: Session) -> None:
        hasty = session.turn_runs or self._stopped is not None
        if session.turn_runs:
            tell_cut_off(self.spec.run_id)
        await session.close(HASTY_GRACE_S if hasty else STOP_GRACE_S)

    def _outcome_write(self, outcome: Outcome) -> Awaitable[None]:
        now, progress = self._context.clock(), self._progress
        return self._context.ledger.run_outcome(
            self.spec.run_id,
            outcome,
            usage=progress.usage,
            seconds=now.mono - progress.started_mono,
            spend=progress.spend(now.mono),
            wall=now.wall,
        )

    async def _tree_mark(self) -> str | None:
        path = self._progress.workspace_path
        if path is None:
            return None
        self._narrator.call_began(TREE_MARK_S)
        try:
            async with asyncio.timeout(TREE_MARK_S):
                return await self._context.workspaces.tree_mark(path)
        except TimeoutError:
            return None
        finally:
            self._narrator.call_ended()

    async def _record(self, write: Any) -> None:
        try:
            await write
        except SymphonyError as error:
            self._log("error", "Ledger write failed", error=error.message)

    def _history(self, event: str, detail: Any) -> None:
        self._context.ledger.record_event(
            self.spec.run_id, self._context.clock().wall, event, self._context.describe(detail)
        )

    def _phase(self, phase: Phase) -> None:
        self._progress.phase = phase

    def _report_end(self, outcome: Outcome) -> None:
        if outcome.kind is OutcomeKind.COMPLETED:
            self._log("info", "Completed agent run", turns=self._progress.turn_count)
        else:
            self._log(
                "warning",
                "Agent run ended",
                outcome=outcome.kind.value,
                category=outcome.category,
                error=outcome.message,
            )

    def _log(self, level: str, message: str, **fields: Any) -> None:
        getattr(_log, level)(
            message,
            extra={
                "issue_id": self._issue.id,
                "issue_identifier": self._issue.identifier,
                "run_id": self.spec.run_id,
                "session_id": self._progress.session_id,
                **fields,
            },
        )


_ISSUE_LEFT = frozenset({StopReason.TERMINAL, StopReason.INACTIVE, StopReason.UNROUTABLE})

_TURN_EVENTS = {
    OutcomeKind.FAILED: "turn_failed",
    OutcomeKind.INTERRUPTED: "turn_cancelled",
    OutcomeKind.INPUT_REQUIRED: "turn_input_required",
    OutcomeKind.APPROVAL_REQUIRED: "approval_required",
}


def _preparation_limit_s(settings: Settings) -> float:
    """Return how long the parts of a preparation may take at most, one after the other."""
    git_commands = 6
    return 2 * settings.hooks.timeout_s + git_commands * settings.workspace.git_timeout_s


def _continues(issue: Issue, settings: Settings) -> bool:
    """Tell whether another turn is due: the issue is active and still ours (SPEC 7.1, 8.2)."""
    active = {normalize_state(name) for name in settings.tracker.active_states or ()}
    labels = set(issue.labels)
    return (
        issue.dispatchable
        and issue.state_key in active
        and all(label in labels for label in settings.tracker.required_labels)
    )
