"""A driver that plays the shell: it keeps the clock, sends events and checks every invariant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest

from symphony.config.settings import Settings
from symphony.model.clock import Instant
from symphony.model.issue import Issue, IssueId
from symphony.model.run import Outcome, OutcomeKind, RunId, RunSpec, StopReason
from symphony.model.usage import TokenUsage
from symphony.scheduler.claims import Claim, RetryQueued
from symphony.scheduler.commands import (
    Command,
    FetchCandidates,
    Note,
    RefreshIssues,
    RefreshPurpose,
    StartRun,
    StopRun,
)
from symphony.scheduler.events import (
    CandidatesFailed,
    CandidatesFetched,
    Event,
    IssuesRefreshed,
    RefreshFailed,
    Restored,
    RunEnded,
    WakeUp,
)
from symphony.scheduler.invariants import validate
from symphony.scheduler.state import new_state, next_wakeup
from symphony.scheduler.step import step

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
T = TypeVar("T")


def build_issue(name: str, **fields: Any) -> Issue:
    """An issue whose number makes it younger than those with lower numbers."""
    number = int("".join(filter(str.isdigit, name)) or 0)
    fields = {
        "title": f"Title of {name}",
        "state": "Todo",
        "dispatchable": True,
        "created_at": EPOCH + timedelta(minutes=number),
        **fields,
    }
    return Issue(id=IssueId(f"id-{name}"), identifier=name, **fields)


def build_settings(**sections: dict[str, Any]) -> Settings:
    tracker = {
        "kind": "memory",
        "active_states": ["Todo", "In Progress"],
        "terminal_states": ["Done", "Cancelled"],
        **sections.pop("tracker", {}),
    }
    return Settings.model_validate({"tracker": tracker, **sections})


class Driver:
    """The scheduler with a clock of its own; every step is followed by all checks."""

    def __init__(self, settings: Settings, *, seed: int = 7) -> None:
        self.state = new_state(settings, workflow_id="wf", seed=seed)
        self.mono = 1_000.0
        self.wall = EPOCH.timestamp()
        self.commands: list[Command] = []
        self.history: list[Command] = []

    @property
    def now(self) -> Instant:
        return Instant(self.mono, self.wall)

    def advance(self, seconds: float) -> None:
        self.mono += seconds
        self.wall += seconds

    def send(self, event: Event) -> list[Command]:
        self.commands = step(self.state, event, self.now)
        self.history += self.commands
        validate(self.state)
        return self.commands

    def wake(self, after: float = 0.0) -> list[Command]:
        self.advance(after)
        return self.send(WakeUp())

    def wake_at(self, mono: float) -> list[Command]:
        """Wake up at this very moment: adding a difference might miss it by a rounding."""
        self.advance(mono - self.mono)
        self.mono = mono
        return self.send(WakeUp())

    def wake_when_due(self) -> list[Command]:
        due = next_wakeup(self.state)
        assert due is not None
        return self.wake_at(max(due, self.mono))

    def wakes_in(self) -> float | None:
        due = next_wakeup(self.state)
        return None if due is None else due - self.mono

    def of(self, kind: type[T]) -> list[T]:
        """The commands of this type that the last event brought."""
        return [command for command in self.commands if isinstance(command, kind)]

    def notes(self) -> list[str]:
        return [note.message for note in self.of(Note)]

    def refresh(self, purpose: RefreshPurpose) -> RefreshIssues:
        """The newest unanswered read of this purpose."""
        return next(
            command
            for command in reversed(self.history)
            if isinstance(command, RefreshIssues)
            and command.purpose is purpose
            and command.cause in self.state.pending
        )

    def has_refresh(self, purpose: RefreshPurpose) -> bool:
        return any(pending.asked is purpose for pending in self.state.pending.values())

    def candidates_cause(self) -> Any:
        return next(
            command.cause
            for command in reversed(self.history)
            if isinstance(command, FetchCandidates) and command.cause in self.state.pending
        )

    def show(self, purpose: RefreshPurpose, *issues: Issue) -> list[Command]:
        """Answer the read of this purpose with these issues."""
        return self.send(IssuesRefreshed(self.refresh(purpose).cause, issues))

    def fail(
        self, purpose: RefreshPurpose, message: str = "down", retry_after_s: float | None = None
    ) -> list[Command]:
        cause = self.refresh(purpose).cause
        return self.send(RefreshFailed(cause, "tracker_request", message, retry_after_s))

    def offer(self, *issues: Issue) -> list[Command]:
        """Answer the candidates read with these issues."""
        return self.send(CandidatesFetched(self.candidates_cause(), issues))

    def fail_candidates(
        self, message: str = "down", retry_after_s: float | None = None
    ) -> list[Command]:
        cause = self.candidates_cause()
        return self.send(CandidatesFailed(cause, "tracker_request", message, retry_after_s))

    def start(self, *candidates: Issue) -> list[RunSpec]:
        """First start of a daemon whose board shows these candidates; runs what may run."""
        self.send(Restored())
        self.offer(*candidates)
        return self.confirm(*candidates)

    def poll(self, candidates: Sequence[Issue] = (), held: Sequence[Issue] = ()) -> list[RunSpec]:
        """One whole cycle; returns what it started."""
        self.state.poll.next_mono = self.mono
        self.wake()
        if self.has_refresh(RefreshPurpose.RECONCILE):
            self.show(RefreshPurpose.RECONCILE, *held)
        self.offer(*candidates)
        return self.confirm(*candidates, *held)

    def confirm(self, *issues: Issue) -> list[RunSpec]:
        """Confirm chosen candidates with these issues; returns what was started."""
        if not self.has_refresh(RefreshPurpose.DISPATCH):
            return []
        self.show(RefreshPurpose.DISPATCH, *issues)
        return self.started()

    def started(self) -> list[RunSpec]:
        return [command.spec for command in self.of(StartRun)]

    def stopped(self) -> list[tuple[RunId, StopReason]]:
        return [(command.run_id, command.reason) for command in self.of(StopRun)]

    def end(
        self, spec: RunSpec, kind: OutcomeKind = OutcomeKind.COMPLETED, **fields: Any
    ) -> list[Command]:
        """End a run with this kind of outcome; ``ended`` fields go into the event."""
        names = (
            "usage",
            "seconds",
            "thread_id",
            "workspace_path",
            "session_id",
            "last_event",
            "idle",
        )
        ended = {name: fields.pop(name) for name in names if name in fields}
        ended = {"usage": TokenUsage(), "seconds": 1.0, **ended}
        outcome = Outcome(kind=kind, **fields)
        return self.send(RunEnded(spec.run_id, outcome, host=spec.host, **ended))

    def claim(self, issue: Issue) -> Claim | None:
        return self.state.claims.get(issue.id)

    def retry(self, issue: Issue) -> RetryQueued:
        claim = self.claim(issue)
        assert isinstance(claim, RetryQueued)
        return claim

    def due_in(self, issue: Issue) -> float:
        """Seconds until the issue's retry is due."""
        return self.retry(issue).due_mono - self.mono

    def fail_again(
        self, issue: Issue, spec: RunSpec, kind: OutcomeKind = OutcomeKind.FAILED, **fields: Any
    ) -> RunSpec:
        """Fail a run, wait for its retry and return the next run."""
        self.end(spec, kind, **fields)
        self.wake_at(self.retry(issue).due_mono)
        self.show(RefreshPurpose.RETRY, issue)
        (spec,) = self.started()
        return spec

    @staticmethod
    def within(delay: float, nominal: float) -> bool:
        """Whether a delay is a nominal one, at most a tenth shorter: the jitter of retries."""
        return nominal * 0.9 <= delay <= nominal


@pytest.fixture
def issue() -> Callable[..., Issue]:
    return build_issue


@pytest.fixture
def moved() -> Callable[[Issue, str], Issue]:
    """The same issue in another state."""
    return lambda issue, state: replace(issue, state=state)


@pytest.fixture
def settings() -> Callable[..., Settings]:
    return build_settings


@pytest.fixture
def drive() -> Callable[..., Driver]:
    """A driver whose settings are given by section; a second call is another daemon lifetime."""

    def drive(*, seed: int = 7, **sections: dict[str, Any]) -> Driver:
        return Driver(build_settings(**sections), seed=seed)

    return drive
