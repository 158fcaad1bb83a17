"""Front matter of a board file: text to raw fields, and edits that touch only what they change.

Scalars are kept as the text that the person wrote (``010`` stays ``010``, ``2026-01-02`` is no
date), so what a value means is decided in one place, ``local_document``. Pure: text in, text out.

Invariant: an edit changes the spans of the edited keys and nothing else, byte for byte, and what
it wrote reads back as asked. Plain files take a path without the YAML parser, which reads a
thousand files in tens of milliseconds; everything else goes to ruamel.yaml (YAML 1.2).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final


class Unusable(Enum):
    """A value whose shape no key of a board file has, for example a mapping."""

    NESTED = "nested"


FieldValue = str | tuple[str, ...] | Unusable | None
"""The text of a scalar, the texts of a list, None for null."""

NewValue = str | int | Sequence[str] | None
"""What an edit writes; None takes the key out."""


@dataclass(frozen=True, slots=True)
class Field:
    """One key of the front matter: its raw value and its line in the file, counted from 1."""

    value: FieldValue
    line: int


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """A file cut in two.

    Attributes:
        fields: The top-level keys in the order of the file.
        start: Index of the first character of the YAML block.
        end: Index behind its last character, the start of the closing ``---``.
        body: Index where the body begins.
        newline: The line ending that the file uses.
    """

    fields: Mapping[str, Field]
    start: int
    end: int
    body: int
    newline: str


class FrontMatterError(ValueError):
    """The front matter can't be read: ``line`` counts from 1, ``problem`` says what to mend."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")
        self.line = line
        self.problem = problem


_OPENING: Final = re.compile(r"\ufeff?---[ \t]*(\r?\n)")
_CLOSING: Final = re.compile(r"^---[ \t]*(?:\r?\n|\Z)", re.MULTILINE)
_PLAIN_LINE: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*):(?: (.*))?")
_PLAIN_ITEM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./@+ -]*")
_TIMESTAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_WORDS_WITH_TYPE: Final = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
_MAX_DEPTH: Final = 50
"""Brackets within each other; the YAML parser's time grows with the square of their number."""
_NULL_TAG: Final = "tag:yaml.org,2002:null"


def split_front_matter(text: str) -> FrontMatter:
    """Find the front matter and read its fields.

    Raises:
        FrontMatterError: No front matter, no end of it, not YAML, not a mapping, a key twice.
    """
    opening = _OPENING.match(text)
    if opening is None:
        raise FrontMatterError(1, "the file must begin with a line `---`, its keys, and `---`")
    closing = _CLOSING.search(text, opening.end())
    if closing is None:
        raise FrontMatterError(1, "the front matter has no closing line `---`")
    block = text[opening.end() : closing.start()]
    fields = _read_plain(block)
    if fields is None:
        fields = _read_yaml(block)
    return FrontMatter(fields, opening.end(), closing.start(), closing.end(), opening.group(1))


def edit_front_matter(
    text: str, changes: Mapping[str, NewValue], *, order: Sequence[str] = ()
) -> str:
    """Return ``text`` with these keys set, or taken out where the new value is None.

    Args:
        text: The whole file.
        changes: New values by key.
        order: The usual order of keys, used to place a key that the file does not have.

    Raises:
        FrontMatterError: The file can't be read, or its layout can't be edited key by key.
    """
    for key, value in changes.items():
        text = _set_key(text, key, value, order)
    after = split_front_matter(text).fields
    for key, value in changes.items():
        found = after[key].value if key in after else None
        if found != _as_read(value):
            line = after[key].line if key in after else 1
            raise FrontMatterError(line, f"`{key}` can't be edited in this layout; edit it by hand")
    return text


def format_field(key: str, value: NewValue) -> str:
    """Write one line ``key: value`` without its newline."""
    return f"{key}: {_format_value(value)}"


def _read_plain(block: str) -> dict[str, Field] | None:
    """Read the layout that we write ourselves; None where anything needs the YAML parser."""
    fields: dict[str, Field] = {}
    lines = block.replace("\r\n", "\n").split("\n")
    for number, line in enumerate(lines[:-1], start=2):
        match = _PLAIN_LINE.fullmatch(line)
        if match is None or match[1] in fields:
            return None
        value = _plain_value(match[2] or "")
        if isinstance(value, Unusable):
            return None
        fields[match[1]] = Field(value, number)
    return fields if lines[-1] == "" else None


def _plain_value(text: str) -> FieldValue:
    """Read a one-line value; ``Unusable`` means that the YAML parser has to look at it."""
    if text in _NULLS:
        return None
    if not text.isprintable() or text != text.strip():
        return Unusable.NESTED
    if text[0] == text[-1] == '"' and len(text) > 1:
        inner = text[1:-1]
        return Unusable.NESTED if '"' in inner or "\\" in inner else inner
    if text[0] == "[" and text[-1] == "]":
        items = [item.strip() for item in text[1:-1].split(",")] if text[1:-1].strip() else []
        if all(_PLAIN_ITEM.fullmatch(item) and item not in _NULLS for item in items):
            return tuple(items)
        return Unusable.NESTED
    if text[0].isascii() and text[0].isalnum() and ": " not in text and " #" not in text:
        return Unusable.NESTED if text.endswith(":") else text
    return Unusable.NESTED


def _refuse_deep(block: str) -> None:
    """Refuse what would keep the parser busy for minutes: a board is read at every poll."""
    depth = 0
    for index, character in enumerate(block):
        if character in "[{":
            depth += 1
            if depth > _MAX_DEPTH:
                line = 2 + block.count("\n", 0, index)
                problem = f"more than {_MAX_DEPTH} brackets are open; close them, or quote the text"
                raise FrontMatterError(line, problem)
        elif character in "]}" and depth:
            depth -= 1


def _compose(block: str) -> Any:
    """Parse to nodes, which carry raw texts and positions; None for an empty block."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError
    from ruamel.yaml.nodes import MappingNode

    _refuse_deep(block)
    try:
        yaml = YAML(typ="safe", pure=True)
        # It would be printed, with the lines of the file.
        yaml.composer.warn_double_anchors = False
        root = yaml.compose(block)
    except (YAMLError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
        # The parser lets some of its own faults through on odd input.
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or (str(error) or repr(error)).splitlines()[0]
        raise FrontMatterError(
            2 + (mark.line if mark is not None else 0), f"not valid YAML: {problem}"
        ) from error
    if root is not None and not isinstance(root, MappingNode):
        raise FrontMatterError(2, "the front matter must be a mapping, one `key: value` a line")
    return root


def _read_yaml(block: str) -> dict[str, Field]:
    root = _compose(block)
    fields: dict[str, Field] = {}
    for key_node, value_node in root.value if root is not None else ():
        line = key_node.start_mark.line + 2
        key = key_node.value
        if not isinstance(key, str):
            raise FrontMatterError(line, "a key must be a plain word")
        if key in fields:
            raise FrontMatterError(
                line, f"`{key}` stands twice, first in line {fields[key].line}; keep one of them"
            )
        fields[key] = Field(_node_value(value_node), line)
    return fields


def _node_value(node: Any) -> FieldValue:
    from ruamel.yaml.nodes import ScalarNode, SequenceNode

    if isinstance(node, ScalarNode):
        return None if node.tag == _NULL_TAG else str(node.value)
    if isinstance(node, SequenceNode) and all(isinstance(item, ScalarNode) for item in node.value):
        return tuple(str(item.value) for item in node.value if item.tag != _NULL_TAG)
    return Unusable.NESTED


def _set_key(text: str, key: str, value: NewValue, order: Sequence[str]) -> str:
    matter = split_front_matter(text)
    block = text[matter.start : matter.end]
    root = _compose(block)
    if root is not None and root.flow_style:
        raise FrontMatterError(2, "front matter in braces can't be edited; write one key a line")
    spans = {
        str(key_node.value): (key_node, _end_of(value_node, block))
        for key_node, value_node in (root.value if root is not None else ())
    }
    if key in spans:
        key_node, end = spans[key]
        begin = key_node.start_mark.index
        if value is None:
            block = block[:begin] + block[_line_end(block, end) :]
        else:
            block = block[: key_node.end_mark.index] + f": {_format_value(value)}" + block[end:]
    elif value is not None:
        at = _place(spans, key, order, block)
        if at and not block[:at].endswith("\n"):
            block = block[:at] + matter.newline + block[at:]
            at += len(matter.newline)
        block = block[:at] + format_field(key, value) + matter.newline + block[at:]
    return text[: matter.start] + block + text[matter.end :]


def _place(spans: Mapping[str, Any], key: str, order: Sequence[str], block: str) -> int:
    """Index at which a key that the file does not have is put in."""
    before = order[: order.index(key)] if key in order else ()
    for name in reversed(before):
        if name in spans:
            return _line_end(block, spans[name][1])
    return len(block)


def _line_end(block: str, index: int) -> int:
    newline = block.find("\n", index)
    return len(block) if newline < 0 else newline + 1


def _end_of(node: Any, block: str) -> int:
    """Index behind the last character of a value, without the comments that follow it.

    The parser ends a block collection or literal where the next token begins, which would take
    the comments between with it.
    """
    from ruamel.yaml.nodes import MappingNode, ScalarNode

    if isinstance(node, ScalarNode):
        end = int(node.end_mark.index)
        if node.style in ("|", ">"):
            end = node.start_mark.index + len(block[node.start_mark.index : end].rstrip())
        return end
    if node.flow_style or not node.value:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end_of(last[1] if isinstance(node, MappingNode) else last, block)


def _as_read(value: NewValue) -> FieldValue:
    if value is None or isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) else tuple(value)


def _format_value(value: NewValue) -> str:
    if value is None:
        return "null"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return value if _is_plain(value) else _quote(value)
    return "[" + ", ".join(v if _is_plain_item(v) else _quote(v) for v in value) + "]"


def _is_plain(text: str) -> bool:
    """Whether a text needs no quotes, for us and for other readers of YAML."""
    if _TIMESTAMP.fullmatch(text):
        return True
    return (
        text[:1].isascii()
        and text[:1].isalpha()
        and text.lower() not in _WORDS_WITH_TYPE
        and isinstance(_plain_value(text), str)
    )


def _is_plain_item(text: str) -> bool:
    return _is_plain(text) and _PLAIN_ITEM.fullmatch(text) is not None and text == text.strip()


def _quote(text: str) -> str:
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    out = []
    for char in text:
        if char in escapes:
            out.append(escapes[char])
        elif char.isprintable():
            out.append(char)
        else:
            code = ord(char)
            out.append(f"\\x{code:02x}" if code < 0x100 else f"\\U{code:08x}")
    return '"' + "".join(out) + '"'
