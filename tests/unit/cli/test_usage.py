"""Wrong words on the command line: nothing is rounded, nothing goes by unsaid."""

from __future__ import annotations

from importlib import import_module

import pytest

from symphony.cli import build_app, main
from symphony.cli.app import _GROUPS


@pytest.mark.parametrize("text", ["0.5", "1.0", "1e3", "0x10", "", "many", "9" * 30])
@pytest.mark.parametrize(
    "words",
    [
        ("db", "prune", "--older-than-days"),
        ("budget", "raise", "day", "--tokens"),
        ("hours", "override", "--minutes"),
        ("issue", "add", "A title", "--priority"),
        ("run", "--port"),
    ],
)
def test_what_is_no_whole_number_is_refused_and_not_rounded(
    words: tuple[str, ...], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*words, text])
    assert caught.value.code == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert f"Invalid value for {words[-1]}" in said
    assert "is no whole number" in said


@pytest.mark.parametrize("words", [("stop", "A-1", "A-2"), ("drain", "A-1"), ("db", "check", "x")])
def test_words_too_many_are_named_with_the_way_to_help(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert f"more words than it takes: {words[-1]}; see: symphony {words[0]}" in said


def test_a_park_is_not_lifted_for_one_issue(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["resume", "A-1", "--park"])
    assert caught.value.code == 1
    assert "--park is for all work; to try one issue: symphony retry A-1" in capsys.readouterr().err


def test_every_group_is_told_in_the_help_as_it_tells_of_itself() -> None:
    names = {name for name in build_app() if not name.startswith("-")}
    assert names >= _GROUPS.keys()
    for name, text in _GROUPS.items():
        assert import_module(f"symphony.cli.{name}").app.help == text
