"""The operator's scripts at four fixed moments of a workspace's life (SPEC 9.4).

Invariant: of a hook that has ended, failed or run out of time no process lives, and what it said
is kept within bounds. The script is trusted; the issue is not, so its texts reach the script as
environment variables and never as a part of it.

``manager`` decides when a hook runs and whether its failure counts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from symphony.config.settings import HookSettings
from symphony.errors import HookError
from symphony.hosts.base import Host, ProcessSpec
from symphony.hosts.launch import clean_environment, script_argv
from symphony.model.issue import Issue

LOG_BYTES = 2048
"""How much of a hook's output goes into the log: its end."""

_OUTPUT_BYTES = 64 * 1024
_VALUE_CHARACTERS = 4096  # the kernel takes 128 KiB a variable; a title needs less

_log = logging.getLogger(__name__)


class Hook(StrEnum):
    """The moments, by the names of their settings."""

    AFTER_CREATE = "after_create"
    BEFORE_RUN = "before_run"
    AFTER_RUN = "after_run"
    BEFORE_REMOVE = "before_remove"

    def script(self, settings: HookSettings) -> str | None:
        """Return the script for this moment, or None."""
        match self:
            case Hook.AFTER_CREATE:
                return settings.after_create
            case Hook.BEFORE_RUN:
                return settings.before_run
            case Hook.AFTER_RUN:
                return settings.after_run
            case Hook.BEFORE_REMOVE:
                return settings.before_remove


@dataclass(frozen=True, slots=True, kw_only=True)
class HookCall:
    """For whom a hook runs.

    Attributes:
        workspace: Absolute path; the hook's working directory.
        run_id: The run, or a name of ours where there is none.
        attempt: As the prompt has it: None for a first run.
    """

    hook: Hook
    issue: Issue
    workspace: str
    run_id: str
    attempt: int | None = None


def hook_environment(
    environ: Mapping[str, str], call: HookCall, *, secret_names: Iterable[str]
) -> dict[str, str]:
    """Return the daemon's environment less the tracker's secrets, with what the hook is told.

    ``SYMPHONY_ATTEMPT`` is empty for a first run. ``SYMPHONY_RUN_ID`` is the host's to set.
    """
    told = {
        "SYMPHONY_HOOK": call.hook.value,
        "SYMPHONY_ISSUE_ID": call.issue.id,
        "SYMPHONY_ISSUE_IDENTIFIER": call.issue.identifier,
        "SYMPHONY_ISSUE_TITLE": call.issue.title,
        "SYMPHONY_ISSUE_STATE": call.issue.state,
        "SYMPHONY_ATTEMPT": "" if call.attempt is None else str(call.attempt),
        "SYMPHONY_WORKSPACE": call.workspace,
    }
    env = clean_environment(environ, secret_names=secret_names)
    # A NUL can't be passed on, and would keep the hook from starting.
    told = {name: value.replace("\0", "")[:_VALUE_CHARACTERS] for name, value in told.items()}
    return {**env, **told}


async def run_hook(
    call: HookCall,
    settings: HookSettings,
    *,
    host: Host,
    environ: Mapping[str, str],
    secret_names: Iterable[str],
) -> None:
    """Run a hook to its end, if there is one for this moment.

    Raises:
        HookError: ``workspace_hook_failed``, ``workspace_hook_timeout``; its tree is gone.
        HostError: The host could not start it, or was lost.
    """
    script = call.hook.script(settings)
    if script is None:
        return
    names = tuple(secret_names)
    fields = {
        "hook": call.hook.value,
        "issue_id": call.issue.id,
        "issue_identifier": call.issue.identifier,
        "workspace": call.workspace,
    }
    _log.info("Hook started", extra=fields)
    done = await host.run(
        ProcessSpec(
            run_id=call.run_id,
            argv=script_argv(script, secret_names=names),
            cwd=call.workspace,
            env=hook_environment(environ, call, secret_names=names),
        ),
        timeout_s=settings.timeout_s,
        output_cap=_OUTPUT_BYTES,
    )
    shown = _tail(done.output)
    if done.status is None:
        _log.warning("Hook timed out", extra={**fields, "output": shown})
        raise HookError(
            "workspace_hook_timeout",
            f"hooks.{call.hook} ran out of time after {settings.timeout_s:g} s and was killed;"
            " make it quicker or raise hooks.timeout_ms",
            hook=call.hook.value,
            status=None,
            output=shown,
        )
    if done.status.code != 0:
        _log.warning("Hook failed", extra={**fields, "status": str(done.status), "output": shown})
        raise HookError(
            "workspace_hook_failed",
            f"hooks.{call.hook} failed with {done.status}{_last_line(shown)}",
            hook=call.hook.value,
            status=done.status.code,
            output=shown,
        )
    _log.info("Hook ended", extra=fields)


def _tail(output: str) -> str:
    return output.encode()[-LOG_BYTES:].decode(errors="ignore")


def _last_line(output: str) -> str:
    line = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "")
    return f": {line[:200]}" if line else ""
