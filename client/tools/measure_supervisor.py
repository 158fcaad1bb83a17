"""Measures what threads cost in one shared app-server and in a process each.

    python client/tools/measure_supervisor.py --codex PATH [--threads 1,10,50]

Each thread has a directory of its own and runs one turn (a command and an answer) against a
scripted model on the loopback; no account, no network. Memory is the sum of the proportional set
sizes of the app-servers; CPU is theirs with that of their children. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from codex_app_server import Codex, Supervisor
from codex_app_server.home import prepare_home, provider_config, write_config

from symphony.demo.model_server import ModelServer
from symphony.demo.script import Exec, IssueScript, Say, Script, turn

SCRIPT = Script({"A": IssueScript((turn(Exec("pwd; sleep .5"), Say("Done.")),))})
CACHE = Path("~/.cache/codex-app-server-measure").expanduser()


def memory_mib(servers: list[Codex]) -> float:
    total = 0
    for server in servers:
        rollup = Path(f"/proc/{server.transport.pid}/smaps_rollup").read_text()
        total += next(int(line.split()[1]) for line in rollup.splitlines() if line[:4] == "Pss:")
    return total / 1024


async def measure(codex: str, mode: Any, count: int) -> list[str]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        folder = Path(name)
        (folder / "user").mkdir()
        servers: list[Codex] = []
        async with ModelServer(SCRIPT) as model:
            home = prepare_home(folder / "codex", seed=False)
            write_config(home, provider_config(await model.start(), model="gpt-5.5"))
            env = {"HOME": str(folder / "user"), "PATH": os.environ["PATH"]}

            async def start() -> Codex:
                servers.append(
                    await Codex.start(codex, env=env, env_mode="replace", codex_home=home)
                )
                return servers[-1]

            async def one(supervisor: Supervisor, number: int) -> Any:
                workspace = folder / f"w{number}"
                workspace.mkdir()
                return await supervisor.start_thread(
                    cwd=workspace, approval_policy="never", sandbox="danger-full-access"
                )

            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            async with Supervisor(start, mode=mode) as supervisor:
                began = time.perf_counter()
                threads = await asyncio.gather(*(one(supervisor, n) for n in range(count)))
                opened, idle = time.perf_counter(), memory_mib(servers)
                await asyncio.gather(*(thread.run("Issue: A") for thread in threads))
                ended, after_turns = time.perf_counter(), memory_mib(servers)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return [
        str(count),
        mode,
        str(len(servers)),
        f"{idle:.0f}",
        f"{after_turns:.0f}",
        f"{cpu:.1f}",
        f"{opened - began:.2f}",
        f"{ended - opened:.2f}",
    ]


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codex", required=True)
    parser.add_argument("--threads", default="1,10,50")
    arguments = parser.parse_args()
    head = ("threads", "mode", "processes", "MiB idle", "MiB after a turn each", "CPU s")
    print("|", " | ".join((*head, "start s", "turns s")), "|")
    print("|", " | ".join(["---"] * 8), "|")
    for count in map(int, arguments.threads.split(",")):
        for mode in ("shared", "per_thread"):
            row = await measure(arguments.codex, mode, count)
            print("|", " | ".join(row), "|", flush=True)


asyncio.run(main())
