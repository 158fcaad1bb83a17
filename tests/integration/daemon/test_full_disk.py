"""The disk of the state directory fills up under a daemon: work goes on, nothing is lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Place

HANGING = [[{"hang": True}]]
FAILING = [[{"status": "failed", "error": {"message": "out of paint"}}]]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own; only root can make one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("needs root and mount(8)")
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if made.returncode != 0:
        pytest.skip(f"mount: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Take all of the room, to the last block."""
    for size in (1 << 20, 1 << 12, 1):
        for number in range(10_000):
            try:
                (folder / f"fill-{size}-{number}").write_bytes(b"x" * size)
            except OSError:
                break


def make_room(folder: Path) -> None:
    for path in folder.glob("fill-*"):
        path.unlink()


def ledger_problem(place: Place) -> str | None:
    return ((place.state() or {}).get("problems") or {}).get("ledger")


async def test_a_full_disk_ends_neither_the_daemon_nor_a_claim(place: Place, disk: Path) -> None:
    place.environ["XDG_STATE_HOME"] = str(disk)
    place.configure(
        worker={"min_free_disk_mb": 0}, agent={"max_retry_backoff_ms": 200}, breaker={"failures": 0}
    )
    place.script(turns=HANGING)
    first = place.board.add("Runs while the disk fills").identifier
    await place.start()
    await place.until(lambda: place.rows("running").get(first, {}).get("turn_count"))

    fill(disk)
    place.script(turns=FAILING)
    second = place.board.add("Fails on a full disk").identifier
    await place.until(lambda: place.rows("retrying").get(second, {}).get("attempt", 0) >= 2)

    assert "full" in (await place.until(lambda: ledger_problem(place)))
    assert first in place.rows("running")
    assert "Traceback" not in place.log()

    for order in (["breaker", "reset"], ["hours", "override", "--minutes", "0"]):
        assert "a crash would forget it" in place.command(*order)

    make_room(disk)
    await place.until(lambda: ledger_problem(place) is None)
    attempt = (await place.until(lambda: place.rows("retrying")))[second]["attempt"]
    exported = place.command("db", "export")
    assert f'"identifier": "{second}"' in exported

    place.daemons[-1].send_signal(signal.SIGKILL)
    await place.daemons[-1].wait()
    place.script(turns=HANGING)
    await place.start()
    rows = await place.until(lambda: (found := place.rows("running")).keys() >= {first, second}
                             and found)  # fmt: skip
    assert rows[second]["attempt"] >= attempt
    assert await place.stop() == 0


async def test_with_the_default_limit_a_full_disk_starts_nothing(place: Place, disk: Path) -> None:
    place.environ["XDG_STATE_HOME"] = str(disk)
    place.script(turns=HANGING)
    place.board.add("Waits for room")
    await place.start()
    row = (await place.until(lambda: (place.state() or {}).get("waiting")))[0]
    assert row["gate"] == "host_resources"
    assert str(disk) in row["detail"]
    assert await place.stop() == 0
