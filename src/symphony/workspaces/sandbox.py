"""A place where what an agent has written can be looked at without its getting anywhere.

The same sandbox as the agent's, but read-only: Codex's own (``codex sandbox``), else bubblewrap
with its own namespaces. Invariant: a launcher counts only once a self-test has shown that a command
in it runs, cannot write where the daemon can, and has no network; without one nothing is run at
all, and ``available`` is False.

``inspection`` and ``mirror`` run git in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
import shutil
import socket
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from codex_app_server.binary import resolve_binary
from codex_app_server.errors import BinaryNotFound

from symphony.errors import HostError
from symphony.hosts.base import CompletedCommand, Host, ProcessSpec

_log = logging.getLogger(__name__)

SELF_TEST_S = 20.0

_CODEX_FORMS = (("sandbox",), ("sandbox", "linux"))  # from 0.163 on; 0.125
_READ_ONLY = ("-c", 'sandbox_mode="read-only"', "--")
_BWRAP = "--ro-bind / / --dev /dev --proc /proc --unshare-all --die-with-parent --new-session"
# Says "ran" if all is well: no write, no network. Bash, for its way to connect without a program.
_SELF_TEST = """
if : >"$1"; then echo wrote; exit 1; fi 2>/dev/null
if : <>"/dev/tcp/127.0.0.1/$2"; then echo connected; exit 1; fi 2>/dev/null
[ "$GIT_CONFIG_COUNT" = 1 ] || exit 1
[ "$(git config --get symphony.selftest)" = yes ] || exit 1
echo ran
"""
_SELF_TEST_GIT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "symphony.selftest",
    "GIT_CONFIG_VALUE_0": "yes",
}


class Sandbox:
    """Runs commands that can read the machine, and do nothing else.

    Args:
        host: Where they run.
        environ: For PATH and for finding Codex; nothing else of it gets in.
        cache: A directory of ours for Codex's own files; not below the temp directory, where
            Codex's sandbox does not work.
    """

    def __init__(self, host: Host, environ: Mapping[str, str], cache: Path) -> None:
        self._host = host
        self._environ = environ
        self._home = cache / "sandbox"
        self._testing = asyncio.Lock()
        self._prefix: tuple[str, ...] | None = None
        self._tested = False

    @property
    def path(self) -> str:
        """The PATH within."""
        return self._environ.get("PATH", os.defpath)

    async def available(self) -> bool:
        """Say whether there is a sandbox here that holds; the first call finds out."""
        async with self._testing:
            if not self._tested:
                self._prefix = await self._find()
                self._tested = True
            return self._prefix is not None

    def argv(self, command: Sequence[str], env: Mapping[str, str]) -> tuple[str, ...]:
        """Return the command line of a command in the sandbox, complete with its environment.

        Only after ``available`` has said True.
        """
        assert self._prefix is not None
        pairs = [f"{name}={value}" for name, value in env.items()]
        return (*self._prefix, "env", "-i", *pairs, *command)

    async def run(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        *,
        timeout_s: float,
        output_cap: int = 65536,
    ) -> CompletedCommand:
        """Run a command in the sandbox, in ``/``, with this environment and no other.

        Raises:
            HostError: It could not be started, or the host was lost.
        """
        return await self._host.run(
            self._spec(self.argv(command, env)), timeout_s=timeout_s, output_cap=output_cap
        )

    def shell_command(self, command: Sequence[str], env: Mapping[str, str]) -> str:
        """Return ``argv`` as one line for ``sh``, for who starts it in our stead."""
        return shlex.join(self.argv(command, env))

    def _spec(self, argv: Sequence[str]) -> ProcessSpec:
        return ProcessSpec(run_id="sandbox", argv=argv, cwd="/", env={"PATH": self.path})

    async def _find(self) -> tuple[str, ...] | None:
        await asyncio.to_thread(self._home.mkdir, mode=0o700, parents=True, exist_ok=True)
        for name, prefix in await asyncio.to_thread(self._launchers):
            if await self._holds(prefix):
                _log.info("Sandbox for looking at workspaces", extra={"sandbox": name})
                return prefix
        _log.warning(
            "No sandbox holds here: git is not run on workspaces, which count as holding work",
        )
        return None

    def _launchers(self) -> list[tuple[str, tuple[str, ...]]]:
        found: list[tuple[str, tuple[str, ...]]] = []
        with contextlib.suppress(BinaryNotFound):
            codex = str(resolve_binary(environment=self._environ).path)
            home = (f"HOME={self._home}", f"CODEX_HOME={self._home}")
            outer = ("env", "-i", f"PATH={self.path}", *home, codex)
            found += [("codex", (*outer, *form, *_READ_ONLY)) for form in _CODEX_FORMS]
        bwrap = shutil.which("bwrap", path=self.path)
        if bwrap is not None:
            found.append(("bubblewrap", (bwrap, *_BWRAP.split(), "--")))
        return found

    async def _holds(self, prefix: tuple[str, ...]) -> bool:
        target = self._home / f"probe-{uuid.uuid4().hex}"
        env = {"PATH": self.path, **_SELF_TEST_GIT}
        pairs = [f"{name}={value}" for name, value in env.items()]
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = str(listener.getsockname()[1])
            test = ("bash", "--norc", "-c", _SELF_TEST, "selftest", str(target), port)
            argv = (*prefix, "env", "-i", *pairs, *test)
            try:
                done = await self._host.run(self._spec(argv), timeout_s=SELF_TEST_S)
            except HostError:
                return False
        wrote = await asyncio.to_thread(target.exists)
        await asyncio.to_thread(target.unlink, missing_ok=True)
        succeeded = done.status is not None and done.status.code == 0
        return succeeded and not wrote and done.output.strip().endswith("ran")
