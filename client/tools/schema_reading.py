"""Reads the JSON schema of the app-server protocol: its definitions, unions, enums and methods.

The first half of ``generate_types.py``, which writes Python from what this module finds.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUNDLE = "codex_app_server_protocol.schemas.json"
TAG_FIELDS = ("type", "mode", "method", "kind")

RESPONSE_NAMES = {
    "account/gatewayOAuth/cancel": "GatewayOAuthCancelResponse",
    "account/logout": "LogoutAccountResponse",
    "account/securitySetup/read": "GetAccountSecuritySetupResponse",
    "account/workspaceMessages/read": "GetWorkspaceMessagesResponse",
    "accountSession/list": "AccountSessionsResponse",
    "config/batchWrite": "ConfigWriteResponse",
    "config/mcpServer/reload": "McpServerRefreshResponse",
    "config/value/write": "ConfigWriteResponse",
    "externalAgentConfig/import/readHistories": "ExternalAgentConfigImportHistoriesReadResponse",
}
"""Answers whose name follows neither from the parameters' name nor from the method's."""

Json = dict[str, Any]


class SchemaError(Exception):
    """The schema has a shape that the rules do not cover; extend the generator."""


def load_bundle(folder: Path) -> Json:
    """Return the definitions of a schema folder, with the ``v2`` ones beside the older ones."""
    definitions: Json = dict(json.loads((folder / BUNDLE).read_bytes())["definitions"])
    newer: Json = definitions.pop("v2")
    return {**newer, **definitions}


def digest(*bundles: Json) -> str:
    """Return the SHA-256 of the definitions in canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(bundles, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def constant(schema: Any) -> str | None:
    """Return the only value that a schema allows, if it is one string."""
    if not isinstance(schema, dict):
        return None
    values = [schema["const"]] if "const" in schema else schema.get("enum", [])
    return values[0] if len(values) == 1 and isinstance(values[0], str) else None


def members(schema: Json) -> list[Json]:
    """Return the alternatives of a schema without ``null``."""
    alternatives: list[Json] = schema.get("oneOf") or schema.get("anyOf") or []
    return [one for one in alternatives if one.get("type") != "null"]


def tag_of(schema: Json) -> str | None:
    """Return the field that tells the variants of a union apart, or None."""
    variants = members(schema)
    for name in TAG_FIELDS if len(variants) > 1 else ():
        tags = [constant(one.get("properties", {}).get(name)) for one in variants]
        if None not in tags and len(set(tags)) == len(tags):
            return name
    return None


def enum_values(schema: Json) -> list[str] | None:
    """Return the values of a string enum, the empty list for any string, None for no string."""
    if schema.get("type") == "string":
        return sorted(schema.get("enum", []))
    variants = members(schema)
    if variants and all(one.get("type") == "string" for one in variants):
        return sorted(value for one in variants for value in one.get("enum", []))
    return None


def mixed_values(schema: Json) -> list[str]:
    """Return the strings and the single keys that an untagged union allows."""
    values: set[str] = set()
    for one in members(schema):
        values.update(value for value in one.get("enum", []) if isinstance(value, str))
        if len(one.get("required", [])) == 1:
            values.update(one["required"])
    return sorted(values)


def references(schema: Any) -> Iterator[str]:
    """Yield the names of the definitions that a schema refers to."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"].rsplit("/", 1)[-1]
        for value in schema.values():
            yield from references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from references(value)


def reachable(definitions: Json, roots: set[str]) -> set[str]:
    """Return the names that the roots reach, the roots among them."""
    seen: set[str] = set()
    open_names = sorted(roots)
    while open_names:
        name = open_names.pop()
        if name not in seen:
            seen.add(name)
            open_names.extend(references(definitions[name]))
    return seen


@dataclass(frozen=True)
class Method:
    """One method of the protocol with the names of its types."""

    name: str
    params: str | None
    params_required: bool
    response: str | None = None
    experimental: bool = False


def methods_of(definitions: Json, union: str) -> list[Method]:
    """Return the methods that a union of messages lists, by name, without their answers."""
    found = []
    for variant in definitions[union]["oneOf"]:
        properties = variant["properties"]
        params = properties.get("params", {})
        names = list(references(params))
        if len(names) > 1:
            raise SchemaError(f"{union}: parameters of more than one type: {names}")
        method = constant(properties["method"])
        if method is None:
            raise SchemaError(f"{union}: a message without a method")
        required = "$ref" in params
        found.append(Method(method, names[0] if names else None, required))
    return sorted(found, key=lambda one: one.name)


def response_of(definitions: Json, method: Method) -> str:
    """Return the name of the type of a method's answer.

    Raises:
        SchemaError: None of the naming rules gives a definition.
    """
    words = re.split("[/_]", method.name)
    candidates = [
        RESPONSE_NAMES.get(method.name, ""),
        (method.params or "").removesuffix("Params") + "Response",
        "".join(word[:1].upper() + word[1:] for word in words) + "Response",
    ]
    for name in candidates:
        if name in definitions:
            return name
    raise SchemaError(f"{method.name}: no answer type; add it to RESPONSE_NAMES")
