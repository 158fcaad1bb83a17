"""Atlassian Document Format to text and to Markdown. Pure: decoded JSON in, text out.

``to_text`` flattens as the reference does; ``to_markdown`` keeps headings, lists, tables, code,
links and marks. ``jira_markdown`` is the way back: what it can express survives both ways.

Invariant: whatever JSON comes in, the result is text, never an exception. A node of an unknown
type gives its children or the text among its attributes, so nothing a person wrote is lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

_MAX_DEPTH: Final = 60
_LINE_ENDS: Final = frozenset({"paragraph", "heading", "blockquote"})
_MARKS: Final = {"strong": "**", "em": "*", "strike": "~~"}
_SPECIAL: Final = re.compile(r"[\\`*\[\]]|~~|<(?=https?:)|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)")
_BLOCK_START: Final = re.compile(
    r"^( *)(#{1,6}(?=\s|$)|[-+](?=\s|$)|>|\||~~~|=+\s*$|-{2,}|\d{1,9}[.)](?=\s|$))"
)


def to_text(node: object) -> str:
    """The text of a document as the reference flattens it, not trimmed."""
    return _plain(node, 0)


def to_markdown(node: object) -> str:
    """The document as Markdown, without blank lines at its ends."""
    return "\n\n".join(_blocks([node], 0)).strip("\n")


def _plain(node: object, depth: int) -> str:
    if not isinstance(node, Mapping) or depth > _MAX_DEPTH:
        return ""
    if node.get("type") == "hardBreak":
        return "\n"
    text, content, attrs = node.get("text"), node.get("content"), node.get("attrs")
    if isinstance(text, str):
        return text
    if isinstance(content, list):
        inner = "".join(_plain(child, depth + 1) for child in content)
        kind = node.get("type")
        return inner + "\n" if isinstance(kind, str) and kind in _LINE_ENDS else inner
    return _attribute(attrs, "text", "shortName", "url")


def _attribute(attrs: object, *names: str) -> str:
    """The first of these attributes that is a text."""
    for name in names:
        value = attrs.get(name) if isinstance(attrs, Mapping) else None
        if isinstance(value, str) and value:
            return value
    return ""


def _blocks(nodes: Sequence[object], depth: int) -> list[str]:
    """The Markdown blocks of sibling nodes; runs of inline nodes among them are one paragraph."""
    blocks: list[str] = []
    inline: list[object] = []
    for node in nodes:
        render = _BLOCKS.get(_type(node))
        if render is None and not _has_blocks(node):
            inline.append(node)
            continue
        blocks += _paragraph(inline)
        inline = []
        if depth > _MAX_DEPTH:
            continue
        if render is None:
            blocks += _blocks(_children(node), depth + 1)
        else:
            blocks += render(node, depth + 1)
    return blocks + _paragraph(inline)


def _paragraph(nodes: Sequence[object]) -> list[str]:
    text = _inline(nodes).strip()
    lines = [_BLOCK_START.sub(_escape_start, line) for line in text.split("\n")]
    return ["\n".join(lines)] if text else []


def _escape_start(match: re.Match[str]) -> str:
    indent, start = match.groups()
    if start[0].isdigit():
        return f"{indent}{start[:-1]}\\{start[-1]}"
    return f"{indent}\\{start}"


def _text_block(node: object, depth: int) -> list[str]:
    return _paragraph(_children(node))


def _heading(node: object, depth: int) -> list[str]:
    level = _attrs(node).get("level")
    level = level if isinstance(level, int) and 1 <= level <= 6 else 1
    text = " ".join(_inline(_children(node)).replace("\\\n", " ").split())
    if text.endswith("#"):
        text = f"{text[:-1]}\\#"
    return [f"{'#' * level} {text}"] if text else []


def _quote(node: object, depth: int) -> list[str]:
    return _quoted("\n\n".join(_blocks(_children(node), depth)))


def _quoted(text: str) -> list[str]:
    return ["\n".join(f"> {line}".rstrip() for line in text.split("\n"))] if text else []


def _panel(node: object, depth: int) -> list[str]:
    """A panel as a quotation that says which kind it is."""
    kind = _attribute(_attrs(node), "panelType") or "info"
    inner = "\n\n".join(_blocks(_children(node), depth))
    return _quoted(f"**{_escape(kind.capitalize())}**\n\n{inner}") if inner else []


def _expand(node: object, depth: int) -> list[str]:
    title = _attribute(_attrs(node), "title")
    inner = _blocks(_children(node), depth)
    return [f"**{_escape(title.strip())}**", *inner] if title.strip() else inner


def _code(node: object, depth: int) -> list[str]:
    text = "".join(_plain(child, depth) for child in _children(node))
    language = re.sub(r"[^\w+#.-]", "", _attribute(_attrs(node), "language"))
    runs = [len(run) for run in re.findall(r"`+", text)]
    fence = "`" * max(3, *(run + 1 for run in runs), 3)
    return [f"{fence}{language}\n{text}\n{fence}"]


def _rule(node: object, depth: int) -> list[str]:
    return ["---"]


def _bullets(node: object, depth: int) -> list[str]:
    return _list([(_item(child, depth), "-") for child in _children(node)])


def _numbers(node: object, depth: int) -> list[str]:
    order = _attrs(node).get("order")
    first = order if isinstance(order, int) and 0 <= order < 10**8 else 1
    items = enumerate(_children(node), start=first)
    return _list([(_item(child, depth), f"{number}.") for number, child in items])


def _tasks(node: object, depth: int) -> list[str]:
    items = []
    for child in _children(node):
        done = _attribute(_attrs(child), "state").upper() in ("DONE", "DECIDED")
        box = f"[{'x' if done else ' '}]"
        nested = _type(child) in ("taskList", "decisionList")
        body = "\n".join(_tasks(child, depth + 1)) if nested and depth < _MAX_DEPTH else ""
        body = body or f"{box} {_item(child, depth)}".rstrip()
        items.append((body, "-"))
    return _list(items)


def _item(node: object, depth: int) -> str:
    blocks = _blocks(_children(node), depth)
    # Lists stand close to their item's text, other blocks apart from it.
    text = ""
    kinds = [_type(child) for child in _children(node)]
    for position, block in enumerate(blocks):
        tight = len(kinds) == len(blocks) and kinds[position].endswith("List")
        text += block if not text else ("\n" if tight else "\n\n") + block
    return text


def _list(items: Sequence[tuple[str, str]]) -> list[str]:
    lines = []
    for body, marker in items:
        first, *rest = body.split("\n")
        indent = " " * (len(marker) + 1)
        lines.append(f"{marker} {first}".rstrip())
        lines += [indent + line if line else "" for line in rest]
    return ["\n".join(lines)] if lines else []


def _table(node: object, depth: int) -> list[str]:
    rows = [
        [_cell(cell, depth) for cell in _children(row)]
        for row in _children(node)
        if _type(row) == "tableRow"
    ]
    width = max((len(row) for row in rows), default=0)
    if width == 0:
        return []
    first = _children(_children(node)[0])
    headed = bool(first) and all(_type(cell) == "tableHeader" for cell in first)
    if not headed:
        rows.insert(0, [])
    lines = [row + [""] * (width - len(row)) for row in rows]
    lines.insert(1, ["---"] * width)
    return ["\n".join(f"| {' | '.join(line)} |" for line in lines)]


def _cell(node: object, depth: int) -> str:
    text = "<br>".join(_blocks(_children(node), depth))
    text = re.sub(r"\\?\n+", "<br>", text)
    return re.sub(r"(?<!\\)\|", r"\\|", text)


def _media(node: object, depth: int) -> list[str]:
    found = [child for child in _children(node) if _type(child) == "media"] or [node]
    lines = []
    for media in found:
        attrs = _attrs(media)
        name = _attribute(attrs, "alt") or "attachment"
        lines.append(f"![{_escape(name)}]({_target(_attribute(attrs, 'url', 'id'))})")
    return ["\n".join(lines)]


def _card(node: object, depth: int) -> list[str]:
    url = _attribute(_attrs(node), "url")
    return [f"<{_target(url)}>"] if url else []


_BLOCKS: Final[Mapping[str, Callable[[object, int], list[str]]]] = {
    "paragraph": _text_block,
    "heading": _heading,
    "blockquote": _quote,
    "panel": _panel,
    "expand": _expand,
    "nestedExpand": _expand,
    "codeBlock": _code,
    "rule": _rule,
    "bulletList": _bullets,
    "orderedList": _numbers,
    "taskList": _tasks,
    "decisionList": _tasks,
    "table": _table,
    "mediaSingle": _media,
    "mediaGroup": _media,
    "media": _media,
    "blockCard": _card,
    "embedCard": _card,
}


def _inline(nodes: Sequence[object]) -> str:
    return "".join(_inline_node(node, 0) for node in nodes)


def _inline_node(node: object, depth: int) -> str:
    kind, attrs = _type(node), _attrs(node)
    if not isinstance(node, Mapping) or depth > _MAX_DEPTH:
        return ""
    if kind == "hardBreak":
        return "\\\n"
    if isinstance(node.get("text"), str):
        return _marked(node["text"], node.get("marks"))
    if isinstance(node.get("content"), list):
        return "".join(_inline_node(child, depth + 1) for child in node["content"])
    if kind == "inlineCard":
        url = _attribute(attrs, "url")
        return f"<{_target(url)}>" if url else ""
    if kind == "date":
        return _date(attrs.get("timestamp"))
    if kind == "emoji":
        return _escape(_attribute(attrs, "text", "shortName"))
    return _escape(_attribute(attrs, "text", "shortName", "url", "alt"))


def _marked(text: str, marks: object) -> str:
    kinds = {_type(mark): _attrs(mark) for mark in (marks if isinstance(marks, list) else ())}
    core = text.strip()
    if not core:
        return text
    left, right = text[: text.index(core[0])], text[len(text.rstrip()) :]
    href = _target(_attribute(kinds.get("link"), "href"))
    if href and core == href and len(kinds) == 1:
        return f"{left}<{href}>{right}"
    if "code" in kinds:
        longest = max((len(run) for run in re.findall(r"`+", core)), default=0)
        fence = "`" * (longest + 1)
        pad = " " if core.startswith("`") or core.endswith("`") else ""
        core = f"{fence}{pad}{core}{pad}{fence}"
    else:
        core = _escape(core).replace("\n", "\\\n")
        for kind, sign in reversed(_MARKS.items()):
            if kind in kinds:
                core = f"{sign}{core}{sign}"
    return f"{left}[{core}]({href}){right}" if href else left + core + right


def _escape(text: str) -> str:
    return _SPECIAL.sub(lambda match: "".join("\\" + c for c in match[0]), text)


def _target(url: str) -> str:
    """An address that ends where it should inside of brackets."""
    return re.sub(r"[\s<>()\\]", lambda match: f"%{ord(match[0]):02X}", url.strip())


def _date(timestamp: object) -> str:
    try:
        seconds = int(str(timestamp)) / 1000
        return datetime.fromtimestamp(seconds, UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return ""


def _has_blocks(node: object) -> bool:
    """Whether an unknown node holds others that are blocks, as layouts do."""
    return _type(node) == "doc" or any(
        _type(child) in _BLOCKS or (isinstance(child, Mapping) and _children(child))
        for child in _children(node)
    )


def _children(node: object) -> Sequence[Any]:
    content = node.get("content") if isinstance(node, Mapping) else None
    return content if isinstance(content, list) else ()


def _attrs(node: object) -> Mapping[str, Any]:
    attrs = node.get("attrs") if isinstance(node, Mapping) else None
    return attrs if isinstance(attrs, Mapping) else {}


def _type(node: object) -> str:
    kind = node.get("type") if isinstance(node, Mapping) else None
    return kind if isinstance(kind, str) else ""
