"""``make bench``: our figures beside the reference executable's, in one run.

See README.md for what is measured and how to read it. Nothing here is a test: what counts is the
ratio of two figures of the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import client_flood
import client_latency
import processes
from daemon import DaemonFailed, Implementation
from fake_linear import FakeLinear
from report import Report, Sample
from scenarios import SCENARIOS, Bench

HERE = Path(__file__).resolve().parent
BUILD = HERE / "build"
RESULTS = HERE / "results"
OURS, REFERENCE, CLIENT, INTERRUPT = "ours", "reference", "client", "interrupt"
OURS_COMMAND = "{bin}/symphony {{workflow}} --port {{port}} --logs-root {{logs}}"
REFERENCE_COMMAND = (
    "{program} --i-understand-that-this-will-be-running-without-the-usual-guardrails"
    " --port {{port}} --logs-root {{logs}} {{workflow}}"
)
SCENARIO_LIMIT_S = 240.0
FLOOD_EVENTS, QUICK_FLOOD_EVENTS = 500_000, 200_000
INTERRUPTS, QUICK_INTERRUPTS = 500, 100


def main() -> int:
    """Measure what the command line asks for and print it; 1 if anything failed or was stopped."""
    options = _options()
    agents = compile_agents()
    if agents is None:
        print(
            "bench: skipped: no C compiler; the stand-in for Codex is written in C so that hundreds"
            " of it cost nothing. Install gcc, or set CC to a compiler.",
            file=sys.stderr,
        )
        return 0
    processes.adopt_orphans()
    contestants = _contestants(options)
    report = Report(OURS, REFERENCE if len(contestants) > 1 else None)
    began, complete = time.monotonic(), False
    try:
        asyncio.run(_measure(options, agents, contestants, report))
        complete = True
    except TimeoutError:
        print(f"bench: the limit of {options.limit:.0f} s is reached:", file=sys.stderr)
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("bench: stopped; what was measured so far:", file=sys.stderr)
    finally:
        processes.kill_descendants()
        shutil.rmtree(BUILD / "work", ignore_errors=True)
    _print(report, options.scenarios, time.monotonic() - began)
    return 0 if complete and not any(sample.error for sample in report.samples) else 1


def _options() -> argparse.Namespace:
    names = [*SCENARIOS, CLIENT, INTERRUPT]
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=main.__doc__)
    parser.add_argument(
        "--scenarios",
        type=lambda text: text.split(","),
        default=names,
        help=f"which, separated by commas; all of them: {','.join(names)}",
    )
    parser.add_argument("--reps", type=int, help="repetitions of each (3; with --quick 1)")
    parser.add_argument("--quick", action="store_true", help="an impression in under 3 minutes")
    parser.add_argument("--no-reference", action="store_true", help="measure ours alone")
    parser.add_argument("--ours-command", help="instead of the installed symphony")
    parser.add_argument("--reference-command", help="instead of the installed exocortex-symphony")
    parser.add_argument("--limit", type=float, default=1800, help="stop after so many seconds")
    options = parser.parse_args()
    unknown = set(options.scenarios) - set(names)
    if unknown:
        parser.error(f"--scenarios: {', '.join(sorted(unknown))}: choose from {', '.join(names)}")
    if options.reps is None:
        options.reps = 1 if options.quick else 3
    if options.quick and "drain-slow" in options.scenarios and options.scenarios == names:
        options.scenarios = [name for name in names if name != "drain-slow"]
    return options


@dataclass(frozen=True)
class Agents:
    """The compiled stand-ins for Codex: one turn a process, and many turns at once."""

    one_turn: Path
    streams: Path


def compile_agents() -> Agents | None:
    """Compile the stand-ins for Codex if need be; None without a compiler."""
    compiler = shutil.which(os.environ.get("CC", "gcc"))
    if compiler is None:
        return None
    return Agents(
        one_turn=_compiled(compiler, processes.AGENT),
        streams=_compiled(compiler, client_latency.AGENT),
    )


def _compiled(compiler: str, name: str) -> Path:
    sources = [HERE / f"{name}.c", HERE / "json_line.h"]
    agent = BUILD / name
    BUILD.mkdir(exist_ok=True)
    if not agent.exists() or agent.stat().st_mtime < max(s.stat().st_mtime for s in sources):
        command = [compiler, "-O2", "-Wall", "-o", str(agent), str(sources[0])]
        # Not every machine has the static libraries; they only make the start cheaper.
        if subprocess.run([*command, "-static"], check=False, capture_output=True).returncode:
            subprocess.run(command, check=True)
    return agent


def _contestants(options: argparse.Namespace) -> list[Implementation]:
    if not set(options.scenarios) & set(SCENARIOS):
        return []
    programs = Path(sys.executable).parent
    ours = options.ours_command or OURS_COMMAND.format(bin=programs)
    found = [Implementation(OURS, ours)]
    if options.no_reference:
        return found
    command = options.reference_command or reference_command()
    if command is None:
        print(
            "bench: exocortex-symphony is not installed, so there is nothing to compare with; "
            "`uv sync --group bench` brings it",
            file=sys.stderr,
        )
        return found
    # It unpacks itself into this directory at its first start, which is not measured.
    unpacked = {"XDG_DATA_HOME": str(BUILD / "reference")}
    return [*found, Implementation(REFERENCE, command, unpacked)]


def reference_command() -> str | None:
    """Return the command of the reference executable that is installed, or None."""
    programs = Path(sys.executable).parent
    installed = shutil.which("exocortex-symphony", path=f"{programs}:{os.environ['PATH']}")
    return installed and REFERENCE_COMMAND.format(program=installed)


async def _measure(
    options: argparse.Namespace,
    agents: Agents,
    contestants: list[Implementation],
    report: Report,
) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    linear = FakeLinear()
    try:
        bench = Bench(linear, await linear.start(), agents.one_turn, BUILD / "work", options.quick)
        async with asyncio.timeout(options.limit):
            await _warm_up(bench, contestants)
            for repetition in range(options.reps):
                # The order alternates so that neither always meets the warmer machine.
                order = contestants if repetition % 2 == 0 else contestants[::-1]
                for scenario in options.scenarios:
                    for case, measure in _client_cases(scenario, agents, options.quick):
                        _measure_client(scenario, case, measure, report)
                    for implementation in order if scenario in SCENARIOS else ():
                        await _sample(bench, scenario, implementation, report)
    finally:
        await linear.stop()
    if linear.unknown:
        print(f"bench: queries not answered: {sorted(set(linear.unknown))}", file=sys.stderr)


async def _warm_up(bench: Bench, contestants: Sequence[Implementation]) -> None:
    """Start each once unmeasured: unpacking, byte code, the disk's cache."""
    for implementation in contestants:
        bench.linear.reset()
        async with bench.daemon(implementation, "--hold") as daemon:
            await bench.polled(daemon, 180)


async def _sample(
    bench: Bench, scenario: str, implementation: Implementation, report: Report
) -> None:
    began = time.monotonic()
    error, figures = None, {}
    try:
        async with asyncio.timeout(SCENARIO_LIMIT_S):
            figures = await SCENARIOS[scenario](bench, implementation)
    except TimeoutError:
        error = f"it took more than {SCENARIO_LIMIT_S:.0f} s"
    except (DaemonFailed, OSError) as fault:
        error = str(fault)
    report.samples.append(Sample(scenario, implementation.name, figures, error))
    outcome = f"{time.monotonic() - began:.1f} s" if error is None else f"failed: {error.rstrip()}"
    print(f"# {scenario}, {implementation.name}: {outcome}", file=sys.stderr, flush=True)


def _client_cases(
    scenario: str, agents: Agents, quick: bool
) -> Iterator[tuple[str, Callable[[], dict[str, float]]]]:
    """Yield the cases of a scenario of the client library, and what measures each."""
    if scenario == CLIENT:
        events = QUICK_FLOOD_EVENTS if quick else FLOOD_EVENTS
        for case in client_flood.cases():
            yield case, partial(client_flood.measure, case, agents.one_turn, events)
    elif scenario == INTERRUPT:
        samples = QUICK_INTERRUPTS if quick else INTERRUPTS
        for case in client_latency.CASES:
            yield case, partial(client_latency.measure, case, agents.streams, samples)


def _measure_client(
    scenario: str, case: str, measure: Callable[[], dict[str, float]], report: Report
) -> None:
    error, figures = None, {}
    try:
        figures = measure()
    except (subprocess.SubprocessError, ValueError) as fault:
        error = str(fault)
    report.samples.append(Sample(scenario, case, figures, error))
    print(f"# {scenario}, {case}: {error or 'measured'}", file=sys.stderr, flush=True)


def _print(report: Report, scenarios: Sequence[str], took_s: float) -> None:
    daemons = [name for name in scenarios if name in SCENARIOS]
    if daemons:
        print(f"\n{report.table(daemons, OURS, report.other)}")
    if CLIENT in scenarios:
        for case in client_flood.cases()[1:]:
            print(f"\n{report.table([CLIENT], case, 'floor')}")
    if INTERRUPT in scenarios:
        for case in client_latency.CASES[1:]:
            print(f"\n{report.table([INTERRUPT], case, 'silent')}")
    print()
    for remark in report.remarks():
        print(remark)
    path = RESULTS / time.strftime("%Y%m%dT%H%M%SZ.json", time.gmtime())
    report.write(path, versions=_versions())
    print(f"Took {took_s:.0f} s; every sample is in {path}")


def _versions() -> dict[str, str]:
    versions = {}
    for name in ("symphony-orchestrator", "codex-app-server", "exocortex-symphony", "openai-codex"):
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    with suppress(OSError, subprocess.CalledProcessError):
        head = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
        versions["commit"] = subprocess.run(
            head, check=True, capture_output=True, text=True
        ).stdout.strip()
    return versions


if __name__ == "__main__":
    sys.exit(main())
