from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symphony.trackers.jira_adf import to_markdown, to_text
from symphony.trackers.jira_markdown import from_markdown


def text(value: str, *marks: Any) -> dict[str, Any]:
    node: dict[str, Any] = {"type": "text", "text": value}
    if marks:
        node["marks"] = [m if isinstance(m, dict) else {"type": m} for m in marks]
    return node


def paragraph(*nodes: Any) -> dict[str, Any]:
    return {"type": "paragraph", "content": list(nodes)}


def doc(*nodes: Any) -> dict[str, Any]:
    return {"type": "doc", "version": 1, "content": list(nodes)}


def test_text_is_flattened_as_the_reference_does() -> None:
    mention = {"type": "mention", "attrs": {"id": "1", "text": "@Mia"}}
    emoji = {"type": "emoji", "attrs": {"shortName": ":smile:"}}
    status = {"type": "status", "attrs": {"text": "DONE", "color": "green"}}
    card = {"type": "inlineCard", "attrs": {"url": "https://x.example"}}
    panel = {"type": "panel", "attrs": {"panelType": "info"}, "content": [paragraph(text("note"))]}
    heading = {"type": "heading", "attrs": {"level": 1}, "content": [text("Title")]}
    item = {"type": "listItem", "content": [paragraph(text("one"))]}
    document = doc(
        heading,
        paragraph(mention, text(" "), emoji, status, {"type": "hardBreak"}, card),
        {"type": "bulletList", "content": [item]},
        panel,
    )
    assert to_text(document) == "Title\n@Mia :smile:DONE\nhttps://x.example\none\nnote\n"


MARKDOWN = """# Title

Text with **bold**, *italic*, `code`, ~~old~~ and a [link](https://x.example/a?b=c).

## Steps

1. one
2. two
   - deeper
     - still
3. three

> quoted
>
> twice

```python
def f(): return "*"
```

---

| A | B |
| --- | --- |
| 1 | `x` |

- [ ] open
- [x] done"""


def test_markdown_survives_the_way_to_adf_and_back() -> None:
    document = from_markdown(MARKDOWN)
    assert to_markdown(document) == MARKDOWN
    assert [node["type"] for node in document["content"]] == [
        "heading",
        "paragraph",
        "heading",
        "orderedList",
        "blockquote",
        "codeBlock",
        "rule",
        "table",
        "taskList",
    ]


@pytest.mark.parametrize(
    ("node", "markdown"),
    [
        (
            {"type": "panel", "attrs": {"panelType": "warning"}, "content": [paragraph(text("x"))]},
            "> **Warning**\n>\n> x",
        ),
        (
            {"type": "expand", "attrs": {"title": "More"}, "content": [paragraph(text("x"))]},
            "**More**\n\nx",
        ),
        (paragraph({"type": "mention", "attrs": {"text": "@Mia"}}), "@Mia"),
        (paragraph({"type": "emoji", "attrs": {"shortName": ":+1:"}}), ":+1:"),
        (paragraph({"type": "date", "attrs": {"timestamp": "1767225600000"}}), "2026-01-01"),
        (
            paragraph({"type": "inlineCard", "attrs": {"url": "https://x.example"}}),
            "<https://x.example>",
        ),
        (
            {
                "type": "mediaSingle",
                "content": [{"type": "media", "attrs": {"id": "7", "alt": "a"}}],
            },
            "![a](7)",
        ),
        (paragraph(text("# no heading")), "\\# no heading"),
        (paragraph(text("- no item")), "\\- no item"),
        (paragraph(text("1. no item")), "1\\. no item"),
        (paragraph(text("a *b* [c] `d`")), "a \\*b\\* \\[c\\] \\`d\\`"),
        (paragraph(text("snake_case_name")), "snake_case_name"),
        (paragraph(text("bold ", "strong"), text("x")), "**bold** x"),
        ({"type": "someday", "content": [paragraph(text("inner"))]}, "inner"),
        ({"type": "someday", "attrs": {"text": "kept"}}, "kept"),
    ],
)
def test_a_node_becomes_markdown(node: Any, markdown: str) -> None:
    assert to_markdown(doc(node)) == markdown


@pytest.mark.parametrize(
    ("markdown", "nodes"),
    [
        ("a\nb", [text("a b")]),
        ("a  \nb", [text("a"), {"type": "hardBreak"}, text("b")]),
        ("***x***", [text("x", "strong", "em")]),
        ("2 * 3 * 4", [text("2 * 3 * 4")]),
        ("a_b_c and __x__", [text("a_b_c and "), text("x", "strong")]),
        ("**`x`**", [text("x", "code")]),
        ("**open", [text("**open")]),
        ("[a](javascript:alert)", [text("[a](javascript:alert)")]),
        (
            "see https://x.example/a.",
            [
                text("see "),
                text(
                    "https://x.example/a",
                    {"type": "link", "attrs": {"href": "https://x.example/a"}},
                ),
                text("."),
            ],
        ),
        ("`` a`b ``", [text("a`b", "code")]),
    ],
)
def test_inline_markdown_becomes_nodes(markdown: str, nodes: list[Any]) -> None:
    assert from_markdown(markdown) == doc(paragraph(*nodes))


def test_list_items_hold_only_what_adf_allows_there() -> None:
    (found,) = from_markdown("- # head\n- > quote\n- | a |\n  | - |\n-")["content"]
    kinds = [[block["type"] for block in item["content"]] for item in found["content"]]
    assert all(set(kind) <= {"paragraph", "bulletList", "codeBlock"} for kind in kinds)
    assert all(kind[0] == "paragraph" for kind in kinds)


WORDS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1)
PLAIN = WORDS.filter(lambda t: "http" not in t and "<br>" not in t)
MARKS = st.lists(st.sampled_from(["strong", "em", "strike"]), unique=True, max_size=2)


@st.composite
def paragraphs(draw: st.DrawFn) -> dict[str, Any]:
    """Marked words with plain ones between, so that no two signs touch."""
    nodes: list[Any] = [text("x " + draw(PLAIN) + " ")]
    for _ in range(draw(st.integers(0, 3))):
        marks = [m for m in ("strong", "em", "strike") if m in draw(MARKS)]
        marked = draw(st.text(st.sampled_from("abc é"), min_size=1)).strip() or "a"
        if marks:
            nodes += [text(marked, *marks), text(" " + draw(PLAIN) + " y ")]
    nodes[-1]["text"] = nodes[-1]["text"].rstrip() + " z"
    return paragraph(*nodes)


@settings(deadline=None, max_examples=150)
@given(st.lists(paragraphs(), min_size=1, max_size=3))
def test_documents_survive_the_way_to_markdown_and_back(content: list[Any]) -> None:
    item = {"type": "listItem", "content": content[:1]}
    quote = {"type": "blockquote", "content": content}
    document = doc(*content, {"type": "bulletList", "content": [item, item]}, quote)
    assert from_markdown(to_markdown(document)) == document


KINDS = [
    "doc",
    "paragraph",
    "heading",
    "bulletList",
    "orderedList",
    "listItem",
    "table",
    "tableRow",
    "tableCell",
    "taskList",
    "taskItem",
    "codeBlock",
    "panel",
    "media",
    "text",
    "date",
    "x",
]
JSON = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from(KINDS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "content",
                    "attrs",
                    "marks",
                    "text",
                    "url",
                    "level",
                    "order",
                    "timestamp",
                    "state",
                    "href",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@settings(deadline=None, max_examples=200)
@given(JSON)
def test_any_json_gives_text(document: Any) -> None:
    assert isinstance(to_text(document), str)
    assert isinstance(to_markdown(document), str)


@settings(deadline=None, max_examples=200)
@given(st.text(st.sampled_from("ab*_~`[]()<>#-+|>1. \n\\!:/xhtps"), max_size=60))
def test_any_markdown_gives_a_document_without_empty_texts(markdown: str) -> None:
    pending: list[Any] = [from_markdown(markdown)]
    while pending:
        node = pending.pop()
        assert node["type"] != "text" or node["text"]
        pending += node.get("content", [])
    to_markdown(from_markdown(markdown))


def effort_of(text: str) -> int:
    """Return how many calls a text makes, those of C included.

    The loops over single characters call ``len`` each time, so they are counted as well.
    """
    effort = 0

    def count(frame: FrameType, event: str, called: object) -> None:
        nonlocal effort
        if event in ("call", "c_call"):
            effort += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        to_markdown(from_markdown(text))
    finally:
        sys.setprofile(before)
    return effort


@pytest.mark.parametrize(
    "unit",
    [
        "*a ",
        "[",
        "`a``",
        "**a",
        "> ",
        "- ",
        "_a_ ",
        "[a](",
        "![x",
        "~~a ",
        "\\",
        "|a",
        "[a](b",
        "1. ",
        "[a](https://x) ",
        "<http://",
        "* a\n",
        "``a `",
    ],
)
def test_the_work_for_hostile_markdown_grows_with_its_length(unit: str) -> None:
    """Four times the text makes at most five times the work; a square would make it sixteen."""
    short, long = (unit * (size // len(unit)) + "](https://x)" for size in (3_000, 12_000))
    effort_of(short)  # what is made once is made now
    assert effort_of(long) <= 5 * effort_of(short)


def test_a_document_nested_without_end_is_cut() -> None:
    node: dict[str, Any] = text("deep")
    for _ in range(5_000):
        node = {"type": "blockquote", "content": [node]}
    assert to_text(node).strip() == ""
    assert "deep" not in to_markdown(node)
