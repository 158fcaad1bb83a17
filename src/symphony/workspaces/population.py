"""Fills a workspace from a git repository, and brings the issue's branch back.

A clone per issue that borrows the mirror's objects (no worktree: its ``.git`` would lie outside of
what the sandbox lets an agent write, and its refs would be shared). ``origin`` fetches from the
mirror, which works without a network, and pushes to the repository itself. Invariants: git writes
into a workspace only before its agent has ever seen it; afterwards it is only read, from within the
sandbox; a workspace that is there is never reset.

``mirror`` holds the repository, ``config.branches`` makes the names, ``manager`` says when.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from symphony.config.branches import branch_name
from symphony.config.settings import WorkspaceSettings
from symphony.errors import SymphonyError, WorkspaceError
from symphony.model.issue import Issue

from .git import Git
from .keys import workspace_key
from .mirror import COLLECTED, Mirror
from .sandbox import Sandbox

_log = logging.getLogger(__name__)


def branch_of(issue: Issue, settings: WorkspaceSettings) -> str:
    """Return the name of the branch on which an issue is worked.

    Raises:
        WorkspaceError: ``workspace_branch_invalid``: it is the base itself.
    """
    values = {
        "issue.identifier": workspace_key(issue.identifier),
        "issue.id": issue.id,
        "issue.title": issue.title,
        "issue.branch_name": issue.branch_name or workspace_key(issue.identifier),
    }
    branch = branch_name(settings.branch, values)
    if branch == settings.base:
        message = f"{issue.identifier} would be worked on {branch}, which is workspace.base itself"
        raise WorkspaceError("workspace_branch_invalid", message)
    return branch


class Population:
    """Clones of one repository at a time, by the settings in force.

    Args:
        folder: Where mirrors lie.
        git: Runs our own git.
        sandbox: Where git may look at workspaces.
    """

    def __init__(self, folder: Path, git: Git, sandbox: Sandbox) -> None:
        self._folder = folder
        self._git = git
        self._sandbox = sandbox
        self._mirrors: dict[str, Mirror] = {}

    def mirror(self, settings: WorkspaceSettings) -> Mirror | None:
        """Return the mirror of the repository in the settings, or None where they name none."""
        if settings.repository is None:
            return None
        mirror = self._mirrors.get(settings.repository)
        if mirror is None:
            mirror = self._mirrors[settings.repository] = Mirror(
                settings.repository, self._folder, self._git, timeout_s=settings.git_timeout_s
            )
        mirror.timeout_s = settings.git_timeout_s
        return mirror

    async def fill(self, path: str, issue: Issue, settings: WorkspaceSettings) -> None:
        """Clone into an empty directory and check the issue's branch out.

        The branch goes on where it was left: at what an earlier workspace of the issue brought
        back or what the repository has under its name, whichever is further; else it starts from
        the base.

        Raises:
            WorkspaceError: The repository can't be had, or has no such base.
            HostError: The host was lost.
        """
        mirror = self.mirror(settings)
        if mirror is None:
            return
        branch = branch_of(issue, settings)
        await mirror.refresh(needs_default=settings.base is None)
        start = await _start(mirror, branch, settings)
        timeout_s = settings.git_timeout_s
        await self._git.run(
            "clone",
            "--quiet",
            "--shared",
            "--no-checkout",
            "--template=",
            "--origin=origin",
            "--",
            mirror.path,
            path,
            cwd=path,
            timeout_s=timeout_s,
        )
        where = (f"--git-dir={path}/.git", f"--work-tree={path}")
        pushes = ("config", "remote.origin.pushurl", mirror.url)
        checks_out = ("checkout", "--quiet", "--force", "--no-track", "-B", branch, start)
        for command in (pushes, checks_out):
            await self._git.run(*where, *command, cwd=path, timeout_s=timeout_s)

    async def renew(self, issue: Issue, settings: WorkspaceSettings) -> None:
        """Bring the mirror up to date for an agent that goes on; a failure is only logged."""
        mirror = self.mirror(settings)
        if mirror is None:
            return
        try:
            await mirror.refresh()
        except SymphonyError as error:
            _log.warning("Mirror not refreshed", extra=_fields(issue, error=error.message))

    async def bring_back(self, path: str, issue: Issue, settings: WorkspaceSettings) -> None:
        """Fetch the issue's branch into the mirror, and push it where the settings say so.

        A failure is only logged: the work is still in the workspace.
        """
        mirror = self.mirror(settings)
        if mirror is None:
            return
        if not await asyncio.to_thread(os.path.isdir, os.path.join(path, ".git")):
            return
        try:
            branch = branch_of(issue, settings)
            if not await mirror.collect(path, branch, self._sandbox):
                _log.warning("Branch not fetched: no sandbox holds here", extra=_fields(issue))
                return
            _log.info("Branch fetched", extra=_fields(issue, branch=branch, mirror=mirror.path))
            if settings.push and await mirror.push(branch):
                _log.info("Branch pushed", extra=_fields(issue, branch=branch))
        except SymphonyError as error:
            _log.warning("Branch not brought back", extra=_fields(issue, error=error.message))


async def _start(mirror: Mirror, branch: str, settings: WorkspaceSettings) -> str:
    brought_back = await mirror.commit(f"{COLLECTED}{branch}")
    at_remote = await mirror.commit(f"refs/heads/{branch}")
    if brought_back is not None and at_remote is not None:
        behind = await mirror.is_ancestor(brought_back, at_remote)
        return at_remote if behind else brought_back
    if brought_back is not None or at_remote is not None:
        return brought_back or at_remote or ""
    base = "HEAD" if settings.base is None else f"refs/heads/{settings.base}"
    commit = await mirror.commit(base)
    if commit is None:
        what = "no default branch" if settings.base is None else f"no branch {settings.base}"
        message = f"the repository {mirror.url} has {what}; set workspace.base to one that it has"
        raise WorkspaceError("workspace_base_missing", message)
    return commit


def _fields(issue: Issue, **more: str) -> Mapping[str, str]:
    return {"issue_id": issue.id, "issue_identifier": issue.identifier, **more}
