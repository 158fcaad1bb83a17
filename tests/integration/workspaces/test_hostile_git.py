"""An agent plants programs in the git metadata of its workspace; none of them ever runs.

The sandbox alone would keep them from doing harm; here it is shown that they don't even start. A
fifo can be written from within the read-only sandbox, so each plant leaves its name in one, and
each test first shows that the plants do work for a git that is not ours.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from symphony.workspaces.inspection import work_in
from symphony.workspaces.sandbox import Sandbox

pytestmark = pytest.mark.timeout(60)

HOOKS = (
    "post-index-change",
    "reference-transaction",
    "post-checkout",
    "pre-push",
    "pre-auto-gc",
    "fsmonitor-watchman",
    "push-to-checkout",
)


class Witness:
    """Makes programs that tell of being started, through a fifo."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.fifo = folder / "started"
        os.mkfifo(self.fifo)
        self._fd = os.open(self.fifo, os.O_RDWR | os.O_NONBLOCK)

    def program(self, name: str) -> str:
        path = self.folder / name.replace("/", "_")
        passes_on = "cat" if "clean" in name or name in ("smudge", "included") else "exit 0"
        path.write_text(f"#!/bin/sh\necho {name} > {self.fifo}\n{passes_on}\n")
        path.chmod(0o755)
        return str(path)

    def heard(self) -> set[str]:
        """The names of the programs that were started since the last call."""
        try:
            return set(os.read(self._fd, 65536).decode().split())
        except BlockingIOError:
            return set()

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    witness = Witness(tmp_path / "planted")
    yield witness
    witness.close()


@pytest.fixture
def plant(witness: Witness, tmp_path: Path, git) -> Callable[[Path], None]:
    """Plants in a repository whatever makes git start a program."""

    def everywhere(path: Path) -> None:
        hooks = witness.folder / "hooks"
        hooks.mkdir(exist_ok=True)
        for name in HOOKS:
            for folder in (hooks, path / ".git" / "hooks"):
                folder.mkdir(exist_ok=True)
                (folder / name).write_bytes(Path(witness.program(f"hook-{name}")).read_bytes())
                (folder / name).chmod(0o755)
        for key, name in {
            "core.fsmonitor": "fsmonitor",
            "core.sshCommand": "ssh",
            "core.askPass": "askpass",
            "core.gitProxy": "proxy",
            "core.pager": "pager",
            "core.editor": "editor",
            "core.alternateRefsCommand": "alternate-refs",
            "credential.helper": "!credential",
            "diff.external": "diff",
            "gpg.program": "gpg",
            "filter.evil.clean": "clean",
            "filter.evil.smudge": "smudge",
            "filter.a=b.clean": "clean-with-an-equals-sign",
            "filter.Evil Two.process": "process",
            "remote.origin.uploadpack": "uploadpack",
            "remote.origin.receivepack": "receivepack",
            "uploadpack.packObjectsHook": "pack-objects",
            "alias.status": "!alias",
            "alias.rev-list": "!alias",
        }.items():
            bang = "!" if name.startswith("!") else ""
            git(path, "config", key, bang + witness.program(name.removeprefix("!")))
        git(path, "config", "core.hooksPath", str(hooks))
        included = tmp_path / "included.cfg"
        included.write_text(f'[filter "included"]\n clean = {witness.program("included")}\n')
        git(path, "config", "include.path", str(included))
        git(path, "config", "--add", "remote.origin.url", "ssh://example.invalid/a")
        git(path, "config", "--add", "remote.other.url", f"ext::{witness.program('ext')}")
        git(path, "config", "url.ext::x.insteadOf", "/nowhere")
        rules = "a.txt filter=evil\nb.txt filter=a=b\nc.txt filter=included\n"
        (path / ".git" / "info").mkdir(exist_ok=True)
        (path / ".git" / "info" / "attributes").write_text(rules)
        alternates = path / ".git" / "objects" / "info" / "alternates"
        before = alternates.read_text() if alternates.exists() else ""
        alternates.write_text(f"{before}{tmp_path}/nowhere/objects\n")
        # Same size, another time: git has to look into them, through the filters.
        for name in ("a.txt", "b.txt", "c.txt"):
            os.utime(path / name, (1, 1))

    return everywhere


@pytest.fixture
def victim(upstream: Path, git, commit, tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    git(tmp_path, "clone", "-q", str(upstream), str(path))
    commit(path, "b.txt")
    commit(path, "c.txt")
    git(path, "push", "-q", "origin", "HEAD:seen")
    return path


@pytest.fixture(params=["codex", "bubblewrap"])
async def sandbox(request, place) -> Sandbox:
    """Both kinds of sandbox, each on its own."""
    environ = {"PATH": "/usr/bin:/bin"}
    if request.param == "bubblewrap":
        environ["CODEX_PATH"] = "/nonexistent/codex"
    sandbox = Sandbox(place.host, environ, place.cache)
    if not await sandbox.available():
        pytest.skip(f"{request.param} does not confine on this machine")
    return sandbox


async def test_a_program_in_the_sandbox_would_be_heard(sandbox, witness):
    await sandbox.run([witness.program("canary")], {"PATH": sandbox.path}, timeout_s=20)
    assert witness.heard() == {"canary"}


def test_the_plants_work_for_a_git_that_is_not_ours(victim, plant, witness, git):
    plant(victim)
    git(victim, "status", check=False)
    git(victim, "ls-remote", check=False)
    heard = witness.heard()
    wanted = {"hook-post-index-change", "fsmonitor", "clean", "included", "uploadpack"}
    assert wanted <= heard
    assert heard & {"clean-with-an-equals-sign"}


async def test_looking_through_a_workspace_starts_none_of_them(victim, plant, witness, sandbox):
    assert await work_in(str(victim), sandbox) is None
    plant(victim)
    witness.heard()
    reason = await work_in(str(victim), sandbox)
    assert witness.heard() == set()
    assert reason is None


async def test_work_is_seen_through_all_that_was_planted(
    victim, plant, witness, sandbox, commit, git
):
    (victim / "new.txt").write_text("new\n")
    plant(victim)
    witness.heard()
    assert await work_in(str(victim), sandbox) == "uncommitted changes (?? new.txt)"
    git(victim, "-c", "core.hooksPath=/dev/null", "add", "new.txt")
    git(victim, "-c", "core.hooksPath=/dev/null", "commit", "-q", "-m", "new", "new.txt")
    witness.heard()
    assert "commits that no remote has" in (await work_in(str(victim), sandbox) or "")
    assert witness.heard() == set()


async def test_plants_in_a_submodule_are_not_started_either(
    victim, plant, witness, sandbox, git, upstream
):
    allow = ("-c", "protocol.file.allow=always")
    git(victim, *allow, "submodule", "--quiet", "add", str(upstream), "sub")
    git(victim, "commit", "-q", "-m", "sub")
    git(victim, "push", "-q", "origin", "HEAD:with-sub")
    fsmonitor = witness.program("sub-fsmonitor")
    git(victim / "sub", "config", "core.fsmonitor", fsmonitor)
    git(victim / "sub", "status")
    assert witness.heard() == {"sub-fsmonitor"}
    assert await work_in(str(victim), sandbox) is None
    assert witness.heard() == set()


async def test_a_work_tree_elsewhere_does_not_hide_the_work(victim, sandbox, git, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for name in ("a.txt", "b.txt", "c.txt"):
        (other / name).write_bytes((victim / name).read_bytes())
    git(victim, "config", "core.worktree", str(other))
    (victim / "a.txt").write_text("changed\n")
    assert await work_in(str(victim), sandbox) == "uncommitted changes (M a.txt)"


async def test_a_promised_object_is_never_fetched(victim, witness, sandbox, git):
    """A blob that is missing in a partial clone would be fetched, by any means the agent names."""
    git(victim, "config", "core.repositoryFormatVersion", "1")
    git(victim, "config", "extensions.partialClone", "origin")
    git(victim, "config", "remote.origin.promisor", "true")
    git(victim, "config", "remote.origin.uploadpack", witness.program("uploadpack"))
    (victim / ".git" / "refs" / "heads" / "broken").write_text("1" * 40 + "\n")
    git(victim, "log", "broken", check=False)
    assert witness.heard() == {"uploadpack"}
    await work_in(str(victim), sandbox)
    assert witness.heard() == set()


async def test_neither_secrets_nor_the_home_directory_get_in(place, sandbox):
    done = await sandbox.run(["env"], {"PATH": sandbox.path}, timeout_s=20)
    names = {line.partition("=")[0] for line in done.output.splitlines()}
    assert names <= {"PATH", "PWD", "SHLVL", "_", "CODEX_SANDBOX_NETWORK_DISABLED"}


async def test_bringing_a_branch_back_starts_none_of_them(
    place, run_spec, upstream, plant, witness, commit, git
):
    place.set(repository=str(upstream), push=True)
    spec = run_spec()
    workspace = await place.workspaces.prepare(spec)
    path = Path(workspace.path)
    commit(path, "b.txt")
    head = commit(path, "c.txt")
    plant(path)
    witness.heard()
    await place.workspaces.after_run(workspace, spec)
    assert witness.heard() == set()
    assert git(upstream, "rev-parse", "refs/heads/symphony/MT-1") == head
