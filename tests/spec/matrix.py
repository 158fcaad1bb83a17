"""The list of the test matrix, read; and its page, written.

``python tests/spec/matrix.py`` writes docs/spec-matrix.md anew.
"""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LIST = Path(__file__).with_name("matrix.toml")
PAGE = ROOT / "docs" / "spec-matrix.md"

BULLETS = {"17.1": 16, "17.2": 12, "17.3": 12, "17.4": 15, "17.5": 21, "17.6": 6, "17.7": 6}
"""How many leaves the specification's list has in each section."""

TITLES = {
    "17.1": "Workflow and configuration",
    "17.2": "Workspaces and their safety",
    "17.3": "Tracker adapters",
    "17.4": "Dispatch, reconciliation, retries",
    "17.5": "App-server client",
    "17.6": "Observability",
    "17.7": "Command line and lifecycle",
}

_HEAD = """\
# The specification's test matrix

Each line of sections 17.1 to 17.7 of SPEC.md in our words, the tests that show it, and a change of
our code that makes the first of them fail. The page is made from `tests/spec/matrix.toml` by
`python tests/spec/matrix.py`; `tests/spec/test_matrix.py` fails when a line names no test, a test
that is gone, or a change that can't be made any more. `python tests/spec/mutate.py` makes each
change in a copy of the repository and expects that. Changes with a ✓ have been made.
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One leaf of the list.

    Attributes:
        tests: As ``path::test`` or ``path::Class::test``, parameters left out; the mutation makes
            the first one fail.
        file: The file that the mutation changes.
        old: Text that occurs there once.
        new: What takes its place.
        change: The mutation in words.
        executed: The mutation was made and the first test failed.
    """

    section: str
    says: str
    tests: tuple[str, ...]
    file: str
    old: str
    new: str
    change: str
    executed: bool


def read_lines() -> list[Line]:
    """Return the list; what is absent is empty, for the tests to find."""
    with LIST.open("rb") as file:
        return [_line(entry) for entry in tomllib.load(file)["line"]]


def _line(entry: Mapping[str, Any]) -> Line:
    mutation = entry.get("mutation", {})
    return Line(
        section=entry.get("section", ""),
        says=entry.get("says", ""),
        tests=tuple(entry.get("tests", ())),
        file=mutation.get("file", ""),
        old=mutation.get("old", ""),
        new=mutation.get("new", ""),
        change=mutation.get("change", ""),
        executed=mutation.get("executed", False),
    )


def names_of_tests(path: Path) -> set[str]:
    """Return the names of a file's tests, those of classes as ``Class::test``."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        inner = [(f"{node.name}::", node.body)] if isinstance(node, ast.ClassDef) else []
        for prefix, body in inner or [("", [node])]:
            found.update(
                prefix + one.name
                for one in body
                if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
                and one.name.startswith("test_")
            )
    return found


def page() -> str:
    """Return the page of the documentation."""
    lines = read_lines()
    parts = [_HEAD]
    for section, title in TITLES.items():
        parts.append(
            f"\n## {section} {title}\n\n| What | Shown by | Fails when |\n| --- | --- | --- |\n"
        )
        for line in lines:
            if line.section == section:
                tests = "<br>".join(_cell(test) for test in line.tests)
                mark = " ✓" if line.executed else ""
                change = f"{line.change} (`{Path(line.file).name}`){mark}"
                parts.append(f"| {line.says} | {tests} | {change} |\n")
    return "".join(parts)


def _cell(test: str) -> str:
    path, _, name = test.partition("::")
    return f"`{Path(path).name}` {name.rpartition('::')[2].removeprefix('test_').replace('_', ' ')}"


def counts() -> Counter[str]:
    """Return how many lines each section has."""
    return Counter(line.section for line in read_lines())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
