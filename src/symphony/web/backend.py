"""What the web surface asks of the daemon: one small protocol, so that it can be served by a fake.

Neighbours: ``engine`` implements it over the snapshot bus, the mailbox and the ledger.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from symphony.model.failure import FailureClass
from symphony.model.issue import Issue
from symphony.model.question import Answer
from symphony.model.spend import NO_RAISE, Raise
from symphony.observe.tally import Tally
from symphony.scheduler.budget_rows import BudgetsRow
from symphony.scheduler.eligibility import Gate
from symphony.scheduler.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class RefreshReceipt:
    """A refresh request was taken.

    Attributes:
        coalesced: A poll was already due or running, so this request joined it.
        requested_wall: Epoch seconds at which the request was taken.
    """

    coalesced: bool
    requested_wall: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """What was understood and can't be done: a stable code, a sentence and the HTTP status."""

    code: str
    message: str
    status: int = 409


@dataclass(frozen=True, slots=True)
class Taken:
    """An order that is taken.

    Attributes:
        identifier: Of the issue as the tracker writes it; None for all work.
        issue: What the tracker has shown of an issue that is not on our books.
    """

    identifier: str | None
    issue: Issue | None = None


@dataclass(frozen=True, slots=True)
class Effect:
    """Where an issue is after an order: claimed or not, and the first gate that holds it back."""

    claimed: bool
    waits_for: str | None


@dataclass(frozen=True, slots=True)
class Explained:
    """All gates of an issue, its identifier as the tracker writes it, and its profile's name."""

    identifier: str
    profile: str | None
    gates: list[Gate]


class Backend(Protocol):
    """The daemon as the web surface sees it.

    Only ``explain`` and ``control`` wait for the tracker, a few seconds at most, and only for an
    issue that is neither claimed nor among the listed candidates.
    """

    def snapshot(self) -> Snapshot | None:
        """Return the last published snapshot, or None before the first one."""

    def tally(self) -> Tally:
        """Return the counts of what the daemon has done."""

    def subscribe(self) -> AsyncIterator[Snapshot]:
        """Iterate over published snapshots; a slow reader gets the newest and misses the rest."""

    def request_refresh(self, source: str = "api") -> RefreshReceipt | None:
        """Ask for a poll now, for ``api`` or ``webhook``.

        None where no scheduler takes requests (starting or stopping).
        """

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
        """Give an authorised order to the scheduler; a class narrows a reset of the breaker.

        ``for_s`` is how long the active hours are overridden.

        ``amounts`` are for a raise, whose ``identifier`` may be ``day`` or ``total`` too. A refusal
        says why the order would do nothing, or why it can't be taken.
        """

    def effect(self, taken: Taken) -> Effect | None:
        """Say where the issue of an order is now; None for all work."""

    def budget(self) -> BudgetsRow | None:
        """Return what all work has cost, by issue; None before the ledger has been read."""

    def answer(self, identifier: str, answer: Answer, reason: str = "") -> str | None:
        """Give an authorised answer to what the agent of a blocked issue asked.

        Returns:
            Why it can't be given, or None where it was.
        """

    async def settled(self) -> bool:
        """Wait until the orders that were given are carried out and in the ledger.

        False where the ledger does not take them: they count, but a crash would forget them.
        """

    def is_agent(self, pid: int) -> bool:
        """Tell whether a process belongs to a run; True in doubt."""

    async def explain(self, identifier: str) -> Explained | Refusal:
        """Return every gate's answer for any issue that the tracker shows."""

    async def recent_events(self, identifier: str, limit: int) -> list[dict[str, Any]]:
        """Return the newest events of an issue, newest first.

        Each has ``at`` (epoch seconds), ``event`` (name) and ``message`` (decoded, text or None).
        """

    async def runs(self, identifier: str, limit: int) -> list[dict[str, Any]]:
        """Return the newest runs of an issue, newest first, as maps that JSON can carry.

        A ``transcript_path`` in one is offered under ``logs``.
        """

    def workspace_path_for(self, identifier: str) -> str | None:
        """Return where the workspace of an issue lies or would lie, absolute, or None."""
