"""Files that hold configuration: read once, whole, and told from a later version without reading.

Invariant: content and stamp come from one open file, so a stamp never belongs to other content.
Only regular files of a size that people write are read: a pipe would hold the daemon for ever.
``loading`` reads the workflow file and the prompts that it names through here, ``store`` compares
stamps.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

MAX_FILE_BYTES = 1024 * 1024
"""A larger file is refused: nobody writes such settings or prompts."""

_RACY_NS = 50_000_000
"""A file changed this shortly before its read may change again under the same stamp."""


class FileStamp(NamedTuple):
    """What tells one version of a file from another without reading it."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileStamp:
        """Take the stamp of a stat."""
        return cls(
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )


@dataclass(frozen=True, slots=True)
class FileVersion:
    """A file as one read found it; ``stamp`` was taken before its first byte."""

    path: Path
    content: bytes = field(repr=False)
    digest: str
    stamp: FileStamp


def read_file(path: Path) -> FileVersion:
    """Read a file; links are followed.

    Raises:
        OSError: It is not there, may not be read, is no regular file or is too large.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise OSError(errno.EFBIG, f"it is larger than {MAX_FILE_BYTES // 1024} KiB", str(path))
    digest = hashlib.sha256(content).hexdigest()
    return FileVersion(path, content, digest, FileStamp.of(status))


def stamp_of(path: Path) -> FileStamp | None:
    """Return the stamp of what the path names now, or None where that is nothing."""
    try:
        return FileStamp.of(os.stat(path))
    except OSError:
        return None


def settled_stamp(stamp: FileStamp, now_ns: int) -> FileStamp | None:
    """Return the stamp of a read, or None where a later edit could leave the very same one.

    File systems with a coarse clock give two edits of one moment the same times; such a file is
    read again at the next look. ``now_ns`` is the wall clock just after the read.
    """
    age_ns = now_ns - stamp.changed_ns
    return stamp if abs(age_ns) > _RACY_NS else None


class IncludedFiles:
    """The files that one version of the settings names, each read at most once.

    ``store`` asks it whether that version is still what lies on disk.
    """

    def __init__(self) -> None:
        self._contents: dict[Path, bytes] = {}
        # None: it could not be read.
        self._digests: dict[Path, str | None] = {}
        # None: no stamp can be trusted, look into the file again.
        self._stamps: dict[Path, FileStamp | None] = {}

    def read(self, path: Path) -> bytes:
        """Return the content of a file.

        Raises:
            OSError: As in ``read_file``.
        """
        if path not in self._contents:
            self._digests[path] = self._stamps[path] = None
            version = read_file(path)
            self._note(version)
            self._contents[path] = version.content
        return self._contents[path]

    def untouched(self) -> bool:
        """Tell by stamps alone whether all of them are as they were; costs one stat each."""
        return all(self._is_untouched(path) for path in self._digests)

    def same_content(self) -> bool:
        """Read them once more; tell whether all of them hold what they held."""
        for path, digest in self._digests.items():
            try:
                version = read_file(path)
            except OSError:
                if digest is not None:
                    return False
            else:
                if version.digest != digest:
                    return False
                self._note(version)
        return True

    def _note(self, version: FileVersion) -> None:
        self._digests[version.path] = version.digest
        self._stamps[version.path] = settled_stamp(version.stamp, time.time_ns())

    def _is_untouched(self, path: Path) -> bool:
        found, known = stamp_of(path), self._stamps[path]
        if self._digests[path] is None:
            return found is None
        return known is not None and found == known
