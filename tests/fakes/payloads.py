"""Arbitrary payloads that a provider's own description allows: strategies from its schemas.

``from_openapi`` takes a JSON schema of an OpenAPI document, ``from_graphql`` the selection of a
document with the schema that it is asked of. Deep parts are left out where they may be.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLEnumType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    SelectionSetNode,
    get_named_type,
)
from hypothesis import strategies as st

_MAX_DEPTH = 6
_TEXTS = st.text(max_size=20)
_MOMENTS = st.datetimes(timezones=st.just(UTC)).map(lambda at: at.isoformat())
_NUMBERS = st.integers(-(2**53), 2**53)
_SCALARS: Mapping[str, st.SearchStrategy[Any]] = {
    "Boolean": st.booleans(),
    "DateTime": _MOMENTS,
    "Float": st.floats(allow_nan=False, allow_infinity=False) | _NUMBERS,
    "Int": st.integers(-(2**31), 2**31 - 1),
    "BigInt": _NUMBERS.map(str),
}


def from_openapi(schema: Any, document: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    """Values that fit a schema of an OpenAPI 3 document."""
    while "$ref" in schema:
        target: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        schema = target
    found = _plain(schema, document, depth)
    nullable = schema.get("nullable") is True or any(
        part.get("nullable") is True for part in schema.get("allOf", ())
    )
    return st.none() | found if nullable else found


def _plain(schema: Any, document: Any, depth: int) -> st.SearchStrategy[Any]:
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    for key in ("oneOf", "anyOf"):
        if key in schema:
            return st.one_of([from_openapi(one, document, depth + 1) for one in schema[key]])
    if "allOf" in schema:
        parts = [part for part in schema["allOf"] if part.keys() - {"nullable"}]
        drawn = st.tuples(*(from_openapi(part, document, depth) for part in parts))
        return drawn.map(_merged)
    match schema.get("type"):
        case "array":
            size = 2 if depth < _MAX_DEPTH else 0
            items = schema.get("items", {})
            return st.lists(
                from_openapi(items, document, depth + 1) if size else st.nothing(), max_size=size
            )
        case "string":
            return _MOMENTS if schema.get("format") == "date-time" else _TEXTS
        case "integer":
            return _NUMBERS
        case "number":
            return _SCALARS["Float"]
        case "boolean":
            return st.booleans()
        case _ if "properties" in schema:
            return _object(schema, document, depth)
    return st.none() | st.booleans() | _NUMBERS | _TEXTS


def _object(schema: Any, document: Any, depth: int) -> st.SearchStrategy[dict[str, Any]]:
    required = set(schema.get("required", ()))
    needed, others = {}, {}
    for name, inner in schema["properties"].items():
        if name in required:
            needed[name] = st.deferred(
                lambda inner=inner: from_openapi(inner, document, depth + 1)  # type: ignore[misc]
            )
        elif depth < _MAX_DEPTH and not name.endswith("_url"):
            others[name] = st.deferred(
                lambda inner=inner: from_openapi(inner, document, depth + 1)  # type: ignore[misc]
            )
    return st.fixed_dictionaries(needed, optional=others)


def _merged(parts: tuple[Any, ...]) -> Any:
    maps = [part for part in parts if isinstance(part, dict)]
    return {key: value for part in maps for key, value in part.items()} if maps else parts[0]


def from_graphql(
    schema: GraphQLSchema, document: DocumentNode, selections: SelectionSetNode, of: str
) -> st.SearchStrategy[Any]:
    """Values of an object type as this selection asks for it."""
    fragments = {
        node.name.value: node
        for node in document.definitions
        if isinstance(node, FragmentDefinitionNode)
    }
    owner = schema.type_map[of]
    assert isinstance(owner, GraphQLObjectType)

    def fields(selected: SelectionSetNode) -> list[FieldNode]:
        found: list[FieldNode] = []
        for selection in selected.selections:
            if isinstance(selection, FieldNode):
                found.append(selection)
            elif isinstance(selection, InlineFragmentNode):
                found += fields(selection.selection_set)
            elif isinstance(selection, FragmentSpreadNode):
                found += fields(fragments[selection.name.value].selection_set)
        return found

    def value(kind: Any, selected: SelectionSetNode | None) -> st.SearchStrategy[Any]:
        if isinstance(kind, GraphQLNonNull):
            return inner(kind.of_type, selected)
        return st.none() | inner(kind, selected)

    def inner(kind: Any, selected: SelectionSetNode | None) -> st.SearchStrategy[Any]:
        if isinstance(kind, GraphQLList):
            return st.lists(value(kind.of_type, selected), max_size=3)
        if isinstance(kind, GraphQLEnumType):
            return st.sampled_from(sorted(kind.values))
        if selected is None:
            return _SCALARS.get(get_named_type(kind).name, _TEXTS)
        nested = get_named_type(kind)
        return from_graphql(schema, document, selected, nested.name)

    return st.fixed_dictionaries(
        {
            field.alias.value if field.alias else field.name.value: value(
                owner.fields[field.name.value].type, field.selection_set
            )
            for field in fields(selections)
            if field.name.value in owner.fields
        }
    )
