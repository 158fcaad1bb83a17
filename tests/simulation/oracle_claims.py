"""Claims: what is saved after a run, a read, a time or a budget, and why one may be let go of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from symphony.model.issue import IssueId
from symphony.model.run import RetryKind
from symphony.scheduler.commands import (
    CleanWorkspace,
    Command,
    DropClaim,
    RefreshPurpose,
    SaveClaim,
)
from symphony.scheduler.events import (
    CleanupEnded,
    ControlRequested,
    IssuesRefreshed,
    Restored,
    WakeUp,
)

from .blocks import STOPPED, Block
from .expectations import Due, due_after
from .oracle_books import ASKS, TOLERANCE_S
from .oracle_operators import OperatorBooks

if TYPE_CHECKING:
    pass


class ClaimBooks(OperatorBooks):
    """Judges each claim that is saved, dropped or cleaned."""

    def _save(self, claim: SaveClaim) -> None:
        self._memory.claims[claim.issue.id] = (claim.kind, self._memory.number)
        self.recovering.discard(claim.issue.id)
        is_spent = claim.kind == "blocked" and (claim.blocked_category or "").startswith("budget_")
        if isinstance(self._event, ControlRequested) and not is_spent:
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
