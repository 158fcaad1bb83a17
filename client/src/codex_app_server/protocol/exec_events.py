"""Lines of ``codex exec --json`` in the words of the app-server. Pure.

Invariants: one turn a process; every line becomes zero or more lines of the app-server, so that
events, turn automaton and result are the same as over any transport; usage, which exec reports as
the thread's total, is split into total and what this turn added; an ``error`` line ends nothing.

What exec does not tell stays absent: deltas, rate limits, approvals, the turn's diff. Its turn has
no id, so one is given. `codex_app_server.exec` runs the process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from codex_app_server.protocol.turn import TokenUsage

__all__ = ["ExecTranslator", "usage_of"]

Message = dict[str, Any]
_STATUS = re.compile(r"\bstatus:? (\d{3})\b")
_WORDS = (
    ("usage limit", "usageLimitExceeded"),
    ("quota exceeded", "usageLimitExceeded"),
    ("context window", "contextWindowExceeded"),
    ("ran out of room", "contextWindowExceeded"),
    ("at capacity", "serverOverloaded"),
    ("high demand", "serverOverloaded"),
    ("stream disconnected", "responseStreamDisconnected"),
    ("idle timeout waiting", "responseStreamDisconnected"),
)
_ITEM_TYPES = {
    "agent_message": "agentMessage",
    "command_execution": "commandExecution",
    "file_change": "fileChange",
    "mcp_tool_call": "mcpToolCall",
    "web_search": "webSearch",
    "collab_tool_call": "collabAgentToolCall",
}
_STATUSES = {"in_progress": "inProgress", "completed": "completed", "failed": "failed"}


class ExecTranslator:
    """Translates the lines of one process.

    Args:
        turn_id: Given to the one turn.
        baseline: Total of the thread before it; None where it is not known, which counts the
            whole total as this turn's.

    Attributes:
        thread_id: As exec tells it; None before its first line.
        total: Token total of the thread, or None before the end.
        ended: Whether the turn's end was told.
    """

    def __init__(self, turn_id: str, baseline: TokenUsage | None = None) -> None:
        self.turn_id = turn_id
        self.thread_id: str | None = None
        self.baseline = baseline
        self.total: TokenUsage | None = None
        self.ended = False

    def translate(self, message: Mapping[str, Any]) -> list[Message]:
        """Return the notifications that a line stands for; an unknown kind goes on as it is."""
        kind = str(message.get("type"))
        handler = _HANDLERS.get(kind)
        if handler is not None:
            return handler(self, message)
        return [self._event(f"exec/{kind}", dict(message))]

    def interrupted(self) -> list[Message]:
        """Return the end of a turn whose process was told to stop."""
        return [self._completed("interrupted")]

    def _event(self, method: str, members: Message) -> Message:
        return {
            "method": method,
            "params": {"threadId": self.thread_id, "turnId": self.turn_id, **members},
        }

    def _thread_started(self, message: Mapping[str, Any]) -> list[Message]:
        thread_id = message.get("thread_id")
        self.thread_id = thread_id if isinstance(thread_id, str) else None
        return [{"method": "thread/started", "params": {"thread": {"id": self.thread_id}}}]

    def _turn_started(self, message: Mapping[str, Any]) -> list[Message]:
        turn = {"id": self.turn_id, "status": "inProgress", "items": []}
        return [{"method": "turn/started", "params": {"threadId": self.thread_id, "turn": turn}}]

    def _item_started(self, message: Mapping[str, Any]) -> list[Message]:
        return self._item("item/started", message)

    def _item_completed(self, message: Mapping[str, Any]) -> list[Message]:
        return self._item("item/completed", message)

    def _item(self, method: str, message: Mapping[str, Any]) -> list[Message]:
        item = message.get("item")
        item = item if isinstance(item, dict) else {}
        if item.get("type") == "error":
            # Exec shows the server's warnings as items.
            text = str(item.get("message"))
            return [{"method": "warning", "params": {"threadId": self.thread_id, "message": text}}]
        if item.get("type") == "todo_list":
            return [self._event("turn/plan/updated", {"plan": _plan(item.get("items"))})]
        return [self._event(method, {"item": _item(item)})]

    def _error(self, message: Mapping[str, Any]) -> list[Message]:
        text = str(message.get("message"))
        members = {"error": _failure(text), "willRetry": text.startswith("Reconnecting")}
        return [self._event("error", members)]

    def _turn_failed(self, message: Mapping[str, Any]) -> list[Message]:
        error = message.get("error")
        text = error.get("message") if isinstance(error, Mapping) else None
        return [self._completed("failed", _failure(str(text or "codex exec gave no reason")))]

    def _turn_completed(self, message: Mapping[str, Any]) -> list[Message]:
        self.total = usage_of(message.get("usage"))
        added = self.total.since(self.baseline or TokenUsage())
        usage = {"total": _counts(self.total), "last": _counts(added)}
        report = self._event("thread/tokenUsage/updated", {"tokenUsage": usage})
        return [report, self._completed("completed")]

    def _completed(self, status: str, error: Message | None = None) -> Message:
        self.ended = True
        turn: Message = {"id": self.turn_id, "status": status, "items": [], "error": error}
        return {"method": "turn/completed", "params": {"threadId": self.thread_id, "turn": turn}}


def _item(item: Message) -> Message:
    """Return an item with the names of the app-server; unknown members are kept."""
    kind = str(item.get("type"))
    named = {_camel(name): value for name, value in item.items()}
    named["type"] = _ITEM_TYPES.get(kind, _camel(kind))
    status = item.get("status")
    if isinstance(status, str):
        named["status"] = _STATUSES.get(status, status)
    if kind == "reasoning":
        named |= {"summary": [str(named.pop("text", ""))], "content": []}
    if kind == "file_change":
        changes = item.get("changes")
        changes = changes if isinstance(changes, list) else []
        named["changes"] = [_change(one) for one in changes]
    if kind == "command_execution":
        named |= {"commandActions": [], "cwd": ""}
    return named


def _change(change: Any) -> Any:
    if not isinstance(change, dict):
        return change
    return {**change, "kind": {"type": change.get("kind")}, "diff": change.get("diff", "")}


def _plan(items: Any) -> list[Message]:
    steps = [one for one in items if isinstance(one, dict)] if isinstance(items, list) else []
    return [
        {
            "step": str(one.get("text")),
            "status": "completed" if one.get("completed") else "pending",
        }
        for one in steps
    ]


def _failure(text: str) -> Message:
    """Return a ``TurnError``; exec tells the cause in words only, so they are read."""
    status = _STATUS.search(text)
    lower = text.lower()
    info: Any = next((code for words, code in _WORDS if words in lower), "other")
    if info == "other" and status is not None:
        info = {"httpConnectionFailed": {"httpStatusCode": int(status[1])}}
    return {"message": text, "codexErrorInfo": info}


def usage_of(usage: Any) -> TokenUsage:
    """Read exec's counts, or those of a thread's record; what is absent counts as 0."""

    def count(name: str) -> int:
        value = usage.get(name) if isinstance(usage, Mapping) else None
        return value if isinstance(value, int) else 0

    return TokenUsage(
        count("input_tokens") + count("output_tokens"),
        count("input_tokens"),
        count("cached_input_tokens"),
        count("cache_write_input_tokens"),
        count("output_tokens"),
        count("reasoning_output_tokens"),
    )


def _counts(usage: TokenUsage) -> Message:
    return {
        "totalTokens": usage.total_tokens,
        "inputTokens": usage.input_tokens,
        "cachedInputTokens": usage.cached_input_tokens,
        "cacheWriteInputTokens": usage.cache_write_input_tokens,
        "outputTokens": usage.output_tokens,
        "reasoningOutputTokens": usage.reasoning_output_tokens,
    }


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in rest)


_HANDLERS: dict[str, Callable[[ExecTranslator, Mapping[str, Any]], list[Message]]] = {
    "thread.started": ExecTranslator._thread_started,
    "turn.started": ExecTranslator._turn_started,
    "item.started": ExecTranslator._item_started,
    "item.updated": ExecTranslator._item_started,
    "item.completed": ExecTranslator._item_completed,
    "error": ExecTranslator._error,
    "turn.failed": ExecTranslator._turn_failed,
    "turn.completed": ExecTranslator._turn_completed,
}
