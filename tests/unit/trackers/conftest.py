"""Fixtures of the tracker tests: boards in temporary folders and the stateful fake Linear."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from symphony.model.issue import Issue, IssueId
from symphony.trackers.base import ToolContext
from symphony.trackers.local_board import Board

# looptime asks for a loop in plain tests too, which makes one that nobody closes before 3.12.
asyncio.set_event_loop(None)

FAKES = Path(__file__).resolve().parents[2] / "fakes"


def load_fake(name: str) -> ModuleType:
    """Import a file of tests/fakes, which is no package, once."""
    key = f"symphony_fakes_{name}"
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, FAKES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[key] = module
        spec.loader.exec_module(module)
    return sys.modules[key]


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board.create(tmp_path / "board", prefix="DEMO")


@pytest.fixture
def fakes() -> ModuleType:
    return load_fake("linear_server")


@pytest.fixture
async def linear_server(fakes: ModuleType) -> AsyncIterator[Any]:
    async with fakes.LinearServer() as server:
        yield server


@pytest.fixture
def jira_fakes() -> ModuleType:
    return load_fake("jira_server")


@pytest.fixture
async def jira_server(jira_fakes: ModuleType) -> AsyncIterator[Any]:
    async with jira_fakes.JiraServer() as server:
        yield server


@pytest.fixture
def asana_fakes() -> ModuleType:
    return load_fake("asana_server")


@pytest.fixture
async def asana_server(asana_fakes: ModuleType) -> AsyncIterator[Any]:
    async with asana_fakes.AsanaServer() as server:
        yield server


@pytest.fixture
def github_fakes() -> ModuleType:
    return load_fake("github_server")


@pytest.fixture
async def github_server(github_fakes: ModuleType) -> AsyncIterator[Any]:
    async with github_fakes.GitHubServer() as server:
        yield server
        assert server.problems == [], "requests and answers fit GitHub's description"


@pytest.fixture
def gitlab_fakes() -> ModuleType:
    return load_fake("gitlab_server")


@pytest.fixture
async def gitlab_server(gitlab_fakes: ModuleType) -> AsyncIterator[Any]:
    async with gitlab_fakes.GitLabServer() as server:
        yield server
        assert server.problems == [], "requests use documented parameters"


@pytest.fixture
def context() -> ToolContext:
    issue = Issue(
        id=IssueId("DEMO-1"), identifier="DEMO-1", title="One", state="Todo", dispatchable=True
    )
    return ToolContext(issue=issue, run_id="run-1")
