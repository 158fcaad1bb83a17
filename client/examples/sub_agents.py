"""Sub-agents that the agent starts: listing them and waiting for each."""

from __future__ import annotations

import tempfile

import readiness
from codex_app_server import Codex

PROMPT = "Start one sub-agent that counts the files of this folder, wait for it and report."


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with await Codex.start(config={"features.multi_agent_v2": True}) as codex:
            thread = await codex.start_thread(
                cwd=folder, sandbox="read-only", approval_policy="never"
            )
            turn = thread.run(PROMPT)
            result = await turn
            print(result.final_message)
            agents = codex.connection.subagents(thread)
            for child in sorted(turn.children):
                end = await agents.wait(child)
                print(child, end)


readiness.run(main)
