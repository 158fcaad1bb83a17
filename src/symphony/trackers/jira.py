"""The tracker ``jira``: one project of a Jira Cloud site over REST v3.

Fetches with ``jira_reads``, normalises with ``jira_records`` and ``jira_adf``, and runs the agent's
``jira_rest`` (``jira_tool``) with its own token. The profile page is docs/trackers/jira.md.

Invariant: nothing partial is returned; a fault of one batch or page is the fault of the read.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from symphony.errors import SettingFault, TrackerError
from symphony.model.issue import Issue, IssueId, normalize_state

from .base import ToolContext, ToolResult, ToolSpec
from .dropped_records import DroppedRecords
from .http import HttpClient
from .jira_reads import PAGE, JiraReads, headers
from .jira_records import Reading, is_in_project, to_issue
from .jira_settings import CATEGORIES, JiraSettings, resolve
from .jira_tool import build_tool, prepare, tool_spec
from .joint_reads import JointReads, Shown
from .remote import RemoteTracker, refusal
from .rest_reads import checked_at_start, gathered, in_turns, state_faults
from .rest_records import Malformed

if TYPE_CHECKING:
    from symphony.config.settings import TrackerSettings

UNKNOWN_STATES_S: Final = 600.0
"""So long a status that the project does not have is left out of queries, which it would fail."""

_NAME: Final = re.compile(r"(?:[A-Z][A-Z0-9_]*-)?[1-9][0-9]*", re.ASCII)

log = structlog.get_logger(__name__)


class JiraTracker(RemoteTracker[JiraSettings, JiraReads]):
    """A Jira project as a ``Tracker`` (SPEC 11).

    Args:
        settings: Resolved settings.
        active_states: Checked at start.
        terminal_states: Likewise; a blocker in one of them blocks no more.
        client: The HTTP layer; None makes one that sends the credentials.
        clock: Monotonic seconds.
    """

    kind = "jira"

    def __init__(
        self,
        settings: JiraSettings,
        *,
        active_states: Sequence[str] = (),
        terminal_states: Sequence[str],
        client: HttpClient | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        http = client or HttpClient(
            provider="Jira", headers=headers(settings), base_url=settings.base_url
        )
        self._dropped = DroppedRecords("Jira")
        self._states = {"active_states": active_states, "terminal_states": terminal_states}
        terminal = frozenset(normalize_state(state) for state in terminal_states)
        self._reading = Reading(settings=settings, terminal=terminal)
        super().__init__(settings, http, JiraReads(settings, self._reading, http))
        self._joint = JointReads(self._in_states, self._by_ids)
        self._tool = build_tool(settings)
        self._clock = clock
        self._unknown: dict[str, float] = {}

    async def fetch_issues_by_states(self, states: Sequence[str]) -> list[Issue]:
        """Return all issues of the project in these states, over all pages, each once."""
        return await self._joint.in_states(states)

    async def fetch_issues_by_ids(self, ids: Sequence[IssueId]) -> list[Issue]:
        """Return the visible issues of these ids in the asked order; 100 go into one request."""
        return await self._joint.by_ids(ids)

    async def fetch_issue(self, name: str) -> Issue | None:
        """Return the issue of a key or an id; a key of another project is asked for too, in vain.

        A key that the issue had before it moved here does not find it.
        """
        key = name.strip().upper()
        if _NAME.fullmatch(key) is None:
            return None
        found = await self._reads.batch([key])
        return found[0] if found else None

    async def faults_at_start(self) -> Sequence[str]:
        """What of the credentials, the project, the state names and the filters Jira refuses."""
        return await checked_at_start(self._state_faults, self._filter_faults)

    async def _state_faults(self) -> list[str]:
        try:
            known = await self._reads.statuses()
        except TrackerError as error:
            if error.status != 404 or not await self._reads.shows_issues():
                raise
            log.warning("Jira's statuses can't be read to check the states", why=error.message)
            return []
        if self._settings.by_category:
            known = list(CATEGORIES.values())
        return known and state_faults(
            "the Jira project",
            known,
            active=self._states["active_states"],
            terminal=self._states["terminal_states"],
        )

    async def _filter_faults(self) -> list[str]:
        """A filter that Jira can't read makes every poll fail, so it is tried on its own."""
        try:
            await self._reads.try_filters()
        except TrackerError as error:
            if error.status != 400:
                raise
            keys = [f"tracker.provider.{key}" for key in self._settings.filter_keys]
            return [f"{' and '.join(keys)}: {error.message}"]
        return []

    def agent_tools(self) -> Sequence[ToolSpec]:
        """The tool ``jira_rest``."""
        return (tool_spec(self._tool),)

    async def call_tool(self, name: str, arguments: Any, context: ToolContext) -> ToolResult:
        """Execute ``jira_rest``; a call that changes something is sent once."""
        return await self._tool.call(name, arguments, context, self.http, prepare=self._prepared)

    async def _prepared(self, arguments: object, context: ToolContext) -> object:
        return await prepare(self._tool, self._settings, arguments, context, self._reads.outside)

    async def _in_states(self, states: Sequence[str]) -> Shown:
        names = self._asked_states(states)
        if not names:
            return Shown([])
        try:
            records = await self._reads.search(names)
        except TrackerError as error:
            if error.status != 400 or not await self._note_unknown_states(names):
                raise
            names = self._asked_states(states)
            records = await self._reads.search(names) if names else []
        if records and not any(is_in_project(record, self._settings) for record in records):
            await self._reads.see_project()
        wanted = {normalize_state(name) for name in names}
        issues: dict[IssueId, Issue] = {}
        problems = []
        async for record in in_turns(records):
            try:
                issue = to_issue(record, self._reading)
            except Malformed as error:
                problems.append((record, error))
            else:
                # The search index may lag behind; what it sends with an issue is current.
                if issue.state_key in wanted:
                    issues.setdefault(issue.id, issue)
        self._dropped.tell(names, problems)
        return Shown(list(issues.values()))

    async def _by_ids(self, ids: Sequence[IssueId]) -> list[Issue]:
        batches = [ids[i : i + PAGE] for i in range(0, len(ids), PAGE)]
        answers = await gathered(self._reads.batch(batch) for batch in batches)
        found = {issue.id: issue for answer in answers for issue in answer}
        if not found:
            # A project that can't be browsed any more answers as if each issue were gone.
            await self._reads.see_project()
        return [found[issue_id] for issue_id in ids if issue_id in found]

    def _asked_states(self, states: Sequence[str]) -> list[str]:
        """The states that are worth asking for, each once."""
        now = self._clock()
        self._unknown = {name: until for name, until in self._unknown.items() if until > now}
        names = [name for name in dict.fromkeys(states) if name.strip()]
        if self._settings.by_category:
            known = {normalize_state(name): name for name in CATEGORIES.values()}
            found = (known.get(normalize_state(name)) for name in names)
            return list(dict.fromkeys(name for name in found if name is not None))
        return [name for name in names if normalize_state(name) not in self._unknown]

    async def _note_unknown_states(self, names: Sequence[str]) -> bool:
        """Whether the project does not have some of these states; they are left out for a while."""
        if self._settings.by_category:
            return False
        known = {normalize_state(name) for name in await self._reads.statuses()}
        unknown = [name for name in names if normalize_state(name) not in known]
        if unknown:
            log.warning(
                "Leaving out states that the Jira project does not have",
                states=unknown,
                project=self._settings.project_key,
            )
        until = self._clock() + UNKNOWN_STATES_S
        self._unknown.update((normalize_state(name), until) for name in unknown)
        return bool(unknown)


def validate(
    settings: TrackerSettings, environ: Mapping[str, str], base_dir: Path
) -> list[SettingFault]:
    """Return everything that is wrong with ``tracker`` for this adapter."""
    return resolve(settings, environ)[1]


def build(settings: TrackerSettings, environ: Mapping[str, str], base_dir: Path) -> JiraTracker:
    """Build the tracker.

    Raises:
        TrackerError: ``invalid_tracker_config`` or ``missing_tracker_secret``.
    """
    resolved, faults = resolve(settings, environ)
    if resolved is None:
        raise refusal(faults, missing_secret="missing_jira_api_token")
    return JiraTracker(
        resolved, active_states=settings.active_states, terminal_states=settings.terminal_states
    )
