"""A start after a crash, on a disk that takes nothing."""

from __future__ import annotations

from symphony.engine.recovery import recover
from symphony.errors import LedgerError
from symphony.ledger.reading import LedgerContents, OpenRun
from symphony.model.clock import Instant
from symphony.model.issue import Issue, IssueId
from symphony.model.run import Outcome, OutcomeKind, RunId, StopReason
from symphony.model.usage import TokenUsage
from symphony.scheduler.events import Restored, RestoredClaim, RunEnded


class FullDisk:
    """A ledger that can be read and not written."""

    def __init__(self, *runs: str, claims: tuple[RestoredClaim, ...] = ()) -> None:
        self.refused: list[str] = []
        self._runs = runs
        self._claims = claims

    async def load(self) -> LedgerContents:
        return LedgerContents(
            restored=Restored(self._claims, seconds=7.0), open_runs=tuple(map(open_run, self._runs))
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


def left(name: str, outcome: Outcome) -> RestoredClaim:
    issue = Issue(id=IssueId(name), identifier=name, title=name, state="Todo", dispatchable=True)
    ended = RunEnded(RunId(name), outcome, usage=TokenUsage(), seconds=1.0)
    return RestoredClaim("running", issue, None, None, None, ended=ended)


async def test_a_run_that_had_an_outcome_is_left_to_the_scheduler():
    cut_off = Outcome(kind=OutcomeKind.CANCELLED, stop_reason=StopReason.SHUTDOWN)
    ledger = FullDisk(
        *("ended", "cut off", "at work"),
        claims=(left("ended", Outcome(kind=OutcomeKind.FAILED)), left("cut off", cut_off)),
    )
    swept: list[str] = []

    def sweep(_identities, *, run_ids, instance):
        swept.extend(run_ids)
        return []

    await recover(ledger, instance="i", clock=lambda: Instant(0, 0), sweep=sweep)
    # What is left of its processes is ended all the same.
    assert swept == ["ended", "cut off", "at work"]
    assert ledger.refused == ["cut off", "at work"]
