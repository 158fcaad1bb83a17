"""Workspaces of issues: prepared, hooked, and removed (SPEC 9, 8.6).

Invariants: an issue's workspace is its own; one that ``prepare`` returns has been
filled and has had its ``after_create`` run to its end; nothing outside of the root is ever touched;
work that exists nowhere else is not deleted unless the settings say so. What happens to one
workspace is serialised; different ones don't wait for each other. The file system is read and
written in threads.

``keys`` and ``folders`` do the work on paths, ``hooks`` runs the scripts, ``population`` fills from
git, ``inspection`` and ``kept`` look after work that is left. The runner calls
``prepare``, ``before_run`` and ``after_run``, the engine ``existing_paths`` and ``remove``.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from weakref import WeakValueDictionary

from symphony.config.settings import Settings
from symphony.errors import SymphonyError, WorkspaceError
from symphony.hosts.base import Host
from symphony.model.issue import Issue
from symphony.model.run import RunSpec

from . import folders, kept
from .git import Git
from .hooks import Hook, HookCall, run_hook
from .inspection import tree_mark, work_in
from .keys import canonicalize, check_agent_cwd, check_own_directory, workspace_key
from .population import Population, forget
from .sandbox import Sandbox
from .stale_locks import remove_stale_locks

_log = logging.getLogger(__name__)

CONCURRENT_INSPECTIONS = 4
"""Workspaces that are looked through at the same time; each takes a few short processes."""

CONCURRENT_CLAIMS = 8
"""Workspaces that are made at the same time. Of hundreds of runs that begin at once, the first are
to have their agents before the last have their directories: an agent starts on another core."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """A directory that is ready for its issue's agent.

    Attributes:
        path: Absolute and free of links: the agent's working directory.
        key: Its name in the root.
        root: The canonical root; stays this one when the settings change meanwhile.
        created_now: True where ``prepare`` has made it.
    """

    path: str
    key: str
    root: str
    created_now: bool


class Workspaces:
    """The workspaces below ``workspace.root`` of one host.

    Args:
        settings: Returns the settings in force; root and hooks are read from it at each call.
        host: Where hooks run.
        environ: The daemon's environment, which hooks inherit.
        secret_names: Returns the variables that hooks and git must not inherit.
        cache: Where mirrors lie, shared by all daemons of this user; not below the temp directory.
        now: The wall clock; names and ages of what is kept aside follow it.
    """

    def __init__(
        self,
        *,
        settings: Callable[[], Settings],
        host: Host,
        environ: Mapping[str, str],
        secret_names: Callable[[], Iterable[str]],
        cache: Path | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._host = host
        self._environ = environ
        self._secret_names = secret_names
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._opening = asyncio.Lock()
        self._opened: set[str] = set()
        self._now = now
        folder = cache if cache is not None else _default_cache(environ)
        self._sandbox = Sandbox(host, environ, folder)
        git = Git(host, environ, secret_names)
        self._population = Population(folder / "mirrors", git, self._sandbox)
        self._inspecting = asyncio.Semaphore(CONCURRENT_INSPECTIONS)
        self._claiming = asyncio.Semaphore(CONCURRENT_CLAIMS)

    async def open(self) -> str:
        """Make the root ready and return its canonical path; the other calls do so by themselves.

        Raises:
            WorkspaceError: ``workspace_root_unwritable``, ``workspace_path_unreadable``.
        """
        root = await asyncio.to_thread(folders.open_root, self._settings().workspace.path)
        if root not in self._opened:
            async with self._opening:
                if root not in self._opened:
                    await asyncio.to_thread(folders.empty_trash, root)
                    await self._prune_kept(root)
                    self._opened.add(root)
        return root

    def path_for(self, identifier: str) -> str | None:
        """Return where the workspace of an identifier lies or would lie; reads no disk."""
        try:
            key = workspace_key(identifier)
        except WorkspaceError:
            return None
        return os.path.join(self._settings().workspace.path, key)

    async def existing_paths(self) -> set[str]:
        """Return the paths of the workspaces in the root, as runs record them."""

        def read() -> set[str]:
            try:
                root = canonicalize(self._settings().workspace.path)
            except WorkspaceError:
                return set()
            return {os.path.join(root, key) for key in folders.list_keys(root)}

        return await asyncio.to_thread(read)

    # Around a run

    async def prepare(self, spec: RunSpec) -> Workspace:
        """Return the issue's workspace: the one that is there, or a new one.

        One that is there is left as it is, but for the locks of a git that was killed in it.
        A new one is taken away again when its clone or its ``after_create`` fails, runs out of
        time or is cancelled, so that the next attempt begins anew.

        Raises:
            WorkspaceError: The root, the key or the directory can't be used, or not be filled.
            HookError: ``after_create`` failed.
            HostError: ``after_create`` could not run.
        """
        key = workspace_key(spec.issue.identifier)
        root = await self.open()
        async with self._lock(root, key):
            stays_empty = self._stays_empty()
            async with self._claiming:
                path, created, locks = await asyncio.to_thread(_claim, root, key, stays_empty)
            if locks:
                extra = {"locks": ", ".join(locks), "workspace": path}
                _log.warning("Removed the locks of a git that was killed", extra=extra)
            if not created:
                await self._population.renew(path, spec.issue, self._settings().workspace)
            elif not stays_empty:
                try:
                    await self._population.fill(path, spec.issue, self._settings().workspace)
                    await self._run_hook(Hook.AFTER_CREATE, spec.issue, path, spec)
                    await asyncio.to_thread(folders.finish, root, key)
                except BaseException:
                    await asyncio.shield(self._take_back(root, key))
                    raise
        return Workspace(path, key, root, created)

    def _stays_empty(self) -> bool:
        """Whether the settings put nothing into a new workspace."""
        settings = self._settings()
        return settings.workspace.repository is None and settings.hooks.after_create is None

    async def _take_back(self, root: str, key: str) -> None:
        try:
            await asyncio.to_thread(folders.discard, root, key)
        except WorkspaceError as error:
            # Its mark stays, so the next attempt replaces it; the first error says more.
            _log.warning("Unfinished workspace stays", extra={"error": error.message})

    async def before_run(self, workspace: Workspace, spec: RunSpec) -> None:
        """Run ``before_run``, then make sure that the agent's directory is what it was.

        Raises:
            HookError: The hook failed: the attempt must not go on.
            HostError: The hook could not run.
            WorkspaceError: ``invalid_workspace_cwd``.
        """
        await self._run_hook(Hook.BEFORE_RUN, spec.issue, workspace.path, spec)
        await asyncio.to_thread(check_agent_cwd, workspace.path, workspace.root)

    async def after_run(self, workspace: Workspace, spec: RunSpec) -> None:
        """Run ``after_run``, then bring the issue's branch back; failures are only logged."""
        await self._try_hook(Hook.AFTER_RUN, spec.issue, workspace.path, spec)
        await self._population.bring_back(workspace.path, spec.issue, self._settings().workspace)

    async def find(self, issue: Issue, path: str) -> Workspace | None:
        """Return the issue's workspace where an earlier daemon has recorded it; None: it is gone.

        Raises:
            WorkspaceError: The path is not this issue's workspace, or a link, or can't be read.
        """
        key = workspace_key(issue.identifier)
        root = await asyncio.to_thread(self._root_of, key, path)
        own = await asyncio.to_thread(check_own_directory, root, key)
        there = await asyncio.to_thread(folders.is_directory, own)
        return Workspace(own, key, root, False) if there else None

    async def tree_mark(self, path: str) -> str | None:
        """Return a digest of what lies in a workspace, or None where nobody can tell."""
        async with self._inspecting:
            return await tree_mark(path, self._sandbox)

    # Removal

    async def remove(self, issue: Issue, *, path: str | None = None) -> bool:
        """Remove an issue's workspace after its ``before_remove``, whose failure is only logged.

        One that holds work is moved aside or stays, as ``workspace.on_dirty`` says; the log names
        it and where it is.

        Args:
            issue: Whose workspace it is.
            path: Where it was recorded; it holds also after ``workspace.root`` has changed. None
                for the place that the settings name.

        Returns:
            False where there was none, and where it stays.

        Raises:
            WorkspaceError: The path is not this issue's workspace, or a link, or it resists.
        """
        key = workspace_key(issue.identifier)
        root = await asyncio.to_thread(self._root_of, key, path)
        async with self._lock(root, key):
            own = await asyncio.to_thread(check_own_directory, root, key)
            if not await asyncio.to_thread(os.path.lexists, own):
                return False
            if await asyncio.to_thread(folders.is_directory, own):
                await self._try_hook(Hook.BEFORE_REMOVE, issue, own, None)
            return await self._dispose(root, key, issue)

    def _root_of(self, key: str, recorded: str | None) -> str:
        """Return the canonical root of a workspace. A record proves nothing by itself."""
        if recorded is None:
            return canonicalize(self._settings().workspace.path)
        if not os.path.isabs(recorded):
            message = f"the recorded workspace {recorded!r} is not an absolute path"
            raise WorkspaceError("workspace_path_unreadable", message)
        parent, name = os.path.split(os.path.normpath(recorded))
        if name != key:
            message = f"the recorded workspace {recorded} is not this issue's, which is {key}"
            raise WorkspaceError("workspace_outside_root", message)
        return canonicalize(parent)

    async def _dispose(self, root: str, key: str, issue: Issue) -> bool:
        """Delete a workspace that nobody needs any more, unless it holds work."""
        settings = self._settings().workspace
        path = os.path.join(root, key)
        work = None
        # The hook may have put a link in its place, which is deleted and not followed.
        if settings.on_dirty != "delete" and await asyncio.to_thread(folders.is_directory, path):
            mirror = await self._population.bring_back(path, issue, settings)
            async with self._inspecting:
                work = await work_in(path, self._sandbox, mirror=mirror)
        if work is None:
            await asyncio.to_thread(folders.discard, root, key)
            return True
        fields = {"issue_id": issue.id, "issue_identifier": issue.identifier, "workspace": path}
        if settings.on_dirty == "keep":
            _log.warning("Workspace stays: it holds work", extra={**fields, "reason": work})
            return False
        aside = await asyncio.to_thread(kept.keep_aside, root, key, self._now())
        fields |= {"kept": aside, "reason": work}
        _log.warning("Workspace kept aside: it holds work", extra=fields)
        await self._prune_kept(root)
        return True

    async def _prune_kept(self, root: str) -> None:
        settings = self._settings().workspace
        gone = await asyncio.to_thread(
            kept.prune, root, now=self._now(), days=settings.kept_days, count=settings.kept_count
        )
        for path in gone:
            _log.warning("Kept workspace deleted: its time or number is over", extra={"kept": path})

    # Hooks

    async def _run_hook(self, hook: Hook, issue: Issue, path: str, spec: RunSpec | None) -> None:
        call = HookCall(
            hook=hook,
            issue=issue,
            workspace=path,
            run_id=f"remove-{os.path.basename(path)}" if spec is None else spec.run_id,
            attempt=None if spec is None else spec.attempt,
        )
        await run_hook(
            call,
            self._settings().hooks,
            host=self._host,
            environ=self._environ,
            secret_names=self._secret_names(),
        )

    async def _try_hook(self, hook: Hook, issue: Issue, path: str, spec: RunSpec | None) -> None:
        try:
            await self._run_hook(hook, issue, path, spec)
        except SymphonyError as error:
            fields = {"hook": hook.value, "issue_id": issue.id, "error": error.message}
            _log.warning("Hook ignored", extra={**fields, "issue_identifier": issue.identifier})

    def _lock(self, root: str, key: str) -> asyncio.Lock:
        return self._locks.setdefault(os.path.join(root, key), asyncio.Lock())


def _claim(root: str, key: str, stays_empty: bool) -> tuple[str, bool, list[str]]:
    """Return a workspace's path, whether it is new, and what was unlocked in it.

    All that needs no other process, in one visit to a thread: hundreds of runs can begin at once.
    """
    path, created = folders.claim(root, key)
    if not created:
        return path, False, remove_stale_locks(path)
    if stays_empty:
        forget(path)
        folders.finish(root, key)
    return path, True, []


def _default_cache(environ: Mapping[str, str]) -> Path:
    """Return the part of the cache that belongs to no instance: none has such a name."""
    base = environ.get("XDG_CACHE_HOME", "")
    home = environ.get("HOME") or os.path.expanduser("~")
    return (Path(base) if os.path.isabs(base) else Path(home) / ".cache") / "symphony" / "_shared"
