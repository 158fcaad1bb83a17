"""Markdown with YAML front matter, split and decoded (SPEC 5.2).

YAML is read as version 1.2: ``on``, ``no``, ``1:30`` and dates are plain text. Nodes are turned
into values here rather than by the library, which gives the line of every key, rejects duplicate
keys by name only (a value may be a secret) and keeps a recursive alias from hanging the daemon.
``yaml_bounds`` bounds depth and size. ``loading`` gives the result a meaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from symphony.errors import WorkflowFileError

from .yaml_bounds import MAX_EXPANDED, BoundedScanner

KeyPath = tuple[str, ...]
"""The keys from the root to a setting."""

_LINE_BREAK = re.compile("\r\n|[\n\v\f\r\x85\u2028\u2029]")
_TAG = "tag:yaml.org,2002:"
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False}
_BOOLEANS["FALSE"] = False
_NOT_IN_1_2 = re.compile(r"_|^[+-]?0b", re.IGNORECASE)
"""Numbers of YAML 1.1 that the library still reads, and that are text in 1.2."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text in its two parts; lines count from 1.

    Attributes:
        front_matter: The YAML between the fences, or None where line 1 is no fence.
        body: The rest, trimmed.
        body_line: The line on which the trimmed body starts.
        terminated: False where the closing fence is missing and all of the rest is YAML.
    """

    front_matter: str | None
    body: str
    body_line: int
    terminated: bool = True


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """Decoded front matter: string keys all through, null entries left out.

    Attributes:
        values: The root map.
        lines: The line of each key in the file, by its path.
    """

    values: Mapping[str, Any]
    lines: Mapping[KeyPath, int] = field(default_factory=dict)

    def line_of(self, path: KeyPath) -> int | None:
        """Return the line of a key, or of the nearest one around it; None without any."""
        for length in range(len(path), 0, -1):
            if (line := self.lines.get(path[:length])) is not None:
                return line
        return None


def split_document(text: str) -> Document:
    """Split a text at its fences: a first line ``---``, closed by the next such line.

    Blanks after a fence are ignored. Without a first fence everything is body; without a closing
    one everything after the first is front matter.
    """
    lines = _LINE_BREAK.split(text)
    if lines[0].rstrip(" \t") != "---":
        return _document(None, lines, first=1)
    for index, line in enumerate(lines[1:], start=1):
        if line.rstrip(" \t") == "---":
            return _document("\n".join(lines[1:index]), lines[index + 1 :], first=index + 2)
    return Document("\n".join(lines[1:]), "", len(lines), terminated=False)


def _document(front_matter: str | None, rest: list[str], *, first: int) -> Document:
    blank = next((count for count, line in enumerate(rest) if line.strip()), 0)
    return Document(front_matter, "\n".join(rest).strip(), first + blank)


def parse_front_matter(text: str, *, source: str) -> FrontMatter:
    """Decode front matter whose first line is the second one of ``source``.

    Raises:
        WorkflowFileError: ``workflow_parse_error`` for text that is not YAML 1.2 or has a
            duplicate key, ``workflow_front_matter_not_a_map`` for YAML that is no map.
    """
    decoder = _Decoder(source)
    root = decoder.compose(text)
    if root is None or (isinstance(root, ScalarNode) and str(root.tag) == f"{_TAG}null"):
        return FrontMatter({})
    if not isinstance(root, MappingNode):
        raise WorkflowFileError(
            "workflow_front_matter_not_a_map",
            f"{source}: the front matter must be a map of settings such as 'tracker:'",
        )
    return FrontMatter(decoder.value(root, ()), decoder.lines)


class _Decoder:
    """Turns the nodes of one document into plain values and notes the line of each key."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.lines: dict[KeyPath, int] = {}
        self._done: dict[int, Any] = {}
        self._sizes: dict[int, int] = {}
        self._open: set[int] = set()

    def fault(self, problem: str, node: Node | None) -> WorkflowFileError:
        line = f" line {_line(node)}:" if node is not None else ""
        return self._error(f"{line} {problem}")

    def _error(self, text: str) -> WorkflowFileError:
        return WorkflowFileError(
            "workflow_parse_error", f"{self.source}:{text} (YAML 1.2 between the '---' lines)"
        )

    def compose(self, text: str) -> Node | None:
        yaml = YAML(typ="safe", pure=True)
        yaml.Scanner = BoundedScanner
        yaml.composer.warn_double_anchors = False
        try:
            return yaml.compose(text)  # type: ignore[no-any-return]  # untyped in ruamel
        except MarkedYAMLError as error:
            # Only the problem: the error's own text quotes the lines around it, secrets included.
            mark = error.problem_mark or error.context_mark
            line = f" line {mark.line + 2}:" if mark is not None else ""
            raise self._error(f"{line} {error.problem or 'is not valid YAML'}") from None
        except ReaderError as error:
            number = text.count("\n", 0, error.position) + 2
            raise self._error(
                f" line {number}: the character U+{error.character:04X} is not allowed"
            ) from None
        except (YAMLError, ValueError):
            raise self._error(" is not valid YAML") from None

    def value(self, node: Node, path: KeyPath) -> Any:
        """Return the plain value of a node; aliases share one value."""
        key = id(node)
        if key in self._done:
            return self._done[key]
        if key in self._open:
            raise self.fault("an alias contains itself", node)
        self._open.add(key)
        result = self._fresh_value(node, path)
        self._open.discard(key)
        self._measure(node)
        self._done[key] = result
        return result

    def _measure(self, node: Node) -> None:
        """Note how many values a node stands for, aliases written out; refuse a multitude."""
        parts: list[Node] = []
        if isinstance(node, MappingNode):
            parts = [part for _, part in node.value]
        elif isinstance(node, SequenceNode):
            parts = node.value
        size = 1 + sum(self._sizes.get(id(part), 1) for part in parts)
        if size > MAX_EXPANDED:
            raise self.fault(f"its aliases stand for more than {MAX_EXPANDED} values", node)
        self._sizes[id(node)] = size

    def _fresh_value(self, node: Node, path: KeyPath) -> Any:
        kind = str(node.tag).removeprefix(_TAG)
        if isinstance(node, MappingNode) and kind == "map":
            return self._mapping(node, path)
        if isinstance(node, SequenceNode) and kind == "seq":
            return [self.value(item, (*path, str(index))) for index, item in enumerate(node.value)]
        if isinstance(node, ScalarNode):
            return self._scalar(node, kind)
        raise self.fault(f"the tag {str(node.tag)!r} is not supported here", node)

    def _scalar(self, node: ScalarNode, kind: str) -> Any:
        text: str = node.value
        if kind in ("int", "float") and _NOT_IN_1_2.search(text):
            return text
        try:
            match kind:
                case "str" | "timestamp" | "value" | "merge":
                    return text
                case "null":
                    return None
                case "bool":
                    return _BOOLEANS.get(text, text)
                case "int":
                    return _integer(text)
                case "float":
                    return float(text.replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError:
            raise self.fault(f"a value is not a YAML {kind}", node) from None
        raise self.fault(f"the tag {str(node.tag)!r} is not supported here", node)

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        seen: dict[str, Node] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if str(key_node.tag) == f"{_TAG}merge":
                for values in self._merges(value_node, path):
                    merged = {**values, **merged}
                continue
            key = self._key(key_node)
            if key in seen:
                raise self.fault(
                    f"duplicate key {'.'.join((*path, key))!r}, first on line {_line(seen[key])}",
                    key_node,
                )
            seen[key] = key_node
            self.lines[(*path, key)] = _line(key_node)
            value = self.value(value_node, (*path, key))
            if value is not None:
                result[key] = value
        return {**{name: value for name, value in merged.items() if name not in seen}, **result}

    def _key(self, node: Node) -> str:
        if not isinstance(node, ScalarNode):
            raise self.fault("a key must be plain text", node)
        return str(node.value)

    def _merges(self, node: Node, path: KeyPath) -> Iterator[dict[str, Any]]:
        for part in node.value if isinstance(node, SequenceNode) else [node]:
            if not isinstance(part, MappingNode):
                raise self.fault("'<<' must name a map or a list of maps", part)
            yield self.value(part, path)


def _integer(text: str) -> int:
    based = text.lstrip("+-")[:2].lower() in ("0x", "0o")
    return int(text, 0 if based else 10)


def _line(node: Node) -> int:
    # Marks count from 0, and the fence takes the file's first line.
    return int(node.start_mark.line) + 2
