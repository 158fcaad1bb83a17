"""What starting a Codex process takes: its options, and everything decided before it starts.

Invariant: a plan is made without starting anything; what makes no sense is refused by name, and a
private home exists only once all else is known to be right.

Used by `codex_app_server.launch` and `codex_app_server.exec`.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from msgspec import Struct

from codex_app_server.approvals import ServerRequestHandlers
from codex_app_server.binary import CodexBinary, resolve_binary
from codex_app_server.buffering import BufferBudget
from codex_app_server.checks import (
    Checks,
    check_options,
    is_mapping,
    is_path,
    is_strings,
    one_of,
    or_none,
)
from codex_app_server.cleanup import MARK
from codex_app_server.connection import ClientInfo
from codex_app_server.environment import BASIC_NAMES, EnvMode, Redactor, launch_environment
from codex_app_server.errors import InvalidArgument
from codex_app_server.events import Event
from codex_app_server.home import HomeError, config_arguments, prepare_home
from codex_app_server.process import SubprocessTransport

__all__ = [
    "LAUNCH_CHECKS",
    "ConnectionOptions",
    "LaunchOptions",
    "LaunchPlan",
    "StartOptions",
    "is_command",
    "plan_launch",
    "private_home",
]

PathLike = str | os.PathLike[str]


class LaunchOptions(TypedDict, total=False):
    """How a Codex process is started; every key may be left out.

    Attributes:
        cwd: Its directory; ours by default. Threads have their own.
        env: Variables to add (``env_mode="merge"``), or all of them (``"replace"``).
        env_mode: ``merge`` (default), ``replace`` or ``allow``; see `launch_environment`.
        allow: Names and patterns that ``allow`` inherits.
        remove_secrets: Names and patterns of inherited variables that the process, and so the
            agent, never gets. Their values are masked in `Codex.stderr_tail`.
        redact: More values to mask there.
        codex_home: A folder to use as CODEX_HOME (created, not seeded: see `prepare_home`), or
            ``"private"`` for a fresh one that shares the user's login and is removed at the end.
            None inherits.
        config: Overrides of config.toml, dotted or nested.
        arguments: More arguments before ``app-server``.
    """

    cwd: PathLike | None
    env: Mapping[str, str] | None
    env_mode: EnvMode
    allow: Sequence[str]
    remove_secrets: Sequence[str]
    redact: Sequence[str]
    codex_home: PathLike | None
    config: Mapping[str, Any]
    arguments: Sequence[str]


class ConnectionOptions(TypedDict, total=False):
    """How the connection behaves: see `Connection.open`; every key may be left out."""

    client_info: ClientInfo
    request_timeout_s: float
    thread_start_timeout_s: float
    max_in_flight: int
    max_line_bytes: int
    handlers: ServerRequestHandlers | None
    on_events: Callable[[list[Event]], None] | None
    buffer_budget: BufferBudget | None
    experimental: bool
    opt_out: Sequence[str]


class StartOptions(LaunchOptions, ConnectionOptions, total=False):
    """All options of `Codex.start`."""


LAUNCH_CHECKS: Checks = {
    "cwd": ("a path or None", or_none(is_path)),
    "env": ("a mapping or None", or_none(is_mapping)),
    "env_mode": one_of("merge", "replace", "allow"),
    "allow": ("a list of names", is_strings),
    "remove_secrets": ("a list of names", is_strings),
    "redact": ("a list of texts", is_strings),
    "codex_home": ("a path, 'private' or None", or_none(is_path)),
    "config": ("a mapping", is_mapping),
    "arguments": ("a list of texts", is_strings),
}


class LaunchPlan(Struct, frozen=True):
    """Everything that starting a process needs, decided before anything is started."""

    argv: list[str]
    cwd: PathLike | None
    env: dict[str, str]
    redactor: Redactor
    run: str
    binary: CodexBinary | None
    private_home: Path | None

    async def spawn(self) -> SubprocessTransport:
        try:
            return await SubprocessTransport.spawn(self.argv, cwd=self.cwd, env=self.env)
        except BaseException:
            self.remove_home()
            raise

    def stderr(self, transport: SubprocessTransport) -> str:
        return self.redactor.clean(transport.stderr_tail(), cut=transport.stderr_cut)

    def remove_home(self) -> None:
        """Remove a private home, unless Codex has put a login of its own into it."""
        if self.private_home is None:
            return
        login = self.private_home / "auth.json"
        if login.is_file() and not login.is_symlink():
            return
        import shutil  # late: costly, and not always needed

        shutil.rmtree(self.private_home, ignore_errors=True)


def plan_launch(
    codex: PathLike | None, options: LaunchOptions, subcommand: Sequence[str]
) -> LaunchPlan:
    """Decide how to start a Codex command; `codex_app_server.exec` uses it too."""
    check_options(options, LAUNCH_CHECKS)
    if not _names_something(codex):
        raise InvalidArgument(f"codex={codex!r}: give a path, a name, a command or None")
    command = codex if isinstance(codex, str) and is_command(codex) else None
    home = options.get("codex_home")
    private: Path | None = None
    env = dict(options.get("env") or {})
    composed = launch_environment(
        env,
        mode=options.get("env_mode", "merge"),
        remove_secrets=options.get("remove_secrets", ()),
        allow=options.get("allow", BASIC_NAMES),
    )
    variables = composed.variables
    binary = None if command is not None else resolve_binary(codex, environment=variables)
    argv = _argv(command, binary, options, subcommand)
    if home == "private":
        private = private_home(variables)
        variables["CODEX_HOME"] = str(private)
    elif home is not None:
        variables["CODEX_HOME"] = str(prepare_home(home, seed=False, environment=variables))
    elif command is None:
        _check_inherited_home(variables.get("CODEX_HOME"))
    if binary is not None and binary.path_dir is not None:
        path = variables.get("PATH")
        variables["PATH"] = f"{binary.path_dir}:{path}" if path else str(binary.path_dir)
    run = uuid.uuid4().hex
    variables[MARK] = run
    return LaunchPlan(
        argv=argv,
        cwd=options.get("cwd"),
        env=variables,
        redactor=Redactor((*composed.secrets, *options.get("redact", ()))),
        run=run,
        binary=binary,
        private_home=private,
    )


def _check_inherited_home(home: str | None) -> None:
    if home and not os.path.isdir(home):
        raise HomeError(
            f"the variable CODEX_HOME names {home}, which is no folder: make it, unset the "
            "variable, or pass codex_home"
        )


def _names_something(codex: Any) -> bool:
    if isinstance(codex, str):
        return bool(codex.strip())
    return codex is None or isinstance(codex, os.PathLike)


def is_command(codex: str) -> bool:
    """Tell whether a text is a command for the shell rather than a name or a path."""
    return len(codex.split()) > 1 and not os.path.exists(codex)


def _argv(
    command: str | None,
    binary: CodexBinary | None,
    options: LaunchOptions,
    subcommand: Sequence[str],
) -> list[str]:
    arguments = [*config_arguments(options.get("config", {})), *options.get("arguments", ())]
    if command is not None:
        if arguments:
            raise InvalidArgument(
                f"config and arguments cannot be added to the command {command!r}: write them "
                "into it, as -c key=value"
            )
        return ["bash", "-lc", command]
    assert binary is not None
    return [str(binary.path), *arguments, *subcommand]


def private_home(variables: Mapping[str, str], *, seed: bool = True) -> Path:
    """Make a fresh CODEX_HOME in the user's cache; whoever asked for it removes it.

    Args:
        variables: The environment of the Codex process.
        seed: With the user's login and configuration.

    Raises:
        HomeError: The cache lies below a temp directory, or cannot be written.
    """
    cache = variables.get("XDG_CACHE_HOME") or os.path.join(
        variables.get("HOME") or os.path.expanduser("~"), ".cache"
    )
    folder = Path(cache) / "codex-app-server"
    # The check of the place comes first: nothing is made below a temp directory.
    prepare_home(folder, seed=False, environment=variables)
    import tempfile  # late: costly, and not always needed

    home = Path(tempfile.mkdtemp(prefix="home-", dir=folder))
    return prepare_home(home, environment=variables, seed=seed)
