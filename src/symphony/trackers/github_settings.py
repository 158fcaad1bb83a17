"""Settings of the adapter ``github``: defaults, ``$NAME`` references, and every fault at once.

Pure: the environment comes in as a mapping. The provider map keeps the references as written;
only ``GitHubSettings`` holds the token, and its ``repr`` does not show it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from symphony.errors import SettingFault
from symphony.model.issue import normalize_state

from .rest_settings import ProviderReader, secret_names

if TYPE_CHECKING:
    from symphony.config.settings import TrackerSettings

DEFAULT_API: Final = "https://api.github.com"
TOKEN_VARIABLE: Final = "GITHUB_TOKEN"
REPO_VARIABLE: Final = "GITHUB_REPO"
KEYS: Final = (
    "repo",
    "token",
    "api_url",
    "state_labels",
    "project",
    "project_owner",
    "project_field",
    "dependencies",
    "sub_issues",
    "priority_labels",
    "priority_milestones",
    "tool_scope",
    "read_only",
)

_REPO: Final = re.compile(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class GitHubSettings:
    """What the adapter works with.

    Attributes:
        owner: Login of the repository's owner.
        repo: Name of the repository.
        token: Sent as bearer token.
        api_url: REST API without a final ``/``.
        state_labels: State name -> label in lower case; in order of precedence.
        project: Number of the project whose field is the state, or None.
        project_owner: Login of the project's owner.
        project_field: Name of that field.
        dependencies: Whether open blockers hold an issue back.
        sub_issues: Whether open sub-issues hold an issue back.
        priority_labels: Label in lower case -> priority.
        priority_milestones: Milestone in lower case -> priority; labels go first.
        tool_scope: ``repository``, ``owner`` or ``any``.
        read_only: Whether the tool only reads.
        active: The active states, as written.
        terminal: Keys of the terminal states.
        secret_environment_names: Variables that agents and hooks must not inherit.
    """

    owner: str
    repo: str
    token: str = field(repr=False)
    api_url: str = DEFAULT_API
    state_labels: Mapping[str, str] = field(default_factory=dict)
    project: int | None = None
    project_owner: str = ""
    project_field: str = "Status"
    dependencies: bool = False
    sub_issues: bool = False
    priority_labels: Mapping[str, int] = field(default_factory=dict)
    priority_milestones: Mapping[str, int] = field(default_factory=dict)
    tool_scope: str = "repository"
    read_only: bool = False
    active: tuple[str, ...] = ("open",)
    terminal: frozenset[str] = frozenset({"closed"})
    secret_environment_names: tuple[str, ...] = (TOKEN_VARIABLE,)

    @property
    def graphql_url(self) -> str:
        """The GraphQL API of the same host (an Enterprise Server has both below ``/api``)."""
        return self.api_url.removesuffix("/v3") + "/graphql"

    @property
    def issues_path(self) -> str:
        """Path of the repository's issues."""
        return f"/repos/{self.owner}/{self.repo}/issues"


def resolve(
    tracker: TrackerSettings, environ: Mapping[str, str]
) -> tuple[GitHubSettings | None, list[SettingFault]]:
    """Resolve the settings; they are None exactly where there are faults."""
    provider = tracker.provider
    reader = ProviderReader(provider, environ)
    api_url = reader.https_url("api_url", DEFAULT_API, code="invalid_github_api_url")
    owner, repo = _repo(reader)
    token = reader.secret("token", TOKEN_VARIABLE, what="GitHub token", code="missing_github_token")
    state_labels = reader.names("state_labels")
    project = _project(reader)
    if project is not None and state_labels:
        reader.fault("project", "and `state_labels` exclude each other: the state has one source")
    if provider.get("project") is None:
        for key in ("project_owner", "project_field"):
            if isinstance(value := provider.get(key), str) and value.strip():
                reader.fault(key, "needs `project`, the number of the project that it is about")
    settings = GitHubSettings(
        owner=owner,
        repo=repo,
        token=token,
        api_url=api_url,
        state_labels={state: label.lower() for state, label in state_labels.items()},
        project=project,
        project_owner=_name(reader, "project_owner", owner),
        project_field=_name(reader, "project_field", "Status"),
        dependencies=reader.flag("dependencies"),
        sub_issues=reader.flag("sub_issues"),
        priority_labels=reader.priorities("priority_labels"),
        priority_milestones=reader.priorities("priority_milestones"),
        tool_scope=reader.choice("tool_scope", ("repository", "owner", "any")),
        read_only=reader.flag("read_only"),
        active=tuple(tracker.active_states),
        terminal=frozenset(normalize_state(state) for state in tracker.terminal_states),
        secret_environment_names=secret_names(provider, "token", TOKEN_VARIABLE),
    )
    _states(reader, tracker, settings)
    reader.known_keys(KEYS)
    return (None if reader.faults else settings), reader.faults


def _repo(reader: ProviderReader) -> tuple[str, str]:
    text = reader.looked_up("repo", REPO_VARIABLE)
    given = reader.provider.get("repo")
    owner, _, repo = text.partition("/")
    if not text:
        problem = "must be the repository as `owner/name` (missing_github_repo)"
        reader.fault("repo", problem, given)
    elif not _REPO.fullmatch(text) or {owner, repo} & {".", ".."}:
        problem = "must be the repository as `owner/name` (invalid_github_repo)"
        reader.fault("repo", problem, text)
    return owner, repo


def _project(reader: ProviderReader) -> int | None:
    value: Any = reader.provider.get("project")
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    reader.fault("project", "must be the number of a project, the end of its address", value)
    return None


def _name(reader: ProviderReader, key: str, default: str) -> str:
    value = reader.provider.get(key, default)
    if isinstance(value, str) and value.strip():
        return value.strip()
    if key in reader.provider:
        reader.fault(key, "must be a name", value)
    return default


def _states(reader: ProviderReader, tracker: TrackerSettings, settings: GitHubSettings) -> None:
    """GitHub knows ``open`` and ``closed``; labels or a project's field add names."""
    code = "invalid_github_states"
    if settings.project is not None:
        active: list[str] | None = None
        terminal: list[str] | None = None
    else:
        active = ["open", *settings.state_labels]
        terminal = ["closed", *settings.state_labels]
    reader.states("active_states", tracker.active_states, active, code=code)
    reader.states("terminal_states", tracker.terminal_states, terminal, code=code)
    if settings.project is not None and "closed" in tracker.active_state_keys:
        problem = f"`closed` can't be active: such an issue is done ({code})"
        reader.faults.append(SettingFault("tracker.active_states", problem))
