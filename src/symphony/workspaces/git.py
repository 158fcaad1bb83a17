"""How git is started by us: with which environment, and what of it can't be changed from outside.

Two kinds. ``own_environment`` is for our mirrors and for clones that no agent has seen: the
operator's configuration and keys, less the tracker's secrets. ``hostile_environment`` is for what
an agent may have written: nobody's configuration, every setting that names a program neutralised;
it is only ever used inside a ``sandbox``, which is what really holds. Settings go by environment
(``GIT_CONFIG_KEY_n``), since a section name of the agent may contain what ``-c`` would split at.

``mirror`` and ``population`` use the first, ``inspection`` and ``mirror`` the second.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from symphony.errors import HostError, WorkspaceError
from symphony.hosts.base import CompletedCommand, Host, ProcessSpec
from symphony.hosts.launch import clean_environment

PROTOCOLS = "file:git:http:https:ssh"

_QUIET: Mapping[str, str] = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_PAGER": "cat",
    "GIT_EDITOR": "false",
    "GIT_ADVICE": "0",
    "LC_ALL": "C",
}
_OWN_SETTINGS = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "protocol.ext.allow": "never",
}
_HOSTILE_SETTINGS = {
    **_OWN_SETTINGS,
    "core.sshCommand": "false",
    "core.askPass": "false",
    "core.gitProxy": "",
    "core.editor": "false",
    "core.pager": "cat",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.alternateRefsCommand": "true",
    "core.untrackedCache": "false",
    "credential.helper": "",
    "diff.external": "",
    "gpg.program": "false",
    "log.showSignature": "false",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "uploadpack.allowFilter": "false",
    "status.submoduleSummary": "false",
}
_FILTER = re.compile(r"filter\.(.*)\.(?:clean|smudge|process|required)", re.DOTALL)
# What git itself reads of the surroundings for connecting; all other GIT_ variables would point
# our commands at other repositories, indexes or settings.
_KEPT = frozenset({"GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSH_VARIANT", "GIT_PROXY_COMMAND"})


def own_environment(environ: Mapping[str, str], *, secret_names: Iterable[str]) -> dict[str, str]:
    """Return the environment of git on a mirror of ours: never asks, runs no hook."""
    env = {
        name: value
        for name, value in clean_environment(environ, secret_names=secret_names).items()
        if not name.startswith("GIT_") or name in _KEPT or name.startswith("GIT_SSL_")
    }
    for name in ("SSH_ASKPASS", "DISPLAY"):
        env.pop(name, None)
    env.setdefault("GIT_SSH_COMMAND", "ssh -oBatchMode=yes")
    return {
        **env,
        **_QUIET,
        "GIT_ASKPASS": "false",
        "GIT_ALLOW_PROTOCOL": PROTOCOLS,
        **_settings(_OWN_SETTINGS),
    }


def hostile_environment(path: str, *, filters: Iterable[str] = ()) -> dict[str, str]:
    """Return the whole environment of git on what an agent has had in hand, in a sandbox.

    Args:
        path: ``PATH``.
        filters: Names of the filter drivers that its configuration defines, from
            ``filter_names``: they can't be switched off all at once.
    """
    settings = dict(_HOSTILE_SETTINGS)
    for name in filters:
        for part in ("clean", "smudge", "process"):
            settings[f"filter.{name}.{part}"] = ""
        settings[f"filter.{name}.required"] = "false"
    return {
        "PATH": path,
        "HOME": "/nonexistent",
        **_QUIET,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_ALLOW_PROTOCOL": "file",
        "GIT_ASKPASS": "false",
        "SSH_ASKPASS": "false",
        "GIT_SSH_COMMAND": "false",
        "GIT_EXTERNAL_DIFF": "",
        **_settings(settings),
    }


def filter_names(keys: Iterable[str]) -> set[str]:
    """Return the filter drivers that these keys of a configuration define."""
    return {match.group(1) for key in keys if (match := _FILTER.fullmatch(key))}


class Git:
    """Runs git on repositories of our own.

    Args:
        host: Where it runs.
        environ: The daemon's environment.
        secret_names: Returns the variables that git must not inherit.
    """

    def __init__(
        self,
        host: Host,
        environ: Mapping[str, str],
        secret_names: Callable[[], Iterable[str]],
    ) -> None:
        self._host = host
        self._environ = environ
        self._secret_names = secret_names

    async def run(
        self, *arguments: str, cwd: str, timeout_s: float, output_cap: int = 65536
    ) -> str:
        """Run git to its end; return what it said.

        Raises:
            WorkspaceError: ``workspace_git_failed`` with git's own last words,
                ``workspace_git_timeout``, ``workspace_git_missing``.
            HostError: The host was lost.
        """
        done = await self.attempt(*arguments, cwd=cwd, timeout_s=timeout_s, output_cap=output_cap)
        verb = _verb(arguments)
        if done.status is None:
            message = (
                f"git {verb} in {cwd} took over {timeout_s:g} s and was ended; look at the network,"
                " or raise workspace.git_timeout_ms"
            )
            raise WorkspaceError("workspace_git_timeout", message)
        if done.status.code != 0:
            said = " ".join(done.output.split())[-500:]
            message = f"git {verb} failed with {done.status}: {said or 'it said nothing'}"
            raise WorkspaceError("workspace_git_failed", message)
        return done.output

    async def attempt(
        self, *arguments: str, cwd: str, timeout_s: float, output_cap: int = 65536
    ) -> CompletedCommand:
        """Run git to its end, whatever that is.

        Raises:
            WorkspaceError: ``workspace_git_missing``.
            HostError: The host was lost.
        """
        env = own_environment(self._environ, secret_names=self._secret_names())
        spec = ProcessSpec(run_id="git", argv=("git", *arguments), cwd=cwd, env=env)
        try:
            return await self._host.run(spec, timeout_s=timeout_s, output_cap=output_cap)
        except HostError as error:
            if error.category != "codex_not_found":
                raise
            message = "git is not on PATH: install it (Debian: apt install git)"
            raise WorkspaceError("workspace_git_missing", message) from error


def _verb(arguments: Sequence[str]) -> str:
    words = iter(arguments)
    for word in words:
        if word == "-c":
            next(words)
        elif not word.startswith("-"):
            return word
    return ""


def _settings(settings: Mapping[str, str]) -> dict[str, str]:
    env = {"GIT_CONFIG_COUNT": str(len(settings))}
    for number, (key, value) in enumerate(settings.items()):
        env[f"GIT_CONFIG_KEY_{number}"] = key
        env[f"GIT_CONFIG_VALUE_{number}"] = value
    return env
