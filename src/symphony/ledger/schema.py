"""The tables, their migrations, and how a ledger file is opened.

Every row carries its workflow's id. ``claims`` holds one row an issue: what the daemon holds it
for, and for a running claim the one current run. ``runs`` is the history that claims point into;
``processes``, ``turns`` and ``events`` hang on a run. ``totals`` are sums an issue and day (of
``budget.day_timezone``), so that totals and budgets outlive the pruning of runs. ``holds`` are what
operators paused, the empty scope being all work; ``raises`` are what they added to limits.
``breakers`` are the failures that the breaker counts, a row a class, with the end of its cool-down
where it is open. ``parks`` holds until when a usage limit keeps all work back, ``overrides`` until
when operators have lifted the active hours. In ``claims``,
``question``, ``reply`` and ``seen`` are JSON (``codec``), ``stopped`` is the reason of an
operator's stop that a live run has not come to an end of yet, and ``outcome`` (JSON) what a run has
come to that is being wound up. A later need is a further migration: scripts are only ever appended.

A damaged file is set aside, never repaired and never deleted; a file of a newer Symphony is refused
untouched, because starting without its claims could put two agents on one issue.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from symphony.errors import LedgerError

BUSY_TIMEOUT_S = 5.0
_CHECK_LIMIT_BYTES = 256 * 1024 * 1024
_TABLES = frozenset(
    {
        "claims",
        "runs",
        "processes",
        "turns",
        "events",
        "totals",
        "holds",
        "breakers",
        "raises",
        "parks",
        "overrides",
    }
)
_DAMAGE = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})

_V1 = """
CREATE TABLE claims (
  workflow_id TEXT NOT NULL,
  issue_id TEXT NOT NULL,
  identifier TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('running', 'retry', 'blocked')),
  run_id TEXT,
  issue TEXT NOT NULL,
  attempt INTEGER,
  retry_kind TEXT,
  error TEXT,
  due_wall REAL,
  thread_id TEXT,
  host TEXT NOT NULL,
  workspace_path TEXT,
  blocked_category TEXT,
  since_wall REAL NOT NULL,
  saved_wall REAL NOT NULL,
  PRIMARY KEY (workflow_id, issue_id),
  CHECK ((kind = 'running') = (run_id IS NOT NULL))
) WITHOUT ROWID;

CREATE TABLE runs (
  run_id TEXT PRIMARY KEY,
  workflow_id TEXT NOT NULL,
  issue_id TEXT NOT NULL,
  identifier TEXT NOT NULL,
  title TEXT NOT NULL,
  url TEXT,
  state TEXT NOT NULL,
  attempt INTEGER,
  retry_kind TEXT,
  host TEXT NOT NULL,
  workspace_path TEXT,
  thread_id TEXT,
  started_wall REAL NOT NULL,
  seen_wall REAL NOT NULL,
  ended_wall REAL,
  outcome TEXT,
  category TEXT,
  message TEXT,
  retryable INTEGER,
  retry_at REAL,
  stop_reason TEXT,
  seconds REAL NOT NULL DEFAULT 0,
  input_tokens INTEGER NOT NULL DEFAULT 0,
  output_tokens INTEGER NOT NULL DEFAULT 0,
  total_tokens INTEGER NOT NULL DEFAULT 0,
  cached_input_tokens INTEGER NOT NULL DEFAULT 0,
  reasoning_output_tokens INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX runs_by_issue ON runs (workflow_id, identifier, started_wall);
CREATE INDEX runs_open ON runs (workflow_id, issue_id) WHERE ended_wall IS NULL;
CREATE INDEX runs_ended ON runs (workflow_id, ended_wall) WHERE ended_wall IS NOT NULL;

CREATE TABLE processes (
  run_id TEXT NOT NULL,
  pid INTEGER NOT NULL,
  start_ticks INTEGER NOT NULL,
  boot_id TEXT NOT NULL,
  workflow_id TEXT NOT NULL,
  recorded_wall REAL NOT NULL,
  PRIMARY KEY (run_id, pid, start_ticks, boot_id)
) WITHOUT ROWID;

CREATE TABLE turns (
  run_id TEXT NOT NULL,
  turn_id TEXT NOT NULL,
  number INTEGER NOT NULL,
  workflow_id TEXT NOT NULL,
  thread_id TEXT NOT NULL,
  started_wall REAL NOT NULL,
  ended_wall REAL,
  status TEXT,
  error TEXT,
  PRIMARY KEY (run_id, turn_id)
) WITHOUT ROWID;

CREATE TABLE events (
  run_id TEXT NOT NULL,
  slot INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  workflow_id TEXT NOT NULL,
  wall REAL NOT NULL,
  event TEXT NOT NULL,
  message TEXT,
  PRIMARY KEY (run_id, slot)
) WITHOUT ROWID;

CREATE TABLE totals (
  workflow_id TEXT NOT NULL,
  issue_id TEXT NOT NULL,
  day TEXT NOT NULL,
  runs INTEGER NOT NULL DEFAULT 0,
  seconds REAL NOT NULL DEFAULT 0,
  input_tokens INTEGER NOT NULL DEFAULT 0,
  output_tokens INTEGER NOT NULL DEFAULT 0,
  total_tokens INTEGER NOT NULL DEFAULT 0,
  cached_input_tokens INTEGER NOT NULL DEFAULT 0,
  reasoning_output_tokens INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (workflow_id, issue_id, day)
) WITHOUT ROWID;
"""

_V2 = """
CREATE TABLE holds (
  workflow_id TEXT NOT NULL,
  scope TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('pause', 'drain')),
  reason TEXT NOT NULL,
  ordered_by TEXT NOT NULL,
  since_wall REAL NOT NULL,
  PRIMARY KEY (workflow_id, scope)
) WITHOUT ROWID;
"""

_V3 = "ALTER TABLE claims ADD COLUMN failures INTEGER;"

_V4 = """
CREATE TABLE breakers (
  workflow_id TEXT NOT NULL,
  failure_class TEXT NOT NULL,
  failures TEXT NOT NULL,
  count INTEGER NOT NULL,
  issues INTEGER NOT NULL,
  since_wall REAL NOT NULL,
  until_wall REAL,
  cooldown_s REAL NOT NULL,
  PRIMARY KEY (workflow_id, failure_class)
) WITHOUT ROWID;
"""

# What earlier versions counted has no price; its run time had no waiting in it.
_V5 = """
ALTER TABLE runs ADD COLUMN model TEXT;
ALTER TABLE runs ADD COLUMN micro_usd INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN unpriced_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN wall_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE totals ADD COLUMN identifier TEXT;
ALTER TABLE totals ADD COLUMN micro_usd INTEGER NOT NULL DEFAULT 0;
ALTER TABLE totals ADD COLUMN unpriced_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE totals ADD COLUMN wall_ms INTEGER NOT NULL DEFAULT 0;
UPDATE runs SET unpriced_tokens = total_tokens, wall_ms = CAST(seconds * 1000 AS INTEGER);
UPDATE totals SET unpriced_tokens = total_tokens, wall_ms = CAST(seconds * 1000 AS INTEGER),
  identifier = (SELECT max(identifier) FROM runs
    WHERE runs.workflow_id = totals.workflow_id AND runs.issue_id = totals.issue_id);
ALTER TABLE claims ADD COLUMN crossed TEXT;
ALTER TABLE claims ADD COLUMN idle_turns INTEGER;
ALTER TABLE claims ADD COLUMN idle_mark TEXT;
CREATE TABLE raises (
  workflow_id TEXT NOT NULL,
  scope TEXT NOT NULL,
  tokens INTEGER NOT NULL,
  micro_usd INTEGER NOT NULL,
  wall_ms INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  ordered_by TEXT NOT NULL,
  since_wall REAL NOT NULL,
  PRIMARY KEY (workflow_id, scope)
) WITHOUT ROWID;
"""

_V6 = "ALTER TABLE runs ADD COLUMN code TEXT;"

_V7 = """
ALTER TABLE claims ADD COLUMN question TEXT;
ALTER TABLE claims ADD COLUMN reply TEXT;
ALTER TABLE claims ADD COLUMN seen TEXT;
ALTER TABLE claims ADD COLUMN stopped TEXT;

CREATE TABLE parks (
  workflow_id TEXT PRIMARY KEY,
  until_wall REAL NOT NULL,
  reason TEXT NOT NULL,
  saved_wall REAL NOT NULL
) WITHOUT ROWID;
"""

_V8 = """
CREATE TABLE overrides (
  workflow_id TEXT PRIMARY KEY,
  since_wall REAL NOT NULL,
  until_wall REAL NOT NULL
) WITHOUT ROWID;
"""

_V9 = "ALTER TABLE claims ADD COLUMN outcome TEXT;"

MIGRATIONS: tuple[str, ...] = (_V1, _V2, _V3, _V4, _V5, _V6, _V7, _V8, _V9)
"""Script ``n`` (from 0) takes a file from ``user_version`` n to n + 1."""


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """A ledger file that is ready for the writer.

    Attributes:
        connection: Usable from any one thread at a time.
        notice: What was set aside or backed up and why, or None where nothing happened.
    """

    connection: sqlite3.Connection
    notice: str | None


def open_file(
    path: Path, *, now_wall: float, migrations: tuple[str, ...] = MIGRATIONS
) -> OpenedFile:
    """Open or create the ledger at ``path`` and bring it to the newest version.

    Blocks on the disk; call it in a thread.

    Raises:
        LedgerError: ``ledger_too_new`` for a newer file, ``ledger_write_failed`` where the
            directory or disk can't be written. A damaged file is no error.
    """
    stamp = datetime.fromtimestamp(now_wall, UTC).strftime("%Y%m%dT%H%M%SZ")
    notice = _set_aside_leftovers(path, stamp)
    try:
        try:
            return _open(path, stamp, migrations, notice)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            aside = set_aside(path, stamp)
            notice = f"the ledger was damaged ({error}); it is kept as {aside}, a new one is used"
            return _open(path, stamp, migrations, notice)
    except (sqlite3.Error, OSError) as error:
        raise LedgerError(
            "ledger_write_failed",
            f"can't open the ledger {path}: {error}; make its directory writable and check that "
            "the disk has room",
        ) from error


def _is_damage(error: sqlite3.Error) -> bool:
    """Tell a damaged file from a full disk, a missing right or a busy file."""
    if isinstance(error, _DamagedError):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DAMAGE


class _DamagedError(sqlite3.DatabaseError):
    """SQLite reads the file, but what it holds is no ledger or has broken pages."""


def _open(path: Path, stamp: str, migrations: tuple[str, ...], notice: str | None) -> OpenedFile:
    # SQLite gives its -wal and -shm files the rights of the main file: private from the start.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
        connection.execute("PRAGMA journal_size_limit=16777216").fetchall()
        backup = _bring_up_to_date(connection, path, stamp, migrations)
        _check(connection, path, migrations)
    except BaseException:
        connection.close()
        raise
    return OpenedFile(connection, notice or backup)


def _bring_up_to_date(
    connection: sqlite3.Connection, path: Path, stamp: str, migrations: tuple[str, ...]
) -> str | None:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(migrations):
        raise LedgerError(
            "ledger_too_new",
            f"the ledger {path} was written by a newer Symphony (its version is {version}, this "
            f"one knows {len(migrations)}); upgrade Symphony, or move the file away to start "
            "without its claims and history",
        )
    if version == len(migrations):
        return None
    notice = None
    if version > 0:
        backup = path.with_name(f"{path.name}.before-v{len(migrations)}-{stamp}")
        with closing(sqlite3.connect(backup)) as copy:
            connection.backup(copy)
        backup.chmod(0o600)
        notice = f"the ledger went from version {version} to {len(migrations)}; backup: {backup}"
    elif connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        raise _DamagedError("it holds tables but no version")
    connection.execute("BEGIN IMMEDIATE")
    try:
        for script in migrations[version:]:
            for statement in _statements(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return notice


def _statements(script: str) -> list[str]:
    """Split a script into statements; ``executescript`` would commit before it starts."""
    found: list[str] = []
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            found.append(pending)
            pending = ""
    return found


def _check(connection: sqlite3.Connection, path: Path, migrations: tuple[str, ...]) -> None:
    """Raise where tables are missing or pages are broken (a file of sane size is read whole)."""
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
    if migrations is MIGRATIONS:
        missing = _TABLES - tables
        if missing:
            raise _DamagedError(f"it has no table {', '.join(sorted(missing))}")
    if path.stat().st_size <= _CHECK_LIMIT_BYTES:
        checks = ["PRAGMA quick_check(1)"]
    else:  # what a restart reads; reading a large history whole would delay the start
        checks = [f"PRAGMA quick_check({table})" for table in ("claims", "totals")]
    for check in checks:
        verdict = connection.execute(check).fetchone()[0]
        if verdict != "ok":
            raise _DamagedError(str(verdict))


def faults_of(connection: sqlite3.Connection, *, whole: bool) -> list[str]:
    """Say why the next start would set aside the file behind a connection, or fill it anew.

    Args:
        connection: A connection that may be for reading only.
        whole: Compare indices with their tables too, which takes longer.

    Returns:
        A sentence's end for each fault; none where the file is a sound ledger of this or an older
        Symphony, or one of a newer Symphony whose pages are sound.

    Raises:
        sqlite3.DatabaseError: It can't be read at all.
    """
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if not tables:
        return ["it is empty"]
    if version == 0:
        return ["it holds tables but no version: it is no ledger"]
    if version == len(MIGRATIONS) and (missing := _TABLES - tables):
        return [f"it has no table {', '.join(sorted(missing))}"]
    check = "integrity_check" if whole else "quick_check"
    found = [str(row[0]) for row in connection.execute(f"PRAGMA {check}(5)")]
    return [] if found == ["ok"] else found


def _set_aside_leftovers(path: Path, stamp: str) -> str | None:
    """Move a write-ahead log away that has lost its main file, before SQLite deletes it."""
    exists = path.exists()
    if exists and path.stat().st_size > 0:
        return None
    if path.with_name(path.name + "-wal").exists():
        aside = set_aside(path, stamp)
        return f"the ledger {path} was missing or empty; what was left of it is kept as {aside}*"
    return f"the ledger {path} was empty; it is filled anew" if exists else None


def set_aside(path: Path, stamp: str) -> Path:
    """Rename a damaged ledger and its companions; return the new path of the main file.

    The companions keep their suffix, so that SQLite's own tools still read the set as one.
    """
    aside = _free_name(path.with_name(f"{path.name}.damaged-{stamp}"), Path.exists)
    for suffix in ("", "-wal", "-shm"):
        source = path.with_name(path.name + suffix)
        if source.exists():
            source.rename(aside.with_name(aside.name + suffix))
    return aside


def _free_name(wanted: Path, taken: Callable[[Path], bool]) -> Path:
    """Return ``wanted``, or it with a number where something has that name already."""
    candidate, number = wanted, 2
    while taken(candidate) or taken(candidate.with_name(candidate.name + "-wal")):
        candidate, number = wanted.with_name(f"{wanted.name}-{number}"), number + 1
    return candidate
