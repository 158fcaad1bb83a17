"""Which finished issues still have a workspace: asked once, when the daemon starts (SPEC 8.6).

It begins at the workspaces on disk, which are few, and not at the finished issues, which are all
there ever were: the ledger knows whose workspace a path is, and those issues are read by id. Only
for paths that no run is known of are the terminal states read whole. Invariant: nothing is taken
for finished that the tracker has not shown in a terminal state in this very read.

``executor`` asks; the scheduler decides what is removed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Protocol

from symphony.errors import LedgerError, TrackerError, WorkspaceError
from symphony.model.issue import Issue, IssueId, normalize_state
from symphony.observe.logs import get_logger
from symphony.trackers.base import Tracker
from symphony.workspaces.keys import workspace_key

_log = get_logger(__name__)


class WorkspacesOnDisk(Protocol):
    """What is asked of the workspaces."""

    async def existing_paths(self) -> set[str]:
        """Return the paths of the workspaces in the root."""
        ...


class WorkspaceRecords(Protocol):
    """What is asked of the ledger."""

    async def workspace_issues(self) -> Mapping[str, IssueId]:
        """Return the last issue that is known to have worked in each path."""
        ...


async def finished_with_workspace(
    states: tuple[str, ...],
    *,
    tracker: Tracker,
    workspaces: WorkspacesOnDisk,
    ledger: WorkspaceRecords,
) -> list[Issue]:
    """Return the issues in these states that have a workspace.

    Raises:
        TrackerError: The read failed.
    """
    paths = await workspaces.existing_paths()
    if not paths:
        return []
    known = await _known(ledger)
    asked = {path: known[path] for path in sorted(paths) if path in known}
    found = await _by_id(asked, tracker)
    unsettled = {os.path.basename(path): path for path in paths - found.keys()}
    if unsettled:
        for issue in await tracker.fetch_issues_by_states(states):
            path = unsettled.pop(_key(issue) or "", None)
            if path is not None:
                found[path] = issue
    if unsettled:
        _log.info(
            "Workspaces of issues that are not known to be finished",
            paths=sorted(unsettled.values()),
        )
    wanted = {normalize_state(state) for state in states}
    return [issue for issue in found.values() if issue.state_key in wanted]


async def _by_id(asked: Mapping[str, IssueId], tracker: Tracker) -> dict[str, Issue]:
    """Return by path the issues that came and still have the name of that workspace."""
    if not asked:
        return {}
    try:
        issues = await tracker.fetch_issues_by_ids(list(dict.fromkeys(asked.values())))
    except TrackerError as error:
        # The ids may be those of a tracker that the workflow named before.
        _log.warning("Issues of workspaces could not be read by id", error=error.message)
        return {}
    by_id = {issue.id: issue for issue in issues}
    return {
        path: by_id[issue_id]
        for path, issue_id in asked.items()
        if issue_id in by_id and _key(by_id[issue_id]) == os.path.basename(path)
    }


def _key(issue: Issue) -> str | None:
    try:
        return workspace_key(issue.identifier)
    except WorkspaceError:
        return None


async def _known(ledger: WorkspaceRecords) -> Mapping[str, IssueId]:
    try:
        return await ledger.workspace_issues()
    except LedgerError as error:
        _log.warning("Workspaces can't be matched by the ledger", error=error.message)
        return {}
