"""The tracker ``gitlab``: the issues of one project.

Fetches with ``gitlab_reads``, normalises with ``gitlab_records``, and runs the agent's
``gitlab_api`` with its own token (``gitlab_tool``). The profile page is docs/trackers/gitlab.md.

Invariant: a read is complete or it fails, since an issue that is missing from a refresh counts as
gone and its agent is stopped.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from symphony.errors import SettingFault, TrackerError
from symphony.model.issue import Issue, IssueId, normalize_state

from .base import ToolContext, ToolResult, ToolSpec
from .dropped_records import DroppedRecords
from .gitlab_reads import GitLabReads, unknown_payload
from .gitlab_records import is_gated, to_blockers, to_issue
from .gitlab_settings import GitLabSettings, resolve
from .gitlab_tool import make_tool
from .http import HttpClient
from .joint_reads import JointReads, Shown, shown_beside
from .remote import RemoteTracker, refusal
from .rest_listing import Records
from .rest_reads import checked_at_start, in_turns, missing_names, state_faults
from .rest_records import Malformed

if TYPE_CHECKING:
    from symphony.config.settings import TrackerSettings


_NAME: Final = re.compile(r"(?:GL-|#)?([1-9][0-9]{0,14})", re.IGNORECASE | re.ASCII)


class GitLabTracker(RemoteTracker[GitLabSettings, GitLabReads]):
    """The issues of a GitLab project as a ``Tracker`` (SPEC 11).

    Args:
        settings: Resolved settings.
        client: The HTTP layer; None makes one that sends the token.
        clock: Monotonic seconds.
        whole_pages: A list of so many pages or fewer is always read whole.
    """

    kind = "gitlab"

    def __init__(
        self,
        settings: GitLabSettings,
        *,
        client: HttpClient | None = None,
        clock: Callable[[], float] = time.monotonic,
        whole_pages: int = 3,
    ) -> None:
        http = client or make_client(settings)
        self._dropped = DroppedRecords("GitLab")
        reads = GitLabReads(settings, http, clock=clock, whole_pages=whole_pages)
        super().__init__(settings, http, reads)
        self._project_id: int | None = None
        self._joint = JointReads(self._in_states, self._by_ids, reads_all=self._reads.reads_all)
        self._tool = make_tool(settings, lambda: self._project_id)

    async def fetch_issues_by_states(self, states: Sequence[str]) -> list[Issue]:
        """Return all issues of the project in these states, oldest first, each once."""
        return await self._joint.in_states(states)

    async def fetch_issues_by_ids(self, ids: Sequence[IssueId]) -> list[Issue]:
        """Return the visible issues of these ids in the asked order; 100 go into one request."""
        return await self._joint.by_ids(ids)

    async def fetch_issue(self, name: str) -> Issue | None:
        """Return the issue of ``GL-12``, ``#12`` or ``12``."""
        match = _NAME.fullmatch(name.strip())
        found = [] if match is None else await self.fetch_issues_by_ids([IssueId(match[1])])
        return found[0] if found else None

    def agent_tools(self) -> Sequence[ToolSpec]:
        """The tool ``gitlab_api``."""
        return (self._tool.spec,)

    async def call_tool(self, name: str, arguments: Any, context: ToolContext) -> ToolResult:
        """Execute ``gitlab_api``; a call is sent once and never repeated."""
        return await self._tool.call(name, arguments, context, self.http)

    async def faults_at_start(self) -> Sequence[str]:
        """What of the token, the project and the labels that are states GitLab lacks."""
        return await checked_at_start(self._reads.check, self._state_faults)

    async def _in_states(self, states: Sequence[str]) -> Shown:
        wanted = self._known(states)
        if not wanted:
            return Shown([])
        opened = await self._reads.opened_issues() if wanted - {"closed"} else Records()
        records = [*opened]
        # A closed issue has a state of its own only where that state is terminal.
        if wanted & (self._settings.terminal | {"closed"}):
            records += await self._reads.closed_issues()
        issues: dict[IssueId, tuple[Issue, Any]] = {}
        beside = shown_beside(opened.left, self._to_issue)
        problems = []
        async for record in in_turns(records):
            try:
                issue = to_issue(record, self._settings)
            except Malformed as error:
                problems.append((record, error))
            else:
                if issue.state_key in wanted:
                    issues[issue.id] = (issue, record)
                elif not self._is_linked(issue, record):
                    beside.append(issue)
        self._dropped.tell(states, problems)
        return Shown(await self._with_blockers(list(issues.values())), beside)

    async def _by_ids(self, ids: Sequence[IssueId]) -> list[Issue]:
        iids = [_iid(issue_id) for issue_id in ids]
        found = await self._reads.many(iids)
        pairs = []
        for iid in iids:
            if iid not in found:
                continue
            try:
                pairs.append((to_issue(found[iid], self._settings), found[iid]))
            except Malformed as error:
                said = f"an issue that was asked for is malformed: {error}"
                raise unknown_payload(said, of_one_issue=True) from error
        return await self._with_blockers(pairs)

    async def _state_faults(self) -> list[str]:
        settings = self._settings
        where = f"the project {settings.project_path}"
        if settings.state_scope:
            scope = f"{settings.state_scope}::"
            labels = await self._reads.labels()
            return state_faults(
                where,
                [*labels, "opened", "closed"],
                active=_labels_of(settings.active, scope),
                terminal=_labels_of(sorted(settings.terminal), scope),
            )
        if not settings.state_labels:
            return []
        asked = list(settings.state_labels.values())
        known = await self._reads.labels()
        return missing_names("tracker.provider.state_labels", where, asked, known)

    def _known(self, states: Sequence[str]) -> frozenset[str]:
        """Keys of the asked states, without those that no issue here can have."""
        asked = frozenset(normalize_state(state) for state in states)
        if self._settings.state_scope:
            return asked
        labels = {normalize_state(state) for state in self._settings.state_labels}
        return asked & ({"opened", "closed"} | labels)

    def _to_issue(self, record: Any) -> Issue:
        return to_issue(record, self._settings)

    def _is_linked(self, issue: Issue, record: Any) -> bool:
        """Whether its blockers are to be asked for."""
        settings = self._settings
        opened = record.get("state") == "opened" and is_gated(issue.state, settings)
        return settings.blocking_links and opened

    async def _with_blockers(self, pairs: Sequence[tuple[Issue, Any]]) -> list[Issue]:
        """Add the blockers of the open issues that are in the state in which they would start."""
        for _, record in pairs:
            project_id = record.get("project_id")
            if isinstance(project_id, int):
                self._project_id = project_id
        settings = self._settings
        asked = [int(issue.id) for issue, record in pairs if self._is_linked(issue, record)]
        if not asked:
            return [issue for issue, _ in pairs]
        nodes = await self._reads.blockers(asked)
        if absent := [iid for iid in asked if iid not in nodes]:
            raise unknown_payload(f"nothing is said of the blockers of issue {absent[0]}")
        return [
            to_issue(record, settings, to_blockers(nodes[int(issue.id)]))
            if int(issue.id) in nodes
            else issue
            for issue, record in pairs
        ]


def make_client(settings: GitLabSettings) -> HttpClient:
    """The HTTP layer with the token."""
    headers = {
        "Accept": "application/json",
        "PRIVATE-TOKEN": settings.api_key,
        "User-Agent": "symphony",
    }
    return HttpClient(provider="GitLab", headers=headers, base_url=settings.api_url)


def _labels_of(states: Sequence[str], scope: str) -> list[str]:
    """The labels that stand for states; ``opened`` and ``closed`` are GitLab's own."""
    keys = [normalize_state(state) for state in states]
    return [key if key in ("opened", "closed") else f"{scope}{key}" for key in keys]


def _iid(issue_id: str) -> int:
    if issue_id.isascii() and issue_id.isdecimal() and len(issue_id) < 16 and int(issue_id) > 0:
        return int(issue_id)
    raise TrackerError(
        "tracker_response",
        f"{str(issue_id)[:80]!r} is no number of a GitLab issue",
        code="invalid_gitlab_issue_id",
        of_one_issue=True,
    )


def validate(
    settings: TrackerSettings, environ: Mapping[str, str], base_dir: Path
) -> list[SettingFault]:
    """Return everything that is wrong with ``tracker`` for this adapter."""
    return resolve(settings, environ)[1]


def build(settings: TrackerSettings, environ: Mapping[str, str], base_dir: Path) -> GitLabTracker:
    """Build the tracker.

    Raises:
        TrackerError: ``invalid_tracker_config`` or ``missing_tracker_secret``.
    """
    resolved, faults = resolve(settings, environ)
    if resolved is None:
        raise refusal(faults, missing_secret="missing_gitlab_api_key")
    return GitLabTracker(resolved)
