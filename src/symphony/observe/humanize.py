"""Codex's messages as one short line for people (SPEC 13.6).

Role: ``humanize`` turns the last event of a run into at most 140 characters for the dashboard, the
terminal and the API. Both wire generations are understood: the notifications of the app-server
protocol (``item/started``, ...) and the older ``codex/event/*`` wrappers.
Invariant: a total function over any JSON value. It never raises, never reads more than the first
few kilobytes of a text, and what it returns is one line without control characters, whatever an
agent or an issue wrote. Nothing decides by these texts.
Neighbours: ``rate_limits`` for the figures of ``account/rateLimits/updated``; readers are ``web``
and ``terminal``.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .rate_limits import summarize_rate_limits

MAX_CHARS = 140
"""Longest line that ``humanize`` returns, ellipsis included."""
_PREVIEW_CHARS = 80
_READ_CHARS = 4096
"""A text is cut to this before it is cleaned: outputs of megabytes cost as much as short ones."""

_ESCAPES = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|[\x1b][\[][0-?]*[ -/]*[@-~]?|\x9b[0-?]*[ -/]*[@-~]?|\x1b."
)
# Beside C0 and C1: marks that reorder or hide text, and surrogates, which have no UTF-8.
_CONTROLS = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]"
)
_SPACES = re.compile(r"\s+")
_CAMEL = re.compile(r"([a-z0-9])([A-Z])")

_dump = reprlib.Repr()
_dump.maxlevel = 3
_dump.maxdict = _dump.maxlist = 8
_dump.maxstring = _dump.maxother = 60


def clean_line(text: str, limit: int) -> str:
    """Return ``text`` as one line of at most ``limit`` characters.

    Terminal escapes and control characters are removed, white space (also escaped ``\\n``) becomes
    single spaces, and a cut is marked with ``...``.
    """
    head = text[:_READ_CHARS].replace("\\n", " ")
    head = _SPACES.sub(" ", _ESCAPES.sub("", head))
    head = _CONTROLS.sub("", head).strip()
    return head if len(head) <= limit else head[: limit - 3].rstrip() + "..."


def format_count(count: int) -> str:
    """Return a count with thousands separators: ``12,345``."""
    return f"{count:,}"


def format_duration(seconds: float) -> str:
    """Return a length of time as ``Mm Ss``; minutes aren't folded into hours."""
    whole = max(0, int(seconds))
    return f"{whole // 60}m {whole % 60}s"


def humanize(event_name: str | None, message: Any) -> str:
    """Describe an event in one line of at most 140 characters.

    Args:
        event_name: Our name of the event (``session_started``, ``tool_call_completed``, ...), a
            protocol method, or None where only the message is known.
        message: The decoded protocol message (``{"method": ..., "params": ...}``), a wrapper with
            the message under ``payload``, a text, or None.
    """
    payload = _unwrap(message)
    text = _by_event(event_name, message, payload)
    if text is None:
        text = _by_payload(event_name, payload)
    return clean_line(text, MAX_CHARS)


def _unwrap(message: Any) -> Any:
    """Return what a wrapper carries under ``payload``, or the message itself."""
    if not isinstance(message, Mapping):
        return message
    if any(isinstance(message.get(key), str) for key in ("method", "session_id", "reason")):
        return message
    return message.get("payload") or message


def _by_event(event: str | None, message: Any, payload: Any) -> str | None:
    match event:
        case "session_started":
            session = _at(payload, "session_id")
            return f"session started ({session})" if isinstance(session, str) else "session started"
        case "turn_input_required":
            return "turn blocked: waiting for user input"
        case "approval_required":
            return "turn blocked: waiting for approval"
        case "approval_auto_approved":
            return _auto_approved(message, payload)
        case "tool_call" | "tool_call_completed" | "tool_call_failed" if isinstance(payload, str):
            # The history keeps the line that was made here before.
            return payload
        case "tool_call":
            action = _at(payload, "action")
            text = _named("changing the tracker", _tool_name(payload))
            return f"{text}: {action}" if isinstance(action, str) else text
        case "tool_call_completed":
            return _named("dynamic tool call completed", _tool_name(payload))
        case "tool_call_failed":
            return _named("dynamic tool call failed", _tool_name(payload))
        case "unsupported_tool_call":
            return _named("unsupported dynamic tool call rejected", _tool_name(payload))
        case "turn_ended_with_error":
            return _reason("turn ended with error", message)
        case "startup_failed":
            return _reason("startup failed", message)
        case "turn_failed":
            return _turn_failed(payload)
        case "turn_cancelled":
            return "turn cancelled"
        case "malformed":
            return "malformed JSON event from codex"
        case _:
            return None


def _by_payload(event: str | None, payload: Any) -> str:
    if isinstance(payload, Mapping):
        method = payload.get("method")
        if isinstance(method, str):
            return _by_method(method, payload)
        session = payload.get("session_id")
        if isinstance(session, str):
            return f"session started ({session})"
        if "error" in payload:
            return f"error: {_error_text(payload['error'])}"
        return _dump.repr(dict(payload))
    if payload is None:
        return _spoken(event) if event else "no codex message yet"
    return payload if isinstance(payload, str) else _dump.repr(payload)


def _by_method(method: str, payload: Mapping[str, Any]) -> str:
    if method.startswith("codex/event/"):
        return _by_wrapper(method.removeprefix("codex/event/"), payload)
    label = _STREAMING.get(method)
    if label is not None:
        return _detailed(label, _preview(payload))
    describe = _METHODS.get(method)
    if describe is not None:
        return describe(payload)
    return _named(method, _at(payload, "params", "msg", "type"))


def _by_wrapper(name: str, payload: Mapping[str, Any]) -> str:
    if name in ("item_started", "item_completed"):
        inner = _at(payload, "params", "msg", "payload", "type")
        if inner == "token_count":
            return _token_count(payload)
        return _named(name.replace("_", " "), _spoken(inner) if isinstance(inner, str) else None)
    label = _WRAPPED_STREAMING.get(name)
    if label is not None:
        return _detailed(label, _preview(payload))
    describe = _WRAPPED.get(name)
    if describe is not None:
        return describe(payload)
    return _WRAPPED_FIXED.get(name) or _named(name, _at(payload, "params", "msg", "type"))


# ---- one function a message --------------------------------------------------------------------


def _thread_started(payload: Mapping[str, Any]) -> str:
    return _named("thread started", _at(payload, "params", "thread", "id"))


def _turn_started(payload: Mapping[str, Any]) -> str:
    return _named("turn started", _at(payload, "params", "turn", "id"))


def _turn_completed(payload: Mapping[str, Any]) -> str:
    turn = _at(payload, "params", "turn")
    status = _at(turn, "status")
    text = f"turn completed ({_spoken(status) if isinstance(status, str) else 'completed'})"
    usage = _usage_text(
        _at(payload, "params", "usage")
        or _at(payload, "params", "tokenUsage")
        or _at(payload, "usage")
    )
    error = _at(turn, "error", "message")
    text = f"{text} ({usage})" if usage else text
    return _detailed(text, error if isinstance(error, str) else None)


def _turn_failed(payload: Any) -> str:
    error = _at(payload, "params", "error", "message") or _at(
        payload, "params", "turn", "error", "message"
    )
    return _detailed("turn failed", error if isinstance(error, str) else None)


def _turn_diff(payload: Mapping[str, Any]) -> str:
    diff = _at(payload, "params", "diff")
    if not isinstance(diff, str) or not diff:
        return "turn diff updated"
    lines = sum(1 for line in diff.split("\n") if line)
    return f"turn diff updated ({format_count(lines)} lines)"


def _turn_plan(payload: Mapping[str, Any]) -> str:
    for key in ("plan", "steps", "items"):
        steps = _at(payload, "params", key)
        if isinstance(steps, list):
            return f"plan updated ({len(steps)} steps)"
    return "plan updated"


def _token_usage(payload: Mapping[str, Any]) -> str:
    usage = _usage_text(_at(payload, "params", "tokenUsage", "total") or _at(payload, "usage"))
    return _named("thread token usage updated", usage)


def _command_approval(payload: Mapping[str, Any]) -> str:
    params = _at(payload, "params")
    command = _first(params, ("parsedCmd",), ("command",), ("cmd",), ("argv",), ("args",))
    return _named("command approval requested", _command_text(command))


def _file_approval(payload: Mapping[str, Any]) -> str:
    count = _first(_at(payload, "params"), ("fileChangeCount",), ("changeCount",))
    counted = isinstance(count, int) and count > 0
    return _named("file change approval requested", f"{count} files" if counted else None)


def _user_input(payload: Mapping[str, Any]) -> str:
    params = _at(payload, "params")
    question = _first(params, ("question",), ("prompt",))
    if question is None:
        questions = _at(params, "questions")
        if isinstance(questions, list) and questions:
            question = _at(questions[0], "question")
    return _detailed("tool requires user input", question)


def _account_updated(payload: Mapping[str, Any]) -> str:
    mode = _at(payload, "params", "authMode")
    return f"account updated (auth {mode if isinstance(mode, str) else 'unknown'})"


def _rate_limits(payload: Mapping[str, Any]) -> str:
    return f"rate limits updated: {summarize_rate_limits(_at(payload, 'params', 'rateLimits'))}"


def _server_error(payload: Mapping[str, Any]) -> str:
    error = _at(payload, "params", "error")
    again = " (will retry)" if _at(payload, "params", "willRetry") is True else ""
    return f"error{again}: {_error_text(error)}"


def _item_lifecycle(stage: str) -> Callable[[Mapping[str, Any]], str]:
    def describe(payload: Mapping[str, Any]) -> str:
        item = _at(payload, "params", "item")
        kind = _at(item, "type")
        name = _spoken(kind) if isinstance(kind, str) else "item"
        status, item_id = _at(item, "status"), _at(item, "id")
        facts = [item_id[:12]] if isinstance(item_id, str) and item_id else []
        facts += [_spoken(status)] if isinstance(status, str) and status else []
        text = f"item {stage}: {name}" + (f" ({', '.join(facts)})" if facts else "")
        return _detailed(text, _item_subject(kind, item))

    return describe


def _item_subject(kind: Any, item: Any) -> str | None:
    """Return what an item is about: its command, text, or tool."""
    match kind:
        case "commandExecution":
            return _command_text(_at(item, "command"))
        case "mcpToolCall":
            names = (_at(item, "server"), _at(item, "tool"))
            return " ".join(name for name in names if isinstance(name, str)) or None
        case "dynamicToolCall":
            tool = _at(item, "tool")
            return tool if isinstance(tool, str) else None
        case "agentMessage":
            text = _at(item, "text")
            return text if isinstance(text, str) else None
        case _:
            return None


def _token_count(payload: Mapping[str, Any]) -> str:
    usage = _first(
        _at(payload, "params"),
        ("msg", "payload", "info", "total_token_usage"),
        ("msg", "info", "total_token_usage"),
        ("tokenUsage", "total"),
    )
    return _named("token count update", _usage_text(usage))


def _mcp_startup(payload: Mapping[str, Any]) -> str:
    server = _at(payload, "params", "msg", "server") or "mcp"
    state = _at(payload, "params", "msg", "status", "state") or "updated"
    return f"mcp startup: {server} {state}"


def _exec_begin(payload: Mapping[str, Any]) -> str:
    command = _first(_at(payload, "params", "msg"), ("command",), ("parsed_cmd",))
    return _command_text(command) or "command started"


def _exec_end(payload: Mapping[str, Any]) -> str:
    code = _first(_at(payload, "params", "msg"), ("exit_code",), ("exitCode",))
    return _named("command completed", f"exit {code}" if isinstance(code, int) else None)


def _reasoning_focus(payload: Mapping[str, Any]) -> str:
    params = _at(payload, "params")
    keys = ("reason", "summaryText", "summary", "text")
    nests: tuple[tuple[str, ...], ...] = ((), ("msg",), ("msg", "payload"))
    focus = _first(params, *((*nest, key) for nest in nests for key in keys))
    return _detailed("reasoning update", focus)


def _auto_approved(message: Any, payload: Any) -> str:
    method = _at(payload, "method") or _at(message, "payload", "method")
    base = "approval request auto-approved"
    if isinstance(method, str):
        inner = payload if isinstance(payload, Mapping) else {}
        base = f"{_by_method(method, inner)} (auto-approved)"
    decision = _at(message, "decision")
    return f"{base}: {decision}" if isinstance(decision, str) else base


def _reason(label: str, message: Any) -> str:
    reason = _at(message, "reason")
    if reason is None and isinstance(message, Mapping):
        reason = _at(message, "error") or _at(message, "message")
    return label if message is None else f"{label}: {_error_text(reason or message)}"


_STREAMING = {
    "item/agentMessage/delta": "agent message streaming",
    "item/plan/delta": "plan streaming",
    "item/reasoning/summaryTextDelta": "reasoning summary streaming",
    "item/reasoning/summaryPartAdded": "reasoning summary section added",
    "item/reasoning/textDelta": "reasoning text streaming",
    "item/commandExecution/outputDelta": "command output streaming",
    "item/fileChange/outputDelta": "file change output streaming",
}
_METHODS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "thread/started": _thread_started,
    "turn/started": _turn_started,
    "turn/completed": _turn_completed,
    "turn/failed": _turn_failed,
    "turn/cancelled": lambda _: "turn cancelled",
    "turn/diff/updated": _turn_diff,
    "turn/plan/updated": _turn_plan,
    "thread/tokenUsage/updated": _token_usage,
    "item/started": _item_lifecycle("started"),
    "item/completed": _item_lifecycle("completed"),
    "item/commandExecution/requestApproval": _command_approval,
    "item/fileChange/requestApproval": _file_approval,
    "item/tool/requestUserInput": _user_input,
    "tool/requestUserInput": _user_input,
    "item/tool/call": lambda payload: _named("dynamic tool call requested", _tool_name(payload)),
    "account/updated": _account_updated,
    "account/rateLimits/updated": _rate_limits,
    "account/chatgptAuthTokens/refresh": lambda _: "account auth token refresh requested",
    "error": _server_error,
}
_WRAPPED_STREAMING = {
    "agent_message_delta": "agent message streaming",
    "agent_message_content_delta": "agent message content streaming",
    "agent_reasoning_delta": "reasoning streaming",
    "reasoning_content_delta": "reasoning content streaming",
}
_WRAPPED: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "mcp_startup_update": _mcp_startup,
    "agent_reasoning": _reasoning_focus,
    "exec_command_begin": _exec_begin,
    "exec_command_end": _exec_end,
    "token_count": _token_count,
}
_WRAPPED_FIXED = {
    "mcp_startup_complete": "mcp startup complete",
    "task_started": "task started",
    "user_message": "user message received",
    "agent_reasoning_section_break": "reasoning section break",
    "turn_diff": "turn diff updated",
    "exec_command_output_delta": "command output streaming",
    "mcp_tool_call_begin": "mcp tool call started",
    "mcp_tool_call_end": "mcp tool call completed",
}


# ---- pieces ------------------------------------------------------------------------------------


def _at(value: Any, *path: str) -> Any:
    """Return what lies under ``path`` in nested maps, or None."""
    for key in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def _first(value: Any, *paths: Sequence[str]) -> Any:
    return next((hit for path in paths if (hit := _at(value, *path)) is not None), None)


def _named(label: str, name: Any) -> str:
    """Append a name in brackets, where there is one."""
    if not isinstance(name, str) or not name.strip():
        return label
    return f"{label} ({clean_line(name, _PREVIEW_CHARS)})"


def _detailed(label: str, detail: Any) -> str:
    """Append a preview of a text after a colon, where there is one."""
    text = clean_line(detail, _PREVIEW_CHARS) if isinstance(detail, str) else ""
    return f"{label}: {text}" if text else label


def _spoken(name: str) -> str:
    """Return an identifier as words: ``commandExecution`` becomes ``command execution``."""
    words = _CAMEL.sub(r"\1 \2", name[:80])
    return re.sub(r"[_/-]", " ", words).lower().strip()


def _preview(payload: Mapping[str, Any]) -> str | None:
    params = _at(payload, "params")
    keys = ("delta", "textDelta", "outputDelta", "text", "summaryText")
    paths: list[tuple[str, ...]] = [path for key in keys for path in ((key,), ("msg", key))]
    paths += [("msg", "content")]
    paths += [("msg", "payload", key) for key in (*keys, "content")]
    text = _first(params, *paths)
    return text if isinstance(text, str) else None


def _tool_name(payload: Any) -> Any:
    return _first(payload, ("params", "tool"), ("params", "name"), ("tool",))


def _command_text(command: Any) -> str | None:
    if isinstance(command, Mapping):
        program = _first(command, ("parsedCmd",), ("command",), ("cmd",))
        args = _first(command, ("args",), ("argv",))
        if isinstance(program, str) and isinstance(args, list):
            return _command_text([program, *args])
        return _command_text(program if program is not None else args)
    if isinstance(command, list):
        if not all(isinstance(part, str) for part in command):
            return None
        command = " ".join(part[:_READ_CHARS] for part in command[:64])
    return clean_line(command, _PREVIEW_CHARS) or None if isinstance(command, str) else None


def _error_text(error: Any) -> str:
    message = _at(error, "message")
    if isinstance(message, str):
        return message
    return error if isinstance(error, str) else _dump.repr(error)


def _usage_text(usage: Any) -> str | None:
    figures = (
        ("in", ("input_tokens", "prompt_tokens", "inputTokens", "promptTokens")),
        ("out", ("output_tokens", "completion_tokens", "outputTokens", "completionTokens")),
        ("total", ("total_tokens", "total", "totalTokens")),
    )
    parts = [
        f"{label} {format_count(count)}"
        for label, keys in figures
        if (count := _whole(_first(usage, *((key,) for key in keys)))) is not None
    ]
    return ", ".join(parts) or None


def _whole(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and re.fullmatch(r"\s*-?\d{1,18}\s*", value):
        return int(value)
    return value if isinstance(value, int) else None
