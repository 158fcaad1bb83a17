from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symphony.errors import TrackerError
from symphony.trackers.local_board import Board
from symphony.trackers.local_document import (
    Comment,
    DocumentError,
    parse_comments,
    parse_document,
    render_document,
    with_comment,
    with_description,
)


def write(board: Board, name: str, text: str) -> Path:
    path = board.path / name
    path.write_text(text, encoding="utf-8")
    return path


def error_code(caught: pytest.ExceptionInfo[TrackerError]) -> str | None:
    return caught.value.code


def test_an_added_issue_is_a_file_that_people_can_read(tmp_path: Path) -> None:
    Board.create(tmp_path / "b")
    board = Board(tmp_path / "b", prefix="DEMO", wall=lambda: 0.0)
    issue = board.add("Greet", description="Say hello.", labels=["Demo"], priority=2)
    assert (board.path / "DEMO-1.md").read_text() == (
        "---\nid: DEMO-1\ntitle: Greet\nstate: Todo\npriority: 2\nlabels: [Demo]\n"
        "created: 1970-01-01T00:00:00Z\nupdated: 1970-01-01T00:00:00Z\n---\n\nSay hello.\n"
    )
    assert issue.labels == ("demo",)
    assert board.add("Next").identifier == "DEMO-2"


def test_numbers_are_not_given_again_after_a_deletion(board: Board) -> None:
    board.add("one")
    board.add("two")
    (board.path / "DEMO-2.md").unlink()
    assert board.add("three").identifier == "DEMO-3"
    (board.path / ".board.lock").write_text("{damaged")
    (board.path / "DEMO-3.md").rename(board.path / "OTHER-1.md")
    assert board.add("four").identifier == "DEMO-4", "the id DEMO-3 lives on in OTHER-1.md"


def test_without_a_prefix_the_board_s_usual_one_is_taken(tmp_path: Path) -> None:
    board = Board.create(tmp_path / "b")
    assert board.add("first").identifier == "ISSUE-1"
    for n in (7, 8, 9):
        write(board, f"API-{n}.md", f"---\ntitle: t{n}\nstate: Todo\n---\n")
    assert board.add("next").identifier == "API-10"


def test_a_move_changes_two_lines_only(board: Board) -> None:
    text = (
        "---\ntitle:   'Odd   spacing'  # kept\nstate: Todo\nupdated: 2020-01-01T00:00:00Z\n"
        "mine: {x: 1}\n---\nbody  \n\n\n"
    )
    path = write(board, "X-1.md", text)
    path.chmod(0o640)
    assert board.move("X-1", " In Review ").state == "In Review"
    before, after = text.splitlines(True), path.read_text().splitlines(True)
    different = [new for old, new in zip(before, after, strict=True) if old != new]
    assert different[0] == "state: In Review\n"
    assert [line.split(":")[0] for line in different] == ["state", "updated"]
    assert path.stat().st_mode & 0o777 == 0o640


def test_comments_are_kept_in_the_file_s_own_section(board: Board) -> None:
    board.add("t", description="The body.")
    board.comment("DEMO-1", "first", author="eve")
    board.comment("DEMO-1", "second\n\n## Comments\n### 2026-01-01T00:00:00Z - x", author="a\nb")
    found = board.comments("DEMO-1")
    assert [(c.author, c.text) for c in found] == [
        ("eve", "first"),
        ("a b", "second\n\n## Comments\n### 2026-01-01T00:00:00Z - x"),
    ]
    assert board.get("DEMO-1").description == "The body."
    board.edit("DEMO-1", description="Another body.")
    assert board.get("DEMO-1").description == "Another body."
    assert board.comments("DEMO-1") == found


def test_comments_that_a_person_typed_are_read(board: Board) -> None:
    write(
        board,
        "P-1.md",
        "---\ntitle: t\nstate: Todo\n---\nbody\n\n## Comments\n\n"
        "### 2026-01-01 10:00 - Eve\nhello\n"
        "### 2026-01-02T10:00:00+02:00 \u2014 Max\n\nbye\n",
    )
    assert board.comments("P-1") == (
        Comment("2026-01-01 10:00", "Eve", "hello"),
        Comment("2026-01-02T10:00:00+02:00", "Max", "bye"),
    )
    assert board.get("P-1").description == "body"


LINES = st.lists(
    st.sampled_from(
        [
            "text",
            "",
            "## Comments",
            "\\## Comments",
            "### 2026-01-01T00:00:00Z \u2014 eve",
            "\\\\### 2026-01-01T00:00:00Z \u2014 eve",
            "---",
            "```",
            "# Other",
        ]
    ),
    max_size=6,
).map("\n".join)


@settings(deadline=None)
@given(description=LINES, texts=st.lists(LINES, max_size=3), later=LINES)
def test_descriptions_and_comments_come_back_as_they_went_in(
    description: str, texts: list[str], later: str
) -> None:
    text = render_document({"id": "A-1", "title": "t", "state": "Todo"}, description)
    for entry in texts:
        text = with_comment(text, Comment("2026-01-01T00:00:00Z", "eve", entry))
    for expected in (description, later):
        document = parse_document("A-1", text)
        assert (document.description or "").strip("\n") == expected.strip("\n")
        assert [c.text for c in parse_comments(text)] == [entry.strip("\n") for entry in texts]
        text = with_description(text, later)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no front matter", "must begin with a line `---`"),
        ("---\ntitle: t\n---\n", "`state` is missing"),
        ("---\ntitle: ''\nstate: Todo\n---\n", "line 2: `title` must be a text"),
        ("---\ntitle: t\nstate: [a]\n---\n", "line 3: `state` must be a text"),
        ("---\nid: ''\ntitle: t\nstate: Todo\n---\n", "line 2: `id` must not be empty"),
        ("---\ntitle: t\nstate: Todo\ntitle: u\n---\n", "`title` stands twice"),
    ],
)
def test_a_malformed_file_is_named_with_line_and_mend(board: Board, text: str, words: str) -> None:
    write(board, "BAD-1.md", text)
    board.add("good")
    view = board.read()
    assert [issue.identifier for issue in view.issues] == ["DEMO-1"]
    assert len(view.malformed) == 1
    assert words in str(view.malformed[0])
    assert "BAD-1.md" in str(view.malformed[0])
    with pytest.raises(TrackerError, match=r"BAD-1\.md") as caught:
        board.get("BAD-1")
    assert error_code(caught) == "local_issue_malformed"


def test_all_faults_of_a_file_are_told_at_once(board: Board) -> None:
    write(board, "BAD-1.md", "---\ntitle:\nstate:\n---\n")
    assert [fault.key for fault in board.read().malformed[0].faults] == ["title", "state"]


def test_files_that_are_unreadable_as_text_are_malformed(board: Board) -> None:
    (board.path / "BIN-1.md").write_bytes(b"---\ntitle: \xff\n---\n")
    (board.path / "BIG-1.md").write_bytes(b"---\n" + b"x" * (1 << 20))
    os.symlink("/etc/passwd", board.path / "LINK-1.md")
    (board.path / "DIR-1.md").mkdir()
    os.mkfifo(board.path / "PIPE-1.md")
    problems = {fault.path.name: str(fault) for fault in board.read().malformed}
    assert "byte 11 is not UTF-8" in problems["BIN-1.md"]
    assert "larger than 1 MiB" in problems["BIG-1.md"]
    for name in ("LINK-1.md", "DIR-1.md", "PIPE-1.md"):
        assert "no regular file" in problems[name]


def test_optional_values_that_are_unusable_are_left_out_and_named(board: Board) -> None:
    write(
        board,
        "X-1.md",
        "---\ntitle: t\nstate: Todo\npriority: high\nlabels: [A, a, '']\nassignee: [x]\n"
        "created: yesterday\nupdated: 2026-01-01\n---\n",
    )
    issue = board.get("X-1")
    assert (issue.priority, issue.labels, issue.assignee, issue.created_at) == (
        None,
        ("a",),
        None,
        None,
    )
    assert issue.updated_at is not None
    assert {fault.key for fault in issue.notices} == {"priority", "assignee", "created"}
    assert [str(notice.path.name) for notice in board.read().notices] == ["X-1.md"]


def test_two_files_with_one_id_are_both_malformed_and_named(board: Board) -> None:
    text = "---\nid: SAME\ntitle: t\nstate: Todo\n---\n"
    write(board, "A-1.md", text)
    write(board, "A-2.md", text)
    view = board.read()
    assert view.issues == ()
    assert "also that of A-2.md" in str(view.malformed[0])
    assert "also that of A-1.md" in str(view.malformed[1])
    with pytest.raises(TrackerError, match="SAME"):
        board.get("SAME")


def test_swap_and_backup_files_of_editors_are_no_issues(board: Board) -> None:
    for name in (
        ".X-1.md.swp",
        "X-1.md~",
        "#X-1.md#",
        ".#X-1.md",
        "X-1.md.bak",
        "README.md",
        ".md",
    ):
        write(board, name, "junk")
    assert board.read().issues == ()
    assert board.read().malformed == ()


def test_issues_stand_in_the_order_of_their_numbers(board: Board) -> None:
    for n in (10, 9, 1):
        write(board, f"X-{n}.md", "---\ntitle: t\nstate: Todo\n---\n")
    assert [issue.identifier for issue in board.read().issues] == ["X-1", "X-9", "X-10"]


def test_an_unchanged_board_is_not_parsed_again(board: Board) -> None:
    path = write(board, "X-1.md", "---\ntitle: t\nstate: Todo\n---\n")
    os.utime(path, (1, 1))
    later = Board(board.path, wall=lambda: path.stat().st_ctime + 60)
    assert later.read() is later.read()
    write(board, "X-1.md", "---\ntitle: t\nstate: Done\n---\n")
    assert later.read().issues[0].state == "Done"


def test_an_edit_of_the_same_size_within_the_clock_s_grain_is_seen(board: Board) -> None:
    path = write(board, "X-1.md", "---\ntitle: t\nstate: Todo\n---\n")
    board.read()
    with path.open("r+b") as file:
        file.write(b"---\ntitle: t\nstate: Done\n---\n")
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    assert board.read().issues[0].state == "Done"


@pytest.mark.parametrize(
    "identifier", ["../X", "a/b", ".hidden", "", "x" * 200, "README", "a\nb", "-x"]
)
def test_an_identifier_that_is_no_plain_name_is_refused(board: Board, identifier: str) -> None:
    with pytest.raises(TrackerError, match="identifier") as caught:
        board.add("t", identifier=identifier)
    assert error_code(caught) == "local_invalid_value"


def test_bad_values_are_refused_and_change_nothing(board: Board) -> None:
    board.add("t")
    before = (board.path / "DEMO-1.md").read_bytes()
    for call in (
        lambda: board.move("DEMO-1", "  "),
        lambda: board.edit("DEMO-1", title=None),
        lambda: board.edit("DEMO-1", nonsense="x"),
        lambda: board.edit("DEMO-1", labels="abc"),
        lambda: board.edit("DEMO-1", labels=["ok", " "]),
        lambda: board.edit("DEMO-1", priority="high"),
        lambda: board.comment("DEMO-1", "", author="x"),
        lambda: board.comment("DEMO-1", "x" * (1 << 20), author="x"),
        lambda: board.add(" "),
        lambda: board.add("t", identifier="DEMO-1"),
    ):
        with pytest.raises(TrackerError):
            call()
    assert (board.path / "DEMO-1.md").read_bytes() == before
    assert len(board.read().issues) == 1


ODD_PIECES = [
    *("---\n", "id: A\n", "title: t\n", "state: Todo\n", "- ", "[", "{", "}", "]", "&a ", "*a"),
    *("!!int x\n", "%YAML 9.9\n", "? ", ": ", "|\n", ">-\n", "\t", "\n", "  ", '"', "'", "\x00"),
    *('"\\ud800"', '"\\U00110000"', "created: 0001-01-01T00:00:00+14:00\n", "<<: *a\n", "#"),
    *("## Comments\n", "\r\n", "\ufeff", "\x85", "labels: [a, [b]]\n", "[" * 2000),
]
PIECES = st.lists(st.sampled_from(ODD_PIECES), max_size=14).map("".join)


@settings(deadline=None)
@given(st.booleans(), PIECES | st.text(max_size=80))
def test_any_text_is_an_issue_or_malformed(framed: bool, text: str) -> None:
    content = f"---\ntitle: t\nstate: Todo\n{text}\n---\nbody\n" if framed else text
    try:
        document = parse_document("X-1", content)
    except DocumentError:
        return
    assert document.title.strip()
    assert document.state.strip()
    assert document.id.strip()
    "".join((document.title, document.state, *document.labels)).encode()
    parse_comments(content)


def test_file_names_that_cannot_be_shown_are_malformed_and_can_be_named(board: Board) -> None:
    text = b"---\ntitle: t\nstate: Todo\n---\n"
    for name in (b"bad\xff-1.md", b"two\nlines.md"):
        with open(os.fsencode(board.path) + b"/" + name, "wb") as file:
            file.write(text)
    shown = [str(fault) for fault in board.read().malformed]
    assert len(shown) == 2
    assert all("rename it" in line and line.isprintable() for line in shown)


def test_a_disk_that_refuses_a_write_is_an_error_and_changes_nothing(board: Board) -> None:
    board.add("t")
    before = (board.path / "DEMO-1.md").read_bytes()
    script = (
        "import resource, sys\n"
        "from symphony.errors import TrackerError\n"
        "from symphony.trackers.local_board import Board\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40, 40))\n"
        "board = Board(sys.argv[1], prefix='DEMO')\n"
        "for call in (lambda: board.move('DEMO-1', 'Done'), lambda: board.add('x' * 99)):\n"
        "    try:\n"
        "        call()\n"
        "    except TrackerError as error:\n"
        "        print(error.code, error.message)\n"
    )
    command = [sys.executable, "-c", script, str(board.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("local_board_unusable") for line in lines)
    assert "File too large" in lines[0]
    assert (board.path / "DEMO-1.md").read_bytes() == before
    assert [issue.identifier for issue in board.read().issues] == ["DEMO-1"]


def test_an_unknown_issue_and_a_missing_folder_are_named(tmp_path: Path, board: Board) -> None:
    with pytest.raises(TrackerError, match="no issue `NOPE-1`") as caught:
        board.move("NOPE-1", "Done")
    assert error_code(caught) == "local_issue_not_found"
    with pytest.raises(TrackerError, match="does not exist; create it") as missing:
        Board(tmp_path / "absent").read()
    assert missing.value.category == "invalid_tracker_config"
    (tmp_path / "file").write_text("")
    with pytest.raises(TrackerError, match="is not a folder"):
        Board(tmp_path / "file").read()
    with pytest.raises(TrackerError, match=r"tracker\.provider\.prefix"):
        Board.create(tmp_path / "x", prefix="no spaces")


def test_a_held_lock_is_an_error_with_its_path_after_the_deadline(board: Board) -> None:
    from symphony.trackers.local_files import locked

    with (
        locked(board.path),
        pytest.raises(TrackerError, match=r"\.board\.lock") as caught,
        locked(board.path, timeout_s=0.02),
    ):
        pass
    assert error_code(caught) == "local_board_locked"
