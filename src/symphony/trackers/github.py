"""The tracker ``github``: the issues of one repository.

Fetches with ``github_reads``, normalises with ``github_records``, and runs the agent's
``github_api`` with its own token (``github_tool``). The profile page is docs/trackers/github.md.

Invariant: a read is complete or it fails, since an issue that is missing from a refresh counts as
gone and its agent is stopped. A pull request is never dispatchable.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from symphony.errors import SettingFault, TrackerError
from symphony.model.issue import BlockerRef, Issue, IssueId, normalize_state

from .base import ToolContext, ToolResult, ToolSpec
from .dropped_records import DroppedRecords
from .github_queries import project_status, unknown_payload
from .github_reads import GitHubReads
from .github_records import (
    NOTHING,
    Extras,
    blocked_by_count,
    from_graphql,
    is_pull_request,
    to_blockers,
    to_issue,
)
from .github_settings import GitHubSettings, resolve
from .github_tool import make_tool
from .http import HttpClient
from .joint_reads import JointReads, Shown, shown_beside
from .remote import RemoteTracker, refusal
from .rest_listing import Records
from .rest_reads import checked_at_start, gathered, in_turns, missing_names, state_faults
from .rest_records import Malformed, dig, text

if TYPE_CHECKING:
    from symphony.config.settings import TrackerSettings

_API_VERSION: Final = "2022-11-28"
_NAME: Final = re.compile(r"(?:GH-|#)?([1-9][0-9]{0,14})", re.IGNORECASE | re.ASCII)


class GitHubTracker(RemoteTracker[GitHubSettings, GitHubReads]):
    """The issues of a GitHub repository as a ``Tracker`` (SPEC 11).

    Args:
        settings: Resolved settings.
        client: The HTTP layer; None makes one that sends the token.
        clock: Monotonic seconds.
        whole_pages: A list of so many pages or fewer is always read whole.
    """

    kind = "github"

    def __init__(
        self,
        settings: GitHubSettings,
        *,
        client: HttpClient | None = None,
        clock: Callable[[], float] = time.monotonic,
        whole_pages: int = 3,
    ) -> None:
        http = client or make_client(settings)
        self._dropped = DroppedRecords("GitHub")
        reads = GitHubReads(settings, http, clock=clock, whole_pages=whole_pages)
        super().__init__(settings, http, reads)
        self._joint = JointReads(self._in_states, self._by_ids, reads_all=self._reads.reads_all)
        self._tool = make_tool(settings)
        self._blocked_counts: dict[int, int] = {}

    async def fetch_issues_by_states(self, states: Sequence[str]) -> list[Issue]:
        """Return all issues of the repository in these states, oldest first, each once."""
        return await self._joint.in_states(states)

    async def fetch_issues_by_ids(self, ids: Sequence[IssueId]) -> list[Issue]:
        """Return the visible issues of these ids in the asked order; 100 go into one query."""
        return await self._joint.by_ids(ids)

    def agent_tools(self) -> Sequence[ToolSpec]:
        """The tool ``github_api``."""
        return (self._tool.spec,)

    async def call_tool(self, name: str, arguments: Any, context: ToolContext) -> ToolResult:
        """Execute ``github_api``; a call is sent once and never repeated."""
        return await self._tool.call(name, arguments, context, self.http)

    async def faults_at_start(self) -> Sequence[str]:
        """What of the token, the repository, the project and the state names GitHub lacks."""
        return await checked_at_start(self._reads.check, self._state_faults)

    async def _in_states(self, states: Sequence[str]) -> Shown:
        wanted = self._known(states)
        if not wanted:
            return Shown([])
        if self._settings.project is not None:
            pairs, left = await self._project_records(), []
        else:
            records = await self._records(wanted)
            pairs, left = [(record, NOTHING) for record in records], records.left
        issues: dict[IssueId, Issue] = {}
        beside = shown_beside(left, lambda record: to_issue(record, self._settings))
        problems = []
        waiting = []
        async for record, extras in in_turns(pairs):
            try:
                issue = to_issue(record, self._settings, extras)
            except Malformed as error:
                problems.append((record, error))
                continue
            if issue.state_key in wanted:
                issues[issue.id] = issue
                waiting.append((record, extras))
            elif not self._settings.dependencies:
                beside.append(issue)
        self._dropped.tell(states, problems)
        if not self._settings.dependencies:
            return Shown(list(issues.values()), beside)
        completed = await gathered(self._with_blockers(*pair) for pair in waiting)
        async for record, extras in in_turns(completed):
            issue = to_issue(record, self._settings, extras)
            issues[issue.id] = issue
        return Shown(list(issues.values()))

    async def _by_ids(self, ids: Sequence[IssueId]) -> list[Issue]:
        numbers = [_number(issue_id) for issue_id in ids]
        found: dict[int, tuple[Any, Extras]] = {}
        if len(numbers) == 1 and self._settings.project is None:
            record = await self._reads.one(numbers[0])
            if record is not None:
                found[numbers[0]] = (record, NOTHING)
        else:
            found = self._in_scope(await self._reads.many(numbers))
        if not found:
            # A repository that the token may not see any more answers as if each issue were gone.
            await self._reads.see_scope()
        if self._settings.dependencies:
            pairs = await gathered(self._with_blockers(*pair) for pair in found.values())
            found = dict(zip(found, pairs, strict=True))
        try:
            issues = {
                number: to_issue(record, self._settings, extras)
                for number, (record, extras) in found.items()
            }
        except Malformed as error:
            said = f"an issue that was asked for is malformed: {error}"
            raise unknown_payload(said, of_one_issue=True) from error
        if any(issue.id != str(number) for number, issue in issues.items()):
            raise unknown_payload("an issue came under another number than was asked for")
        return [issues[number] for number in numbers if number in issues]

    async def fetch_issue(self, name: str) -> Issue | None:
        """Return the issue of ``GH-12``, ``#12`` or ``12``."""
        match = _NAME.fullmatch(name.strip())
        found = [] if match is None else await self.fetch_issues_by_ids([IssueId(match[1])])
        return found[0] if found else None

    async def _state_faults(self) -> list[str]:
        settings = self._settings
        if settings.project is not None:
            key = f"the field `{settings.project_field}` of project {settings.project}"
            known = await self._reads.status_names()
            if not known:
                return [f"tracker.provider.project_field: {key} is no field with options"]
            return state_faults(
                key,
                [*known, "open", "closed"],
                active=settings.active,
                terminal=sorted(settings.terminal),
            )
        if not settings.state_labels:
            return []
        key = f"the repository {settings.owner}/{settings.repo}"
        known = await self._reads.labels()
        labels = list(settings.state_labels.values())
        return missing_names("tracker.provider.state_labels", key, labels, known)

    def _known(self, states: Sequence[str]) -> frozenset[str]:
        """Keys of the asked states, without those that no issue here can have."""
        asked = frozenset(normalize_state(state) for state in states)
        if self._settings.project is not None:
            return asked
        labels = {normalize_state(state) for state in self._settings.state_labels}
        return asked & ({"open", "closed"} | labels)

    async def _records(self, wanted: frozenset[str]) -> Records:
        records = await self._reads.open_issues() if wanted - {"closed"} else Records()
        # A closed issue has a state of its own only where that state is terminal.
        if wanted & (self._settings.terminal | {"closed"}):
            records += await self._reads.closed_issues()
        return records

    async def _project_records(self) -> list[tuple[Any, Extras]]:
        here = f"{self._settings.owner}/{self._settings.repo}".lower()
        pairs = []
        for item in await self._reads.project_items():
            node = item["content"]
            if (text(dig(node, "repository", "nameWithOwner")) or "").lower() == here:
                status = text(dig(item, "fieldValueByName", "name"))
                pairs.append((from_graphql(node), Extras(status=status)))
        return sorted(pairs, key=lambda pair: _order(pair[0]))

    def _in_scope(self, nodes: Mapping[int, Mapping[str, Any]]) -> dict[int, tuple[Any, Extras]]:
        found: dict[int, tuple[Any, Extras]] = {}
        for number, node in nodes.items():
            extras = NOTHING
            if self._settings.project is not None:
                owner, project = self._settings.project_owner, self._settings.project
                inside, status = project_status(node, owner, project)
                if not inside:
                    continue
                extras = Extras(status=status)
            found[number] = (from_graphql(node), extras)
        return found

    async def _with_blockers(self, record: Any, extras: Extras) -> tuple[Any, Extras]:
        """Add the blockers of an open issue that has, or may have, some."""
        number = record.get("number")
        count = blocked_by_count(record)
        if count is None:
            count = self._blocked_counts.get(number, 1)
        else:
            self._blocked_counts[number] = count
        if count == 0 or record.get("state") != "open" or is_pull_request(record):
            return record, extras
        blockers: tuple[BlockerRef, ...] = to_blockers(
            await self._reads.blockers(number), self._settings
        )
        return record, Extras(extras.status, blockers)


def make_client(settings: GitHubSettings) -> HttpClient:
    """The HTTP layer with GitHub's headers and the token."""
    headers = {
        "Accept": "application/vnd.github+json",
        "Authorization": f"Bearer {settings.token}",
        "X-GitHub-Api-Version": _API_VERSION,
        "User-Agent": "symphony",
    }
    return HttpClient(provider="GitHub", headers=headers, base_url=settings.api_url)


def _number(issue_id: str) -> int:
    if issue_id.isascii() and issue_id.isdecimal() and len(issue_id) < 16 and int(issue_id) > 0:
        return int(issue_id)
    raise TrackerError(
        "tracker_response",
        f"{str(issue_id)[:80]!r} is no number of a GitHub issue",
        code="invalid_github_issue_id",
        of_one_issue=True,
    )


def _order(record: Mapping[str, Any]) -> tuple[str, int]:
    number = record.get("number")
    return (str(record.get("created_at") or ""), number if isinstance(number, int) else 0)


def validate(
    settings: TrackerSettings, environ: Mapping[str, str], base_dir: Path
) -> list[SettingFault]:
    """Return everything that is wrong with ``tracker`` for this adapter."""
    return resolve(settings, environ)[1]


def build(settings: TrackerSettings, environ: Mapping[str, str], base_dir: Path) -> GitHubTracker:
    """Build the tracker.

    Raises:
        TrackerError: ``invalid_tracker_config`` or ``missing_tracker_secret``.
    """
    resolved, faults = resolve(settings, environ)
    if resolved is None:
        raise refusal(faults, missing_secret="missing_github_token")
    return GitHubTracker(resolved)
