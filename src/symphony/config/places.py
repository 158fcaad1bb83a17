"""The files that a daemon stands on, and whether they are still the ones it opened.

A state directory or a workspace root that is deleted or replaced takes the lock with it: another
daemon could start beside this one, and what this one records goes into a file that has no name any
more. Invariant: only ``lost`` looks at the disk, and it changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


class Places:
    """Files by what they stand for, as they were when this was made.

    Args:
        files: Path of each file, by a name for people such as ``the state directory``.

    Raises:
        OSError: One of them is not there.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = {name: (path, _identity(path)) for name, path in files.items()}

    def move(self, name: str, path: Path) -> None:
        """Look for one of them at another path from here on.

        Raises:
            OSError: It is not there.
        """
        self._files[name] = (path, _identity(path))

    def lost(self) -> str | None:
        """Say what is gone, and what to do; None while everything is where it was."""
        gone = [
            f"{name} ({path.parent})"
            for name, (path, identity) in self._files.items()
            if _present(path) != identity
        ]
        if not gone:
            return None
        return (
            f"{' and '.join(gone)} was deleted or replaced under the running daemon: what it "
            "records would be lost and another daemon could start beside it; let the runs end, "
            f"stop this daemon (pid {os.getpid()}) and start it anew"
        )


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _present(path: Path) -> tuple[int, int] | None:
    try:
        return _identity(path)
    except OSError:
        return None
