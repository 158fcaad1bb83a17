"""An async client of the Codex app-server protocol: threads, turns, events, approvals, tools.

    async with await Codex.start() as codex:
        thread = await codex.start_thread(cwd="/repo", sandbox="workspace-write")
        result = await thread.run("Fix the failing test")
        print(result.final_message)

`codex_app_server.errors` has the tree of errors; `codex_app_server.protocol.types` the structs
that `Event.params` decodes to.

Invariant: importing this imports nothing else. A name brings its module when it is first used, so
who talks to an app-server pays nothing for ``codex exec``, WebSockets or the supervisor.
"""

# ruff: noqa: F405 # the errors' names come by the star below; a test compares them

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codex_app_server.approvals import (
        RequestKind,
        RequestOutcome,
        ServerRequestHandlers,
        ServerRequestInfo,
        ServerRequestRecord,
    )
    from codex_app_server.broker import PendingRequest
    from codex_app_server.buffering import BufferBudget
    from codex_app_server.connection import ClientInfo, Connection, ServerInfo
    from codex_app_server.errors import *  # noqa: F403 # one list, theirs
    from codex_app_server.events import Event, InvalidParams, MalformedLine, UnknownNotification
    from codex_app_server.exec import ExecClient, ExecRun
    from codex_app_server.home import HomeError
    from codex_app_server.launch import (
        Codex,
        CommandResult,
        ConnectionOptions,
        LaunchOptions,
        StartOptions,
        launch_app_server,
        run_codex,
    )
    from codex_app_server.protocol.turn import TokenUsage
    from codex_app_server.session import (
        Session,
        SessionResult,
        run,
        run_turn,
        start_session,
        stop_session,
    )
    from codex_app_server.session_options import RunOptions, SessionOptions, TurnOptions
    from codex_app_server.subscriptions import (
        Subscription,
    )
    from codex_app_server.supervisor import (
        Backoff,
        SupervisedThread,
        Supervisor,
        SupervisorEvent,
    )
    from codex_app_server.thread_options import (
        ThreadForkOptions,
        ThreadResumeOptions,
        ThreadStartOptions,
        TurnRunOptions,
    )
    from codex_app_server.threads import Thread
    from codex_app_server.tools import (
        FunctionTool,
        Tool,
        ToolCallContext,
        ToolOutput,
        tool,
        tools_of,
    )
    from codex_app_server.transport import FdTransport, SubprocessTransport, Transport
    from codex_app_server.turns import Turn, TurnResult, TurnTimeouts
    from codex_app_server.unattended import unsupported_tool_result
    from codex_app_server.versions import (
        Capabilities,
    )
    from codex_app_server.websocket import WebSocketTransport

__all__ = [
    "ActiveWriter",
    "ApprovalNeeded",
    "Backoff",
    "BinaryNotFound",
    "BufferBudget",
    "BufferLimitExceeded",
    "Capabilities",
    "CertificateRefused",
    "ClientInfo",
    "Codex",
    "CodexError",
    "CommandResult",
    "Connection",
    "ConnectionClosed",
    "ConnectionOptions",
    "Event",
    "ExecClient",
    "ExecFailed",
    "ExecRun",
    "ExperimentalRequired",
    "FdTransport",
    "FunctionTool",
    "HandshakeRefused",
    "HomeError",
    "InputNeeded",
    "InvalidArgument",
    "InvalidParams",
    "LaunchOptions",
    "LoginFailed",
    "MalformedLine",
    "MethodUnavailable",
    "MissingExtra",
    "Overloaded",
    "PendingRequest",
    "RecordingError",
    "RequestError",
    "RequestKind",
    "RequestOutcome",
    "RequestTimeout",
    "RunOptions",
    "ServerInfo",
    "ServerRequestHandlers",
    "ServerRequestInfo",
    "ServerRequestRecord",
    "Session",
    "SessionOptions",
    "SessionResult",
    "SlowClient",
    "StartOptions",
    "SubprocessTransport",
    "Subscription",
    "SupervisedThread",
    "Supervisor",
    "SupervisorEvent",
    "Thread",
    "ThreadForkOptions",
    "ThreadResumeOptions",
    "ThreadStartOptions",
    "TokenUsage",
    "Tool",
    "ToolCallContext",
    "ToolOutput",
    "Transport",
    "Turn",
    "TurnError",
    "TurnFailed",
    "TurnInProgress",
    "TurnInterrupted",
    "TurnOptions",
    "TurnResult",
    "TurnRunOptions",
    "TurnTimeout",
    "TurnTimeouts",
    "UnexpectedReply",
    "UnknownNotification",
    "UnsupportedVersion",
    "WebSocketTransport",
    "launch_app_server",
    "run",
    "run_codex",
    "run_turn",
    "start_session",
    "stop_session",
    "tool",
    "tools_of",
    "unsupported_tool_result",
]

_NAMES = {
    "approvals": (
        "RequestKind",
        "RequestOutcome",
        "ServerRequestHandlers",
        "ServerRequestInfo",
        "ServerRequestRecord",
    ),
    "broker": ("PendingRequest",),
    "buffering": ("BufferBudget",),
    "connection": (
        "ClientInfo",
        "Connection",
        "ServerInfo",
    ),
    "events": (
        "Event",
        "InvalidParams",
        "MalformedLine",
        "UnknownNotification",
    ),
    "exec": (
        "ExecClient",
        "ExecRun",
    ),
    "home": ("HomeError",),
    "launch": (
        "Codex",
        "CommandResult",
        "ConnectionOptions",
        "LaunchOptions",
        "StartOptions",
        "launch_app_server",
        "run_codex",
    ),
    "protocol.turn": ("TokenUsage",),
    "session": (
        "Session",
        "SessionResult",
        "run",
        "run_turn",
        "start_session",
        "stop_session",
    ),
    "session_options": (
        "RunOptions",
        "SessionOptions",
        "TurnOptions",
    ),
    "subscriptions": ("Subscription",),
    "supervisor": (
        "Backoff",
        "SupervisedThread",
        "Supervisor",
        "SupervisorEvent",
    ),
    "thread_options": (
        "ThreadForkOptions",
        "ThreadResumeOptions",
        "ThreadStartOptions",
        "TurnRunOptions",
    ),
    "threads": ("Thread",),
    "tools": (
        "FunctionTool",
        "Tool",
        "ToolCallContext",
        "ToolOutput",
        "tool",
        "tools_of",
    ),
    "transport": (
        "FdTransport",
        "SubprocessTransport",
        "Transport",
    ),
    "turns": (
        "Turn",
        "TurnResult",
        "TurnTimeouts",
    ),
    "unattended": ("unsupported_tool_result",),
    "versions": ("Capabilities",),
    "websocket": ("WebSocketTransport",),
}
"""Where each public name lives; the same as the imports for type checkers above.

What is in `__all__` and not here is an error: their one list is that of `errors`.
"""

_HOMES = dict.fromkeys(__all__, "errors")
_HOMES |= {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Return a public name, or a module of this package, imported now."""
    value: Any
    if name in _HOMES:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    else:
        try:
            value = import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
