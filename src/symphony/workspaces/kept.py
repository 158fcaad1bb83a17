"""Workspaces that hold work although their issue is done: kept aside, for a while.

They lie in ``<root>/.symphony/kept`` under ``<key>-<time>``, no agent can write there under the
default policy, and no issue finds them by accident. Invariants: keeping is one rename, so nothing
is half kept; what is deleted for its age or number is named in the answer, for the log. All of it
blocks.
"""

from __future__ import annotations

import os
import re
import stat
from datetime import UTC, datetime, timedelta

from symphony.errors import WorkspaceError

from .folders import PRIVATE, erase, finish

_STAMP = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(r".*-(\d{8}T\d{6}Z)(?:-\d+)?", re.DOTALL)
_KEY_BYTES = 220  # of 255, for the time and a number behind it


def keep_aside(root: str, key: str, now: datetime) -> str:
    """Move a workspace out of the way; return where it is now.

    Raises:
        WorkspaceError: ``workspace_keep_failed``; it is where it was.
    """
    folder = kept_folder(root)
    path = os.path.join(root, key)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        name = f"{key[:_KEY_BYTES]}-{now.astimezone(UTC):{_STAMP}}"
        target, number = os.path.join(folder, name), 2
        while os.path.lexists(target):
            target, number = os.path.join(folder, f"{name}-{number}"), number + 1
        try:
            os.rename(path, target)
        except PermissionError:
            # A directory that its owner can't write can't get another parent either.
            os.chmod(path, stat.S_IMODE(os.lstat(path).st_mode) | stat.S_IRWXU)
            os.rename(path, target)
        finish(root, key)
    except OSError as error:
        message = f"can't keep the workspace {path} aside: {error.strerror or error}"
        raise WorkspaceError("workspace_keep_failed", message) from error
    return target


def prune(root: str, *, now: datetime, days: int, count: int) -> list[str]:
    """Delete what was kept for longer than that, then the oldest beyond that number.

    Returns:
        The paths that are gone.
    """
    folder = kept_folder(root)
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    dated = sorted((when, name) for name in names if (when := _kept_since(name)) is not None)
    too_many = max(0, len(dated) - count)
    gone = []
    for position, (when, name) in enumerate(dated):
        if position >= too_many and when > now - timedelta(days=days):
            continue
        path = os.path.join(folder, name)
        try:
            erase(path)
        except OSError:
            continue  # the next call tries again
        gone.append(path)
    return gone


def kept_folder(root: str) -> str:
    """Return where a root's kept workspaces lie."""
    return os.path.join(root, PRIVATE, "kept")


def _kept_since(name: str) -> datetime | None:
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    try:
        return datetime.strptime(match.group(1), _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None
