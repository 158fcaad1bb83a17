"""The tracker ``asana``: one project, its sections as states, over Asana's REST API.

Fetches with ``asana_reads``, normalises with ``asana_records``, and runs the agent's ``asana_api``
(``asana_tool``) with its own token. The profile page is docs/trackers/asana.md.

Invariant: nothing partial is returned; a fault of one batch or page is the fault of the read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from symphony.errors import SettingFault, TrackerError
from symphony.model.issue import Issue, IssueId, normalize_state

from .asana_reads import AsanaReads, unknown
from .asana_records import dependency_gids, is_outside, to_issue
from .asana_settings import AsanaSettings, resolve
from .asana_tool import build_tool, check, tool_spec
from .base import ToolContext, ToolResult, ToolSpec
from .dropped_records import DroppedRecords
from .http import HttpClient
from .joint_reads import JointReads, Shown
from .remote import RemoteTracker, refusal
from .rest_reads import checked_at_start, in_turns, state_faults
from .rest_records import Malformed, dig, entries, text

if TYPE_CHECKING:
    from symphony.config.settings import TrackerSettings

log = structlog.get_logger(__name__)


class AsanaTracker(RemoteTracker[AsanaSettings, AsanaReads]):
    """An Asana project as a ``Tracker`` (SPEC 11).

    Args:
        settings: Resolved settings.
        client: The HTTP layer; None makes one that sends the token.
    """

    kind = "asana"

    def __init__(self, settings: AsanaSettings, *, client: HttpClient | None = None) -> None:
        http = client or HttpClient(
            provider="Asana", headers=headers(settings), base_url=settings.endpoint
        )
        self._dropped = DroppedRecords("Asana")
        super().__init__(settings, http, AsanaReads(settings, http))
        self._joint = JointReads(self._in_states, self._by_ids)
        self._tool = build_tool(settings)

    async def fetch_issues_by_states(self, states: Sequence[str]) -> list[Issue]:
        """Return all tasks of the project in these sections, in the project's order, each once.

        Completed tasks are only asked for where one of the states can hold them.
        """
        return await self._joint.in_states(states)

    async def fetch_issues_by_ids(self, ids: Sequence[IssueId]) -> list[Issue]:
        """Return the tasks of these ids that are in the project, in the asked order."""
        return await self._joint.by_ids(ids)

    async def fetch_issue(self, name: str) -> Issue | None:
        """Return the task of ``ASANA-<gid>`` or of a gid."""
        gid = name.strip().upper().removeprefix("ASANA-")
        found = await self.fetch_issues_by_ids([IssueId(gid)])
        return found[0] if found else None

    async def faults_at_start(self) -> Sequence[str]:
        """What of the token, the project and the section names Asana does not know."""
        return await checked_at_start(self._state_faults)

    async def _state_faults(self) -> list[str]:
        try:
            sections = await self._reads.sections()
        except TrackerError as error:
            if error.status not in (403, 404) or not await self._reads.shows_tasks():
                raise
            log.warning("Asana's sections can't be read to check states", why=error.message)
            return []
        known = [name for entry in sections if (name := text(dig(entry, "name"))) is not None]
        return state_faults(
            "the Asana project",
            known,
            active=self._settings.active,
            terminal=self._settings.terminal,
        )

    def agent_tools(self) -> Sequence[ToolSpec]:
        """The tool ``asana_api``."""
        return (tool_spec(self._tool),)

    async def call_tool(self, name: str, arguments: Any, context: ToolContext) -> ToolResult:
        """Execute ``asana_api``; a call that changes something is sent once."""
        return await self._tool.call(name, arguments, context, self.http, prepare=self._checked)

    async def _checked(self, arguments: object, context: ToolContext) -> object:
        await check(self._tool, self._settings, arguments, context, self._is_outside)
        return arguments

    async def _in_states(self, states: Sequence[str]) -> Shown:
        names = [name for name in dict.fromkeys(states) if name.strip()]
        if not names:
            return Shown([])
        wanted = {normalize_state(name) for name in names}
        completed = any(self._settings.may_be_completed(name) for name in names)
        listed = await self._reads.listed(completed=completed)
        tasks: dict[str, Any] = {}
        beside: dict[str, Issue] = {}
        problems = []
        async for task in in_turns(listed):
            try:
                issue = to_issue(task, self._settings)
            except Malformed as error:
                problems.append((task, error))
            else:
                if issue.state_key in wanted:
                    tasks.setdefault(issue.id, task)
                elif not issue.blocked_by:
                    beside.setdefault(issue.id, issue)
        self._dropped.tell(names, problems)
        return Shown(await self._resolved(list(tasks.values()), listed), list(beside.values()))

    async def _by_ids(self, ids: Sequence[IssueId]) -> list[Issue]:
        # What is no number is no id of Asana's, and has no place in a path.
        gids = [gid for gid in ids if gid.isascii() and gid.isdecimal()]
        if not gids:
            return []
        records = await self._reads.tasks(gids)
        asked = set(gids)
        tasks = []
        for record in records:
            if text(dig(record, "gid")) not in asked:
                raise unknown("a task that was asked for has another id")
            if not is_outside(record, self._settings):
                tasks.append(record)
        if not tasks:
            # A project that the token may not see any more answers as if each task were gone.
            await self._reads.sections()
        try:
            issues = await self._resolved(tasks, records)
        except Malformed as error:
            said = f"a task that was asked for is malformed: {error}"
            raise unknown(said, of_one_issue=True) from error
        found = {issue.id: issue for issue in issues}
        return [found[gid] for gid in ids if gid in found]

    async def _resolved(self, tasks: Sequence[Any], known: Sequence[Any]) -> list[Issue]:
        """The issues of these tasks, with what is known or can be read of their dependencies."""
        others: dict[str, object] = {}
        if self._settings.dependencies:
            needed = {gid for task in tasks for gid in dependency_gids(task)}
            others = {gid: task for task in known if (gid := text(dig(task, "gid"))) is not None}
            missing = sorted(gid for gid in needed - set(others) if gid.isdecimal())
            if missing:
                found = await self._reads.tasks(missing, maybe_listed=False)
                others |= {str(dig(task, "gid")): task for task in found}
        return [to_issue(task, self._settings, others) async for task in in_turns(tasks)]

    async def _is_outside(self, kind: str, gid: str) -> bool:
        """Whether a task, story or section is none of the project; a subtask is its parent's."""
        project = self._settings.project_gid
        if kind == "section":
            section = await self._reads.one(f"/sections/{gid}", "project")
            return bool(dig(section, "project", "gid") != project)
        if kind == "story":
            story = await self._reads.one(f"/stories/{gid}", "target")
            target = dig(story, "target", "gid")
            return not isinstance(target, str) or await self._is_outside("task", target)
        for _ in range(5):
            task = await self._reads.one(f"/tasks/{gid}", "memberships.project,parent")
            memberships = entries(dig(task, "memberships"))
            if any(dig(membership, "project", "gid") == project for membership in memberships):
                return False
            parent = dig(task, "parent", "gid")
            if not isinstance(parent, str) or not parent.isdecimal():
                return True
            gid = parent
        return True


def headers(settings: AsanaSettings) -> dict[str, str]:
    """The headers of every call."""
    return {"Accept": "application/json", "Authorization": f"Bearer {settings.api_key}"}


def validate(
    settings: TrackerSettings, environ: Mapping[str, str], base_dir: Path
) -> list[SettingFault]:
    """Return everything that is wrong with ``tracker`` for this adapter."""
    return resolve(settings, environ)[1]


def build(settings: TrackerSettings, environ: Mapping[str, str], base_dir: Path) -> AsanaTracker:
    """Build the tracker.

    Raises:
        TrackerError: ``invalid_tracker_config`` or ``missing_tracker_secret``.
    """
    resolved, faults = resolve(settings, environ)
    if resolved is None:
        raise refusal(faults, missing_secret="missing_asana_api_key")
    return AsanaTracker(resolved)
