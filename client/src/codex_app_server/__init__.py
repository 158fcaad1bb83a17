"""An async client of the Codex app-server protocol: threads, turns, events, approvals, tools.

    async with await Codex.start() as codex:
        thread = await codex.start_thread(cwd="/repo", sandbox="workspace-write")
        result = await thread.run("Fix the failing test")
        print(result.final_message)

`codex_app_server.errors` has the tree of errors; `codex_app_server.protocol.types` the structs
that `Event.params` decodes to.
"""

from codex_app_server.approvals import (
    RequestKind,
    RequestOutcome,
    ServerRequestHandlers,
    ServerRequestInfo,
    ServerRequestRecord,
)
from codex_app_server.broker import PendingRequest
from codex_app_server.connection import ClientInfo, Connection, ServerInfo
from codex_app_server.errors import (
    ActiveWriter,
    BinaryNotFound,
    CodexError,
    ConnectionClosed,
    InvalidArgument,
    Overloaded,
    RequestError,
    RequestTimeout,
    TurnError,
    TurnFailed,
    TurnInProgress,
    TurnInterrupted,
    TurnTimeout,
    UnexpectedReply,
)
from codex_app_server.events import Event, InvalidParams, MalformedLine, UnknownNotification
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

__all__ = [
    "ActiveWriter",
    "BinaryNotFound",
    "ClientInfo",
    "Codex",
    "CodexError",
    "CommandResult",
    "Connection",
    "ConnectionClosed",
    "ConnectionOptions",
    "Event",
    "FdTransport",
    "FunctionTool",
    "HomeError",
    "InvalidArgument",
    "InvalidParams",
    "LaunchOptions",
    "MalformedLine",
    "Overloaded",
    "PendingRequest",
    "RequestError",
    "RequestKind",
    "RequestOutcome",
    "RequestTimeout",
    "ServerInfo",
    "ServerRequestHandlers",
    "ServerRequestInfo",
    "ServerRequestRecord",
    "StartOptions",
    "SubprocessTransport",
    "Thread",
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
    "TurnResult",
    "TurnTimeout",
    "TurnTimeouts",
    "UnexpectedReply",
    "UnknownNotification",
    "launch_app_server",
    "run_codex",
    "tool",
    "tools_of",
]
