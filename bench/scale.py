"""Large boards: what a step, a tick, a snapshot and an agent cost with 1,000 runs.

``.venv/bin/python bench/scale.py``; README.md says what is measured. Nothing here is a test: the
limits are those of the plan, and a machine that is busy exceeds them without a fault of ours.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import processes
from daemon import DaemonFailed, Implementation
from fake_linear import FakeLinear
from run import BUILD, OURS, OURS_COMMAND, REFERENCE, compile_agents, reference_command
from scale_steps import Loaded, measure_steps, progress_of
from scenarios import Bench

from symphony.observe.bus import SnapshotBus
from symphony.scheduler.publish import build_snapshot
from symphony.web.api import encode, present_state
from symphony.web.pages import Pages

STEP_LIMIT_MS = 1.0
TICK_LIMIT_MS = 200.0
AGENT_LIMIT_KIB = 150.0
DISPATCH_LIMIT_S = 2.0
SLOW_TRACKER_S = 0.1
DISPATCHED = 200
WARM_AGENTS = 20
EVENTS_AN_AGENT = 300


@dataclass(frozen=True)
class Row:
    """One line of the table; ``limit`` is None where the plan sets none."""

    name: str
    median: float
    p95: float
    worst: float
    unit: str
    limit: float | None = None

    def text(self) -> str:
        """Return it as a line."""
        verdict = ""
        if self.limit is not None:
            verdict = (
                f"below {self.limit:g}" if self.median < self.limit else f"ABOVE {self.limit:g}"
            )
        figures = (f"{value:10.3f}" for value in (self.median, self.p95, self.worst))
        return f"{self.name:42}{''.join(figures)} {self.unit:4} {verdict}".rstrip()


def main() -> int:
    """Measure and print; 1 where something failed."""
    options = _options()
    parts: dict[str, Callable[[], list[Row]]] = {
        "steps": lambda: steps(options.running, options.candidates),
        "snapshot": lambda: snapshots(options.running),
        "agents": lambda: asyncio.run(_with_daemons(options, agents)),
        "dispatch": lambda: asyncio.run(_with_daemons(options, dispatch)),
    }
    processes.adopt_orphans()
    print(f"{'':42}{'median':>10}{'p95':>10}{'worst':>10}")
    failed = False
    for name in options.parts or parts:
        try:
            for row in parts[name]():
                print(row.text(), flush=True)
        except (DaemonFailed, OSError, TimeoutError) as fault:
            failed = True
            print(f"{name} failed: {fault}", file=sys.stderr)
        finally:
            processes.kill_descendants()
            shutil.rmtree(BUILD / "scale", ignore_errors=True)
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/scale.py", description=main.__doc__)
    parser.add_argument("--running", type=int, default=1000, help="runs (1000)")
    parser.add_argument("--candidates", type=int, default=10_000, help="further issues (10000)")
    parser.add_argument("--reps", type=int, default=3, help="repetitions of what needs a daemon")
    parser.add_argument(
        "--parts",
        type=lambda text: text.split(","),
        help="steps,snapshot,agents,dispatch; all of them without this",
    )
    parser.add_argument("--ours-command", help="instead of the installed symphony")
    parser.add_argument("--reference-command", help="instead of the installed exocortex-symphony")
    options = parser.parse_args()
    unknown = set(options.parts or ()) - {"steps", "snapshot", "agents", "dispatch"}
    if unknown:
        parser.error(f"--parts: {', '.join(sorted(unknown))}")
    return options


# -- in this process


def steps(running: int, candidates: int) -> list[Row]:
    """Cost of one step by kind of event, and of a whole tick."""
    by_kind, ticks = measure_steps(running, candidates)
    whole = ("CandidatesFetched (all)", "IssuesRefreshed (all runs)", "SettingsChanged")
    rows = [
        _row(f"step: {kind}", spent, "ms", None if kind in whole else STEP_LIMIT_MS)
        for kind, spent in sorted(by_kind.items())
    ]
    name = f"tick: {running} runs, {candidates + running} candidates"
    return [*rows, _row(name, ticks, "ms", TICK_LIMIT_MS)]


def snapshots(running: int) -> list[Row]:
    """Cost of a snapshot of all runs: build, publish, and the two forms in which it is read."""
    loaded = Loaded(running, 200)
    records = progress_of(loaded, "command started: make test")
    spent: dict[str, list[float]] = {}
    pages = Pages()

    def timed(name: str, work: Callable[[], object]) -> object:
        began = time.thread_time()
        result = work()
        spent.setdefault(name, []).append(time.thread_time() - began)
        return result

    async def publish() -> None:
        def build() -> object:
            return build_snapshot(loaded.state, records, loaded.now, sequence=1, rate_limits=None)

        bus = SnapshotBus(build)
        for _ in range(30):
            shown = timed("snapshot: build", build)
            timed("snapshot: publish", lambda shown=shown: bus.publish(shown))
            body = timed("snapshot: as JSON", lambda shown=shown: encode(present_state(shown)))
            timed("snapshot: as HTML", lambda shown=shown: pages.fragment(shown).encode())
            assert len(body) > 100 * running

    asyncio.run(publish())
    return [_row(name, values, "ms") for name, values in spent.items()]


# -- real daemons


async def _with_daemons(
    options: argparse.Namespace,
    measure: Callable[[Bench, Implementation, int], object],
) -> list[Row]:
    compiled = compile_agents()
    if compiled is None:
        print("no C compiler: the stand-in for Codex can't be made", file=sys.stderr)
        return []
    ours = options.ours_command or OURS_COMMAND.format(bin=Path(sys.executable).parent)
    contestants = [Implementation(OURS, ours)]
    reference = options.reference_command or reference_command()
    if reference is not None:
        unpacked = {"XDG_DATA_HOME": str(BUILD / "reference")}
        contestants.append(Implementation(REFERENCE, reference, unpacked))
    linear = FakeLinear()
    rows: list[Row] = []
    try:
        bench = Bench(linear, await linear.start(), compiled.one_turn, BUILD / "scale", quick=False)
        for contestant in contestants:
            rows += await measure(bench, contestant, options)
    finally:
        await linear.stop()
    return rows


async def agents(bench: Bench, who: Implementation, options: argparse.Namespace) -> list[Row]:
    """Memory of the daemon for each agent that runs, idle and after a few hundred events."""
    if who.name != OURS:
        return []  # the reference takes minutes to start so many
    count = options.running
    bench.linear.reset()
    rate = 30
    words = f"--rate {rate} --seconds {EVENTS_AN_AGENT / rate:g} --hold"
    async with bench.daemon(who, words, slots=count + WARM_AGENTS) as daemon:
        await bench.polled(daemon)
        await daemon.http_ready()
        await _start(bench, daemon, WARM_AGENTS)
        await asyncio.sleep(EVENTS_AN_AGENT / rate + 2)
        before = processes.rss_mib(processes.descendants())
        took = await _start(bench, daemon, count)
        fresh = processes.rss_mib(processes.descendants())
        await asyncio.sleep(EVENTS_AN_AGENT / rate * 2 + 2)
        settled = processes.rss_mib(processes.descendants())
        await daemon.stop()

    def row(name: str, mib: float) -> Row:
        kib = (mib - before) * 1024 / count
        return Row(name, kib, kib, kib, "KiB", AGENT_LIMIT_KIB)

    return [
        row(f"memory an agent: {count} started", fresh),
        row(f"memory an agent: after {EVENTS_AN_AGENT} events each", settled),
        Row(f"{count} agents running after", took, took, took, "s"),
    ]


async def dispatch(bench: Bench, who: Implementation, options: argparse.Namespace) -> list[Row]:
    """200 eligible issues appear; each answer of the tracker takes 100 ms."""
    took = []
    for _ in range(options.reps):
        bench.linear.reset(latency_s=SLOW_TRACKER_S)
        async with bench.daemon(who, "--hold") as daemon:
            await bench.polled(daemon)
            await daemon.http_ready()
            await asyncio.sleep(1.0)
            took.append(await _start(bench, daemon, DISPATCHED))
            await daemon.stop()
    limit = DISPATCH_LIMIT_S if who.name == OURS else None
    name = f"{DISPATCHED} running, 100 ms tracker: {who.name}"
    return [Row(name, statistics.median(took), _at(took, 0.95), max(took), "s", limit)]


async def _start(bench: Bench, daemon: object, count: int) -> float:
    """Let so many issues appear; return the seconds until the last one's agent has a thread."""
    added = bench.linear.add(count)
    if not await daemon.refresh():
        raise DaemonFailed("it refused a refresh")
    took = await daemon.agent_events("thread_start", count, since=added, limit_s=180)
    return took[-1]


def _row(name: str, seconds: Sequence[float], unit: str, limit: float | None = None) -> Row:
    millis = [value * 1e3 for value in seconds]
    return Row(name, statistics.median(millis), _at(millis, 0.95), max(millis), unit, limit)


def _at(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


if __name__ == "__main__":
    sys.exit(main())
