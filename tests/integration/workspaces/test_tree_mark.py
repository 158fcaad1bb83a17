"""The digest of a workspace tells every change of it, and says nothing where nobody can tell."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def clone(place, run_spec, upstream):
    """Prepares a workspace that a hook fills by a plain clone; returns its path."""

    async def make(identifier: str = "MT-1") -> Path:
        place.hooks(after_create=f"git clone -q {upstream} .")
        workspace = await place.workspaces.prepare(run_spec(identifier))
        return Path(workspace.path)

    return make


async def test_every_kind_of_change_gives_another_digest(place, clone, commit, git):
    path = await clone()
    seen = [await place.workspaces.tree_mark(str(path))]

    async def changes() -> bool:
        seen.append(await place.workspaces.tree_mark(str(path)))
        return seen[-1] not in (None, *seen[:-1])

    (path / "new.txt").write_text("one\n")
    assert await changes(), "an untracked file"
    (path / "new.txt").write_text("longer\n")
    assert await changes(), "a changed untracked file"
    (path / "a.txt").write_text("other\n")
    assert await changes(), "a changed file"
    (path / "a.txt").write_text("once more\n")
    assert await changes(), "a file that was changed before"
    git(path, "add", ".")
    assert await changes(), "the index"
    commit(path)
    assert await changes(), "a commit"


async def test_looking_twice_and_ignored_files_change_nothing(place, clone, commit, git):
    path = await clone()
    (path / ".git" / "info" / "exclude").write_text("cache/\n")
    before = await place.workspaces.tree_mark(str(path))
    (path / "cache").mkdir()
    (path / "cache" / "x").write_text("x")
    assert before is not None
    assert await place.workspaces.tree_mark(str(path)) == before


async def test_files_outside_of_a_repository_can_not_be_told(place, run_spec):
    workspace = await place.workspaces.prepare(run_spec("MT-1"))
    (Path(workspace.path) / "loose.txt").write_text("x")
    assert await place.workspaces.tree_mark(workspace.path) is None


async def test_a_hostile_repository_runs_nothing(place, clone, git, tmp_path):
    path = await clone()
    trace = tmp_path / "planted"
    git(path, "config", "core.fsmonitor", f"touch {trace}; false")
    git(path, "config", "filter.evil.clean", f"touch {trace}; cat")
    (path / ".gitattributes").write_text("* filter=evil\n")
    (path / "a.txt").write_text("changed\n")
    await place.workspaces.tree_mark(str(path))
    assert not trace.exists()
