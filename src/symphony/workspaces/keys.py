"""Names of workspaces and the safety of their paths (SPEC 4.2, 9.5, 15.2).

Invariants: two identifiers never share a key (beyond a collision of 64 bits of SHA-256), a key is
one segment that every file system takes, and no path that passes a check here lies outside of the
root, however many links are on the way.

Blocking: whatever takes a path reads the file system. ``folders`` and ``manager`` use this.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat

from symphony.errors import WorkspaceError

KEY_LIMIT = 255
"""Bytes that Linux file systems take in one segment."""

_LINK_LIMIT = 40
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_LIKE_HASHED = re.compile(r".*--[0-9a-f]{16}", re.IGNORECASE)


def workspace_key(identifier: str) -> str:
    """Return the directory name for an issue's identifier.

    A safe identifier is its own key. Every other one has its unsafe characters replaced and gets
    the first 16 hex digits of its SHA-256: so does one that is too long, one that already looks
    like a key with a hash, and one with a leading dot (``.git`` in the root would be the
    repository of all workspaces).

    Raises:
        WorkspaceError: ``workspace_equals_root`` for an empty identifier and ``.``,
            ``workspace_outside_root`` for ``..``.
    """
    if identifier in ("", "."):
        raise WorkspaceError(
            "workspace_equals_root", f"the issue identifier {identifier!r} names the root itself"
        )
    if identifier == "..":
        raise WorkspaceError(
            "workspace_outside_root", "the issue identifier '..' names the parent of the root"
        )
    safe = _UNSAFE.sub("_", identifier)
    if safe.startswith("."):
        safe = "_" + safe[1:]
    if safe == identifier and len(safe) <= KEY_LIMIT and not _LIKE_HASHED.fullmatch(safe):
        return safe
    digest = hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{safe[: KEY_LIMIT - len(digest) - 2]}--{digest}"


def canonicalize(path: str) -> str:
    """Return the absolute path with all links resolved; what does not exist stays as written.

    Unlike ``os.path.realpath`` it never passes over an error.

    Raises:
        WorkspaceError: ``workspace_path_unreadable``.
    """
    if not os.path.isabs(path):
        raise _unreadable(path, "not an absolute path")
    todo = _segments(path)
    done = "/"
    missing = False
    links = 0
    while todo:
        segment = todo.pop()
        if segment == "..":
            done = os.path.dirname(done)
            continue
        here = os.path.join(done, segment)
        target = None
        if not missing:
            there, target = _entry(here, path)
            missing = not there
        if target is None:
            done = here
            continue
        links += 1
        if links > _LINK_LIMIT:
            raise _unreadable(path, "too many symbolic links")
        todo.extend(_segments(target))
        if os.path.isabs(target):
            done = "/"
    return done


def check_inside(path: str, root: str) -> str:
    """Return the canonical path; it lies truly below the canonical root.

    Raises:
        WorkspaceError: ``workspace_equals_root``; ``workspace_symlink_escape`` where it lies below
            the root as written, but a link leads out; ``workspace_outside_root``;
            ``workspace_path_unreadable``.
    """
    canonical, base = canonicalize(path), canonicalize(root)
    if canonical == base:
        raise WorkspaceError("workspace_equals_root", f"{path} is the workspace root itself")
    if _is_below(canonical, base):
        return canonical
    written = os.path.normpath(path)
    if _is_below(written, os.path.normpath(root)) or _is_below(written, base):
        message = f"{path} leads out of the workspace root {root}, to {canonical}; remove the link"
        raise WorkspaceError("workspace_symlink_escape", message)
    raise WorkspaceError(
        "workspace_outside_root", f"{path} lies outside of the workspace root {root}"
    )


def check_own_directory(root: str, key: str) -> str:
    """Return ``<root>/<key>``, which is no link, neither out of the root nor to a neighbour.

    Args:
        root: Canonical.
        key: From ``workspace_key``.

    Raises:
        WorkspaceError: As for ``check_inside``; a link that leaves the root is
            ``workspace_outside_root`` here, one that stays within is ``workspace_symlink_escape``.
    """
    path = os.path.join(root, key)
    canonical = canonicalize(path)
    if canonical == path:
        return path
    if canonical == root:
        message = f"the workspace {path} is a link to the root itself; remove it"
        raise WorkspaceError("workspace_equals_root", message)
    if _is_below(canonical, root):
        message = f"the workspace {path} is a link to {canonical}, not this issue's; remove it"
        raise WorkspaceError("workspace_symlink_escape", message)
    message = f"the workspace {path} is a link out of the root, to {canonical}; remove it"
    raise WorkspaceError("workspace_outside_root", message)


def check_agent_cwd(path: str, root: str) -> None:
    """Make sure, right before an agent starts, that its directory is a workspace (SPEC 9.5).

    Raises:
        WorkspaceError: ``invalid_workspace_cwd``, with the cause.
    """
    try:
        canonical = check_inside(path, root)
    except WorkspaceError as error:
        raise WorkspaceError(
            "invalid_workspace_cwd", f"the agent can't work in {path}: {error.message}"
        ) from error
    if canonical != path or not os.path.isdir(path):
        message = f"the agent can't work in {path}: it is no directory any more"
        raise WorkspaceError("invalid_workspace_cwd", message)


def misspelt(key: str, names: set[str]) -> str | None:
    """Return the entry that a file system without case takes for ``key``, or None.

    Args:
        key: A key that exists, as the file system says.
        names: The root's entries as they are spelt.
    """
    if key in names:
        return None
    return next((name for name in sorted(names) if name.casefold() == key.casefold()), None)


def _segments(path: str) -> list[str]:
    """Return the parts of a path, last first."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def _entry(here: str, path: str) -> tuple[bool, str | None]:
    """Return whether there is anything, and where it leads if it is a link."""
    try:
        return True, os.readlink(here) if stat.S_ISLNK(os.lstat(here).st_mode) else None
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise _unreadable(path, error.strerror or str(error)) from error
    except ValueError as error:
        raise _unreadable(path, str(error)) from error
    return False, None


def _is_below(path: str, base: str) -> bool:
    return path != base and path.startswith(base.rstrip("/") + "/")


def _unreadable(path: str, reason: str) -> WorkspaceError:
    return WorkspaceError("workspace_path_unreadable", f"can't resolve {path!r}: {reason}")
