"""Workflow files on disk, and a loader with two tracker kinds: one with states, one without."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from symphony.config.loading import Workflow, load_workflow
from symphony.config.settings import Settings
from symphony.errors import SettingFault

# pytest-asyncio asks for the current loop; where none was ever set, Python 3.11 makes one for it
# that nobody closes, and the warning of that fails some later test.
asyncio.set_event_loop(None)

STATES = ("Todo", "In Progress")
DONE = ("Closed", "Cancelled", "Canceled", "Duplicate", "Done")


@dataclass(frozen=True)
class Profile:
    default_active_states: tuple[str, ...] | None = None
    default_terminal_states: tuple[str, ...] | None = None


PROFILES = {"linear": Profile(STATES, DONE), "local": Profile(STATES, DONE), "github": Profile()}


@dataclass
class Loader:
    """Writes a workflow file and loads it."""

    path: Path
    environ: dict[str, str]
    profiles: Mapping[str, Profile]

    def write(self, text: str) -> Path:
        self.path.write_text(text, encoding="utf-8")
        return self.path

    def __call__(
        self,
        text: str,
        *,
        validate_tracker: Callable[[Settings], Sequence[SettingFault]] | None = None,
        check_prompt: Callable[[str, int], Sequence[str]] | None = None,
    ) -> Workflow:
        return load_workflow(
            self.write(text),
            environ=self.environ,
            profiles=self.profiles,
            validate_tracker=validate_tracker,
            check_prompt=check_prompt,
        )

    def front(self, yaml: str, *, kind: str | None = "local") -> Workflow:
        """Load a file with this front matter, below a tracker of a kind."""
        tracker = f"tracker:\n  kind: {kind}\n" if kind is not None else ""
        return self(f"---\n{tracker}{yaml}\n---\nDo it.\n")


@pytest.fixture
def load(tmp_path: Path) -> Loader:
    directory = tmp_path / "repository"
    directory.mkdir()
    return Loader(directory / "WORKFLOW.md", {"HOME": "/home/ada", "TMPDIR": "/var/tmp"}, PROFILES)
