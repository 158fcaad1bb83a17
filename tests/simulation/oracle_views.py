"""What holds between steps: nothing is late, nobody is lost, and people see what is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from symphony.model.issue import Issue
from symphony.scheduler.claims import (
    Blocked,
    Cleaning,
    Dispatching,
    Rechecking,
    RetryQueued,
    Running,
)
from symphony.scheduler.publish import build_snapshot, explain
from symphony.scheduler.snapshot import Snapshot

from .oracle_books import STALL_MARGIN_S, Books

if TYPE_CHECKING:
    pass


class ViewBooks(Books):
    """Judges the state and its snapshots when a step is over."""

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

    def _nothing_is_late(self) -> None:
        """The loop wakes up for a retry at its time, and a due one waits for a shut gate alone."""
        if self._stopping:
            return
        state = self._life.state
        limit_s = self._settings.codex.stall_timeout_ms / 1000
        for live in self._live.values():
            record = self._life.progress.get(live.spec.run_id)
            if limit_s > 0 and live.stop is None and record is not None:
                busy_until = record.busy_until_mono or 0.0
                heard = max(record.last_activity_mono + limit_s, busy_until)
                since = max(heard, self._settings_since)
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
