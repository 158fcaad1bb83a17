"""The options of sessions and turns, and their check before anything is started.

Invariant: an option that is unknown or of the wrong type is refused by name, with what it takes;
values that only the server can judge pass. Used by `codex_app_server.session`.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypedDict

from codex_app_server import messages
from codex_app_server.approvals import ServerRequestHandlers
from codex_app_server.checks import Checks, check_options, is_seconds
from codex_app_server.connection import ClientInfo
from codex_app_server.launch_plan import LAUNCH_CHECKS, LaunchOptions
from codex_app_server.tools import Tool
from codex_app_server.transport import Transport

__all__ = [
    "OnMessage",
    "RunOptions",
    "SessionOptions",
    "ToolExecutor",
    "TurnOptions",
    "check_session_options",
    "check_turn_options",
    "split_run_options",
]

OnMessage = Callable[[messages.SessionMessage], None]
ToolExecutor = Callable[[str, Any], Mapping[str, Any] | Awaitable[Mapping[str, Any]]]
PathLike = str | os.PathLike[str]


class _Shared(TypedDict, total=False):
    """What a session sets for all turns and a turn may set for itself.

    Attributes:
        approval_policy: ``never`` by default for the session; see `Thread.run`.
        tool_executor: Answers calls of tools that were given as mappings: ``(name, arguments)``
            to ``{"success": ..., "contentItems": [...]}``. Plain (it runs in a thread) or async.
        on_message: Told of everything that happens; must not block.
        auto_approve: Give every approval and answer questions without a person. By default only
            where the approval policy is ``never``. Without it such a request ends the turn with
            `ApprovalNeeded` or `InputNeeded`.
        model: The server's by default.
    """

    approval_policy: Any
    tool_executor: ToolExecutor | None
    on_message: OnMessage | None
    auto_approve: bool | None
    model: str | None


class SessionOptions(_Shared, LaunchOptions, total=False):
    """Options of `Session.start`, besides those of `LaunchOptions` and `TurnOptions`.

    Attributes:
        command: Which Codex: see `Codex.start`.
        sandbox: ``workspace-write`` by default.
        tools: `Tool` objects, or mappings with ``name``, ``description`` and ``inputSchema``,
            which ``tool_executor`` answers.
        read_timeout_s: Deadline of each reply; 30 s by default.
        start_timeout_s: Deadline of the thread's start, which runs a login shell; 120 s.
        client_info: Who we are.
        resume: Id of a thread to go on with, instead of a new one.
        handlers: Answers to the server's requests instead of ``auto_approve``.
        transport: To talk over, instead of a process of our own.
        thread_options: More members of ``thread/start``; see `Connection.start_thread`.
    """

    command: PathLike | None
    sandbox: Any
    tools: Sequence[Tool | Mapping[str, Any]]
    read_timeout_s: float
    start_timeout_s: float
    client_info: ClientInfo
    resume: str | None
    handlers: ServerRequestHandlers | None
    transport: Transport | None
    thread_options: Mapping[str, Any]


class _OfTurn(TypedDict, total=False):
    """Options of a turn alone.

    Attributes:
        title: Name of the thread, as lists show it.
        sandbox_policy: Such as ``{"type": "workspaceWrite"}``; the thread's sandbox by default.
        turn_timeout_s: Total limit of the turn; an hour by default, None for no limit.
        idle_timeout_s: Limit of silence; none by default.
        interrupt_timeout_s: How long an interrupt is waited for, also that of a cancelled wait or
            of a limit; 10 s by default. See `TurnTimeouts`.
        effort: Reasoning effort.
        output_schema: JSON Schema of the final message.
    """

    title: str
    sandbox_policy: Any
    turn_timeout_s: float | None
    idle_timeout_s: float | None
    interrupt_timeout_s: float
    effort: str | None
    output_schema: Mapping[str, Any] | None


class TurnOptions(_Shared, _OfTurn, total=False):
    """Options of `Session.run`; what is left out is as the session has it."""


class RunOptions(SessionOptions, _OfTurn, total=False):
    """Options of `run`: those of a session and of its only turn."""


_SHARED: Checks = {
    "approval_policy": ("a policy", lambda value: True),
    "tool_executor": ("a function or None", lambda value: value is None or callable(value)),
    "on_message": ("a function or None", lambda value: value is None or callable(value)),
    "auto_approve": ("True, False or None", lambda value: value in (True, False, None)),
    "model": ("a string or None", lambda value: value is None or isinstance(value, str)),
}
_SESSION: Checks = {
    **_SHARED,
    **LAUNCH_CHECKS,
    "command": (
        "a path, a command or None",
        lambda value: value is None or isinstance(value, str | os.PathLike),
    ),
    "sandbox": ("a mode", lambda value: True),
    "tools": (
        "a list of tools",
        lambda value: isinstance(value, Sequence) and not isinstance(value, str),
    ),
    "read_timeout_s": ("seconds above 0", is_seconds),
    "start_timeout_s": ("seconds above 0", is_seconds),
    "client_info": ("a ClientInfo", lambda value: isinstance(value, ClientInfo)),
    "resume": ("a thread id or None", lambda value: value is None or isinstance(value, str)),
    "handlers": (
        "ServerRequestHandlers or None",
        lambda value: value is None or isinstance(value, ServerRequestHandlers),
    ),
    "transport": (
        "a Transport or None",
        lambda value: value is None or isinstance(value, Transport),
    ),
    "thread_options": ("a mapping", lambda value: isinstance(value, Mapping)),
}
_TURN: Checks = {
    **_SHARED,
    "title": ("a string", lambda value: isinstance(value, str)),
    "sandbox_policy": ("a policy", lambda value: True),
    "turn_timeout_s": ("seconds, or None", lambda value: value is None or is_seconds(value)),
    "idle_timeout_s": ("seconds, or None", lambda value: value is None or is_seconds(value)),
    "interrupt_timeout_s": ("seconds above 0", is_seconds),
    "effort": ("a string or None", lambda value: value is None or isinstance(value, str)),
    "output_schema": (
        "a mapping or None",
        lambda value: value is None or isinstance(value, Mapping),
    ),
}


def check_session_options(options: Mapping[str, Any]) -> None:
    """Raise `InvalidArgument` for what `SessionOptions` does not allow."""
    check_options(options, _SESSION)


def check_turn_options(options: Mapping[str, Any]) -> None:
    """Raise `InvalidArgument` for what `TurnOptions` does not allow."""
    check_options(options, _TURN)


def split_run_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of `run` as those of its session and those of its turn, checked."""
    of_turn = {name: one for name, one in options.items() if name in _OfTurn.__annotations__}
    check_turn_options(of_turn)
    return {name: one for name, one in options.items() if name not in of_turn}, of_turn
