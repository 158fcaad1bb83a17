"""What a start does before anything is dispatched: end what an earlier daemon left, and remember.

The order matters. An orphan that is still at work holds its workspace and its thread, so it is
ended before its issue can be claimed again; only then does the scheduler hear of the claims.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from symphony.errors import LedgerError
from symphony.hosts.base import ProcessIdentity
from symphony.hosts.sweep import EndedProcess, end_trees
from symphony.ledger import Ledger
from symphony.model.clock import Instant
from symphony.model.run import Outcome, OutcomeKind, RunId
from symphony.observe.logs import get_logger
from symphony.scheduler.events import Restored

_log = get_logger(__name__)


async def recover(
    ledger: Ledger,
    *,
    instance: str,
    clock: Callable[[], Instant],
    sweep: Callable[..., Sequence[EndedProcess]] = end_trees,
) -> Restored:
    """End leftovers of this instance and return what the scheduler is to restore.

    A ledger that can't be read costs the memory of retries and blocks, not the start.

    Args:
        ledger: What the earlier daemon wrote.
        instance: Whose leftovers are ended.
        clock: Dates the end of its runs.
        sweep: Ends the leftovers of this machine; called in a thread, with the arguments of
            ``end_trees``.
    """
    try:
        contents = await ledger.load()
    except LedgerError as error:
        _log.error("Ledger could not be read; starting without memory", error=error.message)
        await _sweep(sweep, [], instance=instance, run_ids=())
        return Restored()
    for fault in contents.faults:
        _log.warning("Ledger record ignored", problem=fault)
    await _sweep(
        sweep,
        [process for run in contents.open_runs for process in run.processes],
        instance=instance,
        run_ids=tuple(run.run_id for run in contents.open_runs),
    )
    unfinished = {
        claim.ended.run_id
        for claim in contents.restored.claims
        if claim.ended is not None and claim.had_ended
    }
    for run in contents.open_runs:
        fields = {"run_id": run.run_id, "issue_identifier": run.issue_identifier}
        if run.run_id in unfinished:
            # The scheduler takes its end, as it would have been.
            _log.info("Run had ended when its daemon did; it is wound up", **fields)
            continue
        _log.info("Run ended with its daemon", **fields)
        await _close(ledger, run.run_id, ended_wall=clock().wall)
    return contents.restored


async def _close(ledger: Ledger, run_id: RunId, *, ended_wall: float) -> None:
    outcome = Outcome(
        kind=OutcomeKind.INTERRUPTED,
        category="daemon_ended",
        message="the daemon ended during this run",
    )
    try:
        await ledger.run_ended(run_id, outcome=outcome, ended_wall=ended_wall)
    except LedgerError as error:
        # A disk that is full must not keep the daemon from its work; the write is owed.
        _log.error("Ledger write failed", what=f"end {run_id}", error=error.message)


async def _sweep(
    sweep: Callable[..., Sequence[EndedProcess]],
    identities: list[ProcessIdentity],
    *,
    instance: str,
    run_ids: tuple[str, ...],
) -> None:
    ended = await asyncio.to_thread(sweep, identities, run_ids=run_ids, instance=instance)
    for process in ended:
        log = _log.info if process.gone else _log.error
        log(
            "Leftover process ended" if process.gone else "Leftover process could not be ended",
            pid=process.pid,
            run_id=process.run_id,
            command=process.command,
        )
