"""The failure breaker once more, from ``docs/settings.md``: when it opens, who is tried, who waits.

Role: a part of the oracle, told what the scheduler is told. It computes which classes should be
open and until when, compares after each step, and judges every start. It calls no rule of
``scheduler.breaker`` and classes failures by what the simulated agents report.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from symphony.config.settings import BreakerSettings
from symphony.model.run import Outcome, OutcomeKind, RunId, RunSpec, StopReason
from symphony.scheduler.claims import RetryQueued
from symphony.scheduler.commands import Command, DropBreaker, SaveBreaker, StartRun
from symphony.scheduler.eligibility import GateName
from symphony.scheduler.events import (
    ControlAction,
    ControlRequested,
    Event,
    Restored,
    RunEnded,
    RunIssueChanged,
    SettingsChanged,
)
from symphony.scheduler.publish import explain

from .expectations import Live

if TYPE_CHECKING:
    from .daemon import Lifetime

_CLASSES = {
    "serverOverloaded": "model",
    "badRequest": "request",
    "port_exit": "agent",
    "host_lost": "host",
    "workspace_root_unwritable": "workspace",
    "internal_error": "internal",
    "response_timeout": "agent",
    "response_error": "agent",
    "codex_error": "agent",
    "responseStreamDisconnected": "model",
    "other": "unclear",
    "turn_failed": "unclear",
    "turn_timeout": "unclear",
    "stalled": "unclear",
}
_NEUTRAL = ("usageLimitExceeded", "contextWindowExceeded")
_GOOD = (OutcomeKind.COMPLETED, OutcomeKind.INPUT_REQUIRED, OutcomeKind.APPROVAL_REQUIRED)
_BAD = (OutcomeKind.FAILED, OutcomeKind.TIMED_OUT, OutcomeKind.STALLED, OutcomeKind.HOST_LOST)
_NOT_LASTING = (
    GateName.UNCLAIMED,
    GateName.BREAKER,
    GateName.GLOBAL_SLOT,
    GateName.STATE_SLOT,
    GateName.HOST_SLOT,
)


@dataclass(slots=True)
class Shut:
    """A class that is open until then (monotonic); past that, a canary decides."""

    until: float
    cooldown_s: float


class BreakerBooks:
    """What the breaker of one lifetime must look like."""

    def __init__(self, life: Lifetime, fail: Callable[[str], NoReturn]) -> None:
        self._life = life
        self._world = life.world
        self._fail = fail
        self._rules: BreakerSettings = life.settings.breaker
        self._failed: defaultdict[str, list[tuple[float, Any, float]]] = defaultdict(list)
        self._shut: dict[str, Shut] = {}
        self._canary: RunId | None = None
        self._tried: set[str] = set()
        self._chosen: tuple[Any, float] | None = None
        self._proven: float | None = None
        self._slow: dict[str, float] = {}
        self._asked: Any = None

    @property
    def _now(self) -> float:
        return self._world.timeline.mono

    def told(self, event: Event, live: Mapping[RunId, Live]) -> None:
        """Take in what the scheduler is about to be told."""
        match event:
            case Restored():
                self._restored(event)
            case SettingsChanged():
                self._rules = event.settings.breaker
                self._switched_off()
            case RunIssueChanged() if event.run_id == self._canary and event.run_id in live:
                self._worked()
            case RunEnded() if event.run_id in live and self._rules.failures:
                self._run_ended(live[event.run_id], event)
            case ControlRequested(ControlAction.RESET_BREAKER):
                self._shut.clear()
                self._failed.clear()
                self._canary = self._chosen = self._proven = None
            case ControlRequested(ControlAction.RETRY, str() as identifier):
                self._asked = identifier if self._shut else None
            case _:
                pass

    def _restored(self, event: Restored) -> None:
        memory, now_wall = self._world.memory, self._world.timeline.wall
        found = {str(record.failure_class): record for record in event.breakers}
        for name, (record, number) in memory.breakers.items():
            is_sure = memory.is_written(number)
            if is_sure and _bare(found.get(name)) != _bare(record):
                self._fail(f"breaker {name} was {record}, is restored as {found.get(name)}")
        # What was not written by now never will be.
        memory.breakers = {name: (record, 0) for name, record in found.items()}
        for name, record in found.items():
            self._failed[name] = [
                (self._now - max(0.0, now_wall - one.wall), one.issue_id, one.seconds)
                for one in record.failures
            ]
            self._slow[name] = max((one.seconds for one in record.failures), default=0.0)
            if record.until_wall is not None:
                left_s = min(max(0.0, record.until_wall - now_wall), record.cooldown_s)
                self._shut[name] = Shut(self._now + left_s, record.cooldown_s)
        self._switched_off()

    def _switched_off(self) -> None:
        if not self._rules.failures:
            self._shut.clear()
            self._failed.clear()
            self._proven = None

    def _choose(self, identifier: str) -> None:
        """After a retry: its issue is the one to be tried, unless something else holds it too."""
        state = self._life.state
        known = [claim.issue for claim in state.claims] + [issue for issue, _ in state.waiting]
        issue = next((one for one in known if one.identifier == identifier), None)
        if issue is None or not state.started or state.shutting_down:
            return
        if state.breaker.canary == issue.id and not state.claims.holds_slot(issue.id):
            for one in self._shut.values():
                one.until = min(one.until, self._now)
            self._canary, self._chosen = None, (issue.id, self._now + 60.0)
            self._proven = None
            return
        claim = state.claims.get(issue.id)
        others = [
            gate.name
            for gate in explain(state, issue)
            if not gate.passed and gate.name not in _NOT_LASTING
        ]
        if not others and (claim is None or isinstance(claim, RetryQueued)):
            self._fail(f"{identifier} is retried, free to start, and not the one to be tried")

    def _run_ended(self, live: Live, event: RunEnded) -> None:
        is_canary = event.run_id == self._canary
        outcome, issue_id = event.outcome, live.spec.issue_id
        # What the tracker shows of a run that is ending may change the reason; no command says so.
        claim = self._life.state.claims.run(event.run_id)
        stop = live.stop if claim is None else claim.stopping
        by_us = stop not in (None, StopReason.STALLED)
        has_worked = outcome.kind in _GOOD if not by_us else outcome.kind is OutcomeKind.COMPLETED
        if stop in (StopReason.TERMINAL, StopReason.INACTIVE):
            has_worked = has_worked or event.usage.total_tokens > 0
        if has_worked:
            self._forget_closed()
            if is_canary:
                self._worked()
            return
        tried, name = self._tried if is_canary else set(), None if by_us else _class(outcome)
        if is_canary:
            self._canary = None
        if name is None:
            return
        if name in tried and name in self._shut:
            longest_s = max(self._rules.max_cooldown_ms, self._rules.cooldown_ms) / 1000
            wait_s = min(2 * self._shut[name].cooldown_s, longest_s)
            self._shut[name] = Shut(self._now + wait_s, wait_s)
        elif name not in self._shut:
            self._count(name, issue_id, event.seconds)

    def _count(self, name: str, issue_id: Any, seconds: float) -> None:
        rules = self._rules
        self._failed[name].append((self._now, issue_id, seconds))
        since = self._now - rules.window_ms / 1000
        by_issue: dict[Any, list[tuple[float, Any, float]]] = defaultdict(list)
        for failed in self._failed[name]:
            if failed[0] >= since:
                by_issue[failed[1]].append(failed)
        most = 1 if name == "unclear" else -(-rules.failures // 2)
        # What does not count by the rules in force is forgotten: later ones do not bring it back.
        counted = [failed for ones in by_issue.values() for failed in ones[-most:]]
        self._failed[name] = sorted(counted, key=lambda failed: failed[0])
        if len(counted) >= rules.failures:
            self._slow[name] = max(took_s for _, _, took_s in counted)
            self._shut[name] = Shut(self._now + rules.cooldown_ms / 1000, rules.cooldown_ms / 1000)

    def _worked(self) -> None:
        """The canary has shown that what it tried works."""
        for name in self._tried:
            self._shut.pop(name, None)
            self._failed.pop(name, None)
        self._canary = None
        self._forget_closed()

    def _forget_closed(self) -> None:
        for name in set(self._failed) - set(self._shut):
            del self._failed[name]

    # What the scheduler does

    def commanded(self, command: Command) -> None:
        """Judge a start; remember what the ledger is told."""
        match command:
            case StartRun(spec):
                self._start(spec)
            case SaveBreaker(record):
                self._world.memory.breakers[record.failure_class] = (
                    record,
                    self._world.memory.number,
                )
            case DropBreaker(name):
                self._world.memory.breakers[name] = (None, self._world.memory.number)
            case _:
                pass

    def _start(self, spec: RunSpec) -> None:
        for name, one in self._shut.items():
            if self._now < one.until - 1e-6:
                self._fail(f"{spec} starts while breaker {name} is open until {one.until}")
        if not self._shut:
            return
        if self._canary is not None:
            self._fail(f"{spec} starts beside the canary {self._canary}")
        if self._chosen is not None:
            issue_id, until = self._chosen
            if self._now < until and spec.issue_id != issue_id:
                claim = self._life.state.claims.get(issue_id)
                # Its place is free again once it has been taken and given back.
                if self._life.state.breaker.canary == issue_id:
                    self._fail(f"{spec} starts in the place of {issue_id}, which is {claim}")
            self._chosen = None
        self._canary, self._tried = spec.run_id, set(self._shut)
        slowest_s = max((self._slow.get(name, 0.0) for name in self._tried), default=0.0)
        trial_s = self._rules.canary_ms / 1000
        self._proven = self._now + max(trial_s, 2 * slowest_s) if trial_s else None

    def compare(self) -> None:
        """After a step: what should be shut is shown, and nothing else."""
        if self._asked is not None:
            asked, self._asked = self._asked, None
            self._choose(asked)
        tripped = self._life.state.breaker.tripped
        if self._canary is not None and self._proven is not None and self._now >= self._proven:
            # The timer closes what it has tried; until it has come, another event may be first.
            if not self._tried & {str(name) for name in tripped}:
                self._worked()
            elif self._now > self._proven + 1.0 and not self._life.state.shutting_down:
                self._fail(f"the trial of {self._canary} was over at {self._proven}")
        shown = {str(name): one for name, one in tripped.items()}
        if shown.keys() != self._shut.keys():
            self._fail(f"breaker: tripped are {shown}, should be {self._shut}")
        for name, one in self._shut.items():
            is_over = self._now >= one.until
            if shown[name].is_half_open and not is_over:
                self._fail(f"breaker {name} is half-open, should be open until {one.until}")
            late_s = 0.0 if self._life.state.shutting_down else self._now - one.until
            if not shown[name].is_half_open and late_s > 1.0:
                self._fail(f"breaker {name} is still open, its time was over at {one.until}")


def _class(outcome: Outcome) -> str | None:
    if outcome.kind not in _BAD or outcome.code in _NEUTRAL:
        return None
    return _CLASSES.get(outcome.code or outcome.category or "")


def _bare(record: Any) -> Any:
    """What the ledger keeps of a record: no monotonic time."""
    if record is None:
        return None
    walls = [(one.issue_id, one.wall) for one in record.failures]
    return (walls, record.count, record.issues, record.until_wall, record.cooldown_s)
