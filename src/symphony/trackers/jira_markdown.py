"""Markdown to Atlassian Document Format, so that an agent may write comments as Markdown. Pure.

Understands headings, paragraphs, quotations, fenced code, rules, bullet, numbered and task lists,
tables, links, autolinks and the marks bold, italic, code and strike-through. HTML stays text. What
ADF does not allow at a place (a heading within a list item) becomes a paragraph there.

``jira_inline`` has what is within a block.

Invariant: any text gives a document that Jira's schema accepts, in time that grows with its length.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from .jira_inline import MAX_DEPTH, Node, parse_inline

_FENCE: Final = re.compile(r"^ {0,3}(`{3,}|~{3,})\s*([^\s`]*)[^`]*$")
_HEADING: Final = re.compile(r"^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
_RULE: Final = re.compile(r"^ {0,3}(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,})$")
_ITEM: Final = re.compile(r"^( {0,3})([-*+]|\d{1,9}[.)])(?:( {1,4})(?=\S)|[ \t]*$)")
_QUOTE: Final = re.compile(r"^ {0,3}> ?")
_DELIMITER: Final = re.compile(r"^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$")
_TASK: Final = re.compile(r"^\[([ xX])\](?: +|$)")


def from_markdown(text: str) -> Node:
    """Return the document, ``{"type": "doc", "version": 1, "content": [...]}``."""
    lines = text.expandtabs(4).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return {"type": "doc", "version": 1, "content": _blocks(lines, 0)}


def _blocks(lines: Sequence[str], depth: int) -> list[Node]:
    """The blocks of these lines."""
    blocks: list[Node] = []
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        node, at = _block(lines, at, depth)
        if node is not None:
            blocks.append(node)
    return blocks


def _block(lines: Sequence[str], at: int, depth: int) -> tuple[Node | None, int]:
    line = lines[at]
    if _FENCE.match(line):
        return _code(lines, at)
    heading = _HEADING.match(line)
    if heading is not None:
        content = parse_inline(heading[2] or "")
        level = len(heading[1])
        node = {"type": "heading", "attrs": {"level": level}, "content": content}
        return (node if content else None), at + 1
    if _RULE.match(line):
        return {"type": "rule"}, at + 1
    if depth < MAX_DEPTH and _QUOTE.match(line):
        return _quote(lines, at, depth)
    if depth < MAX_DEPTH and _ITEM.match(line):
        return _list(lines, at, depth)
    if "|" in line and at + 1 < len(lines) and _is_delimiter(lines[at], lines[at + 1]):
        return _table(lines, at)
    return _paragraph(lines, at, depth)


def _code(lines: Sequence[str], at: int) -> tuple[Node, int]:
    opening = _FENCE.match(lines[at])
    assert opening is not None
    fence, language = opening[1], opening[2]
    body = []
    at += 1
    while at < len(lines):
        text = lines[at].strip()
        if len(text) >= len(fence) and not text.strip(fence[0]):
            at += 1
            break
        body.append(lines[at])
        at += 1
    node: Node = {"type": "codeBlock"}
    if language:
        node["attrs"] = {"language": language}
    if any(body):
        node["content"] = [{"type": "text", "text": "\n".join(body)}]
    return node, at


def _quote(lines: Sequence[str], at: int, depth: int) -> tuple[Node | None, int]:
    inner = []
    while at < len(lines) and _QUOTE.match(lines[at]):
        inner.append(_QUOTE.sub("", lines[at]))
        at += 1
    content = _fitting(_blocks(inner, depth + 1))
    return ({"type": "blockquote", "content": content} if content else None), at


def _list(lines: Sequence[str], at: int, depth: int) -> tuple[Node, int]:
    first = _ITEM.match(lines[at])
    assert first is not None
    marker = first[2]
    items: list[list[str]] = []
    while at < len(lines):
        start = _ITEM.match(lines[at])
        if start is None or not _same_list(marker, start[2]) or _RULE.match(lines[at]):
            break
        indent = len(start[1]) + len(start[2]) + len(start[3] or " ")
        item = [lines[at][indent:]]
        at += 1
        while at < len(lines) and _continues(lines, at, indent):
            item.append(lines[at][indent:] if lines[at].strip() else "")
            at += 1
        items.append(item)
        # A blank line between two items does not end the list.
        after = next((i for i in range(at, min(at + 2, len(lines))) if lines[i].strip()), at)
        if after < len(lines) and _ITEM.match(lines[after]):
            at = after
    return _list_node(marker, items, depth), at


def _same_list(marker: str, other: str) -> bool:
    return marker[-1] == other[-1]


def _continues(lines: Sequence[str], at: int, indent: int) -> bool:
    """Whether a line belongs to the item: indented, or blank with such a line behind it."""
    if lines[at].strip():
        return lines[at].startswith(" " * indent)
    return (
        at + 1 < len(lines)
        and lines[at + 1].startswith(" " * indent)
        and bool(lines[at + 1].strip())
    )


def _list_node(marker: str, items: list[list[str]], depth: int) -> Node:
    if marker in ("-", "*", "+") and all(_TASK.match(item[0]) for item in items):
        tasks = [_task(number, item) for number, item in enumerate(items, start=1)]
        return {"type": "taskList", "attrs": {"localId": "tasks"}, "content": tasks}
    nodes: list[Node] = []
    for item in items:
        content = _fitting(_blocks(item, depth + 1))
        if not content or content[0]["type"] not in ("paragraph", "codeBlock"):
            content.insert(0, {"type": "paragraph", "content": []})
        nodes.append({"type": "listItem", "content": content})
    if marker in ("-", "*", "+"):
        return {"type": "bulletList", "content": nodes}
    node: Node = {"type": "orderedList", "content": nodes}
    if int(marker[:-1]) != 1:
        node["attrs"] = {"order": int(marker[:-1])}
    return node


def _task(number: int, item: list[str]) -> Node:
    box = _TASK.match(item[0])
    assert box is not None
    text = " ".join([item[0][box.end() :], *(line.strip() for line in item[1:])])
    state = "todo" if box[1] == " " else "done"
    attrs = {"localId": f"task-{number}", "state": state.upper()}
    return {"type": "taskItem", "attrs": attrs, "content": parse_inline(text)}


def _fitting(blocks: Sequence[Node]) -> list[Node]:
    """The blocks in forms that list items and quotations may hold."""
    fitting: list[Node] = []
    for block in blocks:
        kind = block["type"]
        if kind == "heading":
            fitting.append({"type": "paragraph", "content": block["content"]})
        elif kind == "blockquote":
            fitting += block["content"]
        elif kind == "table":
            for row in block["content"]:
                fitting += [part for cell in row["content"] for part in cell["content"]]
        elif kind == "taskList":
            items = [
                {"type": "listItem", "content": [{"type": "paragraph", "content": i["content"]}]}
                for i in block["content"]
            ]
            fitting.append({"type": "bulletList", "content": items})
        elif kind != "rule":
            fitting.append(block)
    return fitting


def _is_delimiter(header: str, line: str) -> bool:
    return bool(_DELIMITER.match(line)) and "-" in line and len(_cells(header)) == len(_cells(line))


def _table(lines: Sequence[str], at: int) -> tuple[Node, int]:
    header = _cells(lines[at])
    rows = [_row(header, "tableHeader", len(header))] if any(header) else []
    at += 2
    while at < len(lines) and "|" in lines[at] and lines[at].strip():
        rows.append(_row(_cells(lines[at]), "tableCell", len(header)))
        at += 1
    if not rows:
        rows = [_row(header, "tableHeader", len(header))]
    return {"type": "table", "content": rows}, at


def _cells(line: str) -> list[str]:
    text = line.strip().removeprefix("|")
    if text.endswith("|") and not text.endswith("\\|"):
        text = text[:-1]
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", text)]


def _row(cells: Sequence[str], kind: str, width: int) -> Node:
    filled = [*cells, *([""] * width)][:width]
    content = [
        {
            "type": kind,
            "content": [
                {"type": "paragraph", "content": parse_inline(part)} for part in cell.split("<br>")
            ],
        }
        for cell in filled
    ]
    return {"type": "tableRow", "content": content}


def _paragraph(lines: Sequence[str], at: int, depth: int) -> tuple[Node | None, int]:
    text = [lines[at]]
    at += 1
    while at < len(lines) and lines[at].strip() and not _starts_block(lines, at, depth):
        text.append(lines[at])
        at += 1
    # Spaces at a line's beginning mean nothing, two at its end are a break.
    content = parse_inline("\n".join(line.lstrip() for line in text).rstrip())
    return ({"type": "paragraph", "content": content} if content else None), at


def _starts_block(lines: Sequence[str], at: int, depth: int) -> bool:
    line = lines[at]
    if _FENCE.match(line) or _HEADING.match(line) or _RULE.match(line):
        return True
    if depth >= MAX_DEPTH:
        return False
    item = _ITEM.match(line)
    # A number other than 1 in the middle of a text is a number.
    listed = item is not None and item[3] is not None and item[2] in ("-", "*", "+", "1.", "1)")
    return listed or bool(_QUOTE.match(line))
