"""What ends a block, in the oracle's own words, and the books on what is blocked.

The oracle asks after every step whether an issue that was blocked runs again for one of these
reasons, and whether one for which there is a reason has been let go on.
"""

from __future__ import annotations

from dataclasses import dataclass

from symphony.config.settings import Settings
from symphony.model.issue import Issue

ASKING = {"turn_input_required": "input", "approval_required": "approval"}
STOPPED = "stopped_by_operator"


@dataclass(slots=True)
class Block:
    """An issue that waits for something.

    Attributes:
        category: As the claim has it.
        since: When its run ended, or it was restored: reads from before don't count.
        until: When it ends by itself, or None.
        shown: State and labels as the tracker showed them first, or None.
        board: The board on which that was.
    """

    category: str
    since: float
    until: float | None
    board: str
    shown: tuple[str, frozenset[str]] | None = None

    @property
    def takes_answers(self) -> bool:
        return self.category in ASKING


def until_of(category: str, settings: Settings, now: float) -> float | None:
    """Return when a block that begins now ends by itself."""
    kind = ASKING.get(category, "fault")
    delay_ms = settings.agent.blocked_retry_ms.get(kind)
    if category == STOPPED or category.startswith("budget") or delay_ms is None:
        return None
    return now + delay_ms / 1000


def read(block: Block, issue: Issue, *, settings: Settings, issued: float, board: str) -> str:
    """Take a read of a blocked issue to the books: ``nothing``, ``noted`` or ``changed``."""
    watched = settings.agent.unblock_on
    if (
        block.category == STOPPED
        or block.category.startswith("budget")
        or not watched
        or issued < block.since
    ):
        return "nothing"
    block.since = issued
    shown = (issue.state.strip().lower(), frozenset(issue.labels))
    if block.shown is None or block.board != board:
        block.shown, block.board = shown, board
        return "noted"
    state = "state" in watched and shown[0] != block.shown[0]
    labels = "labels" in watched and shown[1] != block.shown[1]
    return "changed" if state or labels else "nothing"
