"""The watch on leftover processes sees what a test leaves, however it was forked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

DOUBLE_FORK = """
import os, subprocess, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvpe("sleep", ["sleep", "876.5"], {})
    os._exit(0)
os.wait()
"""


@pytest.mark.parametrize(
    "program",
    [
        ["sh", "-c", "sleep 876.5 & "],
        ["setsid", "--fork", "sleep", "876.5"],
        [sys.executable, "-c", DOUBLE_FORK],
    ],
    ids=["background", "session", "double fork without environment"],
)
def test_a_process_that_outlives_its_parent_is_seen(
    processes_left: Callable[[], dict[int, str]], program: list[str]
) -> None:
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    subprocess.run(program, check=True, **quiet)
    # Right after its fork it may not have become that program yet; in between it has no command.
    left = processes_left()
    while not all("sleep 876.5" in command for command in left.values()):
        os.sched_yield()
        left = processes_left()
    assert len(left) == 1
    for pid in left:
        os.kill(pid, signal.SIGKILL)


def test_a_child_of_ours_that_runs_is_seen_and_one_that_has_ended_is_not(
    processes_left: Callable[[], dict[int, str]],
) -> None:
    with subprocess.Popen(["sleep", "876.5"]) as child:
        assert list(processes_left()) == [child.pid]
        child.kill()
    assert processes_left() == {}
