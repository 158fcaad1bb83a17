"""What ends a block: one table of kinds of block and ways out, and the sentences about them.

``unblocking`` acts on it, ``publish`` and ``explain`` show it, ``docs/blocked.md`` prints it. A new
category of block needs a row here only where it is not a fault like the others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum

from symphony.model.clock import iso
from symphony.model.question import Question

STOPPED = "stopped_by_operator"
"""Category of an issue that an operator has stopped."""


class BlockKind(StrEnum):
    """Kinds of block, by what they wait for."""

    INPUT = "input"
    """The agent asked a question."""
    APPROVAL = "approval"
    """The agent asked for leave to do something."""
    FAULT = "fault"
    """Another attempt can't help before something is mended: a login, a model, a setting."""
    STOPPED = "stopped"
    """An operator stopped it."""
    BUDGET = "budget"
    """A limit of the budget is reached."""


class Way(StrEnum):
    """Ways out of a block."""

    ANSWER = "answer"
    """``symphony answer``."""
    STATE = "state"
    """A person moved the issue to another active state."""
    LABELS = "labels"
    """A person added or removed a label."""
    TIME = "time"
    """``agent.blocked_retry_ms`` is over."""
    RETRY = "retry"
    """``symphony retry``."""
    RESUME = "resume"
    """``symphony resume``."""
    BUDGET = "budget"
    """A limit of the budget was raised."""


WAYS: Mapping[BlockKind, tuple[Way, ...]] = {
    BlockKind.INPUT: (Way.ANSWER, Way.STATE, Way.LABELS, Way.TIME, Way.RETRY),
    BlockKind.APPROVAL: (Way.ANSWER, Way.STATE, Way.LABELS, Way.TIME, Way.RETRY),
    BlockKind.FAULT: (Way.STATE, Way.LABELS, Way.TIME, Way.RETRY),
    BlockKind.STOPPED: (Way.RESUME, Way.RETRY),
    BlockKind.BUDGET: (Way.BUDGET, Way.RETRY),
}
"""Which kind of block is ended by what. Leaving the active states ends any."""

_KINDS = {
    "turn_input_required": BlockKind.INPUT,
    "input_required": BlockKind.INPUT,
    "approval_required": BlockKind.APPROVAL,
    STOPPED: BlockKind.STOPPED,
}


def kind_of(category: str) -> BlockKind:
    """Return the kind of block of a category."""
    if category.startswith("budget_"):
        return BlockKind.BUDGET
    return _KINDS.get(category, BlockKind.FAULT)


def ways_out(
    category: str, *, unblock_on: Collection[str], until_wall: float | None
) -> tuple[Way, ...]:
    """Return what ends a block of this category under these settings, the best way first."""
    return tuple(
        way
        for way in WAYS[kind_of(category)]
        if (way not in (Way.STATE, Way.LABELS) or way.value in unblock_on)
        and (way is not Way.TIME or until_wall is not None)
    )


def remedy(
    identifier: str,
    ways: Collection[Way],
    *,
    question: Question | None,
    until_wall: float | None,
) -> str:
    """Say how to get this issue going again."""
    told: list[str] = []
    changes = [way.value for way in (Way.STATE, Way.LABELS) if way in ways]
    if Way.ANSWER in ways:
        told.append(f"symphony answer {identifier} {_form(question)}{_caution(question)}")
    if Way.BUDGET in ways:
        told.append(f"symphony budget raise {identifier} (or raise the limit in the workflow file)")
    if Way.RESUME in ways:
        told.append(f"symphony resume {identifier}{_first(identifier, question)}")
    if changes:
        told.append(f"change its {' or '.join(changes)} in the tracker")
    if Way.RETRY in ways:
        told.append(f"symphony retry {identifier}")
    if Way.TIME in ways and until_wall is not None:
        told.append(f"wait until {iso(until_wall)}")
    return f"to go on: {'; or '.join(told)}"


def _first(identifier: str, question: Question | None) -> str:
    """Say that what was asked before the stop can be answered: the answer waits for the resume."""
    if question is None:
        return ""
    answer = f"symphony answer {identifier} {_form(question)}{_caution(question)}"
    return f" (its question can be answered before: {answer})"


def _form(question: Question | None) -> str:
    if question is None:
        return "TEXT"
    if question.kind.wants_decision:
        return "--approve | --decline"
    return "TEXT | --option CHOICE" if question.choices else "TEXT"


def _caution(question: Question | None) -> str:
    """Warn where the agent expects a secret: an answer goes into the transcript and the ledger."""
    if question is None or not question.wants_secret:
        return ""
    return (
        " (it asks for a secret: don't write it here, say where the agent may find it, with "
        "--no-secret)"
    )
