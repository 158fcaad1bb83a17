"""What is left when the operator has seen enough of the demo."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

LIMIT_S = 60.0


async def test_an_interrupted_demo_says_so_and_leaves_nothing_behind(
    codex: Path, cache_folder: Path
) -> None:
    demo = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "symphony", "demo", "--codex", str(codex), "--port", "0"),
        env={**os.environ, "XDG_CACHE_HOME": str(cache_folder)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert demo.stdout is not None
    async with asyncio.timeout(LIMIT_S):
        assert (await demo.stdout.readline()).startswith(b"Dashboard: http")
        demo.send_signal(signal.SIGINT)
        _, told = await demo.communicate()

    assert demo.returncode == 130, told.decode()
    assert told == b""
    assert list((cache_folder / "symphony").glob("demo-*")) == []
