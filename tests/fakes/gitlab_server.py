"""A stateful GitLab: issues, labels, notes of one project over REST, blockers over GraphQL.

Its records are those of tests/data/gitlab, whose keys come from GitLab's documentation; requests
with a parameter that the documentation does not know are a 400, as are methods of other resources.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from graphql import ExecutionResult, build_schema, parse, validate
from graphql.execution import execute
from rest_server import Fault, Reply, RestServer

__all__ = ["Fault", "GitLabServer"]

TOKEN = "glpat-test"
DATA = Path(__file__).resolve().parents[1] / "data" / "gitlab"
PARAMETERS = {"state", "order_by", "sort", "per_page", "page", "updated_after", "iids[]"}
ALLOWED = {
    "state": {"opened", "closed", "all"},
    "order_by": {"created_at", "updated_at"},
    "sort": {"asc", "desc"},
}
SCHEMA = build_schema(
    """
    type Query { project(fullPath: ID!): Project }
    type PageInfo { hasNextPage: Boolean! }
    type Project { issues(iids: [String!], first: Int): IssueConnection }
    type IssueConnection { nodes: [Issue] pageInfo: PageInfo! }
    enum IssueState { opened closed locked all }
    type Issue {
      iid: ID! state: IssueState! reference(full: Boolean = false): String!
      blockedByIssues: IssueConnection
    }
    """
)


def example(name: str) -> Any:
    return json.loads((DATA / f"{name}.json").read_text("utf-8"))


def stamp(when: Any) -> str:
    return str(when.strftime("%Y-%m-%dT%H:%M:%S.000Z"))


class GitLabServer(RestServer):
    """The project ``group/demo``, number 42."""

    def __init__(self) -> None:
        super().__init__()
        self.token = TOKEN
        self.issues: dict[int, dict[str, Any]] = {}
        self.blocked_by: dict[int, list[int]] = {}
        self.notes: list[dict[str, Any]] = []
        self.labels: list[str] = []
        self.problems: list[str] = []
        self.hidden = False
        """The token may not see the project any more."""

    @property
    def api_url(self) -> str:
        return f"{self.url}/api/v4"

    def add(
        self,
        number: int,
        *,
        labels: tuple[str, ...] = (),
        blocked_by: tuple[int, ...] = (),
        **fields: Any,
    ) -> int:
        self.issues[number] = {
            **copy.deepcopy(example("issue")),
            "id": 9_000 + number,
            "iid": number,
            "title": f"Issue {number}",
            "labels": list(labels),
            "references": {
                "short": f"#{number}",
                "relative": f"#{number}",
                "full": f"group/demo#{number}",
            },
            "created_at": stamp(self.now),
            "updated_at": stamp(self.now),
            **fields,
        }
        self.labels += [label for label in labels if label not in self.labels]
        self.blocked_by[number] = list(blocked_by)
        return number

    def change(self, number: int, **fields: Any) -> None:
        self.issues[number] |= {"updated_at": stamp(self.now), **fields}

    def remove(self, number: int) -> None:
        del self.issues[number]

    def handle(self, call: Any) -> Any:
        if call.headers.get("private-token") != self.token:
            return self._error(401)
        if call.path == "/api/graphql":
            return self._graphql(call.json())
        segments = call.segments
        if self.hidden or segments[:3] != ["api", "v4", "projects"]:
            return self._error(404)
        if segments[3] not in ("group/demo", "42"):
            return self._error(404)
        match call.method, segments[4:]:
            case "GET", ["issues"]:
                return self._list(call)
            case "GET", ["labels"]:
                labels = [
                    {**example("label"), "id": number, "name": name}
                    for number, name in enumerate(self.labels, start=1)
                ]
                return self._paged(call, labels)
            case "PUT", ["issues", number] if int(number) in self.issues:
                event = call.json().get("state_event")
                self.change(int(number), state="closed" if event == "close" else "opened")
                return Reply(200, self.issues[int(number)])
            case "POST", ["issues", number, "notes"] if int(number) in self.issues:
                note = {**example("note"), "body": call.json()["body"], "noteable_iid": int(number)}
                self.notes.append(note)
                return Reply(201, note)
        return self._error(404)

    def _error(self, status: int) -> Any:
        return Reply(status, example("errors")[str(status)])

    def _list(self, call: Any) -> Any:
        query = call.query
        bad = [name for name in query if name not in PARAMETERS]
        bad += [
            f"{name}={value}"
            for name, allowed in ALLOWED.items()
            for value in query.get(name, [])
            if value not in allowed
        ]
        if bad:
            self.problems.append(f"{call.target}: {bad}")
            return Reply(400, {"error": f"{bad} does not have a valid value"})
        iids = {int(iid) for iid in query.get("iids[]", [])}
        state = call.one("state", "all")
        since = call.one("updated_after")[:19]
        records = [
            record
            for number, record in self.issues.items()
            if (not iids or number in iids)
            and state in ("all", record["state"])
            and str(record["updated_at"])[:19] >= since
        ]
        order = call.one("order_by", "created_at")
        records.sort(key=lambda record: (record[order], record["id"]))
        if call.one("sort", "desc") == "desc":
            records.reverse()
        return self._paged(call, records)

    def _paged(self, call: Any, records: list[Any]) -> Any:
        size, number = int(call.one("per_page", "20")), int(call.one("page", "1"))
        more = number * size < len(records)
        headers = {
            "X-Page": str(number),
            "X-Next-Page": str(number + 1) if more else "",
            "X-Per-Page": str(size),
            "X-Total": str(len(records)),
            "RateLimit-Limit": "2000",
            "RateLimit-Remaining": "1999",
        }
        return Reply(200, records[(number - 1) * size : number * size], headers)

    def _graphql(self, payload: dict[str, Any]) -> Any:
        document = parse(payload["query"])
        problems = validate(SCHEMA, document)
        if problems:
            self.problems += [problem.message for problem in problems]
            return Reply(200, {"errors": [{"message": p.message} for p in problems]})
        root = {"project": self._project}
        result = execute(SCHEMA, document, root_value=root, variable_values=payload["variables"])
        assert isinstance(result, ExecutionResult)
        assert not result.errors, result.errors
        return Reply(200, {"data": result.data})

    def _project(self, info: Any, fullPath: str) -> Any:
        if fullPath != "group/demo" or self.hidden:
            return None

        def issues(info: Any, iids: list[str], first: int) -> Any:
            found = [self._node(int(iid)) for iid in iids if int(iid) in self.issues]
            return {"nodes": found[:first], "pageInfo": {"hasNextPage": len(found) > first}}

        return {"issues": issues}

    def _node(self, number: int) -> dict[str, Any]:
        def blockers(info: Any) -> Any:
            nodes = [self._node(n) for n in self.blocked_by.get(number, []) if n in self.issues]
            return {"nodes": nodes, "pageInfo": {"hasNextPage": False}}

        return {
            "iid": str(number),
            "state": self.issues[number]["state"],
            "reference": lambda info, full: f"{'group/demo' if full else ''}#{number}",
            "blockedByIssues": blockers,
        }
