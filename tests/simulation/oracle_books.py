"""What the oracle knows in one lifetime of the daemon, and what all its concerns ask of it.

The other ``oracle_*`` modules each add the judgement of one concern; ``oracle`` puts them together.
Invariant: nothing here asks a rule of the scheduler; its state is read to compare with, no more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from symphony.config.settings import Settings
from symphony.model.issue import Issue, IssueId
from symphony.model.run import OutcomeKind, RunId
from symphony.model.usage import TokenUsage
from symphony.scheduler.claims import (
    Blocked,
)
from symphony.scheduler.commands import (
    SaveClaim,
)
from symphony.scheduler.events import (
    Event,
    RunEnded,
)

from .blocks import Block, until_of
from .breaker_books import BreakerBooks
from .expectations import Due, Live, standing
from .purse import Purse
from .world import InvariantBroken

if TYPE_CHECKING:
    from .daemon import Lifetime

TOLERANCE_S = 1e-6
ABSENCE_S = 5.0
STALL_MARGIN_S = 15.0
ASKS = (OutcomeKind.INPUT_REQUIRED, OutcomeKind.APPROVAL_REQUIRED)


class Books:
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
        self._told_park = 0.0
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

    @property
    def _board(self) -> str:
        return str(self._settings.tracker.provider["board"])

    def _spent(self, scope: str, issue_id: IssueId | None = None) -> str | None:
        return self._purse.over(scope, self._settings, issue_id=issue_id, wall=self._wall)

    def _standing(self, issue: Issue) -> str:
        return standing(issue, self._settings)

    def _blocked(self) -> set[IssueId]:
        return {one.issue.id for one in self._life.state.claims if isinstance(one, Blocked)}

    def _is_absent(self, issue_id: IssueId, since: float = 0.0) -> bool:
        absences = [one for one in self._absences.get(issue_id, []) if one[0] >= since]
        return any(
            second[0] >= first[1] + ABSENCE_S - TOLERANCE_S
            for number, first in enumerate(absences)
            for second in absences[number + 1 :]
        )

    def _goes_on(self, claim: SaveClaim) -> None:
        """A claim that waited is due now, and its failures are forgiven."""
        assert claim.retry_kind is not None
        issue_id = claim.issue.id
        self._blocks.pop(issue_id, None)
        self._due[issue_id] = Due(claim.attempt, claim.retry_kind, 0, self._now)
        self._memory.saved[issue_id] = (self._now, self._world.timeline.wall_shift)
        self._memory.failures[(issue_id, "retry", claim.attempt, claim.retry_kind)] = 0

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

    def _forget(self, issue_id: IssueId) -> None:
        self._blocks.pop(issue_id, None)
        self._replies.pop(issue_id, None)
        self._memory.replies[issue_id] = (None, self._memory.number)
        self._memory.stopped.pop(issue_id, None)
