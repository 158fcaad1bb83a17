"""What an agent asked of a person, and what the person said.

A ``Question`` is what a blocked issue waits with: bounded and free of secrets from the moment it is
made (``runner.questions``), so that ledger, API and log may carry it as it is. A ``Reply`` is an
operator's answer to it; it goes with the claim into the next run's prompt. Pure values.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class QuestionKind(StrEnum):
    """What the agent waits for."""

    INPUT = "input"
    """Answers to its questions (``item/tool/requestUserInput``)."""
    FORM = "form"
    """The form of an MCP server (``mcpServer/elicitation/request``)."""
    COMMAND = "command"
    """Leave to run a command."""
    FILE_CHANGE = "file_change"
    """Leave to change files."""
    PERMISSIONS = "permissions"
    """Further permissions."""
    TOOL = "tool"
    """Leave to call a tool of an MCP server."""

    @property
    def wants_decision(self) -> bool:
        """It is answered by yes or no; the others by text."""
        return self not in (QuestionKind.INPUT, QuestionKind.FORM)


class Decision(StrEnum):
    """An operator's yes or no."""

    APPROVE = "approve"
    DECLINE = "decline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One of the answers that the agent proposes."""

    label: str
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One of the questions of a request.

    Attributes:
        id: The agent's name for it.
        text: The question itself.
        header: A word or two about it.
        options: Answers that it proposes; others are allowed all the same.
        is_secret: The agent expects a secret, which has no place in a prompt.
    """

    id: str
    text: str
    header: str = ""
    options: tuple[Option, ...] = ()
    is_secret: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """All that one request asked.

    Attributes:
        text: For people: the question, or what is to be approved and why.
        asks: The single questions where there are such, in their order.
        detail: The command, the changed files, the form's schema; the end may be cut off.
        subject: Digest of exactly what is to be approved; an approval covers this and no more.
    """

    kind: QuestionKind
    text: str
    asks: tuple[Ask, ...] = ()
    detail: str = ""
    subject: str = ""

    @property
    def wants_secret(self) -> bool:
        """One of its questions expects a secret."""
        return any(ask.is_secret for ask in self.asks)

    @property
    def choices(self) -> tuple[str, ...]:
        """What may be chosen: labels, with the question's id before them where it asks several."""
        if len(self.asks) == 1:
            return tuple(option.label for option in self.asks[0].options)
        return tuple(f"{ask.id}={option.label}" for ask in self.asks for option in ask.options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an operator said, not yet held against the question.

    Attributes:
        text: In the operator's own words.
        options: Labels, or ``id=label``.
        holds_no_secret: Who answers says so, of a text for a question that asks for one.
    """

    text: str = ""
    options: tuple[str, ...] = ()
    decision: Decision | None = None
    holds_no_secret: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer that fits its question.

    Attributes:
        question: What was asked, or None where the record does not tell.
        choices: Pairs of a question's id and the label that was chosen.
        at_wall: Epoch seconds.
    """

    question: Question | None
    text: str = ""
    choices: tuple[tuple[str, str], ...] = ()
    decision: Decision | None = None
    by: str = "operator"
    at_wall: float = 0.0
