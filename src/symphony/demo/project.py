"""The project of the demo: a tiny Python package with a test in a git repository of its own.

Invariant: git runs without the user's and the system's configuration, so the same commit comes out
everywhere, and only ever in the sample repository, never in a workspace, whose git metadata an
agent may have changed.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from symphony.errors import SymphonyError

MAIN = "main"
BRANCH_PREFIX = "symphony/"

_AUTHOR = {
    "GIT_AUTHOR_NAME": "Symphony Demo",
    "GIT_AUTHOR_EMAIL": "demo@symphony.invalid",
    "GIT_AUTHOR_DATE": "2026-01-05T09:00:00+00:00",
    "GIT_COMMITTER_NAME": "Symphony Demo",
    "GIT_COMMITTER_EMAIL": "demo@symphony.invalid",
    "GIT_COMMITTER_DATE": "2026-01-05T09:00:00+00:00",
}
_GIT_TIMEOUT_S = 30


class DemoError(SymphonyError):
    """The demo cannot be set up or checked; the message says what to mend."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit.

    Attributes:
        sha: The full hash.
        subject: First line of its message.
    """

    sha: str
    subject: str


def branch_of(identifier: str) -> str:
    """Return the branch on which an issue is worked."""
    return f"{BRANCH_PREFIX}{identifier}"


def create_repository(path: Path) -> Commit:
    """Make the sample repository and return its only commit.

    Raises:
        DemoError: The folder exists and is not empty, or git is missing or fails.
    """
    if path.exists() and any(path.iterdir()):
        raise DemoError("demo_setup_failed", f"{path} is not empty: choose another folder")
    _copy(files("symphony.demo") / "templates" / "project", path)
    (path / "check").chmod(0o755)
    _git(path, "init", "-q", f"--initial-branch={MAIN}")
    # Fetches by several hooks at once must not start a clean-up in the background.
    _git(path, "config", "gc.auto", "0")
    _git(path, "config", "maintenance.auto", "false")
    _git(path, "add", "-A")
    _git(path, "commit", "-q", "--no-verify", "--no-gpg-sign", "-m", "Begin textkit")
    sha, _, subject = _git(path, "log", "-1", "--format=%H %s").strip().partition(" ")
    return Commit(sha, subject)


def branches_beyond_main(path: Path) -> dict[str, list[Commit]]:
    """Return the branches of issues, by name, with the commits that ``main`` lacks, newest first.

    Costs two runs of git, however many branches there are.

    Raises:
        DemoError: git fails.
    """
    pattern = f"refs/heads/{BRANCH_PREFIX}"
    refs = _git(path, "for-each-ref", "--format=%(objectname) %(refname:short)", pattern)
    if not refs:
        return {}
    log = _git(
        path, "log", "--topo-order", "--format=%H%x00%P%x00%s", f"--glob={pattern}*", f"^{MAIN}"
    )
    rows = [line.split("\0") for line in log.splitlines()]
    parents = {sha: names.split() for sha, names, _ in rows}
    branches = {}
    for line in refs.splitlines():
        tip, _, name = line.partition(" ")
        reached, open_ends = set(), [tip]
        while open_ends:
            sha = open_ends.pop()
            if sha in parents and sha not in reached:
                reached.add(sha)
                open_ends.extend(parents[sha])
        branches[name] = [Commit(sha, subject) for sha, _, subject in rows if sha in reached]
    return branches


def _copy(source: Traversable, target: Path) -> None:
    """Copy the project out of the package.

    There its files end in ``.txt``, so that they are no modules of the package and no tests of
    ours, and ``gitignore`` lacks its dot, so that it is no rule for us.
    """
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        if entry.is_dir():
            _copy(entry, target / entry.name)
        else:
            name = entry.name.removesuffix(".txt")
            path = target / (f".{name}" if name == "gitignore" else name)
            path.write_bytes(entry.read_bytes())


def _git(path: Path, *arguments: str) -> str:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    plain = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", "-C", str(path), *arguments],
            env={**kept, **plain, **_AUTHOR},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_GIT_TIMEOUT_S,
            check=True,
        )
    except FileNotFoundError as error:
        message = "git is not on PATH: install it (Debian: apt install git)"
        raise DemoError("demo_setup_failed", message) from error
    except subprocess.CalledProcessError as error:
        message = f"git {arguments[0]} in {path} failed: {error.stderr.strip()}"
        raise DemoError("demo_git_failed", message) from error
    except subprocess.TimeoutExpired as error:
        message = f"git {arguments[0]} in {path} took over {_GIT_TIMEOUT_S} s"
        raise DemoError("demo_git_failed", message) from error
    return done.stdout
