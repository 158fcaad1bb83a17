"""The harness of each tracker, for the contract that all of them fulfil."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tracker_worlds import KINDS, REMOTE, Harness, RemoteHarness, open_harness


@pytest.fixture(params=KINDS)
async def harness(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    async with open_harness(request.param, tmp_path) as found:
        yield found


@pytest.fixture(params=REMOTE)
async def remote(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RemoteHarness]:
    async with open_harness(request.param, tmp_path) as found:
        yield found
