"""LocalHost with real processes: pipes, status, stderr, endings."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from pathlib import Path

import pytest

from symphony.errors import HostError
from symphony.hosts.base import ExitStatus

TREE = """
echo $$ > main.pid
sleep 611 & echo $! > plain.pid
setsid sh -c 'echo $$ > session.pid; exec sleep 612' &
setsid sh -c '(setsid sh -c "echo \\$\\$ > double.pid; exec sleep 613" &) ; exit' &
env -i setsid sh -c 'echo $$ > hidden.pid; exec /bin/sleep 614' &
while [ ! -s session.pid ] || [ ! -s double.pid ] || [ ! -s hidden.pid ]; do :; done
echo up
"""
PIDS = ("plain.pid", "session.pid", "double.pid", "hidden.pid")


def read_proc(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()


def alive(pid: int) -> bool:
    try:
        stat = read_proc(pid, "stat")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def pids(folder: Path) -> list[int]:
    return [int((folder / name).read_text()) for name in PIDS]


async def read_all(transport) -> bytes:
    data = b""
    while chunk := await transport.receive():
        data += chunk
    return data


async def test_bytes_go_both_ways_and_end_of_input_ends_the_process(host, spec):
    process = await host.start(spec("cat"))
    await process.transport.send(b"hello\n")
    assert await process.transport.receive() == b"hello\n"
    assert await process.stop(10.0) == ExitStatus(code=0)


async def test_a_process_leads_its_own_session_and_carries_its_run_id(host, spec, instance):
    process = await host.start(spec("cat", run_id="run-7"))
    pid = process.identity.pid
    assert os.getsid(pid) == pid
    assert os.getpgid(pid) == pid
    environ = read_proc(pid, "environ").split("\0")
    assert "SYMPHONY_RUN_ID=run-7" in environ
    assert f"SYMPHONY_INSTANCE={instance}" in environ
    stat = read_proc(pid, "stat").rpartition(")")[2].split()
    assert int(stat[19]) == process.identity.start_ticks
    await process.stop(10.0)


async def test_a_process_inherits_three_descriptors_and_default_signals(host, python_spec):
    process = await host.start(
        python_spec(
            "import os\n"
            "print(sorted(int(f) for f in os.listdir('/proc/self/fd'))[:4])\n"
            "print([l.split()[1] for l in open('/proc/self/status') if l[:6] in "
            "('SigBlk', 'SigIgn')])\n"
            "print(open('/proc/self/oom_score_adj').read())"
        )
    )
    lines = (await read_all(process.transport)).decode().split("\n")
    # The fourth is the listing itself.
    assert lines[0] == "[0, 1, 2, 3]"
    blocked, ignored = eval(lines[1])
    assert int(blocked, 16) == 0
    # Python itself ignores SIGPIPE (13) and SIGXFSZ (25); above 31 are the C library's own.
    assert int(ignored, 16) & 0x7FFF_FFFF & ~(1 << 12 | 1 << 24) == 0
    assert int(lines[2]) >= 500
    await process.stop(10.0)


async def test_an_exit_code_and_a_signal_are_told_apart(host, spec):
    failed = await host.start(spec("sh", "-c", "exit 7"))
    assert await failed.wait() == ExitStatus(code=7)
    killed = await host.start(spec("sh", "-c", "kill -9 $$"))
    assert await killed.wait() == ExitStatus(signal=9)
    assert await killed.transport.exit_status(10.0) == -9
    await failed.stop(1.0)
    await killed.stop(1.0)


async def test_a_missing_program_is_named_with_the_path_that_was_searched(host, spec):
    with pytest.raises(HostError) as caught:
        await host.start(spec("no-such-codex", PATH="/usr/bin:/opt/nowhere"))
    assert caught.value.category == "codex_not_found"
    assert "no-such-codex" in caught.value.message
    assert "/usr/bin:/opt/nowhere" in caught.value.message


async def test_a_missing_directory_and_a_file_that_is_no_program_are_named(host, spec, tmp_path):
    with pytest.raises(HostError, match="can't enter the directory /no/such/place") as caught:
        await host.start(spec("cat", cwd="/no/such/place"))
    assert caught.value.category == "host_start_failed"
    plain = tmp_path / "plain"
    plain.write_text("text")
    with pytest.raises(HostError, match="plain") as caught:
        await host.start(spec(str(plain)))
    assert caught.value.category == "host_start_failed"


async def test_a_nul_byte_in_an_argument_is_refused_and_the_host_works_on(host, spec):
    with pytest.raises(HostError, match="null byte"):
        await host.start(spec("echo", "a\0b"))
    assert (await host.run(spec("echo", "fine"), timeout_s=20)).output == "fine\n"


async def test_arguments_and_environment_of_a_megabyte_arrive(host, spec):
    big = {f"BIG_{n}": "x" * 100_000 for n in range(10)}
    done = await host.run(spec("sh", "-c", "printf %s ${#BIG_9}", **big), timeout_s=20)
    assert done.output == "100000"


async def test_nothing_of_a_tree_outlives_its_main_process(host, spec, tmp_path, eventually):
    process = await host.start(spec("sh", "-c", TREE + "exit 3"))
    assert await process.wait() == ExitStatus(code=3)
    tree = pids(tmp_path)
    assert await process.stop(5.0) == ExitStatus(code=3)
    assert [pid for pid in tree if alive(pid)] == []


async def test_stop_ends_a_tree_that_ignores_end_of_input_and_term(host, spec, tmp_path):
    script = "trap '' TERM; " + TREE + "while :; do sleep 615; done"
    process = await host.start(spec("sh", "-c", script))
    assert b"up" in await process.transport.receive()
    tree = pids(tmp_path)
    assert all(alive(pid) for pid in tree)
    assert await process.stop(0.4) == ExitStatus(signal=9)
    assert [pid for pid in [process.identity.pid, *tree] if alive(pid)] == []
    assert await process.stop(0.4) == ExitStatus(signal=9)


async def test_stop_closes_stdin_first_then_asks_then_kills(host, spec):
    patient = "trap 'echo asked; exit 5' TERM; read line; echo end of input; "
    quick = await host.start(spec("sh", "-c", patient + "exit 4"))
    assert await quick.stop(20.0) == ExitStatus(code=4)
    asked = await host.start(spec("sh", "-c", patient + "while :; do sleep 0.05; done"))
    # EOF alone does not end this one, TERM does, long before KILL would.
    assert await asked.stop(2.0) == ExitStatus(code=5)


async def test_leftovers_are_asked_before_they_are_killed(host, spec, tmp_path):
    leftover = "trap 'echo asked > asked; exit' TERM; echo > up; while :; do sleep 0.05; done"
    script = f'setsid sh -c "{leftover}" & while [ ! -e up ]; do :; done'
    assert (await host.run(spec("sh", "-c", script), timeout_s=20)).status == ExitStatus(code=0)
    assert (tmp_path / "asked").read_text() == "asked\n"


async def test_a_stopped_process_is_ended_too(host, spec):
    process = await host.start(spec("sh", "-c", "kill -STOP $$; exit 0"))
    status = await process.stop(0.2)
    assert status in (ExitStatus(signal=15), ExitStatus(signal=9))


async def test_ending_one_run_spares_another_and_its_adopted_processes(host, spec, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    runs = [
        await host.start(spec("sh", "-c", TREE + "exec sleep 616", run_id="same", cwd=str(folder)))
        for folder in (first, second)
    ]
    for run in runs:
        assert b"up" in await run.transport.receive()
    await runs[0].stop(0.0)
    # The one that hides its origin could be either's, so it falls with the second.
    shown = [pid for pid in pids(first)[:3] if alive(pid)]
    assert shown == []
    assert all(alive(pid) for pid in pids(second))
    await runs[1].stop(0.0)
    assert [pid for pid in (*pids(first), *pids(second)) if alive(pid)] == []


async def test_a_huge_stderr_neither_blocks_the_process_nor_grows_the_daemon(host, spec):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    script = "head -c 100000000 /dev/zero | tr '\\0' e >&2; echo the end >&2; echo done"
    process = await host.start(spec("sh", "-c", script))
    assert await process.transport.receive() == b"done\n"
    await process.stop(10.0)
    tail = process.stderr_tail()
    assert len(tail) == 256 * 1024
    assert tail.endswith("e" * 100 + "the end\n")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


async def test_a_flood_of_output_waits_in_the_pipe_until_it_is_read(host, spec):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    process = await host.start(spec("sh", "-c", "exec cat /dev/zero"))
    seen = 0
    while seen < 50_000_000:
        seen += len(await process.transport.receive())
    # Unread, it stands still; reading goes on where it stopped.
    assert len(await process.transport.receive()) > 0
    await process.stop(0.0)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


async def test_a_command_returns_its_merged_output_and_status(host, spec):
    done = await host.run(spec("sh", "-c", "echo out; echo err >&2; exit 4"), timeout_s=20)
    assert done.status == ExitStatus(code=4)
    assert done.output == "out\nerr\n"
    assert not done.truncated


async def test_a_command_keeps_the_last_bytes_of_a_flood(host, spec):
    script = "head -c 5000000 /dev/zero | tr '\\0' x; echo the end"
    done = await host.run(spec("sh", "-c", script), timeout_s=20, output_cap=1000)
    assert done.truncated
    assert len(done.output) == 1000
    assert done.output.endswith("xxthe end\n")


async def test_a_command_out_of_time_is_killed_with_its_tree(host, spec, tmp_path):
    script = "trap '' TERM; " + TREE + "while :; do sleep 617; done"
    done = await host.run(spec("sh", "-c", script), timeout_s=1.5)
    assert done.status is None
    assert done.output == "up\n"
    assert [pid for pid in pids(tmp_path) if alive(pid)] == []


async def test_a_cancelled_command_is_killed_before_the_cancellation_is_seen(
    host, spec, tmp_path, eventually
):
    task = asyncio.create_task(host.run(spec("sh", "-c", TREE + "sleep 618"), timeout_s=60))
    await eventually(lambda: all((tmp_path / name).is_file() for name in PIDS))
    await eventually(lambda: all((tmp_path / name).read_text() for name in PIDS))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [pid for pid in pids(tmp_path) if alive(pid)] == []


async def test_a_cancelled_start_leaves_no_process(host, spec, instance, marked, eventually):
    await host.open()
    supervisor = host.supervisor_pid
    for turns in range(6):
        task = asyncio.create_task(host.start(spec("sleep", "619")))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await eventually(lambda: marked(instance) == [supervisor])


async def test_fifty_processes_run_side_by_side(host, spec):
    runs = await asyncio.gather(*(host.start(spec("cat", run_id=f"run-{n}")) for n in range(50)))
    assert len({run.identity.pid for run in runs}) == 50
    for number, run in enumerate(runs):
        await run.transport.send(b"%d\n" % number)
    answers = [await run.transport.receive() for run in runs]
    assert answers == [b"%d\n" % number for number in range(50)]
    statuses = await asyncio.gather(*(run.stop(20.0) for run in runs))
    assert set(statuses) == {ExitStatus(code=0)}


async def test_closing_the_host_ends_everything_and_refuses_new_processes(
    host, spec, instance, marked
):
    process = await host.start(spec("sh", "-c", "trap '' TERM; while :; do sleep 620; done"))
    await host.aclose()
    assert (await process.wait()).signal is not None
    assert marked(instance) == []
    with pytest.raises(HostError, match="closed") as caught:
        await host.start(spec("cat"))
    assert caught.value.category == "host_lost"


async def test_descriptors_are_given_back(host, spec):
    await host.run(spec("true"), timeout_s=20)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        process = await host.start(spec("sh", "-c", "exit"))
        await process.stop(5.0)
        await host.run(spec("true"), timeout_s=20)
        with pytest.raises(HostError):
            await host.start(spec("no-such-program"))
    assert len(os.listdir("/proc/self/fd")) == before


WIDE = """
import asyncio, os, resource
from symphony.errors import HostError
from symphony.hosts.base import ProcessSpec
from symphony.hosts.local import LocalHost

async def main():
    host = LocalHost()
    shell = ("sh", "-c", "ulimit -Sn; ulimit -Hn")
    spec = ProcessSpec(run_id="r", argv=shell, cwd="/", env={"PATH": os.environ["PATH"]})
    for _ in range(2):
        print(*(await host.run(spec, timeout_s=20)).output.split())
        lost = host.supervisor_pid
        os.kill(lost, 9)
        while host.supervisor_pid == lost:
            try:
                await host.run(spec, timeout_s=20)
            except HostError:
                pass
    await host.aclose()
    print(*resource.getrlimit(resource.RLIMIT_NOFILE))

resource.setrlimit(resource.RLIMIT_NOFILE, (256, 1024))
asyncio.run(main())
"""


async def test_the_daemon_may_have_many_descriptors_and_its_children_as_many_as_before():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WIDE, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert output.decode().splitlines() == ["256 1024", "256 1024", "1024 1024"]
