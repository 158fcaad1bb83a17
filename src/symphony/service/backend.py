"""What the web surface may ask of the engine: the last snapshot, a refresh, an issue's history."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from symphony.errors import LedgerError
from symphony.hosts.lineage import descends_from
from symphony.ledger import Ledger
from symphony.model.clock import Instant
from symphony.model.failure import FailureClass
from symphony.model.question import Answer
from symphony.model.spend import NO_RAISE, Raise
from symphony.observe.bus import SnapshotBus
from symphony.scheduler.books import budgets_row
from symphony.scheduler.budget import refused_raise, retry_is_vain
from symphony.scheduler.budget_rows import BudgetsRow
from symphony.scheduler.controls import known
from symphony.scheduler.eligibility import Gate
from symphony.scheduler.events import ControlAction, ControlRequested, Event, RefreshRequested
from symphony.scheduler.publish import explain
from symphony.scheduler.snapshot import Snapshot
from symphony.scheduler.state import SchedulerState, refresh_coalesced
from symphony.scheduler.unblocking import unanswerable
from symphony.web.backend import RefreshReceipt, Refusal

DURABLE_LIMIT_S = 5.0
"""How long an order waits for the disk before it is told to be taken all the same."""


class EngineBackend:
    """Serves the web surface from the bus, the mailbox and the ledger; waits for no tracker.

    Args:
        caught_up: Returns once what was posted has been taken by the scheduler.
        workspace_path: Where the workspace of an identifier lies or would lie.
        supervisor_pid: The ancestor of all processes of runs, or None while there is none.
    """

    def __init__(
        self,
        *,
        bus: SnapshotBus,
        state: SchedulerState,
        ledger: Ledger,
        post: Callable[[Event], None],
        caught_up: Callable[[], Awaitable[None]],
        clock: Callable[[], Instant],
        workspace_path: Callable[[str], str | None],
        supervisor_pid: Callable[[], int | None],
    ) -> None:
        self._bus = bus
        self._state = state
        self._ledger = ledger
        self._post = post
        self._caught_up = caught_up
        self._clock = clock
        self._workspace_path = workspace_path
        self._supervisor_pid = supervisor_pid

    def snapshot(self) -> Snapshot | None:
        """Return the last published snapshot."""
        return self._bus.latest

    def subscribe(self) -> AsyncIterator[Snapshot]:
        """Iterate over published snapshots, newest only."""
        return self._bus.subscribe()

    def request_refresh(self, source: str = "api") -> RefreshReceipt | None:
        """Ask for a poll now; None once the daemon is stopping."""
        state = self._state
        if state.shutting_down:
            return None
        now = self._clock()
        coalesced = refresh_coalesced(state, now)
        self._post(RefreshRequested(source))
        return RefreshReceipt(coalesced, now.wall)

    def control(
        self,
        action: str,
        identifier: str | None,
        reason: str,
        *,
        failure_class: FailureClass | None = None,
        amounts: Raise = NO_RAISE,
        for_s: float = 0.0,
    ) -> bool | Refusal | None:
        """Give an order to the scheduler; see ``web.backend.Backend``."""
        state, order = self._state, ControlAction(action)
        if state.shutting_down:
            return None
        # A pause may come before the issue does; the other orders need something to act on.
        if order is ControlAction.RAISE:
            refused = refused_raise(state.books, identifier, amounts)
            if refused is not None:
                return Refusal("budget_not_raised", refused)
            self._post(ControlRequested(order, identifier, reason, amounts=amounts))
            return True
        if order is ControlAction.RETRY and identifier is not None:
            why = retry_is_vain(state, identifier)
            if why is not None:
                return Refusal("budget_spent", why)
        needs_it = identifier is not None and order is not ControlAction.PAUSE
        if needs_it and not known(state, identifier or ""):
            return False
        self._post(
            ControlRequested(order, identifier, reason, failure_class=failure_class, for_s=for_s)
        )
        return True

    def budget(self) -> BudgetsRow | None:
        """Return what all work has cost, by issue; None before the ledger has been read."""
        return budgets_row(self._state.books) if self._state.started else None

    def answer(self, identifier: str, answer: Answer) -> str | None:
        """Give an answer to the scheduler; see ``web.backend.Backend``."""
        problem = unanswerable(self._state, identifier, answer)
        if problem is None:
            order = ControlRequested(ControlAction.ANSWER, identifier, answer=answer)
            self._post(order)
        return problem

    async def settled(self) -> bool:
        """Wait until orders are carried out and durable; see ``web.backend.Backend``."""
        try:
            async with asyncio.timeout(DURABLE_LIMIT_S):
                await self._caught_up()
                await self._ledger.flush()
        except (TimeoutError, LedgerError):
            return False
        return True

    def is_agent(self, pid: int) -> bool:
        """Tell whether a process belongs to a run."""
        supervisor = self._supervisor_pid()
        return supervisor is not None and descends_from(pid, supervisor)

    def explain(self, identifier: str) -> list[Gate] | None:
        """Return every gate's answer for an issue that is claimed or waits."""
        state = self._state
        claimed = (claim.issue for claim in state.claims)
        waiting = (issue for issue, _ in state.waiting)
        for issue in (*claimed, *waiting):
            if issue.identifier == identifier:
                return explain(state, issue)
        return None

    async def recent_events(self, identifier: str, limit: int) -> list[dict[str, Any]]:
        """Return an issue's newest events, newest first; none where the ledger can't be read."""
        try:
            rows = await self._ledger.recent_events(identifier, limit)
        except LedgerError:
            return []
        return [
            {"at": row.wall, "event": row.event, "message": row.message, "run_id": row.run_id}
            for row in rows
        ]

    async def runs(self, identifier: str, limit: int) -> list[dict[str, Any]]:
        """Return an issue's newest runs, newest first; none where the ledger can't be read."""
        try:
            rows = await self._ledger.runs(identifier, limit)
        except LedgerError:
            return []
        return [run_map(row) for row in rows]

    def workspace_path_for(self, identifier: str) -> str | None:
        """Return where the workspace of an issue lies or would lie."""
        return self._workspace_path(identifier)


def run_map(row: Any) -> dict[str, Any]:
    """Return a run of the history as a map that JSON can carry."""
    return {
        "run_id": row.run_id,
        "attempt": row.attempt,
        "retry_kind": row.retry_kind,
        "host": row.host,
        "workspace_path": row.workspace_path,
        "thread_id": row.thread_id,
        "started_wall": row.started_wall,
        "ended_wall": row.ended_wall,
        "turns": row.turns,
        "outcome": None if row.outcome is None else row.outcome.kind.value,
        "category": None if row.outcome is None else row.outcome.category,
        "code": None if row.outcome is None else row.outcome.code,
        "error": None if row.outcome is None else row.outcome.message or None,
        "total_tokens": row.usage.total_tokens,
        "model": row.model,
        "usd": row.micro_usd / 1_000_000,
    }
