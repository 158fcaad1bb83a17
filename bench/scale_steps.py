"""What one step of the scheduler costs with 1,000 runs and 10,000 candidates, by kind of event.

The scheduler is pure, so it is driven here without a daemon: states, events and commands are the
real ones, and each event is timed alone, with the look for the next due time that the loop takes
after it. Used by ``scale.py``.
"""

from __future__ import annotations

import gc
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from symphony.config.settings import Settings
from symphony.model.clock import Instant
from symphony.model.issue import Issue, IssueId
from symphony.model.run import Outcome, OutcomeKind, RunProgress, RunSpec
from symphony.model.usage import TokenUsage
from symphony.scheduler.commands import (
    CleanWorkspace,
    Command,
    FetchCandidates,
    RefreshIssues,
    StartRun,
)
from symphony.scheduler.events import (
    CandidatesFetched,
    CleanupEnded,
    ControlAction,
    ControlRequested,
    Event,
    IssuesRefreshed,
    RefreshRequested,
    Restored,
    RunEnded,
    RunIssueChanged,
    RunSilent,
    SettingsChanged,
    WakeUp,
)
from symphony.scheduler.publish import explain
from symphony.scheduler.state import SchedulerState, new_state, next_wakeup
from symphony.scheduler.step import step

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_TEXT = "What is to be done, in a sentence or two, as people write it.\n" * 5


class Loaded:
    """A scheduler with every slot taken, its clock, and what each kind of event has cost.

    Attributes:
        state: The scheduler's.
        specs: Of the runs that go on.
        seconds: Costs by kind of event.
    """

    def __init__(self, running: int, candidates: int) -> None:
        self.settings = _settings(running)
        self.state: SchedulerState = new_state(self.settings, workflow_id="scale", seed=1)
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.specs: list[RunSpec] = []
        self._mono = 1000.0
        self.board = [_issue(number) for number in range(running)]
        self.candidates = [*self.board, *(_issue(running + n) for n in range(candidates))]
        self._answer(self.send(Restored()), self.board)
        assert len(self.specs) == running, "every slot is taken"
        self.seconds.clear()

    @property
    def now(self) -> Instant:
        """The present moment."""
        return Instant(self._mono, _EPOCH.timestamp() + self._mono)

    def send(self, event: Event, *, kind: str | None = None, after_s: float = 0.0) -> list[Command]:
        """Step once and keep what that cost."""
        self._mono += after_s
        now = self.now
        began = time.thread_time()
        commands = step(self.state, event, now)
        next_wakeup(self.state)
        self.seconds[kind or type(event).__name__].append(time.thread_time() - began)
        self.specs += [command.spec for command in commands if isinstance(command, StartRun)]
        return commands

    def poll(self, candidates: Sequence[Issue]) -> float:
        """Play one tick whole; return what all of its steps cost."""
        before = {kind: sum(spent) for kind, spent in self.seconds.items()}
        asked = self.send(WakeUp(), kind="WakeUp (poll is due)", after_s=40.0)
        assert len(asked) >= 2, "a poll reads the candidates and what is held"
        self._answer(asked, candidates)
        return sum(sum(spent) - before.get(kind, 0.0) for kind, spent in self.seconds.items())

    def _answer(self, asked: Sequence[Command], candidates: Sequence[Issue]) -> None:
        """Be the tracker: answer the reads of one poll, and those that follow from them."""
        issue_of = {issue.id: issue for issue in candidates}
        for command in asked:
            if isinstance(command, RefreshIssues):
                found = [replace(issue_of[i]) for i in command.ids]
                self.send(IssuesRefreshed(command.cause, found), kind="IssuesRefreshed (all runs)")
        for command in asked:
            if isinstance(command, FetchCandidates):
                fetched = CandidatesFetched(command.cause, candidates)
                for read in self.send(fetched, kind="CandidatesFetched (all)"):
                    if isinstance(read, RefreshIssues):
                        chosen = [issue_of[i] for i in read.ids]
                        event = IssuesRefreshed(read.cause, chosen)
                        self.send(event, kind="IssuesRefreshed (dispatch)")


def measure_steps(running: int, candidates: int) -> tuple[dict[str, list[float]], list[float]]:
    """Return the costs by kind of event, and of whole ticks (seconds, wall clock)."""
    loaded = Loaded(running, candidates)
    gc.collect()
    gc.freeze()
    try:
        ticks = [loaded.poll(loaded.candidates) for _ in range(10)]
        _play_runs(loaded)
        _play_orders(loaded)
    finally:
        gc.unfreeze()
    return dict(loaded.seconds), ticks


def _play_runs(loaded: Loaded) -> None:
    """Let runs report, fail, finish and be followed by others."""
    failed = Outcome(kind=OutcomeKind.FAILED, message="fault", category="turn_failed")
    completed = Outcome(kind=OutcomeKind.COMPLETED)
    usage = TokenUsage(1000, 100, 1100, 0, 0)
    for number, spec in enumerate(loaded.specs[:300]):
        moved = replace(spec.issue, state="In Progress")
        loaded.send(RunIssueChanged(spec.run_id, moved))
        loaded.send(RunSilent(spec.run_id, 1.0))
        loaded.send(WakeUp(), kind="WakeUp (nothing is due)")
        outcome = failed if number % 2 else completed
        loaded.send(RunEnded(spec.run_id, outcome, usage, 1.0), kind=f"RunEnded ({outcome.kind})")
    ended = {spec.issue_id for spec in loaded.specs[:300]}
    del loaded.specs[:300]
    issue_of = {issue.id: issue for issue in loaded.candidates}
    for _ in range(200):
        commands = loaded.send(WakeUp(), kind="WakeUp (retries are due)", after_s=0.05)
        for command in commands:
            if isinstance(command, RefreshIssues):
                shown = [issue_of[i] for i in command.ids]
                # Half of them are finished by now: their workspaces go.
                shown = [replace(one, state="Done") if one.id in ended else one for one in shown]
                cleaned = loaded.send(IssuesRefreshed(command.cause, shown), kind="IssuesRefreshed")
                for clean in cleaned:
                    if isinstance(clean, CleanWorkspace):
                        loaded.send(CleanupEnded(clean.cause, clean.issue.id, None))


def _play_orders(loaded: Loaded) -> None:
    """Let operators, webhooks and the settings speak."""
    for number in range(100):
        issue = loaded.candidates[-1 - number]
        began = time.thread_time()
        explain(loaded.state, issue)
        loaded.seconds["explain, one issue"].append(time.thread_time() - began)
        for action in (ControlAction.PAUSE, ControlAction.RESUME):
            loaded.send(ControlRequested(action, issue.identifier, ""), kind="ControlRequested")
        loaded.send(RefreshRequested())
    for _ in range(20):
        loaded.send(SettingsChanged(loaded.settings))


def progress_of(loaded: Loaded, message: object) -> dict[str, RunProgress]:
    """Return the live record of each run as its agent would have left it."""
    records = {}
    for number, spec in enumerate(loaded.specs):
        record = RunProgress(
            run_id=spec.run_id,
            issue=spec.issue,
            attempt=spec.attempt,
            host=spec.host,
            started_mono=loaded.now.mono,
            started_wall=loaded.now.wall,
            last_activity_mono=loaded.now.mono,
            workspace_path=f"/workspaces/{spec.issue.identifier}",
            process_id=number + 1000,
            thread_id=f"thread-{number}",
            turn_id=f"turn-{number}",
            turn_count=1,
            last_event="notification",
            last_message=message,
            last_event_wall=loaded.now.wall,
        )
        record.meter.report(record.thread_id or "", TokenUsage(1000, 100, 1100, 0, 0))
        records[spec.run_id] = record
    return records


def _issue(number: int) -> Issue:
    return Issue(
        id=IssueId(f"00000000-0000-4000-8000-{number:012d}"),
        identifier=f"SCALE-{number}",
        title=f"Issue {number} of a large board",
        description=_TEXT,
        state="Todo",
        priority=number % 4 + 1,
        labels=("backend", "bug"),
        url=f"https://tracker.invalid/SCALE-{number}",
        dispatchable=True,
        created_at=_EPOCH + timedelta(minutes=number),
    )


def _settings(running: int) -> Settings:
    return Settings.model_validate(
        {
            "tracker": {
                "kind": "memory",
                "active_states": ["Todo", "In Progress"],
                "terminal_states": ["Done", "Cancelled"],
            },
            "agent": {"max_concurrent_agents": running},
        }
    )
