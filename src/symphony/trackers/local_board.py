"""A board: a folder of Markdown files, one an issue. What people, the CLI and agents do to it.

Reads are incremental: only files whose signature changed are parsed again. Writes hold the
board's lock from read to rename, so several processes may write at once and nothing is lost.
Everything here blocks; ``local`` calls it in threads.

Invariant: an issue file is only ever replaced as a whole, and an edit keeps every byte that it
was not asked to change. ``local_files`` does the disk work, ``local_document`` the text.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from symphony.errors import TrackerError
from symphony.model.clock import iso

from . import local_files
from .local_document import (
    Comment,
    DocumentError,
    FieldFault,
    IssueDocument,
    parse_comments,
    parse_document,
    render_document,
    with_comment,
    with_description,
    with_fields,
)
from .local_files import Signature
from .local_frontmatter import FrontMatterError, NewValue
from .local_view import BoardView, FileFault, ParsedFile, digest, view_of

DEFAULT_FOLDER: Final = "board"
DEFAULT_PREFIX: Final = "ISSUE"
DEFAULT_STATE: Final = "Todo"

_PREFIX: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
_EDIT_ATTEMPTS: Final = 20


@dataclass(slots=True)
class _Cache:
    files: dict[str, ParsedFile] = field(default_factory=dict)
    view: BoardView | None = None


class Board:
    """A folder of issues.

    Args:
        path: The folder. It need not exist before ``create`` or the first use.
        prefix: Of the identifiers that ``add`` allocates, for example ``DEMO`` for ``DEMO-1``;
            None takes the prefix that most issues of the board have.
        wall: Epoch seconds, for the times that are written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        prefix: str | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.path = Path(path)
        self.prefix = prefix
        self._wall = wall
        self._cache = _Cache()
        self._guard = threading.Lock()

    @classmethod
    def create(cls, path: str | os.PathLike[str], *, prefix: str | None = None) -> Board:
        """Make the folder if it is absent, with a ``.gitignore`` for its lock, and open it.

        Raises:
            TrackerError: The folder can't be made or written.
        """
        board = cls(path, prefix=prefix)
        check_prefix(prefix)
        try:
            board.path.mkdir(parents=True, exist_ok=True)
            ignore = board.path / local_files.IGNORE_NAME
            if not ignore.exists():
                ignore.write_text(f"{local_files.LOCK_NAME}\n{local_files.TEMPORARY_NAME}\n")
        except OSError as error:
            raise local_files.folder_error(board.path, error) from error
        return board

    def read(self) -> BoardView:
        """Read the board; unchanged files cost one ``stat`` each.

        Raises:
            TrackerError: The folder is missing or can't be read. A bad file never raises.
        """
        with self._guard:
            signatures = local_files.scan(self.path)
            old, view = self._cache.files, self._cache.view
            files: dict[str, ParsedFile] = {}
            for name, signature in signatures.items():
                known = old.get(name)
                if known is None or known.signature != signature:
                    known = self._parse(name, signature, known.last_id if known else None)
                files[name] = known
            unchanged = len(files) == len(old) and all(old.get(n) is p for n, p in files.items())
            if view is None or not unchanged:
                view = view_of(self.path, files)
            self._cache = _Cache(files, view)
            return view

    def get(self, identifier: str) -> IssueDocument:
        """Return one issue by identifier or id.

        Raises:
            TrackerError: There is none (``local_issue_not_found``) or its file is malformed.
        """
        view = self.read()
        found = view.by_identifier.get(identifier) or view.by_id.get(identifier)
        if found is not None:
            return found
        fault = view.malformed_ids.get(identifier)
        if fault is not None:
            raise malformed_error(fault)
        raise TrackerError(
            "tracker_response",
            f"the board {self.path} has no issue `{identifier}`; `symphony issue list` shows all",
            code="local_issue_not_found",
        )

    def comments(self, identifier: str) -> tuple[Comment, ...]:
        """Return the comments of an issue, oldest first.

        Raises:
            TrackerError: As for ``get``.
        """
        document = self.get(identifier)
        return parse_comments(self._load(f"{document.identifier}.md"))

    def add(
        self,
        title: str,
        *,
        description: str = "",
        state: str = DEFAULT_STATE,
        priority: int | None = None,
        labels: Iterable[str] = (),
        blocked_by: Iterable[str] = (),
        assignee: str | None = None,
        identifier: str | None = None,
    ) -> IssueDocument:
        """Put a new issue on the board and return it as read back.

        Args:
            title: Not blank.
            description: Markdown.
            state: Any name that is not blank.
            priority: 1 is the most urgent, 4 the least.
            labels: Kept as written; they compare in lower case.
            blocked_by: Identifiers of other issues; they need not exist yet.
            assignee: Any name.
            identifier: None allocates the next number below the board's prefix.

        Raises:
            TrackerError: A value is unusable, the identifier is taken, or the write failed.
        """
        now = iso(self._wall())
        values: dict[str, NewValue] = {
            "title": _filled("title", title),
            "state": _filled("state", state),
            "priority": priority,
            "labels": tuple(dict.fromkeys(_words("labels", labels))),
            "blocked_by": tuple(dict.fromkeys(_words("blocked_by", blocked_by))),
            "assignee": assignee,
            "created": now,
            "updated": now,
        }
        with local_files.locked(self.path) as lock:
            view = self.read()
            if identifier is None:
                identifier = self._allocate(lock, view)
            _check_identifier(identifier)
            name = f"{identifier}.md"
            if (self.path / name).exists() or identifier in view.by_id:
                raise _invalid(f"the board already has `{identifier}`; choose another identifier")
            self._write(name, render_document({"id": identifier, **values}, description))
        return self.get(identifier)

    def move(self, identifier: str, state: str) -> IssueDocument:
        """Set an issue's state, any name that is not blank, and return the issue."""
        return self.edit(identifier, state=state)

    def comment(self, identifier: str, text: str, *, author: str) -> IssueDocument:
        """Append a comment and return the issue."""
        at = iso(self._wall())
        entry = Comment(at=at, author=author, text=_filled("comment", text))
        return self._change(
            identifier, lambda old: with_comment(with_fields(old, {"updated": at}), entry)
        )

    def edit(
        self, identifier: str, *, description: str | None = None, **fields: NewValue
    ) -> IssueDocument:
        """Change fields, the description, or both; everything else stays byte for byte.

        Args:
            identifier: Identifier or id of the issue.
            description: The new description; None leaves it.
            **fields: ``title``, ``state``, ``priority``, ``labels``, ``blocked_by``, ``assignee``,
                ``branch``, ``url``; None takes the key out (not for title and state).

        Raises:
            TrackerError: As for ``get``, or a value is unusable, or the write failed.
        """
        changes = {key: _checked_value(key, value) for key, value in fields.items()}
        changes["updated"] = iso(self._wall())

        def change(old: str) -> str:
            text = with_fields(old, changes)
            return text if description is None else with_description(text, description)

        return self._change(identifier, change)

    def _change(self, identifier: str, change: Callable[[str], str]) -> IssueDocument:
        with local_files.locked(self.path):
            document = self.get(identifier)
            path = self.path / f"{document.identifier}.md"
            for _ in range(_EDIT_ATTEMPTS):
                status = self._status(path)
                old = self._load(path.name)
                try:
                    new = change(old)
                    parse_document(document.identifier, new)
                except (FrontMatterError, DocumentError) as error:
                    raise TrackerError(
                        "tracker_response",
                        f"{path} can't be changed: {error}",
                        code="local_issue_malformed",
                    ) from error
                # An editor takes no lock: what it saved since we read must not be lost.
                if Signature.of(self._status(path)) == Signature.of(status):
                    self._write(path.name, new, mode=status.st_mode & 0o777)
                    break
            else:
                raise TrackerError(
                    "tracker_request",
                    f"{path} is being rewritten by another program all the time; try again later",
                    code="local_board_locked",
                )
        return self.get(document.identifier)

    def _status(self, path: Path) -> os.stat_result:
        try:
            return os.lstat(path)
        except OSError as error:
            raise TrackerError(
                "tracker_response",
                f"{path} went away while it was being changed",
                code="local_issue_not_found",
            ) from error

    def _write(self, name: str, text: str, mode: int = 0o644) -> None:
        if len(text.encode()) > local_files.MAX_FILE_BYTES:
            limit = local_files.MAX_FILE_BYTES >> 20
            raise _invalid(f"`{name}` would be larger than {limit} MiB; write less")
        try:
            local_files.replace(self.path, name, text, mode=mode)
        except OSError as error:
            raise local_files.folder_error(self.path, error) from error

    def _load(self, name: str) -> str:
        try:
            return local_files.read_text(self.path / name)
        except (OSError, ValueError) as error:
            raise TrackerError(
                "tracker_response",
                f"{self.path / name} can't be read: {error}",
                code="local_issue_malformed",
            ) from error

    def _allocate(self, lock: int, view: BoardView) -> str:
        """Take the next number; a number once given is not given again after a deletion.

        The highest one is kept in the lock file, written before the issue exists.
        """
        names = [*self._cache.files, *(f"{issue.id}.md" for issue in view.issues)]
        prefix = self.prefix or _usual_prefix(names)
        check_prefix(prefix)
        marks = _read_marks(lock)
        number = 1 + max(_highest_number(names, prefix), marks.get(prefix, 0))
        data = json.dumps({"last": {**marks, prefix: number}}).encode()
        try:
            os.ftruncate(lock, 0)
            os.pwrite(lock, data, 0)
        except OSError as error:
            raise local_files.folder_error(self.path, error) from error
        return f"{prefix}-{number}"

    def _parse(self, name: str, signature: Signature, last_id: str | None) -> ParsedFile:
        path = self.path / name
        stem = name.removesuffix(".md")
        text = ""
        try:
            if not stem.isprintable():
                raise ValueError("the name holds characters that can't be shown; rename it")
            if not signature.regular:
                raise ValueError("it is no regular file; put a copy of the file here")
            text = local_files.read_text(path)
            document = parse_document(stem, text)
        except (OSError, ValueError) as error:
            if isinstance(error, DocumentError):
                faults, claimed = error.faults, error.claimed_id
            else:
                faults, claimed = (FieldFault(1, None, str(error)),), None
            ids = tuple(dict.fromkeys(i for i in (claimed, last_id, stem) if i))
            # Without a signature it is read again, in case it was caught half written.
            kept = signature if signature.is_settled(self._wall()) else None
            return ParsedFile(kept, None, FileFault(path, faults, digest(text), ids), last_id)
        fault = FileFault(path, document.notices, digest(text)) if document.notices else None
        kept = signature if signature.is_settled(self._wall()) else None
        return ParsedFile(kept, document, fault, document.id)


def board_folder(provider: Mapping[str, Any], base_dir: Path) -> Path:
    """The board's folder: ``tracker.provider.path``, relative to the workflow file's directory."""
    value = provider.get("path")
    path = Path(value if isinstance(value, str) and value.strip() else DEFAULT_FOLDER)
    return base_dir / path.expanduser()


def open_board(provider: Mapping[str, Any], base_dir: Path) -> Board:
    """Open the board that ``tracker.provider`` names; the folder may be absent."""
    prefix = provider.get("prefix")
    return Board(board_folder(provider, base_dir), prefix=prefix if prefix else None)


def malformed_error(fault: FileFault) -> TrackerError:
    """The error of a read that asked for an issue whose file is malformed (SPEC 11.1)."""
    return TrackerError(
        "tracker_response",
        f"malformed issue file {fault}",
        code="local_issue_malformed",
        of_one_issue=True,
    )


def check_prefix(prefix: str | None) -> None:
    """Refuse a prefix that can't begin an identifier.

    Raises:
        TrackerError: It is no letter followed by letters, digits and underscores.
    """
    if prefix is not None and not _PREFIX.fullmatch(prefix):
        raise TrackerError(
            "invalid_tracker_config",
            f"tracker.provider.prefix must be a letter and then letters, digits or `_` "
            f"(at most 32), got {prefix!r}",
            code="invalid_local_prefix",
        )


def _usual_prefix(names: Sequence[str]) -> str:
    prefixes = Counter(
        match[1] for name in names if (match := re.fullmatch(r"([A-Za-z]\w*)-\d+\.md", name))
    )
    return prefixes.most_common(1)[0][0] if prefixes else DEFAULT_PREFIX


def _highest_number(names: Iterable[str], prefix: str) -> int:
    pattern = re.compile(rf"{re.escape(prefix)}-(\d{{1,15}})\.md")
    return max((int(match[1]) for name in names if (match := pattern.fullmatch(name))), default=0)


def _read_marks(lock: int) -> dict[str, int]:
    """The highest numbers given; a damaged file counts as none, the issues' names remain."""
    try:
        last = json.loads(os.pread(lock, 1 << 16, 0) or b"{}").get("last", {})
        return {key: number for key, number in last.items() if isinstance(number, int)}
    except (ValueError, AttributeError):
        return {}


def _invalid(problem: str) -> TrackerError:
    return TrackerError("tracker_request", problem, code="local_invalid_value")


def _check_identifier(identifier: str) -> None:
    if not _IDENTIFIER.fullmatch(identifier) or not local_files.is_issue_file(f"{identifier}.md"):
        raise _invalid(
            f"an identifier is letters, digits, `.`, `_` and `-` (at most 120), got {identifier!r}"
        )


def _filled(what: str, text: object) -> str:
    if not isinstance(text, str) or not text.strip():
        raise _invalid(f"the {what} must not be blank")
    # A file can't hold a lone surrogate, which JSON from an agent may carry.
    return text.strip().encode("utf-8", "replace").decode("utf-8")


def _words(what: str, words: Iterable[str]) -> list[str]:
    return [_filled(f"entry of {what}", word) for word in words]


def _checked_value(key: str, value: NewValue) -> NewValue:
    match key:
        case "title" | "state":
            return _filled(key, value)
        case "labels" | "blocked_by":
            if value is None:
                return None
            if isinstance(value, str | int):
                raise _invalid(f"`{key}` must be a list of texts")
            return tuple(dict.fromkeys(_words(key, value))) or None
        case "priority":
            if value is not None and not isinstance(value, int):
                raise _invalid("`priority` must be a whole number, 1 is the most urgent")
            return value
        case "assignee" | "branch" | "url":
            return None if value is None else _filled(key, str(value))
    raise _invalid(
        f"`{key}` can't be edited; title, state, priority, labels, blocked_by, "
        "assignee, branch, url and the description can"
    )
