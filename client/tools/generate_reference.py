"""Generates the client's API reference, ``docs/client/reference.md``, from its docstrings.

    python client/tools/generate_reference.py [--check]

Each public module (those in MODULES) gives the names of its ``__all__`` with signatures and
docstrings; a name that another public module also exports is written once, where it is defined.
Nothing of the machine goes into the result.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parents[2] / "docs/client/reference.md"
PACKAGE = "codex_app_server"
MODULES = (
    "launch",
    "launch_plan",
    "session",
    "session_options",
    "messages",
    "unattended",
    "connection",
    "opening",
    "handshake",
    "threads",
    "thread_options",
    "turns",
    "turn_result",
    "events",
    "approvals",
    "broker",
    "tools",
    "supervisor",
    "api",
    "subscriptions",
    "accounts",
    "extras",
    "subagents",
    "versions",
    "protocol.requests",
    "protocol.turn",
    "transport",
    "process",
    "descriptors",
    "websocket",
    "exec",
    "exec_run",
    "testing",
    "scripted",
    "recording",
    "home",
    "binary",
    "environment",
    "errors",
)
SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields):\s*$")
ENTRY = re.compile(r"^    (\S[^:]*): (.*)$")
HEAD = """# API reference

Generated from the docstrings by `client/tools/generate_reference.py`; do not edit. Everything that
`codex_app_server` itself exports is here under the module that defines it. The structs that events
and requests decode to are in `codex_app_server.protocol.types`, generated from the schema of the
server and not repeated here.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the file is not current")
    text = render()
    if parser.parse_args().check:
        current = TARGET.read_text("utf-8") if TARGET.exists() else ""
        if current != text:
            print(f"{TARGET.name} is not current: run {Path(__file__).name}", file=sys.stderr)
        return int(current != text)
    TARGET.write_text(text, "utf-8")
    return 0


def render() -> str:
    """Return the whole page."""
    lines = [HEAD]
    for short in MODULES:
        module = importlib.import_module(f"{PACKAGE}.{short}")
        lines += [f"## `{PACKAGE}.{short}`", "", *markdown(inspect.getdoc(module) or ""), ""]
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if getattr(value, "__module__", module.__name__) == module.__name__:
                lines += entry(name, value)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def entry(name: str, value: Any) -> Iterator[str]:
    """Yield the lines of one public name."""
    if not inspect.isclass(value) and not callable(value):
        return
    yield f"### `{name}`"
    yield ""
    if inspect.isclass(value):
        bases = [base.__name__ for base in value.__bases__ if base is not object]
        yield f"Class, {', '.join(f'`{base}`' for base in bases)}." if bases else "Class."
        yield ""
        yield from markdown((value.__doc__ and inspect.getdoc(value)) or "")
        yield ""
        for member, what in vars(value).items():
            yield from method(member, what)
    elif not inspect.isroutine(value):
        return
    else:
        yield from signature(name, value)
        yield from markdown(inspect.getdoc(value) or "")
        yield ""


def method(name: str, value: Any) -> Iterator[str]:
    """Yield the lines of a class's member; members without a docstring are left out."""
    function = getattr(value, "__func__", getattr(value, "fget", getattr(value, "func", value)))
    if name.startswith("_") or not inspect.isfunction(function) or not function.__doc__:
        return
    if function is not value and not isinstance(value, classmethod | staticmethod):
        yield f"#### `{name}` (property)"
        yield ""
    else:
        yield f"#### `{name}`"
        yield ""
        yield from signature(name, function)
    yield from markdown(inspect.getdoc(function) or "")
    yield ""


def signature(name: str, function: Any) -> Iterator[str]:
    """Yield the signature as a block of code; defaults that show an address are left out."""
    prefix = "async " if inspect.iscoroutinefunction(function) else ""
    found = inspect.signature(function)
    parameters = [
        one.replace(default=inspect.Parameter.empty) if " at 0x" in repr(one.default) else one
        for one in found.parameters.values()
        if one.name not in ("self", "cls")
    ]
    text = str(found.replace(parameters=parameters)).replace("'", "") if parameters else "()"
    if not parameters and found.return_annotation is not found.empty:
        text = f"() -> {found.return_annotation}"
    if len(text) > 90 and parameters:
        inside, _, after = text.rpartition(")")
        arguments = ",\n    ".join(split_arguments(inside[1:]))
        text = f"(\n    {arguments},\n){after}"
    yield "```python"
    yield f"{prefix}def {name}{text}"
    yield "```"
    yield ""


def split_arguments(text: str) -> list[str]:
    """Split at the commas that are in no bracket."""
    parts, depth, current = [], 0, ""
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += character
    return [*parts, current.strip()]


def markdown(text: str) -> Iterator[str]:
    """Yield a docstring as Markdown: sections as lists, ``code`` and `names` as code."""
    in_section, verbatim = False, False
    for line in text.splitlines():
        if found := SECTION.match(line):
            in_section = True
            yield f"**{found[1]}**"
            yield ""
        elif in_section and (item := ENTRY.match(line)):
            yield f"- `{item[1].strip('*`')}`: {inline(item[2])}"
        elif in_section and line.startswith("    "):
            yield f"  {inline(line.strip())}"
        else:
            in_section = in_section and not line.strip()
            # An indented block is code; so is everything in it.
            verbatim = line.startswith("    ") or (verbatim and not line.strip())
            yield line if verbatim else inline(line.removesuffix("::").rstrip())


def inline(line: str) -> str:
    """Return a line with reStructuredText's marks for code as Markdown's."""
    return line.replace("``", "`")


if __name__ == "__main__":
    sys.exit(main())
