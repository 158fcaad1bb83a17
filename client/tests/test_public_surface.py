"""The public names, and what importing them brings along."""

import ast
import copy
import inspect
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import codex_app_server
import pytest
from codex_app_server import CodexError, RequestKind, ServerRequestInfo


def test_the_public_names_are_sorted_documented_and_there() -> None:
    names = codex_app_server.__all__
    assert names == sorted(names)
    for name in names:
        assert getattr(codex_app_server, name).__doc__, name


def _modules_after(statements: str) -> set[str]:
    """The modules of a fresh interpreter that has run these statements, asyncio's apart."""
    code = (
        "import asyncio, json, sys; before = set(sys.modules);"
        f"{statements}; print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    return set(json.loads(output))


def test_importing_the_package_imports_nothing_else() -> None:
    assert _modules_after("import codex_app_server") == {"codex_app_server"}


ELSEWHERE = {
    *(
        "exec",
        "exec_command",
        "exec_run",
        "exec_usage",
        "messages",
        "recording",
        "scripted",
        "session",
        "supervisor",
    ),
    *("testing", "unattended", "websocket", "accounts", "asking", "extras", "subagents"),
    *("protocol.exec_events", "protocol.requests", "protocol.types"),
}
COSTLY = {"hashlib", "http", "shutil", "ssl", "tempfile", "urllib.request", "websockets"}


@pytest.mark.parametrize(
    "statements",
    [
        "from codex_app_server import Codex, Connection, Thread, Turn, CodexError, tool",
        "from codex_app_server.protocol.rpc import Rpc;"
        'line = dict(threadId="t", turnId="u", itemId="i", delta="x");'
        'text = json.dumps(dict(method="item/agentMessage/delta", params=line)) + "\\n";'
        "Rpc().receive(text.encode(), 0.0)[0].events[0].params.delta",
    ],
    ids=["names", "a delta"],
)
def test_talking_to_a_server_imports_neither_all_types_nor_other_ways(statements: str) -> None:
    loaded = _modules_after(statements)
    assert "codex_app_server.protocol.deltas" in loaded
    assert loaded & {f"codex_app_server.{name}" for name in ELSEWHERE} == set()
    assert loaded & COSTLY == set()


def test_every_public_name_is_found_where_type_checkers_find_it() -> None:
    (block,) = [
        node
        for node in ast.parse(inspect.getsource(codex_app_server)).body
        if isinstance(node, ast.If)
    ]
    imports = {
        alias.name: (node.module or "").removeprefix("codex_app_server.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imports.pop("*") == "errors"
    errors = {name for name, home in codex_app_server._HOMES.items() if home == "errors"}
    assert imports.keys() | errors == set(codex_app_server.__all__)
    assert {**imports, **dict.fromkeys(errors, "errors")} == codex_app_server._HOMES


def test_the_errors_that_are_public_are_all_that_there_are() -> None:
    of_errors = set(vars(codex_app_server.errors)) & set(codex_app_server.errors.__all__)
    kinds = {one for one in of_errors if inspect.isclass(getattr(codex_app_server.errors, one))}
    assert kinds == {name for name, home in codex_app_server._HOMES.items() if home == "errors"}


def test_a_module_of_the_package_is_an_attribute_without_being_imported() -> None:
    assert "errors" in _attribute_of_a_fresh_import("errors.TurnFailed.__module__")


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = codex_app_server.nonsense  # type: ignore[attr-defined] # what the test is about
    assert not hasattr(codex_app_server, "__wrapped__")
    assert set(codex_app_server.__all__) <= set(dir(codex_app_server))


def _attribute_of_a_fresh_import(path: str) -> str:
    code = f"import codex_app_server; print(codex_app_server.{path})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    return done.stdout


def _kinds(kind: type[CodexError]) -> Iterator[type[CodexError]]:
    yield kind
    for one in kind.__subclasses__():
        yield from _kinds(one)


ARGUMENTS: dict[str, Any] = {
    "request": ServerRequestInfo(
        id=0,
        method="item/tool/call",
        kind=RequestKind.TOOL_CALL,
        thread_id="t",
        turn_id="u",
        item_id=None,
        params={"a": [1]},
    ),
    "data": {"key": [1]},
    "code": 7,
    "limit_s": 2.5,
    "timeout_s": 1.5,
    "kind": "idle",
}


@pytest.mark.parametrize("kind", {one.__name__: one for one in _kinds(CodexError)}.values())
@pytest.mark.parametrize(
    "through",
    [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy],
    ids=["pickle", "copy", "deepcopy"],
)
def test_every_error_survives_being_copied_and_pickled(kind, through) -> None:
    if not inspect.isfunction(kind.__init__):
        error = kind("words")
    else:
        given = inspect.signature(kind).parameters.values()
        positional = [
            ARGUMENTS.get(one.name, one.name) for one in given if one.kind is not one.KEYWORD_ONLY
        ]
        named = {
            one.name: ARGUMENTS.get(one.name, one.name)
            for one in given
            if one.kind is one.KEYWORD_ONLY
        }
        error = kind(*positional, **named)
    error.add_note("a note")
    again = through(error)
    assert type(again) is kind
    assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))
