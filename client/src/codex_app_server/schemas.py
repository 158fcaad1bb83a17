"""JSON Schema and checked arguments out of a function's signature.

Invariant: what the schema allows is what the function receives, decoded into the annotated types;
what it does not allow is a `msgspec.ValidationError` whose text names the place, for the model to
read. Schemas are self-contained: no ``$ref``, which a model provider may not follow.

Used by `codex_app_server.tools`; `msgspec` knows the types (str, int, float, bool, list, dict,
Optional, Literal, Enum, dataclass, TypedDict, Struct, and ``Annotated[..., Meta(...)]``).
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec

from codex_app_server.errors import InvalidArgument

__all__ = ["Signature", "read_signature", "schema_of"]

_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns|Raises|Yields|Examples?):\s*$")
_PARAMETER = re.compile(r"^\s+\*{0,2}(\w+)(?:\s*\([^)]*\))?:\s*(.*)$")
_ANONYMOUS = ("title",)


class Signature(msgspec.Struct, frozen=True):
    """What a function takes, as the model sees it.

    Attributes:
        schema: JSON Schema of the arguments, an object.
        arguments: Struct that arguments are converted to.
        description: The docstring up to its first section.
        special: Parameters that the caller fills in itself, by the type that asked for them.
    """

    schema: dict[str, Any]
    arguments: type[msgspec.Struct]
    description: str
    special: Mapping[type, str]

    def convert(self, arguments: Any) -> dict[str, Any]:
        """Return keyword arguments for the function.

        Raises:
            msgspec.ValidationError: They do not fit the schema.
        """
        checked = msgspec.convert({} if arguments is None else arguments, self.arguments)
        return {name: getattr(checked, name) for name in self.arguments.__struct_fields__}


def schema_of(annotation: Any) -> dict[str, Any]:
    """Return the JSON Schema of a type, without ``$ref`` and without titles.

    Raises:
        InvalidArgument: JSON cannot carry the type, or it contains itself.
    """
    try:
        (schema,), components = msgspec.json.schema_components([annotation], ref_template="{name}")
    except (TypeError, RuntimeError) as error:
        raise InvalidArgument(f"{annotation!r} has no JSON Schema: {error}") from error
    inlined = _inline(schema, components, ())
    return typing.cast("dict[str, Any]", inlined)


def read_signature(
    function: Callable[..., Any], *, special: tuple[type, ...] = (), skip_first: bool = False
) -> Signature:
    """Read the parameters of a function.

    Args:
        function: Whose parameters are all annotated.
        special: Types that the caller fills in; a parameter of such a type is no argument.
        skip_first: Leave the first parameter out (``self``).

    Raises:
        InvalidArgument: A parameter without a type, a variadic or positional-only one, or a type
            that JSON cannot carry.
    """
    name = getattr(function, "__name__", repr(function))
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise InvalidArgument(f"tool {name}: an annotation cannot be resolved: {error}") from error
    description, documented = _read_docstring(inspect.getdoc(function) or "")
    fields: list[Any] = []
    filled: dict[type, str] = {}
    parameters = list(inspect.signature(function).parameters.values())[skip_first:]
    for parameter in parameters:
        annotation = _annotation(name, parameter, hints)
        if annotation in special:
            filled[annotation] = parameter.name
            continue
        if parameter.name in documented:
            meta = msgspec.Meta(description=documented[parameter.name])
            annotation = Annotated[annotation, meta]
        fields.append((parameter.name, annotation, *_default(parameter)))
    arguments = msgspec.defstruct(
        "arguments", fields, kw_only=True, forbid_unknown_fields=True, frozen=True
    )
    try:
        schema = schema_of(arguments)
    except InvalidArgument as error:
        raise InvalidArgument(f"tool {name}: {error}") from error
    return Signature(schema, arguments, description, filled)


def _annotation(name: str, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Any:
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise InvalidArgument(
            f"tool {name}: parameter {parameter.name} is variadic or positional-only; "
            "give each argument a name"
        )
    if parameter.name not in hints:
        raise InvalidArgument(f"tool {name}: parameter {parameter.name} has no type annotation")
    return hints[parameter.name]


def _default(parameter: inspect.Parameter) -> tuple[Any, ...]:
    if parameter.default is inspect.Parameter.empty:
        return ()
    if isinstance(parameter.default, list | dict | set):
        value = parameter.default
        return (msgspec.field(default_factory=lambda: value.copy()),)
    return (parameter.default,)


def _inline(node: Any, components: Mapping[str, Any], above: tuple[str, ...]) -> Any:
    if isinstance(node, list):
        return [_inline(one, components, above) for one in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if isinstance(reference, str):
        if reference in above:
            raise InvalidArgument(f"the type {reference} contains itself, which a tool cannot take")
        rest = {key: value for key, value in node.items() if key != "$ref"}
        found = _inline(components[reference], components, (*above, reference))
        return {**found, **rest}
    return {
        # Below "properties" the keys are names, not words of JSON Schema.
        key: {name: _inline(one, components, above) for name, one in value.items()}
        if key == "properties"
        else _inline(value, components, above)
        for key, value in node.items()
        if key not in _ANONYMOUS
    }


def _read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """Split a docstring into its description and what its Args section says of each parameter."""
    description: list[str] = []
    parameters: dict[str, str] = {}
    section, current = "", ""
    for line in text.splitlines():
        if heading := _SECTION.match(line):
            section = heading[1]
        elif not section:
            description.append(line)
        elif section in ("Args", "Arguments", "Parameters"):
            # A parameter's line is indented once, its continuation further.
            indent = len(line) - len(line.lstrip())
            if indent <= 4 and (found := _PARAMETER.match(line)):
                current = found[1]
                parameters[current] = found[2].strip()
            elif current and line.strip():
                parameters[current] = f"{parameters[current]} {line.strip()}".strip()
    return "\n".join(description).strip(), parameters
