"""Workspaces with a real host: hooks are real shells, directories real directories."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

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

    def __init__(self, folder: Path, host: LocalHost) -> None:
        self.folder = folder
        self.root = folder / "root"
        home = folder / "home"
        home.mkdir()
        self.settings = Settings(
            tracker=TrackerSettings(kind="local"),
            workspace=WorkspaceSettings(path=str(self.root)),
        )
        environ = {"PATH": "/usr/bin:/bin", "HOME": str(home), "TOKEN": "s3cret"}
        self.workspaces = Workspaces(
            settings=lambda: self.settings,
            host=host,
            environ=environ,
            secret_names=lambda: ("TOKEN",),
        )

    def hooks(self, **hooks: object) -> None:
        """Put these hooks in force, as a reload of the workflow would."""
        section = HookSettings.model_validate(hooks)
        self.settings = self.settings.model_copy(update={"hooks": section})

    def move_root(self, root: Path) -> None:
        self.root = root
        section = WorkspaceSettings(path=str(root))
        self.settings = self.settings.model_copy(update={"workspace": section})


@pytest.fixture
def place(tmp_path: Path, host: LocalHost) -> Place:
    return Place(tmp_path, host)


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
