"""Settings of the adapter ``jira``: references, the filter of its reads, and every fault at once.

Pure: the environment comes in as a mapping. The provider map keeps the references as written;
only ``JiraSettings`` holds the token, and its ``repr`` does not show it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from symphony.errors import SettingFault

from .jira_jql import UnusableJql, quoted, split_order
from .rest_settings import ProviderReader, secret_names

if TYPE_CHECKING:
    from symphony.config.settings import TrackerSettings

BASE_URL_VARIABLE: Final = "JIRA_BASE_URL"
EMAIL_VARIABLE: Final = "JIRA_EMAIL"
TOKEN_VARIABLE: Final = "JIRA_API_TOKEN"
CATEGORIES: Final = {"new": "To Do", "indeterminate": "In Progress", "done": "Done"}
"""Keys of Jira's status categories, the same in every language, and the states they are here."""

DEFAULT_PRIORITIES: Final = {"highest": 1, "high": 2, "medium": 3, "low": 4, "lowest": 5}

_KEYS: Final = (
    "base_url",
    "email",
    "api_token",
    "project_key",
    "states",
    "sprint",
    "jql",
    "priorities",
    "description",
    "read_only",
    "tool_scope",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JiraSettings:
    """What the adapter works with.

    Attributes:
        base_url: The site's address without a slash at its end.
        email: The account of the token.
        api_token: The token.
        project_key: The project that is the scope.
        by_category: States are status categories instead of statuses.
        filters: JQL clauses that narrow the state reads down, each complete in itself.
        filter_keys: The settings that they come from.
        priorities: Ranks of priority names in lower case; empty where all are null.
        markdown: Descriptions are Markdown instead of plain text.
        read_only: The tool only reads.
        any_project: The tool reaches every project of the account.
        secret_environment_names: Variables that agents and hooks must not inherit.
    """

    base_url: str
    email: str
    api_token: str = field(repr=False)
    project_key: str
    by_category: bool = False
    filters: tuple[str, ...] = ()
    filter_keys: tuple[str, ...] = ()
    priorities: Mapping[str, int] = field(default_factory=dict)
    markdown: bool = False
    read_only: bool = False
    any_project: bool = False
    secret_environment_names: tuple[str, ...] = (TOKEN_VARIABLE,)


def resolve(
    settings: TrackerSettings, environ: Mapping[str, str]
) -> tuple[JiraSettings | None, list[SettingFault]]:
    """Resolve the section ``tracker``; the settings are None exactly where there are faults."""
    provider = settings.provider
    reader = ProviderReader(provider, environ)
    reader.known_keys(_KEYS)
    base_url = _base_url(reader)
    email = _needed(reader, "email", EMAIL_VARIABLE, "the address of the token's account")
    # A colon would end the user's part of the Basic credentials early.
    if ":" in email or not email.isascii() or not email.isprintable():
        reader.fault("email", "must be a plain e-mail address (missing_jira_email)", email)
    api_token = reader.secret(
        "api_token", TOKEN_VARIABLE, what="Jira API token", code="missing_jira_api_token"
    )
    project_key = _needed(reader, "project_key", None, "the key of the project, such as `PROJ`")
    states: Literal["status", "category"] = (
        "category" if reader.choice("states", ("status", "category")) == "category" else "status"
    )
    filters = [clause for clause in (_sprint(reader), _jql(reader)) if clause is not None]
    priorities = _priorities(reader)
    markdown = reader.choice("description", ("text", "markdown")) == "markdown"
    read_only = reader.flag("read_only")
    any_project = reader.choice("tool_scope", ("project", "any")) == "any"
    faults = [*_state_faults(settings, states, reader), *reader.faults]
    if faults:
        return None, faults
    resolved = JiraSettings(
        base_url=base_url,
        email=email,
        api_token=api_token,
        project_key=project_key,
        by_category=states == "category",
        filters=tuple(filters),
        filter_keys=tuple(key for key in ("sprint", "jql") if provider.get(key) is not None),
        priorities=priorities,
        markdown=markdown,
        read_only=read_only,
        any_project=any_project,
        secret_environment_names=secret_names(provider, "api_token", TOKEN_VARIABLE),
    )
    return resolved, []


def _base_url(reader: ProviderReader) -> str:
    code = "invalid_jira_base_url"
    url = reader.https_url("base_url", "", code=code, fallback=BASE_URL_VARIABLE)
    if not url and not any(fault.path.endswith(".base_url") for fault in reader.faults):
        problem = (
            "must be the site's https address, such as https://your-site.atlassian.net; set it or "
            f"export {BASE_URL_VARIABLE} ({code})"
        )
        reader.fault("base_url", problem)
    return url


def _needed(reader: ProviderReader, key: str, variable: str | None, what: str) -> str:
    text = reader.looked_up(key, variable)
    if not text:
        export = f"; set it or export {variable}" if variable is not None else ""
        problem = f"must be {what}{export} (missing_jira_{key})"
        reader.fault(key, problem, reader.provider.get(key))
    return text


def _sprint(reader: ProviderReader) -> str | None:
    """``open`` for the open sprints, or a sprint by its number or name."""
    value = reader.provider.get("sprint")
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return f"sprint = {value}"
    if not isinstance(value, str) or not value.strip():
        reader.fault("sprint", "must be `open`, or a sprint's number or name", value)
        return None
    name = value.strip()
    if name.lower() == "open":
        return "sprint in openSprints()"
    return f"sprint = {name if re.fullmatch(r'[1-9][0-9]{0,17}', name) else quoted(name)}"


def _jql(reader: ProviderReader) -> str | None:
    value = reader.provider.get("jql")
    if value is None:
        return None
    try:
        clause, order = split_order(value if isinstance(value, str) else "")
        if order:
            raise UnusableJql("has an ORDER BY, which a filter can't have: leave it out")
        if not clause:
            raise UnusableJql("must be a JQL clause, such as `component = Backend`")
    except UnusableJql as error:
        reader.fault("jql", str(error), value)
        return None
    return f"({clause})"


def _priorities(reader: ProviderReader) -> Mapping[str, int]:
    value = reader.provider.get("priorities")
    if isinstance(value, str) and value.strip().lower() == "default":
        return DEFAULT_PRIORITIES
    return reader.priorities("priorities")


def _state_faults(
    settings: TrackerSettings, states: Literal["status", "category"], reader: ProviderReader
) -> list[SettingFault]:
    """Faults of the state lists, which Jira has no default for."""
    faults: list[SettingFault] = []
    lists: tuple[tuple[str, Sequence[Any]], ...] = (
        ("active_states", settings.active_states),
        ("terminal_states", settings.terminal_states),
    )
    for key, values in lists:
        if key not in settings.model_fields_set:
            problem = (
                "must list the project's statuses as Jira spells them; there is no default "
                f"(missing_jira_{key})"
            )
            faults.append(SettingFault(f"tracker.{key}", problem))
        elif any(not value.strip() for value in values):
            problem = "must not hold a blank name (invalid_jira_states)"
            faults.append(SettingFault(f"tracker.{key}", problem))
        elif states == "category":
            reader.states(key, values, tuple(CATEGORIES.values()), code="invalid_jira_states")
    return faults
