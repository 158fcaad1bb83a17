"""The queries of the ledger, each on a read-only connection of its own.

``ledger`` runs them in threads, so a slow disk delays the reader alone. They see every write that
was durable when they began. Rows that can't be understood are left out and reported.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from symphony.errors import LedgerError
from symphony.hosts.base import ProcessIdentity
from symphony.model.issue import IssueId
from symphony.model.question import Question, Reply
from symphony.model.run import Outcome, OutcomeKind, RetryKind, RunId, StopReason
from symphony.model.spend import IdleTurns, Spend
from symphony.model.usage import TokenUsage
from symphony.scheduler.events import (
    Hold,
    HoldKind,
    Override,
    Restored,
    RestoredClaim,
    RestoredPark,
    RunEnded,
    Seen,
)

from . import breakers
from .codec import decode_issue, decode_optional, storable
from .schema import BUSY_TIMEOUT_S
from .spending import decode_crossing, read_spend


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRun:
    """A run that the ledger has no end of: the daemon died during it.

    Attributes:
        processes: Its recorded processes, oldest first; some may live as orphans.
    """

    run_id: RunId
    issue_id: IssueId
    issue_identifier: str
    processes: tuple[ProcessIdentity, ...]
    workspace_path: str | None
    host: str
    thread_id: str | None
    started_wall: float

    @property
    def process(self) -> ProcessIdentity | None:
        """The process that was recorded last, or None where none had started."""
        return self.processes[-1] if self.processes else None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerContents:
    """What the ledger held at start.

    Attributes:
        restored: For the scheduler; the delays of retries are what remains of them.
        open_runs: For the sweep of orphans, oldest first. To be closed with ``run_ended``.
        faults: A sentence for each record that could not be read.
    """

    restored: Restored
    open_runs: tuple[OpenRun, ...]
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One run of the history. ``outcome`` is None while it has no recorded end."""

    run_id: RunId
    issue_identifier: str
    attempt: int | None
    retry_kind: str | None
    host: str
    workspace_path: str | None
    thread_id: str | None
    started_wall: float
    ended_wall: float | None
    outcome: Outcome | None
    seconds: float
    turns: int
    usage: TokenUsage
    model: str | None = None
    micro_usd: int = 0


@dataclass(frozen=True, slots=True)
class EventRow:
    """One recorded event of a run: epoch seconds, its name and its message."""

    wall: float
    event: str
    message: str | None
    run_id: RunId


@contextmanager
def read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the ledger for reading within one consistent view.

    Raises:
        LedgerError: ``ledger_damaged``: it can't be read.
    """
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S)) as connection:
            connection.row_factory = sqlite3.Row
            connection.isolation_level = None
            connection.execute("BEGIN")
            yield connection
    except sqlite3.Error as error:
        raise LedgerError("ledger_damaged", f"can't read the ledger {path}: {error}") from error


def load(path: Path, workflow_id: str, now_wall: float) -> LedgerContents:
    """Read everything that a restart needs."""
    faults: list[str] = []
    with read_only(path) as connection:
        claims = _claims(connection, workflow_id, now_wall, faults)
        usage, seconds = _totals(connection, workflow_id)
        open_runs = _open_runs(connection, workflow_id)
        holds = _holds(connection, workflow_id)
        failing = breakers.load(connection, workflow_id, faults)
        spend = read_spend(connection, workflow_id)
        park = _park(connection, workflow_id, now_wall)
        override = _override(connection, workflow_id)
    return LedgerContents(
        restored=Restored(claims, usage, seconds, holds, failing, spend, park, override),
        open_runs=open_runs,
        faults=tuple(faults),
    )


def recent_events(
    path: Path, workflow_id: str, identifier: str, limit: int
) -> tuple[EventRow, ...]:
    """Return the newest events of an issue's runs, newest first."""
    query = """
        SELECT events.wall, events.event, events.message, events.run_id FROM runs
        JOIN events ON events.run_id = runs.run_id
        WHERE runs.workflow_id = ? AND identifier = ?
        ORDER BY started_wall DESC, seq DESC LIMIT ?
    """
    with read_only(path) as connection:
        rows = connection.execute(query, (workflow_id, storable(identifier), limit))
        return tuple(EventRow(wall, event, text, RunId(run)) for wall, event, text, run in rows)


def runs(path: Path, workflow_id: str, identifier: str | None, limit: int) -> tuple[RunRow, ...]:
    """Return the newest runs of one issue or of all, newest first."""
    query = """
        SELECT *, (SELECT count(*) FROM turns WHERE turns.run_id = runs.run_id) AS turns FROM runs
        WHERE workflow_id = ? AND (? IS NULL OR identifier = ?)
        ORDER BY started_wall DESC, run_id DESC LIMIT ?
    """
    name = storable(identifier)
    with read_only(path) as connection:
        found = connection.execute(query, (workflow_id, name, name, limit))
        return tuple(_run_row(row) for row in found)


def workspace_issues(path: Path, workflow_id: str, host: str) -> dict[str, IssueId]:
    """Return the issue of the newest run in each workspace of a host."""
    query = """
        SELECT workspace_path, issue_id, max(started_wall) FROM runs
        WHERE workflow_id = ? AND host = ? AND workspace_path IS NOT NULL GROUP BY workspace_path
    """
    with read_only(path) as connection:
        rows = connection.execute(query, (workflow_id, host))
        return {workspace: IssueId(issue_id) for workspace, issue_id, _ in rows}


def _claims(
    connection: sqlite3.Connection, workflow_id: str, now_wall: float, faults: list[str]
) -> tuple[RestoredClaim, ...]:
    query = """
        SELECT claims.*, runs.thread_id AS run_thread, runs.workspace_path AS run_workspace,
          runs.message AS run_message, seconds, input_tokens, output_tokens, total_tokens,
          cached_input_tokens, reasoning_output_tokens, micro_usd, unpriced_tokens, wall_ms
        FROM claims LEFT JOIN runs ON runs.run_id = claims.run_id
        WHERE claims.workflow_id = ? ORDER BY since_wall, claims.issue_id
    """
    claims = []
    for row in connection.execute(query, (workflow_id,)):
        try:
            claims.append(replace(_claim(row, now_wall), ended=_ended(row, faults)))
        except ValueError as error:
            faults.append(f"the claim of {row['identifier']} can't be restored: {error}")
    return tuple(claims)


def _claim(row: sqlite3.Row, now_wall: float) -> RestoredClaim:
    delay = None
    if row["due_wall"] is not None:
        delay = _remaining(row["due_wall"], now_wall, saved_wall=row["saved_wall"])
    return RestoredClaim(
        kind=row["kind"],
        issue=decode_issue(row["issue"]),
        attempt=row["attempt"],
        retry_kind=None if row["retry_kind"] is None else RetryKind(row["retry_kind"]),
        error=row["run_message"] or row["error"],
        delay_s=delay,
        thread_id=row["run_thread"] or row["thread_id"],
        host=row["host"],
        workspace_path=row["run_workspace"] or row["workspace_path"],
        blocked_category=row["blocked_category"],
        since_wall=row["since_wall"],
        failures=row["failures"],
        crossed=decode_crossing(row["crossed"]),
        idle=IdleTurns(row["idle_turns"] or 0, row["idle_mark"]),
        question=decode_optional(row["question"], Question),
        reply=decode_optional(row["reply"], Reply),
        seen=decode_optional(row["seen"], Seen),
        stopped=row["stopped"],
    )


def _ended(row: sqlite3.Row, faults: list[str]) -> RunEnded | None:
    """Return what the run of a claim has come to, where that is recorded and its end is not.

    What can't be read counts as not recorded: the run is taken up again.
    """
    if row["outcome"] is None or row["seconds"] is None:
        return None
    try:
        outcome = decode_optional(row["outcome"], Outcome)
    except ValueError as error:
        faults.append(f"what the last run of {row['identifier']} came to can't be read: {error}")
        return None
    assert outcome is not None
    spend = Spend(
        tokens=row["total_tokens"],
        micro_usd=row["micro_usd"],
        wall_ms=row["wall_ms"],
        unpriced_tokens=row["unpriced_tokens"],
    )
    return RunEnded(
        run_id=RunId(row["run_id"]),
        outcome=outcome,
        usage=_usage(row),
        seconds=row["seconds"],
        thread_id=row["run_thread"] or row["thread_id"],
        host=row["host"],
        workspace_path=row["run_workspace"] or row["workspace_path"],
        spend=spend,
        idle=IdleTurns(row["idle_turns"] or 0, row["idle_mark"]),
    )


def _usage(row: sqlite3.Row) -> TokenUsage:
    return TokenUsage(
        row["input_tokens"],
        row["output_tokens"],
        row["total_tokens"],
        row["cached_input_tokens"],
        row["reasoning_output_tokens"],
    )


def _remaining(due_wall: float, now_wall: float, *, saved_wall: float) -> float:
    """Return the seconds that are left; never more than there were when the row was saved.

    The wall clock may have been set back since.
    """
    return max(0.0, due_wall - max(now_wall, saved_wall))


def _park(connection: sqlite3.Connection, workflow_id: str, now_wall: float) -> RestoredPark | None:
    query = "SELECT until_wall, reason, saved_wall FROM parks WHERE workflow_id = ?"
    row = connection.execute(query, (workflow_id,)).fetchone()
    if row is None:
        return None
    until_wall, reason, saved_wall = row
    return RestoredPark(until_wall, reason, _remaining(until_wall, now_wall, saved_wall=saved_wall))


def _totals(connection: sqlite3.Connection, workflow_id: str) -> tuple[TokenUsage, float]:
    query = """
        SELECT coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0),
          coalesce(sum(total_tokens), 0), coalesce(sum(cached_input_tokens), 0),
          coalesce(sum(reasoning_output_tokens), 0), coalesce(sum(seconds), 0.0)
        FROM totals WHERE workflow_id = ?
    """
    *counts, seconds = connection.execute(query, (workflow_id,)).fetchone()
    return TokenUsage(*counts), seconds


def _holds(connection: sqlite3.Connection, workflow_id: str) -> tuple[Hold, ...]:
    query = """
        SELECT scope, kind, reason, ordered_by, since_wall FROM holds
        WHERE workflow_id = ? ORDER BY since_wall, scope
    """
    return tuple(
        Hold(scope or None, HoldKind(kind), reason, by, since)
        for scope, kind, reason, by, since in connection.execute(query, (workflow_id,))
    )


def _override(connection: sqlite3.Connection, workflow_id: str) -> Override | None:
    query = "SELECT since_wall, until_wall FROM overrides WHERE workflow_id = ?"
    row = connection.execute(query, (workflow_id,)).fetchone()
    return None if row is None else Override(*row)


def _open_runs(connection: sqlite3.Connection, workflow_id: str) -> tuple[OpenRun, ...]:
    processes: dict[str, list[ProcessIdentity]] = {}
    query = """
        SELECT processes.run_id, pid, start_ticks, boot_id
        FROM runs JOIN processes ON processes.run_id = runs.run_id
        WHERE runs.workflow_id = ? AND ended_wall IS NULL
        ORDER BY recorded_wall, start_ticks, pid
    """
    for run_id, pid, start_ticks, boot_id in connection.execute(query, (workflow_id,)):
        processes.setdefault(run_id, []).append(ProcessIdentity(pid, start_ticks, boot_id))
    query = "SELECT * FROM runs WHERE workflow_id = ? AND ended_wall IS NULL ORDER BY started_wall"
    return tuple(
        OpenRun(
            run_id=RunId(row["run_id"]),
            issue_id=IssueId(row["issue_id"]),
            issue_identifier=row["identifier"],
            processes=tuple(processes.get(row["run_id"], ())),
            workspace_path=row["workspace_path"],
            host=row["host"],
            thread_id=row["thread_id"],
            started_wall=row["started_wall"],
        )
        for row in connection.execute(query, (workflow_id,))
    )


def _run_row(row: sqlite3.Row) -> RunRow:
    outcome = None
    if row["outcome"] is not None:
        outcome = Outcome(
            kind=OutcomeKind(row["outcome"]),
            category=row["category"],
            code=row["code"],
            message=row["message"] or "",
            retryable=row["retryable"] != 0,
            retry_at=row["retry_at"],
            stop_reason=None if row["stop_reason"] is None else StopReason(row["stop_reason"]),
        )
    return RunRow(
        run_id=RunId(row["run_id"]),
        issue_identifier=row["identifier"],
        attempt=row["attempt"],
        retry_kind=row["retry_kind"],
        host=row["host"],
        workspace_path=row["workspace_path"],
        thread_id=row["thread_id"],
        started_wall=row["started_wall"],
        ended_wall=row["ended_wall"],
        outcome=outcome,
        seconds=row["seconds"],
        turns=row["turns"],
        usage=_usage(row),
        model=row["model"],
        micro_usd=row["micro_usd"],
    )
