"""The writes of the ledger, each a function that runs inside the writer's transaction.

``ledger`` binds their arguments, ``writer`` calls them with its connection. Each may run twice
(a failed transaction is repeated), so each leaves the same rows however often it runs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from symphony.hosts.base import ProcessIdentity
from symphony.model.issue import IssueId
from symphony.model.run import Outcome, RunId, RunSpec
from symphony.scheduler.commands import SaveClaim
from symphony.scheduler.events import Hold, Override

from .codec import capped, encode_issue, encode_optional, storable
from .spending import count_run, encode_crossing

ERROR_LIMIT = 4000
"""Characters kept of an error or outcome message."""

ALL_WORK = ""
"""The scope of a hold on all work; no identifier is empty."""

_SET_CLAIM = """
INSERT OR REPLACE INTO claims (workflow_id, issue_id, identifier, kind, run_id, issue, attempt,
  retry_kind, error, due_wall, thread_id, host, workspace_path, blocked_category, since_wall,
  saved_wall, failures, crossed, idle_turns, idle_mark, question, reply, seen)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_START_RUN = """
INSERT OR IGNORE INTO runs (run_id, workflow_id, issue_id, identifier, title, url, state, attempt,
  retry_kind, host, thread_id, started_wall, seen_wall)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_SUPERSEDE = """
UPDATE runs SET ended_wall = ?, outcome = 'interrupted', category = 'superseded',
  message = 'a later run of the issue started before this one was recorded as ended'
WHERE workflow_id = ? AND issue_id = ? AND ended_wall IS NULL AND run_id <> ?
"""
_END_RUN = """
UPDATE runs SET ended_wall = ?, seen_wall = max(seen_wall, ?), outcome = ?, category = ?, code = ?,
  message = ?, retryable = ?, retry_at = ?, stop_reason = ?, thread_id = coalesce(?, thread_id)
WHERE run_id = ?
"""


def start_run(
    connection: sqlite3.Connection,
    workflow_id: str,
    spec: RunSpec,
    started_wall: float,
    *,
    day: str,
) -> None:
    """Record a run and make it its issue's current one; an open earlier run is superseded."""
    issue = spec.issue
    issue_id = storable(issue.id)
    connection.execute(_SUPERSEDE, (started_wall, workflow_id, issue_id, spec.run_id))
    known = connection.execute("SELECT 1 FROM runs WHERE run_id = ?", (spec.run_id,)).fetchone()
    connection.execute(
        _START_RUN,
        (
            spec.run_id,
            workflow_id,
            issue_id,
            storable(issue.identifier),
            storable(issue.title),
            storable(issue.url),
            storable(issue.state),
            spec.attempt,
            spec.retry_kind,
            spec.host,
            spec.thread_id,
            started_wall,
            started_wall,
        ),
    )
    if known is None:
        count_run(connection, (workflow_id, issue_id, day, storable(issue.identifier)))
    claim = SaveClaim(
        kind="running",
        issue=issue,
        attempt=spec.attempt,
        retry_kind=spec.retry_kind,
        error=spec.previous_error,
        thread_id=spec.thread_id,
        host=spec.host,
        since_wall=started_wall,
        failures=spec.failures,
        idle=spec.idle,
        reply=spec.reply,
    )
    set_claim(connection, workflow_id, claim, started_wall, run_id=spec.run_id)


def set_claim(
    connection: sqlite3.Connection,
    workflow_id: str,
    claim: SaveClaim,
    saved_wall: float,
    *,
    run_id: RunId | None = None,
) -> None:
    """Write an issue's one claim row, whatever it held before."""
    issue = claim.issue
    connection.execute(
        _SET_CLAIM,
        (
            workflow_id,
            storable(issue.id),
            storable(issue.identifier),
            claim.kind,
            run_id,
            encode_issue(issue),
            claim.attempt,
            claim.retry_kind,
            capped(claim.error, ERROR_LIMIT),
            claim.due_wall,
            claim.thread_id,
            claim.host,
            storable(claim.workspace_path),
            claim.blocked_category,
            claim.since_wall,
            saved_wall,
            claim.failures,
            encode_crossing(claim.crossed),
            claim.idle.count,
            claim.idle.mark,
            encode_optional(claim.question),
            encode_optional(claim.reply),
            encode_optional(claim.seen),
        ),
    )


def set_stopped(
    connection: sqlite3.Connection, workflow_id: str, run_id: RunId, reason: str | None
) -> None:
    """Record on the claim of a live run that an operator has stopped it; None takes that back."""
    connection.execute(
        "UPDATE claims SET stopped = ? WHERE workflow_id = ? AND run_id = ?",
        (capped(reason, ERROR_LIMIT), workflow_id, run_id),
    )


def set_outcome(connection: sqlite3.Connection, run_id: RunId, outcome: Outcome) -> None:
    """Record on its claim what a run has come to whose end the scheduler is yet to take.

    A claim that is no longer this run's stays as it is.
    """
    connection.execute(
        "UPDATE claims SET outcome = ? WHERE run_id = ?", (encode_optional(outcome), run_id)
    )


def save_park(
    connection: sqlite3.Connection,
    workflow_id: str,
    until_wall: float,
    *,
    reason: str,
    saved_wall: float,
) -> None:
    """Record until when all work is kept back."""
    connection.execute(
        "INSERT OR REPLACE INTO parks VALUES (?, ?, ?, ?)",
        (workflow_id, until_wall, capped(reason, ERROR_LIMIT) or "", saved_wall),
    )


def drop_park(connection: sqlite3.Connection, workflow_id: str) -> None:
    """Forget that work is kept back, if it is."""
    connection.execute("DELETE FROM parks WHERE workflow_id = ?", (workflow_id,))


def drop_claim(connection: sqlite3.Connection, workflow_id: str, issue_id: IssueId) -> None:
    """Remove an issue's claim row, if there is one."""
    connection.execute(
        "DELETE FROM claims WHERE workflow_id = ? AND issue_id = ?",
        (workflow_id, storable(issue_id)),
    )


def save_hold(connection: sqlite3.Connection, workflow_id: str, hold: Hold) -> None:
    """Set the hold of a scope."""
    connection.execute(
        "INSERT OR REPLACE INTO holds VALUES (?, ?, ?, ?, ?, ?)",
        (
            workflow_id,
            storable(hold.scope or ALL_WORK),
            hold.kind.value,
            capped(hold.reason, ERROR_LIMIT) or "",
            capped(hold.by, ERROR_LIMIT) or "",
            hold.since_wall,
        ),
    )


def drop_hold(connection: sqlite3.Connection, workflow_id: str, scope: str | None) -> None:
    """Remove the hold of a scope, if there is one."""
    connection.execute(
        "DELETE FROM holds WHERE workflow_id = ? AND scope = ?",
        (workflow_id, storable(scope or ALL_WORK)),
    )


def save_override(
    connection: sqlite3.Connection, workflow_id: str, override: Override | None
) -> None:
    """Set or remove the override of the active hours."""
    if override is None:
        connection.execute("DELETE FROM overrides WHERE workflow_id = ?", (workflow_id,))
        return
    connection.execute(
        "INSERT OR REPLACE INTO overrides VALUES (?, ?, ?)",
        (workflow_id, override.since_wall, override.until_wall),
    )


def add_process(
    connection: sqlite3.Connection,
    workflow_id: str,
    run_id: RunId,
    *,
    identity: ProcessIdentity,
    wall: float,
) -> None:
    """Record a process of a run; a run may have several (hooks, the agent)."""
    connection.execute(
        "INSERT OR REPLACE INTO processes VALUES (?, ?, ?, ?, ?, ?)",
        (run_id, identity.pid, identity.start_ticks, identity.boot_id, workflow_id, wall),
    )
    _see(connection, run_id, wall)


def set_workspace(connection: sqlite3.Connection, run_id: RunId, path: str) -> None:
    """Record where a run works."""
    connection.execute(
        "UPDATE runs SET workspace_path = ? WHERE run_id = ?", (storable(path), run_id)
    )


def set_thread(connection: sqlite3.Connection, run_id: RunId, thread_id: str) -> None:
    """Record which thread a run speaks in."""
    connection.execute("UPDATE runs SET thread_id = ? WHERE run_id = ?", (thread_id, run_id))


def start_turn(
    connection: sqlite3.Connection,
    workflow_id: str,
    run_id: RunId,
    *,
    turn_id: str,
    thread_id: str,
    number: int,
    wall: float,
) -> None:
    """Record a turn; ``number`` counts from 1 within the run."""
    connection.execute(
        "INSERT OR IGNORE INTO turns (run_id, turn_id, number, workflow_id, thread_id, "
        "started_wall) VALUES (?, ?, ?, ?, ?, ?)",
        (run_id, turn_id, number, workflow_id, thread_id, wall),
    )
    _see(connection, run_id, wall)


def end_turn(
    connection: sqlite3.Connection,
    run_id: RunId,
    *,
    turn_id: str,
    status: str,
    error: str | None,
    wall: float,
) -> None:
    """Record a turn's end."""
    connection.execute(
        "UPDATE turns SET ended_wall = ?, status = ?, error = ? WHERE run_id = ? AND turn_id = ?",
        (wall, status, capped(error, ERROR_LIMIT), run_id, turn_id),
    )
    _see(connection, run_id, wall)


def end_run(
    connection: sqlite3.Connection,
    run_id: RunId,
    *,
    outcome: Outcome,
    ended_wall: float,
    thread_id: str | None,
) -> None:
    """Record a run's end. Its claim stays ``running`` where nothing has taken its place.

    What the run had come to is settled with it: a later start takes the claim up anew.
    """
    connection.execute("UPDATE claims SET outcome = NULL WHERE run_id = ?", (run_id,))
    connection.execute(
        _END_RUN,
        (
            ended_wall,
            ended_wall,
            outcome.kind,
            outcome.category,
            outcome.code,
            capped(outcome.message, ERROR_LIMIT),
            outcome.retryable,
            outcome.retry_at,
            outcome.stop_reason,
            thread_id,
            run_id,
        ),
    )


def prune(connection: sqlite3.Connection, workflow_id: str, ended_before_wall: float) -> None:
    """Delete ended runs older than that, with what hangs on them; claims and totals stay."""
    doomed = (
        "SELECT run_id FROM runs WHERE workflow_id = ? AND ended_wall < ? AND run_id NOT IN "
        "(SELECT run_id FROM claims WHERE run_id IS NOT NULL)"
    )
    for table in ("events", "turns", "processes", "runs"):
        connection.execute(
            f"DELETE FROM {table} WHERE run_id IN ({doomed})", (workflow_id, ended_before_wall)
        )


class EventRing:
    """Keeps the last ``keep`` events of each run by overwriting the oldest slot.

    Called in the writer's thread only. Counting in memory saves a query an event.
    """

    def __init__(self, workflow_id: str, *, keep: int) -> None:
        self._workflow_id = workflow_id
        self._keep = keep
        self._next: dict[str, int] = {}

    def insert(
        self,
        connection: sqlite3.Connection,
        events: Sequence[tuple[RunId, float, str, str | None]],
    ) -> None:
        """Write events ``(run id, wall, event, message)`` in their order."""
        rows = []
        for run_id, wall, event, message in events:
            seq = self._sequence(connection, run_id)
            rows.append((run_id, seq % self._keep, seq, self._workflow_id, wall, event, message))
        connection.executemany("INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def _sequence(self, connection: sqlite3.Connection, run_id: str) -> int:
        seq = self._next.get(run_id)
        if seq is None:
            if len(self._next) >= 4096:
                self._next.pop(next(iter(self._next)))
            query = "SELECT coalesce(max(seq) + 1, 0) FROM events WHERE run_id = ?"
            seq = connection.execute(query, (run_id,)).fetchone()[0]
        self._next[run_id] = seq + 1
        return seq


def _see(connection: sqlite3.Connection, run_id: RunId, wall: float) -> None:
    """Note that the run was alive at that time: how long it ran, should the daemon die."""
    connection.execute(
        "UPDATE runs SET seen_wall = max(seen_wall, ?) WHERE run_id = ?", (wall, run_id)
    )
