"""Dynamic tools: what the agent may call on our side, and how its calls are answered.

    @tool
    async def look_up(key: str, limit: int = 10) -> list[str]:
        '''Look a key up in the catalogue.'''

Invariant: every call gets a valid answer. A tool that raises, is unknown, gets arguments that its
schema forbids or returns something odd yields ``success: false`` and a text that the model can
read; a JSON-RPC error would lose it. Called by `codex_app_server.broker`, each call in a task of
its own, so calls run in parallel. `codex_app_server.schemas` reads signatures.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import inspect
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, overload

import msgspec
from msgspec import Struct

from codex_app_server.checks import (
    CONTENT,
    FLAG,
    FUNCTION,
    LIMIT,
    TABLE,
    TEXT,
    WORDS,
    Check,
    check_values,
    optional,
)
from codex_app_server.errors import InvalidArgument
from codex_app_server.schemas import read_signature

__all__ = [
    "FunctionTool",
    "Tool",
    "ToolCallContext",
    "ToolOutput",
    "call_tool",
    "tool",
    "tool_specs",
    "tools_of",
]

_NAME = re.compile(r"[a-zA-Z0-9_-]+\Z")


TOOL_NAME: Check = (
    "letters, digits, '_' and '-' only, at least one",
    lambda name: isinstance(name, str) and _NAME.match(name) is not None,
)


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

    def __post_init__(self) -> None:
        check_values(
            thread_id=(self.thread_id, WORDS),
            turn_id=(self.turn_id, WORDS),
            call_id=(self.call_id, WORDS),
            tool=(self.tool, WORDS),
            namespace=(self.namespace, optional(WORDS)),
        )


class ToolOutput(Struct, frozen=True):
    """What a tool answers.

    Attributes:
        content: Items such as ``{"type": "inputText", "text": "..."}``, ``inputImage`` with
            ``imageUrl``, ``inputAudio`` with ``audioUrl``. One text reaches the model as a string.
        success: Whether the tool did what it was asked.
    """

    content: tuple[Mapping[str, Any], ...]
    success: bool = True

    def __post_init__(self) -> None:
        check_values(
            content=(self.content, ("a tuple of mappings", _is_content)),
            success=(self.success, FLAG),
        )

    @classmethod
    def text(cls, text: str, *, success: bool = True) -> ToolOutput:
        """Return one text."""
        check_values(text=(text, WORDS))
        return cls(({"type": "inputText", "text": text},), success)

    @classmethod
    def image(cls, image: bytes | str, *, mime: str = "image/png") -> ToolOutput:
        """Return one image: its bytes, or a URL (``https:`` or ``data:``)."""
        check_values(image=(image, BYTES_OR_URL), mime=(mime, TEXT))
        return cls(({"type": "inputImage", "imageUrl": _url(image, mime)},))

    @classmethod
    def audio(cls, audio: bytes | str, *, mime: str = "audio/wav") -> ToolOutput:
        """Return one sound: its bytes, or a URL."""
        check_values(audio=(audio, BYTES_OR_URL), mime=(mime, TEXT))
        return cls(({"type": "inputAudio", "audioUrl": _url(audio, mime)},))

    def __add__(self, other: ToolOutput) -> ToolOutput:
        """Return both contents; successful if both are."""
        return ToolOutput((*self.content, *other.content), self.success and other.success)

    def encode(self) -> dict[str, Any]:
        """Return the reply to ``item/tool/call``."""
        return {"success": self.success, "contentItems": [dict(item) for item in self.content]}


BYTES_OR_URL: Check = ("bytes, or a URL", lambda one: CONTENT[1](one) or TEXT[1](one))
ToolResult = ToolOutput | str | Mapping[str, Any] | Sequence[Any] | None
ToolHandler = Callable[[Any, ToolCallContext], Awaitable[ToolResult]]


class Tool(Struct, frozen=True):
    """A tool that the agent may call; `tool` makes one out of a function.

    Attributes:
        name: Letters, digits, ``_`` and ``-``.
        description: For the model.
        input_schema: JSON Schema of the arguments, an object.
        handler: ``async (arguments, context) -> ToolOutput | str | JSON value``. A mapping with
            the keys of the wire (``success``, ``contentItems``) is passed as it is; any other
            value becomes JSON text. What it raises becomes a failed result.
        timeout_s: After which the call counts as failed; None: the connection's limit.
        namespace: Groups tools under a name of their own; servers before 0.163 refuse it.
        namespace_description: For the model; the first tool of a namespace that has one counts.
        defer_loading: The server may keep the tool from the model until it searches for it.

    Raises:
        InvalidArgument: A name that the server would refuse, or a schema that is no object.
    """

    name: str
    description: str
    input_schema: Mapping[str, Any]
    handler: ToolHandler
    timeout_s: float | None = None
    namespace: str | None = None
    namespace_description: str = ""
    defer_loading: bool = False

    def __post_init__(self) -> None:
        check_values(name=(self.name, TOOL_NAME), namespace=(self.namespace, optional(TOOL_NAME)))
        try:
            check_values(
                description=(self.description, WORDS),
                input_schema=(self.input_schema, TABLE),
                handler=(self.handler, FUNCTION),
                timeout_s=(self.timeout_s, LIMIT),
                namespace_description=(self.namespace_description, WORDS),
                defer_loading=(self.defer_loading, FLAG),
            )
        except InvalidArgument as error:
            raise InvalidArgument(f"tool {self.name}: {error}") from None


class FunctionTool(Tool, frozen=True, kw_only=True):
    """A tool made by `tool` out of a function; calling it calls the function.

    Attributes:
        function: As it was decorated.
    """

    function: Callable[..., Any]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_values(function=(self.function, FUNCTION))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, unchecked."""
        return self.function(*args, **kwargs)

    def __get__(self, instance: object | None, owner: type | None = None) -> FunctionTool:
        """Bind a method's tool to its instance, as Python binds the method."""
        if instance is None:
            return self
        return _make(self, functools.partial(self.function, instance), self.function)


@overload
def tool(function: Callable[..., Any], /) -> FunctionTool: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    namespace: str | None = None,
    namespace_description: str = "",
    timeout_s: float | None = None,
    defer_loading: bool = False,
) -> Callable[[Callable[..., Any]], FunctionTool]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    namespace: str | None = None,
    namespace_description: str = "",
    timeout_s: float | None = None,
    defer_loading: bool = False,
) -> FunctionTool | Callable[[Callable[..., Any]], FunctionTool]:
    """Make a function or a method a tool: its schema from its annotations and defaults.

    The docstring's text is the description, its ``Args:`` section describes the parameters. A
    parameter annotated `ToolCallContext` gets the context and is no argument. A plain function
    runs in a thread of its own, so it may block; a coroutine function runs in the loop. Arguments
    that do not fit come back to the model as a failed call which says what is wrong.

    Args:
        function: What is decorated.
        name: The function's by default.
        description: The docstring's by default.
        namespace: See `Tool`, for this and all that follow.
        namespace_description: Of the namespace.
        timeout_s: Of a call.
        defer_loading: Found by a search only.

    Raises:
        InvalidArgument: A parameter without a type or of one that JSON cannot carry, a bad name, or
            an argument of the wrong type.
    """
    check_values(
        function=(function, optional(FUNCTION)),
        name=(name, optional(TOOL_NAME)),
        description=(description, optional(WORDS)),
    )
    # Checked where the decorator stands, whatever it decorates.
    template = FunctionTool(
        name or "unnamed",
        description or "",
        {},
        _unbound,
        timeout_s,
        namespace,
        namespace_description,
        defer_loading,
        function=_unbound,
    )

    def decorate(function: Callable[..., Any]) -> FunctionTool:
        first = next(iter(inspect.signature(function).parameters), None)
        own_name = name or function.__name__
        own = msgspec.structs.replace(template, name=own_name, function=function)
        if first == "self":
            # Read now all the same: a fault of the signature is found where it is written.
            read_signature(function, special=(ToolCallContext,), skip_first=True)
            return own
        return _make(own, function, function)

    return decorate if function is None else decorate(function)


def tools_of(instance: object, *, namespace: str | None = None) -> list[Tool]:
    """Return the tools of an object whose class decorates methods with `tool`.

    Args:
        instance: Whose methods the tools call.
        namespace: For tools that name none themselves; its description is the class's docstring.

    Raises:
        InvalidArgument: The class has no decorated method.
    """
    check_values(namespace=(namespace, optional(TOOL_NAME)))
    names = [name for name in dir(type(instance)) if _is_tool(type(instance), name)]
    found: list[Tool] = [getattr(instance, name) for name in names]
    if not found:
        raise InvalidArgument(f"{type(instance).__name__} has no method decorated with @tool")
    if namespace is None:
        return found
    text = inspect.getdoc(type(instance)) or ""
    return [
        one
        if one.namespace is not None
        else msgspec.structs.replace(one, namespace=namespace, namespace_description=text)
        for one in found
    ]


TOOLS: Check = (
    "a list of tools",
    lambda value: isinstance(value, Sequence) and all(isinstance(one, Tool) for one in value),
)


def tool_specs(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Return ``dynamicTools`` of ``thread/start``; tools of one namespace in one entry.

    Raises:
        InvalidArgument: Two tools of one name in one namespace.
    """
    check_values(tools=(tools, TOOLS))
    seen: set[tuple[str | None, str]] = set()
    specs: list[dict[str, Any]] = []
    spaces: dict[str, dict[str, Any]] = {}
    for one in tools:
        if (one.namespace, one.name) in seen:
            raise InvalidArgument(f"two tools are named {one.name!r}")
        seen.add((one.namespace, one.name))
        spec: dict[str, Any] = {
            "name": one.name,
            "description": one.description,
            "inputSchema": dict(one.input_schema),
        }
        if one.defer_loading:
            spec["deferLoading"] = True
        if one.namespace is None:
            specs.append(spec)
            continue
        space = spaces.get(one.namespace)
        if space is None:
            space = {"type": "namespace", "name": one.namespace, "description": "", "tools": []}
            spaces[one.namespace] = space
            specs.append(space)
        space["description"] = space["description"] or one.namespace_description
        space["tools"].append({"type": "function", **spec})
    return specs


async def call_tool(tool: Tool | None, arguments: Any, context: ToolCallContext) -> ToolOutput:
    """Call a tool; whatever happens in it becomes an output. Cancellation passes through."""
    if tool is None:
        # A resumed thread offers the tools that it was started with, whoever serves it.
        return ToolOutput.text(f"unknown tool: {context.tool}", success=False)
    try:
        return _output(await tool.handler(arguments, context))
    except Exception as error:
        text = str(error)
        kind = type(error).__name__
        return ToolOutput.text(f"{tool.name} failed: {kind}: {text}".rstrip(": "), success=False)


def _make(
    template: FunctionTool, target: Callable[..., Any], function: Callable[..., Any]
) -> FunctionTool:
    bound = target is not function
    signature = read_signature(function, special=(ToolCallContext,), skip_first=bound)
    asynchronous = inspect.iscoroutinefunction(function)

    async def handler(arguments: Any, context: ToolCallContext) -> Any:
        try:
            keywords = signature.convert(arguments)
        except msgspec.ValidationError as error:
            return ToolOutput.text(f"invalid arguments: {error}", success=False)
        keywords |= dict.fromkeys(signature.special.values(), context)
        if asynchronous:
            return await target(**keywords)
        result = await asyncio.to_thread(target, **keywords)
        return await result if inspect.isawaitable(result) else result

    return msgspec.structs.replace(
        template,
        description=template.description or signature.description,
        input_schema=signature.schema,
        handler=handler,
    )


async def _unbound(arguments: Any, context: ToolCallContext) -> ToolResult:
    text = f"{context.tool} is a method: pass tools_of(an instance)"
    return ToolOutput.text(text, success=False)


def _is_content(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(isinstance(one, Mapping) for one in value)


def _is_tool(owner: type, name: str) -> bool:
    return isinstance(inspect.getattr_static(owner, name, None), FunctionTool)


def _url(data: bytes | str, mime: str) -> str:
    if isinstance(data, str):
        return data
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


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
