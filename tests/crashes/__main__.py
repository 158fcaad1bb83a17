"""``python -m tests.crashes``: play rounds again, or many of them."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from codex_app_server.binary import resolve_binary

from .rounds import SIZES, RoundFailed, run_round


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crashes", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first round")
    parser.add_argument("--count", type=int, default=1, help="how many rounds from there")
    parser.add_argument("--times", type=int, default=1, help="how often each is played")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--codex", type=Path, help="a native binary; the bundled one otherwise")
    parser.add_argument("--keep", action="store_true", help="leave the directories")
    options = parser.parse_args()
    os.environ.setdefault("SYMPHONY_TEST_CACHE", str(Path.home() / ".cache" / "symphony-tests"))
    environment = None if options.codex else {"PATH": ""}
    codex = resolve_binary(options.codex, environment=environment).path
    failures = 0
    for seed in range(options.seed, options.seed + options.count):
        for _ in range(options.times):
            try:
                report = asyncio.run(run_round(seed, options.size, codex=codex, keep=options.keep))
            except RoundFailed as failure:
                failures += 1
                print(failure, flush=True)
            else:
                print(report, flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
