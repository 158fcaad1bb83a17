"""SIGKILL at random moments, with the real Codex under load: nothing doubled, lost or left.

A failure names its seed and the command that plays the round again. ``CRASH_ROUNDS`` and
``CRASH_FROM`` choose other rounds of the long kind.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from codex_app_server.binary import resolve_binary
from codex_app_server.errors import BinaryNotFound

from tests.crashes.rounds import run_round

pytestmark = [pytest.mark.codex, pytest.mark.timeout(240)]

EVERY_TIME = 3
FROM = int(os.environ.get("CRASH_FROM", "100"))
ROUNDS = int(os.environ.get("CRASH_ROUNDS", "50"))


@pytest.fixture(scope="module")
def codex() -> Path:
    try:
        return resolve_binary(environment={"PATH": ""}).path
    except BinaryNotFound as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("seed", range(EVERY_TIME))
async def test_no_kill_doubles_loses_or_leaves_anything(seed: int, codex: Path) -> None:
    report = await run_round(seed, "small", codex=codex)
    print(report)
    assert report.kills.total() > 0
    assert report.agents > 0
    assert report.looks > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FROM, FROM + ROUNDS))
async def test_no_kill_of_many_more_does(seed: int, codex: Path) -> None:
    report = await run_round(seed, "large", codex=codex)
    print(report)
    assert report.kills.total() > 0
