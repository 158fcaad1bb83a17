"""What a step of the scheduler has decided, as operations of the ledger: one for each command.

Role: binds the arguments that ``operations``, ``breakers`` and ``spending`` need. Invariant: the
parts of one step go to ``writer`` as one write, so they are durable together. The key says which
owed write a newer one replaces while the disk fails.
"""

from __future__ import annotations

import sqlite3
from functools import partial
from typing import assert_never

from symphony.model.run import Outcome
from symphony.scheduler import commands as c

from . import breakers, operations, spending
from .spending import RunSpend
from .writer import Part


def bind(command: c.Durable, *, workflow_id: str, wall: float, day: str) -> Part:
    """Return the operation that makes a command durable.

    Args:
        command: What was decided.
        workflow_id: Whose rows.
        wall: Epoch seconds of the decision.
        day: ISO date on which what a run has spent is booked.
    """
    match command:
        case c.SaveEnd(ended):
            spent = RunSpend(
                run_id=ended.run_id, usage=ended.usage, seconds=ended.seconds, spend=ended.spend
            )
            return end_of_run(spent, ended.outcome, wall=wall, day=day, thread_id=ended.thread_id)
        case c.SaveClaim():
            save = partial(operations.set_claim, claim=command, saved_wall=wall)
            return Part(partial(save, workflow_id=workflow_id), f"claim {command.issue.id}")
        case c.DropClaim(issue_id):
            drop = partial(operations.drop_claim, workflow_id=workflow_id, issue_id=issue_id)
            return Part(drop, f"claim {issue_id}")
        case c.SaveStop(run_id, _, reason):
            stop = partial(operations.set_stopped, run_id=run_id, reason=reason)
            return Part(partial(stop, workflow_id=workflow_id), f"stop {run_id}")
        case c.SaveRaise(order):
            add = partial(spending.save_raise, workflow_id=workflow_id, order=order)
            return Part(add, f"raise {order.scope}")
        case _:
            return _of_all_work(command, workflow_id, wall)


def _of_all_work(
    command: c.SavePark
    | c.DropPark
    | c.SaveHold
    | c.DropHold
    | c.SaveBreaker
    | c.DropBreaker
    | c.SaveOverride,
    workflow_id: str,
    wall: float,
) -> Part:
    match command:
        case c.SavePark(until_wall, reason):
            park = partial(operations.save_park, until_wall=until_wall, reason=reason)
            return Part(partial(park, workflow_id=workflow_id, saved_wall=wall), "park")
        case c.DropPark():
            return Part(partial(operations.drop_park, workflow_id=workflow_id), "park")
        case c.SaveHold(hold):
            save = partial(operations.save_hold, workflow_id=workflow_id, hold=hold)
            return Part(save, f"hold {hold.scope}")
        case c.DropHold(scope):
            drop = partial(operations.drop_hold, workflow_id=workflow_id, scope=scope)
            return Part(drop, f"hold {scope}")
        case c.SaveBreaker(record):
            count = partial(breakers.save, workflow_id=workflow_id, record=record)
            return Part(count, f"breaker {record.failure_class}")
        case c.DropBreaker(name):
            forget = partial(breakers.drop, workflow_id=workflow_id, failure_class=name)
            return Part(forget, f"breaker {name}")
        case c.SaveOverride(override):
            lift = partial(operations.save_override, workflow_id=workflow_id, override=override)
            return Part(lift, "override")
        case _:
            assert_never(command)


def end_of_run(
    spent: RunSpend, outcome: Outcome, *, wall: float, day: str, thread_id: str | None
) -> Part:
    """Return the operation that records a run's end, and what it has spent in all."""

    def operation(connection: sqlite3.Connection) -> None:
        spending.set_spend(connection, spent, wall=wall, day=day)
        operations.end_run(
            connection, spent.run_id, outcome=outcome, ended_wall=wall, thread_id=thread_id
        )

    return Part(operation, f"run {spent.run_id} ended")


def outcome_of_run(spent: RunSpend, outcome: Outcome, *, wall: float, day: str) -> Part:
    """Return the operation that records what a run has come to, and what it has spent by then."""

    def operation(connection: sqlite3.Connection) -> None:
        spending.set_spend(connection, spent, wall=wall, day=day)
        operations.set_outcome(connection, spent.run_id, outcome)

    return Part(operation, f"run {spent.run_id} outcome")
