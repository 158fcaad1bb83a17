"""Ten threads in one process, which is killed in the middle; the threads go on."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile

import readiness
from codex_app_server import Codex, ConnectionClosed, SupervisedThread, Supervisor, SupervisorEvent


async def insist(thread: SupervisedThread, prompt: str) -> str:
    """Run a prompt that may be run twice."""
    while True:
        try:
            return (await thread.run(prompt)).final_message or ""
        except ConnectionClosed:
            print(f"{thread.id} was cut off, again")


async def main() -> None:
    servers: list[Codex] = []

    async def start() -> Codex:
        servers.append(await Codex.start())
        return servers[-1]

    def tell(event: SupervisorEvent) -> None:
        print(event.kind, event.thread_id or "")

    with tempfile.TemporaryDirectory() as folder:
        async with Supervisor(start, on_event=tell) as supervisor:
            opening = (
                supervisor.start_thread(cwd=folder, sandbox="read-only", approval_policy="never")
                for _ in range(10)
            )
            threads = await asyncio.gather(*opening)
            await asyncio.gather(*(insist(thread, "Say 'ready'.") for thread in threads))
            os.kill(servers[0].transport.pid, signal.SIGKILL)
            answers = [insist(thread, "Say 'still here'.") for thread in threads]
            print(await asyncio.gather(*answers))


readiness.run(main)
