"""The sweep at start ends what carries our marker, and nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from symphony.hosts.base import ProcessIdentity
from symphony.hosts.sweep import end_trees, identify

CLEAN = {"PATH": "/usr/bin:/bin"}


class Spawner:
    """Starts processes as an earlier daemon would have left them."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[bytes]] = []

    def __call__(self, script: str, **env: str) -> tuple[subprocess.Popen[bytes], list[int]]:
        """Start a shell in its own session; return it and the pids that it prints."""
        # By way of a parent that ends at once: leftovers are nobody's children.
        process = subprocess.Popen(
            ["setsid", "-f", "sh", "-c", f"echo $$; {script}"],
            env={**CLEAN, **env},
            stdout=subprocess.PIPE,
        )
        self.started.append(process)
        assert process.stdout is not None
        pids = []
        while (line := process.stdout.readline()) not in (b"ok\n", b""):
            pids.append(int(line))
        return process, pids

    def close(self) -> None:
        for process in self.started:
            if process.stdout is not None:
                process.stdout.close()
            process.wait()


@pytest.fixture
def spawner() -> Iterator[Spawner]:
    spawner = Spawner()
    yield spawner
    spawner.close()


def lives(pid: int) -> bool:
    found = identify(pid)
    if found is None:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


async def sweep(*args, **kwargs):
    return await asyncio.to_thread(end_trees, *args, **kwargs)


def program(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()


async def test_marked_trees_are_ended_and_named(spawner, instance, eventually):
    _, pids = spawner(
        "sleep 651 & echo $!; env -i /bin/sleep 652 & echo $!; echo ok; exec sleep 653",
        SYMPHONY_RUN_ID=f"{instance}-r1",
        SYMPHONY_INSTANCE=instance,
    )
    # The shell says "ok" before it becomes the last sleep.
    await eventually(lambda: {program(pid).rpartition("/")[2] for pid in pids} == {"sleep"})
    ended = await sweep([], run_ids=[f"{instance}-r1"])
    assert {entry.pid for entry in ended} == set(pids)
    assert all(entry.gone for entry in ended)
    main = next(entry for entry in ended if entry.pid == pids[0])
    assert (main.run_id, main.command) == (f"{instance}-r1", "sleep 653")
    assert [pid for pid in pids if lives(pid)] == []
    assert await sweep([], run_ids=[f"{instance}-r1"]) == []


async def test_the_instance_marks_what_no_run_id_names(spawner, instance):
    _, pids = spawner("echo ok; exec sleep 654", SYMPHONY_INSTANCE=instance)
    assert [entry.pid for entry in await sweep([], instance=instance)] == pids


async def test_a_process_without_our_marker_is_never_touched(spawner, instance):
    _, others = spawner("echo ok; exec sleep 655", SYMPHONY_RUN_ID="somebody-else")
    _, unmarked = spawner("echo ok; exec sleep 656")
    identities = [identity for pid in others + unmarked if (identity := identify(pid)) is not None]
    assert len(identities) == 2
    # Recorded, with the right boot and start time even: a pid alone proves nothing.
    ended = await sweep(identities, run_ids=[f"{instance}-r1"], instance=instance)
    assert ended == []
    assert all(lives(pid) for pid in others + unmarked)
    for pid in others + unmarked:
        os.kill(pid, signal.SIGKILL)


async def test_unmarked_members_of_a_recorded_session_fall_with_a_marked_one(spawner, instance):
    _, pids = spawner(
        "sleep 657 & echo $!; env -i /bin/sleep 658 & echo $!; echo ok; exec sleep 659",
        SYMPHONY_RUN_ID=f"{instance}-r1",
        SYMPHONY_INSTANCE=instance,
    )
    main, marked, hidden = pids
    recorded = identify(main)
    assert recorded is not None
    os.kill(main, signal.SIGKILL)
    other_boot = ProcessIdentity(recorded.pid, recorded.start_ticks, "another boot")
    ended = await sweep([other_boot], run_ids=["none"])
    assert ended == []
    ended = await sweep([recorded], run_ids=[f"{instance}-r1"])
    assert {entry.pid for entry in ended} >= {marked, hidden}
    assert not lives(marked)
    assert not lives(hidden)


async def test_our_own_process_its_ancestors_and_descendants_are_spared(host, spec, instance):
    process = await host.start(spec("cat"))
    assert await sweep([process.identity], run_ids=[f"{instance}-run"], instance=instance) == []
    assert lives(process.identity.pid)
    await process.stop(10.0)


def test_identify_tells_nothing_of_a_process_that_is_gone():
    with subprocess.Popen(["true"]) as done:
        done.wait()
    assert identify(done.pid) is None
