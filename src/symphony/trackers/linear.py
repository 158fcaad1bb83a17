"""The tracker ``linear``: one project of a Linear workspace over GraphQL.

Fetches with ``linear_queries``, normalises with ``linear_records``, and runs the agent's
``linear_graphql`` with its own token. The profile page is docs/trackers/linear.md.

Invariant: a read is complete or it fails. Data beside errors, a page without its ``pageInfo``, a
cursor that does not advance are failures, since an issue that is missing from a refresh counts as
gone and its agent is stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

from symphony.errors import SettingFault, TrackerError
from symphony.model.issue import Issue, IssueId, normalize_state

from . import linear_queries as queries
from . import linear_tool as tool
from .base import ToolContext, ToolResult, ToolSpec
from .http import Answer, HttpClient
from .linear_records import Malformed, Routing, to_issue
from .linear_settings import LinearSettings, resolve

if TYPE_CHECKING:
    from symphony.config.settings import TrackerSettings

_CONCURRENT_QUERIES: Final = 4
_MAX_PAGES: Final = 2_000
_NESTED: Final = {
    "labels": queries.MORE_LABELS,
    "inverseRelations": queries.MORE_RELATIONS,
}

T = TypeVar("T")
log = structlog.get_logger(__name__)


class LinearTracker:
    """A Linear project as a ``Tracker`` (SPEC 11).

    Args:
        settings: Resolved settings.
        terminal_states: A blocker in one of them blocks no more.
        client: The HTTP layer; None makes one that sends the token.
    """

    def __init__(
        self,
        settings: LinearSettings,
        *,
        terminal_states: Sequence[str],
        client: HttpClient | None = None,
    ) -> None:
        headers = {"Authorization": settings.api_key, "Accept": "application/json"}
        self.http = client or HttpClient(provider="Linear", headers=headers)
        self._settings = settings
        self._terminal = frozenset(normalize_state(state) for state in terminal_states)
        self._viewer_id: str | None = None

    @property
    def kind(self) -> str:
        """The value of ``tracker.kind``."""
        return "linear"

    @property
    def secret_environment_names(self) -> Sequence[str]:
        """``LINEAR_API_KEY`` and the variable that ``api_key`` names."""
        return self._settings.secret_environment_names

    async def fetch_issues_by_states(self, states: Sequence[str]) -> list[Issue]:
        """Return all issues of the project in these states, over all pages, each once."""
        names = list(dict.fromkeys(states))
        if not names:
            return []
        routing = await self._routing()
        variables = {
            "projectSlug": self._settings.project_slug,
            "stateNames": names,
            "first": queries.PAGE,
            "relationFirst": queries.NESTED_PAGE,
        }
        nodes = await self._all_pages(queries.BY_STATES, variables, ("issues",))
        await self._complete(nodes)
        issues: dict[IssueId, Issue] = {}
        problems = []
        for node in nodes:
            try:
                issue = to_issue(node, routing)
            except Malformed as error:
                problems.append(str(error))
            else:
                issues.setdefault(issue.id, issue)
        if problems:
            message = "Dropping malformed Linear issue records"
            log.warning(message, count=len(problems), problems="; ".join(problems[:3]))
        return list(issues.values())

    async def fetch_issues_by_ids(self, ids: Sequence[IssueId]) -> list[Issue]:
        """Return the visible issues of these ids in the asked order; 50 go into one query."""
        wanted = list(dict.fromkeys(ids))
        if not wanted:
            return []
        routing = await self._routing()
        batches = [wanted[i : i + queries.PAGE] for i in range(0, len(wanted), queries.PAGE)]
        answers = await _bounded([self._batch_query(batch) for batch in batches])
        nodes = [node for answer in answers for node in answer]
        await self._complete(nodes)
        found: dict[IssueId, Issue] = {}
        for node in nodes:
            try:
                issue = to_issue(node, routing)
            except Malformed as error:
                raise _unknown_payload(
                    f"an issue that was asked for is malformed: {error}"
                ) from error
            found.setdefault(issue.id, issue)
        return [found[issue_id] for issue_id in wanted if issue_id in found]

    def agent_tools(self) -> Sequence[ToolSpec]:
        """The tool ``linear_graphql``."""
        return (tool.SPEC,)

    async def call_tool(self, name: str, arguments: Any, context: ToolContext) -> ToolResult:
        """Execute ``linear_graphql``; a mutation is sent once and never repeated."""
        if name != tool.NAME:
            return tool.unsupported(name)
        try:
            query, variables = tool.parse_arguments(arguments)
            answer = await self._post(query, variables, idempotent=False)
        except tool.BadArguments as error:
            return tool.failed({"message": str(error)})
        except TrackerError as error:
            return tool.failed_by(error)
        try:
            body = answer.json()
        except ValueError:
            body = answer.excerpt() or None
        if answer.status != 200:
            return tool.refused(answer.status, body, answer.retry_after_s)
        if not isinstance(body, Mapping):
            message = "Linear GraphQL answered with something that is no JSON object."
            return tool.failed({"message": message, "response": body})
        return tool.answered(body)

    def changes(self) -> None:
        """Linear is polled; there is no watch."""
        return None

    async def aclose(self) -> None:
        """Close the connections."""
        await self.http.aclose()

    async def _routing(self) -> Routing:
        assignee = self._settings.assignee
        if assignee == "me":
            # The token's owner does not change; a reload with another token builds another adapter.
            if self._viewer_id is None:
                viewer = _dig(await self._query(queries.VIEWER, {}), "viewer", "id")
                if not isinstance(viewer, str) or not viewer.strip():
                    raise TrackerError(
                        "tracker_response",
                        "Linear did not say whose token this is, which `assignee: me` needs; "
                        "set tracker.provider.assignee to a user id",
                        code="missing_linear_viewer_identity",
                    )
                self._viewer_id = viewer
            assignee = self._viewer_id
        return Routing(assignee, self._terminal)

    def _batch_query(self, ids: Sequence[IssueId]) -> Callable[[], Awaitable[list[Any]]]:
        variables = {
            "ids": list(ids),
            "projectSlug": self._settings.project_slug,
            "first": len(ids),
            "relationFirst": queries.NESTED_PAGE,
        }

        async def fetch() -> list[Any]:
            connection = _dig(await self._query(queries.BY_IDS, variables), "issues")
            # A batch asks for as many issues as it has ids, so it is one page also where the
            # answer does not say so; only a server with smaller pages could hold some back.
            if _dig(connection, "pageInfo", "hasNextPage") is True:
                raise _pagination("a part of the issues that were asked for", "linear_cut_batch")
            return _nodes(connection, "issues")

        return fetch

    async def _complete(self, nodes: Sequence[Any]) -> None:
        """Fetch what of the labels and relations did not come with the issues."""
        missing = []
        for node in nodes:
            for name in _NESTED:
                connection = _dig(node, name)
                cursor = _nested_cursor(connection, name)
                if cursor is not None:
                    missing.append(self._nested_query(node, name, cursor))
        await _bounded(missing)

    def _nested_query(self, node: Any, name: str, cursor: str) -> Callable[[], Awaitable[None]]:
        async def fetch() -> None:
            variables = {"id": _dig(node, "id"), "first": queries.PAGE, "after": cursor}
            rest = await self._all_pages(_NESTED[name], variables, ("issue", name))
            node[name]["nodes"].extend(rest)

        return fetch

    async def _all_pages(
        self, query: str, variables: Mapping[str, Any], path: Sequence[str]
    ) -> list[Any]:
        nodes: list[Any] = []
        seen: set[str] = set()
        cursor = variables.get("after")
        for _ in range(_MAX_PAGES):
            data = await self._query(query, {**variables, "after": cursor})
            page, cursor = _page(_dig(data, *path), ".".join(path))
            nodes += page
            if cursor is None:
                return nodes
            if cursor in seen:
                raise _pagination(f"the cursor {cursor!r} twice", "linear_repeated_cursor")
            seen.add(cursor)
        raise _pagination(f"more than {_MAX_PAGES} pages", "linear_repeated_cursor")

    async def _query(self, query: str, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run a read and return its data, complete and without errors."""
        answer = await self._post(query, variables, idempotent=True)
        try:
            body = answer.json()
        except ValueError:
            body = None
        errors = body.get("errors") if isinstance(body, Mapping) else None
        if answer.status == 429 or _is_rate_limited(errors):
            raise self._rate_limited(answer)
        if answer.status != 200:
            raise _status_error(answer, errors)
        if not isinstance(body, Mapping):
            raise _unknown_payload("the answer is no JSON object")
        if errors:
            raise TrackerError(
                "tracker_response",
                f"Linear answered with errors: {_messages(errors)}",
                code="linear_graphql_errors",
                status=answer.status,
            )
        data = body.get("data")
        if not isinstance(data, Mapping):
            raise _unknown_payload("the answer has no `data`")
        return data

    async def _post(self, query: str, variables: Mapping[str, Any], *, idempotent: bool) -> Answer:
        payload = {"query": query, "variables": variables}
        try:
            return await self.http.post_json(
                self._settings.endpoint, payload, idempotent=idempotent
            )
        except TrackerError as error:
            if error.category == "tracker_request":
                error.code = "linear_api_request"
            elif error.category == "tracker_status":
                error.code = "linear_api_status"
            raise

    def _rate_limited(self, answer: Answer) -> TrackerError:
        wait_s = answer.retry_after_s
        asked = f"; it asks to wait {wait_s:.0f} s" if wait_s is not None else ""
        return TrackerError(
            "tracker_rate_limited",
            f"Linear's rate limit is used up{asked}",
            retry_after_s=wait_s,
            status=answer.status,
            code="linear_api_status",
        )


async def _bounded(calls: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """Run the calls, a few at a time, and return their results in order; the first fault wins."""
    slots = asyncio.Semaphore(_CONCURRENT_QUERIES)

    async def run(call: Callable[[], Awaitable[T]]) -> T:
        async with slots:
            return await call()

    if not calls:
        return []
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(call), name="linear-query") for call in calls]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def _page(connection: object, what: str) -> tuple[list[Any], str | None]:
    """Nodes of a page, and the cursor of the next one or None at the end."""
    nodes = _nodes(connection, what)
    more = _dig(connection, "pageInfo", "hasNextPage")
    if not isinstance(more, bool):
        raise _pagination(f"`{what}` without `pageInfo`", "linear_missing_page_info")
    if not more:
        return nodes, None
    cursor = _dig(connection, "pageInfo", "endCursor")
    if not isinstance(cursor, str) or not cursor:
        raise _pagination("another page but no cursor for it", "linear_missing_end_cursor")
    return nodes, cursor


def _nodes(connection: object, what: str) -> list[Any]:
    nodes = _dig(connection, "nodes")
    if not isinstance(nodes, list):
        raise _unknown_payload(f"`{what}` has no list of nodes")
    return nodes


def _nested_cursor(connection: object, what: str) -> str | None:
    """Cursor of the labels or relations that are missing, None where all are there.

    A list that is shorter than what was asked for is complete, whatever it says of pages.
    """
    nodes = _dig(connection, "nodes")
    if not isinstance(nodes, list) or len(nodes) < queries.NESTED_PAGE:
        return None
    return _page(connection, what)[1]


def _dig(value: object, *path: str) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _is_rate_limited(errors: object) -> bool:
    """Linear reports its limit as an error of this code, with the status 400."""
    return isinstance(errors, list) and any(
        _dig(error, "extensions", "code") == "RATELIMITED" for error in errors
    )


def _messages(errors: object) -> str:
    entries = errors if isinstance(errors, list) else [errors]
    texts = [str(_dig(error, "message") or "no message")[:200] for error in entries[:3]]
    return "; ".join(texts)


def _status_error(answer: Answer, errors: object) -> TrackerError:
    said = _messages(errors) if errors else answer.excerpt()
    hint = ""
    if answer.status in (401, 403):
        hint = "; check the token of tracker.provider.api_key (LINEAR_API_KEY)"
    return TrackerError(
        "tracker_status",
        f"Linear answered with HTTP {answer.status}{hint}" + (f": {said}" if said else ""),
        status=answer.status,
        retry_after_s=answer.retry_after_s,
        code="linear_api_status",
    )


def _unknown_payload(what: str) -> TrackerError:
    return TrackerError(
        "tracker_response", f"Linear's answer can't be read: {what}", code="linear_unknown_payload"
    )


def _pagination(what: str, code: str) -> TrackerError:
    return TrackerError(
        "tracker_pagination", f"Linear's paging is broken: it gave {what}", code=code
    )


def validate(
    settings: TrackerSettings, environ: Mapping[str, str], base_dir: Path
) -> list[SettingFault]:
    """Return everything that is wrong with ``tracker.provider`` for this adapter."""
    return resolve(settings.provider, environ)[1]


def build(settings: TrackerSettings, environ: Mapping[str, str], base_dir: Path) -> LinearTracker:
    """Build the tracker.

    Raises:
        TrackerError: ``invalid_tracker_config`` or ``missing_tracker_secret``.
    """
    resolved, faults = resolve(settings.provider, environ)
    if resolved is None:
        missing = any("missing_linear_api_token" in fault.problem for fault in faults)
        category = "missing_tracker_secret" if missing else "invalid_tracker_config"
        raise TrackerError(category, "; ".join(str(fault) for fault in faults))
    return LinearTracker(resolved, terminal_states=settings.terminal_states)
