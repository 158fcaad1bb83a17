"""The locks on what this daemon works on: the issues of one tracker scope in one workspace root.

Role: takes the first lock at the start, and at a reload that changes the scope or the root the new
one before the new version is put in force; a version whose lock another daemon holds is refused.
Invariant: whatever a live run works on is locked; a lock that is no longer in force is given back
once the runs that were live under it have ended. Neighbours: ``config.state_dir`` has the lock,
``parts`` the start, ``config.store`` asks again for a version that was refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from symphony.config.loading import Workflow
from symphony.config.settings import Settings
from symphony.config.state_dir import InstanceLock, StateDir
from symphony.errors import RefusedForNow, StateDirError, WorkspaceError
from symphony.model.run import RunId
from symphony.trackers.local_board import board_folder
from symphony.workspaces.folders import open_root

_Key = tuple[str, str]


@dataclass(slots=True)
class _Former:
    lock: InstanceLock
    runs: frozenset[RunId]


@dataclass(slots=True)
class WorkspaceLocks:
    """The lock in force, and former ones that live runs still need.

    Args:
        live: Returns the runs that have not ended.
    """

    live: Callable[[], Collection[RunId]] = tuple
    _state_dir: StateDir | None = None
    _key: _Key | None = None
    _lock: InstanceLock | None = None
    _former: dict[_Key, _Former] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file of the lock in force."""
        assert self._lock is not None, "the lock of the start is taken before anything changes"
        return self._lock.path

    def open(self, state_dir: StateDir, settings: Settings, root: Path) -> InstanceLock:
        """Take the lock of the start and return it.

        Raises:
            StateDirError: ``already_running``, naming the holder; ``state_dir_unusable``.
        """
        self._state_dir = state_dir
        key = (str(root), scope_of(settings, state_dir.workflow_path.parent))
        self._lock = state_dir.lock_workspaces(root, key[1])
        self._key = key
        return self._lock

    def allow(self, workflow: Workflow) -> None:
        """Take the lock that a new version of the workflow needs; before the start do nothing.

        Raises:
            RefusedForNow: Another daemon holds it, or its root can't be used.
        """
        state_dir, former_key, former = self._state_dir, self._key, self._lock
        if state_dir is None or former_key is None or former is None:
            return
        settings = workflow.settings
        scope = scope_of(settings, state_dir.workflow_path.parent)
        try:
            key = (open_root(settings.workspace.path), scope)
            if key == former_key:
                return
            known = self._former.pop(key, None)
            lock = state_dir.lock_workspaces(Path(key[0]), scope) if known is None else known.lock
        except (StateDirError, WorkspaceError) as error:
            raise RefusedForNow(
                "workspace_locked",
                f"{workflow.path}: tracker and workspace.root can't be changed to these: "
                f"{error.message}. The version before stays in force, and this one is tried again",
            ) from error
        self._former[former_key] = _Former(former, frozenset(self.live()))
        self._key, self._lock = key, lock

    def release_unused(self, live: Iterable[RunId] | None = None) -> None:
        """Give former locks back whose runs have ended; ``live`` are those that have not."""
        live = set(self.live() if live is None else live)
        for key, former in list(self._former.items()):
            if not live & former.runs:
                del self._former[key]
                former.lock.release()

    def close(self) -> None:
        """Give all of them back."""
        with ExitStack() as stack:
            for former in self._former.values():
                stack.callback(former.lock.release)
            if self._lock is not None:
                stack.callback(self._lock.release)
        self._former.clear()


def scope_of(settings: Settings, base_dir: Path) -> str:
    """Say which issues this daemon works on; equal for two daemons that would claim the same."""
    tracker = settings.tracker
    provider = dict(tracker.provider)
    if tracker.kind == "local":
        provider["path"] = os.path.abspath(board_folder(provider, base_dir))
    chosen = {"kind": tracker.kind, "provider": provider, "labels": sorted(tracker.required_labels)}
    return json.dumps(chosen, sort_keys=True, default=str)
