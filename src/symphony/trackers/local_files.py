"""The files of a board on disk: one lock for writers, atomic replacement, a cheap scan.

Readers take no lock, since a file is only ever replaced as a whole. A writer holds the lock from
its read to its rename, so nothing that another process wrote in between is lost; what an editor
wrote without the lock is seen by its changed signature. A killed writer leaves at most the one
temporary file of the board, which the next writer overwrites.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from symphony.errors import TrackerError

LOCK_NAME: Final = ".board.lock"
TEMPORARY_NAME: Final = ".board.tmp"
IGNORE_NAME: Final = ".gitignore"
MAX_FILE_BYTES: Final = 1 << 20
LOCK_TIMEOUT_S: Final = 30.0

_SETTLE_S: Final = 0.05
"""A file that changed this short before it was read may change again within the clock's grain."""


class Signature(NamedTuple):
    """What of a file's status changes when its content does."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    regular: bool

    @classmethod
    def of(cls, status: os.stat_result) -> Signature:
        """Take the signature out of a status."""
        return cls(
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
            stat.S_ISREG(status.st_mode),
        )

    def is_settled(self, now: float) -> bool:
        """Whether a later change would show in the signature (file systems tick in ms)."""
        return now - max(self.mtime_ns, self.ctime_ns) / 1e9 > _SETTLE_S


def is_issue_file(name: str) -> bool:
    """Whether a file name can be an issue's, and no editor's swap file, backup or README."""
    return (
        name.endswith(".md")
        and name[0] not in ".#~"
        and name.lower() not in ("readme.md", "agents.md")
        and len(name) > 3
    )


def scan(folder: Path) -> dict[str, Signature]:
    """Return the signatures of the issue files by file name, in the board's order.

    Raises:
        TrackerError: The folder is missing or can't be read.
    """
    found: dict[str, Signature] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not is_issue_file(entry.name):
                    continue
                try:
                    found[entry.name] = Signature.of(entry.stat(follow_symlinks=False))
                except FileNotFoundError:
                    continue  # renamed or removed since the listing
    except OSError as error:
        raise folder_error(folder, error) from error
    return dict(sorted(found.items(), key=lambda item: natural_key(item[0])))


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key in which DEMO-9 stands before DEMO-10."""
    return tuple(
        (0, int(part), "") if part.isdecimal() and len(part) < 19 else (1, 0, part)
        for part in re.split(r"(\d+)", name)
        if part
    )


def read_text(path: Path) -> str:
    """Read an issue file.

    Raises:
        OSError: It can't be read.
        ValueError: It is too large or no UTF-8; the message says so.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    with os.fdopen(os.open(path, flags), "rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"the file is larger than {MAX_FILE_BYTES >> 20} MiB; make it shorter")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8; save the file as UTF-8") from error


@contextmanager
def locked(folder: Path, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[int]:
    """Hold the board's writer lock; yields the lock file's descriptor.

    The lock belongs to the open file, so it also excludes other threads of this process, and the
    kernel drops it when the holder dies.

    Raises:
        TrackerError: The folder is missing or not writable, or the lock stays taken.
    """
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(folder / LOCK_NAME, flags, 0o644)
    except OSError as error:
        raise folder_error(folder, error) from error
    try:
        deadline = time.monotonic() + timeout_s
        pause = 0.001
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TrackerError(
                        "tracker_request",
                        f"another process has held the board's lock {folder / LOCK_NAME} for "
                        f"{timeout_s:.0f} s; end it, or look at `fuser` on that file",
                        code="local_board_locked",
                    ) from None
            # A blocking flock could not be given a deadline; this runs in a thread, not the loop.
            time.sleep(pause)
            pause = min(pause * 2, 0.02)
        yield descriptor
    finally:
        os.close(descriptor)


def replace(folder: Path, name: str, text: str, *, mode: int = 0o644) -> None:
    """Put a file in place at once and durably. The caller holds the lock.

    Raises:
        OSError: The disk is full or the folder not writable; the old file is untouched.
    """
    temporary = folder / TEMPORARY_NAME
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(temporary, flags, mode)
    try:
        os.fchmod(descriptor, mode)
        data = memoryview(text.encode("utf-8"))
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(temporary, folder / name)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make a rename in the folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def folder_error(folder: Path, error: OSError) -> TrackerError:
    """Say what is wrong with the board's folder and how to mend it."""
    if isinstance(error, FileNotFoundError):
        mend = "create it with `mkdir`, or name another folder in tracker.provider.path"
        return TrackerError(
            "invalid_tracker_config",
            f"the board's folder {folder} does not exist; {mend}",
            code="local_board_missing",
        )
    if isinstance(error, NotADirectoryError):
        return TrackerError(
            "invalid_tracker_config",
            f"{folder} is not a folder; name the board's folder in tracker.provider.path",
            code="local_board_missing",
        )
    return TrackerError(
        "tracker_request",
        f"the board's folder {folder} can't be used: {error.strerror or error}",
        code="local_board_unusable",
    )
