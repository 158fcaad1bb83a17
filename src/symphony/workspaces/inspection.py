"""Does a workspace hold work that exists nowhere else, and has it changed since the last look?

The first is asked before it is removed, the second after each turn.

Work is what git calls changed or untracked (ignored files are not), commits that no remote has,
and files outside of any repository. Invariant: whatever lies in the workspace is taken for hostile:
git runs on it only in a ``Sandbox``, and a doubt of any kind (no sandbox, a failure, an answer that
is too long) counts as work. An agent can lie here, but only about its own work.

``manager`` acts on the answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from symphony.errors import HostError
from symphony.hosts.base import CompletedCommand

from .git import filter_names, hostile_environment
from .sandbox import Sandbox

COMMAND_LIMIT_S = 60.0
_OUTPUT_CAP = 1024 * 1024
_REPOSITORY_LIMIT = 20
_REMOTE_LIMIT = 10
_SHA_LIMIT = 2000
_CHANGED_LIMIT = 5000
_REMOTE_URL = re.compile(r"remote\..*\.(?:url|pushurl)", re.DOTALL)
_SHA = re.compile(r"^([0-9a-f]{40,64})\t", re.MULTILINE)


class _DoubtError(Exception):
    """What was asked has no clear answer; the text says why."""


@dataclass(frozen=True, slots=True)
class _Repository:
    """A repository in a workspace: its directory, and the environment for git on it."""

    path: str
    env: dict[str, str]

    def command(self, *arguments: str) -> tuple[str, ...]:
        """Return a command line of git that neither looks elsewhere nor is told to."""
        where = (f"--git-dir={self.path}/.git", f"--work-tree={self.path}")
        return ("git", *where, *arguments)


async def work_in(workspace: str, sandbox: Sandbox, *, mirror: str | None = None) -> str | None:
    """Return what of a workspace would be lost with it, a few words, or None.

    Args:
        workspace: Absolute path of a directory.
        sandbox: Where git may run.
        mirror: A bare repository of ours whose commits count as kept.
    """
    try:
        return await _work_in(workspace, sandbox, mirror)
    except (HostError, OSError, _DoubtError) as error:
        return f"it could not be looked through: {error}"


async def tree_mark(workspace: str, sandbox: Sandbox) -> str | None:
    """Return a digest of a workspace's commits, index, changed and untracked files.

    Equal digests mean that nothing has changed. None where nobody can tell: no repository, files
    outside of one, no sandbox, too much to look at.
    """
    try:
        repositories, loose = await asyncio.to_thread(_repositories, workspace)
        if loose is not None or not repositories or not await sandbox.available():
            return None
        look = _Look(workspace, sandbox, None)
        digest = hashlib.sha256()
        for path in sorted(repositories[:_REPOSITORY_LIMIT]):
            digest.update(await look.mark(path))
        return digest.hexdigest()
    except (HostError, OSError, _DoubtError):
        return None


async def _work_in(workspace: str, sandbox: Sandbox, mirror: str | None) -> str | None:
    repositories, loose = await asyncio.to_thread(_repositories, workspace)
    if loose is not None:
        return f"files outside of any git repository ({loose})"
    if not repositories:
        return None
    if not await sandbox.available():
        return "no sandbox in which git could look at it"
    look = _Look(workspace, sandbox, mirror)
    while repositories:
        reason = await look.at(repositories.pop())
        if reason is not None:
            return reason
        repositories += look.submodules
        look.submodules = []
    return None


def _repositories(workspace: str) -> tuple[list[str], str | None]:
    """Return the repositories at the top of a workspace or one level below, and a loose entry."""
    if os.path.lexists(os.path.join(workspace, ".git")):
        if _is_mount_point(os.path.join(workspace, ".git")):
            return _below(workspace)
        return [workspace], None
    return _below(workspace)


def _below(workspace: str) -> tuple[list[str], str | None]:
    found = []
    with os.scandir(workspace) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if os.path.lexists(os.path.join(entry.path, ".git")):
                    found.append(entry.path)
                    continue
                if _is_mount_point(entry.path):
                    continue
            return [], entry.name
    return found, None


def _is_mount_point(path: str) -> bool:
    """Say whether Codex left this directory behind: it mounts over empty ones of these names."""
    try:
        named = os.path.basename(path) in (".git", ".codex", ".aws", ".agents")
        return named and not os.path.islink(path) and not os.listdir(path)
    except OSError:
        return False


class _Look:
    """One look at the repositories of one workspace."""

    def __init__(self, workspace: str, sandbox: Sandbox, mirror: str | None) -> None:
        self._workspace = os.path.realpath(workspace)
        self._sandbox = sandbox
        self._mirror = mirror
        self._seen = 0
        self.submodules: list[str] = []

    async def mark(self, path: str) -> bytes:
        """Return what tells this state of a repository from another."""
        repository = await self._repository(path)
        listed = await self._ask(
            repository,
            "status",
            "--porcelain=v2",
            "--branch",
            "-z",
            "--no-renames",
            "--untracked-files=all",
            "--ignore-submodules=dirty",
        )
        entries = listed.split("\0")
        # A file that was changed before and is changed again has the same line.
        names = [_changed_name(entry) for entry in entries]
        stats = await asyncio.to_thread(_stats, path, [name for name in names if name])
        return "\0".join([path, *entries, *stats]).encode("utf-8", "surrogateescape")

    async def _repository(self, path: str) -> _Repository:
        plain = hostile_environment(self._sandbox.path)
        listed = await self._ask(_Repository(path, plain), "config", "--list", "-z")
        keys = [entry.partition("\n")[0] for entry in listed.split("\0") if entry]
        return _Repository(
            path, hostile_environment(self._sandbox.path, filters=filter_names(keys))
        )

    async def at(self, path: str) -> str | None:
        """Return what work a repository holds, or None; collects its submodules."""
        self._seen += 1
        if self._seen > _REPOSITORY_LIMIT:
            return "more repositories than are looked at"
        plain = hostile_environment(self._sandbox.path)
        listed = await self._ask(_Repository(path, plain), "config", "--list", "-z")
        config = [entry.partition("\n")[::2] for entry in listed.split("\0") if entry]
        env = hostile_environment(
            self._sandbox.path, filters=filter_names(key for key, _ in config)
        )
        repository = _Repository(path, env)
        changed = await self._ask(
            repository,
            "status",
            "--porcelain=v1",
            "-z",
            "--no-renames",
            "--untracked-files=normal",
            "--ignore-submodules=dirty",
        )
        if changed:
            return f"uncommitted changes ({changed.partition(chr(0))[0].strip()[:120]})"
        unpushed = await self._unpushed(repository, [url for key, url in config if _is_url(key)])
        if unpushed is not None:
            return unpushed
        if await asyncio.to_thread(os.path.lexists, os.path.join(path, ".gitmodules")):
            self.submodules = await self._initialised_submodules(repository)
        return None

    async def _unpushed(self, repository: _Repository, urls: Sequence[str]) -> str | None:
        elsewhere = await self._commits_elsewhere(urls)
        kept = ("--not", "--remotes", *elsewhere)
        if await self._has_refs_elsewhere(repository):
            wanted: tuple[str, ...] = ("HEAD",)  # branches belong to the repository over there
            kept = ("--not", "--branches", "--remotes", "--tags", *elsewhere)
        else:
            wanted = ("--exclude=refs/remotes/*", "--exclude=refs/tags/*", "--all")
        lost = await self._ask(
            repository, "rev-list", "--ignore-missing", "--max-count=1", *wanted, *kept
        )
        return f"commits that no remote has ({lost.strip()[:40]})" if lost.strip() else None

    async def _has_refs_elsewhere(self, repository: _Repository) -> bool:
        git_dir = os.path.join(repository.path, ".git")
        if await asyncio.to_thread(_is_plain_directory, git_dir):
            return False
        answer = await self._ask(
            repository, "rev-parse", "--path-format=absolute", "--git-common-dir"
        )
        common = await asyncio.to_thread(os.path.realpath, answer.strip())
        return os.path.commonpath([common, self._workspace]) != self._workspace

    async def _commits_elsewhere(self, urls: Sequence[str]) -> list[str]:
        """Return the heads of those remotes that lie on this machine: hooks may have fetched."""
        paths = dict.fromkeys([self._mirror] if self._mirror else [])
        for url in urls[:_REMOTE_LIMIT]:
            path = url.removeprefix("file://")
            if os.path.isabs(path) and not self._is_within(path):
                paths[path] = None
        shas: dict[str, None] = {}
        for path in paths:
            listing = ("git", "ls-remote", "--upload-pack=git-upload-pack", "--", path)
            done = await self._run(listing, hostile_environment(self._sandbox.path))
            if done.status is not None and done.status.code == 0:
                shas.update(dict.fromkeys(_SHA.findall(done.output)))
        return list(shas)[:_SHA_LIMIT]

    def _is_within(self, path: str) -> bool:
        return os.path.commonpath([os.path.realpath(path), self._workspace]) == self._workspace

    async def _initialised_submodules(self, repository: _Repository) -> list[str]:
        modules = os.path.join(repository.path, ".gitmodules")
        listing = ("config", "-z", "--file", modules, "--get-regexp", r"^submodule\..*\.path$")
        done = await self._run(repository.command(*listing), repository.env)
        if done.status is None or done.status.code not in (0, 1) or done.truncated:
            raise _DoubtError("its submodules can't be listed")
        found = []
        for entry in done.output.split("\0"):
            path = os.path.join(repository.path, entry.partition("\n")[2])
            if entry:
                found.append(path)
        return await asyncio.to_thread(lambda: list(filter(self._is_repository_within, found)))

    def _is_repository_within(self, path: str) -> bool:
        return self._is_within(path) and os.path.lexists(os.path.join(path, ".git"))

    async def _ask(self, repository: _Repository, *arguments: str) -> str:
        done = await self._run(repository.command(*arguments), repository.env)
        if done.status is None:
            raise _DoubtError(f"git {arguments[0]} took over {COMMAND_LIMIT_S:g} s")
        if done.status.code != 0 or done.truncated:
            said = " ".join(done.output.split())[-200:]
            raise _DoubtError(f"git {arguments[0]} ended with {done.status} {said}".strip())
        return done.output

    async def _run(self, command: Sequence[str], env: dict[str, str]) -> CompletedCommand:
        # Complaints would be taken for answers; the exit status says enough.
        quiet = ("sh", "-c", 'exec "$@" 2>/dev/null', "git", *command)
        return await self._sandbox.run(
            quiet, env, timeout_s=COMMAND_LIMIT_S, output_cap=_OUTPUT_CAP
        )


def _changed_name(entry: str) -> str | None:
    """Return the path of an entry of ``status --porcelain=v2``, or None of another line."""
    fields = {"1": 8, "u": 10, "?": 1}.get(entry[:1])
    return None if fields is None else entry.split(" ", fields)[-1]


def _stats(path: str, names: Sequence[str]) -> list[str]:
    """Return size and time of change of files, which are looked at and not opened."""
    if len(names) > _CHANGED_LIMIT:
        raise _DoubtError("more changed files than are looked at")
    found = []
    for name in names:
        try:
            status = os.lstat(os.path.join(path, name))
        except OSError:
            found.append(f"{name} is gone")
        else:
            found.append(f"{name} {status.st_mode} {status.st_size} {status.st_mtime_ns}")
    return found


def _is_url(key: str) -> bool:
    return _REMOTE_URL.fullmatch(key) is not None


def _is_plain_directory(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)
