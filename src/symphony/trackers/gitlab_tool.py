"""The agent tool ``gitlab_api``: which paths belong to the configured scope. Pure.

Everything else of it is ``rest_tool``'s. A project is named in paths by its percent-encoded path;
its number is known only after the first read, and passes then too. Some calls name another project
in their query or body, and every call of an administrator may name another user.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from .gitlab_settings import GitLabSettings
from .http import Query
from .http_paths import GuardedPath, plain_name
from .rest_tool import Contents, RestTool, Scope

NAME: Final = "gitlab_api"
METHODS: Final = ("GET", "POST", "PUT", "DELETE")

_ADMINISTRATION: Final = frozenset(
    {
        "access_requests",
        "access_tokens",
        "archive",
        "clusters",
        "deploy_keys",
        "deploy_tokens",
        "environments",
        "export",
        "fork",
        "hooks",
        "import",
        "integrations",
        "invitations",
        "members",
        "mirror",
        "protected_branches",
        "protected_environments",
        "protected_tags",
        "push_rule",
        "remote_mirrors",
        "restore",
        "runners",
        "services",
        "share",
        "transfer",
        "triggers",
        "unarchive",
        "variables",
    }
)
"""Parts of a project that are its administration: changed only with a wider scope."""
_PROJECTS: Final = frozenset({"forked_from_id", "target_project_id", "to_project_id"})
"""Parameters that name another project: where an issue moves to, what it is linked with."""
_IDENTITIES: Final = frozenset(
    {"access_token", "bearer_token", "job_token", "oauth_token", "private_token", "sudo"}
)
"""Parameters that make a call somebody else's."""


def make_tool(settings: GitLabSettings, project_id: Callable[[], int | None]) -> RestTool:
    """The tool of these settings; ``project_id`` tells the project's number once it is known."""
    return RestTool(
        name=NAME,
        provider="GitLab",
        methods=METHODS,
        example=f"{settings.project_api_path}/issues/1/notes",
        query_name="query",
        scope=make_scope(settings, project_id),
        contents=make_contents(settings, project_id),
        read_only=settings.read_only,
        encoded_slash=True,
        secrets=(settings.api_key,),
    )


def make_scope(settings: GitLabSettings, project_id: Callable[[], int | None]) -> Scope:
    """Decide by ``tool_scope``: the project's work, everything of its group, or anything."""
    project = settings.project_path.lower()
    group = project.rpartition("/")[0] or project

    def scope(method: str, path: GuardedPath) -> str | None:
        segments = path.segments
        # Only a project's or group's path has slashes; elsewhere they hide what is called.
        if any("/" in part for part in (segments[0], *segments[2:])) and not _names_a_file(path):
            return "`path` may have an encoded slash only in the project's or group's path."
        first, second = segments[0], segments[1].lower() if len(segments) > 1 else ""
        own = first == "projects" and second in (project, str(project_id() or project))
        grouped = first in ("projects", "groups") and (second + "/").startswith(group + "/")
        if settings.tool_scope == "any" or (settings.tool_scope == "group" and grouped):
            return None
        if not own:
            return (
                f"`path` must be below {settings.project_api_path}; a wider scope is set by "
                "tracker.provider.tool_scope."
            )
        if method != "GET" and (len(segments) == 2 or plain_name(segments[2]) in _ADMINISTRATION):
            return (
                "it must not change the project's administration; a wider scope is set by "
                "tracker.provider.tool_scope."
            )
        return None

    return scope


def make_contents(settings: GitLabSettings, project_id: Callable[[], int | None]) -> Contents:
    """Refuse another identity; in the scope ``project`` another project too."""
    project = settings.project_path.lower()

    def contents(method: str, path: GuardedPath, query: Query, body: Any) -> str | None:
        for place, given in (("query", query), ("body", body)):
            for key, value in given.items() if isinstance(given, Mapping) else ():
                name = str(key).strip().lower().partition("[")[0]
                if name in _IDENTITIES:
                    return f"`{place}` must not hold `{name}`: calls are made as Symphony's user."
                own = str(value).strip().lower() in (project, str(project_id() or project))
                if name in _PROJECTS and settings.tool_scope == "project" and not own:
                    return (
                        f"`{place}.{name}` must be {settings.project_path}; a wider scope is set "
                        "by tracker.provider.tool_scope."
                    )
        return None

    return contents


def _names_a_file(path: GuardedPath) -> bool:
    """``/projects/x/repository/files/a%2Fb`` and branches take names with slashes."""
    return path.segments[0] in ("projects", "groups") and path.segments[2:3] in (
        ("repository",),
        ("labels",),
        ("wikis",),
    )
