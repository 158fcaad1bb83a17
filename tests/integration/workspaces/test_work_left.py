"""What becomes of a finished issue's workspace that holds work."""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def clone(place, run_spec, upstream, git):
    """Prepares a workspace that a hook fills by a plain clone; returns its path."""

    async def make(identifier: str = "MT-1") -> Path:
        place.hooks(after_create=f"git clone -q {upstream} .")
        workspace = await place.workspaces.prepare(run_spec(identifier))
        return Path(workspace.path)

    return make


async def test_a_clean_clone_is_deleted(place, issue, clone):
    path = await clone()
    assert await place.workspaces.remove(issue())
    assert not path.exists()
    assert place.kept == []


async def test_commits_that_were_pushed_are_no_reason_to_keep(place, issue, clone, commit, git):
    path = await clone()
    git(path, "checkout", "-q", "-b", "topic")
    commit(path)
    git(path, "push", "-q", "origin", "topic")
    await place.workspaces.remove(issue())
    assert not path.exists()
    assert place.kept == []


async def test_commits_that_a_hook_fetched_from_outside_are_no_reason_to_keep(
    place, issue, clone, commit, git, upstream
):
    path = await clone()
    git(path, "checkout", "-q", "-b", "topic")
    commit(path)
    git(upstream, "fetch", "-q", str(path), "refs/heads/topic:refs/heads/from-outside")
    await place.workspaces.remove(issue())
    assert place.kept == []


def untracked(path: Path, commit, git) -> None:
    (path / "new.txt").write_text("new\n")


def changed(path: Path, commit, git) -> None:
    (path / "a.txt").write_text("longer than before\n")


def staged_deletion(path: Path, commit, git) -> None:
    git(path, "rm", "-q", "a.txt")


def unpushed(path: Path, commit, git) -> None:
    commit(path)


def unpushed_on_another_branch(path: Path, commit, git) -> None:
    git(path, "checkout", "-q", "-b", "aside")
    commit(path)
    git(path, "checkout", "-q", "main")


def detached(path: Path, commit, git) -> None:
    git(path, "checkout", "-q", "--detach")
    commit(path)


def stashed(path: Path, commit, git) -> None:
    changed(path, commit, git)
    git(path, "stash", "-q")


def in_a_submodule(path: Path, commit, git) -> None:
    source = path.parents[1] / "upstream.git"
    allow = ("-c", "protocol.file.allow=always")
    git(path, *allow, "submodule", "--quiet", "add", str(source), "sub")
    git(path, "commit", "-q", "-m", "Add a submodule")
    git(path, "push", "-q", "origin", "HEAD:with-sub")
    (path / "sub" / "new.txt").write_text("new\n")


def no_repository_any_more(path: Path, commit, git) -> None:
    os.rename(path / ".git", path / "git")


def broken(path: Path, commit, git) -> None:
    (path / ".git" / "HEAD").write_text("nonsense\n")


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (untracked, "uncommitted changes (?? new.txt)"),
        (changed, "uncommitted changes (M a.txt)"),
        (staged_deletion, "uncommitted changes (D  a.txt)"),
        (unpushed, "commits that no remote has"),
        (unpushed_on_another_branch, "commits that no remote has"),
        (detached, "commits that no remote has"),
        (stashed, "commits that no remote has"),
        (in_a_submodule, "uncommitted changes (?? new.txt)"),
        (no_repository_any_more, "files outside of any git repository"),
        (broken, "it could not be looked through"),
    ],
)
async def test_work_is_kept_aside_and_named_in_the_log(
    place, issue, clone, commit, git, caplog, work, reason
):
    path = await clone()
    work(path, commit, git)
    files = sorted(os.listdir(path))
    with caplog.at_level(logging.WARNING):
        assert await place.workspaces.remove(issue())
    assert not path.exists()
    assert place.kept == ["MT-1-20260301T120000Z"]
    aside = place.root / ".symphony" / "kept" / place.kept[0]
    assert sorted(os.listdir(aside)) == files
    said = next(record for record in caplog.records if "kept aside" in record.message)
    assert (said.kept, said.issue_identifier) == (str(aside), "MT-1")
    assert said.reason.startswith(reason)


async def test_ignored_files_are_no_work(place, issue, clone, git, commit):
    path = await clone()
    (path / ".gitignore").write_text("build/\n")
    git(path, "add", "-A")
    git(path, "commit", "-q", "-m", "Ignore")
    git(path, "push", "-q", "origin", "HEAD:ignoring")
    (path / "build").mkdir()
    (path / "build" / "out").write_text("x")
    await place.workspaces.remove(issue())
    assert place.kept == []


async def test_what_an_interrupted_sandbox_leaves_behind_is_no_work(place, issue, run_spec):
    workspace = await place.workspaces.prepare(run_spec())
    for name in (".git", ".codex", ".agents"):
        os.mkdir(os.path.join(workspace.path, name))
    await place.workspaces.remove(issue())
    assert place.kept == []
    assert place.names == []


async def test_a_worktree_of_the_operators_repository_loses_nothing_by_its_branch(
    place, issue, run_spec, upstream, commit
):
    place.hooks(after_create=f"git -C {upstream} worktree add -q -b topic $PWD main")
    workspace = await place.workspaces.prepare(run_spec())
    commit(workspace.path)
    await place.workspaces.remove(issue())
    assert place.kept == []


async def test_before_remove_may_still_bring_the_work_away(place, issue, clone, commit):
    path = await clone()
    commit(path)
    place.hooks(before_remove="git push -q origin HEAD:saved")
    await place.workspaces.remove(issue())
    assert place.kept == []


async def test_the_policy_keep_leaves_it_where_it_is(place, issue, clone, commit, caplog):
    path = await clone()
    commit(path)
    place.set(on_dirty="keep")
    assert not await place.workspaces.remove(issue())
    assert (path / "work.txt").exists()
    assert "Workspace stays: it holds work" in caplog.messages


async def test_the_policy_delete_asks_nothing(place, issue, clone, commit):
    path = await clone()
    commit(path)
    place.set(on_dirty="delete")
    assert await place.workspaces.remove(issue())
    assert not path.exists()
    assert place.kept == []


async def test_an_issue_that_comes_back_twice_is_kept_under_two_names(place, issue, clone, commit):
    for _ in range(2):
        commit(await clone())
        await place.workspaces.remove(issue())
    assert place.kept == ["MT-1-20260301T120000Z", "MT-1-20260301T120000Z-2"]


async def test_a_workspace_whose_directory_is_read_only_is_kept_all_the_same(
    place, issue, clone, commit
):
    path = await clone()
    commit(path)
    path.chmod(0o555)
    await place.workspaces.remove(issue())
    assert len(place.kept) == 1


async def test_the_oldest_goes_beyond_the_number_and_the_log_says_so(
    place, issue, clone, commit, caplog
):
    place.set(kept_count=2)
    for number in range(3):
        commit(await clone(f"MT-{number}"))
        place.now += timedelta(minutes=1)
        await place.workspaces.remove(issue(f"MT-{number}"))
    assert [name[:4] for name in place.kept] == ["MT-1", "MT-2"]
    gone = [record.kept for record in caplog.records if "Kept workspace deleted" in record.message]
    assert len(gone) == 1
    assert os.path.basename(gone[0]).startswith("MT-0-")


async def test_what_was_kept_too_long_goes_at_the_next_start(place, issue, clone, commit):
    commit(await clone())
    await place.workspaces.remove(issue())
    place.now += timedelta(days=13)
    await place.another().open()
    assert len(place.kept) == 1
    place.now += timedelta(days=2)
    await place.another().open()
    assert place.kept == []


async def test_without_a_sandbox_nothing_is_run_and_everything_is_kept(
    place, issue, clone, tmp_path
):
    await clone()
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("git", "sh", "bash", "env"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    place.environ |= {"PATH": str(programs), "CODEX_PATH": "/nonexistent/codex"}
    await place.another().remove(issue())
    assert len(place.kept) == 1


async def test_a_codex_that_does_not_confine_is_not_taken_for_a_sandbox(
    place, issue, clone, tmp_path, caplog
):
    await clone()
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("git", "sh", "bash", "env"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    codex = programs / "codex"
    codex.write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n')
    codex.chmod(0o755)
    place.environ |= {"PATH": str(programs), "CODEX_PATH": str(codex)}
    await place.another().remove(issue())
    assert len(place.kept) == 1
    assert any("No sandbox holds here" in message for message in caplog.messages)
