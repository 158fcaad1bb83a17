"""Fills a workspace from a git repository, and brings the issue's branch back.

A clone per issue that borrows the mirror's objects (no worktree: its ``.git`` would lie outside of
what the sandbox lets an agent write, and its refs would be shared). ``origin`` fetches from the
mirror, which works without a network, and pushes to the repository itself. Invariants: git writes
into a workspace only before its agent has ever seen it; afterwards it is only read, from within the
sandbox; a workspace that is there is never reset. What it was filled from is written down where no
agent can write, since neither the settings of today nor its own metadata need to tell the truth.

``mirror`` holds the repository, ``config.branches`` makes the names, ``manager`` says when.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from symphony.config.branches import branch_name
from symphony.config.settings import WorkspaceSettings
from symphony.errors import SymphonyError, WorkspaceError
from symphony.model.issue import Issue

from .folders import PRIVATE
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


@dataclass(frozen=True, slots=True)
class _Origin:
    """From what a workspace was filled, as it was then: the settings may change meanwhile."""

    repository: str
    branch: str


class Population:
    """Clones, each of the repository that the settings named when it was made.

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

    async def fill(self, path: str, issue: Issue, settings: WorkspaceSettings) -> None:
        """Clone into an empty directory and check the issue's branch out.

        The branch goes on where it was left: at what an earlier workspace of the issue brought
        back or what the repository has under its name, whichever is further; else it starts from
        the base. Without a repository in the settings nothing happens.

        Raises:
            WorkspaceError: The repository can't be had, or has no such base.
            HostError: The host was lost.
        """
        if settings.repository is None:
            await asyncio.to_thread(forget, path)
            return
        branch = branch_of(issue, settings)
        mirror = self._mirror(settings.repository, settings)
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
        await asyncio.to_thread(_remember, path, _Origin(settings.repository, branch))

    async def renew(self, path: str, issue: Issue, settings: WorkspaceSettings) -> None:
        """Bring the mirror up to date for an agent that goes on; a failure is only logged."""
        origin = await asyncio.to_thread(_recall, path)
        if origin is None:
            return
        try:
            await self._mirror(origin.repository, settings).refresh()
        except SymphonyError as error:
            _log.warning("Mirror not refreshed", extra=_fields(issue, error=error.message))

    async def bring_back(self, path: str, issue: Issue, settings: WorkspaceSettings) -> str | None:
        """Fetch the issue's branch into the mirror, and push it where the settings say so.

        A failure is only logged: the work is still in the workspace.

        Returns:
            The mirror's path, or None for a workspace that was not filled from one.
        """
        origin = await asyncio.to_thread(_recall, path)
        if origin is None:
            return None
        mirror, branch = self._mirror(origin.repository, settings), origin.branch
        try:
            if not await mirror.collect(path, branch, self._sandbox):
                _log.warning("Branch not fetched: no sandbox holds here", extra=_fields(issue))
                return mirror.path
            _log.info("Branch fetched", extra=_fields(issue, branch=branch, mirror=mirror.path))
            if settings.push and await mirror.push(branch):
                _log.info("Branch pushed", extra=_fields(issue, branch=branch))
        except SymphonyError as error:
            _log.warning("Branch not brought back", extra=_fields(issue, error=error.message))
        return mirror.path

    def _mirror(self, url: str, settings: WorkspaceSettings) -> Mirror:
        mirror = self._mirrors.get(url)
        if mirror is None:
            mirror = self._mirrors[url] = Mirror(
                url, self._folder, self._git, timeout_s=settings.git_timeout_s
            )
        mirror.timeout_s = settings.git_timeout_s
        return mirror


def _record(path: str) -> Path:
    root, key = os.path.split(path)
    return Path(root) / PRIVATE / "filled" / key


def _remember(path: str, origin: _Origin) -> None:
    record = _record(path)
    record.parent.mkdir(mode=0o700, exist_ok=True)
    fresh = record.with_name(f".{uuid.uuid4().hex}")
    fresh.write_text(json.dumps(asdict(origin)), encoding="utf-8")
    fresh.replace(record)


def forget(path: str) -> None:
    """Let a workspace be one that was not filled from a repository. Blocks."""
    _record(path).unlink(missing_ok=True)


def _recall(path: str) -> _Origin | None:
    try:
        text = _record(path).read_text(encoding="utf-8")
        return _Origin(**json.loads(text))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        _log.warning("Record of a workspace not read", extra={"workspace": path, "error": error})
        return None


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
