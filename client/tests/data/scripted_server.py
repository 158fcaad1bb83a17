"""A scripted app-server on stdin and stdout; the tests also put it behind other pipes."""

import asyncio
import os
from typing import Any

from codex_app_server import FdTransport, Transport
from codex_app_server.testing import ScriptedTransport, WaitFor, agent_turn


def scripted() -> ScriptedTransport:
    """A server whose turns say Done., except those that are told to wait for their interrupt."""

    def answer(message: dict[str, Any]) -> Any:
        waits = "wait" in message["params"]["input"][0]["text"]
        return agent_turn("Done.", *([WaitFor("turn/interrupt")] if waits else []))(message)

    return ScriptedTransport().on_call("turn/start", answer)


async def bridge(server: ScriptedTransport, pipe: Transport) -> None:
    """Let a pipe talk to a scripted server until one of them ends."""

    async def requests() -> None:
        rest = b""
        while chunk := await pipe.receive():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                await server.send(line)

    async def answers() -> None:
        while chunk := await server.receive():
            await pipe.send(chunk)

    tasks = [asyncio.create_task(requests()), asyncio.create_task(answers())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.aclose()
        await pipe.aclose()


async def main() -> None:
    """Serve stdin and stdout."""
    pipe = await FdTransport.open(read_fd=os.dup(0), write_fd=os.dup(1))
    await bridge(scripted(), pipe)


if __name__ == "__main__":
    asyncio.run(main())
