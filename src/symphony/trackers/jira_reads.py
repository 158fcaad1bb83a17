"""The reads of a Jira project over REST v3: pages, batches, filters, statuses.

``jira`` decides what to ask for and what an answer means to the scheduler; ``http`` makes a call
end. Every read here is safe to repeat, also where Jira spells it as a POST.

Invariant: a read is complete or it fails. A page that does not say what follows, an issue that Jira
could not load for now, an answer made for nobody because the login failed are failures, since an
issue that is missing from a refresh counts as gone and its agent is stopped.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from symphony.errors import TrackerError
from symphony.model.issue import Issue

from . import jira_jql
from .base import Trial
from .http import Answer, HttpClient, status_error
from .jira_records import Reading, fields, is_in_project, project_key, to_issue
from .jira_settings import JiraSettings
from .rest_records import Malformed, dig, entries, integer, text

PAGE: Final = 100
"""Issues of one page, and ids of one batch."""

MAX_PAGES: Final = 1_000

_LOGIN_FAILED: Final = frozenset({"AUTHENTICATED_FAILED", "AUTHENTICATION_DENIED"})


class JiraReads:
    """The reads of one project.

    Args:
        settings: Scope, filters and how records are read.
        reading: How records become issues.
        http: The HTTP layer.
    """

    def __init__(self, settings: JiraSettings, reading: Reading, http: HttpClient) -> None:
        self._settings = settings
        self._reading = reading
        self._http = http
        self.trial = Trial()

    async def search(self, states: Sequence[str]) -> list[Any]:
        """The records of all pages of a search for these states."""
        settings = self._settings
        field = "statusCategory" if settings.by_category else "status"
        jql = jira_jql.state_query(
            settings.project_key, states, field=field, filters=settings.filters
        )
        body: dict[str, Any] = {"jql": jql, "fields": fields(settings), "maxResults": PAGE}
        records: list[Any] = []
        seen: set[str] = set()
        for _ in range(MAX_PAGES):
            page = await self._read("POST", "/rest/api/3/search/jql", body)
            records += _issues(page)
            token = _next_token(page)
            if token is None or self.trial.ends(more=True):
                return records
            if token in seen:
                raise _pagination("the same page token twice", "jira_repeated_page_token")
            seen.add(token)
            body = {**body, "nextPageToken": token}
        raise _pagination(f"more than {MAX_PAGES} pages", "jira_endless_pages")

    async def shows_issues(self) -> bool:
        """Whether the account sees any issue of the project.

        Raises:
            TrackerError: Jira gives no answer that tells.
        """
        try:
            return bool(_issues(await self._search_one([])))
        except TrackerError as error:
            if error.status in (400, 404):
                return False
            raise

    async def try_filters(self) -> None:
        """Search with the filters alone, where there are some.

        Raises:
            TrackerError: With the status 400 where Jira can't read them.
        """
        if self._settings.filters:
            await self._search_one(self._settings.filters)

    async def _search_one(self, filters: Sequence[str]) -> Mapping[str, Any]:
        project = f"project = {jira_jql.quoted(self._settings.project_key)}"
        body = {"jql": " AND ".join([project, *filters]), "fields": ["summary"], "maxResults": 1}
        return await self._read("POST", "/rest/api/3/search/jql", body)

    async def batch(self, ids: Sequence[str]) -> list[Issue]:
        """The visible issues of at most ``PAGE`` ids or keys in upper case, in no order."""
        body = {"issueIdsOrKeys": list(ids), "fields": fields(self._settings)}
        page = await self._read("POST", "/rest/api/3/issue/bulkfetch", body)
        requested = set(ids)
        issues = [
            issue
            for record in _issues(page)
            if (issue := self._requested(record, requested)) is not None
        ]
        returned = {name for issue in issues for name in (issue.id, issue.identifier.upper())}
        for problem in entries(page.get("issueErrors")):
            # Jira lists here what it could not load for now; what is gone, it leaves out.
            unread = {text(dig(problem, "id")), text(dig(problem, "key"))}
            if unread & (requested - returned):
                said = text(dig(problem, "errorMessage")) or "no reason given"
                said = f"an issue that was asked for could not be loaded: {said[:200]}"
                raise _unknown(said, of_one_issue=True)
        return await self._filtered(issues)

    def _requested(self, record: object, requested: set[str]) -> Issue | None:
        """The issue of a record; None where it was not asked for or is another project's."""
        issue_id = dig(record, "id")
        if not isinstance(issue_id, str):
            raise _unknown("an issue without an id")
        if requested.isdisjoint((issue_id, str(dig(record, "key")).upper())):
            return None
        if project_key(record) is None:
            raise _unknown("an issue that was asked for names no project", of_one_issue=True)
        if not is_in_project(record, self._settings):
            return None
        try:
            return to_issue(record, self._reading)
        except Malformed as error:
            said = f"an issue that was asked for is malformed: {error}"
            raise _unknown(said, of_one_issue=True) from error

    async def _filtered(self, issues: list[Issue]) -> list[Issue]:
        """Those that the configured filters let pass."""
        numbers = [number for issue in issues if (number := integer(issue.id)) is not None]
        if not self._settings.filters or not numbers:
            return issues
        jql = " AND ".join(self._settings.filters)
        answer = await self._read(
            "POST", "/rest/api/3/jql/match", {"issueIds": numbers, "jqls": [jql]}
        )
        (match, *_) = [*entries(answer.get("matches")), None]
        matched = dig(match, "matchedIssues")
        if not isinstance(matched, list) or entries(dig(match, "errors")):
            said = "; ".join(str(entry)[:200] for entry in entries(dig(match, "errors"))[:3])
            raise _unknown(f"the filters could not be matched: {said or 'no matches'}")
        kept = {integer(number) for number in matched}
        return [issue for issue in issues if integer(issue.id) in kept]

    async def outside(self, references: Sequence[str]) -> Sequence[str]:
        """Which of these ids and keys are no issues of the project."""
        body = {"issueIdsOrKeys": list(references), "fields": ["project"]}
        page = await self._read("POST", "/rest/api/3/issue/bulkfetch", body)
        inside: set[str] = set()
        for record in _issues(page):
            if is_in_project(record, self._settings):
                inside |= {str(dig(record, "id")), str(dig(record, "key")).lower()}
        # The old key of an issue that moved away is not among them.
        return [name for name in references if name.lower() not in inside]

    async def see_project(self) -> None:
        """Make sure that the project can be seen, under the key that is configured.

        Raises:
            TrackerError: It can't, or it was given another key.
        """
        found = await self._of_project("")
        key, now = self._settings.project_key, text(dig(found, "key"))
        if now is not None and now.lower() != key.strip().lower():
            raise TrackerError(
                "tracker_response",
                f"tracker.provider.project_key: Jira's project `{key}` is called `{now}` now; "
                "set that key",
                code="jira_renamed_project",
            )

    async def statuses(self) -> list[str]:
        """The names of the project's statuses."""
        answer = await self._of_project("/statuses")
        if not isinstance(answer, list):
            raise _unknown("the project's statuses are no list")
        names = [
            text(dig(status, "name"))
            for kind in answer
            for status in entries(dig(kind, "statuses"))
        ]
        return list(dict.fromkeys(name for name in names if name is not None))

    async def _of_project(self, what: str) -> Any:
        key = self._settings.project_key
        try:
            path = f"/rest/api/3/project/{quote(key, safe='')}{what}"
            return await self._decoded("GET", path, None)
        except TrackerError as error:
            if error.status != 404:
                raise
            raise TrackerError(
                "tracker_status",
                f"tracker.provider.project_key: Jira has no project `{key}` that this account "
                "may see; check the key, or give the account the permission to browse it",
                status=404,
                code="jira_api_status",
            ) from None

    async def _read(self, method: str, path: str, body: Any) -> Mapping[str, Any]:
        answer = await self._decoded(method, path, body)
        if not isinstance(answer, Mapping):
            raise _unknown("the answer is no JSON object")
        return answer

    async def _decoded(self, method: str, path: str, body: Any) -> Any:
        """Send a read, which is safe to repeat also where it is a POST, and decode the answer."""
        try:
            answer = await self._http.request(
                method, path, json=body, idempotent=True, conditional=method == "GET"
            )
        except TrackerError as error:
            if error.category == "tracker_request":
                error.code = "jira_api_request"
            elif error.category in ("tracker_status", "tracker_rate_limited"):
                error.code = "jira_api_status"
            raise
        hint = (
            "check tracker.provider.email and the token of tracker.provider.api_token "
            "(JIRA_API_TOKEN)"
        )
        if not 200 <= answer.status < 300:
            refused = answer.status in (401, 403)
            raise status_error("Jira", answer, code="jira_api_status", hint=hint if refused else "")
        if _login_failed(answer):
            raise TrackerError(
                "tracker_status",
                f"Jira refused the login and answered as for nobody; {hint}",
                status=401,
                code="jira_api_status",
            )
        try:
            return answer.json()
        except ValueError as error:
            raise _unknown("the answer is no JSON") from error


def headers(settings: JiraSettings) -> dict[str, str]:
    """The headers of every call: Basic credentials of e-mail and token."""
    credentials = f"{settings.email}:{settings.api_token}".encode()
    return {
        "Accept": "application/json",
        "Authorization": f"Basic {b64encode(credentials).decode()}",
    }


def _login_failed(answer: Answer) -> bool:
    """Some reads answer a wrong login with 200 and what everybody may see."""
    reason = answer.headers.get("x-seraph-loginreason", "")
    return any(word.strip().upper() in _LOGIN_FAILED for word in reason.split(","))


def _issues(page: Mapping[str, Any]) -> list[Any]:
    issues = page.get("issues")
    if not isinstance(issues, list):
        raise _unknown("there is no list of `issues`")
    return issues


def _next_token(page: Mapping[str, Any]) -> str | None:
    last, token = page.get("isLast"), page.get("nextPageToken")
    if not isinstance(last, bool):
        raise _unknown("a page does not say whether it is the last one")
    if last:
        return None
    if not isinstance(token, str) or not token:
        raise _pagination("another page but no token for it", "jira_missing_next_page_token")
    return token


def _unknown(what: str, *, of_one_issue: bool = False) -> TrackerError:
    return TrackerError(
        "tracker_response",
        f"Jira's answer can't be read: {what}",
        code="jira_unknown_payload",
        of_one_issue=of_one_issue,
    )


def _pagination(what: str, code: str) -> TrackerError:
    return TrackerError("tracker_pagination", f"Jira's paging is broken: it gave {what}", code=code)
