"""Workspaces that are clones of a mirror, and the way of a branch back."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from symphony.errors import WorkspaceError

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def mirror(place):
    """Returns the one mirror in the cache."""

    def find() -> Path:
        (path,) = (place.cache / "mirrors").glob("*.git")
        return path

    return find


async def test_a_workspace_is_a_clone_on_the_issues_branch(place, run_spec, upstream, git, mirror):
    place.set(repository=str(upstream))
    place.hooks(after_create="git branch --show-current > seen-by-hook.txt")
    workspace = await place.workspaces.prepare(run_spec())
    path = Path(workspace.path)
    assert (path / "a.txt").read_text() == "one\n"
    assert (path / "seen-by-hook.txt").read_text() == "symphony/MT-1\n"
    assert git(path, "rev-parse", "HEAD") == git(upstream, "rev-parse", "main")
    assert git(path, "remote", "get-url", "--push", "origin") == str(upstream)
    assert git(path, "remote", "get-url", "origin") == str(mirror())
    alternates = (path / ".git" / "objects" / "info" / "alternates").read_text()
    assert alternates == f"{mirror()}/objects\n"
    assert (path / ".git").is_dir()
    assert not list((path / ".git").glob("hooks/*"))


async def test_work_starts_from_the_base(place, run_spec, upstream):
    place.set(repository=str(upstream), base="dev", branch="agents/{{ issue.id }}")
    workspace = await place.workspaces.prepare(run_spec())
    assert (Path(workspace.path) / "b.txt").exists()
    assert (Path(workspace.path) / ".git" / "HEAD").read_text() == (
        "ref: refs/heads/agents/id-MT-1\n"
    )


async def test_a_repository_without_that_base_fails_the_attempt_and_leaves_nothing(
    place, run_spec, upstream
):
    place.set(repository=str(upstream), base="nowhere")
    with pytest.raises(
        WorkspaceError, match=r"has no branch nowhere; set workspace\.base"
    ) as caught:
        await place.workspaces.prepare(run_spec())
    assert caught.value.category == "workspace_base_missing"
    assert not (place.root / "MT-1").exists()


async def test_a_repository_that_is_gone_fails_the_attempt_with_gits_own_words(
    place, run_spec, tmp_path
):
    place.set(repository=str(tmp_path / "gone.git"))
    place.hooks(after_create="touch ran")
    with pytest.raises(WorkspaceError, match=r"git fetch failed .*does not appear to be a git"):
        await place.workspaces.prepare(run_spec())
    assert not (place.root / "MT-1").exists()


async def test_a_silent_remote_fails_the_attempt_within_the_deadline(place, run_spec, alive):
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(never, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        place.set(repository=f"git://127.0.0.1:{port}/a", git_timeout_ms=500)
        with pytest.raises(WorkspaceError) as caught:
            await place.workspaces.prepare(run_spec())
        assert caught.value.category == "workspace_git_timeout"
        assert alive() == 1  # the supervisor


async def test_a_workspace_that_is_there_is_never_reset(
    place, run_spec, upstream, git, commit, mirror
):
    place.set(repository=str(upstream))
    workspace = await place.workspaces.prepare(run_spec())
    path = Path(workspace.path)
    head = commit(path)
    (path / "a.txt").write_text("half done\n")
    git(path, "checkout", "-q", "--detach")
    (path / ".git" / "index.lock").touch()
    git(upstream, "update-ref", "refs/heads/main", "refs/heads/dev")
    again = await place.workspaces.prepare(run_spec())
    assert not again.created_now
    assert git(path, "rev-parse", "HEAD") == head
    assert (path / "a.txt").read_text() == "half done\n"
    # Nobody holds it any more, and it would keep every git of the agent from working.
    assert not (path / ".git" / "index.lock").exists()
    # The mirror is renewed, so that the agent can fetch without a network.
    assert git(mirror(), "rev-parse", "main") == git(upstream, "rev-parse", "dev")


async def test_a_remote_that_is_gone_does_not_stop_a_workspace_that_is_there(
    place, run_spec, upstream, caplog
):
    place.set(repository=str(upstream))
    await place.workspaces.prepare(run_spec())
    upstream.rename(f"{upstream}.away")
    workspace = await place.workspaces.prepare(run_spec())
    assert not workspace.created_now
    assert "Mirror not refreshed" in caplog.messages


async def test_a_workspace_keeps_its_repository_and_branch_whatever_the_settings_become(
    place, run_spec, issue, upstream, commit, git, mirror
):
    place.set(repository=str(upstream))
    spec = run_spec()
    workspace = await place.workspaces.prepare(spec)
    head = commit(workspace.path)
    place.set(repository="/nowhere", branch="other/{{ issue.id }}")
    await place.another().after_run(workspace, spec)
    assert git(mirror(), "rev-parse", "refs/symphony/symphony/MT-1") == head
    place.set()
    await place.another().remove(issue())
    assert place.kept == []


async def test_a_workspace_that_a_hook_has_filled_is_not_fetched_from(
    place, run_spec, issue, upstream, commit, git, caplog
):
    place.set(repository=str(upstream))
    spec = run_spec()
    await place.workspaces.prepare(spec)
    await place.workspaces.remove(issue())
    place.set()
    place.hooks(after_create=f"git clone -q {upstream} . && git checkout -q -b symphony/MT-1")
    workspace = await place.workspaces.prepare(spec)
    place.set(repository=str(upstream))
    commit(workspace.path)
    with caplog.at_level(logging.INFO):
        await place.workspaces.after_run(workspace, spec)
    assert "Branch fetched" not in caplog.messages
    await place.workspaces.remove(issue())
    assert len(place.kept) == 1


async def test_only_the_issues_branch_comes_back_by_its_exact_name(
    place, run_spec, upstream, git, commit, mirror
):
    place.set(repository=str(upstream))
    spec = run_spec()
    workspace = await place.workspaces.prepare(spec)
    head = commit(workspace.path)
    git(workspace.path, "branch", "other")
    git(workspace.path, "tag", "planted")
    git(workspace.path, "branch", "-f", "main", head)
    before = git(upstream, "for-each-ref")
    main = git(mirror(), "rev-parse", "refs/heads/main")
    await place.workspaces.after_run(workspace, spec)
    refs = git(mirror(), "for-each-ref", "--format=%(refname)").split()
    assert set(refs) == {"refs/heads/dev", "refs/heads/main", "refs/symphony/symphony/MT-1"}
    assert git(mirror(), "rev-parse", "refs/symphony/symphony/MT-1") == head
    assert git(mirror(), "rev-parse", "refs/heads/main") == main
    assert git(upstream, "for-each-ref") == before


async def test_work_that_came_back_is_no_reason_to_keep_and_is_taken_up_again(
    place, run_spec, issue, upstream, commit, git
):
    place.set(repository=str(upstream))
    spec = run_spec()
    workspace = await place.workspaces.prepare(spec)
    head = commit(workspace.path)
    await place.workspaces.remove(issue())  # brings it back by itself: a daemon may have died
    assert place.kept == []
    assert place.names == []
    workspace = await place.workspaces.prepare(spec)
    assert workspace.created_now
    assert git(workspace.path, "rev-parse", "HEAD") == head


async def test_a_push_goes_from_the_mirror_and_only_with_work(
    place, run_spec, upstream, commit, git
):
    place.set(repository=str(upstream), push=True)
    spec = run_spec()
    workspace = await place.workspaces.prepare(spec)
    await place.workspaces.after_run(workspace, spec)
    assert git(upstream, "for-each-ref", "refs/heads/symphony") == ""
    for name in ("one.txt", "two.txt"):
        head = commit(workspace.path, name)
        await place.workspaces.after_run(workspace, spec)
        assert git(upstream, "rev-parse", "symphony/MT-1") == head
    # Work that was done over is pushed too: nobody else has touched the branch.
    git(workspace.path, "commit", "-q", "--amend", "-m", "Again")
    await place.workspaces.after_run(workspace, spec)
    assert git(upstream, "log", "-1", "--format=%s", "symphony/MT-1") == "Again"


async def test_what_somebody_else_pushed_is_not_overwritten(
    place, run_spec, upstream, commit, git, caplog
):
    place.set(repository=str(upstream), push=True)
    spec = run_spec()
    workspace = await place.workspaces.prepare(spec)
    git(upstream, "update-ref", "refs/heads/symphony/MT-1", "refs/heads/dev")
    commit(workspace.path)
    await place.workspaces.after_run(workspace, spec)
    assert git(upstream, "rev-parse", "symphony/MT-1") == git(upstream, "rev-parse", "dev")
    said = next(r for r in caplog.records if r.message == "Branch not brought back")
    assert "git push failed" in said.error


async def test_a_branch_that_a_person_has_moved_on_is_where_a_new_workspace_starts(
    place, run_spec, issue, upstream, commit, git, tmp_path
):
    place.set(repository=str(upstream), push=True)
    spec = run_spec()
    commit((await place.workspaces.prepare(spec)).path)
    await place.workspaces.remove(issue())
    person = tmp_path / "person"
    git(tmp_path, "clone", "-q", "-b", "symphony/MT-1", str(upstream), str(person))
    head = commit(person, "review.txt")
    git(person, "push", "-q", "origin", "HEAD")
    workspace = await place.workspaces.prepare(spec)
    assert git(workspace.path, "rev-parse", "HEAD") == head


async def test_an_empty_branch_of_an_agent_that_left_its_branch_is_only_logged(
    place, run_spec, upstream, git, caplog
):
    place.set(repository=str(upstream))
    spec = run_spec()
    workspace = await place.workspaces.prepare(spec)
    git(workspace.path, "checkout", "-q", "-b", "elsewhere")
    git(workspace.path, "branch", "-q", "-D", "symphony/MT-1")
    await place.workspaces.after_run(workspace, spec)
    assert "Branch not brought back" in caplog.messages


async def test_twenty_issues_are_cloned_at_once_by_few_fetches(
    place, run_spec, upstream, git, tmp_path, mirror
):
    programs = tmp_path / "bin"
    programs.mkdir()
    log = tmp_path / "git.log"
    (programs / "git").write_text(f'#!/bin/sh\necho "$*" >> {log}\nexec /usr/bin/git "$@"\n')
    (programs / "git").chmod(0o755)
    place.environ["PATH"] = f"{programs}:/usr/bin:/bin"
    place.set(repository=str(upstream))
    workspaces = place.another()
    specs = [run_spec(f"MT-{number}") for number in range(20)]
    made = await asyncio.gather(*(workspaces.prepare(spec) for spec in specs))
    for spec, workspace in zip(specs, made, strict=True):
        branch = git(workspace.path, "branch", "--show-current")
        assert branch == f"symphony/{spec.issue.identifier}"
        assert git(workspace.path, "status", "--porcelain") == ""
    fetches = [line for line in log.read_text().splitlines() if " fetch " in line]
    assert 1 <= len(fetches) <= 3
    git(mirror(), "fsck", "--strict")


async def test_a_renewal_under_way_does_not_hide_the_default_branch(place, run_spec, upstream, git):
    git(upstream, "symbolic-ref", "HEAD", "refs/heads/dev")
    place.set(repository=str(upstream), base="main")
    await place.workspaces.prepare(run_spec("MT-0"))
    renewals = [place.workspaces.prepare(run_spec("MT-0")) for _ in range(2)]
    place.set(repository=str(upstream))
    *_, workspace = await asyncio.gather(*renewals, place.workspaces.prepare(run_spec("MT-1")))
    assert git(workspace.path, "rev-parse", "HEAD") == git(upstream, "rev-parse", "dev")


async def test_two_daemons_share_a_mirror(place, run_spec, upstream, tmp_path, git):
    place.set(repository=str(upstream))
    daemons = [place.another(), place.another()]
    specs = [run_spec(f"MT-{number}") for number in range(8)]
    made = await asyncio.gather(
        *(daemons[number % 2].prepare(spec) for number, spec in enumerate(specs))
    )
    assert all(git(workspace.path, "fsck") == "" for workspace in made)


async def test_many_packs_are_joined_and_no_workspace_loses_an_object(
    place, run_spec, upstream, git, mirror, tmp_path
):
    place.set(repository=str(upstream))
    workspace = await place.workspaces.prepare(run_spec())
    seed = tmp_path / "more"
    git(tmp_path, "clone", "-q", str(upstream), str(seed))
    packs = mirror() / "objects" / "pack"
    for number in range(51):
        one = git(seed, "commit-tree", "-m", str(number), "HEAD^{tree}")
        pack = f"echo {one} | git --git-dir={seed}/.git pack-objects -q {packs}/pack"
        await asyncio.to_thread(os.system, f"{pack} >/dev/null")
    git(upstream, "update-ref", "-d", "refs/heads/dev")
    git(upstream, "update-ref", "refs/heads/main", git(seed, "rev-parse", "HEAD"))
    lost_to_the_remote = git(workspace.path, "rev-parse", "refs/remotes/origin/dev")
    await place.another().prepare(run_spec("MT-2"))
    assert len(list(packs.glob("*.pack"))) < 51
    assert git(mirror(), "for-each-ref", "refs/heads/dev") == ""
    assert git(workspace.path, "cat-file", "-t", lost_to_the_remote) == "commit"


@pytest.mark.parametrize("verb", ["fetch", "clone", "checkout"])
async def test_a_kill_in_the_middle_is_recovered_from(
    place, run_spec, upstream, git, tmp_path, verb, eventually, mirror
):
    """Git hangs in the middle, as on a slow disk, and daemon and git die by SIGKILL."""
    programs = tmp_path / "bin"
    programs.mkdir()
    pids = tmp_path / "pids"
    (programs / "git").write_text(
        "#!/bin/sh\n"
        f'case " $* " in *" {verb} "*)\n'
        f"  if [ ! -e {pids} ]; then\n"
        '    d=${1#--git-dir=}; [ -d "$d" ] && touch "$d/packed-refs.lock" "$d/index.lock"\n'
        '    [ -d "$d/objects/pack" ] && touch "$d/objects/pack/tmp_pack_x"\n'
        f"    echo $$ > {pids}.new; mv {pids}.new {pids}\n"
        "    exec sleep 1000\n"
        "  fi;;\n"
        "esac\n"
        'exec /usr/bin/git "$@"\n'
    )
    (programs / "git").chmod(0o755)
    place.environ["PATH"] = f"{programs}:/usr/bin:/bin"
    place.set(repository=str(upstream))
    first = asyncio.create_task(place.another().prepare(run_spec()))
    await eventually(pids.exists)
    # What the death of a daemon is for this: no cleaning up, and its supervisor's end.
    os.kill(place.host.supervisor_pid, signal.SIGKILL)
    with pytest.raises(Exception, match="lost"):
        await first
    await eventually(lambda: not _alive(int(pids.read_text())))
    _leave_half_made(place.root / "MT-1", place.root)
    workspace = await place.another().prepare(run_spec())
    assert workspace.created_now
    assert git(workspace.path, "status", "--porcelain") == ""
    assert git(workspace.path, "branch", "--show-current") == "symphony/MT-1"
    assert list(mirror().rglob("*.lock")) == []
    assert list(mirror().rglob("tmp_pack*")) == []


def _alive(pid: int) -> bool:
    try:
        return b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _leave_half_made(path: Path, root: Path) -> None:
    """Put back what a daemon that is dead could not have taken away."""
    (path / ".git" / "objects").mkdir(parents=True)
    (path / ".git" / "index.lock").touch()
    (root / ".symphony" / "unfinished" / path.name).touch()


@contextmanager
def _held(path: str) -> Iterator[None]:
    with open(path, "rb+") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        yield


async def test_waiting_for_another_daemons_lock_has_an_end(place, run_spec, upstream, mirror):
    place.set(repository=str(upstream))
    await place.workspaces.prepare(run_spec())
    place.set(repository=str(upstream), git_timeout_ms=300)
    with _held(f"{mirror()}.lock"):
        began = time.monotonic()
        with pytest.raises(WorkspaceError, match="another daemon has worked on the mirror"):
            await place.another().prepare(run_spec("MT-2"))
        assert time.monotonic() - began < 10
    assert (await place.another().prepare(run_spec("MT-2"))).created_now


async def test_the_trackers_secrets_reach_neither_git_nor_its_helpers(
    place, run_spec, tmp_path, upstream
):
    programs = tmp_path / "bin"
    programs.mkdir()
    log = tmp_path / "env.log"
    (programs / "git").write_text(f'#!/bin/sh\nenv >> {log}\nexec /usr/bin/git "$@"\n')
    (programs / "git").chmod(0o755)
    place.environ |= {"PATH": f"{programs}:/usr/bin:/bin", "GIT_DIR": "/nowhere"}
    place.set(repository=str(upstream))
    spec = run_spec()
    workspaces = place.another()
    await workspaces.after_run(await workspaces.prepare(spec), spec)
    text = log.read_text()
    assert "GIT_TERMINAL_PROMPT=0" in text
    assert "s3cret" not in text
    assert "GIT_DIR=/nowhere" not in text


async def test_the_branch_of_an_issue_named_like_the_base_is_refused(place, run_spec, upstream):
    place.set(repository=str(upstream), base="MT-1", branch="{{ issue.identifier }}")
    with pytest.raises(WorkspaceError) as caught:
        await place.workspaces.prepare(run_spec())
    assert caught.value.category == "workspace_branch_invalid"


async def test_a_fetch_by_nobodys_sandbox_is_not_done(
    place, run_spec, upstream, commit, tmp_path, caplog, mirror, git
):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("git", "sh", "bash", "env"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    place.environ |= {"PATH": str(programs), "CODEX_PATH": "/nonexistent/codex"}
    place.set(repository=str(upstream))
    spec = run_spec()
    workspaces = place.another()
    workspace = await workspaces.prepare(spec)
    commit(workspace.path)
    with caplog.at_level(logging.WARNING):
        await workspaces.after_run(workspace, spec)
    assert "Branch not fetched: no sandbox holds here" in caplog.messages
    assert git(mirror(), "for-each-ref", "refs/symphony") == ""
