"""Workspaces with a real host: hooks are real shells, directories real directories."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from symphony.config.settings import HookSettings, Settings, TrackerSettings, WorkspaceSettings
from symphony.hosts.local import LocalHost
from symphony.model.issue import Issue, IssueId
from symphony.model.run import RunId, RunSpec
from symphony.workspaces.manager import Workspaces

DEADLINE_S = 20.0


async def _eventually(condition: Callable[[], object]) -> None:
    """Wait until a condition of the outside world holds; there is no event for it."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  # the file system has no event to wait for
            await asyncio.sleep(0.01)


def _marked(instance: str) -> list[int]:
    wanted = f"SYMPHONY_INSTANCE={instance}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                environ = Path(f"/proc/{entry}/environ").read_bytes()
            except OSError:
                continue
            if wanted in environ.split(b"\0"):
                found.append(int(entry))
    return found


@pytest.fixture
def eventually():
    return _eventually


@pytest.fixture
def instance() -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex}"
    yield name
    left = _marked(name)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == [], "the test left processes behind"


@pytest.fixture
def alive(instance: str) -> Callable[[], int]:
    """How many processes of the test live, the supervisor included."""
    return lambda: len(_marked(instance))


@pytest.fixture
async def host(instance: str) -> AsyncIterator[LocalHost]:
    host = LocalHost(instance=instance)
    yield host
    await host.aclose()


class Place:
    """A root, settings that a test may change, and the workspaces that they make."""

    def __init__(self, folder: Path, host: LocalHost, cache: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.host = host
        self.cache = cache
        home = folder / "home"
        home.mkdir()
        self.settings = Settings(
            tracker=TrackerSettings(kind="local"),
            workspace=WorkspaceSettings(path=str(self.root)),
        )
        self.environ = {"PATH": "/usr/bin:/bin", "HOME": str(home), "TOKEN": "s3cret"}
        self.now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
        self.workspaces = self.another()

    def another(self) -> Workspaces:
        """Workspaces as a second daemon would have them."""
        return Workspaces(
            settings=lambda: self.settings,
            host=self.host,
            environ=self.environ,
            secret_names=lambda: ("TOKEN",),
            cache=self.cache,
            now=lambda: self.now,
        )

    def set(self, **workspace: object) -> None:
        """Put these settings of ``workspace`` in force."""
        section = WorkspaceSettings.model_validate({"path": str(self.root), **workspace})
        self.settings = self.settings.model_copy(update={"workspace": section})

    @property
    def names(self) -> list[str]:
        """What lies in the root, by name, but for our own directory."""
        return sorted(set(os.listdir(self.root)) - {".symphony"})

    @property
    def kept(self) -> list[str]:
        """What is kept aside in the root, by name."""
        folder = self.root / ".symphony" / "kept"
        return sorted(os.listdir(folder)) if folder.is_dir() else []

    def hooks(self, **hooks: object) -> None:
        """Put these hooks in force, as a reload of the workflow would."""
        section = HookSettings.model_validate(hooks)
        self.settings = self.settings.model_copy(update={"hooks": section})

    def move_root(self, root: Path) -> None:
        self.root = root
        section = WorkspaceSettings(path=str(root))
        self.settings = self.settings.model_copy(update={"workspace": section})


@pytest.fixture
def cache() -> Iterator[Path]:
    """A folder outside of the temp directory, as Codex's sandbox needs."""
    base = Path(os.environ.get("SYMPHONY_TEST_CACHE", "~/.cache/symphony-tests")).expanduser()
    base.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=base) as folder:
        yield Path(folder)


@pytest.fixture
def place(tmp_path: Path, host: LocalHost, cache: Path) -> Place:
    return Place(tmp_path, host, cache)


@pytest.fixture
def git() -> Callable[..., str]:
    """Runs git as the operator or an agent would, in a folder, with nobody's configuration."""

    def run(folder: Path | str, *arguments: str, check: bool = True) -> str:
        who = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
        for role in ("AUTHOR", "COMMITTER"):
            who |= {f"GIT_{role}_NAME": "Ada", f"GIT_{role}_EMAIL": "ada@example.invalid"}
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **who},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.fixture
def upstream(tmp_path: Path, git: Callable[..., str]) -> Path:
    """A bare repository with one commit on main and one more on dev."""
    seed, bare = tmp_path / "seed", tmp_path / "upstream.git"
    seed.mkdir()
    git(seed, "init", "-q", "-b", "main")
    (seed / "a.txt").write_text("one\n")
    git(seed, "add", "-A")
    git(seed, "commit", "-q", "-m", "one")
    git(seed, "checkout", "-q", "-b", "dev")
    (seed / "b.txt").write_text("two\n")
    git(seed, "add", "-A")
    git(seed, "commit", "-q", "-m", "two")
    git(seed, "checkout", "-q", "main")
    git(tmp_path, "clone", "-q", "--bare", str(seed), str(bare))
    return bare


@pytest.fixture
def commit(git: Callable[..., str]) -> Callable[..., str]:
    """Adds a file and commits it, as an agent would; returns the commit."""

    def make(folder: Path | str, name: str = "work.txt") -> str:
        (Path(folder) / name).write_text("work\n")
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "-m", f"Add {name}")
        return git(folder, "rev-parse", "HEAD")

    return make


@pytest.fixture
def issue() -> Callable[[str], Issue]:
    base = Issue(
        id=IssueId("id"), identifier="MT-1", title="Mend it", state="Todo", dispatchable=True
    )
    return lambda identifier="MT-1": replace(
        base, id=IssueId(f"id-{identifier}"), identifier=identifier
    )


@pytest.fixture
def run_spec(issue) -> Callable[..., RunSpec]:
    def make(identifier: str = "MT-1", attempt: int | None = None) -> RunSpec:
        return RunSpec(
            run_id=RunId(f"run-{identifier}"),
            issue=issue(identifier),
            attempt=attempt,
            retry_kind=None,
        )

    return make
