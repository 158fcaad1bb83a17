"""What operators order: holds, stops, answers, the end of a park; and what follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from symphony.model.issue import IssueId
from symphony.scheduler.claims import (
    Blocked,
    Dispatching,
    Rechecking,
    RetryQueued,
)
from symphony.scheduler.commands import (
    SaveClaim,
    SavePark,
    SaveStop,
)
from symphony.scheduler.events import (
    ControlAction,
    ControlRequested,
)

from .blocks import STOPPED
from .oracle_books import TOLERANCE_S, Books

if TYPE_CHECKING:
    pass


class OperatorBooks(Books):
    """Judges what is done by order, and that orders hold until they are lifted."""

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
                # A stop of all work leaves blocks as they are: the hold is what keeps them back.
                blocked = {one.issue.id for one in claims if isinstance(one, Blocked)}
                self._put_down |= of_scope if scope is not None else of_scope - blocked
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
        self._told_park = self._parked_until
        self._memory.park = (self._parked_until, shift, self._memory.number)

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
        self._must(
            state.park is None or abs(self._told_park - until) < 1e-3,
            lambda: f"parked until {until}, the ledger was told {self._told_park}",
        )
        told_held = {scope for scope, (is_held, _) in self._memory.holds.items() if is_held}
        self._must(held == told_held, lambda: f"held are {held}, the ledger was told {told_held}")
        for issue_id in self._put_down:
            claim = state.claims.get(issue_id)
            if isinstance(claim, RetryQueued | Rechecking | Dispatching):
                self._fail(f"an operator has stopped it: {claim}")
