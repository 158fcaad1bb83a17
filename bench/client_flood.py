"""What an event costs the client library, beside the least that Python can do with it.

    python client_flood.py CASE AGENT EVENTS      prints one line of JSON

``floor`` reads chunks of 256 KiB, splits them, decodes each line into typed structs with msgspec
and hands whole batches to a consumer: nothing about ids, calls, turns or limits. ``iterate`` is the
library's ``async for event in turn``, ``await`` its ``await turn``. Each case has a fresh
interpreter. ``peer`` is the quickest other client on PyPI (`codex-app-server-client`), ``official``
the iterator of OpenAI's own async client with a tenth of the events; both where installed. The
agent sends its events as fast as they are taken. Time runs from just before ``turn/start`` to the
turn's end; CPU is that of this process alone.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import resource
import subprocess
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import codex_app_server as codex
import msgspec

CHUNK = 256 * 1024
LIMIT_S = 120.0
SLOW_BATCH, SLOW_PAUSE_S = 512, 0.005


class Envelope(msgspec.Struct, gc=False):
    """A message of the server, its body not decoded yet."""

    method: str | None = None
    params: msgspec.Raw = msgspec.Raw(b"")


class Delta(msgspec.Struct, rename="camel", gc=False):
    """Params of ``item/agentMessage/delta``."""

    thread_id: str
    turn_id: str
    item_id: str
    delta: str


class Span:
    """CPU, wall clock and memory between ``start`` and ``end``."""

    def start(self) -> None:
        # Writing 5 sets the peak to what is resident: what the imports took must hide no growth.
        Path("/proc/self/clear_refs").write_text("5")
        self._wall, self._cpu, self._rss = time.monotonic(), _cpu_s(), _peak_mib()

    def end(self, events: int) -> dict[str, float]:
        cpu, wall = _cpu_s() - self._cpu, time.monotonic() - self._wall
        return {
            "CPU of an event_us": cpu / events * 1e6,
            "events a second": events / wall,
            "RSS growth_mib": _peak_mib() - self._rss,
        }


async def floor(agent: str, events: int) -> dict[str, float]:
    """The least: no library, nothing but decoding and handing over."""
    process = await asyncio.create_subprocess_exec(
        agent,
        "--burst",
        str(events),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 26,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    for number, method in enumerate(("initialize", "thread/start")):
        process.stdin.write(b'{"id":%d,"method":"%s","params":{}}\n' % (number, method.encode()))
        await process.stdout.readline()
    await process.stdout.readline()  # thread/started
    span = Span()
    span.start()
    process.stdin.write(b'{"id":3,"method":"turn/start","params":{}}\n')
    seen = await _decode_all(process.stdout)
    figures = span.end(seen)
    process.stdin.close()
    await process.wait()
    return figures


async def _decode_all(stream: asyncio.StreamReader) -> int:
    """Decode until the turn's end and hand over in batches; return how many deltas came through."""
    decode_envelope = msgspec.json.Decoder(Envelope).decode
    decode_delta = msgspec.json.Decoder(Delta).decode
    ready: deque[Any] = deque()
    wake = asyncio.Event()

    async def consume() -> int:
        seen = 0
        while True:
            await wake.wait()
            wake.clear()
            while ready:
                message = ready.popleft()
                if type(message) is Delta:
                    seen += 1
                elif message.method == "turn/completed":
                    return seen

    consumer = asyncio.create_task(consume())
    rest = b""
    while not consumer.done():
        lines = (rest + await stream.read(CHUNK)).split(b"\n")
        rest = lines.pop()
        for line in lines:
            envelope = decode_envelope(line)
            is_delta = envelope.method == "item/agentMessage/delta"
            ready.append(decode_delta(envelope.params) if is_delta else envelope)
        wake.set()
        await asyncio.sleep(0)
    return await consumer


async def iterate(agent: str, events: int) -> dict[str, float]:
    """The library's iterator over all events of a turn, with coalescing off: each is one."""

    async def consume(turn: codex.Turn) -> int:
        seen = 0
        async for event in turn:
            if event.is_delta:
                seen += 1
        return seen

    return await _with_library(agent, events, consume, "block")


async def iterate_coalesce(agent: str, events: int) -> dict[str, float]:
    """The same as users get it: deltas are merged where the consumer falls behind."""

    async def consume(turn: codex.Turn) -> int:
        seen = 0
        async for event in turn:
            if event.is_delta:
                seen += event.merged
        return seen

    return await _with_library(agent, events, consume)


async def slow_coalesce(agent: str, events: int) -> dict[str, float]:
    """A consumer that lags, with the policy that merges what it has no room for."""
    return await _lagging(agent, events, "coalesce")


async def stalled(agent: str, events: int) -> dict[str, float]:
    """A consumer that reads nothing before the turn's end, with the default policy."""

    async def consume(turn: codex.Turn) -> int:
        ends = turn.thread.connection.subscribe(methods=["turn/completed"])
        seen, ended = 0, False
        async for event in turn:
            if not ended:
                await ends.next()
                ended = True
            seen += event.merged if event.is_delta else 0
        return seen + turn.dropped_deltas

    return await _with_library(agent, events, consume)


async def slow_block(agent: str, events: int) -> dict[str, float]:
    """A consumer that lags, with the policy that makes the server wait."""
    return await _lagging(agent, events, "block")


async def slow_drop(agent: str, events: int) -> dict[str, float]:
    """A consumer that lags, with the policy that drops deltas."""
    return await _lagging(agent, events, "drop_deltas")


async def _lagging(
    agent: str, events: int, overflow: Literal["coalesce", "block", "drop_deltas"]
) -> dict[str, float]:
    async def consume(turn: codex.Turn) -> int:
        seen = taken = 0
        async for event in turn:
            taken += 1
            if taken % SLOW_BATCH == 0:
                await asyncio.sleep(SLOW_PAUSE_S)
            seen += event.merged if event.is_delta else 0
        return seen + turn.dropped_deltas

    return await _with_library(agent, events, consume, overflow)


async def await_(agent: str, events: int) -> dict[str, float]:
    """The library where only the turn's result is wanted."""

    async def consume(turn: codex.Turn) -> int:
        await turn
        return events

    return await _with_library(agent, events, consume)


async def _with_library(
    agent: str,
    events: int,
    consume: Callable[[codex.Turn], Awaitable[int]],
    overflow: Literal["coalesce", "block", "drop_deltas"] = "coalesce",
) -> dict[str, float]:
    transport = await codex.SubprocessTransport.spawn([agent, "--burst", str(events)])
    client = codex.ClientInfo(name="bench", version="1")
    async with await codex.Connection.open(transport, client) as connection:
        thread = await connection.start_thread(cwd="/")
        span = Span()
        span.start()
        seen = await consume(thread.run("go", overflow=overflow))
        figures = span.end(events)
    if seen != events:
        raise SystemExit(f"{seen} of {events} events came through")
    return figures


async def official(agent: str, events: int) -> dict[str, float]:
    """The iterator of OpenAI's async client."""
    from openai_codex import AsyncCodex
    from openai_codex.client import CodexConfig

    command = (agent, "--burst", str(events))
    async with AsyncCodex(CodexConfig(launch_args_override=command)) as client:
        thread = await client.thread_start()
        span = Span()
        span.start()
        turn = await thread.turn("go")
        seen = 0
        async for _event in turn.stream():
            seen += 1
        figures = span.end(events)
    if seen < events:
        raise SystemExit(f"{seen} of {events} events came through")
    return figures


async def peer(agent: str, events: int) -> dict[str, float]:
    """The quickest other client on PyPI: its reader of lines alone, which yields bare dicts."""
    from codex_app_server_client.protocol.transport import AsyncStdioTransport

    transport = AsyncStdioTransport(agent, extra_args=["--burst", str(events)])
    await transport.start()
    for number, method in enumerate(("initialize", "thread/start")):
        await transport.write({"id": number, "method": method, "params": {}})
        await transport.read_line()
    await transport.read_line()  # thread/started
    span = Span()
    span.start()
    await transport.write({"id": 3, "method": "turn/start", "params": {}})
    seen = 0
    while (message := await transport.read_line()) is not None:
        if message.get("method") == "item/agentMessage/delta":
            seen += 1
        elif message.get("method") == "turn/completed":
            break
    figures = span.end(seen)
    await transport.close()
    if seen != events:
        raise SystemExit(f"{seen} of {events} events came through")
    return figures


CASES: dict[str, Callable[[str, int], Awaitable[dict[str, float]]]] = {
    "floor": floor,
    "iterate": iterate,
    "iterate, coalesce": iterate_coalesce,
    "await": await_,
    "slow, coalesce": slow_coalesce,
    "stalled": stalled,
    "slow, block": slow_block,
    "slow, drop_deltas": slow_drop,
    "peer": peer,
    "official": official,
}
NEEDS = {"peer": "codex_app_server_client", "official": "openai_codex"}
"""Cases of other clients, by the module without which they are left out."""

OFFICIAL_SHARE = 0.1
"""The part of the events for the slowest case; its cost of an event grows with their number."""


def cases() -> list[str]:
    """Return the names of the cases that can be measured here."""
    return [
        name
        for name in CASES
        if name not in NEEDS or importlib.util.find_spec(NEEDS[name]) is not None
    ]


def measure(case: str, agent: Path, events: int) -> dict[str, float]:
    """Run one case in a fresh interpreter.

    Raises:
        subprocess.SubprocessError: It failed or took too long.
    """
    if case == "official":
        events = int(events * OFFICIAL_SHARE)
    done = subprocess.run(
        [sys.executable, __file__, case, str(agent), str(events)],
        stdout=subprocess.PIPE,
        timeout=LIMIT_S,
        check=True,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _peak_mib() -> float:
    # Not ru_maxrss: that starts with the size of the process that made this one.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


async def _main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("case", choices=CASES, metavar="CASE", help=", ".join(CASES))
    parser.add_argument("agent", metavar="AGENT", help="the program that floods")
    parser.add_argument("events", metavar="EVENTS", type=int, help="how many it sends")
    given = parser.parse_args()
    print(json.dumps(await CASES[given.case](given.agent, given.events)))


if __name__ == "__main__":
    asyncio.run(_main())
