"""The requests of the adapter ``github`` and what their answers mean; no normalising.

``github`` asks for records, this module fetches them: lists and single issues over REST with
conditional requests, batches and projects over GraphQL.

Invariant: a fetch is complete or it raises; a refusal by rate limit, which GitHub mostly spells
403, stops further requests until it is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from symphony.errors import TrackerError

from . import github_queries as queries
from .base import Trial
from .github_records import from_graphql
from .github_settings import GitHubSettings
from .http import Answer, HttpClient, Query, status_error
from .rest_listing import Listing, ListQueries, Page, Records, server_date
from .rest_reads import gathered, limited, named
from .rest_records import dig, entries

GONE: Final = frozenset({404, 410})
UNKNOWN_WAIT_S: Final = 60.0
"""GitHub asks to wait a minute where it refuses without a date."""
_MAX_PAGES: Final = 1_000
_OPEN: Final[Query] = {"state": "open", "sort": "created", "direction": "asc"}
_CLOSED: Final[Query] = {"state": "closed", "sort": "created", "direction": "asc"}
_CHANGED: Final[Query] = {"state": "all", "sort": "updated", "direction": "desc"}


class GitHubReads:
    """Fetches of one repository.

    Args:
        settings: Resolved settings.
        http: The HTTP layer; sends the token.
        clock: Monotonic seconds, for the whole reads of a long list.
        whole_pages: A list of so many pages or fewer is always read whole.
    """

    def __init__(
        self,
        settings: GitHubSettings,
        http: HttpClient,
        *,
        clock: Callable[[], float] = time.monotonic,
        whole_pages: int = 3,
    ) -> None:
        self._settings = settings
        self._http = http
        self._lacks: frozenset[str] = frozenset()
        # Blockers and sub-issues change without a trace in the issue that waits for them.
        related = settings.dependencies or settings.sub_issues
        self._open = Listing(
            self._page,
            ListQueries(
                listed=_OPEN,
                changed=_CHANGED,
                since="since",
                number="number",
                is_open=lambda record: record.get("state") == "open",
            ),
            code="github",
            clock=clock,
            whole_pages=_MAX_PAGES if related else whole_pages,
        )

    def reads_all(self) -> bool:
        """Whether the next read of the open issues asks for each of them."""
        return not self._open.is_long or self._settings.project is not None

    async def open_issues(self) -> Records:
        """The open issues and pull requests, oldest first."""
        return await self._open.read()

    async def closed_issues(self) -> list[Any]:
        """The closed issues and pull requests, oldest first, each once."""
        return await self._all_pages(self._settings.issues_path, _CLOSED)

    @property
    def trial(self) -> Trial:
        """Stops lists at their first page."""
        return self._open.trial

    async def check(self) -> list[str]:
        """Ask for one issue, so that a refused token or an unknown repository shows; no faults.

        Raises:
            TrackerError: It can't be read.
        """
        await self._page({**_OPEN, "per_page": 1, "page": 1})
        return []

    async def see_scope(self) -> None:
        """Make sure that the repository, and the project where one is configured, can be seen.

        Raises:
            TrackerError: They can't.
        """
        await self.check()
        if self._settings.project is not None:
            await self._project(queries.OPTIONS)

    async def labels(self) -> list[str]:
        """Names of the repository's labels."""
        path = self._settings.issues_path.removesuffix("/issues") + "/labels"
        return [str(dig(label, "name")) for label in await self._all_pages(path, {})]

    async def blockers(self, number: int) -> list[Any]:
        """The issues that block this one."""
        path = f"{self._settings.issues_path}/{number}/dependencies/blocked_by"
        return await self._all_pages(path, {})

    async def one(self, number: int) -> Mapping[str, Any] | None:
        """An issue or pull request by its number, None where it is gone or moved away."""
        path = f"{self._settings.issues_path}/{number}"
        answer = await self._get(path, {}, redirects=False)
        if answer.status in GONE:
            return None
        if 300 <= answer.status < 400:
            # Either this issue or the whole repository has moved; the batch can tell.
            node = (await self.many([number])).get(number)
            return from_graphql(node) if node is not None else None
        record = self._decoded(answer)
        if not isinstance(record, Mapping):
            raise queries.unknown_payload("an issue is no JSON object")
        return record

    async def many(self, numbers: Sequence[int]) -> dict[int, Mapping[str, Any]]:
        """GraphQL nodes by number; those that are gone or moved away are left out."""
        batches = [numbers[i : i + queries.BATCH] for i in range(0, len(numbers), queries.BATCH)]
        found: dict[int, Mapping[str, Any]] = {}
        for nodes in await gathered(self._batch(batch) for batch in batches):
            found.update(nodes)
        return found

    async def project_items(self) -> list[Mapping[str, Any]]:
        """The items of the project with an issue in them, archived ones left out."""
        items: list[Mapping[str, Any]] = []
        cursor, seen = None, set()
        while True:
            connection = dig(await self._project(queries.PROJECT, after=cursor), "items")
            nodes = dig(connection, "nodes")
            more = dig(connection, "pageInfo", "hasNextPage")
            if not isinstance(nodes, list) or not isinstance(more, bool):
                raise queries.unknown_payload("the project's items have no nodes or no pageInfo")
            items += [node for node in nodes if dig(node, "isArchived") is not True]
            if self.trial.ends(more):
                break
            cursor = dig(connection, "pageInfo", "endCursor")
            if not isinstance(cursor, str) or cursor in seen:
                raise TrackerError(
                    "tracker_pagination",
                    "GitHub's paging is broken: another page of the project but no new cursor",
                    code="github_missing_end_cursor",
                )
            seen.add(cursor)
        return [item for item in items if dig(item, "content", "__typename") == "Issue"]

    async def status_names(self) -> list[str]:
        """The options of the project's field."""
        found = await self._project(queries.OPTIONS)
        options = dig(found, "field", "options")
        return [str(dig(option, "name")) for option in entries(options)]

    async def _batch(self, numbers: Sequence[int]) -> dict[int, Mapping[str, Any]]:
        settings = self._settings
        variables = {"owner": settings.owner, "name": settings.repo}
        if settings.project is not None:
            variables["field"] = settings.project_field
        document = queries.by_numbers(numbers, project=settings.project is not None)
        return queries.found_issues(await self._graphql(document, variables), numbers)

    async def _project(self, document: str, **more: Any) -> Mapping[str, Any]:
        settings = self._settings
        variables = {
            "owner": settings.project_owner,
            "number": settings.project,
            "field": settings.project_field,
            **more,
        }
        data = queries.data_of(await self._graphql(document, variables))
        project = dig(data, "repositoryOwner", "projectV2")
        if not isinstance(project, Mapping):
            raise TrackerError(
                "tracker_response",
                f"GitHub shows no project {settings.project} of {settings.project_owner}: check "
                "tracker.provider.project and project_owner, and that the token may read projects",
                code="github_unknown_project",
            )
        return project

    async def _graphql(self, document: str, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        payload = {"query": queries.without(document, self._lacks), "variables": variables}
        try:
            answer = await self._http.post_json(
                self._settings.graphql_url, payload, idempotent=True
            )
        except TrackerError as error:
            named(error, "github")
            raise
        body = self._decoded(answer)
        if queries.is_rate_limited(body):
            raise self._refused(answer)
        if not isinstance(body, Mapping):
            raise queries.unknown_payload("it is no JSON object")
        lacks = queries.unknown_fields(body) - self._lacks
        if lacks:
            self._lacks |= lacks
            return await self._graphql(document, variables)
        return body

    async def _all_pages(self, path: str, query: Query) -> list[Any]:
        records: dict[Any, Any] = {}
        for number in range(1, _MAX_PAGES + 1):
            page = await self._page({**query, "per_page": 100, "page": number}, path)
            # Numbers are of one repository, ids are not: a record that moved a page comes twice.
            records.update((dig(r, "id") or (number, i), r) for i, r in enumerate(page.records))
            if self.trial.ends(page.more):
                return list(records.values())
        raise TrackerError(
            "tracker_pagination",
            f"GitHub's paging is broken: more than {_MAX_PAGES} pages",
            code="github_endless_pages",
        )

    async def _page(self, query: Query, path: str | None = None) -> Page:
        answer = await self._get(path or self._settings.issues_path, query)
        records = self._decoded(answer)
        if not isinstance(records, list):
            raise queries.unknown_payload("a list of issues is no JSON array")
        link = answer.headers.get("link")
        more = 'rel="next"' in link if link is not None else len(records) >= 100
        return Page(records, more, server_date(answer), answer.not_modified)

    async def _get(self, path: str, query: Query, *, redirects: bool = True) -> Answer:
        try:
            return await self._http.request(
                "GET",
                path,
                query=query,
                conditional=True,
                redirects="same_host" if redirects else "give",
            )
        except TrackerError as error:
            named(error, "github")
            raise

    def _decoded(self, answer: Answer) -> Any:
        if answer.status != 200:
            raise self._refused(answer)
        try:
            return answer.json()
        except ValueError:
            raise queries.unknown_payload(f"it is no JSON: {answer.excerpt(80)}") from None

    def _refused(self, answer: Answer) -> TrackerError:
        wait_s = limit_wait(answer, self._http)
        if wait_s is None:
            return status_error("GitHub", answer, code="github_api_status", hint=_hint(answer))
        return limited(self._http, "GitHub", wait_s, answer.status)


def limit_wait(answer: Answer, http: HttpClient) -> float | None:
    """Seconds to wait after a refusal by rate limit; None where the answer is another refusal.

    GitHub's primary limit is a 403 or 429 with nothing remaining, its secondary one a 403 or 429
    that says so or has a Retry-After; GraphQL's comes with status 200.
    """
    said = answer.content[:2_000].lower()
    empty = answer.headers.get("x-ratelimit-remaining") == "0"
    limited = answer.status in (200, 429) or (
        answer.status == 403
        and (empty or answer.retry_after_s is not None or b"rate limit" in said)
    )
    if not limited:
        return None
    if answer.retry_after_s is not None:
        return answer.retry_after_s
    return (http.reset_in_s() if empty else None) or UNKNOWN_WAIT_S


def _hint(answer: Answer) -> str:
    if answer.status == 401:
        return "check the token of tracker.provider.token (GITHUB_TOKEN)"
    if answer.status == 410:
        return "check tracker.provider.repo: it may have its issues turned off"
    if answer.status in (403, 404):
        return (
            "check tracker.provider.repo, and that the token may read the issues of that repository"
        )
    return ""
