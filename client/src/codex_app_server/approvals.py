"""How requests of the server are answered: a policy a kind, fail-closed.

Invariants: the default declines everything; a reply that would persist (a rule or network
amendment, an elicitation kept "always") is only sent where `ServerRequestHandlers.allow_persistent`
says so; an MCP tool's approval, which comes as an elicitation, follows the approval policy and
never the form's. What cannot be decided is declined.

This module knows the shapes; `codex_app_server.broker` runs the callbacks and sends the replies.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec import Struct, field

from codex_app_server.answers import (
    elicitation_reply,
    legacy_reply,
    permissions_reply,
    questions_reply,
    without_nulls,
)
from codex_app_server.checks import (
    FLAG,
    FUNCTION,
    LIMIT,
    SECONDS,
    TABLE,
    WORDS,
    Check,
    check_values,
    optional,
    shown,
)
from codex_app_server.errors import InvalidArgument
from codex_app_server.values import approval_decision

__all__ = [
    "Policy",
    "RequestKind",
    "RequestOutcome",
    "ServerRequestHandlers",
    "ServerRequestInfo",
    "ServerRequestRecord",
    "kind_of",
]


class RequestKind(enum.StrEnum):
    """What the server asks for."""

    COMMAND = "command"
    FILE_CHANGE = "file_change"
    PERMISSIONS = "permissions"
    USER_INPUT = "user_input"
    ELICITATION = "elicitation"
    MCP_TOOL = "mcp_tool"
    TOOL_CALL = "tool_call"
    TOKEN_REFRESH = "token_refresh"
    CURRENT_TIME = "current_time"
    ATTESTATION = "attestation"
    LEGACY_COMMAND = "legacy_command"
    LEGACY_FILE_CHANGE = "legacy_file_change"
    UNKNOWN = "unknown"


_KINDS = {
    "item/commandExecution/requestApproval": RequestKind.COMMAND,
    "item/fileChange/requestApproval": RequestKind.FILE_CHANGE,
    "item/permissions/requestApproval": RequestKind.PERMISSIONS,
    "item/tool/requestUserInput": RequestKind.USER_INPUT,
    "mcpServer/elicitation/request": RequestKind.ELICITATION,
    "item/tool/call": RequestKind.TOOL_CALL,
    "account/chatgptAuthTokens/refresh": RequestKind.TOKEN_REFRESH,
    "currentTime/read": RequestKind.CURRENT_TIME,
    "attestation/generate": RequestKind.ATTESTATION,
    "execCommandApproval": RequestKind.LEGACY_COMMAND,
    "applyPatchApproval": RequestKind.LEGACY_FILE_CHANGE,
}
MCP_APPROVAL_KEY = "codex_approval_kind"


class RequestOutcome(enum.StrEnum):
    """What became of a server request."""

    ANSWERED = "answered"
    """By policy or callback."""
    TIMED_OUT = "timed_out"
    """The handler passed its deadline; the safe reply was sent."""
    FAILED = "failed"
    """The handler raised or returned something odd; the safe reply was sent."""
    RESOLVED = "resolved"
    """The server took it back or another client answered; nothing was sent."""
    CANCELLED = "cancelled"
    """The turn was interrupted, or ended while a person was asked (the safe reply was sent), or the
    connection closed."""
    UNSUPPORTED = "unsupported"
    """Answered with a JSON-RPC error at once."""


AN_ID: Check = ("a number or a text", lambda value: isinstance(value, int | str))
A_KIND: Check = ("a RequestKind", lambda value: isinstance(value, RequestKind))


class ServerRequestInfo(Struct, frozen=True, kw_only=True):
    """A request of the server, as a callback sees it.

    Attributes:
        id: Of the request; may be 0 or a string.
        method: On the wire.
        kind: Of the request.
        thread_id: Or None.
        turn_id: Or None.
        item_id: Of the item that waits, or None.
        params: As received.
    """

    id: int | str
    method: str
    kind: RequestKind
    thread_id: str | None
    turn_id: str | None
    item_id: str | None
    params: Mapping[str, Any]

    def __post_init__(self) -> None:
        check_values(
            id=(self.id, AN_ID),
            method=(self.method, WORDS),
            kind=(self.kind, A_KIND),
            thread_id=(self.thread_id, optional(WORDS)),
            turn_id=(self.turn_id, optional(WORDS)),
            item_id=(self.item_id, optional(WORDS)),
            params=(self.params, TABLE),
        )


class ServerRequestRecord(Struct, frozen=True, kw_only=True):
    """What was asked and what was answered, for audit and events.

    Attributes:
        request: What was asked.
        outcome: What became of it.
        answer: The result that was sent; None where none was.
        policy: ``decline``, ``accept``, ``accept_for_session``, ``callback``, ``manual``, ``tool``
            or ``none``.
        error: Why the safe reply was sent instead, or None.
        asked_at: Monotonic seconds.
        answered_at: Monotonic seconds.
        warnings: What was translated in the answer that the caller gave, one sentence each.
    """

    request: ServerRequestInfo
    outcome: RequestOutcome
    answer: Mapping[str, Any] | None
    policy: str
    error: str | None
    asked_at: float
    answered_at: float
    warnings: tuple[str, ...] = ()


Answer = str | Mapping[str, Any] | None
Callback = Callable[[ServerRequestInfo], Awaitable[Answer]]
Policy = str | Callback
A_REQUEST: Check = (
    "a ServerRequestInfo",
    lambda value: isinstance(value, ServerRequestInfo),
)
_POLICIES = frozenset({"decline", "accept", "accept_for_session", "manual"})


class ServerRequestHandlers(Struct, frozen=True, kw_only=True):
    """A policy for each kind of request.

    A policy is ``"decline"``, ``"accept"``, ``"accept_for_session"``, ``"manual"`` (the request
    waits in `Connection.pending_requests` for a person) or ``async (ServerRequestInfo) -> answer``.
    An answer is one of those words, ``"cancel"``, or the result for the wire as a mapping; None
    declines. For ``user_input`` a mapping of question id to text or texts will do as well.

    Attributes:
        command: Run a command (also the legacy method).
        file_change: Apply a patch (also the legacy method).
        permissions: Grant permissions; accepting grants what was asked for, for the turn.
        user_input: Answer questions; declining sends no answers and the turn goes on.
        elicitation: Fill in an MCP server's form; accepting without content sends an empty one.
        mcp_tool: Run an MCP tool that wants approval.
        token_refresh: A callback that returns the token fields; else refused with an error.
        attestation: A callback that returns ``{"token": ...}``; else refused with an error.
        other: Callbacks for further methods; their result goes to the wire as it is.
        timeout_s: Deadline of callbacks and tools, then the safe reply is sent.
        manual_timeout_s: Deadline of manual requests; None waits for ever.
        allow_persistent: Let replies through that outlive the session (rule and network
            amendments, elicitations kept "always"); without it they are turned into a decline.
        on_answered: Told of every request once it is settled; must not block or raise.

    Raises:
        InvalidArgument: A policy that is neither a known word nor callable, or a member of the
            wrong type.
    """

    command: Policy = "decline"
    file_change: Policy = "decline"
    permissions: Policy = "decline"
    user_input: Policy = "decline"
    elicitation: Policy = "decline"
    mcp_tool: Policy = "decline"
    token_refresh: Callback | None = None
    attestation: Callback | None = None
    other: Mapping[str, Callback] = field(default_factory=dict)
    timeout_s: float = 60.0
    manual_timeout_s: float | None = None
    allow_persistent: bool = False
    on_answered: Callable[[ServerRequestRecord], None] | None = None

    def __post_init__(self) -> None:
        for name in (
            "command",
            "file_change",
            "permissions",
            "user_input",
            "elicitation",
            "mcp_tool",
        ):
            policy = getattr(self, name)
            if not callable(policy) and not (isinstance(policy, str) and policy in _POLICIES):
                allowed = ", ".join(sorted(_POLICIES))
                raise InvalidArgument(f"{name}={shown(policy)}: use a callable or one of {allowed}")
        check_values(
            token_refresh=(self.token_refresh, optional(FUNCTION)),
            attestation=(self.attestation, optional(FUNCTION)),
            other=(self.other, ("a mapping of methods to functions", _are_callbacks)),
            timeout_s=(self.timeout_s, SECONDS),
            manual_timeout_s=(self.manual_timeout_s, LIMIT),
            allow_persistent=(self.allow_persistent, FLAG),
            on_answered=(self.on_answered, optional(FUNCTION)),
        )

    def policy_for(self, request: ServerRequestInfo) -> Policy | None:
        """Return the policy of a request; None where only an error can be answered."""
        check_values(request=(request, A_REQUEST))
        match request.kind:
            case RequestKind.COMMAND | RequestKind.LEGACY_COMMAND:
                return self.command
            case RequestKind.FILE_CHANGE | RequestKind.LEGACY_FILE_CHANGE:
                return self.file_change
            case RequestKind.PERMISSIONS:
                return self.permissions
            case RequestKind.USER_INPUT:
                return self.user_input
            case RequestKind.ELICITATION:
                return self.elicitation
            case RequestKind.MCP_TOOL:
                return self.mcp_tool
            case RequestKind.TOKEN_REFRESH:
                return self.token_refresh
            case RequestKind.ATTESTATION:
                return self.attestation
            case _:
                return self.other.get(request.method)


def _are_callbacks(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    return all(isinstance(name, str) and callable(one) for name, one in value.items())


def kind_of(method: str, params: Mapping[str, Any]) -> RequestKind:
    """Tell what a server request asks for; MCP tool approvals apart from other elicitations."""
    kind = _KINDS.get(method, RequestKind.UNKNOWN)
    if kind is RequestKind.ELICITATION:
        meta = params.get("_meta")
        if isinstance(meta, Mapping) and meta.get(MCP_APPROVAL_KEY) is not None:
            return RequestKind.MCP_TOOL
    return kind


def safe_reply(request: ServerRequestInfo) -> dict[str, Any] | None:
    """Return the reply that grants nothing; None where only an error will do."""
    match request.kind:
        case RequestKind.COMMAND | RequestKind.FILE_CHANGE:
            return {"decision": "decline"}
        case RequestKind.PERMISSIONS:
            return {"permissions": {}, "scope": "turn"}
        case RequestKind.USER_INPUT:
            return {"answers": {}}
        case RequestKind.ELICITATION | RequestKind.MCP_TOOL:
            return {"action": "decline", "content": None}
        case RequestKind.LEGACY_COMMAND | RequestKind.LEGACY_FILE_CHANGE:
            return {"decision": "denied"}
        case RequestKind.TOOL_CALL:
            text = "the tool did not answer in time"
            return {"success": False, "contentItems": [{"type": "inputText", "text": text}]}
        case _:
            return None


_V2 = {
    "accept": "accept",
    "accept_for_session": "acceptForSession",
    "decline": "decline",
    "cancel": "cancel",
}
_LEGACY = {
    "accept": "approved",
    "accept_for_session": "approved_for_session",
    "decline": "denied",
    "cancel": "abort",
}


def encode_answer(
    request: ServerRequestInfo, answer: Answer, warnings: list[str] | None = None
) -> dict[str, Any]:
    """Turn a policy's word or a callback's mapping into the result for the wire.

    Older spellings of a decision are translated and noted in ``warnings``.

    Raises:
        InvalidArgument: An answer that this kind of request does not know.
    """
    if isinstance(answer, Mapping):
        return _checked_reply(request, answer, [] if warnings is None else warnings)
    word = "decline" if answer is None else answer
    if word not in tuple(_V2):  # not by its hash: it may be anything
        raise InvalidArgument(
            f"answer={shown(word)} is no answer to {request.method}: {', '.join(_V2)}"
        )
    match request.kind:
        case RequestKind.COMMAND | RequestKind.FILE_CHANGE:
            return {"decision": _V2[word]}
        case RequestKind.LEGACY_COMMAND | RequestKind.LEGACY_FILE_CHANGE:
            return {"decision": _LEGACY[word]}
        case RequestKind.PERMISSIONS if word in ("accept", "accept_for_session"):
            asked = request.params.get("permissions")
            scope = "session" if word == "accept_for_session" else "turn"
            return {"permissions": without_nulls(asked), "scope": scope}
        case RequestKind.ELICITATION | RequestKind.MCP_TOOL:
            return _elicitation_answer(request, word)
        case RequestKind.USER_INPUT if word in ("accept", "accept_for_session"):
            return _first_options(request)
    reply = safe_reply(request)
    if reply is None:
        raise InvalidArgument(f"{word!r} is no answer to {request.method}: return its result")
    return reply


def _checked_reply(
    request: ServerRequestInfo, answer: Mapping[str, Any], warnings: list[str]
) -> dict[str, Any]:
    match request.kind:
        case RequestKind.COMMAND | RequestKind.FILE_CHANGE:
            return approval_decision(answer, warnings)
        case RequestKind.LEGACY_COMMAND | RequestKind.LEGACY_FILE_CHANGE:
            return legacy_reply(answer)
        case RequestKind.PERMISSIONS:
            return permissions_reply(answer)
        case RequestKind.USER_INPUT:
            return questions_reply(answer)
        case RequestKind.ELICITATION | RequestKind.MCP_TOOL:
            return elicitation_reply(answer)
    return dict(answer)


def _elicitation_answer(request: ServerRequestInfo, word: str) -> dict[str, Any]:
    if word in ("decline", "cancel"):
        return {"action": word, "content": None}
    reply: dict[str, Any] = {"action": "accept", "content": {}}
    if word == "accept_for_session" and request.kind is RequestKind.MCP_TOOL:
        reply["_meta"] = {"persist": "session"}
    return reply


def _first_options(request: ServerRequestInfo) -> dict[str, Any]:
    """Accepting questions unseen chooses each one's first option; none for free text."""
    chosen: dict[str, Any] = {}
    questions = request.params.get("questions")
    for question in questions if isinstance(questions, list) else []:
        options = question.get("options") if isinstance(question, Mapping) else None
        if isinstance(options, list) and options and isinstance(options[0], Mapping):
            label = options[0].get("label")
            if isinstance(label, str):
                chosen[str(question.get("id"))] = label
    return questions_reply(chosen)


def is_persistent(result: Mapping[str, Any]) -> bool:
    """Tell whether a reply outlives the session: it changes rules that later threads follow."""
    decision = result.get("decision")
    if isinstance(decision, Mapping) and any("mendment" in str(key) for key in decision):
        return True
    meta = result.get("_meta")
    return isinstance(meta, Mapping) and meta.get("persist") == "always"
