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

from symphony.cli.usage import Whole
from symphony.config.loading import workflow_id
from symphony.config.state_dir import locate
from symphony.errors import LedgerError

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
    path = _ledger(workflow, instance)
    with _reading(path) as connection:
        faults = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        counts = {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in _known(connection)
        }
    if faults != ["ok"]:
        raise LedgerError("ledger_damaged", f"{path} is damaged: {'; '.join(faults[:5])}")
    listed = ", ".join(f"{count} {table}" for table, count in counts.items())
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
        print("symphony: --older-than-days: give 0 or more", file=sys.stderr)
        return 2
    path = _ledger(workflow, instance)
    owner = workflow_id(workflow.expanduser())
    before = time.time() - older_than_days * 86_400.0
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
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as found:
            found.row_factory = sqlite3.Row
            yield found
    except sqlite3.DatabaseError as error:
        raise LedgerError("ledger_damaged", f"{path}: {error}") from error
