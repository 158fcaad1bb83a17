"""What holds for the tests of both packages."""

from __future__ import annotations

import asyncio
import os
import pwd
import tempfile
from pathlib import Path

from hypothesis import settings

CACHE = "SYMPHONY_TEST_CACHE"

# The same examples in every run, so that a change is judged by what it changes; new examples are
# looked for by `make test-full`. No example is timed: machines are busy.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=500, print_blob=True)
settings.load_profile("same")


def pytest_configure() -> None:
    """Choose where private CODEX_HOMEs lie, and keep plain tests from leaking an event loop."""
    os.environ.setdefault(CACHE, str(_cache()))
    # On Python 3.11 plugins ask the policy for a loop in plain tests too; it would be made, never
    # closed, and fail some later test as a ResourceWarning.
    asyncio.set_event_loop(None)


def _cache() -> Path:
    """Return a directory outside the temp directory: below it Codex's sandbox does not work."""
    temp = Path(tempfile.gettempdir()).resolve()
    candidates = (
        Path.home() / ".cache",
        Path(pwd.getpwuid(os.getuid()).pw_dir) / ".cache",
        Path(__file__).resolve().parent / ".cache",
        Path("/var/tmp"),
    )
    for candidate in candidates:
        place = candidate.resolve()
        if temp not in (place, *place.parents) and _can_be_made(candidate / "symphony-tests"):
            return candidate / "symphony-tests"
    return candidates[0] / "symphony-tests"


def _can_be_made(path: Path) -> bool:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(path, os.W_OK)
