"""Directories of workspaces on disk: made, found, taken away. All of it blocks.

Invariants: what a crash leaves half made or half removed is never taken for a workspace, and
nothing here follows a link. A directory whose ``after_create`` has not ended has a mark in
``<root>/.symphony/unfinished``; a removal first moves to ``<root>/.symphony/trash`` in one step.

``manager`` calls this in threads; ``keys`` guards the paths.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import uuid

from symphony.errors import WorkspaceError

from .keys import canonicalize, check_own_directory, misspelt

PRIVATE = ".symphony"
"""Our own directory in a root; no key begins with a dot."""


def open_root(root: str) -> str:
    """Make the root if needed, make sure that it can be written, and return its canonical path.

    Raises:
        WorkspaceError: ``workspace_root_unwritable``, naming the root and the mend;
            ``workspace_path_unreadable``.
    """
    try:
        os.makedirs(root, exist_ok=True)
        if not os.access(root, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(0, "permission denied")
    except OSError as error:
        message = (
            f"workspace.root {root} can't be used: {(error.strerror or str(error)).lower()};"
            " make it a directory that this user can write, or name another one"
        )
        raise WorkspaceError("workspace_root_unwritable", message) from error
    return canonicalize(root)


def claim(root: str, key: str) -> tuple[str, bool]:
    """Return the path of a workspace and whether it was made by this call.

    A new one is marked unfinished until ``finish``. An existing directory stays untouched; what
    is no directory, or was left unfinished, is replaced.

    Args:
        root: Canonical, from ``open_root``.
        key: From ``workspace_key``.

    Raises:
        WorkspaceError: For links as in ``check_own_directory``; ``workspace_key_collision`` where
            the file system takes another issue's workspace for this one's;
            ``workspace_create_failed``.
    """
    path = check_own_directory(root, key)
    try:
        mode = _mode(path)
        if mode is not None:
            other = misspelt(key, set(os.listdir(root)))
            if other is not None:
                message = (
                    f"the workspace {path} is {other}'s: the file system does not tell capital"
                    " letters apart; rename one of the issues"
                )
                raise WorkspaceError("workspace_key_collision", message)
            if stat.S_ISDIR(mode) and not os.path.lexists(_unfinished(root, key)):
                return path, False
            discard(root, key)
        os.makedirs(os.path.join(root, PRIVATE, "unfinished"), mode=0o700, exist_ok=True)
        with open(_unfinished(root, key), "wb"):
            pass
        os.mkdir(path)
    except OSError as error:
        message = f"can't make the workspace {path}: {error.strerror or error}"
        raise WorkspaceError("workspace_create_failed", message) from error
    return path, True


def finish(root: str, key: str) -> None:
    """Take the mark off a workspace that is ready for use."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_unfinished(root, key))


def discard(root: str, key: str) -> None:
    """Remove a workspace, whatever it is, without following a link.

    Raises:
        WorkspaceError: ``workspace_remove_failed``.
    """
    path = os.path.join(root, key)
    trash = os.path.join(root, PRIVATE, "trash")
    moved = os.path.join(trash, uuid.uuid4().hex)
    try:
        os.makedirs(trash, mode=0o700, exist_ok=True)
        try:
            os.rename(path, moved)
        except FileNotFoundError:
            return
        except OSError:
            moved = path  # a mount point can't be moved
        erase(moved)
        finish(root, key)
    except OSError as error:
        message = f"can't remove the workspace {path}: {error.strerror or error}"
        raise WorkspaceError("workspace_remove_failed", message) from error


def empty_trash(root: str) -> None:
    """Erase what a crash has left of removals; what resists stays in the trash."""
    trash = os.path.join(root, PRIVATE, "trash")
    with contextlib.suppress(OSError):
        for name in os.listdir(trash):
            with contextlib.suppress(OSError):
                erase(os.path.join(trash, name))


def list_keys(root: str) -> set[str]:
    """Return the keys of the workspaces in a root; none where there is no root."""
    try:
        with os.scandir(root) as entries:
            return {
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            }
    except OSError:
        return set()


def is_directory(path: str) -> bool:
    """True for a directory itself, not for a link to one."""
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def _mode(path: str) -> int | None:
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return None


def _unfinished(root: str, key: str) -> str:
    return os.path.join(root, PRIVATE, "unfinished", key)


def erase(path: str) -> None:
    """Delete a file, a link or a whole directory; raises OSError where it resists."""
    if not is_directory(path):
        os.unlink(path)
        return
    try:
        shutil.rmtree(path)
    except PermissionError:
        _make_writable(path)
        shutil.rmtree(path)


def _make_writable(path: str) -> None:
    """Give the owner access to all directories below: module caches are made read-only."""
    os.chmod(path, 0o700)
    for folder, names, _ in os.walk(path):
        for name in names:
            inner = os.path.join(folder, name)
            if not os.path.islink(inner):
                os.chmod(inner, 0o700)
