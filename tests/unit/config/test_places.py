"""Files that are deleted or replaced under a running daemon are found out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from symphony.config.places import Places


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir()
    (made / "lock").write_text("x")
    return made


def test_a_file_that_stays_is_not_lost(folder: Path) -> None:
    places = Places({"the state directory": folder / "lock"})
    (folder / "lock").write_text("written again")
    assert places.lost() is None


def test_a_deleted_directory_is_named_with_the_mend(folder: Path) -> None:
    places = Places({"the state directory": folder / "lock"})
    shutil.rmtree(folder)
    lost = places.lost()
    assert lost is not None
    assert f"the state directory ({folder}) was deleted or replaced" in lost
    assert f"stop this daemon (pid {os.getpid()})" in lost


def test_a_replaced_file_is_lost_and_the_same_one_put_back_is_not(folder: Path) -> None:
    places = Places({"the state directory": folder / "lock"})
    aside = folder.with_name("aside")
    folder.rename(aside)
    folder.mkdir()
    (folder / "lock").write_text("x")
    assert places.lost() is not None
    shutil.rmtree(folder)
    aside.rename(folder)
    assert places.lost() is None


def test_what_is_not_there_at_the_start_is_an_error(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Places({"the ledger": folder / "ledger"})
