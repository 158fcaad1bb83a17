"""Several real processes on one board: nothing is lost, nothing is left broken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from symphony.trackers.local_board import Board

WRITER = """
import sys
from symphony.trackers.local_board import Board

board, me = Board(sys.argv[1], prefix="DEMO"), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for n in range(25):
    if n % 5 == 4:
        board.add(f"by {me}", description=f"{me}.{n}")
    else:
        board.comment("DEMO-1", f"{me}.{n}", author=f"writer {me}")
        board.move(f"DEMO-{2 + me}", f"State {n}")
"""

ENDLESS = """
import itertools, sys
from symphony.trackers.local_board import Board

board = Board(sys.argv[1], prefix="DEMO")
print("ready", flush=True)
for n in itertools.count():
    board.move("DEMO-1", f"State {n}" + "x" * 5000)
    board.add("more", description="y" * 5000)
    print(n, flush=True)
"""


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_eight_processes_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    board = Board.create(tmp_path / "board", prefix="DEMO")
    for n in range(9):
        board.add(f"issue {n}")
    writers = [start(WRITER, str(board.path), str(n)) for n in range(8)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=50)
        assert writer.returncode == 0
    view = board.read()
    assert view.malformed == ()
    comments = [comment.text for comment in board.comments("DEMO-1")]
    expected = [f"{me}.{n}" for me in range(8) for n in range(25) if n % 5 != 4]
    assert sorted(comments) == sorted(expected)
    for me in range(8):
        own = [text for text in comments if text.startswith(f"{me}.")]
        assert own == [text for text in expected if text.startswith(f"{me}.")], "in order"
        assert view.by_identifier[f"DEMO-{2 + me}"].state == "State 23"
    assert [issue.identifier for issue in view.issues] == [f"DEMO-{n}" for n in range(1, 50)]
    made = sorted(issue.description or "" for issue in view.issues[9:])
    assert made == sorted(f"{me}.{n}" for me in range(8) for n in range(4, 25, 5))


def test_a_writer_that_is_killed_leaves_no_broken_file(tmp_path: Path) -> None:
    board = Board.create(tmp_path / "board", prefix="DEMO")
    board.add("first")
    for _round in range(4):
        writer = start(ENDLESS, str(board.path))
        assert writer.stdout is not None
        for _line in range(3 + _round):
            writer.stdout.readline()
        writer.kill()
        writer.communicate()
        before = len(board.read().issues)
        assert board.read().malformed == ()
        assert board.get("DEMO-1").state.startswith("State ")
        board.add("after the kill")
        assert len(board.read().issues) == before + 1
    names = {path.name for path in board.path.iterdir() if path.suffix != ".md"}
    assert names <= {".gitignore", ".board.lock", ".board.tmp"}
