"""What is measured: each scenario runs one implementation once and returns named figures.

A figure's name ends in its unit: ``_ms``, ``_s`` (CPU or wall seconds), ``_us`` or ``_mib``; a name
without a unit is a count. Every clock is CLOCK_MONOTONIC. CPU and memory are those of the daemon's
own processes: no agent and no shell counts.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import processes
from daemon import Daemon, DaemonFailed, Implementation
from fake_linear import FakeLinear

Figures = dict[str, float]

SLOW_TRACKER_S = 0.1
DRAINED = 200
LOAD_AGENTS, LOAD_RATE, LOAD_WINDOW_S, LOAD_MARGIN_S = 50, 50, 4.0, 1.5
READS_PER_S = 10.0


@dataclass(frozen=True)
class Bench:
    """What all scenarios share.

    Attributes:
        agent: The compiled stand-in for Codex.
        work: Where each run gets a directory of its own.
        quick: Fewer and smaller measurements.
    """

    linear: FakeLinear
    endpoint: str
    agent: Path
    work: Path
    quick: bool

    def daemon(
        self,
        implementation: Implementation,
        agent_options: str,
        *,
        polling_s: float = 60.0,
        slots: int = 200,
    ) -> Daemon:
        """Return a daemon that is not started yet; agents understand ``agent_options``."""
        directory = self.work / f"{time.monotonic_ns():x}"
        directory.mkdir(parents=True)
        return Daemon(
            implementation,
            endpoint=self.endpoint,
            directory=directory,
            agent=self.agent,
            agent_options=agent_options,
            polling_s=polling_s,
            slots=slots,
        )

    async def polled(self, daemon: Daemon, limit_s: float = 60.0) -> float:
        """Wait for the first poll of candidates; return when it arrived (monotonic seconds)."""
        end = time.monotonic() + limit_s
        while not self.linear.polls:
            if time.monotonic() > end:
                raise DaemonFailed(f"no poll within {limit_s:.0f} s")
            daemon.check_alive()
            try:
                async with asyncio.timeout(0.1):
                    await self.linear.polled.wait()
            except TimeoutError:
                continue
        return self.linear.polls[0]


Scenario = Callable[[Bench, Implementation], Awaitable[Figures]]


class Meter:
    """CPU seconds of the daemon, and of everything else on the machine, since it was made."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._busy = processes.machine_busy_s()
        self._below = processes.descendants()

    def daemon_s(self) -> float:
        """Return the CPU seconds of the daemon's own processes."""
        return processes.cpu_s(processes.descendants()) - processes.cpu_s(self._below)

    def foreign_cores(self) -> float:
        """Return how many cores were busy with neither daemon nor agents: others, the driver."""
        before = sum(process.cpu_s for process in self._below)
        ours = sum(process.cpu_s for process in processes.descendants()) - before
        busy = processes.machine_busy_s() - self._busy
        return max(0.0, busy - ours) / max(1e-3, time.monotonic() - self._at)


async def cold(bench: Bench, implementation: Implementation) -> Figures:
    """From nothing to the first poll and to an API that answers; idle memory; the end."""
    bench.linear.reset()
    meter = Meter()
    async with bench.daemon(implementation, "--hold") as daemon:
        ready = asyncio.create_task(daemon.http_ready())
        try:
            polled_at = await bench.polled(daemon)
            ready_at = await ready
        finally:
            ready.cancel()
        await asyncio.sleep(1.0)
        figures = {
            "first poll_ms": (polled_at - daemon.started_at) * 1e3,
            "API answers_ms": (ready_at - daemon.started_at) * 1e3,
            "CPU until then and 1 s on_s": meter.daemon_s(),
            "idle RSS_mib": processes.rss_mib(processes.descendants()),
            "foreign": meter.foreign_cores(),
        }
        stopped = await daemon.stop()
    if stopped.exit_s is None:
        raise DaemonFailed("SIGTERM did not end it")
    return {
        **figures,
        "SIGTERM to exit_ms": stopped.exit_s * 1e3,
        "processes left": stopped.leftovers,
    }


async def dispatch(bench: Bench, implementation: Implementation) -> Figures:
    """1, 50 and 200 issues appear, a refresh is asked for: until each agent's thread/start."""
    return await _dispatch(bench, implementation, (1, 50, 200), latency_s=0.0)


async def dispatch_slow(bench: Bench, implementation: Implementation) -> Figures:
    """The same with a tracker that takes 100 ms for every answer."""
    counts = (1, 50) if bench.quick else (1, 50, 200)
    return await _dispatch(bench, implementation, counts, latency_s=SLOW_TRACKER_S)


async def _dispatch(
    bench: Bench, implementation: Implementation, counts: Sequence[int], *, latency_s: float
) -> Figures:
    bench.linear.reset(latency_s=latency_s)
    figures: Figures = {}
    foreign = []
    async with bench.daemon(implementation, "--hold") as daemon:
        await bench.polled(daemon)
        await daemon.http_ready()
        await asyncio.sleep(1.0)
        for count in counts:
            meter, asked = Meter(), bench.linear.requests
            added = bench.linear.add(count)
            if not await daemon.refresh():
                raise DaemonFailed("it refused a refresh")
            took = await daemon.agent_events("thread_start", count, since=added, limit_s=60)
            await daemon.agent_events("turn_start", count, since=added, limit_s=30)
            if count > 1:
                figures[f"{count}: first_ms"] = took[0] * 1e3
                figures[f"{count}: median_ms"] = statistics.median(took) * 1e3
            figures[f"{count}: last_ms"] = took[-1] * 1e3
            figures[f"{count}: CPU_s"] = meter.daemon_s()
            figures[f"{count}: tracker requests"] = bench.linear.requests - asked
            foreign.append(meter.foreign_cores())
            if count != counts[-1]:
                bench.linear.finish_all()
                await daemon.refresh()
                await daemon.settled()
        figures["second agents"] = _second_agents(daemon)
        stopped = await daemon.stop()
    figures[f"SIGTERM with {counts[-1]} agents to exit_ms"] = _exit_ms(stopped.exit_s)
    figures["processes left"] = stopped.leftovers
    figures["foreign"] = statistics.mean(foreign)
    return figures


async def drain(bench: Bench, implementation: Implementation) -> Figures:
    """200 issues appear, each takes one turn that moves it to Done through the agent's tool."""
    return await _drain(bench, implementation, latency_s=0.0)


async def drain_slow(bench: Bench, implementation: Implementation) -> Figures:
    """The same with a tracker that takes 100 ms for every answer."""
    return await _drain(bench, implementation, latency_s=SLOW_TRACKER_S)


async def _drain(bench: Bench, implementation: Implementation, *, latency_s: float) -> Figures:
    bench.linear.reset(latency_s=latency_s)
    async with bench.daemon(implementation, "--finish Done", polling_s=1.0) as daemon:
        await bench.polled(daemon)
        await daemon.http_ready()
        await asyncio.sleep(1.0)
        meter, asked = Meter(), bench.linear.requests
        added = bench.linear.add(DRAINED)
        await daemon.refresh()  # refused or not: the next poll is at most a second away
        peak = 0.0
        end = added + 90
        while len(bench.linear.done()) < DRAINED:
            if time.monotonic() > end:
                raise DaemonFailed(f"{len(bench.linear.done())} of {DRAINED} done after 90 s")
            daemon.check_alive()
            await asyncio.sleep(0.1)
            peak = max(peak, processes.rss_mib(processes.descendants()))
        await daemon.settled()
        return {
            "all done_s": max(bench.linear.done()) - added,
            "all settled_s": time.monotonic() - added,
            "CPU_s": meter.daemon_s(),
            "peak RSS_mib": peak,
            "tracker requests": bench.linear.requests - asked,
            "second agents": _second_agents(daemon),
            "foreign": meter.foreign_cores(),
        }


async def load(bench: Bench, implementation: Implementation) -> Figures:
    """50 agents stream 50 events a second each while the API is read 10 times a second."""
    bench.linear.reset()
    epoch = time.monotonic()
    seconds = LOAD_WINDOW_S + 2 * LOAD_MARGIN_S
    options = f"--rate {LOAD_RATE} --seconds {seconds} --epoch {epoch:.6f} --finish Done"
    async with bench.daemon(implementation, options) as daemon:
        await bench.polled(daemon)
        await daemon.http_ready()
        added = bench.linear.add(LOAD_AGENTS)
        await daemon.refresh()
        await daemon.agent_events("turn_start", LOAD_AGENTS, since=added, limit_s=60)
        await asyncio.sleep(LOAD_MARGIN_S)
        meter, began = Meter(), time.monotonic()
        latencies, ages = await _read_state(daemon, epoch=epoch, for_s=LOAD_WINDOW_S)
        events = LOAD_AGENTS * LOAD_RATE * (time.monotonic() - began)
        figures = {
            "CPU of an event_us": meter.daemon_s() / events * 1e6,
            "RSS_mib": processes.rss_mib(processes.descendants()),
            "state API median_ms": statistics.median(latencies) * 1e3,
            "state API p99_ms": _p99(latencies) * 1e3,
            "foreign": meter.foreign_cores(),
        }
        if ages:
            figures["age of shown tokens, median_ms"] = statistics.median(ages)
            figures["age of shown tokens, p99_ms"] = _p99(ages)
        return figures


async def _read_state(
    daemon: Daemon, *, epoch: float, for_s: float
) -> tuple[list[float], list[float]]:
    """Read the API at a steady pace; return seconds of each answer and ms of age of each total."""
    latencies, ages = [], []
    began = time.monotonic()
    for number in range(round(for_s * READS_PER_S)):
        await asyncio.sleep(max(0.0, began + number / READS_PER_S - time.monotonic()))
        asked = time.monotonic()
        state = await daemon.state()
        answered = time.monotonic()
        latencies.append(answered - asked)
        for row in state.get("running") or ():
            total = (row.get("tokens") or {}).get("total_tokens") or 0
            if total > 0:
                ages.append((answered - epoch) * 1e3 - total)
    return latencies, ages


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


def _exit_ms(exit_s: float | None) -> float:
    if exit_s is None:
        raise DaemonFailed("SIGTERM did not end it")
    return exit_s * 1e3


def _second_agents(daemon: Daemon) -> int:
    """Return how many agents were started beyond one an issue."""
    daemon.log.read()
    return sum(count - 1 for count in daemon.log.starts.values())


SCENARIOS: dict[str, Scenario] = {
    "cold": cold,
    "dispatch": dispatch,
    "dispatch-slow": dispatch_slow,
    "drain": drain,
    "drain-slow": drain_slow,
    "load": load,
}
