"""Tells whether the examples can run here: a binary, and a login where one is needed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

from codex_app_server import BinaryNotFound, Codex, CodexError, HomeError
from codex_app_server.binary import resolve_binary


async def missing(*, login: bool) -> str | None:
    """Return what is missing, in words, or None."""
    try:
        resolve_binary()
    except BinaryNotFound as error:
        return str(error)
    if not login:
        return None
    async with await Codex.start() as codex:
        account = await codex.connection.call("account/read", {})
        if account.get("requiresOpenaiAuth") and account.get("account") is None:
            return "there is no login: run `codex login`, or set a model provider in config.toml"
    return None


def run(main: Callable[[], Awaitable[None]], *, login: bool = True) -> None:
    """Run an example, or say why it is skipped."""

    async def guarded() -> None:
        reason = await missing(login=login)
        if reason is not None:
            print(f"skipped: {reason}")
            sys.exit(0)
        await main()

    try:
        asyncio.run(guarded())
    except HomeError as error:
        print(f"skipped: {error}")
    except CodexError as error:
        sys.exit(f"{type(error).__name__}: {error}")
