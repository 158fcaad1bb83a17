"""The rows of the failure breaker: what was counted of a class, and until when it is open.

Role: writes for ``writer``'s transaction and the read of a start, as ``operations`` and ``reading``
do for the other tables. Invariant: a row that can't be understood is reported and left out; it
costs a count, never the start.
"""

from __future__ import annotations

import json
import sqlite3

from symphony.model.failure import FailureClass
from symphony.model.issue import IssueId
from symphony.scheduler.events import BreakerRecord, Failure

from .codec import storable


def save(connection: sqlite3.Connection, workflow_id: str, record: BreakerRecord) -> None:
    """Set the row of a class."""
    failures = [[storable(one.issue_id), one.wall, one.seconds] for one in record.failures]
    connection.execute(
        "INSERT OR REPLACE INTO breakers VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            workflow_id,
            str(record.failure_class),
            json.dumps(failures),
            record.count,
            record.issues,
            record.since_wall,
            record.until_wall,
            record.cooldown_s,
        ),
    )


def drop(connection: sqlite3.Connection, workflow_id: str, failure_class: FailureClass) -> None:
    """Remove the row of a class, if there is one."""
    connection.execute(
        "DELETE FROM breakers WHERE workflow_id = ? AND failure_class = ?",
        (workflow_id, str(failure_class)),
    )


def load(
    connection: sqlite3.Connection, workflow_id: str, faults: list[str]
) -> tuple[BreakerRecord, ...]:
    """Return all rows; a sentence for each that can't be understood is added to ``faults``."""
    query = """
        SELECT failure_class, failures, count, issues, since_wall, until_wall, cooldown_s
        FROM breakers WHERE workflow_id = ? ORDER BY failure_class
    """
    records = []
    for name, failures, *rest in connection.execute(query, (workflow_id,)):
        try:
            record = BreakerRecord(
                failure_class=FailureClass(name),
                # The monotonic clock of the daemon that wrote it means nothing here.
                failures=tuple(
                    # Rows of before have no seconds.
                    Failure(IssueId(issue_id), 0.0, float(wall), *map(float, more))
                    for issue_id, wall, *more in json.loads(failures)
                ),
                count=int(rest[0]),
                issues=int(rest[1]),
                since_wall=float(rest[2]),
                until_wall=None if rest[3] is None else float(rest[3]),
                cooldown_s=float(rest[4]),
            )
        except (ValueError, TypeError) as error:
            faults.append(f"failures of class {name} are forgotten: {error}")
        else:
            records.append(record)
    return tuple(records)
