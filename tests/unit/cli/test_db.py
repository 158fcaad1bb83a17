"""``symphony db`` reads a ledger wherever it lies."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from symphony.cli import main


@pytest.fixture
def workflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = tmp_path / "WORKFLOW.md"
    path.write_text("---\ntracker: {kind: memory}\n---\n")
    return path


def test_a_ledger_at_rest_is_read_where_nothing_can_be_written_beside_it(
    workflow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "state" / "symphony" / "old"
    folder.mkdir(parents=True)
    with closing(sqlite3.connect(folder / "ledger.sqlite3")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript("CREATE TABLE runs (workflow_id); PRAGMA user_version=1;")
    # What SQLite wants to make beside a file in WAL mode can't be made, as on a read-only disk.
    (folder / "ledger.sqlite3-shm").mkdir()
    with pytest.raises(SystemExit) as ended:
        main(["db", "check", "--workflow", str(workflow), "--instance", "old"])
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    assert "well, version 1; 0 runs" in said.out


def test_a_ledger_of_a_newer_symphony_is_told(
    workflow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "state" / "symphony" / "old"
    folder.mkdir(parents=True)
    with closing(sqlite3.connect(folder / "ledger.sqlite3")) as connection:
        connection.executescript("CREATE TABLE runs (workflow_id); PRAGMA user_version=99;")
    with pytest.raises(SystemExit) as ended:
        main(["db", "check", "--workflow", str(workflow), "--instance", "old"])
    said = capsys.readouterr()
    assert ended.value.code == 1
    assert "of a newer Symphony (version 99" in said.out
    assert "0 runs" in said.out


def test_an_empty_file_is_told_from_a_ledger(
    workflow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "state" / "symphony" / "old"
    folder.mkdir(parents=True)
    (folder / "ledger.sqlite3").touch()
    for words in (("check",), ("prune", "--older-than-days", "1")):
        with pytest.raises(SystemExit) as ended:
            main(["db", *words, "--workflow", str(workflow), "--instance", "old"])
        assert ended.value.code == 1
        assert "is damaged: it is empty; the daemon's next start" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["ledger.sqlite3"]
