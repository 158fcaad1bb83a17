"""What holds when the daemon or the supervisor is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from symphony.errors import HostError
from symphony.hosts.base import ExitStatus

HARD_TO_KILL = """
trap '' TERM HUP INT
setsid sh -c "trap '' TERM; (setsid sleep 631 &); exec sleep 632" &
(setsid sh -c 'setsid sleep 633 & exec sleep 634' &)
sleep 635 &
echo up
while :; do sleep 636; done
"""

DAEMON = """
import asyncio, os, signal, sys
from symphony.hosts.base import ProcessSpec
from symphony.hosts.local import LocalHost

async def main():
    instance, script = sys.argv[1:3]
    host = LocalHost(instance=instance)
    for number in range(5):
        process = await host.start(ProcessSpec(
            run_id=f"run-{number}", argv=["sh", "-c", script], cwd="/",
            env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}))
        assert await process.transport.receive() == b"up\\n"
    # A copy of the daemon that outlives it and holds all of its descriptors open.
    child = os.fork()
    if child == 0:
        signal.pause()
    print("ready", child, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def start_daemon(instance: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", DAEMON, instance, HARD_TO_KILL],
        stdout=subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        start_new_session=True,
    )


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
async def test_nothing_lives_after_the_daemon_was_killed(instance, marked, eventually, signum):
    with start_daemon(instance) as daemon:
        assert daemon.stdout is not None
        ready, copy = daemon.stdout.readline().split()
        assert ready == b"ready"
        # Five times: the shell, its sleep, and five descendants; and the supervisor.
        await eventually(lambda: len(marked(instance)) >= 5 * 7 + 1)
        daemon.send_signal(signum)
        daemon.wait()
        try:
            await eventually(lambda: marked(instance) == [])
        finally:
            os.kill(int(copy), signal.SIGKILL)


async def test_the_supervisor_ignores_signals_meant_for_the_daemon(host, spec):
    process = await host.start(spec("cat"))
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(host.supervisor_pid, signum)
    await process.transport.send(b"still here\n")
    assert await process.transport.receive() == b"still here\n"
    assert (await host.run(spec("true"), timeout_s=20)).status == ExitStatus(code=0)
    assert await process.stop(10.0) == ExitStatus(code=0)


async def test_a_killed_supervisor_is_reported_after_its_trees_are_gone(
    host, spec, instance, marked, eventually
):
    runs = [await host.start(spec("sh", "-c", HARD_TO_KILL, run_id=f"r{n}")) for n in range(3)]
    for run in runs:
        assert await run.transport.receive() == b"up\n"
    await eventually(lambda: len(marked(instance)) >= 3 * 7 + 1)
    os.kill(host.supervisor_pid, signal.SIGKILL)
    statuses = [await run.wait() for run in runs]
    # At the moment of the report nothing of them lives any more.
    assert marked(instance) == []
    assert statuses == [ExitStatus(host_lost=True)] * 3
    assert await runs[0].stop(5.0) == ExitStatus(host_lost=True)


async def test_the_host_works_on_with_a_new_supervisor(host, spec):
    await host.open()
    lost = host.supervisor_pid
    process = await host.start(spec("cat"))
    os.kill(lost, signal.SIGKILL)
    assert (await process.wait()).host_lost
    await process.stop(1.0)
    done = await host.run(spec("echo", "again"), timeout_s=20)
    assert done.output == "again\n"
    assert host.supervisor_pid != lost


async def test_a_command_that_loses_its_supervisor_says_host_lost(host, spec, tmp_path, eventually):
    await host.open()
    task = asyncio.create_task(host.run(spec("sh", "-c", "echo > up; sleep 641"), timeout_s=60))
    await eventually((tmp_path / "up").exists)
    os.kill(host.supervisor_pid, signal.SIGKILL)
    with pytest.raises(HostError) as caught:
        await task
    assert caught.value.category == "host_lost"


async def test_the_supervisor_is_small_and_stays_small(host, spec):
    await host.run(spec("true"), timeout_s=20)
    before = private_kib(host.supervisor_pid)
    runs = [await host.start(spec("cat", run_id=f"r{n}")) for n in range(40)]
    per_run = (private_kib(host.supervisor_pid) - before) / len(runs)
    for run in runs:
        await run.stop(20.0)
    assert before < 12 * 1024
    assert per_run < 512


FEW_DESCRIPTORS = """
import asyncio, resource, sys
from symphony.errors import HostError
from symphony.hosts.base import ProcessSpec
from symphony.hosts.local import LocalHost

def spec(*argv):
    return ProcessSpec(run_id="r", argv=argv, cwd="/", env={"PATH": "/usr/bin:/bin"})

async def main():
    host = LocalHost(instance=sys.argv[1])
    await host.open()
    resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160))
    answers = await asyncio.gather(
        *(host.start(spec("cat")) for _ in range(80)), return_exceptions=True)
    failed = [answer for answer in answers if isinstance(answer, BaseException)]
    started = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert len(failed) > 10 and len(started) > 20, (len(failed), len(started))
    assert {(type(error), error.category) for error in failed} == {
        (HostError, "host_start_failed")}, failed
    assert "ulimit -n" in failed[0].message
    await asyncio.gather(*(process.stop(20) for process in started))
    done = await host.run(spec("echo", "works"), timeout_s=20)
    print(done.output, end="")
    await host.aclose()

asyncio.run(main())
"""


def test_running_out_of_descriptors_is_an_error_of_the_start_and_passes(instance):
    done = subprocess.run(
        [sys.executable, "-c", FEW_DESCRIPTORS, instance],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert (done.stdout, done.stderr) == ("works\n", "")


def private_kib(pid: int | None) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
