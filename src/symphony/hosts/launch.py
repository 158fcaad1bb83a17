"""What is started: the command line and the environment of Codex and of the operator's scripts.

The command of the workflow runs under ``bash -lc``, since operators set up their tools in login
profiles; for the same reason secrets are unset once more after the profile has run, which may
export them again, and a secret that can't be unset ends the start. Pure functions. ``local``
starts what is built here; ``runner`` and ``workspaces`` ask for it.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from symphony.errors import HostError

from .base import ExitStatus
from .supervisor import MARKER
from .sweep import INSTANCE, RUN_ID

SECRET_STUCK = 78
"""Exit status of a start that could not remove a secret from its environment (EX_CONFIG)."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\[[^]]*\])?\+?=", re.ASCII)
_NOT_SIMPLE = ("`", "$(", "\n", "\r", "#")
# Words that bash handles itself, so that ``exec`` would look for a program of that name.
_SHELL_WORDS = """
    ! [[ ]] { } case coproc do done elif else esac fi for function if in select then time until
    while . : alias bg bind break builtin caller cd command compgen complete compopt continue
    declare dirs disown enable eval exec exit export fc fg getopts hash help history jobs let local
    logout mapfile popd pushd read readarray readonly return set shift shopt source suspend times
    trap type typeset ulimit umask unalias unset wait
"""
_SHELL_OWN = frozenset(_SHELL_WORDS.split())
# Git sets these for its hooks. A daemon that a hook started would make every git of a workspace
# work on the repository of that hook.
_GIT_PLACES = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_DIR",
        "GIT_INDEX_FILE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
        "GIT_WORK_TREE",
    }
)


def is_simple_command(command: str) -> bool:
    """Say whether ``exec`` may be put before this shell command without changing its meaning.

    False for assignments in front, pipes, lists, redirections, substitutions, comments, several
    lines and shell builtins, and whenever in doubt.
    """
    if any(mark in command for mark in _NOT_SIMPLE):
        return False
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        words = list(lexer)
    except ValueError:
        return False
    if not words or any(word and not word.strip("();<>|&") for word in words):
        return False
    return not _ASSIGNMENT.match(words[0]) and words[0] not in _SHELL_OWN


def codex_argv(
    command: str,
    *,
    secret_names: Iterable[str] = (),
    first_dir: Path | None = None,
    fallback_dir: Path | None = None,
) -> tuple[str, ...]:
    """Return the command line that runs ``codex.command`` of the workflow.

    Args:
        command: As written; only bash expands it.
        secret_names: Environment variables that must not reach it. Those that no shell could
            hold are left out here; ``codex_environment`` removes them all the same.
        first_dir: A directory that goes before the login shell's own PATH.
        fallback_dir: A directory with a native ``codex``, searched last and only where the login
            shell's own PATH has none.
    """
    lines = [*_unset_lines(secret_names)]
    if first_dir is not None:
        lines.append(f'export PATH={shlex.quote(str(first_dir))}:"$PATH"')
    if fallback_dir is not None:
        folder = shlex.quote(str(fallback_dir))
        lines.append(f'command -v codex >/dev/null 2>&1 || export PATH="$PATH":{folder}')
    # With exec, Codex replaces the shell: signals and the exit status are its own.
    lines.append(f"exec {command}" if is_simple_command(command) else command)
    return ("bash", "-lc", "\n".join(lines))


def script_argv(script: str, *, secret_names: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the command line that runs a hook's script under ``sh -lc`` (SPEC 9.4)."""
    return ("sh", "-lc", "\n".join([*_unset_lines(secret_names), script]))


def clean_environment(environ: Mapping[str, str], *, secret_names: Iterable[str]) -> dict[str, str]:
    """Return a copy without secrets, markers of a daemon that we run under, and git's places."""
    dropped = {*secret_names, *_GIT_PLACES, RUN_ID, INSTANCE, MARKER}
    return {name: value for name, value in environ.items() if name not in dropped}


def codex_environment(
    environ: Mapping[str, str],
    *,
    secret_names: Iterable[str],
    codex_home: Path,
    temp_dir: Path,
) -> dict[str, str]:
    """Return the environment of an agent: the daemon's, less secrets, with homes of its own.

    Args:
        environ: The daemon's environment.
        secret_names: Variables that the tracker declares secret.
        codex_home: The private ``CODEX_HOME``; below the temp directory Codex's sandbox breaks.
        temp_dir: The run's own ``TMPDIR``, so that runs can't meet in a shared one.
    """
    env = clean_environment(environ, secret_names=secret_names)
    for name in ("TMP", "TEMP"):
        env.pop(name, None)
    return {**env, "CODEX_HOME": str(codex_home), "TMPDIR": str(temp_dir)}


def launch_error(
    status: ExitStatus, *, command: str, environ: Mapping[str, str], stderr: str = ""
) -> HostError | None:
    """Say what was wrong where a shell's exit status means that the command never started.

    Args:
        status: How the process ended, before it said anything.
        command: ``codex.command`` as written.
        environ: The environment that it was started with.
        stderr: The end of its stderr; its last line is quoted.

    Returns:
        ``codex_not_found`` for 127, ``host_start_failed`` for 126 and for a secret that could not
        be removed, None for everything else.
    """
    said = stderr.strip().rpartition("\n")[2][:500]
    quoted = f" ({said})" if said else ""
    match status.code:
        case 127:
            path = environ.get("PATH", os.defpath)
            message = (
                f"codex.command {command!r} was not found{quoted}; install Codex or name its full"
                f" path. PATH is {path}, before the login profile of bash"
            )
            return HostError("codex_not_found", message)
        case 126:
            message = f"codex.command {command!r} can't be executed{quoted}"
            return HostError("host_start_failed", message)
        case code if code == SECRET_STUCK and "symphony:" in said:
            return HostError("host_start_failed", said)
    return None


def _unset_lines(secret_names: Iterable[str]) -> list[str]:
    names = sorted({name for name in secret_names if _NAME.fullmatch(name)})
    if not names:
        return []
    listed = " ".join(names)
    complaint = shlex.quote(
        f"symphony: the login profile makes one of {listed} read-only, so it can't be kept from"
        " the agent; remove that from the profile"
    )
    return [f"unset -v {listed} || {{ echo {complaint} >&2; exit {SECRET_STUCK}; }}"]
