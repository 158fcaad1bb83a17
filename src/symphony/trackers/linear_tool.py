"""The agent tool ``linear_graphql``: schema, arguments and answers as the reference has them.

Pure: the call itself is ``linear``'s, with the adapter's token, which the agent never sees.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from symphony.errors import TrackerError

from .base import ToolResult, ToolSpec

NAME: Final = "linear_graphql"

SPEC: Final = ToolSpec(
    name=NAME,
    description=(
        "Execute a raw GraphQL query or mutation against Linear using Symphony's configured auth."
    ),
    input_schema={
        "type": "object",
        "additionalProperties": False,
        "required": ["query"],
        "properties": {
            "query": {
                "type": "string",
                "description": "GraphQL query or mutation document to execute against Linear.",
            },
            "variables": {
                "type": ["object", "null"],
                "description": "Optional GraphQL variables object.",
                "additionalProperties": True,
            },
        },
    },
)


class BadArguments(Exception):
    """The agent's arguments can't be used; the message says what is expected."""


def parse_arguments(arguments: object) -> tuple[str, Mapping[str, Any]]:
    """Return the document and its variables.

    Raises:
        BadArguments: Neither a query nor an object with one.
    """
    query: object
    variables: object = None
    if isinstance(arguments, str):
        query = arguments
    elif isinstance(arguments, Mapping):
        query, variables = arguments.get("query"), arguments.get("variables")
    else:
        raise BadArguments(
            "`linear_graphql` expects either a GraphQL query string or an object with `query` "
            "and optional `variables`."
        )
    if not isinstance(query, str) or not query.strip():
        raise BadArguments("`linear_graphql` requires a non-empty `query` string.")
    if variables is not None and not isinstance(variables, Mapping):
        raise BadArguments("`linear_graphql.variables` must be a JSON object when provided.")
    return query.strip(), variables or {}


def answered(body: Any) -> ToolResult:
    """The provider's answer as it is; a failure where it holds top-level errors."""
    errors = body.get("errors") if isinstance(body, Mapping) else None
    return ToolResult(not (isinstance(errors, list) and errors), to_json(body))


def refused(status: int, body: Any, retry_after_s: float | None) -> ToolResult:
    """An answer that is no success, with what Linear says about it (its errors come as 400)."""
    error: dict[str, Any] = {
        "message": f"Linear GraphQL request failed with HTTP {status}.",
        "status": status,
    }
    if retry_after_s is not None:
        error["retryAfterSeconds"] = retry_after_s
    if body is not None:
        error["response"] = body
    return failed(error)


def failed_by(error: TrackerError) -> ToolResult:
    """A call that got no answer at all."""
    return failed(
        {
            "message": "Linear GraphQL request failed before receiving a successful response.",
            "reason": error.message,
        }
    )


def unsupported(name: str) -> ToolResult:
    """A tool that this adapter does not have."""
    message = f"Unsupported dynamic tool: {json.dumps(name)}."
    return failed({"message": message, "supportedTools": [NAME]})


def failed(error: Mapping[str, Any]) -> ToolResult:
    """A failed result with this error object."""
    return ToolResult(False, to_json({"error": error}))


def to_json(value: Any) -> str:
    """Write JSON as the model reads it best; what no encoding can hold becomes ``?``."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode("utf-8")
