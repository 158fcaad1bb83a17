"""Settings of the adapter ``asana``: defaults, references, and every fault at once.

Pure: the environment comes in as a mapping. The provider map keeps the references as written;
only ``AsanaSettings`` holds the token, and its ``repr`` does not show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from symphony.errors import SettingFault
from symphony.model.issue import normalize_state

from .rest_settings import ProviderReader, secret_names

if TYPE_CHECKING:
    from symphony.config.settings import TrackerSettings

DEFAULT_ENDPOINT: Final = "https://app.asana.com/api/1.0"
TOKEN_VARIABLE: Final = "ASANA_PAT"
DEFAULT_PRIORITIES: Final = {"urgent": 1, "high": 2, "medium": 3, "low": 4}

_KEYS: Final = (
    "project_gid",
    "api_key",
    "endpoint",
    "dependencies",
    "completed_state",
    "priority_field",
    "priorities",
    "read_only",
    "tool_scope",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AsanaSettings:
    """What the adapter works with.

    Attributes:
        endpoint: Address of the API without a slash at its end.
        api_key: The token.
        project_gid: The project that is the scope.
        active: The active states, as written.
        terminal: The terminal states, as written.
        completed_state: State of a completed task that lies in no terminal section; None where
            there are no terminal states.
        dependencies: Whether open dependencies hold a task back.
        priority_field: Name or gid of the custom field with the priority, or None.
        priorities: Ranks of that field's options in lower case.
        read_only: The tool only reads.
        any_project: The tool reaches everything that the token may.
        secret_environment_names: Variables that agents and hooks must not inherit.
    """

    api_key: str = field(repr=False)
    project_gid: str
    endpoint: str = DEFAULT_ENDPOINT
    active: tuple[str, ...] = ()
    terminal: tuple[str, ...] = ()
    completed_state: str | None = None
    dependencies: bool = False
    priority_field: str | None = None
    priorities: Mapping[str, int] = field(default_factory=dict)
    read_only: bool = False
    any_project: bool = False
    secret_environment_names: tuple[str, ...] = (TOKEN_VARIABLE,)

    @property
    def terminal_keys(self) -> frozenset[str]:
        """The terminal states in the form in which states compare."""
        return frozenset(normalize_state(state) for state in self.terminal)

    def may_be_completed(self, state: str) -> bool:
        """Whether a completed task can be in this state."""
        key = normalize_state(state)
        return self.completed_state is None or key in self.terminal_keys


def resolve(
    settings: TrackerSettings, environ: Mapping[str, str]
) -> tuple[AsanaSettings | None, list[SettingFault]]:
    """Resolve the section ``tracker``; the settings are None exactly where there are faults."""
    provider = settings.provider
    reader = ProviderReader(provider, environ)
    reader.known_keys(_KEYS)
    endpoint = reader.https_url("endpoint", DEFAULT_ENDPOINT, code="invalid_asana_endpoint")
    api_key = reader.secret(
        "api_key", TOKEN_VARIABLE, what="Asana token", code="missing_asana_api_key"
    )
    project_gid = _project(reader)
    priority_field = _text(reader, "priority_field", "must be a custom field's name or gid")
    priorities = _priorities(reader, priority_field)
    completed_state = _completed_state(reader, settings)
    resolved = AsanaSettings(
        endpoint=endpoint,
        api_key=api_key,
        project_gid=project_gid,
        active=tuple(settings.active_states),
        terminal=tuple(settings.terminal_states),
        completed_state=completed_state,
        dependencies=reader.flag("dependencies"),
        priority_field=priority_field,
        priorities=priorities,
        read_only=reader.flag("read_only"),
        any_project=reader.choice("tool_scope", ("project", "any")) == "any",
        secret_environment_names=secret_names(provider, "api_key", TOKEN_VARIABLE),
    )
    faults = [*_state_faults(settings), *reader.faults]
    return (None if faults else resolved), faults


def _project(reader: ProviderReader) -> str:
    gid = reader.looked_up("project_gid", None)
    given = reader.provider.get("project_gid")
    if not gid:
        hint = "; put it in quotes" if isinstance(given, int) else ""
        problem = f"must be the number in the project's address, as a text{hint}"
        reader.fault("project_gid", f"{problem} (missing_asana_project_gid)", given)
    elif not (gid.isascii() and gid.isdecimal()):
        problem = "must be digits only (missing_asana_project_gid)"
        reader.fault("project_gid", problem, given)
    return gid


def _text(reader: ProviderReader, key: str, problem: str) -> str | None:
    value = reader.provider.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        reader.fault(key, problem, value)
        return None
    return value.strip()


def _priorities(reader: ProviderReader, priority_field: str | None) -> Mapping[str, int]:
    value = reader.provider.get("priorities")
    if value is not None and priority_field is None:
        reader.fault("priorities", "need `priority_field`, the custom field that they rank")
    if value is None or (isinstance(value, str) and value.strip().lower() == "default"):
        return DEFAULT_PRIORITIES
    return reader.priorities("priorities")


def _completed_state(reader: ProviderReader, settings: TrackerSettings) -> str | None:
    """The state of completed tasks: a terminal one, the first without a wish."""
    wish = _text(reader, "completed_state", "must be one of tracker.terminal_states")
    terminal = [state for state in settings.terminal_states if state.strip()]
    if wish is None:
        return terminal[0].strip() if terminal else None
    if normalize_state(wish) not in map(normalize_state, terminal):
        reader.fault("completed_state", "must be one of tracker.terminal_states", wish)
    return wish


def _state_faults(settings: TrackerSettings) -> list[SettingFault]:
    """Faults of the state lists, which Asana has no default for."""
    faults: list[SettingFault] = []
    for key, values in (
        ("active_states", settings.active_states),
        ("terminal_states", settings.terminal_states),
    ):
        if key not in settings.model_fields_set:
            problem = (
                "must list sections of the project by their names; there is no default "
                f"(missing_asana_{key})"
            )
            faults.append(SettingFault(f"tracker.{key}", problem))
        elif any(not value.strip() for value in values):
            problem = "must not hold a blank name (invalid_asana_states)"
            faults.append(SettingFault(f"tracker.{key}", problem))
    return faults
