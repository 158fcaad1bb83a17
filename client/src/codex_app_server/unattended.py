"""How a session without a person answers the server's requests, and what it tells of them.

Invariants: an approval is given only where the turn says ``auto_approve``; otherwise the request
is refused and the turn ended, so that nobody waits; every settled request becomes exactly one
message. Owned by `codex_app_server.session`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from codex_app_server import messages
from codex_app_server.approvals import (
    RequestKind,
    RequestOutcome,
    ServerRequestHandlers,
    ServerRequestInfo,
    ServerRequestRecord,
)
from codex_app_server.checks import TEXT, check_values
from codex_app_server.errors import ApprovalNeeded, InputNeeded, TurnError

__all__ = ["NO_OPERATOR", "Unattended", "unsupported_tool_result"]

NO_OPERATOR = "This is a non-interactive session. Operator input is unavailable."
_INPUT = (RequestKind.USER_INPUT, RequestKind.ELICITATION)
_APPROVALS = (
    RequestKind.COMMAND,
    RequestKind.FILE_CHANGE,
    RequestKind.PERMISSIONS,
    RequestKind.MCP_TOOL,
    RequestKind.LEGACY_COMMAND,
    RequestKind.LEGACY_FILE_CHANGE,
)
_CANCELLING = (RequestKind.COMMAND, RequestKind.FILE_CHANGE)


def unsupported_tool_result(name: str) -> dict[str, Any]:
    """Return the answer to a call of a tool that nobody serves, for a ``tool_executor``."""
    check_values(name=(name, TEXT))
    text = f"unknown tool: {name}"
    return {"success": False, "contentItems": [{"type": "inputText", "text": text}]}


class Unattended:
    """The answers of one session.

    Args:
        auto_approve: Asked at each request.
        refuse: Told why the turn must end.
        emit: Takes a kind of message and its fields.
    """

    def __init__(
        self,
        auto_approve: Callable[[], bool],
        refuse: Callable[[TurnError], None],
        emit: Callable[..., None],
    ) -> None:
        self._auto_approve = auto_approve
        self._refuse = refuse
        self._emit = emit
        self._told: set[int | str] = set()

    def handlers(self, given: ServerRequestHandlers | None) -> ServerRequestHandlers:
        """Return handlers that answer so, or the given ones; settled requests are told of."""
        if given is None:
            return ServerRequestHandlers(
                command=self._approve,
                file_change=self._approve,
                permissions=self._approve,
                mcp_tool=self._approve,
                user_input=self._answer,
                elicitation=self._answer,
                on_answered=self.settled,
            )
        members = {name: getattr(given, name) for name in given.__struct_fields__}
        told = given.on_answered

        def both(record: ServerRequestRecord) -> None:
            self.settled(record)
            if told is not None:
                told(record)

        return ServerRequestHandlers(**{**members, "on_answered": both})

    async def _approve(self, info: ServerRequestInfo) -> str:
        if self._auto_approve():
            return "accept"
        self._told.add(info.id)
        self._emit(messages.ApprovalRequired, request=info)
        self._refuse(ApprovalNeeded(info, thread_id=info.thread_id or "", turn_id=info.turn_id))
        return "cancel" if info.kind in _CANCELLING else "decline"

    async def _answer(self, info: ServerRequestInfo) -> Mapping[str, Any] | str:
        if self._auto_approve():
            # A form of an MCP server cannot be filled in blindly.
            return _answers(info) if info.kind is RequestKind.USER_INPUT else "decline"
        self._told.add(info.id)
        self._emit(messages.TurnInputRequired, request=info)
        self._refuse(InputNeeded(info, thread_id=info.thread_id or "", turn_id=info.turn_id))
        return "decline"

    def settled(self, record: ServerRequestRecord) -> None:
        """Tell of a settled request, once."""
        info, answer = record.request, record.answer or {}
        if info.id in self._told:
            self._told.discard(info.id)
        elif record.outcome is RequestOutcome.UNSUPPORTED:
            self._emit(messages.OtherMessage, request=info)
        elif info.kind is RequestKind.TOOL_CALL:
            tool = str(info.params.get("tool"))
            self._emit(_tool_message(tool, answer), tool=tool, request=info, answer=answer)
        elif info.kind in _APPROVALS:
            if _grants(answer):
                self._emit(messages.ApprovalAutoApproved, request=info, answer=answer)
            else:
                self._emit(messages.ApprovalRequired, request=info)
        elif info.kind in _INPUT:
            if record.outcome is RequestOutcome.ANSWERED:
                self._emit(messages.ToolInputAutoAnswered, request=info, answer=answer)
            else:
                self._emit(messages.TurnInputRequired, request=info)


def _tool_message(tool: str, answer: Mapping[str, Any]) -> type[messages.SessionMessage]:
    if answer.get("success"):
        return messages.ToolCallCompleted
    unsupported = answer == unsupported_tool_result(tool)
    return messages.UnsupportedToolCall if unsupported else messages.ToolCallFailed


def _grants(answer: Mapping[str, Any]) -> bool:
    decision = answer.get("decision", answer.get("action"))
    if decision is None:
        return bool(answer.get("permissions"))
    refusals = ("decline", "cancel", "denied", "abort")
    return decision not in refusals


def _answers(info: ServerRequestInfo) -> dict[str, Any]:
    """Answer each question with its first option (the recommended one), or say nobody is there."""
    answers: dict[str, Any] = {}
    questions = info.params.get("questions")
    for question in questions if isinstance(questions, list) else []:
        if isinstance(question, Mapping):
            options = question.get("options")
            first = options[0] if isinstance(options, list) and options else None
            label = first.get("label") if isinstance(first, Mapping) else None
            answers[str(question.get("id"))] = label if isinstance(label, str) else NO_OPERATOR
    return {"answers": {name: {"answers": [text]} for name, text in answers.items()}}
