"""How soon an interrupt takes effect while many turns stream over one connection.

    python client_latency.py CASE AGENT SAMPLES      prints one line of JSON

``fake_streams.c`` floods deltas of 16 turns, as fast as they are taken; each has a consumer. Again
and again, at a random moment, one turn is interrupted through `Turn.interrupt` and another one
started in its place. Four spans are told, in milliseconds (median, 95th percentile, longest):

- *timer late*: from the moment at which our task wanted to run to the moment at which it did;
- *to the wire*: from the call of ``interrupt()`` to the request having been read by the server;
- *to the end*: from the call to the turn's end event in the hands of its consumer;
- *to the return*: from the call to its return: the turn has ended, its commands are cleaned up.

``iterate`` consumes with ``async for event in turn``, ``block`` so with ``overflow="block"``,
``await`` with ``await turn``. ``silent`` is ``iterate`` with turns that stream nothing: what the
machine takes anyway.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import codex_app_server as codex

TURNS = 16
AGENT = "fake_streams"
LIMIT_S = 120.0
WAIT_MAX_S = 0.02
CASES = ("silent", "iterate", "block", "await")


class Stream:
    """One thread, whose turn streams until it is interrupted, and its consumer."""

    def __init__(self, thread: codex.Thread, case: str) -> None:
        self._thread = thread
        self._case = case
        self.events = 0

    async def start(self) -> None:
        """Start a turn and return when it streams."""
        self.flowing = asyncio.Event()
        self.turn = self._thread.run(
            "go", overflow="block" if self._case == "block" else "coalesce"
        )
        consume = self._await if self._case == "await" else self._iterate
        self._consumer = asyncio.create_task(consume(self.turn), name="bench-consumer")
        await self.flowing.wait()

    async def _iterate(self, turn: codex.Turn) -> tuple[float, dict[str, Any]]:
        """Return when the turn's end was seen, and what it said."""
        async for event in turn:
            self.flowing.set()
            if event.is_delta:
                self.events += event.merged
            elif event.method == "turn/completed":
                return time.monotonic(), event.data
        raise SystemExit("a turn ended without its event")

    async def _await(self, turn: codex.Turn) -> tuple[float, dict[str, Any]]:
        """Return when the wait for the turn was over, and what its end said."""
        listening = self._thread.connection.subscribe(
            thread_id=self._thread.id, methods=["turn/started", "turn/completed"]
        )
        async with listening as events:
            result = asyncio.create_task(turn.result(), name="bench-result")
            await events.next()
            self.flowing.set()
            try:
                await result
            except codex.TurnInterrupted:
                seen = time.monotonic()
            else:
                raise SystemExit("an interrupted turn completed")
            return seen, (await events.next()).data

    async def interrupt(self, wait_s: float) -> dict[str, float]:
        """Interrupt the turn after a pause; return the spans in seconds."""
        due = time.monotonic() + wait_s
        await asyncio.sleep(wait_s)
        called = time.monotonic()
        await self.turn.interrupt()
        returned = time.monotonic()
        seen, end = await self._consumer
        return {
            "timer late": max(0.0, called - due),
            "to the wire": end["interruptReadAtS"] - called,
            "to the end": seen - called,
            "to the return": returned - called,
        }


async def run(case: str, agent: str, samples: int) -> dict[str, float]:
    """Measure one case."""
    transport = await codex.SubprocessTransport.spawn([agent, *["--silent"] * (case == "silent")])
    client = codex.ClientInfo(name="bench", version="1")
    chance = random.Random(16)
    taken: list[dict[str, float]] = []
    async with await codex.Connection.open(transport, client) as connection:
        streams = [Stream(await connection.start_thread(cwd="/"), case) for _ in range(TURNS)]
        await asyncio.gather(*(stream.start() for stream in streams))
        began, used = time.monotonic(), time.process_time()
        for number in range(samples):
            stream = streams[number % TURNS]
            taken.append(await stream.interrupt(chance.uniform(0, WAIT_MAX_S)))
            await stream.start()
        took_s, cpu_s = time.monotonic() - began, time.process_time() - used
        events = sum(stream.events for stream in streams)
        for stream in streams:
            await stream.interrupt(0)
    figures = {
        f"{span}, {name}_ms": value * 1000
        for span in taken[0]
        for name, value in spread([sample[span] for sample in taken]).items()
    }
    if events:
        figures["CPU of an event_us"] = cpu_s / events * 1e6
        figures["events a second"] = events / took_s
    return figures


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the 95th percentile and the largest value."""
    return {
        "median": statistics.median(values),
        "p95": statistics.quantiles(values, n=20)[-1],
        "max": max(values),
    }


def measure(case: str, agent: Path, samples: int) -> dict[str, float]:
    """Run one case in a fresh interpreter.

    Raises:
        subprocess.SubprocessError: It failed or took too long.
    """
    done = subprocess.run(
        [sys.executable, __file__, case, str(agent), str(samples)],
        stdout=subprocess.PIPE,
        timeout=LIMIT_S,
        check=True,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


async def _main() -> None:
    case, agent, samples = sys.argv[1:]
    print(json.dumps(await run(case, agent, int(samples))))


if __name__ == "__main__":
    asyncio.run(_main())
