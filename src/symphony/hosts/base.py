"""Where commands run: a two-way byte pipe to a process on some machine (design: hosts).

A host starts processes, ends them with all their descendants and says honestly when it is lost.
The agent protocol stays in the daemon: no credential of a tracker crosses this boundary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from codex_app_server.transport import Transport

from symphony.model.resources import HostResources


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """A process to start.

    Attributes:
        run_id: Whose process it is. Goes into its environment as ``SYMPHONY_RUN_ID``, by which
            leftovers are found after a crash.
        argv: Program and arguments; the program is looked up in ``env['PATH']``.
        cwd: Absolute directory.
        env: The complete environment; nothing else is inherited.
    """

    run_id: str
    argv: Sequence[str]
    cwd: str
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """What tells a process from a later one with the same number.

    Attributes:
        pid: Process id, also of its own session and process group.
        start_ticks: Field 22 of ``/proc/<pid>/stat``.
        boot_id: ``/proc/sys/kernel/random/boot_id`` of the machine.
    """

    pid: int
    start_ticks: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended: an exit code, the number of the signal that ended it, or host lost."""

    code: int | None = None
    signal: int | None = None
    host_lost: bool = False

    def __str__(self) -> str:
        if self.host_lost:
            return "host lost"
        if self.signal is not None:
            return f"killed by signal {self.signal}"
        return f"exit status {self.code}"


@dataclass(frozen=True, slots=True)
class CompletedCommand:
    """A short command that has ended.

    Attributes:
        status: Its exit, or None after a time-out (its tree was killed).
        output: Standard output and error, merged, the last ``output_cap`` bytes as text.
        truncated: True where output was cut.
    """

    status: ExitStatus | None
    output: str
    truncated: bool = False


class HostProcess(Protocol):
    """A running process with its pipes.

    Attributes:
        transport: Bytes to its stdin and from its stdout.
        identity: To find it again after a restart.
    """

    @property
    def transport(self) -> Transport: ...

    @property
    def identity(self) -> ProcessIdentity: ...

    def stderr_tail(self) -> str:
        """Return the last bytes of its stderr (a bounded ring), decoded leniently."""
        ...

    async def wait(self) -> ExitStatus:
        """Wait until the process itself has ended."""
        ...

    async def stop(self, grace_s: float) -> ExitStatus:
        """End it and all of its descendants.

        Closes its stdin, sends TERM after half of ``grace_s`` and KILL after all of it. Returns
        when nothing of it lives. Safe to call twice and after its end.
        """
        ...


class Host(Protocol):
    """One machine (or engine) that runs processes."""

    @property
    def name(self) -> str: ...

    async def start(self, spec: ProcessSpec) -> HostProcess:
        """Start a process in a session of its own.

        Raises:
            HostError: ``codex_not_found`` (program missing), ``host_start_failed``, ``host_lost``.
        """
        ...

    async def run(
        self, spec: ProcessSpec, *, timeout_s: float, output_cap: int = 65536
    ) -> CompletedCommand:
        """Run a short command to its end; on time-out its whole tree is killed.

        Raises:
            HostError: As for ``start``.
        """
        ...

    async def resources(self, directories: Sequence[str]) -> HostResources:
        """Return what this host has left, on the file systems of these directories too.

        Never raises: what can't be read is None in it.
        """
        ...

    async def aclose(self) -> None:
        """End everything that still runs there."""
        ...
