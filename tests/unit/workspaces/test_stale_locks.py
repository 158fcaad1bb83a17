from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from symphony.workspaces.stale_locks import LIMIT, remove_stale_locks


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    path = tmp_path / "workspace"
    subprocess.run(["git", "init", "-q", "-b", "main", str(path)], check=True)
    (path / "file").write_text("x")
    return path


def test_a_git_that_was_killed_keeps_no_later_one_from_working(workspace: Path) -> None:
    (workspace / ".git/index.lock").touch()
    branch = workspace / ".git/refs/heads/symphony"
    branch.mkdir()
    (branch / "A-1.lock").touch()
    add = ["git", "-C", str(workspace), "add", "-A"]
    assert subprocess.run(add, capture_output=True).returncode != 0

    assert remove_stale_locks(str(workspace)) == ["index.lock", "refs/heads/symphony/A-1.lock"]

    assert subprocess.run(add, capture_output=True).returncode == 0


def test_nothing_else_is_removed(workspace: Path) -> None:
    (workspace / "poetry.lock").touch()
    (workspace / ".git/mine.lock").touch()
    (workspace / ".git/config.lock").mkdir()
    assert remove_stale_locks(str(workspace)) == []
    assert (workspace / "poetry.lock").exists()
    assert (workspace / ".git/mine.lock").exists()


@pytest.mark.parametrize("planted", [".git", ".git/refs", ".git/index.lock"])
def test_no_planted_link_is_followed(workspace: Path, tmp_path: Path, planted: str) -> None:
    outside = tmp_path / "outside"
    (outside / "heads").mkdir(parents=True)
    names = ["index.lock", "heads/a.lock"]
    for name in names:
        (outside / name).touch()
    link = workspace / planted
    if link.is_dir():
        link.rename(tmp_path / "away")
    link.symlink_to(outside / "index.lock" if planted.endswith(".lock") else outside)

    assert remove_stale_locks(str(workspace)) == []
    assert all((outside / name).exists() for name in names)


def test_a_workspace_without_git_has_no_locks(tmp_path: Path) -> None:
    assert remove_stale_locks(str(tmp_path)) == []
    assert remove_stale_locks(str(tmp_path / "none")) == []
    (tmp_path / ".git").write_text("gitdir: /elsewhere\n")
    assert remove_stale_locks(str(tmp_path)) == []


def test_so_many_locks_are_no_accident(workspace: Path) -> None:
    for number in range(LIMIT + 5):
        (workspace / f".git/refs/heads/{number}.lock").touch()
    assert len(remove_stale_locks(str(workspace))) == LIMIT
