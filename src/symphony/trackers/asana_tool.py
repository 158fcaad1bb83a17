"""The agent tool ``asana_api``: what belongs to the project.

``RestTool`` checks and sends; this module says which calls are in scope. Paths carry ids and no
project, so tasks, comments and sections that a call names are looked up first.

Invariant: with the scope ``project`` nothing is changed outside of the project, and what the guard
does not know is refused. In every scope, a method is the one that was checked: ``opt_method``,
``options.method`` and batches would say another.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from .asana_settings import AsanaSettings
from .base import ToolContext, ToolSpec
from .http_paths import BadCall, GuardedPath, guard_method, guard_path
from .rest_records import dig
from .rest_tool import RestTool

NAME: Final = "asana_api"
METHODS: Final = ("GET", "POST", "PUT", "DELETE")
MAX_LOOKUPS: Final = 20

_TASK_CHANGES: Final = frozenset(
    {
        "addDependencies",
        "addDependents",
        "addFollowers",
        "addProject",
        "addTag",
        "attachments",
        "duplicate",
        "removeDependencies",
        "removeDependents",
        "removeFollowers",
        "removeProject",
        "removeTag",
        "setParent",
        "stories",
        "subtasks",
        "time_tracking_entries",
    }
)

IsOutside = Callable[[str, str], Awaitable[bool]]
"""Takes ``task``, ``story`` or ``section`` and a gid; whether that is none of the project."""


def build_tool(settings: AsanaSettings) -> RestTool:
    """The tool of these settings."""
    return RestTool(
        name=NAME,
        provider="Asana",
        methods=METHODS,
        example="/tasks/{task_gid}/stories",
        query_name="query",
        scope=_Scope(settings),
        read_only=settings.read_only,
        secrets=(settings.api_key,),
    )


def tool_spec(tool: RestTool) -> ToolSpec:
    """The tool as the agent sees it, in the reference's words."""
    description = "Execute an Asana REST API request using Symphony's configured auth."
    return replace(tool.spec, description=description)


class _Scope:
    """Judges by method and path alone."""

    def __init__(self, settings: AsanaSettings) -> None:
        self._settings = settings

    def __call__(self, method: str, path: GuardedPath) -> str | None:
        if path.segments == ("batch",):
            return "batches are not possible; make the calls one by one."
        if self._settings.any_project or _is_known(method, path.segments, self._settings):
            return None
        return (
            f"{method} {path.text} is outside of what the scope `project` allows: tasks, comments "
            f"and sections of the project {self._settings.project_gid}; "
            "tracker.provider.tool_scope can widen it."
        )


def _is_known(method: str, segments: Sequence[str], settings: AsanaSettings) -> bool:
    match list(segments):
        case ["tasks"]:
            return method in ("GET", "POST")
        case ["tasks", gid]:
            return _is_gid(gid) and method in ("GET", "PUT", "DELETE")
        case ["tasks", gid, change]:
            posted = method == "POST" and change in _TASK_CHANGES
            return _is_gid(gid) and (method == "GET" or posted)
        case ["stories", gid]:
            return _is_gid(gid) and method in ("GET", "PUT", "DELETE")
        case ["sections", gid] | ["sections", gid, "tasks"]:
            return _is_gid(gid) and method == "GET"
        case ["sections", gid, "addTask"]:
            return _is_gid(gid) and method == "POST"
        case ["projects", gid, *_]:
            return gid == settings.project_gid and method == "GET"
        case ["users", "me"]:
            return method == "GET"
    return False


async def check(
    tool: RestTool,
    settings: AsanaSettings,
    arguments: object,
    context: ToolContext,
    is_outside: IsOutside,
) -> None:
    """Look up what a call names; what ``RestTool`` refuses anyway passes.

    Raises:
        BadCall: The call reaches out of the project, or means another method.
        TrackerError: What it names can't be looked up.
    """
    if not isinstance(arguments, Mapping):
        return
    try:
        method = guard_method(arguments.get("method"), METHODS)
        path = guard_path(arguments.get("path"))
    except BadCall:
        return
    query, body = arguments.get("query"), arguments.get("body")
    _refuse_other_method(query, body)
    refused = tool.scope(method, path) is not None or (settings.read_only and method != "GET")
    if refused or settings.any_project:
        return
    if method != "GET" and isinstance(query, Mapping):
        odd = [str(key) for key in query if not str(key).startswith("opt_")]
        if odd:
            # What it would change, and where, is judged by the body alone.
            raise BadCall(f"`query` of a change must not hold `{odd[0][:40]}`; use `body.data`.")
    names = _Names(settings.project_gid)
    names.collect(method, list(path.segments), query, dig(body, "data"))
    wanted = [pair for pair in dict.fromkeys(names.found) if pair != ("task", context.issue.id)]
    if len(wanted) > MAX_LOOKUPS:
        raise BadCall(f"it names more than {MAX_LOOKUPS} tasks.")
    for kind, gid in wanted:
        if not _is_gid(gid) or await is_outside(kind, gid):
            raise BadCall(
                f"the {kind} {gid} is none of the project {settings.project_gid}; "
                "tracker.provider.tool_scope can widen the scope."
            )


def _refuse_other_method(query: object, body: object) -> None:
    keys = list(query) if isinstance(query, Mapping) else []
    if any(str(key).strip().lower().startswith(("opt_method", "options")) for key in keys):
        raise BadCall("`query` must not hold `opt_method`; give the method as `method`.")
    if dig(body, "options", "method") is not None:
        raise BadCall("`body.options` must not hold a method; give it as `method`.")
    if isinstance(body, Mapping) and any(str(key).startswith("opt_method") for key in body):
        raise BadCall("`body` must not hold `opt_method`; give the method as `method`.")


@dataclass
class _Names:
    """What a call names: kinds and gids that must be of the project."""

    project_gid: str
    found: list[tuple[str, str]] = field(default_factory=list)

    def collect(self, method: str, segments: list[str], query: object, data: object) -> None:
        match segments:
            case ["tasks"] if method == "GET":
                self._list(query)
            case ["tasks"]:
                self._create(data)
            case ["tasks", gid, *rest]:
                self.found.append(("task", gid))
                self._change(rest[0] if rest else "", data)
            case ["stories", gid]:
                self.found.append(("story", gid))
            case ["sections", gid, *_]:
                self.found.append(("section", gid))
                if segments[2:] == ["addTask"]:
                    self._tasks(data, "task", "insert_before", "insert_after")

    def _list(self, query: object) -> None:
        section, project = dig(query, "section"), dig(query, "project")
        if section is not None:
            self.found.append(("section", str(section)))
        if str(project) != self.project_gid and (section is None or project is not None):
            raise BadCall(f"`query.project` must be {self.project_gid}.")
        for other in ("tag", "user_task_list"):
            if dig(query, other) is not None:
                raise BadCall(f"`query.{other}` lists tasks of other projects; leave it out.")

    def _create(self, data: object) -> None:
        """A new task belongs to the project, or to a task of it."""
        parent = dig(data, "parent")
        if parent is not None:
            self._tasks(data, "parent")
        if self._projects(data) == 0 and parent is None:
            raise BadCall(f'`body.data.projects` must be ["{self.project_gid}"].')

    def _projects(self, data: object) -> int:
        """How often the data names our project; another one is refused."""
        named = _listed(dig(data, "projects"))
        for membership in _listed(dig(data, "memberships")):
            named.append(dig(membership, "project"))
            if dig(membership, "section") is not None:
                self.found.append(("section", str(dig(membership, "section"))))
        if any(str(gid) != self.project_gid for gid in named):
            raise BadCall(f"the only project that a task may get is {self.project_gid}.")
        return len(named)

    def _change(self, change: str, data: object) -> None:
        if change in ("addProject", "removeProject"):
            if str(dig(data, "project")) != self.project_gid:
                raise BadCall(f"`body.data.project` must be {self.project_gid}.")
            self._tasks(data, "insert_before", "insert_after")
            if dig(data, "section") is not None:
                self.found.append(("section", str(dig(data, "section"))))
        elif change.endswith(("Dependencies", "Dependents")):
            key = "dependencies" if change.endswith("Dependencies") else "dependents"
            named = _listed(dig(data, key))
            self.found += [("task", str(dig(entry, "gid") or entry)) for entry in named]
        elif change == "setParent":
            self._tasks(data, "parent", "insert_before", "insert_after")
        elif change == "subtasks":
            self._projects(data)

    def _tasks(self, data: object, *keys: str) -> None:
        self.found += [("task", str(dig(data, k))) for k in keys if dig(data, k) is not None]


def _listed(value: object) -> list[Any]:
    """A list, or the one value in its place."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def _is_gid(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 30
