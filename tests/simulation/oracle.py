"""What must hold, judged apart from the scheduler's own code: told what it is told, shown what it
commands, it keeps books of its own and compares after every step.

The rules are written from SPEC 7 and 8 and from the promises of the design, with no call into
``eligibility``, ``retry`` or ``reconcile``; ``invariants.validate`` comes on top.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from symphony.config.settings import Settings
from symphony.model.issue import Issue, IssueId
from symphony.model.run import OutcomeKind, RetryKind, RunId, RunSpec, StopReason
from symphony.model.usage import TokenUsage
from symphony.scheduler.claims import (
    Blocked,
    Cleaning,
    Dispatching,
    Rechecking,
    RetryQueued,
    Running,
)
from symphony.scheduler.commands import (
    CleanWorkspace,
    Command,
    DropClaim,
    DropHold,
    DropPark,
    Durable,
    FetchCandidates,
    FetchTerminal,
    RefreshIssues,
    RefreshPurpose,
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
    ControlAction,
    ControlRequested,
    Event,
    IssuesRefreshed,
    RefreshFailed,
    ResourcesRead,
    Restored,
    RestoredClaim,
    RunEnded,
    RunIssueChanged,
    RunSilent,
    SettingsChanged,
    ShutdownRequested,
    SpendReported,
    TerminalFetched,
    WakeUp,
)
from symphony.scheduler.invariants import validate
from symphony.scheduler.publish import build_snapshot, explain
from symphony.scheduler.snapshot import Snapshot

from .blocks import STOPPED, Block, read, until_of
from .breaker_books import BreakerBooks
from .expectations import Due, Live, due_after, is_usage_limit, is_within, standing
from .purse import Purse
from .world import InvariantBroken

if TYPE_CHECKING:
    from .daemon import Lifetime

TOLERANCE_S = 1e-6
ABSENCE_S = 5.0
STALL_MARGIN_S = 15.0
ASKS = (OutcomeKind.INPUT_REQUIRED, OutcomeKind.APPROVAL_REQUIRED)


class Oracle:
    """The books of one lifetime; what outlives it is in ``World.memory``."""

    def __init__(self, life: Lifetime) -> None:
        self._life = life
        self._world = life.world
        self._memory = life.world.memory
        self.is_forced = False
        self._event: Event | None = None
        self._is_open = False
        self._settings: Settings = life.settings
        self._asked: dict[int, tuple[Any, float]] = {}
        self._answered: set[int] = set()
        self._seen: dict[IssueId, Issue] = {}
        self._absences: dict[IssueId, list[tuple[float, float]]] = {}
        self._excused: set[IssueId] = set()
        self._live: dict[RunId, Live] = {}
        self._due: dict[IssueId, Due] = {}
        self._waits: dict[IssueId, float] = {}
        self._holds: set[str | None] = set()
        self._put_down: set[IssueId] = set()
        self._blocks: dict[IssueId, Block] = {}
        self._changed: set[IssueId] = set()
        self._noted: set[IssueId] = set()
        self._replies: dict[IssueId, str | None] = {}
        self._ordered_ends: dict[RunId, bool] = {}
        self._settings_since = 0.0
        self.recovering: set[str] = set()
        self._reported: Counter[RunId] = Counter()
        self._usage = TokenUsage()
        self._parked_until = 0.0
        self._breaker = BreakerBooks(life, self._fail)
        self._lifted_until = 0.0
        self._short: set[str] = set()
        self._config_broken = self._stopping = False
        self._moved_board = False
        self._last_cause_of_former_board = 0
        self._candidates: Sequence[Issue] | None = None
        self._just_ended: tuple[Live, RunEnded] | None = None
        self._purse = Purse()

    def _fail(self, text: str) -> NoReturn:
        raise InvariantBroken(text)

    def _must(self, holds: object, text: Callable[[], str]) -> None:
        if not holds:
            self._fail(text())

    @property
    def _now(self) -> float:
        return self._world.timeline.mono

    @property
    def _wall(self) -> float:
        return self._world.timeline.wall

    def _spent(self, scope: str, issue_id: IssueId | None = None) -> str | None:
        return self._purse.over(scope, self._settings, issue_id=issue_id, wall=self._wall)

    # What the scheduler is told

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

    def _ordered(self, event: ControlRequested) -> None:
        """An operator's order: what is held, and whose work a person has stopped."""
        scope, claims = event.identifier, self._life.state.claims
        if self._stopping:
            return
        of_scope = {one.issue.id for one in claims if scope in (None, one.issue.identifier)}
        match event.action:
            case ControlAction.PAUSE | ControlAction.DRAIN:
                self._holds.add(scope)
            case ControlAction.RESUME:
                self._holds.discard(scope)
                self._put_down -= of_scope
            case ControlAction.RETRY:
                self._put_down -= {one for one in of_scope if not self._is_held_by_budget(one)}
            case ControlAction.OVERRIDE_HOURS:
                self._lifted_until = self._now + event.for_s
            case ControlAction.STOP:
                self._put_down |= of_scope
                if scope is None or not of_scope:
                    # A candidate has no claim that could keep the stop.
                    self._holds.add(scope)
            case ControlAction.UNPARK:
                self._parked_until = 0.0
            case _:
                # A raise is counted when it is saved, under the scope that it means.
                pass

    def _is_held_by_budget(self, issue_id: IssueId) -> bool:
        claim = self._life.state.claims.get(issue_id)
        return isinstance(claim, Blocked) and claim.category in ("budget_issue", "budget_total")

    def _is_first(self, event: Any) -> bool:
        """Say whether this is the answer that counts, not a copy of it."""
        if event.cause in self._answered:
            return False
        if self._stopping and not isinstance(event, CleanupEnded):
            return False
        self._answered.add(event.cause)
        return event.cause in self._asked

    def finds(self, half_written: Sequence[RunId]) -> None:
        """A start finds claims whose run has ended: what was to follow from that is there too."""
        lost = self._memory.followed & set(half_written)
        self._must(not lost, lambda: f"the ends of {lost} are in the ledger, what followed is not")

    def _restored(self, event: Restored) -> None:
        memory = self._memory
        self._usage = event.usage
        self._holds_restored({hold.scope for hold in event.holds})
        self._purse.restore(event.spend)
        for name, sums in (("issues", event.spend.issues), ("days", event.spend.days)):
            booked = sum(one.tokens for one in sums.values())
            self._must(
                booked == event.usage.total_tokens or name == "days",
                lambda name=name, booked=booked: f"{name}: {booked} tokens, {event.usage}",
            )
        self._park_restored(event)
        if event.override is not None:
            given_s = event.override.until_wall - event.override.since_wall
            left_s = min(event.override.until_wall - self._world.timeline.wall, given_s)
            self._lifted_until = self._now + left_s
        self._must(
            event.usage.total_tokens >= memory.durable_tokens,
            lambda: f"totals lost: {event.usage} < {memory.durable_tokens}",
        )
        self._must(
            event.usage.total_tokens <= memory.spent,
            lambda: f"totals doubled: {event.usage} > {memory.spent}",
        )
        self._ledger_kept({claim.issue.id: claim.kind for claim in event.claims})
        for claim in event.claims:
            issue_id = claim.issue.id
            self._answer_kept(claim)
            if self._block_restored(claim):
                continue
            if claim.kind == "running":
                self.recovering.add(issue_id)
            key = (issue_id, claim.kind, claim.attempt, claim.retry_kind)
            failures = memory.failures.get(key)
            if failures is None:
                self._fail(f"a claim that was never made: {key}")
            recovers = claim.kind == "running"
            kind = RetryKind.RECOVERY if recovers else claim.retry_kind or RetryKind.FAILURE
            due = self._now if recovers else self._restored_due(claim)
            self._due[issue_id] = Due(claim.attempt, kind, failures, due)
        memory.claims = {claim.issue.id: (claim.kind, 0) for claim in event.claims}
        memory.replies = {one: (said, 0) for one, said in self._replies.items()}

    def _ledger_kept(self, kinds: dict[IssueId, str]) -> None:
        """What the ledger was told well before the end is what it tells after it."""
        memory = self._memory
        if memory.disk_has_failed:
            return
        for issue_id, (kind, number) in memory.claims.items():
            if memory.is_written(number):
                self._must(
                    kinds.get(issue_id) == kind,
                    lambda one=issue_id, kind=kind: f"{one} was {kind}, is {kinds.get(one)}",
                )
            else:
                # From here on it is as the ledger has it.
                memory.claims[issue_id] = (kinds.get(issue_id), 0)
                memory.saved.pop(issue_id, None)

    def _park_restored(self, event: Restored) -> None:
        until, shift, number = self._memory.park
        if self._memory.is_written(number) and shift == self._world.timeline.wall_shift:
            left_s = 0.0 if until is None else max(0.0, until - self._now)
            got_s = 0.0 if event.park is None else event.park.delay_s
            self._must(
                -1e-3 < got_s - left_s < 10.0, lambda: f"parked for {left_s}, not {event.park}"
            )
        self._memory.park = (None, self._world.timeline.wall_shift, 0)
        if event.park is not None:
            self._world.counts["parks restored"] += 1
            self._parked_until = self._now + event.park.delay_s
            self._memory.park = (self._parked_until, self._world.timeline.wall_shift, 0)

    def _holds_restored(self, found: set[str | None]) -> None:
        memory = self._memory
        for scope, (is_held, number) in memory.holds.items():
            same = (scope in found) == is_held
            self._must(
                same or not memory.is_written(number), lambda one=scope: f"hold of {one}: {found}"
            )
        self._holds = found
        memory.holds = dict.fromkeys(found, (True, 0))

    def _answer_kept(self, claim: RestoredClaim) -> None:
        """An answer that was taken well before the end goes on with its issue."""
        issue_id, said = claim.issue.id, None if claim.reply is None else claim.reply.text
        text, number = self._memory.replies.get(issue_id, (None, 0))
        if self._memory.is_written(number):
            self._must(said == text, lambda: f"{issue_id} had {text!r}, is restored with {said!r}")
        self._replies[issue_id] = said

    def _block_restored(self, claim: RestoredClaim) -> bool:
        """A stop that was written is restored, whatever has become of its run."""
        issue_id = claim.issue.id
        run_id, number = self._memory.stopped.pop(issue_id, (None, 0))
        if run_id is not None and self._memory.is_written(number):
            category = STOPPED if claim.stopped is not None else claim.blocked_category
            self._must(category == STOPPED, lambda: f"the stop of {run_id} is forgotten: {claim}")
        if claim.kind != "blocked" and claim.stopped is None:
            return False
        category = STOPPED if claim.stopped is not None else claim.blocked_category or "blocked"
        if category == STOPPED:
            self._put_down.add(issue_id)
        until = None
        if claim.delay_s is not None and claim.kind == "blocked":
            until = self._restored_due(claim)
        seen = claim.seen
        shown = None if seen is None else (seen.state, frozenset(seen.labels))
        self._blocks[issue_id] = Block(category, self._now, until, self._board, shown)
        return True

    @property
    def _board(self) -> str:
        return str(self._settings.tracker.provider["board"])

    def _restored_due(self, claim: RestoredClaim) -> float:
        issue_id, memory = claim.issue.id, self._memory
        saved = memory.saved.get(issue_id)
        at = self._now + (claim.delay_s or 0.0)
        kind, number = memory.claims.get(issue_id, (None, 0))
        if kind != claim.kind or not memory.is_written(number):
            # The last order may not have got to the disk: what holds is what came before it.
            saved = None
        if saved is not None and saved[1] == self._world.timeline.wall_shift:
            expected = max(saved[0], self._now)
            # The sweep of orphans comes between reading and restoring: later, never earlier.
            self._must(
                -1e-3 < at - expected < 10.0,
                lambda: f"restored at {at}, was due at {expected}: {claim}",
            )
        return at

    def _settings_changed(self, event: SettingsChanged) -> None:
        before, self._settings = self._settings, event.settings
        self._settings_since = self._now
        self._config_broken = False
        if before.tracker.provider != event.settings.tracker.provider:
            self._moved_board = True
            self._last_cause_of_former_board = max(self._asked, default=0)
            self._candidates = None
            self._absences.clear()

    def _refreshed(self, event: IssuesRefreshed) -> None:
        command, issued = self._asked[event.cause]
        found = {issue.id: issue for issue in event.issues}
        for issue_id in command.ids:
            if issue_id in found:
                self._show(found[issue_id])
                self._read_blocked(found[issue_id], event.cause, issued)
            elif event.cause > self._last_cause_of_former_board:
                self._absences.setdefault(issue_id, []).append((issued, self._now))

    def _show(self, issue: Issue) -> None:
        self._seen[issue.id] = issue
        self._absences.pop(issue.id, None)
        if self._standing(issue) != "wanted":
            self._excused.add(issue.id)

    def _read_blocked(self, issue: Issue, cause: int, issued: float) -> None:
        block = self._blocks.get(issue.id)
        if block is None or cause <= self._last_cause_of_former_board or self._stopping:
            return
        if self._standing(issue) == "wanted":
            match read(block, issue, settings=self._settings, issued=issued, board=self._board):
                case "changed":
                    self._changed.add(issue.id)
                case "noted":
                    self._noted.add(issue.id)

    def _standing(self, issue: Issue) -> str:
        return standing(issue, self._settings)

    def _run_ended(self, event: RunEnded) -> None:
        live = self._live.pop(event.run_id, None)
        if live is None:
            return
        self._just_ended = (live, event)
        self._usage = self._usage + event.usage
        outcome = event.outcome
        if event.spend is not None:
            self._purse.reports(event.run_id, live.spec.issue_id, event.spend, self._wall)
        is_ordered = event.run_id in self._ordered_ends
        if is_usage_limit(outcome) and live.stop in (None, StopReason.STALLED) and not is_ordered:
            wait_s = (outcome.retry_at or 0.0) - self._world.timeline.wall
            if wait_s <= 0:
                wait_s = self._settings.agent.max_retry_backoff_ms / 1000
            self._parked_until = max(self._parked_until, self._now + wait_s)

    def run_reported(self, event: RunEnded) -> None:
        """The executor says that a run has ended; once is right."""
        self._reported[event.run_id] += 1
        self._must(self._reported[event.run_id] == 1, lambda: f"{event.run_id} has ended twice")
        # Somebody may look just now, before the scheduler has taken this end.
        if self._life.mailbox.is_empty:
            self._look()
        if not self._world.disk_fails and self._life.ledger.degraded is None:
            self._memory.durable[event.run_id] = event.usage.total_tokens

    # What the scheduler commands

    def _is_of_former_board(self) -> bool:
        """Say whether this step takes an answer to what another board was asked."""
        event = self._event
        return isinstance(event, IssuesRefreshed) and (
            event.cause <= self._last_cause_of_former_board
        )

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

    def _ask(self, command: Any) -> None:
        self._must(command.cause not in self._asked, lambda: f"cause used twice: {command}")
        self._asked[command.cause] = (command, self._now)

    def _start(self, spec: RunSpec) -> None:
        issue_id = spec.issue_id
        self._must(not self._stopping, lambda: f"{spec} starts during a shutdown")
        self._must(not self._config_broken, lambda: f"{spec} starts under a broken configuration")
        self._must(
            self._now >= self._parked_until - TOLERANCE_S, lambda: f"{spec} starts while parked"
        )
        self._must(spec.host not in self._short, lambda: f"{spec} starts on a short host")
        windows = self._settings.agent.active_hours
        self._must(
            is_within(windows, self._world.timeline.wall) or self._now < self._lifted_until,
            lambda: f"{spec} starts outside {windows}",
        )
        self._must(spec.run_id not in self._memory.run_ids, lambda: f"run id used twice: {spec}")
        self._must(self._standing(spec.issue) == "wanted", lambda: f"{spec} is not wanted")
        self._must(self._seen.get(issue_id) == spec.issue, lambda: f"{spec} starts unread")
        held = self._holds & {None, spec.issue.identifier}
        self._must(not held, lambda: f"{spec} starts though an operator holds {held}")
        stopped = issue_id in self._put_down
        self._must(not stopped, lambda: f"{spec} starts though an operator has stopped it")
        for scope in ("issue", "day", "total"):
            over = self._spent(scope, issue_id)
            self._must(not over, lambda over=over: f"{spec} starts though spent: {over}")
        self._purse.starts(issue_id, self._wall)
        twin = [one for one in self._live.values() if one.spec.issue_id == issue_id]
        self._must(not twin, lambda: f"{spec} starts beside {twin}")
        due = self._due.pop(issue_id, None)
        blocked = issue_id in self._blocked() or issue_id in self._blocks
        self._must(not blocked, lambda: f"{spec} starts though it is blocked")
        self._starts_with_answer(spec)
        if due is None:
            self._must(
                spec.attempt is None and spec.retry_kind is None, lambda: f"{spec} is no first run"
            )
        else:
            self._must(
                (spec.attempt, spec.retry_kind) == (due.attempt, due.kind),
                lambda: f"{spec} should be {due}",
            )
            self._must(self._now >= due.not_before - TOLERANCE_S, lambda: f"{spec} is early: {due}")
        failures = 0 if due is None else due.failures
        self._memory.run_ids.add(spec.run_id)
        self._memory.failures[(issue_id, "running", spec.attempt, spec.retry_kind)] = failures
        self._live[spec.run_id] = Live(spec, failures)
        self._memory.claims[issue_id] = ("running", self._memory.number)
        self.recovering.discard(issue_id)
        self._excused.discard(issue_id)
        self._absences.pop(issue_id, None)
        self._limits(spec)

    def _starts_with_answer(self, spec: RunSpec) -> None:
        """What was answered is told; once, since the due time of the answer has been taken."""
        said = None if spec.reply is None else spec.reply.text
        expected = self._replies.get(spec.issue_id)
        self._must(said == expected, lambda: f"{spec} should carry {expected!r}")
        self._memory.stopped.pop(spec.issue_id, None)
        if said is not None and spec.retry_kind is RetryKind.UNBLOCKED:
            self._world.counts["answered runs"] += 1

    def _blocked(self) -> set[IssueId]:
        return {one.issue.id for one in self._life.state.claims if isinstance(one, Blocked)}

    def _limits(self, spec: RunSpec) -> None:
        agent, worker = self._settings.agent, self._settings.worker
        self._must(
            len(self._live) <= agent.max_concurrent_agents, lambda: f"{spec}: above the limit"
        )
        state = spec.issue.state.lower()
        limit = agent.max_concurrent_agents_by_state.get(state)
        claims = [self._life.state.claims.get(one.spec.issue_id) for one in self._live.values()]
        same = [one for one in claims if one is not None and one.issue.state.lower() == state]
        self._must(
            limit is None or len(same) <= limit, lambda: f"{spec}: above the limit of its state"
        )
        hosts = worker.ssh_hosts or ("local",)
        self._must(spec.host in hosts, lambda: f"{spec}: not a host of the configuration")
        here = [one for one in self._live.values() if one.spec.host == spec.host]
        per_host = worker.max_concurrent_agents_per_host if worker.ssh_hosts else None
        self._must(
            per_host is None or len(here) <= per_host, lambda: f"{spec}: above the host's limit"
        )

    def _stop(self, command: StopRun) -> None:
        live = self._live.get(command.run_id)
        self._must(live is not None, lambda: f"{command} of no live run")
        assert live is not None
        follows = command.reason in (
            StopReason.TERMINAL,
            StopReason.INACTIVE,
            StopReason.UNROUTABLE,
        )
        told = live.stop is command.reason or (live.stop is not None and follows)
        if told and isinstance(self._event, RunSilent):
            # Told once more because it stays silent; that it had a reason was judged before, and
            # the tracker may have shown another one since.
            return self._must_be_silent(command)
        self._must(live.stop is None, lambda: f"{command} after {live.stop}")
        live.stop = command.reason
        issue_id = live.spec.issue_id
        match command.reason:
            case StopReason.OPERATOR:
                self._must(issue_id in self._put_down, lambda: f"{command} unordered")
            case StopReason.SHUTDOWN:
                self._must(self._stopping, lambda: f"{command} without a shutdown")
            case StopReason.STALLED:
                self._must_be_silent(command)
            case StopReason.BUDGET_DAY | StopReason.BUDGET_TOTAL:
                scope = command.reason.value.removeprefix("budget_")
                self._must(self._spent(scope), lambda: f"{command}, but {scope} is not spent")
            case StopReason.MISSING:
                self._must(
                    self._is_absent(issue_id), lambda: f"{command} without two reads that lack it"
                )
                self._excused.add(issue_id)
            case reason:
                standing = self._standing(self._seen[issue_id])
                self._must(standing == reason.value, lambda: f"{command}, but it is {standing}")

    def _must_be_silent(self, command: StopRun) -> None:
        limit_s = self._settings.codex.stall_timeout_ms / 1000
        record = self._life.progress[command.run_id]
        self._must(isinstance(self._event, RunSilent), lambda: f"{command} unasked")
        self._must(limit_s > 0, lambda: f"{command} though stalls are off")
        self._must(
            self._now - record.last_activity_mono >= limit_s, lambda: f"{command} of a healthy run"
        )

    def _is_absent(self, issue_id: IssueId, since: float = 0.0) -> bool:
        absences = [one for one in self._absences.get(issue_id, []) if one[0] >= since]
        return any(
            second[0] >= first[1] + ABSENCE_S - TOLERANCE_S
            for number, first in enumerate(absences)
            for second in absences[number + 1 :]
        )

    def _save(self, claim: SaveClaim) -> None:
        self._memory.claims[claim.issue.id] = (claim.kind, self._memory.number)
        self.recovering.discard(claim.issue.id)
        if isinstance(self._event, ControlRequested):
            self._save_by_order(claim)
        elif self._save_by_budget(claim):
            self._blocks_for_budget(claim)
        elif isinstance(self._event, Restored) and claim.kind == "blocked":
            self._world.counts["stops restored"] += 1
            self._must(claim.issue.id in self._put_down, lambda: f"{claim} was not stopped")
        elif isinstance(self._event, (IssuesRefreshed, Restored, WakeUp)):
            self._save_unasked(claim)
        else:
            self._save_after_run(claim)
        self._carries(claim)

    def _carries(self, claim: SaveClaim) -> None:
        issue_id = claim.issue.id
        said = None if claim.reply is None else claim.reply.text
        expected = self._replies.get(issue_id)
        self._must(said == expected, lambda: f"{claim} should carry {expected!r}")
        if self._memory.replies.get(issue_id, (None, 0.0))[0] != said:
            self._memory.replies[issue_id] = (said, self._memory.number)

    def _save_unasked(self, claim: SaveClaim) -> None:
        """A read shows a blocked issue for the first time or changed, or its time has come."""
        issue_id = claim.issue.id
        block = self._blocks.get(issue_id)
        self._must(block is not None, lambda: f"{claim} of what is not blocked")
        assert block is not None
        if claim.kind == "blocked":
            self._must(issue_id in self._noted, lambda: f"{claim} out of nothing")
            self._noted.discard(issue_id)
            return
        is_over = block.until is not None and self._now >= block.until - TOLERANCE_S
        is_changed = issue_id in self._changed
        self._must(is_over or is_changed, lambda: f"{claim}, but nothing ends {block}")
        self._must(claim.retry_kind is RetryKind.UNBLOCKED, lambda: f"{claim} has the wrong kind")
        self._changed.discard(issue_id)
        self._world.counts["unblocked by a change" if is_changed else "unblocked by time"] += 1
        self._goes_on(claim)

    def _goes_on(self, claim: SaveClaim) -> None:
        """A claim that waited is due now, and its failures are forgiven."""
        assert claim.retry_kind is not None
        issue_id = claim.issue.id
        self._blocks.pop(issue_id, None)
        self._due[issue_id] = Due(claim.attempt, claim.retry_kind, 0, self._now)
        self._memory.saved[issue_id] = (self._now, self._world.timeline.wall_shift)
        self._memory.failures[(issue_id, "retry", claim.attempt, claim.retry_kind)] = 0

    def _save_stop(self, command: SaveStop) -> None:
        live = self._live.get(command.run_id)
        self._must(live is not None, lambda: f"{command} of no live run")
        issue_id = command.issue_id
        is_stop = command.reason is not None
        self._must(
            is_stop == (issue_id in self._put_down), lambda: f"{command} is not what was ordered"
        )
        self._ordered_ends[command.run_id] = is_stop
        if is_stop:
            self._memory.stopped[issue_id] = (command.run_id, self._memory.number)
        else:
            self._memory.stopped.pop(issue_id, None)

    def _save_park(self, command: SavePark) -> None:
        wait_s = command.until_wall - self._world.timeline.wall
        late_s = abs(self._now + wait_s - self._parked_until)
        self._must(late_s < 1e-3, lambda: f"{command}, but it should be {self._parked_until}")
        shift = self._world.timeline.wall_shift
        self._memory.park = (self._parked_until, shift, self._memory.number)

    def _save_after_run(self, claim: SaveClaim) -> None:
        self._must(self._just_ended is not None, lambda: f"{claim} out of nothing")
        assert self._just_ended is not None
        live, event = self._just_ended
        self._must(claim.issue.id == live.spec.issue_id, lambda: f"{claim} after {event}")
        if claim.kind == "blocked":
            outcome = event.outcome
            if outcome.kind in ASKS:
                self._replies.pop(claim.issue.id, None)
            is_stopped = claim.issue.id in self._put_down
            self._must(
                is_stopped or outcome.kind in ASKS or not outcome.retryable,
                lambda: f"{claim} blocks after {event}",
            )
            self._must(claim.question == outcome.question, lambda: f"{claim} forgets {event}")
            self._is_blocked(claim, STOPPED if is_stopped else None)
            return
        stopped = claim.issue.id in self._put_down and not self._stopping
        self._must(not stopped, lambda: f"{claim} though an operator has stopped it")
        if self._ordered_ends.get(event.run_id) is False:
            self._world.counts["stops taken back"] += 1
            asked = event.outcome.kind in ASKS
            self._must(not asked, lambda: f"{claim} forgets what {event} asks")
            due = Due(live.spec.attempt, RetryKind.RECOVERY, 0, self._now)
        else:
            due = due_after(live, event, self._settings, self._world.timeline.now())
        if due.kind is RetryKind.CONTINUATION:
            self._replies.pop(claim.issue.id, None)
        got_s = claim.due_wall - self._world.timeline.wall if claim.due_wall is not None else -1.0
        self._must(
            (claim.attempt, claim.retry_kind) == (due.attempt, due.kind),
            lambda: f"{claim} should be {due} after {event}",
        )
        self._must(
            self._now + got_s >= due.not_before - 1e-4,
            lambda: f"{claim} is early by {due}, after {event}",
        )
        self._due[claim.issue.id] = due
        self._memory.saved[claim.issue.id] = (self._now + got_s, self._world.timeline.wall_shift)
        key = (claim.issue.id, "retry", claim.attempt, claim.retry_kind)
        self._memory.failures[key] = due.failures

    def _save_by_budget(self, claim: SaveClaim) -> bool:
        """Say whether a budget is why this claim is saved: it is spent, or not any more."""
        issue_id, category = claim.issue.id, claim.blocked_category or ""
        if claim.kind == "blocked" and category.startswith("budget_"):
            scope = category.removeprefix("budget_")
            if scope in ("issue", "total"):
                self._must(self._spent(scope, issue_id), lambda: f"{claim}: it is not spent")
            else:
                assert self._just_ended is not None
                outcome = self._just_ended[1].outcome
                self._must(outcome.category == category, lambda: f"{claim} after {outcome}")
            self._due.pop(issue_id, None)
            return True
        block = self._blocks.get(issue_id)
        is_lifted = block is not None and block.category.startswith("budget")
        if is_lifted and claim.kind == "retry":
            self._must(
                not self._spent("issue", issue_id), lambda: f"{claim} though its budget is spent"
            )
            return True
        return False

    def _blocks_for_budget(self, claim: SaveClaim) -> None:
        issue_id = claim.issue.id
        if claim.kind == "blocked":
            self._world.counts["blocks for a budget"] += 1
            self._blocks[issue_id] = Block("budget", self._now, None, self._board)
        else:
            self._goes_on(claim)

    def _save_by_order(self, claim: SaveClaim) -> None:
        issue_id = claim.issue.id
        event = self._event
        assert isinstance(event, ControlRequested)
        if claim.kind == "blocked":
            self._must(issue_id in self._put_down, lambda: f"{claim} unordered")
            if event.action is ControlAction.ANSWER:
                self._answer_is_kept(claim)
                return
            self._due.pop(issue_id, None)
            self._is_blocked(claim, STOPPED)
            return
        if event.action is ControlAction.ANSWER:
            # A stop finds a blocked issue blocked; whoever answers after it wants it to go on.
            self._put_down.discard(issue_id)
        self._must(issue_id not in self._put_down, lambda: f"{claim} though it is stopped")
        self._memory.stopped.pop(issue_id, None)
        block, due = self._blocks.get(issue_id), self._due.get(issue_id)
        if event.action is ControlAction.UNPARK:
            self._must(due is not None, lambda: f"{claim} waited for nothing")
            assert due is not None
            self._goes_on(claim)
            self._due[issue_id].failures = due.failures
            key = (issue_id, "retry", claim.attempt, claim.retry_kind)
            self._memory.failures[key] = due.failures
            return
        if event.action is ControlAction.ANSWER:
            self._must(block is not None and block.takes_answers, lambda: f"{claim} asked nothing")
            assert event.answer is not None
            self._replies[issue_id] = event.answer.text
        if event.action is ControlAction.RESUME:
            is_stopped = block is not None and block.category == STOPPED
            self._must(is_stopped, lambda: f"{claim} was not stopped")
        self._goes_on(claim)

    def _answer_is_kept(self, claim: SaveClaim) -> None:
        """An issue that was stopped after it had asked keeps what it is told until it goes on."""
        assert isinstance(self._event, ControlRequested)
        assert self._event.answer is not None
        block = self._blocks.get(claim.issue.id)
        is_stopped = block is not None and block.category == STOPPED
        self._must(is_stopped and claim.question, lambda: f"{claim} asked nothing")
        self._replies[claim.issue.id] = self._event.answer.text
        self._world.counts["answers kept"] += 1

    def _is_blocked(self, claim: SaveClaim, expected: str | None) -> None:
        """A claim waits for something; its own time is as the settings have it."""
        category = claim.blocked_category or ""
        self._must(expected in (None, category), lambda: f"{claim} should be {expected}")
        until = until_of(category, self._settings, self._now)
        got = None
        if claim.due_wall is not None:
            got = self._now + claim.due_wall - self._world.timeline.wall
        same = got == until if got is None or until is None else abs(got - until) < 1e-3
        self._must(same, lambda: f"{claim} should end at {until}, not {got}")
        self._world.counts[f"blocks {category}"] += 1
        self._blocks[claim.issue.id] = Block(category, self._now, until, self._board)
        if until is not None:
            shift = self._world.timeline.wall_shift
            self._memory.saved[claim.issue.id] = (until, shift)

    def _drop(self, issue_id: IssueId) -> None:
        self._memory.claims[issue_id] = (None, self._memory.number)
        seen = self._seen.get(issue_id)
        if seen is not None and issue_id not in self._absences and not self._moved_board:
            finished = self._standing(seen) == "terminal"
            cleaned = isinstance(self._event, CleanupEnded)
            self._must(cleaned or not finished, lambda: f"{issue_id} is released uncleaned")
        if isinstance(self._event, IssuesRefreshed) and issue_id not in self._excused:
            asked = self._asked[self._event.cause][0].purpose
            is_sure = asked is RefreshPurpose.RETRY or self._is_absent(issue_id)
            self._must(is_sure, lambda: f"{issue_id} is released after one read that lacks it")
            if issue_id in self._waits and asked is not RefreshPurpose.RETRY:
                self._world.counts["waiting retries released as gone"] += 1
        excused = issue_id in self._excused or issue_id in self._absences or self._moved_board
        self._must(excused, lambda: f"the claim of {issue_id} is dropped without a reason")
        self._due.pop(issue_id, None)
        self._forget(issue_id)
        self._put_down.discard(issue_id)
        self._memory.saved.pop(issue_id, None)

    def _forget(self, issue_id: IssueId) -> None:
        self._blocks.pop(issue_id, None)
        self._replies.pop(issue_id, None)
        self._memory.replies[issue_id] = (None, self._memory.number)
        self._memory.stopped.pop(issue_id, None)

    def _clean(self, command: CleanWorkspace) -> None:
        issue_id = command.issue.id
        standing = self._standing(self._seen[issue_id])
        self._must(standing == "terminal", lambda: f"{command}, but it is {standing}")
        twin = [one for one in self._live.values() if one.spec.issue_id == issue_id]
        self._must(not twin, lambda: f"{command} under {twin}")
        self._blocks.pop(issue_id, None)

    def _settled(self, commands: Sequence[Command]) -> None:
        """A run's end leads to one thing."""
        if self._just_ended is None:
            return
        live, event = self._just_ended
        issue_id = live.spec.issue_id
        ways = [
            command
            for command in commands
            if (isinstance(command, SaveClaim) and command.issue.id == issue_id)
            or (isinstance(command, DropClaim) and command.issue_id == issue_id)
            or (isinstance(command, CleanWorkspace) and command.issue.id == issue_id)
        ]
        if len(ways) == 2 and event.outcome.crossed is not None:
            # A limit that was raised meanwhile lets it go on again at once.
            ways = [way for way in ways if not getattr(way, "crossed", None)]
        self._must(len(ways) == 1 or self._stopping, lambda: f"{event} leads to {ways}")
        if any(isinstance(way, SaveClaim | DropClaim) for way in ways):
            self._memory.followed.add(event.run_id)

    # After the step

    def stepped(self) -> None:
        event, self._is_open = self._event, False
        state = self._life.state
        try:
            validate(state)
        except AssertionError as error:
            raise InvariantBroken(f"after {event}: {error}") from error
        self._breaker.compare()
        self._same_runs()
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

    def _as_operators_have_it(self) -> None:
        """Holds, stops and the park are what orders and outcomes have made them, over restarts."""
        state = self._life.state
        if not state.started:
            return
        held = set(state.holds)
        self._must(held == self._holds, lambda: f"held are {held}, should be {self._holds}")
        until = 0.0 if state.park is None else state.park.until_mono
        waits = self._now < self._parked_until - TOLERANCE_S
        same = abs(until - self._parked_until) < 1e-3
        self._must(
            same or (state.park is None and not waits),
            lambda: f"parked until {until}, should be {self._parked_until}",
        )
        told = self._memory.park[0] or 0.0
        self._must(
            state.park is None or abs(told - until) < 1e-3,
            lambda: f"parked until {until}, the ledger was told {told}",
        )
        told_held = {scope for scope, (is_held, _) in self._memory.holds.items() if is_held}
        self._must(held == told_held, lambda: f"held are {held}, the ledger was told {told_held}")
        for issue_id in self._put_down:
            claim = state.claims.get(issue_id)
            if isinstance(claim, RetryQueued | Rechecking | Dispatching):
                self._fail(f"an operator has stopped it: {claim}")

    def _polls_go_on(self) -> None:
        """Whatever the tracker says of its budgets, the next poll has a near end."""
        poll, rules = self._life.state.poll, self._life.state.rules
        now = self._world.timeline.now()
        longest_s = max(rules.interval_s, rules.webhook_interval_s, rules.longest_interval_s)
        limit = max(now.mono, poll.not_before_mono, poll.ended_mono + longest_s)
        self._must(
            poll.next_mono is None or poll.next_mono <= limit,
            lambda: f"the next poll is at {poll.next_mono}, should be by {limit}",
        )

    def _look(self) -> None:
        now = self._world.timeline.now()
        snapshot = build_snapshot(
            self._life.state, self._life.progress, now, sequence=1, rate_limits=None
        )
        self.shown(snapshot, is_settled=False)

    def _same_runs(self) -> None:
        claims = self._life.state.claims
        running = {claim.spec.run_id for claim in claims.running()}
        self._must(
            running == set(self._live), lambda: f"runs {running}, live are {set(self._live)}"
        )
        executor = self._life.executor
        assert executor is not None
        at_work = {attempt.spec.run_id for attempt in executor.attempts}
        self._must(at_work <= running, lambda: f"attempts without a claim: {at_work - running}")
        for run_id in running - at_work:
            if not self._reported[run_id]:
                self._fail(f"a claim whose worker is gone: {run_id}")

    def _nothing_is_late(self) -> None:
        """The loop wakes up for a retry at its time, and a due one waits for a shut gate alone."""
        if self._stopping:
            return
        state = self._life.state
        limit_s = self._settings.codex.stall_timeout_ms / 1000
        for live in self._live.values():
            record = self._life.progress.get(live.spec.run_id)
            if limit_s > 0 and live.stop is None and record is not None:
                since = max(record.last_activity_mono + limit_s, self._settings_since)
                if self._now - since > STALL_MARGIN_S and not self._reported[live.spec.run_id]:
                    self._fail(f"silent, and nobody cares: {live}")
        for issue_id, block in self._blocks.items():
            if block.until is not None and self._now - block.until >= 1.0:
                self._fail(f"{issue_id} should have been let go on: {block}")
        self._nobody_waits_for_what_is_gone()
        for claim in state.claims:
            if not isinstance(claim, RetryQueued):
                continue
            if claim.hold is None:
                late_s = self._now - claim.due_mono
                if late_s >= 1.0:
                    self._fail(f"late by {late_s} s: {claim}")
            elif all(
                gate.passed or gate.name == "unclaimed" for gate in explain(state, claim.issue)
            ):
                self._fail(f"nothing holds it back: {claim}")

    def _nobody_waits_for_what_is_gone(self) -> None:
        """A due retry whose issue has vanished goes while it waits, not when it may start."""
        waiting = {
            claim.issue.id
            for claim in self._life.state.claims
            if isinstance(claim, RetryQueued) and claim.hold is not None
        }
        self._waits = {one: self._waits.get(one, self._now) for one in waiting}
        for issue_id, since in self._waits.items():
            absent = self._is_absent(issue_id, since)
            self._must(not absent, lambda one=issue_id: f"{one} waits, and is gone")

    def _nobody_is_lost(self, candidates: Sequence[Issue]) -> None:
        """Each candidate of a cycle is claimed, or has a reason that people can see."""
        state = self._life.state
        waiting = {issue.id for issue, _ in state.waiting}
        for issue in candidates:
            if issue.id in state.claims or issue.id in waiting or self._stopping:
                continue
            shut = [gate for gate in explain(state, issue) if not gate.passed]
            if not shut:
                self._fail(f"{issue.identifier} is eligible, unclaimed and unexplained")

    def shown(self, snapshot: Snapshot, *, is_settled: bool = True) -> None:
        """Compare what people see with what is."""
        claims = list(self._life.state.claims)
        kinds: dict[type, list[str]] = {}
        for claim in claims:
            kinds.setdefault(type(claim), []).append(claim.issue.id)
        retrying = sorted([*kinds.get(RetryQueued, []), *kinds.get(Rechecking, [])])
        for name, shown, held in (
            ("running", [row.issue_id for row in snapshot.running], kinds.get(Running, [])),
            ("retrying", sorted(row.issue_id for row in snapshot.retrying), retrying),
            ("blocked", [row.issue_id for row in snapshot.blocked], kinds.get(Blocked, [])),
            ("cleaning", list(snapshot.cleaning), kinds.get(Cleaning, [])),
        ):
            same = len(shown) == len(held) if name == "cleaning" else sorted(shown) == sorted(held)
            if not same:
                self._fail(f"{name}: shown are {shown}, held are {held}")
        listed = sum(len(ids) for kind, ids in kinds.items() if kind is not Dispatching)
        rows = snapshot.running, snapshot.retrying, snapshot.blocked, snapshot.cleaning
        self._must(sum(map(len, rows)) == listed, lambda: "a claim is not shown")
        for row in (*snapshot.retrying, *snapshot.blocked):
            if row.issue_id in self._blocked() and not row.error:
                self._fail(f"{row} has no reason")
        total = snapshot.usage.total_tokens
        self._must(
            total >= self._memory.shown_tokens.get(self._life.number, 0), lambda: "totals decrease"
        )
        self._memory.shown_tokens[self._life.number] = total
        if is_settled and not self._world.disk_fails and self._life.ledger.degraded is None:
            self._life.check_durable(snapshot)

    # At other moments

    def process_starts(self, spec: RunSpec) -> None:
        """The run's row is there before its process, unless the disk fails."""
        self._must(spec.run_id in self._live, lambda: f"{spec} has a process but no claim")
        self._life.check_recorded(spec)

    def ended(self) -> None:
        """After a shutdown: each run that was started has ended once."""
        self._must(self.is_forced or not self._live, lambda: f"runs are left: {list(self._live)}")
        if not self.is_forced:
            alive = [one for one in self._world.alive() if one.lifetime == self._life.number]
            self._must(not alive, lambda: f"processes are left: {alive}")
