"""The one thread that writes the ledger: everything that waits goes into one transaction.

The asyncio side calls ``submit`` (and may await durability) or ``post_row`` (fire and forget).
The thread drains up to ``BATCH`` of them into one ``BEGIN IMMEDIATE`` transaction. A batch that
somebody waits for is synced to the disk; a batch of mere rows is not.

Invariant: a failing disk never blocks or ends the daemon. The waiting caller gets ``LedgerError``,
``degraded`` says why, and writes that have a key are kept and written, in order, before
anything else once the disk takes writes again; the newest write of a key replaces an older one.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from symphony.errors import LedgerError

BATCH = 1000
"""Most writes in one transaction: bounds how long one caller waits for another's rows."""
ROWS_LIMIT = 50_000
"""Rows that may wait; beyond it, rows are dropped and counted (the disk hangs)."""
OWED_LIMIT = 10_000
"""Failed writes with a key that are kept for later."""
RETRY_S = 5.0
"""How long the thread waits before it tries owed writes again unasked."""

LINGER_S = 0.05
"""How long rows that nobody waits for may gather before they are written."""

_OWN_FAULT = frozenset(
    {
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_MISUSE,
        sqlite3.SQLITE_RANGE,
        sqlite3.SQLITE_TOOBIG,
    }
)
"""SQLite's codes for a statement that is wrong itself; all others blame the file or the disk."""

Operation = Callable[[sqlite3.Connection], None]
RowSink = Callable[[sqlite3.Connection, Sequence[Any]], None]

_log = logging.getLogger("symphony.ledger")


@dataclass(slots=True)
class Part:
    """One operation of a write, and the key under which it is owed should it fail, or None."""

    operation: Operation
    key: str | None = None
    error: Exception | None = None


@dataclass(slots=True)
class _Write:
    parts: Sequence[Part]
    future: asyncio.Future[None]
    after_rows: bool = False
    error: Exception | None = None


class WriterThread:
    """Owns the connection from ``start`` until ``close``.

    Attributes:
        degraded: Why the last transaction failed, or None while writes succeed.
        dropped_rows: Rows that were lost to a failing or hanging disk.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        row_sink: RowSink,
        *,
        loop: asyncio.AbstractEventLoop,
        retry_s: float = RETRY_S,
    ) -> None:
        self.degraded: str | None = None
        self.dropped_rows = 0
        self._connection = connection
        self._row_sink = row_sink
        self._loop = loop
        self._retry_s = retry_s
        self._wake = threading.Condition()
        self._writes: deque[_Write] = deque()
        self._rows: deque[Any] = deque()
        self._owed: dict[str, Part] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    def submit(
        self, operation: Operation, *, key: str | None = None, after_rows: bool = False
    ) -> asyncio.Future[None]:
        """Queue a write of one operation; see ``submit_all``."""
        return self.submit_all([Part(operation, key)], after_rows=after_rows)

    def submit_all(
        self, parts: Sequence[Part], *, after_rows: bool = False
    ) -> asyncio.Future[None]:
        """Queue a write, whose parts share one transaction; the future resolves when it is durable.

        Operations run in the thread, and may run again after a failure. One that is refused for
        itself leaves the others be. Writes overtake rows, unless ``after_rows`` asks for all rows
        posted before.

        Raises (from the future):
            LedgerError: ``ledger_write_failed``. What has a key is tried again later.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        with self._wake:
            if self._closing:
                future.set_exception(LedgerError("ledger_write_failed", "the ledger is closed"))
                return future
            self._writes.append(_Write(parts, future, after_rows))
            self._wake.notify()
        return future

    def post_row(self, row: Any) -> None:
        """Queue a row for the row sink; never fails, is lost where the disk does not keep up."""
        with self._wake:
            if self._closing or len(self._rows) >= ROWS_LIMIT:
                self.dropped_rows += 1
                return
            self._rows.append(row)
            if len(self._rows) in (1, BATCH):
                self._wake.notify()

    def close(self) -> None:
        """Write what waits, empty the write-ahead log, close the connection. Blocks."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            writes, rows, closing = self._take()
            if writes or rows or self._owed:
                self._process(writes, rows)
            elif closing:
                break
            if closing and self.degraded is not None and not self._writes:
                break
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error:
            # The log file keeps what the main file has not taken; the next start reads both.
            _log.debug("could not empty the ledger's write-ahead log", exc_info=True)
        self._connection.close()

    def _take(self) -> tuple[list[_Write], list[Any], bool]:
        """Wait for work, for closing, or for the time to try owed writes again."""
        with self._wake:
            self._wake.wait_for(
                lambda: self._writes or self._rows or self._closing,
                self._retry_s if self._owed else None,
            )
            if self._rows:
                self._wake.wait_for(
                    lambda: self._writes or len(self._rows) >= BATCH or self._closing, LINGER_S
                )
            writes = [self._writes.popleft() for _ in range(min(BATCH, len(self._writes)))]
            everything = any(write.after_rows for write in writes)
            room = len(self._rows) if everything else BATCH - len(writes)
            rows = [self._rows.popleft() for _ in range(min(room, len(self._rows)))]
            return writes, rows, self._closing

    def _process(self, writes: list[_Write], rows: list[Any]) -> None:
        owed = list(self._owed.values())
        try:
            self._transact([*owed, *(part for write in writes for part in write.parts)], rows)
        except Exception as error:
            if not isinstance(error, (sqlite3.Error, OSError)):
                _log.exception("a transaction of the ledger failed unexpectedly")
            self._fail(writes, rows, error)
        else:
            self._owed.clear()
            for part in owed:
                if part.error is not None:
                    _log.error("an owed ledger write was refused: %s", part.error)
            if self.degraded is not None:
                _log.warning("ledger writes succeed again")
                self.degraded = None
        self._resolve(writes)

    def _transact(self, parts: Sequence[Part], rows: list[Any]) -> None:
        connection = self._connection
        connection.execute(f"PRAGMA synchronous={'FULL' if parts else 'NORMAL'}")
        connection.execute("BEGIN IMMEDIATE")
        try:
            for part in parts:
                self._apply(part)
            if rows:
                self._row_sink(connection, rows)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _apply(self, part: Part) -> None:
        """Run one operation; what is wrong with it alone fails it alone."""
        connection = self._connection
        part.error = None
        connection.execute("SAVEPOINT one")
        try:
            part.operation(connection)
        except Exception as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code is not None and code & 0xFF not in _OWN_FAULT:
                raise
            if not isinstance(error, sqlite3.Error):
                _log.exception("a ledger write has a fault of its own")
            part.error = error
            connection.execute("ROLLBACK TO one")
        connection.execute("RELEASE one")

    def _fail(self, writes: list[_Write], rows: list[Any], error: Exception) -> None:
        if self.degraded is None:
            _log.warning("ledger writes fail, the daemon goes on without them: %s", error)
        self.degraded = str(error) or type(error).__name__
        self.dropped_rows += len(rows)
        for write in writes:
            write.error = error
            for part in write.parts:
                if part.key is not None:
                    self._owed.pop(part.key, None)
                    self._owed[part.key] = part
        while len(self._owed) > OWED_LIMIT:
            self._owed.pop(next(iter(self._owed)))

    def _resolve(self, writes: list[_Write]) -> None:
        try:
            self._loop.call_soon_threadsafe(_settle, writes)
        except RuntimeError:
            _log.debug("the event loop ended before its ledger writes")


def _settle(writes: list[_Write]) -> None:
    for write in writes:
        if write.future.done():
            continue
        error = write.error or next((part.error for part in write.parts if part.error), None)
        if error is None:
            write.future.set_result(None)
        else:
            failure = LedgerError("ledger_write_failed", f"the ledger was not written: {error}")
            failure.__cause__ = error
            write.future.set_exception(failure)
