"""``symphony db check | export | prune``: the ledger of a workflow's daemon, running or not."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter

from symphony.cli.usage import Whole, log_to_stderr
from symphony.config.loading import workflow_id
from symphony.config.state_dir import locate
from symphony.errors import LedgerError, UsageError

Workflow = Annotated[
    Path, Parameter(name=("--workflow", "-w"), help="Whose ledger: the path of its workflow file.")
]
Instance = Annotated[str | None, Parameter(help="Name of the state directory.")]
_DEFAULT = Path("WORKFLOW.md")
_TABLES = (
    "runs",
    "turns",
    "events",
    "processes",
    "claims",
    "holds",
    "breakers",
    "overrides",
    "parks",
    "raises",
    "totals",
)

app = cyclopts.App(name="db", help="Check, export or prune a daemon's ledger.")


@app.command
def check(*, workflow: Workflow = _DEFAULT, instance: Instance = None) -> int:
    """Check the ledger's file and say what it holds."""
    from symphony.ledger import schema

    path = _ledger(workflow, instance)
    with _reading(path) as connection:
        _refuse_damage(connection, path, whole=True)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        counts = {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in _known(connection)
        }
    listed = ", ".join(f"{count} {table}" for table, count in counts.items())
    newest = len(schema.MIGRATIONS)
    if version > newest:
        print(
            f"{path}: well, but of a newer Symphony (version {version}, this one knows {newest}), "
            f"so that no daemon of this one starts with it; upgrade Symphony; {listed}"
        )
        return 1
    print(f"{path}: well, version {version}; {listed}")
    return 0


@app.command
def export(*, workflow: Workflow = _DEFAULT, instance: Instance = None) -> int:
    """Print every row as one JSON object a line, with the name of its table."""
    path = _ledger(workflow, instance)
    owner = workflow_id(workflow.expanduser())
    with _reading(path) as connection:
        for table in _known(connection):
            for row in _rows(connection, table, owner):
                json.dump({"table": table, **row}, sys.stdout, ensure_ascii=False)
                print()
    return 0


@app.command
def prune(
    *,
    older_than_days: Annotated[Whole, Parameter(help="Forget runs that ended earlier.")],
    workflow: Workflow = _DEFAULT,
    instance: Instance = None,
) -> int:
    """Forget ended runs with their turns and events; totals stay."""
    if older_than_days < 0:
        raise UsageError(f"--older-than-days {older_than_days}: give 0 or more")
    log_to_stderr()
    path = _ledger(workflow, instance)
    owner = workflow_id(workflow.expanduser())
    before = time.time() - older_than_days * 86_400.0
    # Opening for writing would set a damaged file aside, maybe below a daemon that runs.
    with _reading(path) as connection:
        _refuse_damage(connection, path, whole=False)
    forgotten = asyncio.run(_prune(path, owner, before))
    print(f"{path}: {forgotten} runs forgotten")
    return 0


async def _prune(path: Path, owner: str, before_wall: float) -> int:
    from symphony.ledger import Ledger
    from symphony.service.options import read_clock

    ledger = await Ledger.open(path, workflow_id=owner, clock=read_clock)
    try:
        with _reading(path) as connection:
            count = _count_runs(connection, owner)
            await ledger.prune(ended_before_wall=before_wall)
            return count - _count_runs(connection, owner)
    finally:
        await ledger.aclose()


def _refuse_damage(connection: sqlite3.Connection, path: Path, *, whole: bool) -> None:
    from symphony.ledger.schema import faults_of

    faults = faults_of(connection, whole=whole)
    if faults:
        raise LedgerError(
            "ledger_damaged",
            f"{path} is damaged: {'; '.join(faults)}; the daemon's next start sets it aside and "
            "begins a new one",
        )


def _count_runs(connection: sqlite3.Connection, owner: str) -> int:
    found = connection.execute("SELECT count(*) FROM runs WHERE workflow_id = ?", (owner,))
    return int(found.fetchone()[0])


def _known(connection: sqlite3.Connection) -> list[str]:
    """Return our tables in this file; one of an older Symphony lacks the newest."""
    found = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
    return [table for table in _TABLES if table in found]


def _rows(connection: sqlite3.Connection, table: str, owner: str) -> Iterator[dict[str, Any]]:
    for row in connection.execute(f"SELECT * FROM {table} WHERE workflow_id = ?", (owner,)):
        yield dict(row)


def _ledger(workflow: Path, instance: str | None) -> Path:
    path = locate(workflow.expanduser(), instance=instance).ledger
    if not path.exists():
        raise LedgerError("ledger_missing", f"there is no ledger of {workflow}: {path}")
    return path


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the file for reading; damage is told as such."""
    try:
        with closing(_connected(path)) as found:
            found.row_factory = sqlite3.Row
            yield found
    except sqlite3.DatabaseError as error:
        raise LedgerError("ledger_damaged", f"{path}: {error}") from error


def _connected(path: Path) -> sqlite3.Connection:
    """Connect for reading, also where nothing can be written beside the file."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    found = sqlite3.connect(uri, uri=True)
    try:
        found.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError as error:
        found.close()
        # A file in WAL mode wants a companion; one that is at rest can be read without.
        log = path.with_name(f"{path.name}-wal")
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CANTOPEN or log.exists():
            raise
        return sqlite3.connect(f"{uri}&immutable=1", uri=True)
    return found
