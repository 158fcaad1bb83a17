"""Reports what live runs spend, to the scheduler and to the ledger, at most once a second.

Role: a run that has used tokens marks itself here, which costs the same however many runs there
are; all that are marked go out together, as one event and one transaction. Time passes without
tokens too, so every live run is reported at a slower pace as well.

Invariant: what a daemon that is killed had counted and not reported is at most what its runs used
within ``REPORT_S`` (and the milliseconds of the write), and ``REPORT_ALL_S`` of run time.
Neighbours: the narrator calls ``touch``, ``scheduler.budget`` keeps the books.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from symphony.errors import LedgerError
from symphony.ledger import Ledger
from symphony.ledger.spending import RunSpend
from symphony.model.clock import Instant
from symphony.model.run import RunId, RunProgress
from symphony.scheduler.events import Event, SpendReported

REPORT_S = 1.0
"""Reports are at least this far apart."""

REPORT_ALL_S = 10.0
"""Every live run is reported at least this often, whether it has used tokens or not."""


class SpendReporter:
    """Gathers what runs have spent.

    Args:
        progress: Live records of the runs.
        post: The mailbox.
        ledger: Where spend becomes durable.
        clock: Reads both clocks.
        all_s: Every live run is reported at least this often.
    """

    def __init__(
        self,
        *,
        progress: Mapping[RunId, RunProgress],
        post: Callable[[Event], None],
        ledger: Ledger,
        clock: Callable[[], Instant],
        all_s: float = REPORT_ALL_S,
    ) -> None:
        self._progress = progress
        self._post = post
        self._ledger = ledger
        self._clock = clock
        self._all_s = all_s
        # A map for its order: what is reported follows from what happened alone.
        self._touched: dict[RunId, None] = {}
        self._wake = asyncio.Event()

    def touch(self, run_id: RunId) -> None:
        """Note that a run has spent something."""
        self._touched[run_id] = None
        self._wake.set()

    async def run(self) -> None:
        """Report until cancelled."""
        loop = asyncio.get_running_loop()
        all_due = loop.time() + self._all_s
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(all_due):
                    await self._wake.wait()
            if loop.time() >= all_due:
                self._touched.update(dict.fromkeys(self._progress))
                all_due = loop.time() + self._all_s
            await self._report()
            await asyncio.sleep(REPORT_S)

    async def _report(self) -> None:
        self._wake.clear()
        touched, self._touched = self._touched, {}
        records = [self._progress[run_id] for run_id in touched if run_id in self._progress]
        if not records:
            return
        now = self._clock()
        spends = [(record.run_id, record.spend(now.mono)) for record in records]
        self._post(SpendReported(spends))
        rows = [
            RunSpend(
                run_id=record.run_id,
                usage=record.usage,
                seconds=now.mono - record.started_mono,
                spend=spend,
                model=record.model,
            )
            for record, (_, spend) in zip(records, spends, strict=True)
        ]
        try:
            await self._ledger.runs_spent(rows)
        except LedgerError:
            # Each record is of all so far: the next one makes up for it, and the ledger itself
            # says that it is degraded.
            self._touched.update(dict.fromkeys(run_id for run_id, _ in spends))
