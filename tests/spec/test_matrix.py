"""Every line of the specification's test matrix has its tests and a mutation that they notice."""

from __future__ import annotations

import pytest

from .matrix import BULLETS, PAGE, ROOT, Line, counts, names_of_tests, page, read_lines

LINES = read_lines()
every_line = pytest.mark.parametrize("line", LINES, ids=[f"{x.section} {x.says}" for x in LINES])


def test_the_list_has_every_leaf_of_the_specifications_list() -> None:
    assert counts() == BULLETS


def test_no_line_is_there_twice() -> None:
    texts = [line.says for line in LINES]
    assert sorted(texts) == sorted(set(texts))


@every_line
def test_a_line_names_tests_that_exist(line: Line) -> None:
    assert line.says
    assert line.tests, "name the tests that show this line"
    for test in line.tests:
        path, _, name = test.partition("::")
        assert (ROOT / path).is_file(), f"there is no file {path}"
        assert name in names_of_tests(ROOT / path), f"{path} has no test {name}"


@every_line
def test_a_line_has_a_mutation_that_can_be_made(line: Line) -> None:
    assert line.change, "say in words what the mutation changes"
    assert line.file.startswith(("src/", "client/src/", "docs/")), "a mutation changes our code"
    assert line.old != line.new
    text = (ROOT / line.file).read_text(encoding="utf-8")
    assert line.old, "a mutation replaces a text"
    assert text.count(line.old) == 1, f"{line.file} must hold this text exactly once: {line.old}"


def test_the_page_is_made_from_the_list() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python tests/spec/matrix.py"
