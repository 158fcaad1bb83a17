"""What runs have cost, in the ledger: the rows of spend, of raised limits, and how they are read.

Role: writes what a live run has spent so far, adds what is new to the sums of its issue and day,
and gives a starting daemon the books back. Invariant: whatever is written twice counts once, since
a run's row holds what is in the sums already. The day is the one of ``budget.day_timezone`` at the
moment of writing. ``operations`` has the other writes, ``scheduler.budget`` decides by the sums.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from symphony.model.issue import IssueId
from symphony.model.run import RunId
from symphony.model.spend import BudgetScope, Crossing, IdleTurns, Quantity, Raise, Spend
from symphony.model.usage import TokenUsage
from symphony.scheduler.events import RaiseOrder, RestoredSpend

from .codec import storable

DAYS_READ = 8
"""Days whose sums a start reads: the present one, and some in case the clock was set back."""

_COUNTS = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cached_input_tokens",
    "reasoning_output_tokens",
    "micro_usd",
    "unpriced_tokens",
    "wall_ms",
)
_ADD_TOTALS = f"""
INSERT INTO totals (workflow_id, issue_id, day, identifier, runs, seconds, {", ".join(_COUNTS)})
VALUES (?, ?, ?, ?, ?, ?, {", ".join("?" for _ in _COUNTS)})
ON CONFLICT DO UPDATE SET identifier = excluded.identifier, runs = runs + excluded.runs,
  seconds = seconds + excluded.seconds,
  {", ".join(f"{name} = {name} + excluded.{name}" for name in _COUNTS)}
"""
_SET_COUNTS = (
    "UPDATE runs SET seconds = ?, seen_wall = max(seen_wall, ?), model = coalesce(?, model), "
    + ", ".join(f"{name} = ?" for name in _COUNTS)
    + " WHERE run_id = ?"
)
_SUMS = "sum(total_tokens), sum(micro_usd), sum(wall_ms), sum(runs), sum(unpriced_tokens)"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpend:
    """What a run has spent so far, in all.

    Attributes:
        usage: Its tokens; None changes none.
        seconds: How long it ran; None is the time until it was last heard of.
        spend: What budgets count of it; None counts the time alone.
        model: The model of its thread, or None where that is not known.
    """

    run_id: RunId
    usage: TokenUsage | None = None
    seconds: float | None = None
    spend: Spend | None = None
    model: str | None = None


def set_spend(connection: sqlite3.Connection, run: RunSpend, *, wall: float, day: str) -> None:
    """Set what a run has spent so far; only what is new goes into the sums of its issue and day.

    An unknown run changes nothing.
    """
    row = connection.execute(
        "SELECT workflow_id, issue_id, identifier, started_wall, seen_wall, seconds, "
        f"{', '.join(_COUNTS)} FROM runs WHERE run_id = ?",
        (run.run_id,),
    ).fetchone()
    if row is None:
        return
    workflow_id, issue_id, identifier, started_wall, seen_wall, known_seconds, *counts = row
    known, paid = TokenUsage(*counts[:5]), _spend(*counts[5:])
    seconds = seen_wall - started_wall if run.seconds is None else run.seconds
    added_seconds = max(0.0, seconds - known_seconds)
    added = TokenUsage() if run.usage is None else run.usage.since(known)
    charged = (
        Spend(wall_ms=int(added_seconds * 1000)) if run.spend is None else run.spend.since(paid)
    )
    connection.execute(
        _SET_COUNTS,
        (
            known_seconds + added_seconds,
            wall,
            run.model,
            *_values(known + added, paid + charged),
            run.run_id,
        ),
    )
    if added_seconds or added != TokenUsage() or charged != Spend():
        where = (workflow_id, issue_id, day, identifier)
        connection.execute(_ADD_TOTALS, (*where, 0, added_seconds, *_values(added, charged)))


def set_spends(
    connection: sqlite3.Connection, runs: Sequence[RunSpend], *, wall: float, day: str
) -> None:
    """Set what several live runs have spent so far, in one transaction."""
    for run in runs:
        set_spend(connection, run, wall=wall, day=day)


def count_run(
    connection: sqlite3.Connection, where: tuple[str, str | None, str, str | None]
) -> None:
    """Count a run that starts; ``where`` is workflow, issue, day and the issue's human key."""
    connection.execute(_ADD_TOTALS, (*where, 1, 0.0, *_values(TokenUsage(), Spend())))


def set_idle(connection: sqlite3.Connection, run_id: RunId, idle: IdleTurns) -> None:
    """Keep how many turns of a live run's issue have changed nothing, should the daemon die."""
    connection.execute(
        "UPDATE claims SET idle_turns = ?, idle_mark = ? WHERE run_id = ?",
        (idle.count, idle.mark, run_id),
    )


def save_raise(connection: sqlite3.Connection, workflow_id: str, order: RaiseOrder) -> None:
    """Set what operators have added to the limits of a scope."""
    amounts = order.amounts
    connection.execute(
        "INSERT OR REPLACE INTO raises VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            workflow_id,
            storable(order.scope),
            amounts.tokens,
            amounts.micro_usd,
            amounts.wall_ms,
            amounts.attempts,
            storable(order.by),
            order.since_wall,
        ),
    )


def read_spend(connection: sqlite3.Connection, workflow_id: str) -> RestoredSpend:
    """Return all sums and raises of a workflow."""
    issues: dict[IssueId, Spend] = {}
    identifiers: dict[IssueId, str] = {}
    query = f"""
        SELECT issue_id, max(identifier), {_SUMS} FROM totals WHERE workflow_id = ?
        GROUP BY issue_id
    """
    for issue_id, identifier, tokens, *sums in connection.execute(query, (workflow_id,)):
        issues[IssueId(issue_id)] = _sums(tokens, *sums)
        if identifier is not None:
            identifiers[IssueId(issue_id)] = identifier
    query = f"""
        SELECT day, {_SUMS} FROM totals WHERE workflow_id = ? GROUP BY day ORDER BY day DESC LIMIT ?
    """
    rows = connection.execute(query, (workflow_id, DAYS_READ))
    days = {day: _sums(tokens, *sums) for day, tokens, *sums in rows}
    return RestoredSpend(issues, identifiers, days, _raises(connection, workflow_id))


def _raises(connection: sqlite3.Connection, workflow_id: str) -> tuple[RaiseOrder, ...]:
    query = """
        SELECT scope, tokens, micro_usd, wall_ms, attempts, ordered_by, since_wall FROM raises
        WHERE workflow_id = ? ORDER BY since_wall, scope
    """
    return tuple(
        RaiseOrder(
            scope,
            Raise(tokens=tokens, micro_usd=micro_usd, wall_ms=wall_ms, attempts=attempts),
            by,
            since,
        )
        for scope, tokens, micro_usd, wall_ms, attempts, by, since in connection.execute(
            query, (workflow_id,)
        )
    )


def encode_crossing(crossed: Crossing | None) -> str | None:
    """Return a crossed limit as JSON text, or None."""
    if crossed is None:
        return None
    return json.dumps(
        {
            "scope": crossed.scope.value,
            "quantity": crossed.quantity.value,
            "limit": crossed.limit,
            "spent": crossed.spent,
            "model": crossed.model,
        }
    )


def decode_crossing(text: str | None) -> Crossing | None:
    """Return what ``encode_crossing`` wrote.

    Raises:
        ValueError: The text is something else.
    """
    if text is None:
        return None
    try:
        found = json.loads(text)
        return Crossing(
            scope=BudgetScope(found["scope"]),
            quantity=Quantity(found["quantity"]),
            limit=int(found["limit"]),
            spent=int(found["spent"]),
            model=found["model"],
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"no crossed limit: {error!r}") from error


def _values(usage: TokenUsage, spend: Spend) -> tuple[int, ...]:
    return (
        usage.input_tokens,
        usage.output_tokens,
        usage.total_tokens,
        usage.cached_input_tokens,
        usage.reasoning_output_tokens,
        spend.micro_usd,
        spend.unpriced_tokens,
        spend.wall_ms,
    )


def _spend(micro_usd: int, unpriced_tokens: int, wall_ms: int) -> Spend:
    return Spend(micro_usd=micro_usd, unpriced_tokens=unpriced_tokens, wall_ms=wall_ms)


def _sums(tokens: int, micro_usd: int, wall_ms: int, runs: int, unpriced: int) -> Spend:
    return Spend(
        tokens=tokens, micro_usd=micro_usd, wall_ms=wall_ms, runs=runs, unpriced_tokens=unpriced
    )
