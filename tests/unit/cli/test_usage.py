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


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("resume", "A-1", "--park"),
            "--park is for all work; to try one issue: symphony retry A-1",
        ),
        (("answer", "A-1", "--approve", "--decline"), "--approve and --decline exclude"),
        (("breaker", "reset", "bogus"), "no class of failures 'bogus'; one of agent, "),
        (("budget", "raise", "day"), "give at least one of --tokens, --usd, "),
        (("budget", "raise", "day", "--tokens", "-5"), "--tokens -5: give a whole number from 0"),
        (("budget", "raise", "day", "--usd", "nan"), "--usd nan: give an amount such as 12.50"),
        (("hours", "override", "--minutes", "99999999"), "--minutes 99999999: give 0 to 44640"),
        (("db", "prune", "--older-than-days", "-1"), "--older-than-days -1: give 0 or more"),
        (("run", "--port", "70000"), "--port: 70000 is no port; give 0 to 65535"),
        (("run", "--logs-root", " "), "--logs-root: the path is blank"),
    ],
)
def test_a_line_that_is_wrong_in_itself_has_one_exit_status_whatever_is_wrong_with_it(
    words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("symphony: ")
    assert told in said


def test_every_group_is_told_in_the_help_as_it_tells_of_itself() -> None:
    names = {name for name in build_app() if not name.startswith("-")}
    assert names >= _GROUPS.keys()
    for name, text in _GROUPS.items():
        assert import_module(f"symphony.cli.{name}").app.help == text
