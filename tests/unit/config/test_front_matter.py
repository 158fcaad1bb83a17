from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symphony.config.front_matter import Document, parse_front_matter, split_document
from symphony.errors import WorkflowFileError


@pytest.mark.parametrize(
    ("text", "document"),
    [
        ("", Document(None, "", 1)),
        ("\n\n Do it. \n", Document(None, "Do it.", 3)),
        ("---\na: 1\n---\nDo it.\n", Document("a: 1", "Do it.", 4)),
        ("---\n---\n\n\nDo it.", Document("", "Do it.", 5)),
        ("---\r\na: 1\r\n---\r\nDo\r\nit.", Document("a: 1", "Do\nit.", 4)),
        ("---\u2028a: 1\x85---\x0bDo it.", Document("a: 1", "Do it.", 4)),
        ("--- \na: 1\n---\t\nDo it.", Document("a: 1", "Do it.", 4)),
        ("---\na: 1", Document("a: 1", "", 2, terminated=False)),
        ("---", Document("", "", 1, terminated=False)),
        (" ---\na: 1\n---\nx", Document(None, "---\na: 1\n---\nx", 1)),
        ("----\na: 1\n---\nx", Document(None, "----\na: 1\n---\nx", 1)),
        ("Do it.\n---\nb\n---", Document(None, "Do it.\n---\nb\n---", 1)),
        ("---\na: 1\n---\nx\n---\ny", Document("a: 1", "x\n---\ny", 4)),
    ],
)
def test_a_text_is_split_at_its_fences(text: str, document: Document) -> None:
    assert split_document(text) == document


def parse(text: str) -> dict[str, object]:
    return dict(parse_front_matter(text, source="W").values)


@pytest.mark.parametrize(
    ("yaml", "value"),
    [
        ("On", "On"),
        ("no", "no"),
        ("yes", "yes"),
        ("off", "off"),
        ("y", "y"),
        ("1:30", "1:30"),
        ("12:30:45", "12:30:45"),
        ("2026-01-02", "2026-01-02"),
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
        ("2026-13-45", "2026-13-45"),
        ("=", "="),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("-5", -5),
        ("1e3", 1000.0),
        (".inf", float("inf")),
        ("true", True),
        ("False", False),
        ("'true'", "true"),
        ('"5"', "5"),
        ("!!str 5", "5"),
        ("[On, no, 1:30]", ["On", "no", "1:30"]),
        ("|\n  echo $A\n  exit 1\n", "echo $A\nexit 1\n"),
    ],
)
def test_values_are_read_as_yaml_1_2(yaml: str, value: object) -> None:
    assert parse(f"a: {yaml}") == {"a": value}


def test_a_directive_does_not_bring_yaml_1_1_back() -> None:
    assert parse("%YAML 1.1\n--- \na: no\nb: On") == {"a": "no", "b": "On"}


def test_keys_are_text_and_null_entries_are_absent_at_every_depth() -> None:
    assert parse("1: a\ntrue: b\non: c\nx: {y: null, z: {q: ~, r: 1}}\nempty:\ntext: ''") == {
        "1": "a",
        "true": "b",
        "on": "c",
        "x": {"z": {"r": 1}},
        "text": "",
    }


def test_anchors_aliases_and_merges_work_and_own_keys_win() -> None:
    text = "base: &b {x: 1, y: 2}\nlist: [*b]\nown:\n  <<: *b\n  y: 3\nboth: {<<: [{x: 9}, *b]}"
    assert parse(text) == {
        "base": {"x": 1, "y": 2},
        "list": [{"x": 1, "y": 2}],
        "own": {"x": 1, "y": 3},
        "both": {"x": 9, "y": 2},
    }


@pytest.mark.parametrize("text", ["", "\n", "# only a comment", "null", "~"])
def test_blank_front_matter_is_an_empty_map(text: str) -> None:
    assert parse(text) == {}


@pytest.mark.parametrize("text", ["- a\n- b", "text", "5", "[a]"])
def test_front_matter_that_is_no_map_is_refused(text: str) -> None:
    with pytest.raises(WorkflowFileError, match="must be a map") as caught:
        parse(text)
    assert caught.value.category == "workflow_front_matter_not_a_map"


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("a: b: c", "W: line 2: mapping values are not allowed here"),
        ("a: 1\nb:\n\t- x", "line 4: found character"),
        ("a: [1,\nb: 2", "line 3: "),
        ("a: 1\nb: {x: 1,\n  x: 2}", "line 4: duplicate key 'b.x', first on line 3"),
        ("a: 1\na: 2", "line 3: duplicate key 'a', first on line 2"),
        ("a: *nowhere", "line 2: found undefined alias 'nowhere'"),
        ("a: &x [*x]", "line 2: an alias contains itself"),
        ("a: !!python/object:os.system x", "line 2: the tag"),
        ("a: !!set {x}", "line 2: the tag"),
        ("? [1, 2]\n: x", "line 2: a key must be plain text"),
        ("a: 1\nb: !!int x", "line 3: a value is not a YAML int"),
        ("a: 1\nb: \x01", "line 3: the character U+0001 is not allowed"),
        ("a: 1\n...\nb", "line 4: "),
        ("<<: 5", "line 2: '<<' must name a map"),
        ("a: " + "[" * 100_000, "line 2: is nested too deeply: more than 64 levels"),
        ("x: 1\na: " + "{b: " * 500 + "}" * 500, "line 3: is nested too deeply"),
        ("\n".join("  " * depth + "a:" for depth in range(3000)), "line 66: is nested too deeply"),
        ("a:\n" + "- " * 5000 + "x", "line 3: is nested too deeply"),
        ("a: [" + "1," * 50_000 + "]", "line 2: there are more than 5000 values and marks"),
    ],
)
def test_text_that_is_no_yaml_is_refused_with_its_line(yaml: str, message: str) -> None:
    with pytest.raises(WorkflowFileError) as caught:
        parse(yaml)
    assert message in caught.value.message
    assert caught.value.category == "workflow_parse_error"


@pytest.mark.parametrize(
    "yaml", ["api_key: s3cr3t\napi_key: s3cr3t2", "api_key: !!int s3cr3t", "api_key: s3cr3t: x"]
)
def test_a_parse_error_does_not_quote_values(yaml: str) -> None:
    with pytest.raises(WorkflowFileError) as caught:
        parse(yaml)
    assert "s3cr3t" not in caught.value.message


def aliased(levels: int) -> str:
    doubled = [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, levels)]
    return "\n".join(["a0: &a0 [x, x]", *doubled])


def test_aliases_that_stand_for_a_multitude_are_refused() -> None:
    assert len(parse(aliased(12))) == 12
    with pytest.raises(WorkflowFileError, match="its aliases stand for more than 100000 values"):
        parse(aliased(40))


def test_depth_and_size_that_people_write_are_fine() -> None:
    inner: Any = parse("a: " + "{b: " * 60 + "1" + "}" * 60)["a"]
    for _ in range(60):
        inner = inner["b"]
    assert inner == 1
    assert len(parse("a:\n" + "- x\n" * 1000)["a"]) == 1000
    script = "a: |\n" + "  [[[[ {{{{ - - - -\n" * 5000
    assert parse(script)["a"].count("[") == 20_000


def test_each_key_knows_its_line() -> None:
    front = parse_front_matter("a: 1\nb:\n  c:\n    - x\n  d: 2", source="W")
    assert front.line_of(("b", "d")) == 6
    assert front.line_of(("b", "c", "0")) == 4
    assert front.line_of(("b", "nowhere")) == 3
    assert front.line_of(("nowhere",)) is None


@settings(deadline=None)
@given(st.text())
def test_splitting_never_fails_and_loses_no_text(text: str) -> None:
    document = split_document(text)
    assert document.body == document.body.strip()
    if document.front_matter is None:
        assert "".join(document.body.split()) == "".join(text.split())
    assert 1 <= document.body_line <= text.count("\n") + len(text) + 1


yaml_like = st.text(st.sampled_from("ab:-? \n#'\"[]{}&*!|>%@~<1.,$\t\0é"), max_size=60)


def category_of(text: str) -> str:
    try:
        values = parse_front_matter(text, source="W").values
    except WorkflowFileError as error:
        return error.category
    return "fine" if all(isinstance(key, str) for key in values) else "a key is no text"


@settings(deadline=None)
@given(st.one_of(yaml_like, st.text()))
def test_parsing_yields_a_map_or_a_workflow_error(text: str) -> None:
    known = ("fine", "workflow_parse_error", "workflow_front_matter_not_a_map")
    assert category_of(text) in known


@settings(deadline=None)
@given(st.lists(st.text(st.characters(categories=["L", "N", "P"])), min_size=1), st.text())
def test_the_body_is_what_follows_the_closing_fence(front: list[str], body: str) -> None:
    kept = [line for line in front if line.rstrip(" \t") != "---"]
    document = split_document("\n".join(["---", *kept, "---"]) + "\n" + body)
    assert document.front_matter == "\n".join(kept)
    assert "".join(document.body.split()) == "".join(body.split())
