"""Reads a request of the Responses API: what a user asked, and how far the model has come.

Pure. A conversation is the ``input`` of the request; it holds all that happened in the thread, so
nothing needs to be remembered between requests. Codex puts messages of its own among the user's
(environment, AGENTS.md, an interrupted turn); they are no prompts. Used by ``script``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_OUTPUT_TYPES = frozenset({"function_call_output", "custom_tool_call_output"})
_OWN_MESSAGES = ("<", "# AGENTS.md")
_ATTEMPT_LINE = re.compile(r"^Attempt: (\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Where a thread stands when the model is asked.

    Attributes:
        prompts: The user's messages, oldest first.
        finished_turns: Prompts that were answered to the end; an interrupted turn is not.
        outputs: Texts of the tool outputs since the last prompt.
        length: Number of items; unique within a thread, as it only grows.
    """

    prompts: tuple[str, ...]
    finished_turns: int
    outputs: tuple[str, ...]
    length: int

    @property
    def attempt(self) -> int | None:
        """The number of the last line ``Attempt: 2`` in a prompt, or None."""
        found = [number for prompt in self.prompts for number in _ATTEMPT_LINE.findall(prompt)]
        return int(found[-1]) if found else None


def read_conversation(request: Mapping[str, Any]) -> Conversation:
    """Return where a request stands; parts of an unknown kind or shape are passed over."""
    items = request.get("input")
    items = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    prompts: list[str] = []
    finished, answered = 0, False
    outputs: list[str] = []
    for item in items:
        kind, role = item.get("type"), item.get("role")
        if kind == "message" and role == "user":
            text = text_of(item.get("content"))
            if text.lstrip().startswith(_OWN_MESSAGES):
                continue
            finished += answered
            answered, outputs = False, []
            prompts.append(text)
        elif kind == "message" and role == "assistant":
            answered = bool(prompts)
        elif kind in _OUTPUT_TYPES:
            answered = False
            outputs.append(text_of(item.get("output")))
    return Conversation(tuple(prompts), finished, tuple(outputs), len(items))


def text_of(content: Any) -> str:
    """Return the text of a message or of a tool's output; either may be a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        return text_of(content.get("content"))
    if not isinstance(content, list):
        return ""
    return "".join(part["text"] for part in content if isinstance(part, dict) and _has_text(part))


def _has_text(part: Mapping[str, Any]) -> bool:
    return isinstance(part.get("text"), str)
