"""What a start finds in the ledger, held against what was known when the last lifetime ended.

What was written must be there, exactly; what was not may be as it was before. Neighbours: ``World``
keeps the memory, ``ledgers`` says what is written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from symphony.model.issue import IssueId
from symphony.model.run import OutcomeKind, RetryKind, RunId, StopReason
from symphony.scheduler.events import (
    Restored,
    RestoredClaim,
)

from .blocks import STOPPED, Block
from .expectations import Due, Live
from .oracle_books import Books

if TYPE_CHECKING:
    pass


class RestartBooks(Books):
    """Judges ``Restored``, and opens the books of this lifetime with it."""

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
            self._must_not_be_repeated(claim)
            if self._lives_again(claim) or self._block_restored(claim):
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
        # What was not written by now never will be: from here on all is as the ledger has it.
        memory.restart()
        memory.stopped.clear()
        memory.claims = {claim.issue.id: (claim.kind, 0) for claim in event.claims}
        memory.replies = {one: (said, 0) for one, said in self._replies.items()}

    def _must_not_be_repeated(self, claim: RestoredClaim) -> None:
        """A run whose agent had its last word, and that the ledger was told of, goes on no more."""
        memory, issue_id = self._memory, claim.issue.id
        if claim.kind != "running" or memory.disk_has_failed:
            return
        # One that was cut off is closed by this start; those that count are asked for again.
        known = memory.outcomes.pop(memory.newest[issue_id], None)
        if known is not None and known.kind is not OutcomeKind.CANCELLED:
            memory.outcomes[memory.newest[issue_id]] = known
        got = None if claim.ended is None else claim.ended.outcome
        if got is None and claim.stopped is None and known and known.kind is OutcomeKind.CANCELLED:
            return  # closed by a start that did not live to tell of it
        self._must(
            known is None or got == known, lambda: f"{issue_id} had come to {known}, not {got}"
        )

    def _lives_again(self, claim: RestoredClaim) -> bool:
        """Say whether a run is to be wound up: it was not cut off, or it was an operator's stop."""
        ended, memory = claim.ended, self._memory
        if ended is None or (ended.outcome.kind is OutcomeKind.CANCELLED and claim.stopped is None):
            return False
        run_id, issue_id = ended.run_id, claim.issue.id
        self._must(run_id not in memory.recorded, lambda: f"{ended} was recorded before")
        spec = memory.specs[run_id]
        key = (issue_id, "running", spec.attempt, spec.retry_kind)
        self._live[run_id] = live = Live(spec, memory.failures[key])
        self._usage = self._usage.since(ended.usage)
        assert ended.spend is not None
        self._purse.goes_on(run_id, ended.spend)
        if claim.stopped is not None:
            live.stop = StopReason.OPERATOR
            self._put_down.add(issue_id)
            self._ordered_ends[run_id] = True
            memory.stopped.pop(issue_id, None)
        return True

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
        # What was checked stays as it is; else it is not known what the ledger has.
        is_known = self._memory.is_written(number)
        self._memory.park = (until, shift, 0) if is_known else (None, math.nan, 0)
        if event.park is not None:
            self._world.counts["parks restored"] += 1
            self._parked_until = self._told_park = self._now + event.park.delay_s

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
