"""Shared fixtures: the real Codex, private homes, and the skips that REQUIRE forbids."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
REQUIRED = frozenset(filter(None, os.environ.get("SYMPHONY_REQUIRE", "").split(",")))


def skip_or_fail(part: str, reason: str) -> None:
    """Skip with a reason, or fail where the caller demanded this part."""
    if part in REQUIRED:
        pytest.fail(f"required by REQUIRE={part}: {reason}")
    pytest.skip(reason)


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A HOME without a login profile: one can be slow, print to stdout or hang on a lock."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def cache_dir() -> Iterator[Path]:
    """A directory outside the temp directory, where a CODEX_HOME may lie."""
    base = Path(os.environ["SYMPHONY_TEST_CACHE"])
    directory = Path(tempfile.mkdtemp(dir=base))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)
