"""The rules of the house that a reader could break without noticing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (ROOT / "src" / "symphony", ROOT / "client" / "src" / "codex_app_server")
GENERATED = frozenset({ROOT / "client/src/codex_app_server/protocol/types.py"})
MODULE_LIMIT = 600
FUNCTION_LIMIT = 60
POSITIONAL_LIMIT = 5


def modules() -> list[Path]:
    return sorted(
        path for source in SOURCES for path in source.rglob("*.py") if path not in GENERATED
    )


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_both_packages_are_found() -> None:
    assert len(modules()) > 20
    assert all(any(source in path.parents for path in modules()) for source in SOURCES)


def test_no_module_outgrows_its_limit() -> None:
    sizes = {relative(path): len(path.read_text("utf-8").splitlines()) for path in modules()}
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:10]
    print("\n".join(f"{lines:5} {name}" for name, lines in largest))
    assert {name: lines for name, lines in sizes.items() if lines > MODULE_LIMIT} == {}


def test_no_function_outgrows_its_limit() -> None:
    long = {
        f"{relative(path)}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in modules()
        for node in functions(path)
        if (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LIMIT
    }
    assert long == {}


def test_functions_take_few_positional_parameters() -> None:
    wide = {
        f"{relative(path)}:{node.name}": len(node.args.posonlyargs) + len(node.args.args)
        for path in modules()
        for node in functions(path)
        if len(node.args.posonlyargs) + len(node.args.args) > POSITIONAL_LIMIT
    }
    assert wide == {}


def test_each_module_opens_with_a_docstring() -> None:
    bare = [relative(path) for path in modules() if not ast.get_docstring(_tree(path))]
    assert bare == []


def test_nothing_is_left_unfinished() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")
    found = [
        f"{relative(path)}:{number}"
        for path in modules()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if marks.search(line)
    ]
    assert found == []


def test_code_has_no_entrances_for_tests() -> None:
    names = [
        f"{relative(path)}:{node.name}"
        for path in modules()
        for node in functions(path)
        if "for_test" in node.name
    ]
    assert names == []


def test_tests_wait_on_conditions_and_never_sleep() -> None:
    """A fixed sleep is a race; only conftest's bounded polling helpers may pause."""
    sleeping = [
        f"{relative(path)}:{node.lineno}"
        for folder in (ROOT / "tests", ROOT / "client" / "tests")
        for path in sorted(folder.rglob("test_*.py"))
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Call)
        and _called(node) in {"time.sleep", "asyncio.sleep", "sleep"}
        and not _yields_only(node)
    ]
    assert sleeping == []


def test_no_path_of_a_machine_is_in_the_sources() -> None:
    homes = re.compile(r"/(?:home|Users)/[a-z]+/")
    found = [relative(path) for path in modules() if homes.search(path.read_text("utf-8"))]
    assert found == []


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def _yields_only(node: ast.Call) -> bool:
    """``sleep(0)`` gives way to other tasks and waits for no time."""
    return bool(node.args) and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0
