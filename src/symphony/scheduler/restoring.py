"""From the rows of an earlier lifetime to the claims of this one.

A run that had an outcome when its daemon died is a run again until it is wound up, so that its end
comes to the scheduler like any other. One that had none is repeated.

Invariant: nothing that an operator ordered and nothing that waits for a person is lost by a
restart. The monotonic clock begins anew with each lifetime of the machine, so what remains of a
delay is measured by the ledger and counted from now. Neighbours: ``ledger.reading`` makes the rows,
``step`` puts the claims into the state.
"""

from __future__ import annotations

from symphony.model.clock import Instant
from symphony.model.run import RetryKind, RunSpec, StopReason

from .blocks import STOPPED
from .claims import Blocked, RetryQueued, Running
from .events import RestoredClaim, RestoredPark
from .state import Park


def run_again(restored: RestoredClaim, now: Instant, scope: int) -> Running:
    """Return the claim of a run that had ended and was being wound up: it is wound up again."""
    ended = restored.ended
    assert ended is not None
    spec = RunSpec(
        run_id=ended.run_id,
        issue=restored.issue,
        attempt=restored.attempt,
        retry_kind=restored.retry_kind,
        host=ended.host,
        thread_id=ended.thread_id,
        previous_error=restored.error,
        failures=restored.failures or 0,
        idle=ended.idle,
        reply=restored.reply,
    )
    return Running(
        spec=spec,
        issue=restored.issue,
        started_mono=now.mono - ended.seconds,
        started_wall=restored.since_wall,
        failures=spec.failures,
        scope=scope,
        stopping=None if restored.stopped is None else StopReason.OPERATOR,
        workspace_path=ended.workspace_path,
    )


def claim_again(restored: RestoredClaim, now: Instant) -> RetryQueued | Blocked:
    """Return the claim of an earlier lifetime; a run that it left becomes a retry that is due.

    A run that an operator had stopped is not taken up again: it is blocked, as it would have been.
    """
    if restored.kind == "running" and restored.stopped is not None:
        return _blocked(restored, STOPPED, restored.stopped, since_wall=now.wall, now=now)
    if restored.kind == "blocked":
        return _blocked(
            restored,
            restored.blocked_category or "blocked",
            restored.error or "blocked",
            since_wall=restored.since_wall,
            now=now,
        )
    recovers = restored.kind == "running"
    kind = RetryKind.RECOVERY if recovers else restored.retry_kind or RetryKind.FAILURE
    failures = restored.failures
    if failures is None:
        failed = restored.retry_kind in (RetryKind.FAILURE, RetryKind.RECOVERY)
        failures = (restored.attempt or 0) if failed else 0
    delay_s = 0.0 if recovers else restored.delay_s or 0.0
    return RetryQueued(
        issue=restored.issue,
        attempt=restored.attempt,
        retry_kind=kind,
        failures=failures,
        due_mono=now.mono + delay_s,
        due_wall=now.wall_after(delay_s),
        error=restored.error,
        category=None if recovers else restored.blocked_category,
        thread_id=restored.thread_id,
        host=restored.host,
        workspace_path=restored.workspace_path,
        idle=restored.idle,
        reply=restored.reply,
    )


def park_again(restored: RestoredPark | None, now: Instant) -> Park | None:
    """Return what remains of a wait for a usage limit's reset; a step ends one that is over."""
    if restored is None:
        return None
    delay_s = max(0.0, restored.delay_s)
    return Park(now.mono + delay_s, now.wall_after(delay_s), restored.reason)


def _blocked(
    restored: RestoredClaim, category: str, error: str, *, since_wall: float, now: Instant
) -> Blocked:
    delay_s = restored.delay_s if restored.kind == "blocked" else None
    return Blocked(
        issue=restored.issue,
        category=category,
        error=error,
        since_wall=since_wall,
        attempt=restored.attempt,
        retry_kind=restored.retry_kind,
        thread_id=restored.thread_id,
        host=restored.host,
        workspace_path=restored.workspace_path,
        crossed=restored.crossed,
        until_mono=None if delay_s is None else now.mono + delay_s,
        until_wall=None if delay_s is None else now.wall_after(delay_s),
        question=restored.question,
        reply=restored.reply,
        seen=restored.seen,
        read_mono=now.mono,
    )
