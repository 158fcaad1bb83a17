"""Tools made out of functions: schema, checked arguments, results, namespaces."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import threading
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pytest
from codex_app_server import InvalidArgument, ToolCallContext, ToolOutput, tool, tools_of
from codex_app_server.schemas import schema_of
from codex_app_server.tools import call_tool, tool_specs

CONTEXT = ToolCallContext("thread", "turn", "call", "name")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Point:
    x: int
    y: float = 1.5


class Named(TypedDict):
    name: str


class Box(msgspec.Struct):
    corner: Point
    title: str = ""


class Node(msgspec.Struct):
    below: list[Node] = []


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (str, {"type": "string"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (str | None, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        (Literal["a", "b"], {"enum": ["a", "b"]}),
        (Colour, {"enum": ["blue", "red"]}),
        (
            Point,
            {
                "type": "object",
                "properties": {"x": {"type": "integer"}, "y": {"type": "number", "default": 1.5}},
                "required": ["x"],
            },
        ),
        (
            Named,
            {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
        ),
    ],
)
def test_a_type_has_its_schema(annotation: Any, schema: dict[str, Any]) -> None:
    assert schema_of(annotation) == schema


def test_types_within_types_are_written_out_and_a_property_may_be_called_title() -> None:
    schema = schema_of(Box)
    assert schema["properties"]["corner"] == schema_of(Point)
    assert schema["properties"]["title"] == {"type": "string", "default": ""}
    assert "$ref" not in str(schema)


def test_a_type_that_contains_itself_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="Node contains itself"):
        schema_of(Node)


def test_a_function_becomes_a_tool_with_descriptions_from_its_docstring() -> None:
    @tool
    def look_up(key: str, limit: Annotated[int, msgspec.Meta(ge=1)] = 10) -> str:
        """Look a key up.

        In the catalogue.

        Args:
            key: Of the entry,
                as printed.
            limit: At most so many.

        Returns:
            What was found.
        """
        return key * limit

    assert look_up.name == "look_up"
    assert look_up.description == "Look a key up.\n\nIn the catalogue."
    assert look_up.input_schema == {
        "type": "object",
        "properties": {
            "key": {"type": "string", "description": "Of the entry, as printed."},
            "limit": {
                "type": "integer",
                "minimum": 1,
                "default": 10,
                "description": "At most so many.",
            },
        },
        "required": ["key"],
        "additionalProperties": False,
    }
    assert look_up("ab", 2) == "abab"


async def test_arguments_are_decoded_into_the_annotated_types() -> None:
    seen: list[Any] = []

    @tool
    async def take(box: Box, colour: Colour = Colour.RED, tags: list[str] = []) -> Box:  # noqa: B006 # the default must not be shared, which is what is tested
        seen.append((box, colour, tags))
        tags.append("used")
        return box

    for _ in range(2):
        output = await call_tool(
            take, {"box": {"corner": {"x": 1, "y": 2}}, "colour": "blue"}, CONTEXT
        )
        assert output == ToolOutput.text('{"corner":{"x":1,"y":2.0},"title":""}')
    await call_tool(take, {"box": {"corner": {"x": 1}}}, CONTEXT)
    await call_tool(take, {"box": {"corner": {"x": 1}}}, CONTEXT)
    assert seen[0][:2] == (Box(Point(1, 2.0)), Colour.BLUE)
    assert [tags for _, _, tags in seen] == [["used"]] * 4


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"n": "3"}, "invalid arguments: Expected `int`, got `str` - at `$.n`"),
        ({}, "invalid arguments: Object missing required field `n`"),
        (None, "invalid arguments: Object missing required field `n`"),
        ({"n": 1, "m": 2}, "invalid arguments: Object contains unknown field `m`"),
        ([], "invalid arguments: Expected `object`, got `array`"),
    ],
)
async def test_arguments_that_do_not_fit_fail_in_words(arguments: Any, text: str) -> None:
    @tool
    async def count(n: int) -> str:
        return str(n)

    assert await call_tool(count, arguments, CONTEXT) == ToolOutput.text(text, success=False)


async def test_a_context_is_passed_and_is_no_argument() -> None:
    @tool
    async def who(context: ToolCallContext) -> str:
        return context.call_id

    assert who.input_schema["properties"] == {}
    assert await call_tool(who, {}, CONTEXT) == ToolOutput.text("call")


async def test_plain_functions_may_block_and_run_side_by_side() -> None:
    both = threading.Barrier(2, timeout=5)

    @tool
    def meet() -> str:
        both.wait()
        return "met"

    outputs = await asyncio.gather(call_tool(meet, {}, CONTEXT), call_tool(meet, {}, CONTEXT))
    assert outputs == [ToolOutput.text("met")] * 2


class Shop:
    """What the shop sells."""

    def __init__(self, stock: dict[str, int]) -> None:
        self.stock = stock

    @tool
    async def in_stock(self, article: str) -> int:
        """Tell how many there are."""
        return self.stock[article]

    @tool(name="list", timeout_s=3, defer_loading=True)
    def articles(self) -> list[str]:
        return list(self.stock)


async def test_methods_become_tools_of_their_instance() -> None:
    found = {one.name: one for one in tools_of(Shop({"pen": 3}), namespace="shop")}
    in_stock, listing = found["in_stock"], found["list"]
    assert (in_stock.name, listing.name, listing.timeout_s) == ("in_stock", "list", 3)
    assert await call_tool(in_stock, {"article": "pen"}, CONTEXT) == ToolOutput.text("3")
    assert await call_tool(listing, {}, CONTEXT) == ToolOutput.text('["pen"]')
    failed = await call_tool(in_stock, {"article": "ink"}, CONTEXT)
    assert failed == ToolOutput.text("in_stock failed: KeyError: 'ink'", success=False)
    assert tool_specs([in_stock, listing]) == [
        {
            "type": "namespace",
            "name": "shop",
            "description": "What the shop sells.",
            "tools": [
                {
                    "type": "function",
                    "name": "in_stock",
                    "description": "Tell how many there are.",
                    "inputSchema": in_stock.input_schema,
                },
                {
                    "type": "function",
                    "name": "list",
                    "description": "",
                    "inputSchema": listing.input_schema,
                    "deferLoading": True,
                },
            ],
        }
    ]


async def test_a_method_without_its_instance_fails_in_words() -> None:
    output = await call_tool(Shop.in_stock, {"article": "pen"}, CONTEXT)
    assert not output.success
    assert "tools_of" in output.content[0]["text"]


def test_one_name_may_be_in_two_namespaces_but_not_twice_in_one() -> None:
    @tool(namespace="one")
    def same() -> None: ...

    other = msgspec.structs.replace(same, namespace="two")
    assert [spec["name"] for spec in tool_specs([same, other])] == ["one", "two"]
    with pytest.raises(InvalidArgument, match="two tools are named 'same'"):
        tool_specs([same, same])


async def test_a_call_reaches_the_tool_of_its_namespace(server: Any, connect: Any) -> None:
    @tool(namespace="one")
    async def same() -> str:
        return "one"

    @tool(name="same", namespace="two")
    async def other() -> str:
        return "two"

    connection = await connect()
    await connection.start_thread(tools=[same, other])
    call = {"threadId": server.thread_id, "turnId": server.turn_id, "callId": "c", "tool": "same"}
    for number, (namespace, text) in enumerate(
        [("one", "one"), ("two", "two"), (None, "unknown tool: same")]
    ):
        params = {**call, "namespace": namespace, "arguments": {}}
        server.feed({"method": "item/tool/call", "id": number, "params": params})
        reply = (await server.replied(number))["result"]
        assert reply["contentItems"] == [{"type": "inputText", "text": text}]


def test_images_and_sounds_are_urls_and_outputs_add_up() -> None:
    output = ToolOutput.text("a") + ToolOutput.image(b"\x01") + ToolOutput.audio("https://x/y")
    assert output.encode() == {
        "success": True,
        "contentItems": [
            {"type": "inputText", "text": "a"},
            {"type": "inputImage", "imageUrl": "data:image/png;base64,AQ=="},
            {"type": "inputAudio", "audioUrl": "https://x/y"},
        ],
    }
    assert not (output + ToolOutput.text("no", success=False)).success


def untyped(x): ...  # type: ignore[no-untyped-def] # what is tested


def variadic(*x: int) -> None: ...


def odd(x: threading.Lock) -> None: ...


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (untyped, "parameter x has no type annotation"),
        (variadic, "parameter x is variadic"),
        (odd, "has no JSON Schema"),
    ],
)
def test_a_function_that_cannot_be_a_tool_is_refused_where_it_is_written(
    function: Any, text: str
) -> None:
    with pytest.raises(InvalidArgument, match=text):
        tool(function)


def test_a_bad_name_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="namespace='a b': give letters"):

        @tool(namespace="a b")
        def fine() -> None: ...


def test_an_object_without_tools_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="object has no method decorated"):
        tools_of(object())
