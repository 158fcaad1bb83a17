"""A CODEX_HOME whose first app-server was killed in the middle of filling its index."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import codex_app_server as codex
import pytest
from codex_app_server.binary import resolve_binary
from codex_app_server.errors import BinaryNotFound
from codex_app_server.transport import SubprocessTransport

from symphony.runner.backfill import free_backfill

IN_TIME_S = 25.0
"""A server that waits for another one's fill does so for 30 s."""


def mark_running(home: Path) -> Path:
    """Leave the database as a killed app-server does; return it."""
    (path,) = home.glob("state_*.sqlite")
    with closing(sqlite3.connect(path)) as database:
        now = int(time.time())
        database.execute("UPDATE backfill_state SET status = 'running', updated_at = ?", (now,))
        database.commit()
    return path


async def shake_hands(binary: Path, home: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "CODEX_HOME": str(home)}
    transport = await SubprocessTransport.spawn([str(binary), "app-server"], env=environ)
    async with await codex.Connection.open(
        transport, codex.ClientInfo("test", "1"), request_timeout_s=IN_TIME_S
    ):
        pass


@pytest.mark.codex
async def test_an_index_whose_filler_was_killed_keeps_no_agent_waiting(cache_dir: Path) -> None:
    try:
        binary = resolve_binary(environment={"PATH": ""}).path
    except BinaryNotFound as error:
        pytest.skip(str(error))
    await shake_hands(binary, cache_dir)
    await asyncio.to_thread(mark_running, cache_dir)

    assert await asyncio.to_thread(free_backfill, cache_dir)

    await shake_hands(binary, cache_dir)
    assert not await asyncio.to_thread(free_backfill, cache_dir)


def test_databases_of_another_shape_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "state_1.sqlite").write_bytes(b"this is no database at all, of whatever version")
    with closing(sqlite3.connect(tmp_path / "state_2.sqlite")) as database:
        database.execute("CREATE TABLE other (id INTEGER)")
        database.commit()
    assert not free_backfill(tmp_path)
    assert not free_backfill(tmp_path / "absent")
