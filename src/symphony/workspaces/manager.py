"""Workspaces of issues: prepared, hooked, and removed (SPEC 9, 8.6).

Invariants: an issue's workspace is its own; one that ``prepare`` returns has had its
``after_create`` run to its end; nothing outside of the root is ever touched. What happens to one
workspace is serialised; different ones don't wait for each other. The file system is read and
written in threads.

``keys`` and ``folders`` do the work on paths, ``hooks`` runs the scripts. The runner calls
``prepare``, ``before_run`` and ``after_run``, the engine ``existing`` and ``remove``.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from weakref import WeakValueDictionary

from symphony.config.settings import Settings
from symphony.errors import SymphonyError, WorkspaceError
from symphony.hosts.base import Host
from symphony.model.issue import Issue
from symphony.model.run import RunSpec

from . import folders
from .hooks import Hook, HookCall, run_hook
from .keys import canonicalize, check_agent_cwd, check_own_directory, workspace_key

_log = logging.getLogger(__name__)


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
        secret_names: Returns the variables that hooks must not inherit.
    """

    def __init__(
        self,
        *,
        settings: Callable[[], Settings],
        host: Host,
        environ: Mapping[str, str],
        secret_names: Callable[[], Iterable[str]],
    ) -> None:
        self._settings = settings
        self._host = host
        self._environ = environ
        self._secret_names = secret_names
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._opening = asyncio.Lock()
        self._opened: set[str] = set()

    async def open(self) -> str:
        """Make the root ready and return its canonical path; the other calls do so by themselves.

        Raises:
            WorkspaceError: ``workspace_root_unwritable``, ``workspace_path_unreadable``.
        """
        async with self._opening:
            root = await asyncio.to_thread(folders.open_root, self._settings().workspace.path)
            if root not in self._opened:
                self._opened.add(root)
                await asyncio.to_thread(folders.empty_trash, root)
            return root

    def path_for(self, identifier: str) -> str | None:
        """Return where the workspace of an identifier lies or would lie; reads no disk."""
        try:
            key = workspace_key(identifier)
        except WorkspaceError:
            return None
        return os.path.join(self._settings().workspace.path, key)

    async def any_exist(self) -> bool:
        """Say whether there is any workspace in the root."""
        return bool(await asyncio.to_thread(folders.list_keys, self._settings().workspace.path))

    async def existing(self, identifiers: Iterable[str]) -> set[str]:
        """Return those of the identifiers that have a workspace in the root."""
        keys = await asyncio.to_thread(folders.list_keys, self._settings().workspace.path)
        found = set()
        for identifier in identifiers:
            path = self.path_for(identifier)
            if path is not None and os.path.basename(path) in keys:
                found.add(identifier)
        return found

    # Around a run

    async def prepare(self, spec: RunSpec) -> Workspace:
        """Return the issue's workspace: the one that is there, untouched, or a new one.

        A new one is taken away again when its ``after_create`` fails, runs out of time or is
        cancelled, so that the next attempt begins anew.

        Raises:
            WorkspaceError: The root, the key or the directory can't be used.
            HookError: ``after_create`` failed.
            HostError: ``after_create`` could not run.
        """
        key = workspace_key(spec.issue.identifier)
        root = await self.open()
        async with self._lock(root, key):
            path, created = await asyncio.to_thread(folders.claim, root, key)
            if created:
                try:
                    await self._run_hook(Hook.AFTER_CREATE, spec.issue, path, spec)
                    await asyncio.to_thread(folders.finish, root, key)
                except BaseException:
                    await asyncio.shield(self._take_back(root, key))
                    raise
        return Workspace(path, key, root, created)

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
        """Run ``after_run``; its failure is logged and raises nothing."""
        await self._try_hook(Hook.AFTER_RUN, spec.issue, workspace.path, spec)

    # Removal

    async def remove(self, issue: Issue, *, path: str | None = None) -> bool:
        """Remove an issue's workspace after its ``before_remove``, whose failure is only logged.

        Args:
            issue: Whose workspace it is.
            path: Where it was recorded; it holds also after ``workspace.root`` has changed. None
                for the place that the settings name.

        Returns:
            False where there was none.

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
            await self._dispose(root, key)
            return True

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

    async def _dispose(self, root: str, key: str) -> None:
        """What becomes of a workspace that nobody needs any more."""
        await asyncio.to_thread(folders.discard, root, key)

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
