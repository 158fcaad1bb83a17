"""What a `Session` tells its ``on_message`` callback: one frozen struct for each kind.

    match message:
        case messages.TurnCompleted(result=result): ...
        case messages.ToolCallFailed(tool=name): ...

Invariant: `SessionMessage.event` is the kind's name as configuration and logs have it
(``turn_completed``); `EVENTS` maps every name to its struct. Made by `codex_app_server.session`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from msgspec import Struct

from codex_app_server import errors
from codex_app_server.approvals import ServerRequestInfo
from codex_app_server.events import Event
from codex_app_server.events import MalformedLine as MalformedLineEvent
from codex_app_server.turns import TurnResult

__all__ = [
    "EVENTS",
    "ApprovalAutoApproved",
    "ApprovalRequired",
    "Malformed",
    "Notification",
    "OtherMessage",
    "SessionMessage",
    "SessionStarted",
    "StartupFailed",
    "ToolCallCompleted",
    "ToolCallFailed",
    "ToolInputAutoAnswered",
    "TurnCancelled",
    "TurnCompleted",
    "TurnEndedWithError",
    "TurnFailed",
    "TurnInputRequired",
    "UnsupportedToolCall",
]


class SessionMessage(Struct, frozen=True, kw_only=True):
    """What all kinds have.

    Attributes:
        event: The kind's name, such as ``turn_completed``.
        at: Unix seconds.
        thread_id: Of the session; None before there is one.
        turn_id: Of the running turn, or None.
    """

    event: ClassVar[str] = ""
    at: float
    thread_id: str | None = None
    turn_id: str | None = None

    @property
    def session_id(self) -> str | None:
        """``<thread id>-<turn id>``; None before there is a turn."""
        return None if self.turn_id is None else f"{self.thread_id}-{self.turn_id}"


class SessionStarted(SessionMessage, frozen=True, kw_only=True):
    """A turn has started; its ids are known."""

    event: ClassVar[str] = "session_started"


class StartupFailed(SessionMessage, frozen=True, kw_only=True):
    """The session or a turn could not be started; the error is raised too."""

    event: ClassVar[str] = "startup_failed"
    error: Exception


class TurnCompleted(SessionMessage, frozen=True, kw_only=True):
    """The turn is done."""

    event: ClassVar[str] = "turn_completed"
    result: TurnResult


class TurnFailed(SessionMessage, frozen=True, kw_only=True):
    """The turn ended with status "failed"; the error is raised too."""

    event: ClassVar[str] = "turn_failed"
    error: errors.TurnFailed


class TurnCancelled(SessionMessage, frozen=True, kw_only=True):
    """The turn was interrupted; ``error`` is None where the awaiting task was cancelled."""

    event: ClassVar[str] = "turn_cancelled"
    error: errors.TurnInterrupted | None = None


class TurnEndedWithError(SessionMessage, frozen=True, kw_only=True):
    """The turn ended on our side: a time-out, a lost server, an approval that nobody gives."""

    event: ClassVar[str] = "turn_ended_with_error"
    error: Exception


class TurnInputRequired(SessionMessage, frozen=True, kw_only=True):
    """The agent asks a question that nobody answers."""

    event: ClassVar[str] = "turn_input_required"
    request: ServerRequestInfo


class ApprovalRequired(SessionMessage, frozen=True, kw_only=True):
    """The agent wants an approval that was not given."""

    event: ClassVar[str] = "approval_required"
    request: ServerRequestInfo


class ApprovalAutoApproved(SessionMessage, frozen=True, kw_only=True):
    """An approval was given without a person; ``answer`` is what was sent."""

    event: ClassVar[str] = "approval_auto_approved"
    request: ServerRequestInfo
    answer: Mapping[str, Any]


class ToolInputAutoAnswered(SessionMessage, frozen=True, kw_only=True):
    """A question was answered without a person; ``answer`` is what was sent."""

    event: ClassVar[str] = "tool_input_auto_answered"
    request: ServerRequestInfo
    answer: Mapping[str, Any]


class ToolCallCompleted(SessionMessage, frozen=True, kw_only=True):
    """A tool of ours did what it was asked."""

    event: ClassVar[str] = "tool_call_completed"
    tool: str
    request: ServerRequestInfo
    answer: Mapping[str, Any]


class ToolCallFailed(SessionMessage, frozen=True, kw_only=True):
    """A tool of ours failed; the model reads why in ``answer``."""

    event: ClassVar[str] = "tool_call_failed"
    tool: str
    request: ServerRequestInfo
    answer: Mapping[str, Any]


class UnsupportedToolCall(SessionMessage, frozen=True, kw_only=True):
    """The agent called a tool that nobody serves; it was told so."""

    event: ClassVar[str] = "unsupported_tool_call"
    tool: str
    request: ServerRequestInfo
    answer: Mapping[str, Any]


class Notification(SessionMessage, frozen=True, kw_only=True):
    """Any notification of the server that this library knows."""

    event: ClassVar[str] = "notification"
    notification: Event


class OtherMessage(SessionMessage, frozen=True, kw_only=True):
    """A notification or a server request of a later version; one of the two is None."""

    event: ClassVar[str] = "other_message"
    notification: Event | None = None
    request: ServerRequestInfo | None = None


class Malformed(SessionMessage, frozen=True, kw_only=True):
    """A line of the server's output that is no message."""

    event: ClassVar[str] = "malformed"
    line: MalformedLineEvent


EVENTS: dict[str, type[SessionMessage]] = {
    kind.event: kind
    for kind in (
        SessionStarted,
        TurnCompleted,
        TurnFailed,
        TurnCancelled,
        TurnEndedWithError,
        TurnInputRequired,
        ApprovalRequired,
        ApprovalAutoApproved,
        ToolCallCompleted,
        ToolCallFailed,
        UnsupportedToolCall,
        ToolInputAutoAnswered,
        Notification,
        Malformed,
        OtherMessage,
        StartupFailed,
    )
}
