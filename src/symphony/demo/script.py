"""What the scripted model says: the steps of each issue as frozen data.

A script answers one question: given where a conversation stands, what does the model do next?
Invariant: the answer follows from the conversation alone (which issue, which attempt, how many
turns are finished, how many tool outputs this turn has), so it stays right when the daemon, the
agent or the model server starts anew; only faults that happen "n times" need a count from outside.
Neighbours: ``conversation`` reads a request, ``model_server`` sends the reply.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from symphony.demo.conversation import Conversation


@dataclass(frozen=True, slots=True)
class Exec:
    """The model runs a shell command.

    Attributes:
        command: For the agent's shell, in the workspace.
        arguments: More arguments of Codex's ``exec_command``, such as ``sandbox_permissions``.
    """

    command: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Patch:
    """The model edits files with ``apply_patch``.

    Attributes:
        text: From ``*** Begin Patch`` to ``*** End Patch``.
    """

    text: str


@dataclass(frozen=True, slots=True)
class Tool:
    """The model calls a tool by name.

    Attributes:
        name: Of a tool that the client offers.
        arguments: A JSON object, or a function that makes one from the conversation.
        namespace: Of the tool, such as ``mcp__<server>__``; None for a plain one.
    """

    name: str
    arguments: Mapping[str, Any] | Callable[[Conversation], Mapping[str, Any]]
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class Think:
    """The model shows a summary of its reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class Say:
    """The model writes a message; without a call beside it, the turn ends there.

    Attributes:
        text: The message; it is streamed word by word.
    """

    text: str


Item: TypeAlias = Exec | Patch | Tool | Think | Say


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that one reply reports.

    Attributes:
        input: Including the cached ones.
        output: Including those of reasoning.
        cached: Part of the input.
        reasoning: Part of the output.
    """

    input: int = 1200
    output: int = 80
    cached: int = 0
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What the provider's headers tell about the account's limits.

    Attributes:
        primary_percent: Used part of the short window.
        secondary_percent: Used part of the long window.
        primary_resets_at: Unix seconds.
        secondary_resets_at: Unix seconds.
        primary_minutes: Length of the short window.
        secondary_minutes: Length of the long window.
    """

    primary_percent: float
    secondary_percent: float
    primary_resets_at: int
    secondary_resets_at: int
    primary_minutes: int = 300
    secondary_minutes: int = 10080

    def headers(self) -> dict[str, str]:
        """Return the headers as Codex reads them."""
        return {
            "x-codex-primary-used-percent": f"{self.primary_percent:g}",
            "x-codex-primary-window-minutes": str(self.primary_minutes),
            "x-codex-primary-reset-at": str(self.primary_resets_at),
            "x-codex-secondary-used-percent": f"{self.secondary_percent:g}",
            "x-codex-secondary-window-minutes": str(self.secondary_minutes),
            "x-codex-secondary-reset-at": str(self.secondary_resets_at),
        }


Gate: TypeAlias = Callable[[Conversation], Awaitable[None]]
"""Awaited before a reply is sent; a test opens it when it has seen enough."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of the model.

    Attributes:
        items: Sent together; several calls run side by side.
        usage: Tokens that it reports.
        gate: Awaited before the first byte.
    """

    items: tuple[Item, ...]
    usage: Usage = Usage()
    gate: Gate | None = None

    @property
    def calls(self) -> int:
        """How many outputs the conversation has more once this reply is worked off."""
        return sum(isinstance(item, Exec | Patch | Tool) for item in self.items)


@dataclass(frozen=True, slots=True)
class Fail:
    """The provider answers with an HTTP error.

    Attributes:
        status: HTTP status; Codex retries 5xx by itself, a bare 429 and 4xx end the turn.
        code: ``error.code`` and ``error.type`` of the body.
        message: ``error.message`` of the body.
        retry_after_s: For the header ``retry-after``; None leaves it out.
        times: After so many failures the script goes on; None: it never does.
    """

    status: int = 500
    code: str = "server_error"
    message: str = "the scripted model fails here"
    retry_after_s: int | None = None
    times: int | None = 1


@dataclass(frozen=True, slots=True)
class FailedResponse:
    """The stream ends with ``response.failed``.

    Attributes:
        code: ``error.code``, for example ``context_length_exceeded``.
        message: ``error.message``.
        times: As in ``Fail``.
    """

    code: str
    message: str = "the scripted model fails here"
    times: int | None = 1


@dataclass(frozen=True, slots=True)
class DroppedStream:
    """The connection breaks in the middle of a message.

    Attributes:
        text: What is sent of the message before.
        times: As in ``Fail``.
    """

    text: str = "I was about to"
    times: int | None = 1


Fault: TypeAlias = Fail | FailedResponse | DroppedStream
Answer: TypeAlias = Reply | Fault
Turn: TypeAlias = tuple[Answer, ...]


def turn(*steps: Item | Answer) -> Turn:
    """Return a turn; a bare item becomes a reply of its own."""
    faults_and_replies = (Reply, Fail, FailedResponse, DroppedStream)
    return tuple(step if isinstance(step, faults_and_replies) else Reply((step,)) for step in steps)


NOTHING_LEFT = Reply((Say("There is nothing left to do."),))
"""The end of a turn whose steps are all done, and the answer to a conversation without an issue."""


@dataclass(frozen=True, slots=True)
class IssueScript:
    """What the model does for one issue.

    Attributes:
        turns: By the number of turns that the conversation has finished; the last one repeats, so
            its commands bear being run again.
        first_attempt: The turns instead while the prompt names no attempt and nobody has asked
            twice (a thread that is resumed after a failure); None: no difference.
    """

    turns: tuple[Turn, ...]
    first_attempt: tuple[Turn, ...] | None = None

    def turn_for(self, conversation: Conversation) -> Turn:
        """Return the turn that the conversation is in."""
        turns = self.turns
        is_first = conversation.attempt is None and len(conversation.prompts) <= 1
        if self.first_attempt is not None and is_first:
            turns = self.first_attempt
        return turns[min(conversation.finished_turns, len(turns) - 1)]


ISSUE_LINE = re.compile(r"^Issue: (\S+)", re.MULTILINE)


def issue_by_line(prompt: str) -> str | None:
    """Return the issue of a prompt that has a line ``Issue: DEMO-1``."""
    found = ISSUE_LINE.search(prompt)
    return found[1] if found else None


@dataclass(frozen=True, slots=True)
class Script:
    """A whole model: a script for each issue.

    Attributes:
        issues: By what ``issue_of`` returns.
        issue_of: Finds the issue in the text of a user's message, or None.
        rate_limits: The limits after so many requests, or None for no headers.
        pause_s: Seconds that the model "thinks" before each reply.
    """

    issues: Mapping[str, IssueScript]
    issue_of: Callable[[str], str | None] = issue_by_line
    rate_limits: Callable[[int], RateLimits | None] = lambda requests: None
    pause_s: float = 0.0

    def issue_in(self, conversation: Conversation) -> str | None:
        """Return the issue that a conversation is about: the first that a prompt names."""
        found = (self.issue_of(prompt) for prompt in conversation.prompts)
        return next((issue for issue in found if issue is not None), None)

    def answer(
        self, conversation: Conversation, failures: Callable[[int], int]
    ) -> tuple[int, Answer]:
        """Return the next answer of the model and its place within its turn.

        Args:
            conversation: Where things stand.
            failures: How often the answer at a place has failed already.
        """
        script = self.issues.get(self.issue_in(conversation) or "")
        if script is None:
            return 0, NOTHING_LEFT
        return next_answer(script.turn_for(conversation), len(conversation.outputs), failures)


def next_answer(
    steps: Sequence[Answer], outputs: int, failures: Callable[[int], int]
) -> tuple[int, Answer]:
    """Return the first answer of a turn that the conversation does not hold yet, and its place.

    Args:
        steps: The turn.
        outputs: Tool outputs that the conversation has since the prompt of the turn.
        failures: How often the answer at a place has failed already.
    """
    for place, step in enumerate(steps):
        if not isinstance(step, Reply):
            if step.times is None or failures(place) < step.times:
                return place, step
        elif step.calls == 0 or outputs < step.calls:
            return place, step
        else:
            outputs -= step.calls
    return len(steps), NOTHING_LEFT
