"""The tracker ``memory``: issues held in the process, for tests and for programs that embed us.

The owner sets the issues from the loop that runs the daemon; every change wakes the watchers.
From a workflow file it starts empty. No tools, no secrets, no I/O.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symphony.errors import SettingFault, TrackerError
from symphony.model.issue import Issue, IssueId, normalize_state

from .base import ToolContext, ToolResult, ToolSpec

if TYPE_CHECKING:
    from symphony.config.settings import TrackerSettings


class MemoryTracker:
    """A tracker whose issues the program sets.

    Attributes:
        failure: While set, every read raises it, as an unreachable provider would.
        reads: Number of reads that asked for something.
    """

    def __init__(self, issues: Iterable[Issue] = ()) -> None:
        self.failure: TrackerError | None = None
        self.reads = 0
        self._issues = {issue.id: issue for issue in issues}
        self._watchers: set[asyncio.Event] = set()

    @property
    def kind(self) -> str:
        """The value of ``tracker.kind``."""
        return "memory"

    @property
    def secret_environment_names(self) -> Sequence[str]:
        """There are no secrets."""
        return ()

    @property
    def issues(self) -> Sequence[Issue]:
        """The issues that are held, in the order in which they were put."""
        return tuple(self._issues.values())

    def put(self, issue: Issue) -> None:
        """Add an issue, or replace the one of the same id."""
        self._issues[issue.id] = issue
        self._notify()

    def update(self, issue_id: str, **changes: Any) -> Issue:
        """Change fields of an issue, for example ``state``, and return it.

        Raises:
            KeyError: No such issue.
        """
        issue = replace(self._issues[IssueId(issue_id)], **changes)
        self.put(issue)
        return issue

    def remove(self, issue_id: str) -> None:
        """Take an issue out of the scope; one that is not there stays so."""
        self._issues.pop(IssueId(issue_id), None)
        self._notify()

    async def fetch_issues_by_states(self, states: Sequence[str]) -> list[Issue]:
        """Return the issues in these states, compared trimmed and in lower case."""
        wanted = {normalize_state(state) for state in states}
        if not wanted:
            return []
        self._count()
        return [issue for issue in self._issues.values() if issue.state_key in wanted]

    async def fetch_issues_by_ids(self, ids: Sequence[IssueId]) -> list[Issue]:
        """Return the issues of these ids, in the asked order, each once."""
        if not ids:
            return []
        self._count()
        return [self._issues[i] for i in dict.fromkeys(ids) if i in self._issues]

    async def fetch_issue(self, name: str) -> Issue | None:
        """Return the issue of this identifier or id."""
        self._count()
        wanted = name.casefold()
        found = (one for one in self._issues.values() if one.identifier.casefold() == wanted)
        return self._issues.get(IssueId(name)) or next(found, None)

    def agent_tools(self) -> Sequence[ToolSpec]:
        """None: there is nothing behind it that an agent could change."""
        return ()

    async def call_tool(self, name: str, arguments: Any, context: ToolContext) -> ToolResult:
        """Refuse: no tools."""
        error = {"message": f"Unsupported dynamic tool: {json.dumps(name)}.", "supportedTools": []}
        return ToolResult(False, json.dumps({"error": error}, indent=2))

    def changes(self) -> AsyncIterator[None]:
        """Yield after changes from here on; several between two looks are one."""
        event = asyncio.Event()
        self._watchers.add(event)
        return self._watch(event)

    async def aclose(self) -> None:
        """Nothing is open."""

    async def _watch(self, event: asyncio.Event) -> AsyncIterator[None]:
        try:
            while True:
                await event.wait()
                event.clear()
                yield None
        finally:
            self._watchers.discard(event)

    def _count(self) -> None:
        self.reads += 1
        if self.failure is not None:
            raise self.failure

    def _notify(self) -> None:
        for event in self._watchers:
            event.set()


def validate(
    settings: TrackerSettings, environ: Mapping[str, str], base_dir: Path
) -> list[SettingFault]:
    """Return a fault for each provider setting: there are none."""
    return [
        SettingFault(f"tracker.provider.{key}", "is no setting of this tracker: it has none")
        for key in settings.provider
    ]


def build(settings: TrackerSettings, environ: Mapping[str, str], base_dir: Path) -> MemoryTracker:
    """Build an empty tracker."""
    return MemoryTracker()
