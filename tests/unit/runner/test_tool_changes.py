from __future__ import annotations

from typing import Any

import pytest

from symphony.observe.humanize import humanize
from symphony.runner.tool_changes import MAX_CHARS, change_of

READS: list[Any] = [
    {"method": "GET", "path": "/repos/o/r/issues"},
    {"method": "get", "path": "/x"},
    {"query": 'query { issue(id: "1") { id } }'},
    {"query": "{ viewer { id } }"},
    {"query": 'query { search(term: "mutation { x }") { id } } # mutation { y }'},
    "query { viewer { id } }",
    {"action": "get"},
    {"action": "list", "states": ["Todo"]},
    None,
    7,
]
CHANGES = [
    (
        {"method": "post", "path": "/repos/o/r/issues/7/comments?token=abc", "body": {"body": "x"}},
        "POST /repos/o/r/issues/7/comments",
    ),
    ({"method": "DELETE", "path": 5}, "DELETE"),
    (
        {"query": 'mutation Move($id: ID!) { issueUpdate(id: $id, input: {a: "b"}) { success } }'},
        "mutation issueUpdate",
    ),
    (
        "mutation { first: commentCreate(input: {}) { success } issueUpdate(id: 1) { id } }",
        "mutation commentCreate issueUpdate",
    ),
    (
        "query A { viewer { id } } mutation B { issueArchive(id: 1) { success } }",
        "mutation issueArchive",
    ),
    ("mutation { a @include(if: true) { ...Fields } } fragment Fields on T { id }", "mutation a"),
    ({"action": "move", "identifier": "AB-7", "state": "Done"}, "move AB-7"),
    ({"action": "comment", "text": "private"}, "comment"),
    ({"anything": 1}, "a call of another shape"),
]


@pytest.mark.parametrize("arguments", READS)
def test_a_read_is_no_change(arguments: Any) -> None:
    assert change_of(arguments) is None


@pytest.mark.parametrize(("arguments", "named"), CHANGES)
def test_a_change_is_named_without_its_values(arguments: Any, named: str) -> None:
    assert change_of(arguments) == named


def test_a_key_in_a_path_is_cut_and_a_long_name_is_capped() -> None:
    assert (
        change_of({"method": "PUT", "path": "/x/ghp_0123456789abcdefghij0123"}) == "PUT /x/ghp_01…"
    )
    long = change_of({"action": "move\nnow", "identifier": "A" * 500})
    assert long is not None
    assert len(long) == MAX_CHARS
    assert long.startswith("move now A")


def test_the_history_tells_the_tool_and_the_change() -> None:
    event = {"event": "tool_call", "tool": "github_api", "action": "POST /repos/o/r/issues"}
    assert (
        humanize("tool_call", event) == "changing the tracker (github_api): POST /repos/o/r/issues"
    )
    assert humanize("tool_call", "changing the tracker (x): y") == "changing the tracker (x): y"
    done = {"event": "tool_call_completed", "tool": "github_api"}
    assert humanize("tool_call_completed", done) == "dynamic tool call completed (github_api)"
