"""The map of claims and its indexes, and the checks that guard them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from symphony.model.run import OutcomeKind, RetryKind, StopReason
from symphony.scheduler.claims import (
    Blocked,
    Claims,
    Cleaning,
    Dispatching,
    Rechecking,
    RetryQueued,
    describe,
)
from symphony.scheduler.commands import RefreshPurpose
from symphony.scheduler.eligibility import Gate, GateName
from symphony.scheduler.events import Restored
from symphony.scheduler.invariants import validate
from symphony.scheduler.state import Asked, Pending

HOLD = Gate(GateName.GLOBAL_SLOT, False, "1 of 1 slots are taken")


@pytest.fixture
def retry(issue):
    def retry(name="A-1", due_mono=10.0, **fields):
        return RetryQueued(
            issue=issue(name),
            attempt=2,
            retry_kind=RetryKind.FAILURE,
            failures=2,
            due_mono=due_mono,
            due_wall=0.0,
            **fields,
        )

    return retry


def test_each_kind_of_claim_is_described_by_what_stands_behind_it(drive, issue, retry):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    running = driver.claim(one)
    blocked = Blocked(issue=one, category="approval_required", error="may I?", since_wall=0.0)
    assert [
        describe(claim)
        for claim in (
            Dispatching(issue=one, cause=1, host="local"),
            running,
            replace(running, stopping=StopReason.STALLED),
            retry(),
            retry(error="fault"),
            retry(hold=HOLD),
            Rechecking(retry=retry(), cause=1),
            blocked,
            Cleaning(issue=one, cause=1),
        )
    ] == [
        "chosen; the tracker is asked once more before it starts",
        f"running as {spec.run_id}",
        f"running as {spec.run_id}, being stopped (stalled)",
        "waiting for its failure retry at 1970-01-01T00:00:00Z",
        "waiting for its failure retry at 1970-01-01T00:00:00Z: fault",
        "its failure retry is due and waits: no available orchestrator slots",
        "its failure retry is due; the tracker is being asked",
        "blocked since 1970-01-01T00:00:00Z (approval_required): may I?",
        "its workspace is being removed",
    ]


def test_due_retries_come_in_order_of_time_and_each_once(retry):
    claims = Claims()
    for name, due in (("A-1", 30.0), ("A-2", 10.0), ("A-3", 20.0)):
        claims.put(retry(name, due))
    # The same due time again leaves two entries of one issue behind.
    claims.put(retry("A-2", 10.0, error="other"))
    assert claims.next_due() == 10.0
    assert [claim.issue.identifier for claim in claims.pop_due(20.0)] == ["A-2", "A-3"]
    assert claims.next_due() == 30.0


def test_a_time_that_no_longer_holds_is_passed_over(retry):
    claims = Claims()
    claims.put(retry("A-1", 10.0))
    claims.put(retry("A-1", 50.0))
    claims.put(retry("A-2", 20.0))
    claims.put(retry("A-2", 20.0, hold=HOLD))
    assert claims.next_due() == 50.0
    assert claims.pop_due(49.0) == []
    claims.drop("id-A-1")
    assert claims.next_due() is None
    assert len(claims) == 1


def test_stale_times_that_come_up_are_not_due(retry):
    claims = Claims()
    claims.put(retry("A-1", 10.0))
    claims.put(retry("A-1", 50.0))
    assert claims.pop_due(20.0) == []
    assert len(claims.pop_due(50.0)) == 1


def corrupt_slots(state):
    state.claims.slots.take("todo", "local")


def corrupt_freed(state):
    state.claims.freed = True


def corrupt_contending(state):
    state.claims.contending["x"] = (1, True, 0.0, "x")


def corrupt_due(state):
    state.claims.pop_due(1e9)


def corrupt_pending(state):
    state.pending.clear()


def corrupt_poll(state):
    state.poll.next_mono = None


def corrupt_held(state):
    state.poll.held = ()


def doubled_poll(state):
    state.pending[99] = Pending(Asked.CANDIDATES, (), 0.0, 0)


def doubled_reconcile(state):
    state.pending[99] = Pending(RefreshPurpose.RECONCILE, (), 0.0, 0)


def idle_read(state):
    state.pending[99] = Pending(RefreshPurpose.DISPATCH, ("nobody",), 0.0, 0)


def stray_confirm(state):
    state.pending[99] = Pending(RefreshPurpose.CONFIRM_MISSING, (), 0.0, 0)
    state.poll.next_mono = None
    state.shutting_down = True


def poll_while_ending(state):
    state.pending.clear()
    state.shutting_down = True


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (corrupt_slots, "slot counts differ"),
        (corrupt_freed, "freed slot was not offered"),
        (corrupt_contending, "contenders differ"),
        (corrupt_due, "retry will be missed"),
        (corrupt_poll, "polling has stopped"),
        (corrupt_held, "held for nothing"),
        (doubled_poll, "second candidates read"),
        (doubled_reconcile, "second reconcile read"),
        (idle_read, "for nobody, which is None"),
        (stray_confirm, "outlives the shutdown"),
        (poll_while_ending, "a poll is planned"),
    ],
)
def test_a_corrupt_state_is_found(drive, issue, corrupt, message):
    driver = drive()
    one, two = issue("A-1"), issue("A-2")
    first, _ = driver.start(one, two)
    driver.end(first, OutcomeKind.FAILED)
    driver.state.pending.clear()
    validate(driver.state)
    corrupt(driver.state)
    with pytest.raises(AssertionError, match=message):
        validate(driver.state)


def test_a_claim_without_anything_in_flight_is_found(drive, issue):
    driver = drive()
    driver.send(Restored())
    driver.offer(issue("A-1"))
    corrupt_pending(driver.state)
    with pytest.raises(AssertionError, match="nothing in flight behind"):
        validate(driver.state)
