"""The inline part of Markdown to Atlassian Document Format: marks, links, code, breaks. Pure.

``jira_markdown`` cuts a text into blocks and hands their lines over.

Invariant: any text gives nodes that Jira's schema accepts, in time that grows with its length: a
sign that finds no partner once is not looked for again in that text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Node = dict[str, Any]
"""A node or a mark of a document."""

MAX_DEPTH: Final = 12
"""Marks, quotations and lists nest no deeper; what would is text."""

_PUNCTUATION: Final = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
_ANGLE: Final = re.compile(r"<(https?://[^\s<>]+|mailto:[^\s<>]+)>")
_BARE: Final = re.compile(r"https?://[^\s<>\[\]\"'`*|\\]+[^\s<>\[\]\"'`*|\\.,;:!?)_~]")
_LINK_TAIL: Final = re.compile(
    r"\]\( *(?:<([^<>\n]{0,2000})>|([^\s()<>]{0,2000}))(?: +\"[^\"]{0,500}\")? *\)"
)
_BRACKET: Final = re.compile(r"\\.|[\[\]]", re.DOTALL)
_SIGNS: Final = (("**", "strong"), ("__", "strong"), ("~~", "strike"), ("*", "em"), ("_", "em"))


def parse_inline(text: str) -> list[Node]:
    """The inline nodes of a block's text; a line break in it is a space."""
    run = _Run()
    _parse(text, (), run, 0)
    return run.nodes


@dataclass
class _Run:
    """Inline nodes as they come; neighbours of the same marks are one text."""

    nodes: list[Node] = field(default_factory=list)

    def text(self, text: str, marks: Sequence[Node]) -> None:
        if not text:
            return
        last = self.nodes[-1] if self.nodes else None
        if last is not None and last["type"] == "text" and last.get("marks", []) == list(marks):
            last["text"] += text
            return
        node: Node = {"type": "text", "text": text}
        if marks:
            node["marks"] = list(marks)
        self.nodes.append(node)

    def hard_break(self) -> None:
        self.nodes.append({"type": "hardBreak"})


def _parse(text: str, marks: tuple[Node, ...], run: _Run, depth: int) -> None:
    """Parse inline Markdown into the run."""
    hopeless: set[str] = set()
    at = 0
    while at < len(text):
        step = _special(text, at, marks, run, depth=depth, hopeless=hopeless)
        if step is None:
            run.text(text[at], marks)
            step = at + 1
        at = step


def _special(
    text: str,
    at: int,
    marks: tuple[Node, ...],
    run: _Run,
    *,
    depth: int,
    hopeless: set[str],
) -> int | None:
    """Handle what starts here; return where it ends, or None where it is a plain character."""
    char = text[at]
    if char == "\\" and at + 1 < len(text):
        if text[at + 1] == "\n":
            run.hard_break()
            return at + 2
        if text[at + 1] in _PUNCTUATION:
            run.text(text[at + 1], marks)
            return at + 2
    if char == "\n":
        run.text(" ", marks)
        return at + 1
    if char == " " and text.startswith("  ", at):
        return _spaces(text, at, marks, run)
    if char == "`":
        return _code_span(text, at, marks, run, hopeless)
    if char == "<":
        angle = _ANGLE.match(text, at)
        return _linked(angle[1], angle[1], angle.end(), marks, run) if angle else None
    if char == "h" and (at == 0 or not text[at - 1].isalnum()):
        bare = _BARE.match(text, at)
        return _linked(bare[0], bare[0], bare.end(), marks, run) if bare else None
    if char in "[!":
        return _link(text, at, marks, run, depth)
    if char in "*_~":
        return _mark(text, at, marks, run, depth=depth, hopeless=hopeless)
    return None


def _spaces(text: str, at: int, marks: tuple[Node, ...], run: _Run) -> int:
    end = at
    while end < len(text) and text[end] == " ":
        end += 1
    if end < len(text) and text[end] == "\n":
        run.hard_break()
        return end + 1
    run.text(text[at:end], marks)
    return end


def _code_span(
    text: str, at: int, marks: tuple[Node, ...], run: _Run, hopeless: set[str]
) -> int | None:
    end = at
    while end < len(text) and text[end] == "`":
        end += 1
    fence = text[at:end]
    close = None
    if fence not in hopeless:
        close = re.compile(rf"(?<!`){fence}(?!`)").search(text, end)
    if close is None:
        hopeless.add(fence)
        run.text(fence, marks)
        return end
    body = text[end : close.start()].replace("\n", " ")
    if body.startswith(" ") and body.endswith(" ") and body.strip():
        body = body[1:-1]
    # ADF allows no mark but a link beside code.
    links = tuple(mark for mark in marks if mark["type"] == "link")
    run.text(body, (*links, {"type": "code"}))
    return close.end()


def _linked(label: str, url: str, end: int, marks: tuple[Node, ...], run: _Run) -> int:
    if any(mark["type"] == "link" for mark in marks):
        run.text(label, marks)
    else:
        run.text(label, (*marks, {"type": "link", "attrs": {"href": url}}))
    return end


def _link(text: str, at: int, marks: tuple[Node, ...], run: _Run, depth: int) -> int | None:
    start = at + 1 if text[at] == "[" else at + 2
    if (text[at] == "!" and not text.startswith("![", at)) or depth >= MAX_DEPTH:
        return None
    close = next((m for m in _BRACKET.finditer(text, start) if len(m[0]) == 1), None)
    tail = _LINK_TAIL.match(text, close.start()) if close is not None else None
    if tail is None:
        return None
    label = text[start : tail.start()]
    url = tail[1] if tail[1] is not None else tail[2]
    if not url or not re.match(r"https?:|mailto:|/|#", url):
        # Jira refuses other addresses; the text stays.
        run.text(text[at : tail.end()], marks)
    elif any(mark["type"] == "link" for mark in marks):
        _parse(label, marks, run, depth + 1)
    else:
        _parse(label or url, (*marks, {"type": "link", "attrs": {"href": url}}), run, depth + 1)
    return tail.end()


def _mark(
    text: str,
    at: int,
    marks: tuple[Node, ...],
    run: _Run,
    *,
    depth: int,
    hopeless: set[str],
) -> int | None:
    for sign, kind in _SIGNS:
        if not text.startswith(sign, at) or sign in hopeless:
            continue
        if depth >= MAX_DEPTH or any(mark["type"] == kind for mark in marks):
            continue
        start = at + len(sign)
        if start >= len(text) or text[start].isspace() or not _may_open(text, at, sign):
            continue
        end = _closing(text, start, sign)
        if end is None:
            hopeless.add(sign)
            continue
        _parse(text[start:end], (*marks, {"type": kind}), run, depth + 1)
        return end + len(sign)
    if text[at] == "~":
        return None
    # A run of signs that opens nothing is text as a whole.
    end = at
    while end < len(text) and text[end] == text[at]:
        end += 1
    run.text(text[at:end], marks)
    return end


def _may_open(text: str, at: int, sign: str) -> bool:
    return sign[0] != "_" or at == 0 or not text[at - 1].isalnum()


def _closing(text: str, start: int, sign: str) -> int | None:
    """Where the sign closes: behind a character that is no space, outside of code."""
    at = start
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 2
            continue
        if char == "`":
            end = at
            while end < len(text) and text[end] == "`":
                end += 1
            close = text.find(text[at:end], end)
            at = close + end - at if close >= 0 else end
            continue
        if char == sign[0] and at > start:
            end = at
            while end < len(text) and text[end] == sign[0]:
                end += 1
            found = _fits(text, at, end, sign)
            if found is not None:
                return found
            at = end
            continue
        at += 1
    return None


def _fits(text: str, at: int, end: int, sign: str) -> int | None:
    """Where in a run of signs this one closes, or None."""
    length = end - at
    if text[at - 1].isspace():
        return None
    if sign[0] == "_" and end < len(text) and text[end].isalnum():
        return None
    if len(sign) == 1:
        return (at if length == 1 else end - 1) if length != 2 else None
    return end - 2 if length >= 2 else None
