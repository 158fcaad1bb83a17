from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony.trackers.http_paths import BadCall, guard_method, guard_path


@pytest.mark.parametrize(
    ("path", "text", "segments"),
    [
        ("/repos/o/r/issues/7", "/repos/o/r/issues/7", ("repos", "o", "r", "issues", "7")),
        (" /repos/o/r/ ", "/repos/o/r", ("repos", "o", "r")),
        ("/labels/good%20first issue", "/labels/good%20first%20issue", None),
        ("/labels/ü", "/labels/%C3%BC", ("labels", "ü")),
        ("/labels/100%25", "/labels/100%25", ("labels", "100%")),
        ("/a/...", "/a/...", ("a", "...")),
    ],
)
def test_a_plain_path_gets_its_one_spelling(path: str, text: str, segments: Any) -> None:
    guarded = guard_path(path)
    assert guarded.text == text
    assert segments is None or guarded.segments == segments


@pytest.mark.parametrize(
    "path",
    [
        None,
        7,
        "",
        "repos/o/r",
        "/",
        "//evil.example/repos",
        "https://evil.example/",
        "/repos/https://evil.example",
        "/repos/../user",
        "/repos/./user",
        "/repos/%2e%2e/user",
        "/repos/%2E./user",
        "/repos/..;x=1/user",
        "/repos/%252e%252e/user",
        "/repos/%25252e/user",
        "/repos//user",
        "/repos%2Fo",
        "/repos/o\\..\\user",
        "/repos/%5c..",
        "/repos/o?x=1",
        "/repos/o%3fx=1\n",
        "/repos/o#x",
        "/repos/o\r\nX: y",
        "/repos/%0d%0aX",
        "/repos/%00",
        "/repos/\x00",
        "/repos/%",
        "/repos/%zz",
        "/repos/%ff",
        "/repos/\ud800",
        "/repos/\uff0e\uff0e/user",
        "/repos/\u2025/user",
        "/repos/%EF%BC%8F..%EF%BC%8Fuser",
        "/repos/a\uff0fb",
        "/repos/a\uff3cb",
        "/" + "a" * 2_000,
    ],
)
def test_a_path_with_a_trick_is_refused(path: Any) -> None:
    with pytest.raises(BadCall, match="`path`"):
        guard_path(path)


def test_an_encoded_slash_is_for_those_who_need_it() -> None:
    guarded = guard_path("/projects/group%2Fproject/issues", encoded_slash=True)
    assert guarded.text == "/projects/group%2Fproject/issues"
    assert guarded.segments == ("projects", "group/project", "issues")
    for trick in ("/projects/a%2F..%2Fb", "/projects/%2Fa", "/projects/a%252Fb"):
        with pytest.raises(BadCall):
            guard_path(trick, encoded_slash=True)


@given(st.text(alphabet="/.%2eEfF5cC;a?#\\ \n", max_size=30))
def test_what_passes_means_the_same_however_often_it_is_decoded(text: str) -> None:
    try:
        guarded = guard_path("/" + text)
    except BadCall:
        return
    decoded = unquote(unquote(guarded.text))
    assert decoded == "/" + "/".join(guarded.segments)
    assert not {"", ".", ".."} & set(decoded[1:].split("/"))
    assert guard_path(guarded.text) == guarded


@pytest.mark.parametrize("method", ["TRACE", "", None, "GET\r\n X", 7, "GETX"])
def test_a_method_that_is_not_allowed_is_refused(method: Any) -> None:
    with pytest.raises(BadCall, match="GET, POST"):
        guard_method(method, ("GET", "POST"))
    assert guard_method(" get ", ("GET", "POST")) == "GET"
