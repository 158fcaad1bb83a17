"""Settings of the adapter ``linear``: defaults, ``$NAME`` references, and every fault at once.

Pure: the environment comes in as a mapping. The provider map keeps the references as written;
only ``LinearSettings`` holds the secret, and its ``repr`` does not show it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from symphony.errors import SettingFault

from .rest_settings import ProviderReader

DEFAULT_ENDPOINT: Final = "https://api.linear.app/graphql"
KEY_VARIABLE: Final = "LINEAR_API_KEY"
ASSIGNEE_VARIABLE: Final = "LINEAR_ASSIGNEE"
KEYS: Final = (
    "endpoint",
    "api_key",
    "project_slug",
    "assignee",
    "team",
    "blockers",
    "sub_issues",
    "tool_scope",
    "read_only",
)

SUB_ISSUES: Final = ("independent", "before_parent", "with_parent", "never")
"""What holds sub-issues and their parents back; the first is the default."""

_REFERENCE: Final = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearSettings:
    """What the adapter works with.

    Attributes:
        endpoint: URL of the GraphQL API.
        api_key: The token, sent as it is in ``Authorization``.
        project_slug: ``slugId`` of the project that is the scope.
        assignee: A user id, ``me``, or None for everybody.
        team: Key of the team whose issues are dispatched, in lower case; None for all.
        blocked_anywhere: Whether open blockers hold an issue back in every state.
        sub_issues: One of ``SUB_ISSUES``.
        tool_scope: ``project``, ``team`` or ``any``.
        read_only: Whether the tool only reads.
        secret_environment_names: Variables that agents and hooks must not inherit.
    """

    endpoint: str
    api_key: str = field(repr=False)
    project_slug: str
    assignee: str | None
    secret_environment_names: tuple[str, ...]
    team: str | None = None
    blocked_anywhere: bool = False
    sub_issues: str = "independent"
    tool_scope: str = "project"
    read_only: bool = False


def resolve(
    provider: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[LinearSettings | None, list[SettingFault]]:
    """Resolve the provider map; the settings are None exactly where there are faults."""
    faults: list[SettingFault] = []
    endpoint = _endpoint(provider.get("endpoint"), faults)
    api_key = _secret(provider.get("api_key"), environ, faults)
    slug = provider.get("project_slug")
    if not isinstance(slug, str) or not slug.strip():
        problem = (
            "must be the slug of the Linear project, the end of the project's address "
            "(missing_linear_project_slug)"
        )
        faults.append(SettingFault("tracker.provider.project_slug", problem, _shown(slug)))
        slug = ""
    assignee = _assignee(provider.get("assignee"), environ, faults)
    reader = ProviderReader(provider, environ, faults)
    team = provider.get("team")
    if team is not None and (not isinstance(team, str) or not team.strip()):
        reader.fault("team", "must be the key of a team, such as ENG; leave it out for all", team)
    blockers = reader.choice("blockers", ("todo", "any"))
    sub_issues = reader.choice("sub_issues", SUB_ISSUES)
    tool_scope = reader.choice("tool_scope", ("project", "team", "any"))
    read_only = reader.flag("read_only")
    reader.known_keys(KEYS)
    if faults:
        return None, faults
    settings = LinearSettings(
        endpoint=endpoint,
        api_key=api_key,
        project_slug=slug.strip(),
        assignee=assignee,
        secret_environment_names=secret_environment_names(provider),
        team=team.strip().lower() if isinstance(team, str) else None,
        blocked_anywhere=blockers == "any",
        sub_issues=sub_issues,
        tool_scope=tool_scope,
        read_only=read_only,
    )
    return settings, []


def secret_environment_names(provider: Mapping[str, Any]) -> tuple[str, ...]:
    """``LINEAR_API_KEY``, and the variable that ``api_key`` names if it is another one."""
    names = [KEY_VARIABLE]
    value = provider.get("api_key")
    reference = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    if reference is not None:
        names.append(reference[1])
    return tuple(dict.fromkeys(names))


def _endpoint(value: object, faults: list[SettingFault]) -> str:
    if value is None:
        return DEFAULT_ENDPOINT
    text = value.strip() if isinstance(value, str) else ""
    try:
        parts = urlsplit(text)
        # Reading the port raises where it is none.
        usable = parts.scheme in ("https", "http") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        problem = (
            f"must be the URL of a GraphQL API, such as {DEFAULT_ENDPOINT} "
            "(invalid_linear_endpoint)"
        )
        faults.append(SettingFault("tracker.provider.endpoint", problem, _shown(value)))
    return text


def _secret(value: object, environ: Mapping[str, str], faults: list[SettingFault]) -> str:
    path = "tracker.provider.api_key"
    if value is not None and not isinstance(value, str):
        problem = "must be a text, best `$LINEAR_API_KEY` (missing_linear_api_token)"
        faults.append(SettingFault(path, problem))
        return ""
    text = (_looked_up(value, KEY_VARIABLE, environ) or "").strip()
    if not text:
        reference = _REFERENCE.fullmatch(value) if value is not None else None
        name = reference[1] if reference is not None else KEY_VARIABLE
        problem = f"there is no Linear token: export {name} (missing_linear_api_token)"
        faults.append(SettingFault(path, problem))
    elif value is not None and text.startswith("$"):
        problem = (
            "looks like a reference to a variable, but its name is no variable's name; write "
            "`$NAME` with letters, digits and `_` (missing_linear_api_token)"
        )
        faults.append(SettingFault(path, problem))
    elif not text.isascii() or not text.isprintable():
        # It would be refused as a header much later, with the token in the traceback.
        problem = "the Linear token holds characters no token has (missing_linear_api_token)"
        faults.append(SettingFault(path, problem))
    return text


def _assignee(value: object, environ: Mapping[str, str], faults: list[SettingFault]) -> str | None:
    if value is not None and (not isinstance(value, str) or not value.strip()):
        problem = "must be a Linear user id or `me`; leave it out for all (invalid_linear_assignee)"
        faults.append(SettingFault("tracker.provider.assignee", problem, _shown(value)))
        return None
    return (_looked_up(value, ASSIGNEE_VARIABLE, environ) or "").strip() or None


def _looked_up(value: str | None, variable: str, environ: Mapping[str, str]) -> str | None:
    """A value as the reference resolves it: a variable that is set and empty has no fallback."""
    if value is None:
        return environ.get(variable)
    reference = _REFERENCE.fullmatch(value)
    if reference is None:
        return value
    return environ[reference[1]] if reference[1] in environ else environ.get(variable)


def _shown(value: object) -> str | None:
    return None if value is None else repr(value)[:80]


def codes(faults: Sequence[SettingFault]) -> tuple[str, ...]:
    """The reference's names of these faults, which stand in brackets at the end of each."""
    return tuple(fault.problem.rpartition("(")[2].rstrip(")") for fault in faults)
