import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from codex_app_server import (
    BinaryNotFound,
    ConnectionClosed,
    FdTransport,
    InvalidArgument,
    SubprocessTransport,
)

PYTHON = sys.executable


async def _pipes() -> tuple[FdTransport, int, int]:
    """A transport, the descriptor that feeds it and the one that reads what it sends."""
    incoming, feed = os.pipe()
    drain, outgoing = os.pipe()
    return await FdTransport.open(read_fd=incoming, write_fd=outgoing), feed, drain


async def _read_all(transport: FdTransport | SubprocessTransport) -> bytes:
    found = b""
    while chunk := await transport.receive():
        found += chunk
    return found


async def test_bytes_pass_both_ways_and_the_end_is_empty(eventually: Any) -> None:
    transport, feed, drain = await _pipes()
    os.write(feed, b"a\nb")
    assert await transport.receive() == b"a\nb"
    waiting = asyncio.create_task(transport.receive())
    await eventually(lambda: transport._receiving is not None)
    os.write(feed, b"c")
    assert await waiting == b"c"
    await transport.send(b"out\n")
    assert os.read(drain, 100) == b"out\n"
    os.close(feed)
    assert await transport.receive() == b""
    await transport.aclose()
    await transport.aclose()
    assert os.read(drain, 100) == b""
    os.close(drain)


async def test_a_reader_that_lags_holds_the_sender_and_gets_everything_in_order(
    eventually: Any,
) -> None:
    transport, feed, drain = await _pipes()
    line = b"x" * 700_000 + b"\n"
    sends = [asyncio.create_task(transport.send(line[:-1] + b"%d\n" % n)) for n in range(5)]
    await eventually(lambda: len(transport._drained) == 4)
    assert not all(task.done() for task in sends)
    sends[3].cancel()
    received = b""
    loop = asyncio.get_running_loop()
    while received.count(b"\n") < 5:
        received += await loop.run_in_executor(None, os.read, drain, 1 << 20)
    assert [chunk[-1:] for chunk in received.split(b"\n")[:-1]] == [b"0", b"1", b"2", b"3", b"4"]
    assert len(received) == sum(700_000 + 2 for _ in range(5))
    await asyncio.gather(*sends, return_exceptions=True)
    await transport.aclose()
    os.close(feed)
    os.close(drain)


async def test_a_closed_reader_is_a_typed_error_and_its_last_words_are_read() -> None:
    transport, feed, drain = await _pipes()
    os.write(feed, b"last words")
    os.close(drain)
    with pytest.raises(ConnectionClosed, match="does not read"):
        await transport.send(b"x\n")
    with pytest.raises(ConnectionClosed):
        await transport.send(b"y\n")
    os.close(feed)
    assert await _read_all(transport) == b"last words"
    await transport.aclose()


async def test_closing_wakes_the_reader_and_the_sender(eventually: Any) -> None:
    transport, feed, drain = await _pipes()
    reading = asyncio.create_task(transport.receive())
    sending = asyncio.create_task(transport.send(b"x" * 3_000_000))
    await eventually(lambda: transport._receiving is not None and transport._drained)
    await transport.aclose()
    assert await reading == b""
    with pytest.raises(ConnectionClosed):
        await sending
    os.close(feed)
    os.close(drain)


async def test_a_child_leads_its_own_session_and_keeps_stderr_apart(tmp_path: Path) -> None:
    code = (
        "import os,sys;print(os.getsid(0)==os.getpid(),os.getcwd(),sorted(os.environ));"
        "print('noise'*100000,'end',file=sys.stderr)"
    )
    transport = await SubprocessTransport.spawn(
        [PYTHON, "-c", code], cwd=tmp_path, env={"ONLY": "1", "LC_CTYPE": "C.UTF-8"}
    )
    output = await _read_all(transport)
    assert output.decode().split() == ["True", str(tmp_path), "['LC_CTYPE',", "'ONLY']"]
    assert await transport.wait() == 0
    await transport.aclose()
    assert transport.stderr_tail().endswith("noise end\n")
    assert len(transport.stderr_tail()) == 256 * 1024
    assert transport.returncode == 0


async def test_a_shell_command_runs_as_bash_lc_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    transport = await SubprocessTransport.shell("X='a b' && echo \"$X\" | tr a-z A-Z; exit 7")
    assert await _read_all(transport) == b"A B\n"
    assert await transport.exit_status(5) == 7
    await transport.aclose()
    with pytest.raises(InvalidArgument, match="blank"):
        await SubprocessTransport.shell("  ")


async def test_what_cannot_be_started_says_why(tmp_path: Path) -> None:
    with pytest.raises(BinaryNotFound, match="no-such-program"):
        await SubprocessTransport.spawn(["no-such-program"])
    with pytest.raises(BinaryNotFound, match="Permission"):
        await SubprocessTransport.spawn([str(tmp_path)])
    with pytest.raises(InvalidArgument, match="cwd"):
        await SubprocessTransport.spawn([PYTHON], cwd=tmp_path / "absent")
    with pytest.raises(InvalidArgument, match="argv"):
        await SubprocessTransport.spawn([])


STUBBORN = (
    "import signal,subprocess,sys,time;"
    "signal.signal(signal.SIGTERM,signal.SIG_IGN);"
    "subprocess.Popen([sys.executable,'-c','import time;time.sleep(600)','{marker}']);"
    "print('ready',flush=True);time.sleep(600)"
)


async def test_the_ladder_ends_a_stubborn_child_and_its_group(
    commands_with: Callable[[str], list[int]], eventually: Any
) -> None:
    marker = f"codex-test-group-{os.getpid()}"
    transport = await SubprocessTransport.spawn([PYTHON, "-c", STUBBORN.format(marker=marker)])
    ready = await transport.receive()
    await transport.aclose(grace_s=0.05)
    assert ready.startswith(b"ready")
    assert transport.returncode == -signal.SIGKILL
    await eventually(lambda: not commands_with(marker))


async def test_a_child_that_outlives_its_input_is_told_to_end_before_it_is_killed() -> None:
    code = (
        "import signal,sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print('ready', flush=True)\n"
        "while True: signal.pause()\n"
    )
    transport = await SubprocessTransport.spawn([PYTHON, "-c", code])
    # The newline may come by itself.
    ready = await transport.receive()
    await transport.aclose()
    assert ready.startswith(b"ready")
    assert transport.returncode == 7


async def test_a_child_that_ends_takes_its_group_along(
    commands_with: Callable[[str], list[int]], eventually: Any
) -> None:
    marker = f"codex-test-left-{os.getpid()}"
    code = (
        "import subprocess,sys;"
        f"subprocess.Popen([sys.executable,'-c','import time;time.sleep(600)','{marker}'])"
    )
    transport = await SubprocessTransport.spawn([PYTHON, "-c", code])
    assert await _read_all(transport) == b""
    assert await transport.wait() == 0
    await eventually(lambda: not commands_with(marker))
    await transport.aclose()


async def test_a_descendant_that_keeps_the_pipe_open_does_not_hide_the_end() -> None:
    code = (
        "import subprocess,sys;p=subprocess.Popen([sys.executable,'-c','import time;"
        "time.sleep(600)'],start_new_session=True);print(p.pid)"
    )
    transport = await SubprocessTransport.spawn([PYTHON, "-c", code])
    orphan = int(await _read_all(transport))
    await transport.aclose()
    os.kill(orphan, signal.SIGKILL)


async def test_closing_stdin_is_enough_for_a_well_behaved_child() -> None:
    transport = await SubprocessTransport.spawn([PYTHON, "-c", "import sys;sys.stdin.read()"])
    await transport.aclose(grace_s=20)
    assert transport.returncode == 0
    await transport.aclose()
