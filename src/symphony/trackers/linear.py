"""The tracker ``linear``: one project of a Linear workspace over GraphQL.

Fetches with ``linear_listing`` and ``linear_reads``, normalises with ``linear_records``, and runs
the agent's ``linear_graphql`` with its own token (``linear_tool``). Its profile is
docs/trackers/linear.md.

Invariant: a read is complete or it fails, since an issue that is missing from a refresh counts as
gone and its agent is stopped.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from symphony.errors import SettingFault
from symphony.model.issue import Issue, IssueId, normalize_state

from .base import ToolContext, ToolResult, ToolSpec
from .dropped_records import DroppedRecords
from .http import HttpClient
from .linear_listing import WHOLE_EVERY, LinearListing
from .linear_reads import LinearReads, unknown_payload
from .linear_records import Routing, to_issue
from .linear_settings import LinearSettings, resolve
from .linear_tool import LinearTool
from .remote import RemoteTracker, refusal
from .rest_reads import checked_at_start, in_turns, state_faults
from .rest_records import Malformed

if TYPE_CHECKING:
    from symphony.config.settings import TrackerSettings

_IDENTIFIER: Final = re.compile(r"([A-Za-z][A-Za-z0-9]*)-([0-9]{1,9})", re.ASCII)
_UUID: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", re.ASCII)

log = structlog.get_logger(__name__)


class LinearTracker(RemoteTracker[LinearSettings, LinearReads]):
    """A Linear project as a ``Tracker`` (SPEC 11).

    Args:
        settings: Resolved settings.
        terminal_states: A blocker in one of them blocks no more.
        active_states: Names that are compared with Linear's at start.
        client: The HTTP layer; None makes one that sends the token.
        clock: Monotonic seconds, for the whole reads.
        whole_every: Of so many polls, one reads everything.
    """

    kind = "linear"

    def __init__(
        self,
        settings: LinearSettings,
        *,
        terminal_states: Sequence[str],
        active_states: Sequence[str] = (),
        client: HttpClient | None = None,
        clock: Callable[[], float] = time.monotonic,
        whole_every: int = WHOLE_EVERY,
    ) -> None:
        headers = {"Authorization": settings.api_key, "Accept": "application/json"}
        http = client or HttpClient(provider="Linear", headers=headers)
        self._dropped = DroppedRecords("Linear")
        super().__init__(settings, http, LinearReads(settings, http))
        self._listing = LinearListing(self._reads, clock=clock, whole_every=whole_every)
        self._tool = LinearTool(settings, self._reads)
        self._terminal = frozenset(normalize_state(state) for state in terminal_states)
        self._terminal_names = tuple(terminal_states)
        self._active = tuple(active_states)
        self._viewer_id: str | None = None
        self._had_issues = True

    async def fetch_issues_by_states(self, states: Sequence[str]) -> list[Issue]:
        """Return all issues of the project in these states, over all pages, each once."""
        names = list(dict.fromkeys(states))
        if not names:
            return []
        routing = await self._routing()
        # Finished issues are read at start only: what nobody asks for again is not remembered.
        finished = all(normalize_state(name) in self._terminal for name in names)
        read = self._reads.in_states if finished else self._listing.in_states
        nodes = await read(names)
        if self._had_issues and not nodes and not finished:
            await self._reads.see_project()
        self._had_issues = bool(nodes) or (finished and self._had_issues)
        issues: dict[IssueId, Issue] = {}
        problems = []
        async for node in in_turns(nodes):
            try:
                issue = to_issue(node, routing)
            except Malformed as error:
                problems.append((node, error))
            else:
                issues.setdefault(issue.id, issue)
        self._dropped.tell(names, problems)
        return list(issues.values())

    async def fetch_issues_by_ids(self, ids: Sequence[IssueId]) -> list[Issue]:
        """Return the visible issues of these ids in the asked order; 50 go into one query."""
        wanted = list(dict.fromkeys(ids))
        if not wanted:
            return []
        routing = await self._routing()
        nodes = await self._listing.by_ids(wanted)
        found: dict[IssueId, Issue] = {}
        for node in nodes:
            issue = _asked_for(node, routing)
            found.setdefault(issue.id, issue)
        if not found:
            await self._reads.see_project()
        return [found[issue_id] for issue_id in wanted if issue_id in found]

    async def fetch_issue(self, name: str) -> Issue | None:
        """Return the project's issue of an identifier such as ``ENG-12``, or of an id."""
        match = _IDENTIFIER.fullmatch(name.strip())
        if match is not None:
            nodes = await self._reads.by_number(match[1].upper(), int(match[2]))
        elif _UUID.fullmatch(name.strip()):
            nodes = await self._reads.by_ids([IssueId(name.strip().lower())])
        else:
            return None
        if not nodes:
            return None
        return _asked_for(nodes[0], await self._routing())

    def agent_tools(self) -> Sequence[ToolSpec]:
        """The tool ``linear_graphql``."""
        return (self._tool.spec,)

    async def call_tool(self, name: str, arguments: Any, context: ToolContext) -> ToolResult:
        """Execute ``linear_graphql``; a mutation is sent once and never repeated."""
        return await self._tool.call(name, arguments, context)

    async def faults_at_start(self) -> Sequence[str]:
        """What of the token, the project, the team, the assignee and the states Linear lacks."""
        return await checked_at_start(self._state_faults, self._assignee_faults)

    async def _state_faults(self) -> list[str]:
        slug, team = self._settings.project_slug, self._settings.team
        teams = await self._reads.team_states()
        where = f"the project {slug}"
        if team is not None:
            where = f"the team {team.upper()} of the project {slug}"
            if team not in map(str.lower, teams):
                has = ", ".join(f"`{key}`" for key in sorted(teams)) or "none"
                return [f"tracker.provider.team: no {where}; its teams are {has}"]
        known = [
            name
            for key, names in teams.items()
            if team is None or key.lower() == team
            for name in names
        ]
        key = "tracker.active_states"
        spelt = {normalize_state(name): name for name in known}
        # Linear compares names as they are written: another case finds nothing.
        other_case = [
            f"{key}: {where} spells `{name}` as `{spelt[normalize_state(name)]}`"
            for name in self._active
            if name not in known and normalize_state(name) in spelt
        ]
        faults = state_faults(where, known, active=self._active, terminal=self._terminal_names)
        return [*faults, *other_case]

    async def _assignee_faults(self) -> list[str]:
        assignee = self._settings.assignee
        if assignee == "me":
            await self._routing()
        elif assignee is not None and not await self._reads.has_user(assignee):
            return [
                f"tracker.provider.assignee: Linear shows no user {assignee!r}: give a user's id, "
                "or `me` for the token's owner"
            ]
        return []

    async def _routing(self) -> Routing:
        assignee = self._settings.assignee
        if assignee == "me":
            # The token's owner does not change; a reload with another token builds another adapter.
            if self._viewer_id is None:
                self._viewer_id = await self._reads.viewer_id()
            assignee = self._viewer_id
        settings = self._settings
        return Routing(
            assignee,
            self._terminal,
            settings.team,
            settings.blocked_anywhere,
            settings.sub_issues,
            frozenset(normalize_state(state) for state in self._active),
        )


def _asked_for(node: object, routing: Routing) -> Issue:
    try:
        return to_issue(node, routing)
    except Malformed as error:
        said = f"an issue that was asked for is malformed: {error}"
        raise unknown_payload(said, of_one_issue=True) from error


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
        raise refusal(faults, missing_secret="missing_linear_api_token")
    return LinearTracker(
        resolved, terminal_states=settings.terminal_states, active_states=settings.active_states
    )
