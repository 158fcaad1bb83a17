"""What must hold between any two steps. Tests and simulations call ``validate`` after each one.

It costs a walk over everything, so the daemon itself does not call it.
"""

from __future__ import annotations

from typing import assert_never

from .claims import (
    Blocked,
    Claim,
    Cleaning,
    Dispatching,
    Rechecking,
    RetryQueued,
    Running,
    contends,
    occupancy,
)
from .commands import RefreshPurpose
from .eligibility import dispatch_key
from .placement import Slots
from .state import Asked, SchedulerState


def validate(state: SchedulerState) -> None:
    """Check every invariant of the state.

    Raises:
        AssertionError: One does not hold; the message names it and the claim.
    """
    for claim in state.claims:
        _validate_claim(state, claim)
    _validate_indexes(state)
    _validate_pending(state)
    _validate_poll(state)


def _validate_claim(state: SchedulerState, claim: Claim) -> None:
    """Nothing is claimed without a cause: a run, a time, a read, a clean-up or a reason."""
    match claim:
        case Running():
            assert state.claims.run(claim.spec.run_id) is claim, f"run is not indexed: {claim}"
            assert claim.spec.issue.id == claim.issue.id, f"run of another issue: {claim}"
        case Dispatching():
            _validate_asked(state, claim, RefreshPurpose.DISPATCH)
        case Rechecking():
            _validate_asked(state, claim, RefreshPurpose.RETRY)
        case Cleaning():
            _validate_asked(state, claim, Asked.CLEANUP)
        case RetryQueued(hold=None):
            pass
        case RetryQueued():
            assert state.shutting_down or claim.issue.id in state.claims.contending, (
                f"waiting retry is not offered slots: {claim}"
            )
        case Blocked():
            assert claim.category, f"blocked without a category: {claim}"
            assert claim.error, f"blocked without a reason: {claim}"
        case _:
            assert_never(claim)


def _validate_asked(
    state: SchedulerState,
    claim: Dispatching | Rechecking | Cleaning,
    asked: Asked | RefreshPurpose,
) -> None:
    pending = state.pending.get(claim.cause)
    assert pending is not None, f"nothing in flight behind {claim}"
    assert pending.asked is asked, f"{pending.asked} in flight behind {claim}"
    assert claim.issue.id in pending.ids, f"its read leaves out {claim}"


def _validate_indexes(state: SchedulerState) -> None:
    slots = Slots()
    contending = {}
    armed = state.claims.armed()
    for claim in state.claims:
        if isinstance(claim, RetryQueued) and claim.hold is None:
            assert (claim.issue.id, claim.due_mono) in armed, f"retry will be missed: {claim}"
        held = occupancy(claim)
        if held is not None:
            slots.take(*held)
        if contends(claim):
            contending[claim.issue.id] = dispatch_key(claim.issue, fresh=False)
    assert slots == state.claims.slots, "slot counts differ from the claims"
    assert contending == state.claims.contending, "contenders differ from the claims"
    assert not state.claims.freed, "a freed slot was not offered"


def _validate_pending(state: SchedulerState) -> None:
    """Every command in flight still has somebody who waits for its answer."""
    for cause, pending in state.pending.items():
        match pending.asked:
            case RefreshPurpose.DISPATCH | RefreshPurpose.RETRY | Asked.CLEANUP:
                for issue_id in pending.ids:
                    claim = state.claims.get(issue_id)
                    assert isinstance(claim, (Dispatching, Rechecking, Cleaning)), (
                        f"{pending.asked} for {issue_id}, which is {claim}"
                    )
                    assert claim.cause == cause, f"{issue_id} waits for another answer"
            case RefreshPurpose.RECONCILE:
                assert state.poll.reconcile == cause, "a second reconcile read is in flight"
            case Asked.CANDIDATES:
                assert state.poll.candidates == cause, "a second candidates read is in flight"
            case _:
                assert not state.shutting_down, f"{pending.asked} outlives the shutdown"


def _validate_poll(state: SchedulerState) -> None:
    """While the daemon works, a poll is either planned or in flight."""
    poll = state.poll
    if state.shutting_down or not state.started:
        assert poll.next_mono is None, "a poll is planned though none may begin"
        assert not poll.checking, "a poll is in flight though none may begin"
    else:
        assert poll.checking == (poll.next_mono is None), "polling has stopped or doubled"
        assert poll.held is None or poll.reconcile is not None, "candidates are held for nothing"
    for cause in (poll.reconcile, poll.candidates):
        assert cause is None or cause in state.pending, "the poll waits for an answer to nothing"
