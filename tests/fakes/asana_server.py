"""A stateful Asana on a real loopback socket, for tests.

Requests and answers are checked by openapi-core against Asana's own description where both are
found (``description`` says why not); what does not fit is a 599 and is listed in ``problems``.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from rest_server import Fault, Reply, RestServer

__all__ = ["AsanaServer", "Fault"]

PATHS = (
    "/batch",
    "/projects/{project_gid}/tasks",
    "/projects/{project_gid}/sections",
    "/tasks",
    "/tasks/{task_gid}",
    "/tasks/{task_gid}/stories",
    "/sections/{section_gid}",
    "/sections/{section_gid}/addTask",
    "/stories/{story_gid}",
)
PREFIX = "/api/1.0"


@functools.cache
def document() -> Any:
    """Asana's description as JSON values, or None where it can't be read."""
    folder = os.environ.get("SYMPHONY_SCHEMAS")
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "schemas"
    path = (Path(folder) if folder else beside) / "asana_oas.yaml"
    try:
        import yaml
    except ImportError:
        return None
    if not path.is_file():
        return None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = yaml.load(_cut(path.read_text("utf-8")), Loader=loader)
    # YAML reads `200:` as a number and dates as dates; OpenAPI is JSON.
    return json.loads(json.dumps(found, default=str))


@functools.cache
def description() -> tuple[Any, str | None]:
    """Asana's description ready to check with, and None; or None and why there is none."""
    found = document()
    if found is None:
        return None, "asana_oas.yaml not found (SYMPHONY_SCHEMAS)"
    try:
        from openapi_core import Config, OpenAPI
    except ImportError:
        return None, "openapi-core is not installed"
    return OpenAPI.from_dict(found, config=Config(spec_validator_cls=None)), None


def _cut(text: str) -> str:
    """The file without the paths and code samples that nobody looks at, which take seconds."""
    kept: list[str] = []
    section, skipped, wanted = "", None, True
    for line in text.split("\n"):
        indent = len(line) - len(line.lstrip())
        if line and indent == 0:
            section = line
        if section == "paths:" and indent == 2 and line.strip():
            wanted = line.strip().rstrip(":").strip("'\"") in PATHS
        if section == "paths:" and indent >= 2 and not wanted:
            continue
        if skipped is not None and line.strip() and indent <= skipped:
            skipped = None
        if skipped is None and line.strip().startswith(("x-readme:", "x-docs-")):
            skipped = indent
        # openapi-core warns of `allowEmptyValue`, and warnings are errors here.
        if skipped is None and not line.strip().startswith("allowEmptyValue:"):
            kept.append(line)
    return "\n".join(kept)


class AsanaServer(RestServer):
    """Tasks of projects, behind ``endpoint``.

    Attributes:
        problems: What did not fit to the description.
    """

    def __init__(self, *, token: str = "asana-token") -> None:
        super().__init__()
        self.token = token
        self.tasks: dict[str, dict[str, Any]] = {}
        self.stories: dict[str, str] = {}
        self.sections = {"To Do": "501", "Doing": "502", "Done": "503"}
        self.problems: list[str] = []
        self.described: set[str] = set()
        """The calls that were compared with the description, ids as ``{n}``."""
        self.page_size = 100
        self.hidden = False
        """The token may not see the project any more."""

    @property
    def endpoint(self) -> str:
        return f"{self.url}{PREFIX}"

    def add(
        self,
        number: int,
        *,
        section: str = "To Do",
        project: str = "900",
        tags: tuple[str, ...] = (),
        blockers: tuple[str, ...] = (),
        **fields: Any,
    ) -> str:
        """Put a task there; ``blockers`` are gids."""
        gid = str(1_200_000_000_000_000 + number)
        self.tasks[gid] = {
            "gid": gid,
            "resource_type": "task",
            "name": f"Task {number}",
            "notes": "Do it.",
            "completed": False,
            "resource_subtype": "default_task",
            "assignee": {"gid": "14641", "resource_type": "user", "name": "Greg Sanchez"},
            "tags": [{"gid": "59746", "resource_type": "tag", "name": name} for name in tags],
            "memberships": [],
            "dependencies": [{"gid": b, "resource_type": "task"} for b in blockers],
            "custom_fields": [],
            "parent": None,
            "permalink_url": f"https://app.asana.com/0/900/{gid}",
            "created_at": "2026-01-18T07:02:31.000Z",
            "modified_at": "2026-01-19T09:12:00.123Z",
            **fields,
        }
        if "memberships" not in fields:
            self.move(gid, section, project)
        return gid

    def move(self, gid: str, section: str, project: str = "900") -> None:
        self.tasks[gid]["memberships"] = [
            {
                "project": {"gid": project, "resource_type": "project", "name": "P"},
                "section": {
                    "gid": self.sections[section],
                    "resource_type": "section",
                    "name": section,
                },
            }
        ]

    def handle(self, call: Any) -> Any:
        if call.headers.get("authorization") != f"Bearer {self.token}":
            return Reply(401, self._errors("Not Authorized"))
        path = call.path.removeprefix(PREFIX)
        return Reply(*self._respond(call.method, path, call.query, call.json()))

    def _respond(self, method: str, path: str, query: Any, body: Any) -> tuple[int, Any]:
        one = {name: values[-1] for name, values in query.items()}
        if self.hidden and path != "/batch":
            return 404, self._errors("project: Not a recognized ID: 900")
        match (method, *path.split("/")[1:]):
            case ("POST", "batch"):
                return 200, {"data": [self._action(a) for a in body["data"]["actions"]]}
            case ("GET", "projects", project, "tasks"):
                return self._list(one, project)
            case ("GET", "tasks"):
                return self._list(one, one["project"])
            case ("GET", "projects", "900", "sections"):
                entries = [
                    {"gid": gid, "resource_type": "section", "name": name}
                    for name, gid in self.sections.items()
                ]
                return 200, {"data": entries, "next_page": None}
            case ("GET", "tasks", gid) if gid in self.tasks:
                return 200, {"data": self._shown(gid, one.get("opt_fields", "").split(","))}
            case ("PUT", "tasks", gid) if gid in self.tasks:
                self.tasks[gid] |= body["data"]
                return 200, {"data": self._shown(gid, ["name", "completed"])}
            case ("POST", "tasks", gid, "stories") if gid in self.tasks:
                story = str(700 + len(self.stories))
                self.stories[story] = gid
                return 201, {"data": {"gid": story, "text": body["data"]["text"]}}
            case (("GET" | "PUT"), "stories", gid) if gid in self.stories:
                target = {"gid": self.stories[gid], "resource_type": "task"}
                return 200, {"data": {"gid": gid, "target": target}}
            case ("GET", "sections", gid) if gid in {*self.sections.values(), "999"}:
                project = "1" if gid == "999" else "900"
                return 200, {"data": {"gid": gid, "project": {"gid": project}}}
            case ("POST", "sections", gid, "addTask"):
                self.move(
                    body["data"]["task"], next(n for n, g in self.sections.items() if g == gid)
                )
                return 200, {"data": {}}
            case ("GET", "users", "me"):
                return 200, {"data": {"gid": "14641", "name": self.token}}
        return 404, self._errors("task: Not a recognized ID")

    def _action(self, action: dict[str, Any]) -> dict[str, Any]:
        fields = ",".join(action.get("options", {}).get("fields", []))
        assert "?" not in action["relative_path"], "a batch takes no query in paths"
        query = {"opt_fields": [fields]}
        status, body = self._respond(action["method"].upper(), action["relative_path"], query, None)
        return {"status_code": status, "headers": {}, "body": body}

    def _list(self, query: dict[str, str], project: str) -> tuple[int, Any]:
        open_only = query.get("completed_since") == "now"
        gids = [
            gid
            for gid, task in self.tasks.items()
            if any(m["project"]["gid"] == project for m in task["memberships"])
            and not (open_only and task["completed"])
        ]
        start = int(query.get("offset", "offset-0").removeprefix("offset-"))
        end = start + min(int(query.get("limit", "100")), self.page_size)
        fields = query.get("opt_fields", "").split(",")
        following = None
        if end < len(gids):
            uri = f"https://app.asana.com{PREFIX}/projects/{project}/tasks?offset=offset-{end}"
            following = {"offset": f"offset-{end}", "path": "/projects/900/tasks", "uri": uri}
        data = [self._shown(gid, fields) for gid in gids[start:end]]
        return 200, {"data": data, "next_page": following}

    def _shown(self, gid: str, fields: list[str]) -> dict[str, Any]:
        """The task with the fields that were asked for, and ids, as Asana does."""
        names = {name.partition(".")[0] for name in fields}
        return {k: v for k, v in self.tasks[gid].items() if k in names or k == "gid"}

    @staticmethod
    def _errors(message: str) -> dict[str, Any]:
        return {"errors": [{"message": message, "help": "For more information ..."}]}

    def check(self, call: Any, reply: Any) -> None:
        api, missing = description()
        parts = call.path.removeprefix(PREFIX).split("/")[1:]
        if missing or parts[0] == "users" or reply.status == 401:
            return
        self.described.add(re.sub(r"(?<=/)\d+(?=/|$)", "{n}", f"{call.method} /{'/'.join(parts)}"))
        from openapi_core.testing import MockRequest, MockResponse

        request = MockRequest(
            "https://app.asana.com",
            call.method.lower(),
            call.path,
            args=dict(parse_qsl(urlsplit(call.target).query)),
            headers=call.headers,
            data=call.body or None,
        )
        # A page of many like tasks is checked by its first few.
        payload = reply.payload
        data = payload.get("data")
        if isinstance(data, list):
            payload = {**payload, "data": data[:3]}
        elif isinstance(data, dict):
            # `nullable` inside of `allOf` means nothing to a checker; Asana does send nulls there.
            payload = {"data": {key: value for key, value in data.items() if value is not None}}
        body = json.dumps(payload).encode()
        response = MockResponse(body, status_code=reply.status, content_type="application/json")
        try:
            api.validate_request(request)
            api.validate_response(request, response)
            for action in _actions(call) if parts == ["batch"] else ():
                api.validate_request(action)
        except Exception as error:
            cause = error.__cause__ or error
            detail = getattr(cause, "schema_errors", None) or [cause]
            self.problems.append(f"{call.method} {call.target}: {[str(d)[:300] for d in detail]}")
            reply.status, reply.payload = 599, self._errors(self.problems[-1])


def _actions(call: Any) -> Iterator[Any]:
    """The requests that a batch stands for."""
    from openapi_core.testing import MockRequest

    for action in call.json()["data"]["actions"]:
        fields = ",".join(action["options"]["fields"])
        yield MockRequest(
            "https://app.asana.com",
            action["method"],
            PREFIX + action["relative_path"],
            args={"opt_fields": fields},
            headers=call.headers,
        )
