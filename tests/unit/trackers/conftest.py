"""Fixtures of the tracker tests: boards in temporary folders and the stateful fake Linear."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import asana_server as asana_module
import github_server as github_module
import gitlab_server as gitlab_module
import jira_server as jira_module
import linear_server as linear_module
import pytest

from symphony.model.issue import Issue, IssueId
from symphony.trackers.base import ToolContext
from symphony.trackers.local_board import Board


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board.create(tmp_path / "board", prefix="DEMO")


@pytest.fixture
def fakes() -> ModuleType:
    return linear_module


@pytest.fixture
async def linear_server(fakes: ModuleType) -> AsyncIterator[Any]:
    async with fakes.LinearServer() as server:
        yield server
        assert server.problems == [], "the adapter's documents fit Linear's schema"


@pytest.fixture
def jira_fakes() -> ModuleType:
    return jira_module


@pytest.fixture
async def jira_server(jira_fakes: ModuleType) -> AsyncIterator[Any]:
    async with jira_fakes.JiraServer() as server:
        yield server


@pytest.fixture
def asana_fakes() -> ModuleType:
    return asana_module


@pytest.fixture
async def asana_server(asana_fakes: ModuleType) -> AsyncIterator[Any]:
    async with asana_fakes.AsanaServer() as server:
        yield server
        assert server.problems == [], "requests and answers fit Asana's description"


@pytest.fixture
def github_fakes() -> ModuleType:
    return github_module


@pytest.fixture
async def github_server(github_fakes: ModuleType) -> AsyncIterator[Any]:
    async with github_fakes.GitHubServer() as server:
        yield server
        assert server.problems == [], "requests and answers fit GitHub's description"


@pytest.fixture
def gitlab_fakes() -> ModuleType:
    return gitlab_module


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
