"""Locks that a killed git has left in a workspace: removed before the next run.

A git that dies by SIGKILL leaves ``index.lock`` behind, and every later git of the agent refuses
to work because "another git process seems to be running". When a run begins nothing of ours runs in
its workspace any more, so such a lock has no holder.

Invariant: `.git` is hostile. No link is followed, nothing is opened for reading, and only plain
files of git's own lock names are unlinked, at most ``LIMIT``. Blocks; ``manager`` calls it in a
thread.
"""

from __future__ import annotations

import os
import stat

LIMIT = 100
"""How many locks are removed at once; more is no accident."""

_NAMES = frozenset(
    {"index.lock", "HEAD.lock", "ORIG_HEAD.lock", "config.lock", "packed-refs.lock", "shallow.lock"}
)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_stale_locks(path: str) -> list[str]:
    """Remove git's locks of a workspace; return their names below ``.git``, for the log.

    A workspace without a ``.git`` folder of its own has none. What can't be removed stays, and git
    names it to the agent.
    """
    try:
        workspace = os.open(path, _DIRECTORY)
    except OSError:
        return []
    try:
        git = os.open(".git", _DIRECTORY, dir_fd=workspace)
    except OSError:
        return []
    finally:
        os.close(workspace)
    try:
        removed = [name for name in sorted(_NAMES) if _unlink(name, git)]
        for place, _, files, folder in os.fwalk("refs", dir_fd=git, follow_symlinks=False):
            for name in files:
                if len(removed) >= LIMIT:
                    return removed
                if name.endswith(".lock") and _unlink(name, folder):
                    removed.append(f"{place}/{name}")
        return removed
    finally:
        os.close(git)


def _unlink(name: str, folder: int) -> bool:
    try:
        if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            return False
        os.unlink(name, dir_fd=folder)
    except OSError:
        return False
    return True
