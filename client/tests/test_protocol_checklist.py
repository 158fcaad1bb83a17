"""Every item of ``protocol_checklist.toml`` has tests, and they exist."""

from __future__ import annotations

import ast
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ITEMS: list[dict[str, Any]] = tomllib.loads(
    (HERE / "protocol_checklist.toml").read_text(encoding="utf-8")
)["item"]
every_item = pytest.mark.parametrize("item", ITEMS, ids=[str(one["number"]) for one in ITEMS])


@cache
def known_tests(name: str) -> dict[str, str]:
    """Return the tests of a file: name -> where it asks a real binary, ``codex``; else nothing."""
    tree = ast.parse((HERE / name).read_text(encoding="utf-8"))
    marks = [
        ast.unparse(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
    ]
    return {
        node.name: "codex" if _is_real(node, marks) else ""
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    }


def _is_real(node: ast.FunctionDef | ast.AsyncFunctionDef, marks: list[str]) -> bool:
    marked = [*marks, *(ast.unparse(decorator) for decorator in node.decorator_list)]
    asks = {argument.arg for argument in node.args.args}
    return any("pytest.mark.codex" in mark for mark in marked) or "peer" in asks


def test_the_list_has_its_28_items_once() -> None:
    assert [item["number"] for item in ITEMS] == list(range(1, 29))
    assert len({item["says"] for item in ITEMS}) == 28


@every_item
def test_an_item_names_tests_that_exist(item: dict[str, Any]) -> None:
    assert item.keys() <= {"number", "says", "real", "tests"}
    assert item["tests"], "name the tests that show this item"
    kinds = set()
    for test in item["tests"]:
        path, _, name = test.partition("::")
        assert path.startswith("tests/"), f"{path}: paths are those of client/"
        assert (HERE.parent / path).is_file(), f"there is no file {path}"
        found = known_tests(path.removeprefix("tests/"))
        assert name in found, f"{path} has no test {name}"
        kinds.add(found[name])
    assert ("codex" in kinds) == item.get("real", False)


def test_a_test_is_named_once_for_an_item() -> None:
    for item in ITEMS:
        assert len(set(item["tests"])) == len(item["tests"]), item["number"]
