"""What deliveries are known again by, over restarts: the newest few thousand digests.

Role: a provider that signs no time can't tell a delivery from its replay, so it is remembered, in
memory and in a small file, a digest a line, that is read at the next start.
Invariant: file and memory are bounded; a file that can't be read or written is told once and
changes nothing else.
Neighbours: ``webhooks`` asks; ``service`` says where the file lies.
"""

from __future__ import annotations

import logging
import os
import re
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

REMEMBERED: Final = 4096
"""Digests that are known; the oldest is forgotten first."""

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_MAX_BYTES: Final = 2 * REMEMBERED * 65
_log = logging.getLogger("symphony.web.webhooks")


class Marks:
    """The digests.

    Args:
        path: Of the file; None remembers until the end of this process.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._told = False
        self._seen: OrderedDict[str, None] = OrderedDict(dict.fromkeys(self._load()))
        self._bound()

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, marks: Sequence[str]) -> bool:
        """Remember these digests; say whether one of them was known."""
        known = any(mark in self._seen for mark in marks)
        fresh = [mark for mark in marks if mark not in self._seen]
        for mark in marks:
            self._seen[mark] = None
            self._seen.move_to_end(mark)
        self._bound()
        self._save(fresh)
        return known

    def drop(self, marks: Sequence[str]) -> None:
        """Forget these digests."""
        for mark in marks:
            self._seen.pop(mark, None)
        self._rewrite()

    def _bound(self) -> None:
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)

    def _load(self) -> list[str]:
        if self._path is None:
            return []
        try:
            with self._path.open("rb") as file:
                text = file.read(_MAX_BYTES + 1).decode("ascii", "replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            self._tell(error)
            return []
        # A line that a crash has cut is none; the others count.
        return [line for line in text.split("\n") if _DIGEST.fullmatch(line)]

    def _save(self, fresh: Sequence[str]) -> None:
        if self._path is None or not fresh:
            return
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                # The line break comes first, so that it ends what a crash has cut.
                file.write(b"".join(b"\n" + mark.encode() for mark in fresh))
                full = file.tell() > _MAX_BYTES
        except OSError as error:
            self._tell(error)
        else:
            if full:
                self._rewrite()

    def _rewrite(self) -> None:
        if self._path is None:
            return
        beside = self._path.with_suffix(".tmp")
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_TRUNC | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write("\n".join(self._seen).encode())
            beside.replace(self._path)
        except OSError as error:
            self._tell(error)

    def _tell(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            _log.warning(
                "Deliveries of webhooks are not remembered over a restart",
                extra={"path": str(self._path), "problem": str(error)},
            )
