"""Real processes: a host, specs for it, and a check that no test leaves a process behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from symphony.hosts.base import ProcessSpec
from symphony.hosts.local import LocalHost

DEADLINE_S = 20.0


async def _eventually(condition: Callable[[], object], what: str = "") -> None:
    """Wait until a condition of the outside world (/proc) holds; there is no event for it."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  # /proc has no event to wait for
            await asyncio.sleep(0.01)


def _marked(instance: str) -> list[int]:
    """Living processes whose environment carries this instance, zombies left out."""
    wanted = f"SYMPHONY_INSTANCE={instance}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and entry != str(os.getpid()):
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
def marked():
    return _marked


@pytest.fixture
def instance() -> Iterator[str]:
    """An instance of our own, of which nothing may live after the test."""
    name = f"test-{uuid.uuid4().hex}"
    yield name
    left = _marked(name)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == [], "the test left processes behind"


@pytest.fixture
async def host(instance: str) -> AsyncIterator[LocalHost]:
    host = LocalHost(instance=instance)
    yield host
    await host.aclose()


@pytest.fixture
def base_env(tmp_path: Path) -> dict[str, str]:
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(home)}


@pytest.fixture
def spec(tmp_path: Path, base_env: dict[str, str], instance: str):
    def make(*argv: str, run_id: str = "", cwd: str | None = None, **env: str) -> ProcessSpec:
        return ProcessSpec(
            run_id=run_id or f"{instance}-run",
            argv=argv,
            cwd=cwd or str(tmp_path),
            env={**base_env, **env},
        )

    return make


@pytest.fixture
def python_spec(spec):
    """A process that runs this Python code, quickly started."""

    def make(code: str, **options: str) -> ProcessSpec:
        return spec(sys.executable, "-I", "-S", "-c", code, **options)

    return make
