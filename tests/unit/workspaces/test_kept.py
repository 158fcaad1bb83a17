from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from symphony.errors import WorkspaceError
from symphony.workspaces.kept import keep_aside, kept_folder, prune
from symphony.workspaces.keys import KEY_LIMIT

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def test_the_longest_key_can_be_kept_and_found_again(tmp_path: Path) -> None:
    key = "k" * KEY_LIMIT
    (tmp_path / key).mkdir()
    path = keep_aside(str(tmp_path), key, NOW)
    assert os.path.isdir(path)
    later = NOW + timedelta(days=2)
    assert prune(str(tmp_path), now=later, days=1, count=9) == [path]
    assert not os.path.exists(path)


def test_what_is_not_of_ours_in_the_folder_is_never_deleted(tmp_path: Path) -> None:
    folder = Path(kept_folder(str(tmp_path)))
    folder.mkdir(parents=True)
    names = ["notes", "MT-1-20269999T999999Z", "MT-1"]
    for name in names:
        (folder / name).mkdir()
    assert prune(str(tmp_path), now=NOW, days=1, count=1) == []
    assert sorted(os.listdir(folder)) == sorted(names)


def test_time_and_number_both_count(tmp_path: Path) -> None:
    for days in (9, 3, 2, 1):
        (tmp_path / f"MT-{days}").mkdir()
        keep_aside(str(tmp_path), f"MT-{days}", NOW - timedelta(days=days))
    gone = prune(str(tmp_path), now=NOW, days=7, count=2)
    assert [os.path.basename(path)[:4] for path in gone] == ["MT-9", "MT-3"]
    assert prune(str(tmp_path), now=NOW, days=7, count=2) == []


def test_a_root_without_kept_ones_is_no_error(tmp_path: Path) -> None:
    assert prune(str(tmp_path / "none"), now=NOW, days=1, count=1) == []


def test_what_can_not_be_kept_is_told(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError) as caught:
        keep_aside(str(tmp_path), "gone", NOW)
    assert caught.value.category == "workspace_keep_failed"
