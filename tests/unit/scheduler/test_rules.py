"""Any order of events: late, doubled, reordered, failed, empty and partial answers, crashes.

A model beside the scheduler keeps a board, the live runs, a ledger fed by the commands, and the
unanswered commands. After every step it compares itself with the scheduler.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from symphony.config.settings import Settings
from symphony.model.clock import Instant
from symphony.model.issue import Issue, IssueId
from symphony.model.run import Outcome, OutcomeKind, RunId, RunSpec, StopReason
from symphony.model.usage import TokenUsage
from symphony.scheduler.claims import Blocked, Cleaning, Rechecking, RetryQueued, Running
from symphony.scheduler.commands import (
    CleanWorkspace,
    Command,
    DropBreaker,
    DropClaim,
    DropPark,
    FetchCandidates,
    FetchTerminal,
    Note,
    RefreshIssues,
    SaveBreaker,
    SaveClaim,
    SaveEnd,
    SavePark,
    StartRun,
    StopRun,
)
from symphony.scheduler.events import (
    CandidatesFailed,
    CandidatesFetched,
    CleanupEnded,
    ConfigBroken,
    ConfigRepaired,
    Event,
    IssuesRefreshed,
    RefreshFailed,
    RefreshRequested,
    Restored,
    RestoredClaim,
    RunEnded,
    RunIssueChanged,
    RunSilent,
    SettingsChanged,
    ShutdownRequested,
    TerminalFailed,
    TerminalFetched,
    WakeUp,
)
from symphony.scheduler.invariants import validate
from symphony.scheduler.publish import build_snapshot, explain
from symphony.scheduler.state import SchedulerState, new_state, next_wakeup
from symphony.scheduler.step import step

STATES = ["Todo", "In Progress", "Review", "Done"]
NAMES = [f"A-{number}" for number in range(1, 9)]
Question = FetchCandidates | FetchTerminal | RefreshIssues | CleanWorkspace

names = st.sampled_from(NAMES)
delays = st.one_of(st.floats(0, 2), st.floats(0, 400))
manners = st.sampled_from(["whole", "whole", "whole", "whole", "partial", "empty", "failed"])
outcomes = st.builds(
    Outcome,
    kind=st.sampled_from(OutcomeKind),
    retryable=st.sampled_from([True, True, True, False]),
    code=st.sampled_from([None, None, None, "usageLimitExceeded", "contextWindowExceeded"]),
    stop_reason=st.sampled_from([None, None, *StopReason]),
)
configurations = st.fixed_dictionaries(
    {
        "agents": st.integers(1, 5),
        "todo": st.integers(1, 3),
        "hosts": st.sampled_from([[], ["a"], ["a", "b"]]),
        "per_host": st.sampled_from([None, 1, 2]),
        "board": st.sampled_from(["one", "one", "two"]),
        "interval": st.sampled_from([1_000, 30_000]),
        "labels": st.sampled_from([[], [], ["agent"]]),
    }
)


def settings_of(choice: dict[str, Any]) -> Settings:
    return Settings.model_validate(
        {
            "tracker": {
                "kind": "memory",
                "provider": {"board": choice["board"]},
                "active_states": STATES[:2],
                "terminal_states": STATES[3:],
                "required_labels": choice["labels"],
            },
            "polling": {"interval_ms": choice["interval"]},
            "agent": {
                "max_concurrent_agents": choice["agents"],
                "max_concurrent_agents_by_state": {"todo": choice["todo"]},
            },
            "worker": {
                "ssh_hosts": choice["hosts"],
                "max_concurrent_agents_per_host": choice["per_host"],
            },
        }
    )


class AnyOrder(RuleBasedStateMachine):
    state: SchedulerState

    @initialize(choice=configurations, seed=st.integers(0, 2**32))
    def begin(self, choice: dict[str, Any], seed: int) -> None:
        self.mono, self.wall = 0.0, 1_767_225_600.0
        self.config = settings_of(choice)
        self.seed = seed
        self.board: dict[IssueId, Issue] = {}
        self.ledger: dict[IssueId, RestoredClaim] = {}
        self.live: dict[RunId, RunSpec] = {}
        self.recorded: set[RunId] = set()
        self.all_runs: list[RunSpec] = []
        self.usage, self.seconds = TokenUsage(), 0.0
        self.boot()

    # --- the model's side -------------------------------------------------------------------

    @property
    def now(self) -> Instant:
        return Instant(self.mono, self.wall)

    def boot(self) -> None:
        """A new lifetime: no process, no question in flight, the ledger as it stands."""
        self.seed += 1
        self.state = new_state(self.config, workflow_id="wf", seed=self.seed)
        self.live.clear()
        self.questions: list[Question] = []
        self.asked: set[int] = set()
        self.is_broken = self.is_ending = False
        claims = list(self.ledger.values())
        self.send(Restored(claims, self.usage, self.seconds))

    def send(self, event: Event) -> list[Command]:
        commands = step(self.state, event, self.now)
        validate(self.state)
        for command in commands:
            self.obey(command)
        self.compare()
        return commands

    def obey(self, command: Command) -> None:
        match command:
            case FetchCandidates() | FetchTerminal() | RefreshIssues() | CleanWorkspace():
                assert command.cause not in self.asked, "a cause was used twice"
                assert not self.is_ending, "a read began during a shutdown"
                self.asked.add(command.cause)
                self.questions.append(command)
            case StartRun(spec):
                self.check_start(spec)
            case StopRun(run_id):
                assert run_id in self.live, "a run that is not alive was stopped"
            case SaveClaim():
                self.ledger[command.issue.id] = RestoredClaim(
                    kind=command.kind,
                    issue=command.issue,
                    attempt=command.attempt,
                    retry_kind=command.retry_kind,
                    error=command.error,
                    delay_s=(command.due_wall or self.wall) - self.wall,
                    thread_id=command.thread_id,
                    host=command.host,
                    workspace_path=command.workspace_path,
                    blocked_category=command.blocked_category,
                    since_wall=command.since_wall,
                )
            case DropClaim(issue_id):
                self.ledger.pop(issue_id, None)
            case SaveEnd(ended):
                assert ended.run_id not in self.recorded, "a run's end was recorded twice"
                self.recorded.add(ended.run_id)
            case Note() | SavePark() | DropPark() | SaveBreaker() | DropBreaker():
                pass
            case _:
                raise AssertionError(f"nobody ordered this: {command}")

    def check_start(self, spec: RunSpec) -> None:
        issue_id = spec.issue.id
        assert not self.is_broken, "dispatch under a broken configuration"
        assert not self.is_ending, "dispatch during a shutdown"
        assert self.state.park is None, "dispatch while parked"
        assert all(other.issue.id != issue_id for other in self.live.values()), "two runs"
        assert spec.run_id not in {other.run_id for other in self.all_runs}, "run id reused"
        assert spec.issue.state in STATES[:2]
        self.live[spec.run_id] = spec
        self.all_runs.append(spec)
        self.ledger[issue_id] = RestoredClaim(
            kind="running",
            issue=spec.issue,
            attempt=spec.attempt,
            retry_kind=spec.retry_kind,
            error=spec.previous_error,
            thread_id=spec.thread_id,
            host=spec.host,
        )
        agent, worker = self.config.agent, self.config.worker
        running = self.state.claims.running()
        assert len(self.live) <= agent.max_concurrent_agents, "global limit"
        if spec.issue.state == "Todo":
            todo = [claim for claim in running if claim.issue.state == "Todo"]
            assert len(todo) <= agent.max_concurrent_agents_by_state["todo"], "state limit"
        if worker.ssh_hosts:
            assert spec.host in worker.ssh_hosts
            here = [other for other in self.live.values() if other.host == spec.host]
            limit = worker.max_concurrent_agents_per_host
            assert limit is None or len(here) <= limit, "host limit"
        else:
            assert spec.host == "local"

    def compare(self) -> None:
        claims = self.state.claims
        running = {claim.spec.run_id for claim in claims.running()}
        assert running == set(self.live), "the scheduler's runs are not the live ones"
        assert self.state.usage == self.usage
        assert self.state.seconds == self.seconds
        kinds = {claim.issue.id: claim.kind for claim in self.ledger.values()}
        for claim in claims:
            match claim:
                case Running():
                    assert kinds.pop(claim.issue.id) == "running"
                case RetryQueued() | Rechecking():
                    assert kinds.pop(claim.issue.id) in ("retry", "running")
                case Blocked():
                    assert kinds.pop(claim.issue.id) == "blocked"
                case Cleaning():
                    kinds.pop(claim.issue.id, None)
                case _:
                    assert claim.issue.id not in kinds, "chosen beside a durable claim"
        assert self.is_ending or not kinds, f"the ledger holds lost claims: {kinds}"
        shown = build_snapshot(self.state, {}, self.now, sequence=1, rate_limits=None)
        assert shown.usage == self.usage
        assert len(shown.running) == len(self.live)

    def answer(self, question: Question, manner: str, keep: IssueId | None = None) -> None:
        cause = question.cause
        if isinstance(question, CleanWorkspace):
            error = "hook failed" if manner == "failed" else None
            self.send(CleanupEnded(cause, question.issue.id, error))
            return
        if isinstance(question, RefreshIssues):
            found = [self.board[name] for name in question.ids if name in self.board]
        else:
            found = [one for one in self.board.values() if one.state in question.states]
        if manner == "empty":
            found = []
        elif manner == "partial":
            found = [one for one in found if one.id == keep]
        self.send(self.event_for(question, found, failed=manner == "failed"))

    @staticmethod
    def event_for(question: Question, found: list[Issue], *, failed: bool) -> Event:
        cause = question.cause
        match question:
            case FetchCandidates() if failed:
                return CandidatesFailed(cause, "tracker_status", "503", 7.0)
            case FetchCandidates():
                return CandidatesFetched(cause, found)
            case FetchTerminal() if failed:
                return TerminalFailed(cause, "tracker_status", "503")
            case FetchTerminal():
                return TerminalFetched(cause, found)
            case _ if failed:
                return RefreshFailed(cause, "tracker_status", "503", 7.0)
            case _:
                return IssuesRefreshed(cause, found)

    # --- the world --------------------------------------------------------------------------

    @rule(name=names, state=st.sampled_from(STATES), priority=st.sampled_from([None, 1, 3]))
    def file_issue(self, name: str, state: str, priority: int | None) -> None:
        self.board[IssueId(name)] = Issue(
            id=IssueId(name),
            identifier=name,
            title=name,
            state=state,
            dispatchable=True,
            priority=priority,
            labels=("agent",),
        )

    @precondition(lambda self: self.board)
    @rule(data=st.data(), state=st.sampled_from(STATES))
    def move_issue(self, data: st.DataObject, state: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.board)))
        self.board[name] = replace(self.board[name], state=state)

    @precondition(lambda self: self.board)
    @rule(data=st.data(), flag=st.booleans(), labels=st.sampled_from([(), ("agent",)]))
    def reroute_issue(self, data: st.DataObject, flag: bool, labels: tuple[str, ...]) -> None:
        name = data.draw(st.sampled_from(sorted(self.board)))
        self.board[name] = replace(self.board[name], dispatchable=flag, labels=labels)

    @precondition(lambda self: self.board)
    @rule(data=st.data())
    def remove_issue(self, data: st.DataObject) -> None:
        del self.board[data.draw(st.sampled_from(sorted(self.board)))]

    @rule(delay=delays)
    def let_time_pass(self, delay: float) -> None:
        self.mono += delay
        self.wall += delay
        self.send(WakeUp())

    @rule()
    def wake_when_due(self) -> None:
        due = next_wakeup(self.state)
        if due is not None:
            self.wall += max(0.0, due - self.mono)
            self.mono = max(due, self.mono)
            self.send(WakeUp())

    @precondition(lambda self: self.questions)
    @rule(data=st.data(), manner=manners, keep=names, doubled=st.booleans())
    def answer_any(self, data: st.DataObject, manner: str, keep: str, doubled: bool) -> None:
        index = data.draw(st.integers(0, len(self.questions) - 1))
        question = self.questions.pop(index)
        self.answer(question, manner, IssueId(keep))
        if doubled:
            self.answer(question, "whole")

    @precondition(lambda self: self.questions)
    @rule()
    def answer_all(self) -> None:
        while self.questions:
            self.answer(self.questions.pop(0), "whole")

    @precondition(lambda self: self.all_runs)
    @rule(data=st.data(), outcome=outcomes, wait=st.none() | st.floats(-10, 900))
    def end_run(self, data: st.DataObject, outcome: Outcome, wait: float | None) -> None:
        """Any run that ever was: of an ended one, or of a former lifetime, it comes too late."""
        spec = data.draw(st.sampled_from(self.all_runs[-6:]))
        outcome = replace(outcome, retry_at=None if wait is None else self.wall + wait)
        if self.live.pop(spec.run_id, None) is not None:
            self.usage = self.usage + TokenUsage(1, 2, 3)
            self.seconds += 1.5
        self.send(RunEnded(spec.run_id, outcome, TokenUsage(1, 2, 3), 1.5, thread_id="t"))

    @precondition(lambda self: self.all_runs)
    @rule(data=st.data(), silent_s=st.sampled_from([1.0, 301.0]))
    def fall_silent(self, data: st.DataObject, silent_s: float) -> None:
        spec = data.draw(st.sampled_from(self.all_runs[-6:]))
        self.send(RunSilent(spec.run_id, silent_s))

    @precondition(lambda self: self.all_runs)
    @rule(data=st.data(), state=st.sampled_from(STATES))
    def run_reads_its_issue(self, data: st.DataObject, state: str) -> None:
        spec = data.draw(st.sampled_from(self.all_runs[-6:]))
        self.send(RunIssueChanged(spec.run_id, replace(spec.issue, state=state)))

    @rule(choice=configurations)
    def change_settings(self, choice: dict[str, Any]) -> None:
        self.config = settings_of(choice)
        self.is_broken = False
        self.send(SettingsChanged(self.config))

    @rule(broken=st.booleans())
    def break_or_mend_config(self, broken: bool) -> None:
        self.is_broken = broken
        self.send(ConfigBroken("line 3") if broken else ConfigRepaired())

    @rule()
    def request_refresh(self) -> None:
        self.send(RefreshRequested())

    @precondition(lambda self: self.board)
    @rule(data=st.data())
    def explain_any(self, data: st.DataObject) -> None:
        issue = self.board[data.draw(st.sampled_from(sorted(self.board)))]
        answers = explain(self.state, issue)
        if issue.id in self.state.claims:
            assert not all(gate.passed for gate in answers)

    @rule(crash_after=st.booleans())
    def shut_down(self, crash_after: bool) -> None:
        self.is_ending = True
        self.send(ShutdownRequested())
        if not crash_after:
            for spec in list(self.live.values()):
                del self.live[spec.run_id]
                outcome = Outcome(kind=OutcomeKind.CANCELLED, stop_reason=StopReason.SHUTDOWN)
                self.send(RunEnded(spec.run_id, outcome, TokenUsage(), 0.0))
            assert not self.state.claims.running()
        self.boot()

    @rule()
    def crash(self) -> None:
        self.boot()

    def teardown(self) -> None:
        """Everything heals and every issue gets finished: no claim may be left over."""
        if not hasattr(self, "state"):
            return
        self.change_settings(
            {
                "agents": 2,
                "todo": 1,
                "hosts": [],
                "per_host": None,
                "board": "one",
                "interval": 900_000,
                "labels": [],
            }
        )
        for name in list(self.board):
            self.board[name] = replace(self.board[name], state="Done")
        for _ in range(40):
            self.answer_all() if self.questions else self.wake_when_due()
            for spec in list(self.live.values()):
                del self.live[spec.run_id]
                self.send(
                    RunEnded(spec.run_id, Outcome(kind=OutcomeKind.COMPLETED), TokenUsage(), 0.0)
                )
        assert len(self.state.claims) == 0, list(self.state.claims)
        assert not self.ledger


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=150,
    stateful_step_count=50,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
