"""What must hold, judged apart from the scheduler's own code: told what it is told, shown what it
commands, it keeps books of its own and compares after every step.

The rules are written from SPEC 7 and 8 and from the promises of the design, with no call into
``eligibility``, ``retry`` or ``reconcile``; ``invariants.validate`` comes on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from symphony.scheduler.commands import (
    CleanWorkspace,
    Command,
    DropClaim,
    DropHold,
    DropPark,
    Durable,
    FetchCandidates,
    FetchTerminal,
    FinishRun,
    RefreshIssues,
    SaveClaim,
    SaveHold,
    SavePark,
    SaveRaise,
    SaveStop,
    StartRun,
    StopRun,
)
from symphony.scheduler.events import (
    CandidatesFailed,
    CandidatesFetched,
    CleanupEnded,
    ConfigBroken,
    ConfigRepaired,
    ControlRequested,
    Event,
    IssuesRefreshed,
    RefreshFailed,
    ResourcesRead,
    Restored,
    RunEnded,
    RunIssueChanged,
    SettingsChanged,
    ShutdownRequested,
    SpendReported,
    TerminalFetched,
    WakeUp,
)
from symphony.scheduler.invariants import validate

from .oracle_books import TOLERANCE_S
from .oracle_claims import ClaimBooks
from .oracle_reads import ReadBooks
from .oracle_restart import RestartBooks
from .oracle_runs import RunBooks
from .oracle_views import ViewBooks
from .world import InvariantBroken

if TYPE_CHECKING:
    pass


class Oracle(RestartBooks, ReadBooks, RunBooks, ClaimBooks, ViewBooks):
    """Is told all that happens, and compares after every step."""

    def told(self, event: Event | None) -> None:
        """The scheduler takes this event next; None: its timer may come next."""
        if self._is_open:
            self._fail(f"the step with {self._event} has failed")
        self._event = event
        self._just_ended = None
        self._changed, self._noted = set(), set()
        if event is None:
            return
        self._is_open = True
        if self._world.traces:
            self._world.note(f"  > {event}")
        if not self._stopping:
            self._breaker.told(event, self._live)
        match event:
            case Restored():
                self._restored(event)
            case SettingsChanged():
                self._settings_changed(event)
            case ConfigBroken():
                self._config_broken = True
            case ConfigRepaired():
                self._config_broken = False
            case CandidatesFetched() | CandidatesFailed():
                # What a board shows that is no longer in force is not dispatched.
                if self._is_first(event) and event.cause > self._last_cause_of_former_board:
                    self._candidates = getattr(event, "issues", None)
            case IssuesRefreshed() | RefreshFailed():
                if self._is_first(event) and isinstance(event, IssuesRefreshed):
                    self._refreshed(event)
            case TerminalFetched():
                if self._is_first(event):
                    for issue in event.issues:
                        self._seen[issue.id] = issue
            case CleanupEnded():
                if self._is_first(event):
                    self._excused.add(event.issue_id)
            case RunIssueChanged():
                if event.run_id in self._live:
                    self._show(event.issue)
            case ResourcesRead(found):
                is_short = (found.free_memory_mb or 0) < 256
                self._short = (self._short - {found.host}) | ({found.host} if is_short else set())
            case RunEnded():
                self._run_ended(event)
            case ControlRequested():
                self._ordered(event)
            case SpendReported():
                for run_id, spend in event.spends:
                    if run_id in self._live:
                        issue_id = self._live[run_id].spec.issue_id
                        self._purse.reports(run_id, issue_id, spend, self._wall)
            case ShutdownRequested():
                self._stopping = True
            case _:
                pass

    def commanded(self, commands: Sequence[Command]) -> None:
        if self._event is None:
            self._event = WakeUp()
        orders = [command for command in commands if isinstance(command, Durable)]
        starts = [command.spec for command in commands if isinstance(command, StartRun)]
        self._memory.give([*orders, *starts])
        for command in commands:
            if self._world.traces:
                self._world.note(f"  < {command}")
            if isinstance(command, Durable | StartRun):
                order = command.spec if isinstance(command, StartRun) else command
                self._memory.number = self._memory.number_of(order)
            self._breaker.commanded(command)
            if isinstance(command, StartRun | StopRun | CleanWorkspace | DropClaim):
                self._must(not self._is_of_former_board(), lambda c=command: f"{c} of a board left")
            match command:
                case StartRun(spec):
                    self._start(spec)
                case FinishRun():
                    self._finish(command)
                case StopRun():
                    self._stop(command)
                case SaveClaim():
                    self._save(command)
                case SaveStop():
                    self._save_stop(command)
                case SavePark():
                    self._save_park(command)
                case SaveHold(hold):
                    self._memory.holds[hold.scope] = (True, self._memory.number)
                case DropHold(scope):
                    self._memory.holds[scope] = (False, self._memory.number)
                case DropPark():
                    self._must(
                        self._now >= self._parked_until - TOLERANCE_S, lambda: "unparked early"
                    )
                    self._memory.park = (None, self._world.timeline.wall_shift, self._memory.number)
                case DropClaim(issue_id):
                    self._drop(issue_id)
                case SaveRaise(order):
                    assert isinstance(self._event, ControlRequested)
                    self._purse.add_raise(order.scope, self._event.amounts)
                case CleanWorkspace():
                    self._ask(command)
                    self._clean(command)
                case FetchCandidates() | FetchTerminal() | RefreshIssues():
                    if self._stopping:
                        self._fail(f"{command} during a shutdown")
                    self._ask(command)
                case _:
                    pass
        self._settled(commands)

    def stepped(self) -> None:
        event, self._is_open = self._event, False
        state = self._life.state
        try:
            validate(state)
        except AssertionError as error:
            raise InvariantBroken(f"after {event}: {error}") from error
        lost = self._memory.passed_over
        self._must(lost is None or self.is_forced, lambda: f"an order was not written: {lost}")
        self._breaker.compare()
        self._same_runs()
        self._same_spend()
        self._must(not self._changed, lambda: f"changed, and blocked all the same: {self._changed}")
        blocked = self._blocked()
        self._must(
            blocked == set(self._blocks), lambda: f"blocked {blocked}, should be {self._blocks}"
        )
        self._as_operators_have_it()
        self._nothing_is_late()
        self._polls_go_on()
        self._must(
            state.usage == self._usage, lambda: f"totals {state.usage}, should be {self._usage}"
        )
        if not state.poll.checking and self._candidates is not None:
            self._nobody_is_lost(self._candidates)
            self._candidates = None
        self._world.steps += 1
        # In the middle of a backlog the records may be ahead of the claims; nobody looks then.
        if self._world.steps % 8 == 0 and self._life.mailbox.is_empty:
            self._look()

    def run_reported(self, event: RunEnded) -> None:
        """The executor says that a run has ended; once is right."""
        self._reported[event.run_id] += 1
        self._must(self._reported[event.run_id] == 1, lambda: f"{event.run_id} has ended twice")
        if self._world.scenario.real_attempts:
            outcome = event.outcome
            self._must(outcome.category != "internal_error", lambda: f"a fault of ours: {event}")
            self._world.counts[f"ends {outcome.code or outcome.category or outcome.kind}"] += 1
        # Somebody may look just now, before the scheduler has taken this end.
        if self._life.mailbox.is_empty:
            self._look()
        if not self._world.disk_fails and self._life.ledger.degraded is None:
            self._memory.durable[event.run_id] = event.usage.total_tokens

    def ended(self) -> None:
        """After a shutdown: each run that was started has ended once."""
        self._must(self.is_forced or not self._live, lambda: f"runs are left: {list(self._live)}")
        if not self.is_forced:
            alive = [one for one in self._world.alive() if one.lifetime == self._life.number]
            self._must(not alive, lambda: f"processes are left: {alive}")
