"""A person decides: each request of the agent is shown and answered at the keyboard.

Without a keyboard every request is declined.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile

import readiness
from codex_app_server import Codex, ServerRequestHandlers, ServerRequestInfo, ServerRequestRecord


async def ask(request: ServerRequestInfo) -> str:
    what = request.params.get("command") or request.params.get("reason") or request.method
    if not sys.stdin.isatty():
        print(f"declined, nobody is here: {what}")
        return "decline"
    answer = await asyncio.to_thread(input, f"{request.kind}: {what}\n  allow? [y/N/always] ")
    return {"y": "accept", "always": "accept_for_session"}.get(answer.strip(), "decline")


def note(record: ServerRequestRecord) -> None:
    print(f"  {record.outcome}: {record.answer}")


async def main() -> None:
    handlers = ServerRequestHandlers(
        command=ask, file_change=ask, permissions=ask, timeout_s=600, on_answered=note
    )
    with tempfile.TemporaryDirectory() as folder:
        async with await Codex.start(handlers=handlers) as codex:
            thread = await codex.start_thread(
                cwd=folder, sandbox="workspace-write", approval_policy="untrusted"
            )
            result = await thread.run(
                "Create hello.txt with a friendly word, then list the folder."
            )
            print(result.final_message)


readiness.run(main)
