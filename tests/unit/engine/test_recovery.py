"""A start after a crash, on a disk that takes nothing."""

from __future__ import annotations

from symphony.engine.recovery import recover
from symphony.errors import LedgerError
from symphony.ledger.reading import LedgerContents, OpenRun
from symphony.model.clock import Instant
from symphony.model.issue import IssueId
from symphony.model.run import RunId
from symphony.scheduler.events import Restored


class FullDisk:
    """A ledger that can be read and not written."""

    def __init__(self, *runs: str) -> None:
        self.refused: list[str] = []
        self._runs = runs

    async def load(self) -> LedgerContents:
        return LedgerContents(
            restored=Restored(seconds=7.0), open_runs=tuple(map(open_run, self._runs))
        )

    async def run_ended(self, run_id: str, **_: object) -> None:
        self.refused.append(run_id)
        raise LedgerError("ledger_write_failed", "no space left on device")


def open_run(name: str) -> OpenRun:
    return OpenRun(
        run_id=RunId(name),
        issue_id=IssueId(name),
        issue_identifier=name,
        processes=(),
        workspace_path=None,
        host="local",
        thread_id=None,
        started_wall=0.0,
    )


async def test_a_daemon_starts_though_the_ends_of_old_runs_cannot_be_written():
    ledger = FullDisk("one", "two")
    swept: list[tuple[str, ...]] = []

    def sweep(_identities, *, run_ids, instance):
        swept.append((instance, *run_ids))
        return []

    restored = await recover(ledger, instance="i", clock=lambda: Instant(0, 0), sweep=sweep)
    assert restored.seconds == 7.0
    assert ledger.refused == ["one", "two"]
    assert swept == [("i", "one", "two")]
