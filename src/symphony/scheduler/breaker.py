"""The failure breaker: what fails for every issue stops new starts before it has failed for all.

Failures are counted by class (``model.failure``). A class opens at ``breaker.failures`` of them
within the window, if nothing ended well in between and no issue made up more than half of them:
one poisoned issue closes no shop. While a class is open nothing starts and what runs goes on. After
the cool-down it is half-open: exactly one issue, the canary, may start. If it works, the class
closes; if it fails alike, the class opens again for twice as long. It works when a turn or its run
ends well, or when it has run for ``canary_s`` and for twice as long as the slowest of the counted
failures: a turn may take hours, and what was going to fail has failed by then. What a canary does
not settle (its issue was moved, it failed otherwise) is left to the next one.

Invariant: while a class is open or half-open, no second issue takes a slot. ``dispatch`` says which
issue took one, ``retry`` how runs end; ``eligibility`` asks ``why_shut`` as one of its gates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count

from symphony.model.clock import Instant, iso
from symphony.model.failure import FailureClass, failure_class
from symphony.model.issue import Issue, IssueId
from symphony.model.run import Outcome, OutcomeKind, StopReason

from .claims import Claims, occupancy
from .commands import Command, DropBreaker, Level, Note, SaveBreaker
from .eligibility import BreakerRules
from .events import BreakerRecord, Failure
from .snapshot import BreakerRow

RESERVED_S = 60.0
"""How long the place of the canary is kept for an issue that an operator chose."""

_WORKED = frozenset(
    {OutcomeKind.COMPLETED, OutcomeKind.INPUT_REQUIRED, OutcomeKind.APPROVAL_REQUIRED}
)
_MOVED = frozenset({StopReason.TERMINAL, StopReason.INACTIVE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Tripped:
    """A class that is open, or half-open.

    Attributes:
        failures: How many opened it.
        issues: Of how many issues.
        cooldown_s: The whole cool-down, seconds; it doubles each time.
        is_half_open: The cool-down is over and a canary decides.
    """

    failures: int
    issues: int
    since_wall: float
    until_mono: float
    until_wall: float
    cooldown_s: float
    is_half_open: bool = False


class Breaker:
    """All classes of one daemon. Every method that changes something returns commands.

    Attributes:
        tripped: The classes that are open or half-open.
        canary: The issue that may start, or has started, to try; None: whoever comes first.
        canary_name: Its identifier.
    """

    __slots__ = (
        "_failures",
        "_probed",
        "_proven",
        "_reserved_until",
        "canary",
        "canary_name",
        "tripped",
    )

    def __init__(self) -> None:
        self.tripped: dict[FailureClass, Tripped] = {}
        self.canary: IssueId | None = None
        self.canary_name = ""
        self._probed: frozenset[FailureClass] = frozenset()
        self._reserved_until: float | None = None
        self._proven: Instant | None = None
        self._failures: dict[FailureClass, tuple[Failure, ...]] = {}

    # What the gates ask

    @property
    def is_open(self) -> bool:
        """The cool-down of some class has not passed: nothing may start."""
        return any(not one.is_half_open for one in self.tripped.values())

    def why_shut(self, issue_id: IssueId | None, claims: Claims) -> str | None:
        """Return why this issue may not start, or None; without an issue, why none may."""
        if not self.tripped:
            return None
        if self.is_open:
            rows = [row for row in self.rows(claims) if row.state == "open"]
            return max(rows, key=lambda row: row.until_wall).sentence
        if self.canary == issue_id or not self._is_tried(claims):
            return None
        # Where its place is only kept, one issue may start: not all of them are held back.
        if issue_id is None and self._reserved_until is not None:
            return None
        names = ", ".join(sorted(self.tripped))
        return f"after failures of class {names} {self.canary_name} is tried alone"

    def next_due(self) -> float | None:
        """Return when a cool-down, a reservation or a canary's trial ends (monotonic), or None."""
        times = [one.until_mono for one in self.tripped.values() if not one.is_half_open]
        if self._reserved_until is not None:
            times.append(self._reserved_until)
        if self._proven is not None:
            times.append(self._proven.mono)
        return min(times, default=None)

    def rows(self, claims: Claims) -> tuple[BreakerRow, ...]:
        """Return what people see of it."""
        tried = self.canary_name if self._is_tried(claims) else None
        return tuple(
            BreakerRow(
                failure_class=name.value,
                state="half_open" if one.is_half_open else "open",
                why=name.sentence,
                failures=one.failures,
                issues=one.issues,
                since_wall=one.since_wall,
                until_wall=one.until_wall,
                cooldown_s=one.cooldown_s,
                canary=tried if one.is_half_open else None,
                proven_wall=None if self._proven is None else self._proven.wall,
            )
            for name, one in self.tripped.items()
        )

    def _is_tried(self, claims: Claims) -> bool:
        """The canary holds its slot, or has its place kept."""
        if self.canary is None:
            return False
        claim = claims.get(self.canary)
        return self._reserved_until is not None or (
            claim is not None and occupancy(claim) is not None
        )

    # What happens to it

    def took_slot(self, issue: Issue) -> None:
        """Note that an issue was chosen or started: while half-open it is the canary."""
        if self.tripped:
            self.canary, self.canary_name = issue.id, issue.identifier
            self._reserved_until = self._proven = None
            self._probed = frozenset(name for name, one in self.tripped.items() if one.is_half_open)

    def started(self, issue_id: IssueId, rules: BreakerRules, now: Instant) -> None:
        """Note that a run begins: the canary's has a time after which it has shown enough."""
        if issue_id != self.canary or not self._probed or not rules.canary_s:
            return
        slowest_s = max(
            (one.seconds for name in self._probed for one in self._failures.get(name, ())),
            default=0.0,
        )
        trial_s = max(rules.canary_s, 2 * slowest_s)
        self._proven = Instant(now.mono + trial_s, now.wall_after(trial_s))

    def wake_up(self, now: Instant) -> list[Command]:
        """Let the cool-downs pass whose time has come."""
        if self._reserved_until is not None and self._reserved_until <= now.mono:
            self._reserved_until = self.canary = None
        commands: list[Command] = []
        if self._proven is not None and self._proven.mono <= now.mono and self.canary is not None:
            told = "the canary has run without failing for as long as it takes to tell"
            commands.extend(
                _note(Level.INFO, told, name, issue_identifier=self.canary_name)
                for name in sorted(self._probed)
            )
            commands.extend(self._worked(self.canary))
        for name, one in self.tripped.items():
            if not one.is_half_open and one.until_mono <= now.mono:
                self.tripped[name] = replace(one, is_half_open=True)
                commands.append(
                    _note(Level.WARNING, "breaker is half-open: one issue is tried", name)
                )
        return commands

    def turn_ended_well(self, issue_id: IssueId) -> list[Command]:
        """Take a turn that ended well as the canary's success: a run may take hours."""
        return self._worked(issue_id) if issue_id == self.canary else []

    def run_ended(
        self,
        issue: Issue,
        outcome: Outcome,
        *,
        used_tokens: bool,
        seconds: float = 0.0,
        rules: BreakerRules,
        now: Instant,
    ) -> list[Command]:
        """Count a run's end, or let it decide as the canary's.

        Args:
            issue: Whose run.
            outcome: Of that run.
            used_tokens: The model has answered it.
            seconds: How long it took.
            rules: The settings in force; with ``failures`` 0 nothing is counted.
            now: When.
        """
        if not rules.failures:
            return []
        # A reservation is not a run: that one began before the class opened.
        is_canary = issue.id == self.canary and self._reserved_until is None
        probed = self._probed if is_canary else frozenset()
        failed = failure_class(outcome)
        if failed is None:
            moved = outcome.stop_reason in _MOVED and used_tokens
            if outcome.kind in _WORKED or moved:
                return self._worked(issue.id)
            return self._leave(is_canary)
        if failed in probed:
            return [*self._leave(is_canary), *self._again(failed, rules, now)]
        if failed in self.tripped:
            # A run of before; that this class fails is known.
            return self._leave(is_canary)
        return [
            *self._leave(is_canary),
            *self._count(failed, Failure(issue.id, now.mono, now.wall, seconds), rules, now),
        ]

    def choose(self, issue: Issue, now: Instant) -> list[Command]:
        """End the cool-downs and make this issue the canary: an operator wants it tried."""
        if not self.tripped:
            return []
        commands: list[Command] = []
        for name, one in self.tripped.items():
            if not one.is_half_open:
                self.tripped[name] = replace(one, is_half_open=True)
                commands.append(
                    _note(
                        Level.WARNING,
                        "breaker is half-open: an operator has chosen the issue",
                        name,
                        issue_identifier=issue.identifier,
                    )
                )
        # One that runs already is the canary no more, nor is the time that it would have proven it.
        self._leave(True)
        self.canary, self.canary_name = issue.id, issue.identifier
        self._reserved_until = now.mono + RESERVED_S
        return commands

    def reset(self, names: Iterable[FailureClass] = FailureClass) -> list[Command]:
        """Close these classes and forget their failures."""
        commands: list[Command] = []
        for name in names:
            was_open = self.tripped.pop(name, None) is not None
            if self._failures.pop(name, None) is not None or was_open:
                commands.append(DropBreaker(name))
            if was_open:
                commands.append(_note(Level.INFO, "breaker is closed", name))
        if not self.tripped:
            self._leave(True)
        return commands

    def restore(self, records: Sequence[BreakerRecord], now: Instant) -> None:
        """Take up what an earlier lifetime recorded; only wall time outlives a daemon."""
        for record in records:
            name = record.failure_class
            self._failures[name] = tuple(
                replace(one, mono=now.mono - max(0.0, now.wall - one.wall))
                for one in record.failures
            )
            if record.until_wall is None:
                continue
            # A clock that was set back must not make the wait longer than it was.
            left_s = min(max(0.0, record.until_wall - now.wall), record.cooldown_s)
            self.tripped[name] = Tripped(
                failures=record.count,
                issues=record.issues,
                since_wall=record.since_wall,
                until_mono=now.mono + left_s,
                until_wall=now.wall_after(left_s),
                cooldown_s=record.cooldown_s,
            )

    def _worked(self, issue_id: IssueId) -> list[Command]:
        """Close what the canary has tried; elsewhere forget what has failed until now."""
        closing = set(self._failures) - set(self.tripped)
        if issue_id == self.canary and self._reserved_until is None:
            closing |= self._probed
            self._leave(True)
        return self.reset(sorted(closing))

    def _leave(self, is_canary: bool) -> list[Command]:
        if is_canary:
            self.canary = self._reserved_until = self._proven = None
            self._probed = frozenset()
        return []

    def _count(
        self, name: FailureClass, fresh: Failure, rules: BreakerRules, now: Instant
    ) -> list[Command]:
        kept = [
            one
            for one in (*self._failures.get(name, ()), fresh)
            if now.mono - one.mono <= rules.window_s
        ]
        share = 1 if name is FailureClass.UNCLEAR else (rules.failures + 1) // 2
        failures = self._failures[name] = _newest(kept, share)
        if len(failures) >= rules.failures:
            issues = len({one.issue_id for one in failures})
            return self._trip(name, len(failures), rules.cooldown_s, issues=issues, now=now)
        return [self._saved(name)]

    def _again(self, name: FailureClass, rules: BreakerRules, now: Instant) -> list[Command]:
        before = self.tripped[name]
        cooldown_s = min(2 * before.cooldown_s, max(rules.max_cooldown_s, rules.cooldown_s))
        return self._trip(name, before.failures + 1, cooldown_s, issues=before.issues, now=now)

    def _trip(
        self, name: FailureClass, failures: int, cooldown_s: float, *, issues: int, now: Instant
    ) -> list[Command]:
        before = self.tripped.get(name)
        self.tripped[name] = one = Tripped(
            failures=failures,
            issues=issues,
            since_wall=now.wall if before is None else before.since_wall,
            until_mono=now.mono + cooldown_s,
            until_wall=now.wall_after(cooldown_s),
            cooldown_s=cooldown_s,
        )
        return [
            self._saved(name),
            _note(
                Level.ERROR,
                "breaker is open: nothing starts" if before is None else "breaker is open again",
                name,
                why=name.sentence,
                failures=failures,
                issues=issues,
                until=iso(one.until_wall),
            ),
        ]

    def _saved(self, name: FailureClass) -> SaveBreaker:
        one = self.tripped.get(name)
        failures = self._failures.get(name, ())
        if one is None:
            return SaveBreaker(BreakerRecord(failure_class=name, failures=failures))
        return SaveBreaker(
            BreakerRecord(
                failure_class=name,
                failures=failures,
                count=one.failures,
                issues=one.issues,
                since_wall=one.since_wall,
                until_wall=one.until_wall,
                cooldown_s=one.cooldown_s,
            )
        )


def _newest(failures: Sequence[Failure], share: int) -> tuple[Failure, ...]:
    """Return the failures in their order, of each issue the newest ``share`` at most."""
    places: dict[IssueId, count[int]] = {}
    kept = [
        one for one in reversed(failures) if next(places.setdefault(one.issue_id, count())) < share
    ]
    return tuple(reversed(kept))


def _note(level: Level, message: str, name: FailureClass, **fields: object) -> Note:
    return Note(level, message, {"failure_class": name.value, **fields})
