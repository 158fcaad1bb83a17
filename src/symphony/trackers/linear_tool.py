"""The agent tool ``linear_graphql``: arguments, guard, call, result (SPEC 10.5, 11.5).

Schema and results are the reference's. ``linear_scope`` judges which documents stay in scope,
``linear_lookup`` asks for what they name by id. The agent never sees the token: it is sent from
here, and taken out of what comes back.

Invariant: with another scope than ``any`` nothing is sent before the document and all that it names
are known to be in scope; a document is sent once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

from symphony.errors import TrackerError

from .base import ToolContext, ToolResult, ToolSpec
from .linear_graph import OutOfScope, Reading
from .linear_lookup import LinearLookup
from .linear_reads import LinearReads
from .linear_settings import LinearSettings
from .tool_results import (
    MAX_ANSWER,
    MAX_BODY,
    TIMEOUT_S,
    audit,
    failed,
    unsupported,
    write_result,
)

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
    try:
        size = len(json.dumps([query, variables], allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        raise BadArguments("`linear_graphql.variables` must be JSON.") from None
    if size > MAX_BODY:
        raise BadArguments(f"`linear_graphql` sends at most {MAX_BODY} bytes.")
    return query.strip(), variables or {}


class LinearTool:
    """``linear_graphql`` of one tracker.

    Args:
        settings: Resolved settings: token, project, scope.
        reads: Sends documents and look-ups.
    """

    def __init__(self, settings: LinearSettings, reads: LinearReads) -> None:
        self._settings = settings
        self._reads = reads
        self._secrets = (settings.api_key,)
        self._lookup = LinearLookup(settings, reads)

    @property
    def spec(self) -> ToolSpec:
        """The tool as the agent sees it."""
        return SPEC

    async def call(self, name: str, arguments: object, context: ToolContext) -> ToolResult:
        """Execute a call; whatever the agent got wrong is a failed result."""
        if name != NAME:
            return unsupported(name, NAME)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await self._called(arguments, context)
        except BadArguments as error:
            return failed({"message": str(error)}, self._secrets)
        except OutOfScope as error:
            return failed({"message": f"`{NAME}`: {error}"}, self._secrets)
        except TrackerError as error:
            return self._unanswered(error.message)
        except TimeoutError:
            return self._unanswered(f"no answer in {TIMEOUT_S:g} s")

    async def _called(self, arguments: object, context: ToolContext) -> ToolResult:
        query, variables = parse_arguments(arguments)
        reading = self._judged(query, variables)
        await self._lookup.check(reading.references, context)
        status = None
        try:
            answer = await self._reads.post(
                query, variables, idempotent=False, max_bytes=MAX_ANSWER
            )
            status = answer.status
        finally:
            # Also where the answer was lost: the change may have happened.
            if reading.mutations:
                audit(NAME, context, status=status, action=" ".join(reading.mutations))
        try:
            body = answer.json()
        except ValueError:
            body = answer.excerpt() or None
        if answer.status != 200:
            return self._refused(answer.status, body, answer.retry_after_s)
        if not isinstance(body, Mapping):
            message = "Linear GraphQL answered with something that is no JSON object."
            return failed({"message": message, "response": body}, self._secrets)
        return self._answered(body)

    def _judged(self, query: str, variables: Mapping[str, Any]) -> Reading:
        # graphql-core costs 0.1 s, which a start-up doesn't pay for a tool that is not called yet.
        from .linear_scope import read_document

        settings = self._settings
        try:
            reading = read_document(
                query,
                variables,
                scope=settings.tool_scope,
                project_slug=settings.project_slug,
            )
        except OutOfScope:
            if settings.tool_scope != "any" or settings.read_only:
                raise
            # Linear may know a syntax that is unknown here; its own answer tells of a fault.
            return Reading(("an unreadable document",))
        if settings.read_only and reading.mutations:
            raise OutOfScope(
                "the tracker is read-only here (tracker.provider.read_only): no mutations."
            )
        return reading

    def _answered(self, body: Mapping[str, Any]) -> ToolResult:
        """The provider's answer as it is; a failure where it holds top-level errors."""
        errors = body.get("errors")
        success = not (isinstance(errors, list) and errors)
        return ToolResult(success, write_result(body, self._secrets))

    def _refused(self, status: int, body: Any, retry_after_s: float | None) -> ToolResult:
        """An answer that is no success, with what Linear says about it (its errors are 400)."""
        error: dict[str, Any] = {
            "message": f"Linear GraphQL request failed with HTTP {status}.",
            "status": status,
        }
        if retry_after_s is not None:
            error["retryAfterSeconds"] = retry_after_s
        if body is not None:
            error["response"] = body
        return failed(error, self._secrets)

    def _unanswered(self, reason: str) -> ToolResult:
        """A call that got no answer at all."""
        message = "Linear GraphQL request failed before receiving a successful response."
        return failed({"message": message, "reason": reason}, self._secrets)
