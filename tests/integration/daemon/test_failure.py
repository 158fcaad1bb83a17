"""A daemon of which a part fails ends in stages, with a status that says so (SPEC 17.7)."""

from __future__ import annotations

import asyncio
import sys
from typing import Any


async def test_a_daemon_that_loses_a_part_ends_with_status_1(place: Any) -> None:
    # The prompt's engine is imported once the daemon runs; a broken installation of it is a
    # failure that no check of the start can see.
    broken = place.root / "broken" / "liquid"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('half an installation')\n")
    place.environ["PYTHONPATH"] = str(broken.parent)

    daemon = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "symphony", str(place.workflow), "--instance", place.instance),
        env=place.environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    place.daemons.append(daemon)
    async with asyncio.timeout(30):
        said, _ = await daemon.communicate()

    assert daemon.returncode == 1
    assert b"A part of the daemon failed; stopping" in said
    assert b"half an installation" in said
    assert place.processes() == []
