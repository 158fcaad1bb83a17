"""Dynamic tools: what the agent may call on our side, and how its calls are answered.

Invariant: every call gets a valid answer. A tool that raises, is unknown or returns something
odd yields ``success: false`` and a text that the model can read; a JSON-RPC error would lose it.
Called by `codex_app_server.broker`, each call in a task of its own, so calls run in parallel.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from codex_app_server.errors import InvalidArgument

__all__ = ["Tool", "ToolCallContext", "ToolOutput", "call_tool", "tool_specs"]

_NAME = re.compile(r"[a-zA-Z0-9_-]+\Z")


class ToolCallContext(Struct, frozen=True):
    """Which call this is.

    Attributes:
        thread_id: That calls.
        turn_id: That calls.
        call_id: Of this call; also the id of its item.
        tool: Name as called.
        namespace: Of the tool, or None.
    """

    thread_id: str
    turn_id: str
    call_id: str
    tool: str
    namespace: str | None = None


class ToolOutput(Struct, frozen=True):
    """What a tool answers.

    Attributes:
        content: Items such as ``{"type": "inputText", "text": "..."}``, ``inputImage`` with
            ``imageUrl``, ``inputAudio`` with ``audioUrl``. One text reaches the model as a string.
        success: Whether the tool did what it was asked.
    """

    content: tuple[Mapping[str, Any], ...]
    success: bool = True

    @classmethod
    def text(cls, text: str, *, success: bool = True) -> ToolOutput:
        """Return one text."""
        return cls(({"type": "inputText", "text": text},), success)

    def encode(self) -> dict[str, Any]:
        """Return the reply to ``item/tool/call``."""
        return {"success": self.success, "contentItems": [dict(item) for item in self.content]}


ToolResult = ToolOutput | str | Mapping[str, Any] | Sequence[Any] | None
ToolHandler = Callable[[Any, ToolCallContext], Awaitable[ToolResult]]


class Tool(Struct, frozen=True):
    """A tool that the agent may call.

    Attributes:
        name: Letters, digits, ``_`` and ``-``.
        description: For the model.
        input_schema: JSON Schema of the arguments, an object.
        handler: ``async (arguments, context) -> ToolOutput | str | JSON value``. A mapping with
            the keys of the wire (``success``, ``contentItems``) is passed as it is; any other
            value becomes JSON text. What it raises becomes a failed result.
        timeout_s: After which the call counts as failed; None: the connection's limit.

    Raises:
        InvalidArgument: A name that the server would refuse, or a schema that is no object.
    """

    name: str
    description: str
    input_schema: Mapping[str, Any]
    handler: ToolHandler
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise InvalidArgument(
                f"tool name {self.name!r}: use letters, digits, '_' and '-' only, at least one"
            )
        if not isinstance(self.input_schema, Mapping):
            raise InvalidArgument(f"tool {self.name}: input_schema is not a mapping")


def tool_specs(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Return ``dynamicTools`` of ``thread/start``.

    Raises:
        InvalidArgument: Two tools of one name.
    """
    seen: set[str] = set()
    for tool in tools:
        if tool.name in seen:
            raise InvalidArgument(f"two tools are named {tool.name!r}")
        seen.add(tool.name)
    return [
        {
            "name": tool.name,
            "description": tool.description,
            "inputSchema": dict(tool.input_schema),
        }
        for tool in tools
    ]


async def call_tool(tool: Tool | None, arguments: Any, context: ToolCallContext) -> ToolOutput:
    """Call a tool; whatever happens in it becomes an output. Cancellation passes through."""
    if tool is None:
        return ToolOutput.text(f"unknown tool: {context.tool}", success=False)
    try:
        return _output(await tool.handler(arguments, context))
    except Exception as error:
        text = str(error)
        kind = type(error).__name__
        return ToolOutput.text(f"{tool.name} failed: {kind}: {text}".rstrip(": "), success=False)


def _output(result: ToolResult) -> ToolOutput:
    if isinstance(result, ToolOutput):
        return result
    if result is None:
        return ToolOutput.text("")
    if isinstance(result, str):
        return ToolOutput.text(result)
    if isinstance(result, Mapping) and isinstance(result.get("contentItems"), list):
        return ToolOutput(tuple(result["contentItems"]), bool(result.get("success", False)))
    return ToolOutput.text(msgspec.json.encode(result).decode())
