"""Counts completed turns in a row that changed neither the workspace nor the issue.

Role: after each turn that another one would follow, compares a digest of both with the one before;
the count is kept in the run's record and in the ledger, so that it goes on over runs and restarts.
Invariant: in doubt there was progress: nothing that could not be looked at, no edit of a person and
no writing call of a tool ever counts against an issue.
Neighbours: ``workspaces.inspection`` tells the tree, ``attempt`` asks for the outcome.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable

from symphony.model.issue import Issue
from symphony.model.run import Outcome, OutcomeKind, RunProgress
from symphony.model.spend import NOT_IDLE, IdleTurns

NO_PROGRESS = "no_progress"
"""Category of an issue whose agent goes nowhere."""


class IdleWatch:
    """Watches one run.

    Args:
        progress: The run's live record; its ``idle`` begins with what earlier runs left.
        limit: Returns ``budget.no_progress_turns``.
        tree_mark: Returns a digest of the workspace, or None where it can't be told.
        record: Keeps the count, should the daemon die.
    """

    def __init__(
        self,
        progress: RunProgress,
        *,
        limit: Callable[[], int],
        tree_mark: Callable[[], Awaitable[str | None]],
        record: Callable[[IdleTurns], Awaitable[None]],
    ) -> None:
        self._progress = progress
        self._limit = limit
        self._tree_mark = tree_mark
        self._record = record

    async def turn_ended(self, issue: Issue, *, changed: bool) -> Outcome | None:
        """Compare; return the outcome of a run whose turns go nowhere, or None.

        Args:
            issue: As the tracker shows it after the turn.
            changed: Whether the agent has called a tool that may have changed something.
        """
        limit, before = self._limit(), self._progress.idle
        if limit <= 0:
            idle = NOT_IDLE
        else:
            tree = await self._tree_mark()
            mark = None if tree is None else _digest(tree, issue)
            same = mark is not None and mark == before.mark and not changed
            idle = IdleTurns(before.count + 1 if same else 0, mark)
        if idle != before:
            self._progress.idle = idle
            await self._record(idle)
        if not 0 < limit <= idle.count:
            return None
        return Outcome(
            kind=OutcomeKind.FAILED,
            category=NO_PROGRESS,
            message=(
                f"{idle.count} turns in a row changed neither the workspace nor the issue "
                "(budget.no_progress_turns)"
            ),
            retryable=False,
        )


def _digest(tree: str, issue: Issue) -> str:
    seen = [
        tree,
        issue.state_key,
        sorted(issue.labels),
        issue.updated_at.isoformat() if issue.updated_at is not None else None,
        issue.title,
        issue.description,
        issue.assignee_id,
    ]
    # Text of strangers may hold lone surrogates, which ASCII escapes carry.
    return hashlib.sha256(json.dumps(seen, ensure_ascii=True).encode()).hexdigest()[:24]
