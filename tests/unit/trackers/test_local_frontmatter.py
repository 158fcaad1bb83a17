from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from symphony.trackers import local_frontmatter as fm

WHOLE = """---
# who wrote it
id: A-1
title:   'Single: quoted'   # a remark
labels:
- one
- two   # last

# about the state
state: Todo
custom: {deep: [1, 2]}
note: |
  first
  second
priority: 010
---
body stays

---
also this
"""


def values(text: str) -> dict[str, fm.FieldValue]:
    return {key: field.value for key, field in fm.split_front_matter(text).fields.items()}


def test_scalars_keep_the_text_that_was_written() -> None:
    found = values(WHOLE)
    assert found["priority"] == "010"
    assert found["title"] == "Single: quoted"
    assert found["labels"] == ("one", "two")
    assert found["custom"] is fm.Unusable.NESTED
    assert values("---\nstate: On\nlabels: [no, yes]\nat: 2026-01-02\n---\n") == {
        "state": "On",
        "labels": ("no", "yes"),
        "at": "2026-01-02",
    }


def test_lines_are_counted_in_the_file() -> None:
    assert fm.split_front_matter(WHOLE).fields["state"].line == 10


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("id: A-1\n", 1, "must begin with a line `---`"),
        ("", 1, "must begin with a line `---`"),
        ("---\nid: A-1\n", 1, "no closing line `---`"),
        ("---\nid: A-1\nid: A-2\n---\n", 3, "`id` stands twice, first in line 2"),
        ("---\nid: A-1\ntitle: a: b\n---\n", 3, "not valid YAML"),
        ("---\nid: [A-1\n---\n", 3, "not valid YAML"),
        ("---\n- a\n- b\n---\n", 2, "must be a mapping"),
        ("---\n? [a]\n: b\n---\n", 2, "a key must be a plain word"),
    ],
)
def test_unreadable_front_matter_names_the_line(text: str, line: int, words: str) -> None:
    with pytest.raises(fm.FrontMatterError, match="line") as caught:
        fm.split_front_matter(text)
    assert words in caught.value.problem
    assert abs(caught.value.line - line) <= 1


def test_an_edit_changes_nothing_but_its_key() -> None:
    assert fm.edit_front_matter(WHOLE, {"state": "Done"}) == WHOLE.replace("Todo", "Done")
    changed = fm.edit_front_matter(WHOLE, {"title": "x: y", "labels": ["a"]})
    assert changed == WHOLE.replace("  'Single: quoted'", '"x: y"').replace(
        "title:", "title: "
    ).replace("title:  ", "title: ").replace("labels:\n- one\n- two", "labels: [a]")


def test_a_literal_block_is_replaced_whole_and_the_next_key_stays() -> None:
    changed = fm.edit_front_matter(WHOLE, {"note": "short"})
    assert changed == WHOLE.replace("|\n  first\n  second\n", "short\n")


def test_a_key_is_taken_out_with_its_lines() -> None:
    changed = fm.edit_front_matter(WHOLE, {"labels": None})
    assert changed == WHOLE.replace("labels:\n- one\n- two   # last\n", "")


def test_an_absent_key_is_put_behind_its_usual_predecessor() -> None:
    text = "---\nid: A\ntitle: T\nzzz: 1\n---\n"
    changed = fm.edit_front_matter(text, {"state": "Todo"}, order=("id", "title", "state"))
    assert changed == "---\nid: A\ntitle: T\nstate: Todo\nzzz: 1\n---\n"
    changed = fm.edit_front_matter("---\n---\n", {"state": "Todo"}, order=("state",))
    assert changed == "---\nstate: Todo\n---\n"


def test_windows_line_endings_are_kept() -> None:
    text = "---\r\nid: A\r\nstate: Todo\r\n---\r\nbody\r\n"
    changed = fm.edit_front_matter(text, {"state": "Done", "assignee": "eve"}, order=("id",))
    assert changed == "---\r\nid: A\r\nstate: Done\r\nassignee: eve\r\n---\r\nbody\r\n"


def test_front_matter_in_braces_is_read_and_refused_for_edits() -> None:
    text = "---\n{id: A, state: Todo}\n---\n"
    assert values(text) == {"id": "A", "state": "Todo"}
    with pytest.raises(fm.FrontMatterError, match="one key a line"):
        fm.edit_front_matter(text, {"state": "Done"})


@settings(deadline=None)
@given(st.text(max_size=60))
@example("null")
@example("-1")
@example("\x85\u2028\U0001f600")
@example("a: b # c")
@example("---")
@example('"quoted"')
@example("[a, b]")
def test_every_text_reads_back_as_it_was_written(text: str) -> None:
    document = fm.edit_front_matter("---\nid: A\n---\n", {"title": text, "labels": [text, "b"]})
    assert values(document) == {"id": "A", "title": text, "labels": (text, "b")}


ODD = st.sampled_from(list("abZ019 :#-[]{},&*!|>'\"%@`~?.\\\t_=/+\u00e9\u0085"))


@settings(deadline=None)
@given(st.lists(st.text(ODD, max_size=14), min_size=1, max_size=4))
def test_the_quick_way_reads_what_the_yaml_parser_reads(raw: list[str]) -> None:
    block = "".join(f"k{i}: {value}\n" for i, value in enumerate(raw))
    quick = fm._read_plain(block)
    if quick is not None:
        assert quick == fm._read_yaml(block)


def test_brackets_without_end_are_refused_before_the_parser_is_busy_with_them() -> None:
    deep = "[" * 4_000
    for block in (f"title: t\n{deep}", f"? {deep}'*a", "{a: " * 60 + "1", deep + "- x\n&a "):
        with pytest.raises(fm.FrontMatterError, match="more than 50 brackets are open"):
            fm.split_front_matter(f"---\n{block}\n---\n")
    nested = "[" * 50 + "]" * 50
    assert "labels" in fm.split_front_matter(f"---\nlabels: {nested}\n---\n").fields


def test_an_anchor_that_comes_twice_is_no_warning() -> None:
    found = fm.split_front_matter("---\na: &x 1\nb: &x 2\nc: *x\n---\n")
    assert set(found.fields) == {"a", "b", "c"}
