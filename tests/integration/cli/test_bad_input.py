"""A start with bad input: one message with the place and the mend, and a non-zero exit."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

WORKFLOW = """\
---
tracker:
  kind: local
  provider: {{path: board}}
workspace: {{root: workspaces}}
codex: {{command: {command}}}
{more}---
Work on {{{{ issue.identifier }}}}.
"""


@pytest.fixture
def place(tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Of a cache below the temp directory no use is made, and the user's own would be littered.
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_dir))
    (tmp_path / "board").mkdir()
    (tmp_path / "home").mkdir()
    return tmp_path


def write(place: Path, *, command: str = "cat", more: str = "") -> Path:
    path = place / "WORKFLOW.md"
    path.write_text(WORKFLOW.format(command=command, more=more), "utf-8")
    return path


def symphony(place: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "symphony", *map(str, arguments)],
        cwd=place,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(place / "home"),
            "XDG_STATE_HOME": str(place / "state"),
            "XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"],
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def refusal(place: Path, *arguments: str | Path) -> str:
    """Start, expect a refusal, and return what it said."""
    done = symphony(place, *arguments)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_missing_default_workflow_is_named_with_its_full_path(place: Path) -> None:
    said = refusal(place)
    assert str(place / "WORKFLOW.md") in said
    assert "symphony init" in said


def test_a_missing_given_workflow_is_named(place: Path) -> None:
    assert str(place / "other.md") in refusal(place, "other.md")


def test_a_word_that_is_no_command_is_told_apart_from_a_path(place: Path) -> None:
    done = symphony(place, "statsu")
    assert done.returncode == 2
    assert "statsu: neither a command (symphony --help lists them) nor a workflow" in done.stderr


def test_broken_yaml_is_named_with_its_line(place: Path) -> None:
    (place / "WORKFLOW.md").write_text("---\ntracker:\n  kind: [local\n---\nx\n")
    said = refusal(place)
    assert str(place / "WORKFLOW.md") in said
    assert "line" in said


def test_front_matter_that_is_no_map_is_refused(place: Path) -> None:
    (place / "WORKFLOW.md").write_text("---\n- a\n- b\n---\nx\n")
    assert "map" in refusal(place)


def test_all_bad_values_are_told_at_once_with_key_line_and_what_is_allowed(place: Path) -> None:
    more = "polling: {interval_ms: soon}\nagent: {max_turns: 0}\nhooks: {timeout_ms: -1}\n"
    write(place, more=more)
    said = refusal(place)
    for key in ("polling.interval_ms", "agent.max_turns", "hooks.timeout_ms"):
        assert key in said
    assert "line 7" in said
    assert "above 0" in said


def test_an_unknown_tracker_is_refused_with_the_known_ones(place: Path) -> None:
    (place / "WORKFLOW.md").write_text("---\ntracker: {kind: notes}\n---\nx\n")
    said = refusal(place)
    assert "tracker.kind" in said
    assert "local" in said


def test_a_missing_board_is_told_with_the_command_that_makes_it(place: Path) -> None:
    write(place)
    (place / "board").rmdir()
    said = refusal(place)
    assert "tracker.provider.path" in said
    assert "mkdir" in said


def test_a_missing_binary_is_told_before_anything_starts(place: Path) -> None:
    write(place, command="codex-of-nobody app-server")
    said = refusal(place)
    assert "codex.command" in said
    assert "codex-of-nobody" in said


def test_a_port_in_use_is_told_with_the_mend(place: Path) -> None:
    write(place)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal(place, "--port", str(port))
    assert str(port) in said
    assert "--port" in said


def test_a_logs_root_that_is_no_directory_is_told(place: Path) -> None:
    write(place)
    (place / "logs").write_text("in the way")
    said = refusal(place, "--logs-root", place / "logs")
    assert "--logs-root" in said
    assert str(place / "logs") in said


def test_a_workspace_root_that_can_not_be_made_is_told(place: Path) -> None:
    write(place)
    (place / "workspaces").write_text("in the way")
    said = refusal(place)
    assert "workspace" in said
    assert str(place / "workspaces") in said


def test_every_malformed_board_file_is_told_with_its_line(place: Path) -> None:
    write(place)
    (place / "board" / "A-1.md").write_text("---\nid: A-1\nstate: Todo\n---\nno title\n")
    (place / "board" / "A-2.md").write_text("---\ntitle: [\n---\n")
    said = refusal(place)
    assert "A-1.md" in said
    assert "title" in said
    assert "A-2.md" in said


def test_a_state_directory_that_can_not_be_made_is_told(place: Path) -> None:
    write(place)
    (place / "state").write_text("in the way")
    said = refusal(place)
    assert str(place / "state") in said
    assert "XDG_STATE_HOME" in said


@pytest.mark.parametrize(
    "arguments", [("--port", "abc"), ("--port", "-1"), ("--port", "70000"), ("--no-such-flag",)]
)
def test_wrong_usage_is_told_and_exits_non_zero(place: Path, arguments: tuple[str, ...]) -> None:
    write(place)
    done = symphony(place, *arguments)
    assert done.returncode != 0
    assert arguments[0] in done.stderr + done.stdout


def test_check_tells_a_template_fault_with_its_line(place: Path) -> None:
    write(place)
    text = (place / "WORKFLOW.md").read_text()
    (place / "WORKFLOW.md").write_text(text + "{% if false %}{{ issue.titel }}{% endif %}\n")
    done = symphony(place, "check")
    assert done.returncode == 1
    assert "titel" in done.stderr
    assert "line 9" in done.stderr


def test_check_of_a_good_workflow_says_so(place: Path) -> None:
    write(place)
    done = symphony(place, "check")
    assert (done.returncode, done.stderr) == (0, "")
    assert "valid" in done.stdout


def test_status_without_a_daemon_says_how_to_start_one(place: Path) -> None:
    write(place)
    said = refusal(place, "status")
    assert "no daemon" in said


def test_a_demo_with_a_binary_that_is_not_there_names_it(place: Path) -> None:
    said = refusal(place, "demo", "--codex", place / "no-codex")
    assert str(place / "no-codex") in said
    assert "install" in said


def test_a_demo_without_a_writable_cache_says_how_to_name_another(
    place: Path, cache_dir: Path
) -> None:
    (cache_dir / "symphony").write_text("in the way")
    said = refusal(place, "demo", "--codex", sys.executable)
    assert str(cache_dir / "symphony") in said
    assert "XDG_CACHE_HOME" in said


def test_a_demo_on_a_port_in_use_says_so_in_one_message(place: Path, cache_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = refusal(place, "demo", "--codex", sys.executable, "--port", port)
    assert port in said
    assert len(said.splitlines()) == 1
    assert list((cache_dir / "symphony").iterdir()) == []


def test_init_writes_a_workflow_that_check_accepts(place: Path) -> None:
    subprocess.run(["git", "init", "-q", str(place / "repo")], check=True)
    done = symphony(place, "init", place / "repo")
    assert done.returncode == 0, done.stderr
    workflow = place / "repo" / "WORKFLOW.md"
    workflow.write_text(workflow.read_text().replace("codex app-server", "cat"))
    assert symphony(place, "check", workflow).returncode == 0


def test_the_command_that_init_proposes_adds_an_issue_with_the_prefix_of_its_workflow(
    place: Path,
) -> None:
    subprocess.run(["git", "init", "-q", str(place / "textkit")], check=True)
    said = symphony(place, "init", place / "textkit").stdout.splitlines()
    proposed = next(line for line in said if "issue add" in line)
    done = symphony(place, *shlex.split(proposed)[1:])
    assert done.returncode == 0, done.stderr
    assert (place / "textkit" / "board" / "TEXTKIT-1.md").exists()


def test_init_never_writes_over_a_workflow(place: Path) -> None:
    subprocess.run(["git", "init", "-q", str(place)], check=True)
    (place / "WORKFLOW.md").write_text("mine")
    assert "is there already" in refusal(place, "init", place)
    assert (place / "WORKFLOW.md").read_text() == "mine"


def test_tracker_test_says_what_would_start_and_why_the_rest_waits(place: Path) -> None:
    write(place)
    board = place / "board"
    (board / "A-1.md").write_text("---\nid: A-1\ntitle: Free\nstate: Todo\n---\n")
    (board / "A-2.md").write_text(
        "---\nid: A-2\ntitle: Held\nstate: Todo\nblocked_by: [A-1]\n---\n"
    )
    done = symphony(place, "tracker", "test")
    assert done.returncode == 0, done.stderr
    assert "A-1" in done.stdout.splitlines()[1]
    assert "starts" in done.stdout.splitlines()[1]
    assert "blocked by A-1" in done.stdout.splitlines()[2]
