"""The agent tool of a REST tracker: arguments, guard, call, result (SPEC 10.5, 11.5).

An adapter describes its tool with ``RestTool`` and says in a function which paths belong to the
configured scope. The agent never sees the token: it is sent from here, and taken out of what comes
back.

Invariant: nothing is sent before method, path, query, size and scope are checked; a call is sent
once; a redirect is given back and never followed, since it may leave the scope.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from symphony.errors import TrackerError

from .base import ToolContext, ToolResult, ToolSpec
from .http import Answer, HttpClient, Query
from .http_paths import BadCall, GuardedPath, guard_method, guard_path
from .tool_results import (
    MAX_ANSWER,
    MAX_BODY,
    TIMEOUT_S,
    audit,
    failed,
    unsupported,
    write_result,
)

Scope = Callable[[str, GuardedPath], str | None]
"""Takes method and path; returns None where the call is in scope, else why it is not."""
Contents = Callable[[str, GuardedPath, Query, Any], str | None]
"""The same for what query and body of a call name."""
Prepare = Callable[[object, ToolContext], Awaitable[object]]
"""Takes the arguments of a call, returns those to use; raises ``BadCall`` or ``TrackerError``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestTool:
    """One REST tool.

    Attributes:
        name: The tool's name.
        provider: The provider's name, for messages.
        methods: Allowed methods, in upper case.
        example: A path, for the description of the argument.
        query_name: The argument with query parameters: ``params`` or ``query``.
        scope: Decides which paths may be called.
        contents: Decides of what their query and body may name.
        read_only: Only GET passes.
        encoded_slash: Whether paths may hold ``%2F``.
        secrets: Texts that never appear in a result.
    """

    name: str
    provider: str
    methods: Sequence[str]
    example: str
    query_name: str
    scope: Scope
    contents: Contents = lambda _method, _path, _query, _body: None
    read_only: bool = False
    encoded_slash: bool = False
    secrets: Sequence[str] = field(default=(), repr=False)

    @property
    def spec(self) -> ToolSpec:
        """The tool as the agent sees it, in the reference's schema."""
        methods = ("GET",) if self.read_only else self.methods
        description = (
            f"Execute a {self.provider} REST API request using Symphony's configured auth."
        )
        return ToolSpec(
            name=self.name,
            description=description,
            input_schema={
                "type": "object",
                "additionalProperties": False,
                "required": ["method", "path"],
                "properties": {
                    "method": {
                        "type": "string",
                        "enum": list(methods),
                        "description": f"{self.provider} REST method.",
                    },
                    "path": {
                        "type": "string",
                        "description": f"{self.provider} REST path such as {self.example}.",
                    },
                    self.query_name: {
                        "type": ["object", "null"],
                        "description": "Optional query parameters.",
                        "additionalProperties": True,
                    },
                    "body": {"description": "Optional JSON request body."},
                },
            },
        )

    async def call(
        self,
        name: str,
        arguments: object,
        context: ToolContext,
        http: HttpClient,
        *,
        prepare: Prepare | None = None,
    ) -> ToolResult:
        """Execute a call; whatever the agent got wrong is a failed result.

        Args:
            name: The tool that the agent named.
            arguments: As the agent wrote them.
            context: Whose call it is.
            http: Sends it.
            prepare: Asked first, for what only the tracker can tell of what the call names.
        """
        if name != self.name:
            return unsupported(name, self.name)
        try:
            if prepare is not None:
                async with asyncio.timeout(TIMEOUT_S):
                    arguments = await prepare(arguments, context)
            method, path, query, body = self._parsed(arguments)
        except BadCall as error:
            return self._failed({"message": f"`{self.name}`: {error}"})
        except (TrackerError, TimeoutError) as error:
            message = "What the call names could not be looked up."
            return self._failed({"message": message, "reason": str(error) or "no answer in time"})
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await http.request(
                    method,
                    path.text,
                    query=query,
                    json=body,
                    idempotent=False,
                    redirects="give",
                    max_bytes=MAX_ANSWER,
                )
        except TimeoutError:
            self._audit(method, path, context, None)
            return self._unanswered(f"no answer in {TIMEOUT_S:g} s")
        except TrackerError as error:
            self._audit(method, path, context, error.status)
            return self._unanswered(error.message, error.retry_after_s)
        self._audit(method, path, context, answer.status)
        return self._answered(answer)

    def _parsed(self, arguments: object) -> tuple[str, GuardedPath, Query, Any]:
        if not isinstance(arguments, Mapping):
            raise BadCall("it expects an object with `method` and `path`.")
        method = guard_method(arguments.get("method"), self.methods)
        path = guard_path(arguments.get("path"), encoded_slash=self.encoded_slash)
        query = _query(arguments.get(self.query_name), self.query_name)
        body = arguments.get("body")
        try:
            size = len(json.dumps(body, allow_nan=False))
        except (TypeError, ValueError, RecursionError):
            raise BadCall("`body` must be JSON.") from None
        if size > MAX_BODY:
            raise BadCall(f"`body` must not be larger than {MAX_BODY} bytes.")
        if self.read_only and method != "GET":
            raise BadCall("the tracker is read-only here (tracker.provider.read_only): only GET.")
        outside = self.scope(method, path) or self.contents(method, path, query, body)
        if outside is not None:
            raise BadCall(outside)
        return method, path, query, body

    def _answered(self, answer: Answer) -> ToolResult:
        body: Any
        try:
            body = answer.json() if answer.content else None
        except ValueError:
            body = answer.content.decode("utf-8", "replace")
        result: dict[str, Any] = {"status": answer.status, "body": body}
        if answer.retry_after_s is not None:
            result["retryAfterSeconds"] = answer.retry_after_s
        return ToolResult(200 <= answer.status < 300, write_result(result, self.secrets))

    def _unanswered(self, reason: str, retry_after_s: float | None = None) -> ToolResult:
        message = f"{self.provider} API request failed before receiving a successful response."
        error: dict[str, Any] = {"message": message, "reason": reason}
        if retry_after_s is not None:
            error["retryAfterSeconds"] = retry_after_s
        return self._failed(error)

    def _failed(self, error: Mapping[str, Any]) -> ToolResult:
        return failed(error, self.secrets)

    def _audit(
        self, method: str, path: GuardedPath, context: ToolContext, status: int | None
    ) -> None:
        if method != "GET":
            audit(self.name, context, status=status, method=method, path=path.text)


def _query(value: object, name: str) -> Query:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise BadCall(f"`{name}` must be a JSON object when provided.")
    query: dict[str, str | int | bool | Sequence[str | int]] = {}
    for key, given in value.items():
        parts = given if isinstance(given, list) else [given]
        if not all(isinstance(part, str | int | float) for part in parts):
            raise BadCall(
                f"`{name}.{key}` must be a text, a number, true, false or a list of them."
            )
        try:
            "".join([str(key), *map(str, parts)]).encode()
        except UnicodeError:
            raise BadCall(f"`{name}.{key}` holds half of a surrogate pair.") from None
        texts = [json.dumps(part) if isinstance(part, bool | float) else part for part in parts]
        query[str(key)] = texts if isinstance(given, list) else texts[0]
    return query
