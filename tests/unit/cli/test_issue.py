from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import symphony.cli
from symphony.trackers.local_board import Board

# looptime asks for a loop in plain tests too, which makes one that nobody closes before 3.12.
asyncio.set_event_loop(None)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``symphony issue ...`` in an empty directory: status, output, errors."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            symphony.cli.main(["issue", *words])
        out, err = capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 1 if code else 0), out, err

    return call


def test_an_issue_lives_through_all_commands(run: Run, tmp_path: Path) -> None:
    status, out, _ = run("add", "Greet", "--label", "ui", "--label", "demo", "--priority", "1")
    assert (status, out.split(" (")[0]) == (0, "added ISSUE-1 [Todo] Greet")
    assert run("move", "ISSUE-1", "Human Review")[1] == "moved ISSUE-1 [Human Review] Greet\n"
    assert run("comment", "ISSUE-1", "well done", "--author", "eve")[0] == 0
    assert run("edit", "ISSUE-1", "--title", "Greet all", "--clear", "priority")[0] == 0
    status, out, _ = run("show", "ISSUE-1", "--json")
    issue = json.loads(out)
    assert (issue["title"], issue["state"], issue["priority"]) == (
        "Greet all",
        "Human Review",
        None,
    )
    assert issue["labels"] == ["ui", "demo"]
    assert [(c["author"], c["text"]) for c in issue["comments"]] == [("eve", "well done")]
    assert "well done" in run("show", "ISSUE-1")[1]
    assert run("list")[1] == "ISSUE-1  Human Review  -  Greet all\n"
    assert run("list", "--state", "todo")[1] == ""
    assert [entry["identifier"] for entry in json.loads(run("list", "--json")[1])] == ["ISSUE-1"]
    assert (tmp_path / "board" / "ISSUE-1.md").is_file()


def test_the_workflow_file_names_the_board(run: Run, tmp_path: Path) -> None:
    (tmp_path / "flow").mkdir()
    (tmp_path / "flow" / "W.md").write_text(
        "---\ntracker:\n  kind: local\n  provider: {path: mine, prefix: API}\n"
        "agent: {max_turns: nonsense}\n---\nprompt\n"
    )
    assert "API-1" in run("add", "t", "--workflow", "flow/W.md")[1]
    assert Board(tmp_path / "flow" / "mine").get("API-1").title == "t"
    assert run("list", "--board", "flow/mine")[1].startswith("API-1")


def test_a_description_comes_from_standard_input(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Line one.\nLine two.\n"))
    run("add", "t", "--description", "-")
    assert Board(tmp_path / "board").get("ISSUE-1").description == "Line one.\nLine two."


def test_without_options_edit_opens_the_editor_and_checks_the_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("add", "t")
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", "sed -i 's/^state: .*/state: Done/'")
    assert run("edit", "ISSUE-1")[0] == 0
    assert Board(tmp_path / "board").get("ISSUE-1").state == "Done"
    monkeypatch.setenv("EDITOR", "sed -i '/^state/d'")
    status, _, err = run("edit", "ISSUE-1")
    assert status == 1
    assert "`state` is missing" in err
    monkeypatch.setenv("EDITOR", "sed -i 's/^title: .*/&\\nstate: Todo/'")
    assert run("edit", "ISSUE-1")[0] == 0, "a malformed file can be opened to mend it"
    monkeypatch.setenv("EDITOR", "no-such-editor")
    status, _, err = run("edit", "ISSUE-1")
    assert status == 1
    assert "set EDITOR" in err


def test_malformed_files_are_named_and_make_the_listing_fail(run: Run, tmp_path: Path) -> None:
    run("add", "t")
    (tmp_path / "board" / "BAD-1.md").write_text("---\ntitle: x\n---\n")
    status, out, err = run("list")
    assert status == 1
    assert out.startswith("ISSUE-1")
    assert "BAD-1.md: line 1: `state` is missing" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("show", "NOPE-1"), "no issue `NOPE-1`"),
        (("move", "ISSUE-1", " "), "state must not be blank"),
        (("add", " "), "title must not be blank"),
        (("add", "t", "--id", "../x"), "an identifier is letters"),
        (("add", "t", "--id", "ISSUE-1"), "already has `ISSUE-1`"),
        (("list", "--board", "absent"), "does not exist; create it"),
        (("list", "--workflow", "absent.md"), "absent.md: the workflow file can't be read"),
        (("list", "--workflow", "linear.md"), "works on `local` boards"),
        (("list", "--workflow", "broken.md"), "broken.md"),
    ],
)
def test_bad_input_is_one_clear_message(
    run: Run, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    run("add", "t")
    (tmp_path / "linear.md").write_text("---\ntracker: {kind: linear}\n---\n")
    (tmp_path / "broken.md").write_text("---\ntracker: [\n---\n")
    status, out, err = run(*words)
    assert status == 1
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_an_issue_cannot_steer_the_terminal(run: Run) -> None:
    run("add", "t\x1b[31m", "--description", "x\x1b]0;evil\x07")
    for words in (("list",), ("show", "ISSUE-1")):
        assert "\x1b" not in run(*words)[1]
