"""What is slow before a daemon serves can be seen, and be broken off."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from symphony.errors import ConfigError
from symphony.service.preflight import check_codex_command


def slow_profile(home: Path) -> Path:
    """Give a home a login profile that hangs; return the file in which it leaves its pid."""
    pid = home / "profile.pid"
    (home / ".bash_profile").write_text(f"echo $$ > {pid}.new; mv {pid}.new {pid}; sleep 300\n")
    return pid


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_slow_login_shell_is_told_of_and_ended_by_a_signal(place: Any, number: int) -> None:
    pid_file = slow_profile(Path(place.environ["HOME"]))
    place.configure(codex={"command": "codex-of-nobody app-server"})
    with (place.root / "stderr.txt").open("ab") as log:
        daemon = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "symphony", str(place.workflow), "--instance", place.instance),
            env=place.environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    place.daemons.append(daemon)
    await place.until(lambda: "asking the login shell" in place.log())
    shell = int(pid_file.read_text())
    assert is_alive(shell)

    daemon.send_signal(number)

    async with asyncio.timeout(30):
        assert await daemon.wait() == 0
    assert "stopped before the start was complete" in place.log()
    assert not is_alive(shell)


async def test_the_loop_goes_on_while_the_login_shell_is_asked(place: Any) -> None:
    pid_file = slow_profile(Path(place.environ["HOME"]))
    environ = place.environ
    asking = asyncio.create_task(
        check_codex_command("codex-of-nobody app-server", environ=environ, fallback=None)
    )
    await place.until(pid_file.exists)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not is_alive(int(pid_file.read_text()))


async def test_a_program_that_only_the_login_shell_knows_is_found(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "codex-of-the-profile").write_text("#!/bin/sh\n")
    (tools / "codex-of-the-profile").chmod(0o755)
    (tmp_path / ".bash_profile").write_text(f"PATH=$PATH:{tools}\n")
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    await check_codex_command("codex-of-the-profile x", environ=environ, fallback=None)
    with pytest.raises(ConfigError, match="codex-of-nobody") as caught:
        await check_codex_command("codex-of-nobody x", environ=environ, fallback=None)
    assert caught.value.category == "codex_not_found"
