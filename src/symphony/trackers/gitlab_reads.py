"""The requests of the adapter ``gitlab`` and what their answers mean; no normalising.

Lists and batches of issues over REST with conditional requests, blockers over GraphQL, which is
GitLab's only way to ask for those of many issues at once.

Invariant: a fetch is complete or it raises.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from symphony.errors import TrackerError

from .base import Trial
from .gitlab_settings import GitLabSettings
from .http import Answer, HttpClient, Query, status_error
from .rest_listing import Listing, ListQueries, Page, Records, server_date
from .rest_reads import gathered, limited, named
from .rest_records import dig, entries, integer

BATCH: Final = 100
BLOCKER_BATCH: Final = 50
UNKNOWN_WAIT_S: Final = 60.0
_MAX_PAGES: Final = 1_000
_OPENED: Final[Query] = {"state": "opened", "order_by": "created_at", "sort": "asc"}
_CLOSED: Final[Query] = {"state": "closed", "order_by": "created_at", "sort": "asc"}
_CHANGED: Final[Query] = {"state": "all", "order_by": "updated_at", "sort": "desc"}

BLOCKERS: Final = f"""
query SymphonyBlockers($path: ID!, $iids: [String!]) {{
  project(fullPath: $path) {{
    issues(iids: $iids, first: {BLOCKER_BATCH}) {{
      nodes {{
        iid
        reference(full: true)
        blockedByIssues {{ nodes {{ iid reference(full: true) state }} pageInfo {{ hasNextPage }} }}
      }}
    }}
  }}
}}
"""


class GitLabReads:
    """Fetches of one project.

    Args:
        settings: Resolved settings.
        http: The HTTP layer; sends the token.
        clock: Monotonic seconds, for the whole reads of a long list.
        whole_pages: A list of so many pages or fewer is always read whole.
    """

    def __init__(
        self,
        settings: GitLabSettings,
        http: HttpClient,
        *,
        clock: Callable[[], float] = time.monotonic,
        whole_pages: int = 3,
    ) -> None:
        self._settings = settings
        self._http = http
        self._issues = settings.project_api_path + "/issues"
        self._opened = Listing(
            self._page,
            ListQueries(
                listed=_OPENED,
                changed=_CHANGED,
                since="updated_after",
                number="iid",
                is_open=lambda record: record.get("state") == "opened",
            ),
            code="gitlab",
            clock=clock,
            whole_pages=whole_pages,
        )

    def reads_all(self) -> bool:
        """Whether the next read of the open issues asks for each of them."""
        return not self._opened.is_long

    async def opened_issues(self) -> Records:
        """The open issues, oldest first."""
        return await self._opened.read()

    async def closed_issues(self) -> list[Any]:
        """The closed issues, oldest first, each once."""
        return await self._all_pages(self._issues, _CLOSED)

    async def many(self, iids: Sequence[int]) -> dict[int, Any]:
        """Records by iid; an issue that is absent is gone from the project.

        Raises:
            TrackerError: A batch failed, or holds what was not asked for.
        """
        batches = [iids[i : i + BATCH] for i in range(0, len(iids), BATCH)]
        asked = frozenset(iids)
        found: dict[int, Any] = {}
        for page in await gathered(self._batch(batch) for batch in batches):
            for record in page:
                iid = integer(dig(record, "iid"))
                if iid is None or iid not in asked:
                    raise unknown_payload("a batch holds an issue that was not asked for")
                found[iid] = record
        return found

    @property
    def trial(self) -> Trial:
        """Stops lists at their first page."""
        return self._opened.trial

    async def check(self) -> list[str]:
        """Ask for one issue, so that a refused token or an unknown project shows; no faults.

        Raises:
            TrackerError: It can't be read.
        """
        await self._page({**_OPENED, "per_page": 1, "page": 1})
        return []

    async def labels(self) -> list[str]:
        """Names of the labels that the project's issues can have, those of its groups included."""
        path = self._settings.project_api_path + "/labels"
        return [str(dig(label, "name")) for label in await self._all_pages(path, {})]

    async def blockers(self, iids: Sequence[int]) -> dict[int, Any]:
        """GraphQL nodes with the blockers of these issues, by iid."""
        batches = [iids[i : i + BLOCKER_BATCH] for i in range(0, len(iids), BLOCKER_BATCH)]
        found: dict[int, Any] = {}
        for nodes in await gathered(self._blocker_batch(batch) for batch in batches):
            found.update(nodes)
        return found

    async def _batch(self, iids: Sequence[int]) -> list[Any]:
        query: Query = {"iids[]": list(iids), "state": "all", "per_page": BATCH}
        page = await self._page(query)
        if page.more:
            raise TrackerError(
                "tracker_pagination",
                "GitLab's paging is broken: it held back a part of the issues asked for",
                code="gitlab_cut_batch",
            )
        return page.records

    async def _blocker_batch(self, iids: Sequence[int]) -> dict[int, Any]:
        variables = {"path": self._settings.project_path, "iids": [str(iid) for iid in iids]}
        try:
            answer = await self._http.post_json(
                self._settings.graphql_url,
                {"query": BLOCKERS, "variables": variables},
                idempotent=True,
            )
        except TrackerError as error:
            named(error, "gitlab")
            raise
        body = self._decoded(answer)
        if dig(body, "errors"):
            said = [str(dig(error, "message"))[:200] for error in entries(dig(body, "errors"))]
            raise TrackerError(
                "tracker_response",
                f"GitLab answered with errors: {'; '.join(said[:3])}",
                code="gitlab_graphql_errors",
            )
        nodes = dig(body, "data", "project", "issues", "nodes")
        if not isinstance(nodes, list):
            raise unknown_payload("it has no `project`, or no issues in it")
        found = {}
        for node in nodes:
            iid = integer(dig(node, "iid"))
            blockers = dig(node, "blockedByIssues")
            if iid is None or not isinstance(dig(blockers, "nodes"), list):
                raise unknown_payload("an issue has no list of blockers (a feature of paid tiers)")
            if dig(blockers, "pageInfo", "hasNextPage") is True:
                # More than a hundred: which of them is open is not known, so it stays blocked.
                blockers["nodes"].append({"iid": "0", "state": None})
            found[iid] = node
        return found

    async def _all_pages(self, path: str, query: Query) -> list[Any]:
        records: dict[Any, Any] = {}
        for number in range(1, _MAX_PAGES + 1):
            page = await self._page({**query, "per_page": 100, "page": number}, path)
            records.update((dig(r, "id") or (number, i), r) for i, r in enumerate(page.records))
            if self.trial.ends(page.more):
                return list(records.values())
        raise TrackerError(
            "tracker_pagination",
            f"GitLab's paging is broken: more than {_MAX_PAGES} pages",
            code="gitlab_endless_pages",
        )

    async def _page(self, query: Query, path: str | None = None) -> Page:
        try:
            answer = await self._http.request(
                "GET",
                path or self._issues,
                query=query,
                conditional=True,
                redirects="same_host",
            )
        except TrackerError as error:
            named(error, "gitlab")
            raise
        records = self._decoded(answer)
        if not isinstance(records, list):
            raise unknown_payload("a list is no JSON array")
        following = answer.headers.get("x-next-page")
        more = bool(following.strip()) if following is not None else len(records) >= 100
        if "iids[]" in query and following is None:
            more = False
        return Page(records, more, server_date(answer), answer.not_modified)

    def _decoded(self, answer: Answer) -> Any:
        if answer.status != 200:
            raise self._refused(answer)
        try:
            return answer.json()
        except ValueError:
            raise unknown_payload(f"it is no JSON: {answer.excerpt(80)}") from None

    def _refused(self, answer: Answer) -> TrackerError:
        if answer.status != 429:
            return status_error("GitLab", answer, code="gitlab_api_status", hint=_hint(answer))
        wait_s = answer.retry_after_s
        if wait_s is None:
            wait_s = self._http.reset_in_s() or UNKNOWN_WAIT_S
        return limited(self._http, "GitLab", wait_s, answer.status)


def unknown_payload(what: str, *, of_one_issue: bool = False) -> TrackerError:
    """The error of an answer that can't be read."""
    return TrackerError(
        "tracker_response",
        f"GitLab's answer can't be read: {what}",
        code="gitlab_unknown_payload",
        of_one_issue=of_one_issue,
    )


def _hint(answer: Answer) -> str:
    if answer.status == 401:
        return "check the token of tracker.provider.api_key (GITLAB_PAT)"
    if answer.status in (403, 404):
        return (
            "check tracker.provider.project_path, and that the token may read that project's issues"
        )
    return ""
