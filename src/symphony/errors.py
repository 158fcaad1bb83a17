"""The errors of Symphony, one root.

SymphonyError
├── ConfigError             the workflow file or a setting: name the key and the mend;
│   │                       codex_not_found, logs_root_unusable, workflow_exists
│   ├── RefusedForNow       workspace_locked
│   ├── WorkflowFileError   missing_workflow_file, workflow_parse_error,
│   │                       workflow_front_matter_not_a_map
│   ├── SettingsError       invalid_workflow_config: every fault at once
│   └── WebError            server_port_in_use, server_port_forbidden, server_port_invalid,
│                           server_host_invalid, control_socket_unusable (in web.listeners)
├── PromptError             template_parse_error, template_render_error
├── TrackerError            unsupported_tracker_kind, invalid_tracker_config,
│                           missing_tracker_secret, tracker_request, tracker_status,
│                           tracker_response, tracker_pagination, tracker_rate_limited
├── WorkspaceError          workspace_*, invalid_workspace_cwd
│   └── HookError           workspace_hook_failed, workspace_hook_timeout
├── HostError               host_start_failed, host_lost, codex_not_found
├── LedgerError             ledger_damaged, ledger_too_new, ledger_write_failed
├── StateDirError           state_dir_unusable, already_running
├── ControlError            daemon_not_running, control_request_failed
└── UsageError              invalid_usage: a command line that is wrong in itself; exit status 2

Every error has a stable ``category`` (a snake_case word that tests, the API and retry policy may
rely on) and a ``message`` for people that says what to mend. The classes are named for what the
handler can do about them, the categories for what happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class SymphonyError(Exception):
    """Root of all errors that Symphony raises on purpose.

    Args:
        category: A stable snake_case word.
        message: One sentence or more for people: what is wrong and how to mend it. Never a secret.
    """

    def __init__(self, category: str, message: str) -> None:
        super().__init__(message)
        self.category = category
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.category!r}, {self.message!r})"


class ConfigError(SymphonyError):
    """The configuration can't be used; at start that is fatal, later the last good one stays."""


class RefusedForNow(ConfigError):
    """A version of the workflow file is valid but can't be put in force yet; it is tried again."""


class WorkflowFileError(ConfigError):
    """The workflow file can't be read or split into front matter and prompt."""


@dataclass(frozen=True, slots=True)
class SettingFault:
    """One fault of one setting.

    Attributes:
        path: Dotted path as the user writes it, for example ``agent.max_turns``.
        problem: What is wrong with it, and what is allowed.
        value: The offending value as text, or None where it is absent or secret.
        line: Line in the workflow file, counted from 1, or None where unknown.
    """

    path: str
    problem: str
    value: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        where = f" (line {self.line})" if self.line is not None else ""
        got = f", got {self.value}" if self.value is not None else ""
        return f"{self.path}{where}: {self.problem}{got}"


class SettingsError(ConfigError):
    """Some settings are invalid: all of their faults at once."""

    def __init__(
        self,
        faults: Sequence[SettingFault],
        *,
        source: str,
        category: str = "invalid_workflow_config",
    ) -> None:
        self.faults = tuple(faults)
        lines = "\n".join(f"  {fault}" for fault in self.faults)
        super().__init__(category, f"{source}: invalid configuration\n{lines}")


class PromptError(SymphonyError):
    """The prompt template can't be parsed or rendered; it fails the attempt, not the daemon."""


class TrackerError(SymphonyError):
    """A tracker read or write failed as a whole.

    Attributes:
        retry_after_s: Seconds that the provider asked us to wait, or None.
        status: The provider's HTTP status, or None.
        code: The adapter's own error name (for example ``linear_api_status``), or None.
        of_one_issue: Whether a record among several is at fault, so that a read without it may do.
    """

    def __init__(
        self,
        category: str,
        message: str,
        *,
        retry_after_s: float | None = None,
        status: int | None = None,
        code: str | None = None,
        of_one_issue: bool = False,
    ) -> None:
        super().__init__(category, message)
        self.retry_after_s = retry_after_s
        self.status = status
        self.code = code
        self.of_one_issue = of_one_issue


class WorkspaceError(SymphonyError):
    """A workspace can't be prepared, checked or removed."""


class HookError(WorkspaceError):
    """A workspace hook failed or ran out of time.

    Attributes:
        hook: ``after_create``, ``before_run``, ``after_run`` or ``before_remove``.
        status: Exit status, or None after a time-out.
        output: The end of its output, capped.
    """

    def __init__(
        self, category: str, message: str, *, hook: str, status: int | None, output: str
    ) -> None:
        super().__init__(category, message)
        self.hook = hook
        self.status = status
        self.output = output


class HostError(SymphonyError):
    """A host can't start a process, or was lost."""


class LedgerError(SymphonyError):
    """The ledger can't be opened or written."""


class StateDirError(SymphonyError):
    """The state directory can't be used, or another daemon holds it."""


class ControlError(SymphonyError):
    """A command could not reach the daemon, or the daemon refused it."""


class UsageError(SymphonyError):
    """A command line is wrong in itself, whatever the daemon or the files are; exit status 2.

    Args:
        message: What is wrong and what to give instead.
    """

    def __init__(self, message: str) -> None:
        super().__init__("invalid_usage", message)
