"""A session against a scripted server: a failure, then a success. Needs nothing."""

from __future__ import annotations

import asyncio
import tempfile

from codex_app_server import Session, TurnFailed, messages
from codex_app_server.testing import ScriptedTransport, agent_turn

LIMIT = {"message": "You've hit your usage limit.", "codexErrorInfo": "usageLimitExceeded"}


def tell(message: messages.SessionMessage) -> None:
    match message:
        case messages.Notification():
            pass
        case messages.TurnFailed(error=error):
            print(message.event, error.code, "may be retried" if error.retryable else "is final")
        case _:
            print(message.event)


async def main() -> None:
    server = ScriptedTransport()
    server.on_call("turn/start", agent_turn(status="failed", error=LIMIT), times=1)
    server.on_call("turn/start", agent_turn("Done."))
    with tempfile.TemporaryDirectory() as folder:
        async with await Session.start(folder, transport=server, on_message=tell) as session:
            try:
                await session.run("Fix the bug")
            except TurnFailed:
                result = await session.run("Fix the bug")
                print(result.session_id, result.final_message)


asyncio.run(main())
