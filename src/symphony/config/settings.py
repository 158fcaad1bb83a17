"""The settings of a workflow: frozen values and their defaults.

Invariant: a ``Settings`` is valid as a whole, never changes, and every attribute has the name of
its key in the front matter (SPEC 5.3). Pure: nothing here reads a file, the environment or a
clock; ``loading`` resolves those and lists all faults. ``values`` has the rules on single values,
``policies`` those on Codex's own. ``docs/settings.md`` has a heading for every key of
``setting_keys()``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from symphony.model.issue import Issue, normalize_state

from .blocked import CHANGES
from .branches import DEFAULT_BRANCH
from .budget import BudgetSettings
from .policies import (
    default_approval_policy,
    default_turn_sandbox_policy,
    effective_turn_sandbox_policy,
    translate_codex_policies,
)
from .profiles import Profile, profile_of
from .values import (
    Boolean,
    Changes,
    FilledText,
    Integer,
    Labels,
    Map,
    Natural,
    Percent,
    Port,
    Positive,
    Reference,
    RetryDelays,
    StateLimits,
    Text,
    TextOrMap,
    Texts,
    Windows,
    Zone,
    env_reference,
    state_limits,
    whole_number,
)

__all__ = [
    "DEFAULT_WORKSPACE_DIRECTORY",
    "LINEAR_ALIASES",
    "SECTIONS",
    "AgentSettings",
    "BreakerSettings",
    "BudgetSettings",
    "CodexSettings",
    "HookSettings",
    "LedgerSettings",
    "LoggingSettings",
    "ObservabilitySettings",
    "PollingSettings",
    "ServerSettings",
    "Settings",
    "TrackerSettings",
    "WebhookSettings",
    "WorkerSettings",
    "WorkspaceSettings",
    "default_approval_policy",
    "default_turn_sandbox_policy",
    "effective_turn_sandbox_policy",
    "env_reference",
    "section_keys",
    "setting_keys",
    "state_limits",
    "translate_codex_policies",
    "whole_number",
]

DEFAULT_WORKSPACE_DIRECTORY = "symphony_workspaces"
"""Name of the default workspace root, below the system's temp directory (SPEC 5.3.3)."""

LINEAR_ALIASES = ("endpoint", "api_key", "project_slug", "assignee")
"""Older flat keys of ``tracker``; for ``kind: linear`` they stand in for ``tracker.provider``."""

_DERIVED: dict[str, Any] = {"derived": True}


class _Section(BaseModel):
    """A frozen group of settings; ``loading`` takes unknown keys out before it gets here."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TrackerSettings(_Section):
    """Which tracker, its scope, and which of its issues count (SPEC 5.3.1)."""

    kind: FilledText
    """Name of the adapter; required."""
    provider: Map = Field(default_factory=dict)
    """The adapter's own settings, as written: secrets are still ``$NAME`` references."""
    required_labels: Labels = ()
    """Trimmed, lower case, unique. An issue must have all of them; a blank one matches none."""
    active_states: Texts = ()
    """States that are dispatched, as written; the loader fills in the adapter's default."""
    terminal_states: Texts = ()
    """States that end a run and free its workspace, as written; default from the adapter."""

    @property
    def active_state_keys(self) -> frozenset[str]:
        """The active states in the form in which states compare."""
        return frozenset(normalize_state(state) for state in self.active_states)

    @property
    def terminal_state_keys(self) -> frozenset[str]:
        """The terminal states in the form in which states compare."""
        return frozenset(normalize_state(state) for state in self.terminal_states)


class PollingSettings(_Section):
    """How often the tracker is read (SPEC 5.3.2)."""

    interval_ms: Positive = 30_000
    """Milliseconds between two polls."""
    max_interval_ms: Positive = 600_000
    """Milliseconds beyond which a tracker's rate limit never stretches the interval."""

    @property
    def interval_s(self) -> float:
        """The interval in seconds."""
        return self.interval_ms / 1000

    @property
    def max_interval_s(self) -> float:
        """``max_interval_ms`` in seconds."""
        return self.max_interval_ms / 1000


class WorkspaceSettings(_Section):
    """Where workspaces lie, what fills them and what becomes of work in them (SPEC 5.3.3)."""

    root: Text = f"/tmp/{DEFAULT_WORKSPACE_DIRECTORY}"
    """As written, ``$VAR`` replaced: remote hosts expand ``~`` and relative paths themselves."""
    path: str = Field(default=f"/tmp/{DEFAULT_WORKSPACE_DIRECTORY}", json_schema_extra=_DERIVED)
    """The root on this machine: absolute, ``~`` expanded, relative to the workflow's directory."""
    on_dirty: Literal["keep_aside", "keep", "delete"] = "keep_aside"
    """What becomes of a workspace with uncommitted or unpushed work once its issue is done."""
    kept_days: Positive = 14
    """Days after which a workspace that was kept aside is deleted."""
    kept_count: Positive = 50
    """How many are kept aside in a root; beyond it the oldest is deleted."""
    repository: FilledText | None = None
    """What workspaces are cloned from: a URL, or a path made absolute; None: only by hooks."""
    base: FilledText | None = None
    """Branch from which work starts; None: the repository's default branch."""
    branch: FilledText = DEFAULT_BRANCH
    """Template of the issue's branch; see ``branches``."""
    push: Boolean = False
    """Whether the issue's branch is pushed to the repository after each run."""
    git_timeout_ms: Positive = 300_000
    """Limit of each single git command, in milliseconds."""

    @property
    def git_timeout_s(self) -> float:
        """The limit in seconds."""
        return self.git_timeout_ms / 1000


class HookSettings(_Section):
    """Scripts of the operator at fixed moments (SPEC 5.3.4)."""

    after_create: Text | None = None
    before_run: Text | None = None
    after_run: Text | None = None
    before_remove: Text | None = None
    timeout_ms: Positive = 60_000
    """Limit of each single hook, in milliseconds."""

    @property
    def timeout_s(self) -> float:
        """The limit in seconds."""
        return self.timeout_ms / 1000


class AgentSettings(_Section):
    """How many agents run, how long, and how failures back off (SPEC 5.3.5)."""

    max_concurrent_agents: Positive = 10
    max_turns: Positive = 20
    """Turns of one run."""
    max_retry_backoff_ms: Positive = 300_000
    """Cap of the delay between failures, in milliseconds."""
    continuation_prompt: Text | None = None
    """Liquid template of the turns after a run's first one; None for the built-in text."""
    max_concurrent_agents_by_state: StateLimits = Field(default_factory=dict)
    """Limits by state in the form in which states compare; invalid entries are left out."""
    unblock_on: Changes = CHANGES
    """Changes of a blocked issue in the tracker that let it run again."""
    blocked_retry_ms: RetryDelays = Field(default_factory=dict)
    """Milliseconds after which a blocked issue runs again by itself, by kind of block."""
    active_hours: Windows = ()
    """Windows in which work may start, such as ``Mon-Fri 08:00-18:00``; none: always."""
    active_hours_timezone: Zone | None = None
    """IANA name of the windows' time zone; None: the system's own."""
    after_hours: Literal["continue", "drain"] = "continue"
    """What runs when a window closes: goes on, or ends after its present turn."""
    profiles: tuple[Profile, ...] = ()
    """What is different for some issues, in order; the first that fits counts."""

    @property
    def max_retry_backoff_s(self) -> float:
        """The cap in seconds."""
        return self.max_retry_backoff_ms / 1000

    def profile_of(self, issue: Issue) -> Profile | None:
        """Return the first profile that fits the issue's state and labels, or None."""
        return profile_of(self.profiles, issue)

    def turns_for(self, profile: Profile | None) -> int:
        """Return how many turns a run under this profile has."""
        own = None if profile is None else profile.max_turns
        return self.max_turns if own is None else own

    def limit_for_state(self, state: str) -> int:
        """Return how many issues in this state may run: its own limit, else the global one."""
        return self.max_concurrent_agents_by_state.get(
            normalize_state(state), self.max_concurrent_agents
        )


class CodexSettings(_Section):
    """How Codex is started, what it may do, and how long it may be silent (SPEC 5.3.6)."""

    command: FilledText = "codex app-server"
    """Shell command, run by ``bash -lc`` in the workspace; only that shell expands it."""
    model: FilledText | None = None
    """Model of all turns whose profile names none; None: nothing is sent, Codex decides."""
    reasoning_effort: FilledText | None = None
    """Reasoning effort of all turns whose profile names none; None: nothing is sent."""
    approval_policy: TextOrMap = Field(default_factory=default_approval_policy)
    """Codex's ``AskForApproval``, passed on. The default never asks and refuses instead."""
    thread_sandbox: Text = "workspace-write"
    """Codex's ``SandboxMode``, passed on."""
    turn_sandbox_policy: Map | None = None
    """Codex's ``SandboxPolicy``; None stands for ``policies.default_turn_sandbox_policy``."""
    turn_timeout_ms: Positive = 3_600_000
    """Longest silence within a turn, in milliseconds."""
    first_event_timeout_ms: Integer = 180_000
    """Longest wait for the agent's first sign in a turn, in milliseconds; 0 or less: for ever."""
    read_timeout_ms: Positive = 5_000
    """Longest wait for an answer while a session starts, in milliseconds."""
    resume_threads: Boolean = True
    """Whether a run that continues, retries or recovers goes on in its issue's last thread."""
    stall_timeout_ms: Integer = 300_000
    buffer_limit_mb: Positive = 256
    """MiB that all sessions may hold of lines without an end; the one that holds most is ended."""
    """Silence after which a run counts as stalled, in milliseconds; 0 or less: never."""

    @property
    def turn_timeout_s(self) -> float:
        """``turn_timeout_ms`` in seconds."""
        return self.turn_timeout_ms / 1000

    @property
    def first_event_timeout_s(self) -> float | None:
        """``first_event_timeout_ms`` in seconds, or None where it is off."""
        return self.first_event_timeout_ms / 1000 if self.first_event_timeout_ms > 0 else None

    @property
    def read_timeout_s(self) -> float:
        """``read_timeout_ms`` in seconds."""
        return self.read_timeout_ms / 1000

    @property
    def stall_timeout_s(self) -> float | None:
        """``stall_timeout_ms`` in seconds, or None where stall detection is off."""
        return self.stall_timeout_ms / 1000 if self.stall_timeout_ms > 0 else None


class BreakerSettings(_Section):
    """When failures that all issues share keep further ones from starting."""

    failures: Natural = 5
    """Failures of one class that open the breaker; 0 turns it off."""
    window_ms: Positive = 3_600_000
    """Within how many milliseconds they count."""
    cooldown_ms: Positive = 600_000
    """Milliseconds from the opening to the first canary; doubled each time that one fails."""
    max_cooldown_ms: Positive = 3_600_000
    """Longest cool-down, in milliseconds; below ``cooldown_ms`` it is that."""
    canary_ms: Natural = 120_000
    """Milliseconds without a failure after which a canary works; 0: a turn of it must end well."""


class WorkerSettings(_Section):
    """Remote hosts (SPEC appendix A)."""

    ssh_hosts: Texts = ()
    max_concurrent_agents_per_host: Positive | None = None
    min_free_memory_mb: Natural = 256
    """MiB of memory that must be free on a host before an agent starts there; 0: not checked."""
    min_free_disk_mb: Natural = 512
    """MiB that must be free for workspaces and the daemon's state; 0: not checked."""
    agent_memory_mb: Natural = 32
    """MiB that a start is taken to need until the host's figures show it; 0: nothing."""
    agent_disk_mb: Natural = 10
    """MiB of disk likewise."""
    max_memory_pressure: Percent | None = None
    """Percent of time for which tasks may wait for memory (``some avg10``); None: not checked."""


class ObservabilitySettings(_Section):
    """The terminal view."""

    dashboard_enabled: Boolean = True
    refresh_ms: Positive = 1_000
    render_interval_ms: Positive = 16

    @property
    def refresh_s(self) -> float:
        """``refresh_ms`` in seconds."""
        return self.refresh_ms / 1000

    @property
    def render_interval_s(self) -> float:
        """``render_interval_ms`` in seconds."""
        return self.render_interval_ms / 1000


class ServerSettings(_Section):
    """The HTTP server (SPEC 13.7)."""

    port: Port | None = None
    """TCP port, 0 for one that the system chooses, None for no TCP listener."""
    host: FilledText = "127.0.0.1"


class WebhookSettings(_Section):
    """Deliveries of the tracker that wake the poll."""

    secret: Reference | None = None
    """``$NAME`` of the variable with the secret that deliveries are signed with; None: none."""
    silence_hours: Positive = 24
    """Hours without a delivery after which the operator is told."""
    poll_interval_ms: Positive = 120_000
    """Milliseconds between two polls while deliveries come, if longer than the usual interval."""

    @property
    def secret_name(self) -> str | None:
        """Name of the secret's variable, which agents and hooks must not inherit."""
        return env_reference(self.secret)

    @property
    def silence_s(self) -> float:
        """``silence_hours`` in seconds."""
        return self.silence_hours * 3600.0

    @property
    def poll_interval_s(self) -> float:
        """``poll_interval_ms`` in seconds."""
        return self.poll_interval_ms / 1000


class LoggingSettings(_Section):
    """The log's form."""

    format: Literal["logfmt", "json"] = "logfmt"


class LedgerSettings(_Section):
    """What is kept of ended runs."""

    retention_days: Positive = 90
    """Days that an ended run, its turns and its events are kept; totals stay for ever."""


class Settings(_Section):
    """All settings of one workflow (SPEC 5.3)."""

    tracker: TrackerSettings
    polling: PollingSettings = PollingSettings()
    workspace: WorkspaceSettings = WorkspaceSettings()
    hooks: HookSettings = HookSettings()
    agent: AgentSettings = AgentSettings()
    budget: BudgetSettings = BudgetSettings()
    codex: CodexSettings = CodexSettings()
    breaker: BreakerSettings = BreakerSettings()
    worker: WorkerSettings = WorkerSettings()
    observability: ObservabilitySettings = ObservabilitySettings()
    server: ServerSettings = ServerSettings()
    webhooks: WebhookSettings = WebhookSettings()
    logging: LoggingSettings = LoggingSettings()
    ledger: LedgerSettings = LedgerSettings()

    def reading_only(self) -> Settings:
        """Return these settings with policies that let an agent read and nothing else."""
        narrowed = {
            "approval_policy": default_approval_policy(),
            "thread_sandbox": "read-only",
            "turn_sandbox_policy": {"type": "readOnly", "networkAccess": False},
        }
        return self.model_copy(update={"codex": self.codex.model_copy(update=narrowed)})

    @property
    def secret_environment_names(self) -> tuple[str, ...]:
        """Variables beside the tracker's own that agents and hooks must not inherit."""
        name = self.webhooks.secret_name
        return () if name is None else (name,)


SECTIONS: Mapping[str, type[BaseModel]] = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
}
"""The type of each top-level key."""


def section_keys(section: str) -> tuple[str, ...]:
    """Return the keys that a user may write in a section, the aliases of ``tracker`` included."""
    keys = _written_keys(SECTIONS[section].model_fields.items())
    return (*keys, *LINEAR_ALIASES) if section == "tracker" else keys


def _written_keys(fields: Iterable[tuple[str, FieldInfo]]) -> tuple[str, ...]:
    return tuple(name for name, field in fields if field.json_schema_extra != _DERIVED)


def setting_keys() -> tuple[str, ...]:
    """Return every key that a user may write, dotted, in the order of the documentation."""
    return tuple(f"{section}.{key}" for section in SECTIONS for key in section_keys(section))
