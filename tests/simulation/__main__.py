"""``python -m tests.simulation``: replay one seed, or run many and report the pace."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

from .simulate import Report, SeedFailed, simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("--trace", action="store_true", help="print all that happens")
    parser.add_argument("--hours", type=float, help="hours of trouble, instead of the seed's own")
    parser.add_argument("--without", default="", help="kinds of trouble to leave out: a,b")
    parser.add_argument("--dies-after", type=int, help="an eventful day, and a crash after write N")
    parser.add_argument("--real", action="store_true", help="the runner's own attempts work")
    parser.add_argument("--shrink", action="store_true", help="find what the failure needs")
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    without = tuple(filter(None, options.without.split(",")))
    if options.seed is not None and options.shrink:
        return _shrink(options.seed)
    if options.seed is not None:
        given = {
            "hours": options.hours,
            "without": without,
            "dies_after": options.dies_after,
            "real_attempts": options.real,
        }
        return _replay(options.seed, options.trace, **given)
    attempt = partial(_try, real_attempts=options.real)
    return _run_many(range(options.first, options.first + options.count), options.workers, attempt)


def _replay(seed: int, trace: bool, **given: Any) -> int:
    try:
        report = simulate(seed, trace=print if trace else None, **given)
    except SeedFailed as failure:
        print(failure)
        return 1
    print(report)
    return 0


def _shrink(seed: int) -> int:
    """Leave out kinds of trouble, and time, as long as the seed still fails."""
    from dataclasses import fields

    from .scenario import Weather, scenario_of

    def fails(without: tuple[str, ...], hours: float | None) -> bool:
        try:
            simulate(seed, without=without, hours=hours)
        except SeedFailed:
            return True
        return False

    if not fails((), None):
        print(f"seed {seed} does not fail")
        return 0
    without: tuple[str, ...] = ()
    for name in (field.name for field in fields(Weather)):
        if fails((*without, name), None):
            without = (*without, name)
    hours = scenario_of(seed).hours
    while fails(without, hours / 2) and hours > 0.01:
        hours /= 2
    kept = [field.name for field in fields(Weather) if field.name not in without]
    print(f"needs only: {', '.join(kept) or 'nothing'}, in {hours:.3f} h")
    command = f"--seed {seed} --hours {hours} --without {','.join(without)} --trace"
    print(f".venv/bin/python -m tests.simulation {command}")
    return 1


def _try(seed: int, *, real_attempts: bool) -> tuple[Report | str, float]:
    began = time.process_time()
    try:
        result: Report | str = simulate(seed, real_attempts=real_attempts)
    except SeedFailed as failure:
        result = str(failure)
    return result, time.process_time() - began


def _run_many(
    seeds: Sequence[int], workers: int, attempt: Callable[[int], tuple[Report | str, float]]
) -> int:
    began = time.perf_counter()
    failures = 0
    simulated_s = steps = cpu_s = 0.0
    counts: Counter[str] = Counter()
    with ProcessPoolExecutor(workers) as pool:
        for result, spent_s in pool.map(attempt, seeds, chunksize=5):
            cpu_s += spent_s
            if isinstance(result, str):
                failures += 1
                print(result, flush=True)
            else:
                simulated_s += result.simulated_s
                steps += result.steps
                counts += result.counts
    seconds = time.perf_counter() - began
    print(
        f"{len(seeds)} seeds, {failures} failed, {simulated_s / 3600:.0f} simulated hours, "
        f"{steps:.0f} steps in {seconds:.1f} s: {simulated_s / 60 / seconds:.0f} hours a minute, "
        f"{simulated_s / 60 / cpu_s:.0f} a minute of processor time"
    )
    print(", ".join(f"{name} {number}" for name, number in sorted(counts.items())))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
