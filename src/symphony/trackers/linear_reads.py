"""The reads of the adapter ``linear``: pages, batches, errors; no normalising.

``linear`` asks for nodes, this module fetches them with the documents of ``linear_queries``; the
agent's tool (``linear_tool``) sends through ``post`` and asks its own questions with ``query``.

Invariant: a read is complete or it fails. Data beside errors, a page without its ``pageInfo``, a
cursor that does not advance are failures, since an issue that is missing from a refresh counts as
gone and its agent is stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from symphony.errors import TrackerError
from symphony.model.issue import IssueId

from . import linear_queries as queries
from .base import Trial
from .http import Answer, HttpClient
from .linear_settings import LinearSettings
from .rest_reads import gathered
from .rest_records import dig

MAX_PAGES: Final = 2_000
_NESTED: Final = {
    "labels": (queries.MORE_LABELS, queries.NESTED_PAGE),
    "inverseRelations": (queries.MORE_RELATIONS, queries.NESTED_PAGE),
    "children": (queries.MORE_CHILDREN, queries.CHILDREN_PAGE),
}
"""Lists within an issue: what asks for the rest, and how many come with the issue."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a poll answers that knows the board, all as nodes.

    Attributes:
        marks: Every listed issue, with the fields that tell whether it is as it was.
        asked: Whole issues.
        blockers: Identifier and state of issues anywhere.
    """

    marks: list[Any]
    asked: list[Any]
    blockers: list[Any]


class LinearReads:
    """Fetches of one project.

    Args:
        settings: Resolved settings.
        http: The HTTP layer; sends the token.
    """

    def __init__(self, settings: LinearSettings, http: HttpClient) -> None:
        self._settings = settings
        self._http = http
        self._documents = queries.documents(settings.sub_issues)
        self.trial = Trial()

    async def in_states(self, states: Sequence[str]) -> list[Any]:
        """Nodes of all issues of the project in these states, over all pages."""
        variables = {
            "projectSlug": self._settings.project_slug,
            "stateNames": list(states),
            "first": queries.PAGE,
            "relationFirst": queries.NESTED_PAGE,
        }
        nodes = await self._all_pages(self._documents.by_states, variables, ("issues",))
        await self._complete(nodes)
        return nodes

    async def by_ids(self, ids: Sequence[IssueId]) -> list[Any]:
        """Nodes of the project's issues of these ids; 50 go into one query."""
        batches = [ids[i : i + queries.PAGE] for i in range(0, len(ids), queries.PAGE)]
        answers = await gathered(self._batch(batch) for batch in batches)
        nodes = [node for answer in answers for node in answer]
        await self._complete(nodes)
        return nodes

    async def by_number(self, team: str, number: int) -> list[Any]:
        """The node of the project's issue with this number of the team with this key, if any."""
        variables = {
            "team": team,
            "number": number,
            "projectSlug": self._settings.project_slug,
            "relationFirst": queries.NESTED_PAGE,
        }
        nodes = _whole(dig(await self.query(queries.BY_NUMBER, variables), "issues"), "issues")
        await self._complete(nodes)
        return nodes

    async def changes(
        self, states: Sequence[str], *, ids: Sequence[IssueId], blockers: Sequence[str]
    ) -> Changes:
        """Marks of all issues in these states, and whole issues and blockers by id.

        One request, up to 250 marks, 50 ids and 250 blockers; what is more takes more of them.
        """
        batch, more_ids = ids[: queries.PAGE], ids[queries.PAGE :]
        first, more_blockers = blockers[: queries.MARKS_PAGE], blockers[queries.MARKS_PAGE :]
        listed = {"projectSlug": self._settings.project_slug, "stateNames": list(states)}
        variables = {
            **listed,
            "marksFirst": queries.MARKS_PAGE,
            "relationFirst": queries.NESTED_PAGE,
            "ids": list(batch),
            "first": len(batch) or 1,
            "withIds": bool(batch),
            "blockers": list(first),
            "blockersFirst": len(first) or 1,
            "withBlockers": bool(first),
        }
        data = await self.query(self._documents.changes, variables)
        marks, cursor = _page(data.get("marks"), "marks")
        asked = _whole(data.get("asked"), "asked") if batch else []
        found = _whole(data.get("blockers"), "blockers") if first else []
        await self._complete(asked)
        if cursor is not None:
            following = {**listed, "first": queries.MARKS_PAGE, "after": cursor}
            marks += await self._all_pages(queries.MORE_MARKS, following, ("issues",))
        if more_ids:
            asked += await self.by_ids(more_ids)
        if more_blockers:
            found += await self._blockers(more_blockers)
        return Changes(marks, asked, found)

    async def _blockers(self, ids: Sequence[str]) -> list[Any]:
        size = queries.MARKS_PAGE
        batches = [list(ids[i : i + size]) for i in range(0, len(ids), size)]
        answers = await gathered(
            self.query(queries.BLOCKERS, {"blockers": batch, "blockersFirst": len(batch)})
            for batch in batches
        )
        return [node for data in answers for node in _whole(data.get("issues"), "issues")]

    async def see_project(self) -> None:
        """Make sure that there is the project: a filter by one that is not there finds nothing.

        Raises:
            TrackerError: ``linear_unknown_project``.
        """
        await self.team_states()

    async def team_states(self) -> dict[str, list[str]]:
        """Names of the workflow states of each team of the project, by the team's key.

        Raises:
            TrackerError: ``linear_unknown_project``: there is no such project.
        """
        variables = {"projectSlug": self._settings.project_slug}
        projects = _nodes(dig(await self.query(queries.STATES, variables), "projects"), "projects")
        if not projects:
            slug = self._settings.project_slug
            raise TrackerError(
                "tracker_response",
                f"tracker.provider.project_slug: Linear shows no project {slug!r}: check the end "
                "of the project's address, and that the token may read it",
                code="linear_unknown_project",
            )
        found: dict[str, list[str]] = {}
        for team in _nodes(dig(projects[0], "teams"), "teams"):
            names = (dig(state, "name") for state in _nodes(dig(team, "states"), "states"))
            found[str(dig(team, "key"))] = [name for name in names if isinstance(name, str)]
        return found

    async def has_user(self, user_id: str) -> bool:
        """Whether there is a user of this id."""
        data = await self.query(queries.USER, {"id": user_id})
        return bool(_nodes(dig(data, "users"), "users"))

    async def viewer_id(self) -> str:
        """The user whose token this is.

        Raises:
            TrackerError: ``missing_linear_viewer_identity``: Linear does not say.
        """
        viewer = dig(await self.query(queries.VIEWER, {}), "viewer", "id")
        if not isinstance(viewer, str) or not viewer.strip():
            raise TrackerError(
                "tracker_response",
                "Linear did not say whose token this is, which `assignee: me` needs; "
                "set tracker.provider.assignee to a user id",
                code="missing_linear_viewer_identity",
            )
        return viewer

    async def _batch(self, ids: Sequence[IssueId]) -> list[Any]:
        variables = {
            "ids": list(ids),
            "projectSlug": self._settings.project_slug,
            "first": len(ids),
            "relationFirst": queries.NESTED_PAGE,
        }
        return _whole(dig(await self.query(self._documents.by_ids, variables), "issues"), "issues")

    async def _complete(self, nodes: Sequence[Any]) -> None:
        """Fetch what of the labels, relations and sub-issues did not come with the issues."""
        missing = []
        for node in nodes:
            for name, (_, size) in _NESTED.items():
                cursor = _nested_cursor(dig(node, name), name, size)
                if cursor is not None:
                    missing.append((node, name, cursor))
        await gathered(self._completed(*part) for part in missing)

    async def _completed(self, node: Any, name: str, cursor: str) -> None:
        variables = {"id": dig(node, "id"), "first": queries.PAGE, "after": cursor}
        node[name]["nodes"].extend(
            await self._all_pages(_NESTED[name][0], variables, ("issue", name))
        )

    async def _all_pages(
        self, query: str, variables: Mapping[str, Any], path: Sequence[str]
    ) -> list[Any]:
        nodes: list[Any] = []
        seen: set[str] = set()
        cursor = variables.get("after")
        for _ in range(MAX_PAGES):
            data = await self.query(query, {**variables, "after": cursor})
            page, cursor = _page(dig(data, *path), ".".join(path))
            nodes += page
            # Labels and blockers of an issue are always complete.
            if cursor is None or (path == ("issues",) and self.trial.ends(more=True)):
                return nodes
            if cursor in seen:
                raise _pagination(f"the cursor {cursor!r} twice", "linear_repeated_cursor")
            seen.add(cursor)
        raise _pagination(f"more than {MAX_PAGES} pages", "linear_repeated_cursor")

    async def query(self, query: str, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run a read and return its data, complete and without errors.

        Raises:
            TrackerError: It failed, or a part of it did.
        """
        answer = await self.post(query, variables, idempotent=True)
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
            raise unknown_payload("the answer is no JSON object")
        if errors:
            raise TrackerError(
                "tracker_response",
                f"Linear answered with errors: {_messages(errors)}",
                code="linear_graphql_errors",
                status=answer.status,
            )
        data = body.get("data")
        if not isinstance(data, Mapping):
            raise unknown_payload("the answer has no `data`")
        return data

    async def post(
        self,
        query: str,
        variables: Mapping[str, Any],
        *,
        idempotent: bool,
        max_bytes: int | None = None,
    ) -> Answer:
        """Send a document and return the answer, whatever it is.

        Raises:
            TrackerError: There was no answer, or one too large.
        """
        payload = {"query": query, "variables": variables}
        try:
            return await self._http.request(
                "POST",
                self._settings.endpoint,
                json=payload,
                idempotent=idempotent,
                max_bytes=max_bytes,
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


def _page(connection: object, what: str) -> tuple[list[Any], str | None]:
    """Nodes of a page, and the cursor of the next one or None at the end."""
    nodes = _nodes(connection, what)
    more = dig(connection, "pageInfo", "hasNextPage")
    if not isinstance(more, bool):
        raise _pagination(f"`{what}` without `pageInfo`", "linear_missing_page_info")
    if not more:
        return nodes, None
    cursor = dig(connection, "pageInfo", "endCursor")
    if not isinstance(cursor, str) or not cursor:
        raise _pagination("another page but no cursor for it", "linear_missing_end_cursor")
    return nodes, cursor


def _whole(connection: object, what: str) -> list[Any]:
    """Nodes of a batch.

    It asks for as many issues as it has ids, so it is one page also where the answer does not say
    so; only a server with smaller pages could hold some back.
    """
    if dig(connection, "pageInfo", "hasNextPage") is True:
        raise _pagination("a part of the issues that were asked for", "linear_cut_batch")
    return _nodes(connection, what)


def _nodes(connection: object, what: str) -> list[Any]:
    nodes = dig(connection, "nodes")
    if not isinstance(nodes, list):
        raise unknown_payload(f"`{what}` has no list of nodes")
    return nodes


def _nested_cursor(connection: object, what: str, size: int) -> str | None:
    """Cursor of the entries that are missing, None where all are there.

    A list that is shorter than what was asked for is complete, whatever it says of pages.
    """
    nodes = dig(connection, "nodes")
    if not isinstance(nodes, list) or len(nodes) < size:
        return None
    return _page(connection, what)[1]


def _is_rate_limited(errors: object) -> bool:
    """Linear reports its limit as an error of this code, with the status 400."""
    return isinstance(errors, list) and any(
        dig(error, "extensions", "code") == "RATELIMITED" for error in errors
    )


def _messages(errors: object) -> str:
    entries = errors if isinstance(errors, list) else [errors]
    texts = [str(dig(error, "message") or "no message")[:200] for error in entries[:3]]
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


def unknown_payload(what: str, *, of_one_issue: bool = False) -> TrackerError:
    """The error of an answer that can't be read."""
    return TrackerError(
        "tracker_response",
        f"Linear's answer can't be read: {what}",
        code="linear_unknown_payload",
        of_one_issue=of_one_issue,
    )


def _pagination(what: str, code: str) -> TrackerError:
    return TrackerError(
        "tracker_pagination", f"Linear's paging is broken: it gave {what}", code=code
    )
