"""The bare mirror of a repository: our own copy, from which workspaces are cloned.

Its ``refs/heads`` and ``refs/tags`` are the remote's; ``refs/symphony`` has the branches that came
back from workspaces. Invariants: all writing happens under one lock, within this process and
between daemons; what a killed git left is cleared before the next; no object is ever deleted, since
workspaces borrow them (``objects/info/alternates``); an agent's repository is only ever read by a
git inside the sandbox, whose answer is taken as one exact ref.

``population`` clones from it, ``manager`` fills it before and after runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from symphony.errors import WorkspaceError

from .git import Git, hostile_environment
from .sandbox import Sandbox

_log = logging.getLogger(__name__)

COLLECTED = "refs/symphony/"
"""Where branches from workspaces lie in a mirror."""

_LOCK_POLL_S = 0.1
_PACK_LIMIT = 50


class Mirror:
    """One repository's mirror.

    Args:
        url: Of the remote, as git takes it.
        folder: Where mirrors lie; not writable for agents.
        git: Runs our own git.
        timeout_s: Limit of each command, and of waiting for the lock.
    """

    def __init__(self, url: str, folder: Path, git: Git, *, timeout_s: float) -> None:
        self.url = url
        name = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        self.path = str(folder / f"{_readable(url)}-{name}.git")
        self.timeout_s = timeout_s
        self.git = git
        self._writing = asyncio.Lock()
        self._fetch_began = float("-inf")
        self._fetch_followed = False

    async def refresh(self, *, needs_default: bool = False) -> None:
        """Bring the remote's branches and tags here; one fetch serves all who ask meanwhile.

        Args:
            needs_default: Whether the mirror's HEAD must follow the remote's.

        Raises:
            WorkspaceError: git failed or took too long, or the lock could not be had.
        """
        asked = time.monotonic()
        async with self._locked():
            if self._fetch_began >= asked and (self._fetch_followed or not needs_default):
                return
            began = time.monotonic()
            await self._make()
            await self._git(
                "fetch",
                "--quiet",
                "--prune",
                "--no-auto-gc",
                "--no-write-fetch-head",
                "--no-tags",
                "--",
                self.url,
                "+refs/heads/*:refs/heads/*",
                "+refs/tags/*:refs/tags/*",
            )
            if needs_default:
                await self._follow_default()
            await self._join_packs()
            self._fetch_began, self._fetch_followed = began, needs_default

    async def collect(self, repository: str, branch: str, sandbox: Sandbox) -> bool:
        """Bring one branch of a workspace here, by its exact name.

        Args:
            repository: The workspace, which may be hostile.
            branch: Below ``refs/heads/`` there; it lands below ``refs/symphony/`` here.
            sandbox: Where the workspace's side of the transfer runs.

        Returns:
            False where there is no sandbox, so that nothing was read.

        Raises:
            WorkspaceError: There is no such branch, or git failed.
        """
        if not await sandbox.available():
            return False
        upload = ("git", "upload-pack", "--strict", f"--timeout={max(1, int(self.timeout_s))}")
        environment = hostile_environment(sandbox.path)
        async with self._locked():
            await self._git(
                "-c",
                "fetch.fsckObjects=true",
                "fetch",
                "--quiet",
                "--no-auto-gc",
                "--no-write-fetch-head",
                "--no-tags",
                "--no-recurse-submodules",
                f"--upload-pack={sandbox.shell_command(upload, environment)}",
                "--",
                os.path.join(repository, ".git"),
                f"+refs/heads/{branch}:{COLLECTED}{branch}",
            )
        return True

    async def push(self, branch: str) -> bool:
        """Push a collected branch to the remote where it has commits that no branch there has.

        What somebody else has pushed to that branch since our last fetch is never overwritten.

        Returns:
            False where there was nothing to push.

        Raises:
            WorkspaceError: The remote refused, or git failed.
        """
        async with self._locked():
            new = await self._git(
                "rev-list", "--max-count=1", f"{COLLECTED}{branch}", "--not", "--branches"
            )
            if not new.strip():
                return False
            known = await self.commit(f"refs/heads/{branch}") or ""
            await self._git(
                "push",
                "--quiet",
                "--no-verify",
                f"--force-with-lease=refs/heads/{branch}:{known}",
                "--",
                self.url,
                f"{COLLECTED}{branch}:refs/heads/{branch}",
            )
            await self._git("update-ref", f"refs/heads/{branch}", f"{COLLECTED}{branch}")
        return True

    async def commit(self, ref: str) -> str | None:
        """Return the commit of a ref in full, or None where there is no such ref."""
        arguments = ("rev-parse", "--quiet", "--verify", "--end-of-options", f"{ref}^{{commit}}")
        done = await self.git.attempt(
            f"--git-dir={self.path}", *arguments, cwd=self.path, timeout_s=self.timeout_s
        )
        succeeded = done.status is not None and done.status.code == 0
        return done.output.strip() if succeeded else None

    async def is_ancestor(self, older: str, newer: str) -> bool:
        """Say whether one commit is part of another's history."""
        done = await self.git.attempt(
            f"--git-dir={self.path}",
            "merge-base",
            "--is-ancestor",
            older,
            newer,
            cwd=self.path,
            timeout_s=self.timeout_s,
        )
        return done.status is not None and done.status.code == 0

    async def _git(self, *arguments: str) -> str:
        return await self.git.run(
            f"--git-dir={self.path}", *arguments, cwd=self.path, timeout_s=self.timeout_s
        )

    async def _make(self) -> None:
        if await asyncio.to_thread(os.path.isdir, self.path):
            return
        fresh = f"{self.path}.new-{uuid.uuid4().hex}"
        folder = os.path.dirname(self.path)
        try:
            await self.git.run(
                "init",
                "--quiet",
                "--bare",
                "--template=",
                "--initial-branch=main",
                "--",
                fresh,
                cwd=folder,
                timeout_s=self.timeout_s,
            )
            await asyncio.to_thread(os.rename, fresh, self.path)
        finally:
            await asyncio.to_thread(shutil.rmtree, fresh, ignore_errors=True)

    async def _follow_default(self) -> None:
        answer = await self._git("ls-remote", "--symref", "--", self.url, "HEAD")
        for line in answer.splitlines():
            words = line.split()
            if len(words) == 3 and words[0] == "ref:" and words[1].startswith("refs/heads/"):
                await self._git("symbolic-ref", "HEAD", words[1])
                return

    async def _join_packs(self) -> None:
        """Join packs once there are many, keeping what nothing refers to: clones may need it."""
        folder = Path(self.path) / "objects" / "pack"
        packs = await asyncio.to_thread(lambda: len(list(folder.glob("*.pack"))))
        if packs > _PACK_LIMIT:
            try:
                await self._git("repack", "-q", "-a", "-d", "--keep-unreachable")
            except WorkspaceError as error:
                _log.warning("Packs not joined", extra={"mirror": self.path, "error": str(error)})

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        """Be the only writer, here and among all daemons of this user."""
        async with self._writing:
            await asyncio.to_thread(
                os.makedirs, os.path.dirname(self.path), mode=0o700, exist_ok=True
            )
            fd = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                await self._take(fd)
                await asyncio.to_thread(_clear_leftovers, self.path)
                yield
            finally:
                os.close(fd)

    async def _take(self, fd: int) -> None:
        deadline = time.monotonic() + self.timeout_s
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            if time.monotonic() >= deadline:
                message = (
                    f"another daemon has worked on the mirror {self.path} for over"
                    f" {self.timeout_s:g} s; see which process holds {self.path}.lock"
                )
                raise WorkspaceError("workspace_git_timeout", message)
            await asyncio.sleep(_LOCK_POLL_S)


def _clear_leftovers(path: str) -> None:
    """Delete the lock files and half packs of a git that was killed; only under the lock."""
    for folder, _, names in os.walk(path):
        in_packs = folder == os.path.join(path, "objects", "pack")
        for name in names:
            if name.endswith(".lock") or (in_packs and name.startswith(("tmp_", ".tmp-"))):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(folder, name))
    parent, base = os.path.split(path)
    for name in os.listdir(parent):
        if name.startswith(f"{base}.new-"):
            shutil.rmtree(os.path.join(parent, name), ignore_errors=True)


def _readable(url: str) -> str:
    last = url.rstrip("/").rpartition("/")[2].removesuffix(".git")
    return "".join(one for one in last if one.isascii() and (one.isalnum() or one in "-_"))[:40]
