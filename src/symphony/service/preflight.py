"""Checks before a daemon starts: what can be known to fail is told at once, with its mend."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from codex_app_server.binary import resolve_binary
from codex_app_server.errors import BinaryNotFound

from symphony.errors import ConfigError

_SHELL_WORDS = set("|&;<>()$`\\\"'*?[#~=%!{}\n")
_LOGIN_SHELL_LIMIT_S = 90.0
_PATIENCE_S = 2.0


@dataclass(frozen=True, slots=True)
class CodexPlaces:
    """Where native binaries of Codex lie, for the PATH of agents.

    Attributes:
        first: A directory that goes before the user's PATH: the native binary behind npm's node
            wrapper, which costs 43 MiB a run and outlives its own SIGKILL. None without one.
        last: A directory that is searched where PATH has no codex: the PyPI package's. Or None.
    """

    first: Path | None = None
    last: Path | None = None


def find_codex(environ: Mapping[str, str]) -> CodexPlaces:
    """Look for native binaries behind a wrapper on PATH and in the installed PyPI package."""
    return CodexPlaces(_behind_npm_wrapper(environ), _bundled())


def _behind_npm_wrapper(environ: Mapping[str, str]) -> Path | None:
    try:
        found = resolve_binary(environment=environ, wheel=False)
    except BinaryNotFound:
        return None
    return found.path.parent if found.source == "npm" else None


def _bundled() -> Path | None:
    try:
        return resolve_binary(environment={}).path.parent
    except BinaryNotFound:
        return None


async def check_codex_command(
    command: str,
    *,
    environ: Mapping[str, str],
    fallback: Path | None,
    tell: Callable[[str], None] = lambda text: None,
) -> None:
    """Refuse a ``codex.command`` whose program nobody can find.

    Only a plain program name or path can be judged; what the shell would expand is left to it.
    A name that is not on our PATH may be on that of the login shell, which is asked last: it can
    be slow, so it is waited for without holding anybody up, ``tell`` says so after a while, and it
    is ended where the wait is cancelled.

    Raises:
        ConfigError: ``codex_not_found``.
    """
    program = _program(command)
    if program is None or _findable(program, environ, fallback):
        return
    if os.sep not in program and await _known_to_login_shell(program, environ, tell):
        return
    raise ConfigError(
        "codex_not_found",
        f"codex.command: the program {program!r} can't be found; install Codex (pip install "
        "'symphony-orchestrator[demo]' brings a native binary, npm's @openai/codex another), put "
        "it on PATH, or set codex.command to its full path",
    )


def _program(command: str) -> str | None:
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    if not words or set(words[0]) & _SHELL_WORDS:
        return None
    return words[0]


def _findable(program: str, environ: Mapping[str, str], fallback: Path | None) -> bool:
    if os.sep in program:
        return not os.path.isabs(program) or os.access(program, os.X_OK)
    if shutil.which(program, path=environ.get("PATH")):
        return True
    return fallback is not None and os.access(fallback / program, os.X_OK)


async def _known_to_login_shell(
    program: str, environ: Mapping[str, str], tell: Callable[[str], None]
) -> bool:
    try:
        shell = await asyncio.create_subprocess_exec(
            *("bash", "-lc", f"command -v -- {shlex.quote(program)}"),
            env=dict(environ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return False
    ended = asyncio.ensure_future(shell.wait())
    try:
        await asyncio.wait([ended], timeout=_PATIENCE_S)
        if not ended.done():
            tell(
                f"{program} is not on PATH; asking the login shell (bash -lc), which takes its "
                f"time: up to {_LOGIN_SHELL_LIMIT_S:.0f} s"
            )
            await asyncio.wait([ended], timeout=_LOGIN_SHELL_LIMIT_S - _PATIENCE_S)
        return ended.done() and shell.returncode == 0
    finally:
        if not ended.done():
            # Its own session, so that a profile's children go with it.
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            await asyncio.shield(ended)
