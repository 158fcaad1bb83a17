"""What a board holds at one read: its valid issues, and the files that are none.

Values only; ``local_board`` fills them and ``local`` makes issues of them. Invariant: an id that
two files claim belongs to neither, so nobody works on the wrong one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .local_document import FieldFault, IssueDocument
from .local_files import Signature


@dataclass(frozen=True, slots=True)
class FileFault:
    """A file of the board that is no valid issue, or that has values which were left out.

    Attributes:
        path: The file.
        faults: What is wrong, with lines and mends.
        digest: Of the content, so that one content is warned about once.
        claimed_ids: The issue ids that this file may stand for; empty for mere notices.
    """

    path: Path
    faults: tuple[FieldFault, ...]
    digest: str
    claimed_ids: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The path as text that can be shown and logged, whatever bytes the name has."""
        text = os.fsencode(self.path).decode("utf-8", "backslashreplace")
        return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)

    def __str__(self) -> str:
        return f"{self.file}: " + "; ".join(str(fault) for fault in self.faults)


@dataclass(frozen=True)
class BoardView:
    """What the board held at one read: issues in the board's order, and its faulty files."""

    issues: tuple[IssueDocument, ...] = ()
    malformed: tuple[FileFault, ...] = ()
    notices: tuple[FileFault, ...] = ()

    @cached_property
    def by_identifier(self) -> Mapping[str, IssueDocument]:
        """The valid issues by identifier, which is the file's name without ``.md``."""
        return {issue.identifier: issue for issue in self.issues}

    @cached_property
    def by_id(self) -> Mapping[str, IssueDocument]:
        """The valid issues by id."""
        return {issue.id: issue for issue in self.issues}

    @cached_property
    def malformed_ids(self) -> Mapping[str, FileFault]:
        """The ids that malformed files may stand for."""
        return {claimed: fault for fault in self.malformed for claimed in fault.claimed_ids}


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """One file as it was parsed: a document or a fault, and the id it had when last valid."""

    signature: Signature | None
    document: IssueDocument | None
    fault: FileFault | None
    last_id: str | None


def view_of(folder: Path, files: Mapping[str, ParsedFile]) -> BoardView:
    """Put the parsed files together; two files with one id are both malformed."""
    owners: dict[str, list[str]] = {}
    for name, parsed in files.items():
        if parsed.document is not None:
            owners.setdefault(parsed.document.id, []).append(name)
    issues, malformed, notices = [], [], []
    for name, parsed in files.items():
        document, fault = parsed.document, parsed.fault
        if document is None:
            assert fault is not None
            malformed.append(fault)
        elif len(owners[document.id]) > 1:
            others = ", ".join(other for other in owners[document.id] if other != name)
            problem = f"the id `{document.id}` is also that of {others}; give each its own"
            mark = digest(document.id + others)
            claimed = (document.id, document.identifier)
            faults = (FieldFault(1, "id", problem),)
            malformed.append(FileFault(folder / name, faults, mark, claimed))
        else:
            issues.append(document)
            if fault is not None:
                notices.append(fault)
    return BoardView(tuple(issues), tuple(malformed), tuple(notices))


def digest(text: str) -> str:
    """Name a content, to tell whether it was warned about."""
    return hashlib.blake2s(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
