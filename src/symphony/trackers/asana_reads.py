"""The reads of an Asana project: its list page by page, single tasks in batches, sections.

``asana`` decides what to ask for and what an answer means to the scheduler; ``http`` makes a call
end. Each action of a batch counts as a request at Asana, so many tasks are looked up in the list of
open tasks, and only those that are not in it one by one.

Invariant: a read is complete or it fails. A task is absent only where Asana says so of that task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from symphony.errors import TrackerError

from .asana_records import fields
from .asana_settings import AsanaSettings
from .base import Trial
from .http import Answer, HttpClient, status_error
from .rest_reads import gathered, named
from .rest_records import dig

PAGE: Final = 100
BATCH: Final = 10
"""Actions of one batch; Asana allows no more."""

MAX_PAGES: Final = 1_000

_ABSENT: Final = frozenset({404, 410})


class AsanaReads:
    """The reads of one project.

    Attributes:
        open_pages: Pages of the list of open tasks when it was last read; None before.
    """

    def __init__(self, settings: AsanaSettings, http: HttpClient) -> None:
        self.open_pages: int | None = None
        self._settings = settings
        self._http = http
        self.trial = Trial()
        self._fields = fields(settings)

    async def listed(self, *, completed: bool) -> list[Any]:
        """The project's tasks, completed ones only where asked for."""
        query: dict[str, str | int] = {"opt_fields": ",".join(self._fields)}
        if not completed:
            query["completed_since"] = "now"
        path = f"/projects/{self._settings.project_gid}/tasks"
        tasks, pages = await self._pages(path, query)
        if not completed:
            self.open_pages = pages
        return tasks

    async def tasks(self, gids: Sequence[str], *, maybe_listed: bool = True) -> list[Any]:
        """Those of these tasks that exist and may be seen, in any project.

        Args:
            gids: Of tasks, each once.
            maybe_listed: Whether they may be in the list of the project's open tasks.
        """
        found: dict[str, Any] = {}
        if maybe_listed and self.open_pages is not None and len(gids) > self.open_pages:
            wanted = set(gids)
            for task in await self.listed(completed=False):
                gid = dig(task, "gid")
                if isinstance(gid, str) and gid in wanted:
                    found.setdefault(gid, task)
        missing = [gid for gid in gids if gid not in found]
        if len(missing) == 1:
            return [*found.values(), *await self._single(missing[0])]
        batches = [missing[i : i + BATCH] for i in range(0, len(missing), BATCH)]
        answers = await gathered([self._batch(batch) for batch in batches])
        return [*found.values(), *(task for answer in answers for task in answer)]

    async def shows_tasks(self) -> bool:
        """Whether the token sees any open task of the project.

        Raises:
            TrackerError: Asana gives no answer that tells.
        """
        path = f"/projects/{self._settings.project_gid}/tasks"
        query: dict[str, str | int] = {"completed_since": "now", "opt_fields": "name", "limit": 1}
        answer = await self._send("GET", path, query, None)
        return answer.status not in (403, 404) and bool(_data(_decoded(answer)))

    async def sections(self) -> list[Any]:
        """The project's sections."""
        path = f"/projects/{self._settings.project_gid}/sections"
        return (await self._pages(path, {"opt_fields": "name"}))[0]

    async def one(self, path: str, opt_fields: str) -> Any:
        """A single object, or None where it is absent."""
        answer = await self._send("GET", path, {"opt_fields": opt_fields}, None)
        if answer.status in _ABSENT:
            return None
        found = _data(_decoded(answer))
        if not isinstance(found, Mapping):
            raise unknown("an object is none")
        return found

    async def _single(self, gid: str) -> list[Any]:
        task = await self.one(f"/tasks/{gid}", ",".join(self._fields))
        return [] if task is None else [task]

    async def _batch(self, gids: Sequence[str]) -> list[Any]:
        actions = [
            {"method": "get", "relative_path": f"/tasks/{gid}", "options": {"fields": self._fields}}
            for gid in gids
        ]
        answer = await self._send("POST", "/batch", {}, {"data": {"actions": actions}})
        results = _data(_decoded(answer))
        if not isinstance(results, list) or len(results) != len(gids):
            raise unknown("a batch does not answer each of its actions")
        tasks = []
        for result in results:
            status = dig(result, "status_code")
            if not isinstance(status, int):
                raise unknown("an action of a batch has no status")
            if status in _ABSENT:
                continue
            if not 200 <= status < 300:
                raise status_error("Asana", Answer(status, {}, b""), code="asana_api_status")
            tasks.append(_data(dig(result, "body")))
        return tasks

    async def _pages(self, path: str, query: Mapping[str, str | int]) -> tuple[list[Any], int]:
        entries: list[Any] = []
        seen: set[str] = set()
        query = {**query, "limit": PAGE}
        for number in range(1, MAX_PAGES + 1):
            answer = await self._send("GET", path, query, None)
            if answer.status in (403, 404, 410):
                raise self._unseen(answer.status)
            body = _decoded(answer)
            data = _data(body)
            if not isinstance(data, list):
                raise unknown("a page has no list of `data`")
            entries += data
            offset = _next_offset(body)
            if offset is None or self.trial.ends(more=True):
                return entries, number
            if offset in seen:
                raise _pagination("the same offset twice", "asana_repeated_offset")
            seen.add(offset)
            query = {**query, "offset": offset}
        raise _pagination(f"more than {MAX_PAGES} pages", "asana_endless_pages")

    def _unseen(self, status: int) -> TrackerError:
        gid = self._settings.project_gid
        return TrackerError(
            "tracker_status",
            f"tracker.provider.project_gid: Asana has no project {gid} that this token may see "
            f"(HTTP {status}); check the number, or add the token's owner to the project",
            status=status,
            code="asana_api_status",
        )

    async def _send(
        self, method: str, path: str, query: Mapping[str, str | int], body: Any
    ) -> Answer:
        """Send a read, which is safe to repeat also where it is a POST."""
        try:
            return await self._http.request(method, path, query=query, json=body, idempotent=True)
        except TrackerError as error:
            named(error, "asana")
            raise


def _decoded(answer: Answer) -> Any:
    if not 200 <= answer.status < 300:
        hint = ""
        if answer.status in (401, 403):
            hint = "check the token of tracker.provider.api_key (ASANA_PAT)"
        raise status_error("Asana", answer, code="asana_api_status", hint=hint)
    try:
        return answer.json()
    except ValueError as error:
        raise unknown("the answer is no JSON") from error


def _data(body: object) -> Any:
    if not isinstance(body, Mapping) or "data" not in body:
        raise unknown("the answer has no `data`")
    return body["data"]


def _next_offset(body: Mapping[str, Any]) -> str | None:
    """The offset of the next page; null says that there is none, and nothing says nothing."""
    if "next_page" not in body:
        raise unknown("a page has no `next_page`")
    following = body["next_page"]
    if following is None:
        return None
    if not isinstance(following, Mapping):
        raise unknown("`next_page` is no object")
    offset = following.get("offset")
    if not isinstance(offset, str) or not offset.strip():
        raise _pagination("another page but no offset for it", "asana_missing_next_page_offset")
    return offset


def unknown(what: str, *, of_one_issue: bool = False) -> TrackerError:
    """An answer that can't be read."""
    return TrackerError(
        "tracker_response",
        f"Asana's answer can't be read: {what}",
        code="asana_unknown_payload",
        of_one_issue=of_one_issue,
    )


def _pagination(what: str, code: str) -> TrackerError:
    return TrackerError(
        "tracker_pagination", f"Asana's paging is broken: it gave {what}", code=code
    )
