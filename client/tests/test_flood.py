"""A flood of deltas through the whole client: what it costs, counted instead of timed.

The seconds are `make bench`'s to measure: a busy machine cannot change what is counted here.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections import Counter
from typing import Any

import msgspec
from codex_app_server import ClientInfo, Connection

CHUNK = 256 * 1024
MIB = 1024 * 1024


def flood(server: Any, count: int) -> list[bytes]:
    """Return a turn of so many deltas, cut as a pipe cuts it."""
    lines = [
        msgspec.json.encode(server.delta(f"word {number} of many")) + b"\n"
        for number in range(count)
    ]
    data = b"".join(lines) + msgspec.json.encode(server.ended()) + b"\n"
    return [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]


async def test_a_delta_costs_few_calls_of_python(server: Any) -> None:
    count = 20_000
    chunks = flood(server, count)
    counts: Counter[str] = Counter()

    def note(frame: Any, event: str, argument: Any) -> None:
        if event in ("call", "c_call"):
            counts[event] += 1

    async with await Connection.open(server, ClientInfo("test", "1")) as connection:
        thread = await connection.start_thread()
        running = await thread.run("go", overflow="block").start()
        server.feed_bytes(*chunks)
        seen = 0
        sys.setprofile(note)
        try:
            async for event in running:
                seen += event.is_delta
        finally:
            sys.setprofile(None)
    assert seen == count
    # The pull of the iterator is one; a queue or a task for each event would be ten more.
    assert counts["call"] / count < 2
    assert counts["c_call"] / count < 4


async def test_a_flood_that_nobody_reads_takes_no_memory(server: Any, eventually: Any) -> None:
    chunks = flood(server, 60_000)
    async with await Connection.open(server, ClientInfo("test", "1")) as connection:
        thread = await connection.start_thread()
        running = await thread.run("go", queue_limit=100, overflow="drop_deltas").start()
        gc.collect()
        tracemalloc.start()
        try:
            server.feed_bytes(*chunks)
            await eventually(lambda: running.done)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert running.dropped_deltas > 59_000
        assert sum(map(len, chunks)) > 10 * MIB
        assert peak < 3 * MIB
