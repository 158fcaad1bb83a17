"""One issue of a board as a document: what the fields mean, the description, the comments.

A file is front matter, a body that is the description, and at its end an own section
``## Comments`` with an entry ``### <time> — <author>`` for each comment. Pure: text in, values or
text out. ``local_frontmatter`` reads and edits the front matter; ``local_board`` owns the files.

Invariant: a text that goes in as a description or a comment comes out as the same one, whatever
headings it holds: lines that would be read as ours are kept apart by a backslash.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar

from .local_frontmatter import (
    Field,
    FrontMatterError,
    NewValue,
    Unusable,
    edit_front_matter,
    format_field,
    split_front_matter,
)

KEYS: Final = (
    "id",
    "title",
    "state",
    "priority",
    "labels",
    "blocked_by",
    "assignee",
    "branch",
    "url",
    "created",
    "updated",
)
"""The keys that a board file may have, in the order in which they are written."""

_COMMENTS_HEADING: Final = re.compile(r"^## Comments[ \t]*\r?$", re.MULTILINE)
_ENTRY: Final = re.compile(
    r"^### (?P<at>\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)"
    r"[ \t]+(?:\u2014|\u2013|--?)[ \t]+(?P<author>[^\r\n]+?)[ \t]*\r?$",
    re.MULTILINE,
)
_OURS: Final = re.compile(r"^(\\*)(## Comments[ \t]*|### \d{4}-\d\d-\d\d[T ].*)$", re.MULTILINE)
_ESCAPED: Final = re.compile(r"^\\(\\*(?:## Comments[ \t]*|### \d{4}-\d\d-\d\d[T ].*))$", re.M)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment: when (ISO 8601 as written), by whom, and its Markdown text."""

    at: str
    author: str
    text: str


@dataclass(frozen=True, slots=True)
class FieldFault:
    """What is wrong with one key: its line in the file, counted from 1, and the mend."""

    line: int
    key: str | None
    problem: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.problem}"


class DocumentError(ValueError):
    """A board file is malformed: no valid issue can be made of it.

    Attributes:
        faults: All of them, in the order of the file.
        claimed_id: The id that the file seems to carry, or None.
    """

    def __init__(self, faults: Sequence[FieldFault], claimed_id: str | None = None) -> None:
        super().__init__("; ".join(str(fault) for fault in faults))
        self.faults = tuple(faults)
        self.claimed_id = claimed_id


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueDocument:
    """The meaning of one board file.

    ``blocked_by`` is None where it is written in a way that can't be read: such an issue must not
    start, since what blocks it is unknown. ``notices`` name optional values that were left out.
    """

    identifier: str
    id: str
    title: str
    state: str
    description: str | None
    priority: int | None = None
    labels: tuple[str, ...] = ()
    blocked_by: tuple[str, ...] | None = ()
    assignee: str | None = None
    branch_name: str | None = None
    url: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    notices: tuple[FieldFault, ...] = ()


def parse_document(identifier: str, text: str) -> IssueDocument:
    """Read the text of ``<identifier>.md``.

    Raises:
        DocumentError: A required value is missing or the front matter can't be read.
    """
    try:
        matter = split_front_matter(text)
    except FrontMatterError as error:
        claimed = re.search(r"^id:[ \t]*[\"']?([^\"'\r\n]+?)[\"']?[ \t]*\r?$", text, re.M)
        raise DocumentError(
            [FieldFault(error.line, None, error.problem)], claimed[1] if claimed else None
        ) from error
    fields = _Fields(matter.fields)
    issue_id = fields.text("id", required=False) if "id" in matter.fields else identifier
    title = fields.text("title", required=True)
    state = fields.text("state", required=True)
    if "id" in matter.fields and issue_id is None:
        fields.fault("id", "`id` must not be empty; without the key the file's name is the id")
    if fields.faults or issue_id is None or title is None or state is None:
        raise DocumentError(fields.faults, issue_id)
    return IssueDocument(
        identifier=identifier,
        id=issue_id,
        title=title,
        state=state,
        description=_description(text[matter.body :]),
        priority=fields.optional("priority", _to_priority),
        labels=_unique(label.lower() for label in fields.words("labels") or ()),
        blocked_by=fields.words("blocked_by"),
        assignee=fields.text("assignee", required=False),
        branch_name=fields.text("branch", required=False),
        url=fields.text("url", required=False),
        created_at=fields.optional("created", to_instant),
        updated_at=fields.optional("updated", to_instant),
        notices=tuple(fields.notices),
    )


def parse_comments(text: str) -> tuple[Comment, ...]:
    """Return the comments of a board file, oldest first as written; () where it has no section."""
    section = _comments_span(text)
    if section is None:
        return ()
    tail = text[section[1] :]
    entries = list(_ENTRY.finditer(tail))
    ends = [entry.start() for entry in entries[1:]] + [len(tail)]
    return tuple(
        Comment(
            at=entry["at"],
            author=entry["author"],
            text=_unescape(_lf(tail[entry.end() : end]).strip("\n")),
        )
        for entry, end in zip(entries, ends, strict=True)
    )


def render_document(fields: Mapping[str, NewValue], description: str) -> str:
    """Write a whole file: the keys in their usual order, then the description."""
    lines = [format_field(key, fields[key]) for key in KEYS if fields.get(key) not in (None, ())]
    body = _escape(_lf(description)).strip("\n")
    return "---\n" + "\n".join(lines) + "\n---\n" + (f"\n{body}\n" if body else "")


def with_fields(text: str, changes: Mapping[str, NewValue]) -> str:
    """Return the file with these keys changed and everything else untouched.

    Raises:
        FrontMatterError: The front matter can't be read or edited.
    """
    return edit_front_matter(text, changes, order=KEYS)


def with_description(text: str, description: str) -> str:
    """Return the file with another description; keys and comments stay."""
    matter = split_front_matter(text)
    section = _comments_span(text)
    rest = text[section[0] :] if section is not None else ""
    body = _escape(_lf(description)).strip("\n").replace("\n", matter.newline)
    gap = matter.newline
    head = text[: matter.body] + (gap + body + gap if body else "")
    return head + (gap + rest if rest else "")


def with_comment(text: str, comment: Comment) -> str:
    """Return the file with a comment put at its end."""
    newline = split_front_matter(text).newline
    head = text.rstrip("\r\n")
    # What stands before is kept to the byte, but for blank lines at the very end of the file.
    if _comments_span(text) is None:
        head += newline * 2 + "## Comments"
    body = _escape(_lf(comment.text)).strip("\n").replace("\n", newline)
    author = " ".join(comment.author.split()) or "unknown"
    return f"{head}{newline * 2}### {comment.at} \u2014 {author}{newline * 2}{body}{newline}"


def to_instant(text: str) -> datetime:
    """Read an RFC 3339 time; one without an offset, or a bare date, is taken as UTC.

    Raises:
        ValueError: It is no such time.
    """
    moment = datetime.fromisoformat(text)
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(text) from error


class _Fields:
    """Reads fields one by one and collects what is wrong with them."""

    def __init__(self, fields: Mapping[str, Field]) -> None:
        self._fields = fields
        self.faults: list[FieldFault] = []
        self.notices: list[FieldFault] = []

    def fault(self, key: str, problem: str) -> None:
        line = self._fields[key].line if key in self._fields else 1
        self.faults.append(FieldFault(line, key, problem))

    def text(self, key: str, *, required: bool) -> str | None:
        field = self._fields.get(key)
        value = field.value if field is not None else None
        if isinstance(value, str) and value.strip():
            return _encodable(value.strip())
        if required:
            what = "is missing" if field is None else "must be a text that is not empty"
            self.fault(key, f"`{key}` {what}; write `{key}: ...`")
        elif field is not None and value is not None and not isinstance(value, str):
            self.notices.append(FieldFault(field.line, key, f"`{key}` must be a text; left out"))
        return None

    def words(self, key: str) -> tuple[str, ...] | None:
        """A list of texts; a single text is one, or several divided by commas. None: unusable."""
        field = self._fields.get(key)
        if field is None or field.value is None:
            return ()
        if isinstance(field.value, Unusable):
            problem = f"`{key}` must be a list such as `[a, b]`; left out"
            self.notices.append(FieldFault(field.line, key, problem))
            return None
        raw = field.value.split(",") if isinstance(field.value, str) else field.value
        return _unique(_encodable(word.strip()) for word in raw)

    def optional(self, key: str, convert: Callable[[str], T]) -> T | None:
        text = self.text(key, required=False)
        if text is None:
            return None
        try:
            return convert(text)
        except ValueError:
            problem = f"`{key}` {_EXPECTED[key]}, got {text[:40]!r}; left out"
            self.notices.append(FieldFault(self._fields[key].line, key, problem))
            return None


_EXPECTED: Final = {
    "priority": "must be a whole number (1 is the most urgent, 4 the least)",
    "created": "must be a time such as 2026-01-31T09:30:00Z",
    "updated": "must be a time such as 2026-01-31T09:30:00Z",
}


def _to_priority(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d{1,9}", text):
        raise ValueError(text)
    return int(text)


def _unique(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in words if word))


def _description(body: str) -> str | None:
    section = _comments_span(body)
    text = _unescape(_lf(body[: section[0]] if section is not None else body)).strip("\n")
    return text if text.strip() else None


def _comments_span(text: str) -> tuple[int, int] | None:
    """Start of the heading and start of its content, of the last heading that entries follow."""
    if "## Comments" not in text:
        return None
    for heading in reversed(list(_COMMENTS_HEADING.finditer(text))):
        rest = text[heading.end() :]
        stripped = rest.lstrip()
        if not stripped or _ENTRY.match(stripped):
            return heading.start(), heading.end()
    return None


def _encodable(text: str) -> str:
    """Replace what UTF-8 can't hold: an escape in YAML may write half of a surrogate pair."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _lf(text: str) -> str:
    return text.replace("\r\n", "\n")


def _escape(text: str) -> str:
    return _OURS.sub(r"\\\1\2", text)


def _unescape(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)
