"""The agent tool ``github_api``: which paths belong to the configured scope. Pure.

Everything else of it is ``rest_tool``'s. Sub-issues and dependencies are named by numbers of all of
GitHub, of which nothing tells whose they are: such a change is refused in the repository's scope.
"""

from __future__ import annotations

from typing import Final

from .github_settings import GitHubSettings
from .http_paths import GuardedPath, plain_name
from .rest_tool import RestTool, Scope

NAME: Final = "github_api"
METHODS: Final = ("GET", "POST", "PATCH", "PUT", "DELETE")

_ADMINISTRATION: Final = frozenset(
    {
        "actions",
        "automated-security-fixes",
        "autolinks",
        "branches",
        "codespaces",
        "collaborators",
        "dependabot",
        "deployments",
        "dispatches",
        "environments",
        "forks",
        "generate",
        "hooks",
        "immutable-releases",
        "import",
        "interaction-limits",
        "invitations",
        "keys",
        "pages",
        "private-vulnerability-reporting",
        "properties",
        "rulesets",
        "secret-scanning",
        "teams",
        "topics",
        "transfer",
        "vulnerability-alerts",
    }
)
"""Parts of a repository that are its administration: changed only with a wider scope."""
_FAR: Final = frozenset({"dependencies", "sub_issue", "sub_issues"})
"""Parts of an issue whose changes may reach an issue of another repository."""


def make_tool(settings: GitHubSettings) -> RestTool:
    """The tool of these settings."""
    return RestTool(
        name=NAME,
        provider="GitHub",
        methods=METHODS,
        example=f"{settings.issues_path}/1/comments",
        query_name="params",
        scope=make_scope(settings),
        read_only=settings.read_only,
        secrets=(settings.token,),
    )


def make_scope(settings: GitHubSettings) -> Scope:
    """Decide by ``tool_scope``: the repository's work, everything of its owner, or anything."""
    owner, repo = settings.owner.lower(), settings.repo.lower()

    def in_owner(segments: tuple[str, ...]) -> bool:
        first, second = segments[0], segments[1].lower() if len(segments) > 1 else ""
        return first in ("repos", "orgs", "users") and second == owner

    def scope(method: str, path: GuardedPath) -> str | None:
        segments = path.segments
        if settings.tool_scope == "any" or (settings.tool_scope == "owner" and in_owner(segments)):
            return None
        if settings.tool_scope == "owner":
            return f"`path` must be below /repos/{settings.owner} (tracker.provider.tool_scope)."
        here = tuple(part.lower() for part in segments[:3]) == ("repos", owner, repo)
        if not here:
            return (
                f"`path` must be below /repos/{settings.owner}/{settings.repo}; a wider scope is "
                "set by tracker.provider.tool_scope."
            )
        parts = [plain_name(part) for part in segments[3:]]
        if method != "GET" and (not parts or parts[0] in _ADMINISTRATION):
            return (
                "it must not change the repository's administration; a wider scope is set by "
                "tracker.provider.tool_scope."
            )
        if method != "GET" and parts[0] == "issues" and _FAR & set(parts[2:3]):
            return (
                "sub-issues and dependencies are named by ids that may be of other repositories; "
                "the scope `owner` of tracker.provider.tool_scope allows them."
            )
        return None

    return scope
