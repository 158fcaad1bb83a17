"""What the web surface may ask of the engine: snapshots, orders, explanations, histories.

An issue that is neither claimed nor among the listed candidates is looked up in the tracker, so
that explanations and orders reach every issue; ``engine.lookup`` bounds how often.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from symphony.engine.lookup import IssueLookup
from symphony.engine.loop import Mailbox
from symphony.errors import LedgerError, TrackerError
from symphony.hosts.lineage import descends_from
from symphony.ledger import Ledger
from symphony.model.clock import Instant
from symphony.model.failure import FailureClass
from symphony.model.issue import Issue
from symphony.model.question import Answer
from symphony.model.spend import NO_RAISE, Raise
from symphony.observe.bus import SnapshotBus
from symphony.observe.tally import Tally
from symphony.scheduler.books import budgets_row
from symphony.scheduler.budget import refused_raise, retry_is_vain
from symphony.scheduler.budget_rows import BudgetsRow
from symphony.scheduler.claims import occupancy
from symphony.scheduler.controls import known
from symphony.scheduler.eligibility import ISSUE_GATES, first_shut
from symphony.scheduler.events import ControlAction, ControlRequested, RefreshRequested
from symphony.scheduler.lifting import lift
from symphony.scheduler.publish import explain
from symphony.scheduler.snapshot import Snapshot
from symphony.scheduler.state import SchedulerState, refresh_coalesced
from symphony.scheduler.unblocking import unanswerable
from symphony.web.backend import Effect, Explained, RefreshReceipt, Refusal, Taken

_UNAVAILABLE = Refusal("orchestrator_unavailable", "Orchestrator is unavailable", 503)

DURABLE_LIMIT_S = 5.0
"""How long an order waits for the disk before it is told to be taken all the same."""


class EngineBackend:
    """Serves the web surface from the bus, the mailbox, the ledger and, at need, the tracker.

    Args:
        mailbox: Of the scheduler.
        workspace_path: Where the workspace of an identifier lies or would lie.
        tally: What ``metrics`` shows beside a snapshot.
        supervisor_pid: The ancestor of all processes of runs, or None while there is none.
        lookup: Asks the tracker for an issue that is not on our books.
    """

    def __init__(
        self,
        *,
        bus: SnapshotBus,
        state: SchedulerState,
        ledger: Ledger,
        mailbox: Mailbox,
        clock: Callable[[], Instant],
        workspace_path: Callable[[str], str | None],
        supervisor_pid: Callable[[], int | None],
        lookup: IssueLookup,
        tally: Tally,
    ) -> None:
        self._tally = tally
        self._bus = bus
        self._state = state
        self._ledger = ledger
        self._post = mailbox.post
        self._caught_up = mailbox.caught_up
        self._clock = clock
        self._workspace_path = workspace_path
        self._supervisor_pid = supervisor_pid
        self._lookup = lookup

    def snapshot(self) -> Snapshot | None:
        """Return the last published snapshot."""
        return self._bus.latest

    def tally(self) -> Tally:
        """Return the counts of what the daemon has done."""
        return self._tally

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

    async def control(
        self,
        action: str,
        identifier: str | None,
        reason: str,
        *,
        failure_class: FailureClass | None = None,
        amounts: Raise = NO_RAISE,
        for_s: float = 0.0,
    ) -> Taken | Refusal:
        """Give an order to the scheduler; see ``web.backend.Backend``."""
        state, order = self._state, ControlAction(action)
        if state.shutting_down:
            return _UNAVAILABLE
        if order is ControlAction.RAISE:
            refused = refused_raise(state.books, identifier, amounts)
            if refused is not None:
                return Refusal("budget_not_raised", refused)
            self._post(ControlRequested(order, identifier, reason, amounts=amounts))
            return Taken(identifier)
        if order is ControlAction.OVERRIDE_HOURS and for_s > 0 and state.rules.hours is None:
            text = "agent.active_hours is not set: work may start at any time, nothing to override"
            return Refusal("no_active_hours", text)
        # A pause may come before the issue does; the other orders need something to act on.
        found: Issue | None = None
        if identifier is not None and order is not ControlAction.PAUSE:
            named = await self._named(order, identifier)
            if isinstance(named, Refusal):
                return named
            identifier, found = named.identifier, named.issue
        self._post(
            ControlRequested(
                order, identifier, reason, failure_class=failure_class, for_s=for_s, found=found
            )
        )
        return Taken(identifier, found)

    def effect(self, taken: Taken) -> Effect | None:
        """Say where the issue of an order is now; see ``web.backend.Backend``."""
        if taken.identifier is None:
            return None
        issue = self._on_books(taken.identifier) or taken.issue
        if issue is None:
            return Effect(False, None)
        claim = self._state.claims.get(issue.id)
        if claim is not None and occupancy(claim) is not None:
            return Effect(True, None)
        shut = first_shut(issue, self._state.view(), claimed=True)
        return Effect(claim is not None, None if shut is None else shut.detail)

    async def _named(self, order: ControlAction, identifier: str) -> Taken | Refusal:
        """Find the issue of an order, and say why the order would do nothing."""
        state, found = self._state, None
        if not known(state, identifier):
            if order is ControlAction.RESUME:
                text = f"{identifier} is neither held nor stopped: there is nothing to resume"
                return Refusal("issue_not_found", text, 404)
            looked_up = await self._look_up(identifier)
            if isinstance(looked_up, Refusal):
                return looked_up
            if state.shutting_down:
                return _UNAVAILABLE
            identifier, found = looked_up.identifier, looked_up
        if order is ControlAction.RETRY:
            why = retry_is_vain(state, identifier)
            if why is not None:
                return Refusal("budget_spent", why)
            if found is not None and found.id not in state.claims:
                shut = first_shut(found, state.view())
                if shut is not None and shut.name in ISSUE_GATES:
                    mend = lift(shut.name, found, state)
                    text = f"{identifier} can't start: {shut.detail}; {mend}"
                    return Refusal("issue_not_eligible", text)
        return Taken(identifier, found)

    def _on_books(self, identifier: str) -> Issue | None:
        """Return an issue that is claimed or among the listed candidates."""
        claimed = (claim.issue for claim in self._state.claims)
        waiting = (issue for issue, _ in self._state.waiting)
        return next((one for one in (*claimed, *waiting) if one.identifier == identifier), None)

    async def _look_up(self, identifier: str) -> Issue | Refusal:
        if not self._state.started:
            return Refusal("snapshot_unavailable", "The daemon is starting; ask again", 503)
        try:
            found = await self._lookup.find(identifier)
        except TrackerError as error:
            text = f"{identifier} is not on the daemon's books, and {error.message}"
            limited = error.category == "tracker_rate_limited"
            return Refusal(error.category, text, 429 if limited else 502)
        if found is None:
            text = (
                f"the tracker ({self._state.settings.tracker.kind}) shows no issue {identifier!r}: "
                "check its spelling, and that it is in the configured scope"
            )
            return Refusal("issue_not_found", text, 404)
        claim = self._state.claims.get(found.id)
        return found if claim is None else claim.issue

    def budget(self) -> BudgetsRow | None:
        """Return what all work has cost, by issue; None before the ledger has been read."""
        return budgets_row(self._state.books) if self._state.started else None

    def answer(self, identifier: str, answer: Answer, reason: str = "") -> str | None:
        """Give an answer to the scheduler; see ``web.backend.Backend``."""
        problem = unanswerable(self._state, identifier, answer)
        if problem is None:
            order = ControlRequested(ControlAction.ANSWER, identifier, reason, answer=answer)
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

    async def explain(self, identifier: str) -> Explained | Refusal:
        """Return every gate's answer for an issue; see ``web.backend.Backend``."""
        state = self._state
        issue = self._on_books(identifier) or await self._look_up(identifier)
        if isinstance(issue, Refusal):
            return issue
        profile = state.settings.agent.profile_of(issue)
        name = None if profile is None else profile.name
        return Explained(issue.identifier, name, explain(state, issue))

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
