"""The agent tool ``jira_rest``: what belongs to the project, and Markdown in place of ADF.

``RestTool`` checks and sends; this module says which calls are in scope. Some can be judged by
their path, others only by what they name: a JQL query is narrowed down to the project, a created
issue must name it, and issues that a call names by id or key are looked up first.

Invariant: with the scope ``project`` nothing is sent that reads or changes an issue of another
project; what the guard does not know is refused.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from .base import ToolContext, ToolSpec
from .http_paths import BadCall, GuardedPath, guard_method, guard_path
from .jira_jql import UnusableJql, scoped
from .jira_markdown import from_markdown
from .jira_settings import JiraSettings
from .rest_records import dig, entries
from .rest_tool import RestTool

NAME: Final = "jira_rest"
METHODS: Final = ("GET", "POST", "PUT", "DELETE")
MAX_REFERENCES: Final = 100

_PREFIX: Final = ("rest", "api", "3")
_REFERENCE: Final = re.compile(r"[0-9]{1,19}|[A-Za-z][A-Za-z0-9_]*-[0-9]{1,19}")
_METADATA: Final = frozenset(
    {
        "field",
        "issueLinkType",
        "issuetype",
        "label",
        "mypermissions",
        "myself",
        "priority",
        "resolution",
        "serverInfo",
        "status",
        "statuscategory",
    }
)
_MAX_DEPTH: Final = 40

Outside = Callable[[Sequence[str]], Awaitable[Sequence[str]]]
"""Takes ids and keys of issues, returns those that are no issues of the project."""


def build_tool(settings: JiraSettings) -> RestTool:
    """The tool of these settings."""
    credentials = f"{settings.email}:{settings.api_token}".encode()
    return RestTool(
        name=NAME,
        provider="Jira",
        methods=METHODS,
        example="/rest/api/3/issue/PROJ-1/comment",
        query_name="query",
        scope=_Scope(settings),
        read_only=settings.read_only,
        secrets=(settings.api_token, b64encode(credentials).decode()),
    )


def tool_spec(tool: RestTool) -> ToolSpec:
    """The tool as the agent sees it, in the reference's words and schema."""
    schema = dict(tool.spec.input_schema)
    schema["properties"] = {
        **schema["properties"],
        "path": {
            "type": "string",
            "description": "Jira REST v3 path beginning with /rest/api/3/.",
        },
        "body": {
            "description": "Optional JSON request body. Where Jira wants an Atlassian document, "
            '{"markdown": "..."} stands for one.'
        },
    }
    description = "Execute a Jira Cloud REST v3 request using Symphony's configured auth."
    return replace(tool.spec, description=description, input_schema=schema)


class _Scope:
    """Judges by method and path alone."""

    def __init__(self, settings: JiraSettings) -> None:
        self._settings = settings

    def __call__(self, method: str, path: GuardedPath) -> str | None:
        if path.segments[:3] != _PREFIX or len(path.segments) < 4:
            return "`path` must begin with /rest/api/3/."
        if self._settings.any_project:
            return None
        rest = path.segments[3:]
        if _is_known(method, rest, self._settings.project_key):
            return None
        return (
            f"{method} {path.text} is outside of what the scope `project` allows: issues of "
            f"{self._settings.project_key}, searches and metadata; tracker.provider.tool_scope "
            "can widen it."
        )


def _is_known(method: str, rest: Sequence[str], project: str) -> bool:
    match list(rest):
        case ["issue"] | ["issue", "bulk" | "bulkfetch"] | ["issueLink"]:
            return method == "POST"
        case ["issue", "createmeta", key, *_]:
            return method == "GET" and _same(key, project)
        case ["issue", reference, *sub]:
            return _REFERENCE.fullmatch(reference) is not None and sub[:1] != ["notify"]
        case ["search", "jql"]:
            return method in ("GET", "POST")
        case ["search", "approximate-count"]:
            return method == "POST"
        case ["project", key, *_]:
            return method == "GET" and _same(key, project)
        case ["user", "assignable", "search"]:
            return method == "GET"
        case [name, *_]:
            return method == "GET" and name in _METADATA
    return False


async def prepare(
    tool: RestTool,
    settings: JiraSettings,
    arguments: object,
    context: ToolContext,
    outside: Outside,
) -> object:
    """The arguments in the form in which they may be sent.

    What ``RestTool`` refuses anyway is given back as it is.

    Raises:
        BadCall: The call reaches out of the project.
        TrackerError: The issues that it names can't be looked up.
    """
    if not isinstance(arguments, Mapping):
        return arguments
    arguments = {**arguments, "body": _with_documents(arguments.get("body"), 0)}
    try:
        method = guard_method(arguments.get("method"), METHODS)
        path = guard_path(arguments.get("path"))
    except BadCall:
        return arguments
    refused = tool.scope(method, path) is not None or (settings.read_only and method != "GET")
    if refused or settings.any_project:
        return arguments
    call = _Call(method, path.segments[3:], arguments, settings.project_key)
    known = {context.issue.id, context.issue.identifier.lower()}
    references = [name for name in call.references() if name.lower() not in known]
    if len(references) > MAX_REFERENCES:
        raise BadCall(f"it names more than {MAX_REFERENCES} issues.")
    strangers = await outside(references) if references else ()
    if strangers:
        raise BadCall(
            f"{', '.join(strangers[:5])} can't be found in the project {settings.project_key}; "
            "tracker.provider.tool_scope can widen the scope."
        )
    return call.narrowed()


class _Call:
    """A call in the scope ``project``, taken apart."""

    def __init__(
        self, method: str, rest: Sequence[str], arguments: Mapping[str, Any], project: str
    ) -> None:
        self._method = method
        self._rest = list(rest)
        self._arguments = arguments
        self._project = project
        self._body = arguments.get("body")
        self._query = arguments.get("query")

    def references(self) -> list[str]:
        """Ids and keys of the issues that the call names, each once."""
        found: list[Any] = []
        match self._rest:
            case ["issue"]:
                found += self._created(self._body)
            case ["issue", "bulk"]:
                for entry in self._list("issueUpdates"):
                    found += self._created(entry)
            case ["issue", "bulkfetch"]:
                found += self._list("issueIdsOrKeys")
            case ["issueLink"]:
                found += [_named(dig(self._body, end)) for end in ("inwardIssue", "outwardIssue")]
            case ["issue", reference, *_] if _REFERENCE.fullmatch(reference):
                self._refuse_move()
                found += [reference, *_linked(self._body)]
            case ["user", "assignable", "search"]:
                found += self._assignable()
        names = [str(name) if isinstance(name, int) else name for name in found]
        if not all(isinstance(name, str) and _REFERENCE.fullmatch(name) for name in names):
            raise BadCall("issues must be named by their key or id.")
        return list(dict.fromkeys(names))

    def narrowed(self) -> Mapping[str, Any]:
        """The arguments, a JQL query narrowed down to the project."""
        if self._rest[0] != "search":
            return self._arguments
        place = "query" if self._method == "GET" else "body"
        other = self._arguments.get("body" if place == "query" else "query")
        if dig(other, "jql") is not None:
            raise BadCall(f"`jql` belongs into `{place}` of a {self._method}.")
        given = self._arguments.get(place)
        if given is not None and not isinstance(given, Mapping):
            raise BadCall(f"`{place}` must be a JSON object.")
        jql = (given or {}).get("jql", "")
        if not isinstance(jql, str):
            raise BadCall(f"`{place}.jql` must be a text.")
        try:
            return {
                **self._arguments,
                place: {**(given or {}), "jql": scoped(jql, self._project)},
            }
        except UnusableJql as error:
            raise BadCall(f"`{place}.jql` {error}.") from None

    def _created(self, body: object) -> list[Any]:
        """What the body of a new issue names; it must say that the issue is the project's."""
        key = dig(body, "fields", "project", "key")
        if not isinstance(key, str) or not _same(key, self._project):
            raise BadCall(f'`fields.project` must be {{"key": "{self._project}"}}.')
        others = set(dig(body, "fields", "project")) - {"key"}
        if others or dig(body, "update", "project") is not None:
            raise BadCall("`fields.project` must name the project by its key alone.")
        return list(_linked(body))

    def _refuse_move(self) -> None:
        """An edit or transition that takes the issue to another project."""
        given = dig(self._body, "fields", "project")
        same = isinstance(given, Mapping) and set(given) == {"key"}
        same = same and _same(str(dig(given, "key")), self._project)
        if (given is not None and not same) or dig(self._body, "update", "project") is not None:
            raise BadCall(f'`fields.project` must stay {{"key": "{self._project}"}}.')

    def _assignable(self) -> list[Any]:
        query = self._query if isinstance(self._query, Mapping) else {}
        if "project" in query:
            if not _same(str(query["project"]), self._project):
                raise BadCall(f"`query.project` must be {self._project}.")
            if "issueKey" not in query:
                return []
        return [query.get("issueKey")]

    def _list(self, key: str) -> Sequence[Any]:
        value = dig(self._body, key)
        if not isinstance(value, list):
            raise BadCall(f"`body.{key}` must be a list.")
        return value


def _linked(body: object) -> Iterable[Any]:
    """The parent that an edit sets, and the other ends of links that it makes or removes."""
    links = [*entries(dig(body, "fields", "issuelinks"))]
    links += _operations(body, "issuelinks")
    parents = [dig(body, "fields", "parent"), *_operations(body, "parent")]
    found = [_named(parent) for parent in parents if parent is not None]
    for link in links:
        for end in ("inwardIssue", "outwardIssue"):
            other = dig(link, end)
            if other is not None:
                found.append(_named(other))
    return found


def _operations(body: object, name: str) -> list[Any]:
    """The values of ``update.<name>``: a list of objects, operation -> value."""
    given = entries(dig(body, "update", name))
    return [value for entry in given if isinstance(entry, Mapping) for value in entry.values()]


def _named(issue: object) -> Any:
    """How an object names an issue; two names in it could be of two issues."""
    names = [value for key in ("key", "id") if (value := dig(issue, key)) is not None]
    return names[0] if len(names) == 1 else None


def _same(key: str, project: str) -> bool:
    return key.strip().lower() == project.strip().lower()


def _with_documents(value: Any, depth: int) -> Any:
    """The value, each ``{"markdown": text}`` in it as an Atlassian document."""
    if depth > _MAX_DEPTH:
        return value
    if isinstance(value, Mapping):
        if set(value) == {"markdown"} and isinstance(value["markdown"], str):
            return from_markdown(value["markdown"])
        return {key: _with_documents(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_documents(inner, depth + 1) for inner in value]
    return value
