"""A stateful Jira Cloud on a real loopback socket, for tests.

Answers are the documented payloads of tests/data/jira with the test's values put in, never the
adapter's own models. A request that the documentation does not allow (an unknown key, too many
ids, an unknown status, JQL that this fake does not know) gets 400, as at Jira.
"""

from __future__ import annotations

import copy
import json
import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rest_server import Fault, Reply, RestServer

__all__ = ["Fault", "JiraServer"]

DATA = Path(__file__).resolve().parents[1] / "data" / "jira"


STATUSES = {
    "To Do": ("10000", 2, "new", "To Do"),
    "In Progress": ("5", 4, "indeterminate", "In Progress"),
    "Done": ("10002", 3, "done", "Done"),
}
_SEARCH_KEYS = {
    "jql",
    "fields",
    "maxResults",
    "nextPageToken",
    "expand",
    "properties",
    "fieldsByKeys",
    "failFast",
    "reconcileIssues",
}
_BULK_KEYS = {"issueIdsOrKeys", "fields", "expand", "properties", "fieldsByKeys"}
_QUERY = re.compile(
    r'project = "(?P<project>(?:\\.|[^"\\])*)"'
    r"(?: AND (?P<field>status|statusCategory) IN \((?P<states>[^()]*)\))?"
    r"(?: AND (?P<rest>.*?))?(?: ORDER BY [\w, ]+)?",
    re.IGNORECASE,
)


def payload(name: str) -> Any:
    """A documented payload, to be changed."""
    return json.loads((DATA / f"{name}.json").read_text("utf-8"))


@dataclass
class Request:
    """A call as tests look at it."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


class JiraServer(RestServer):
    """Issues of projects, behind ``url``.

    Attributes:
        clauses: JQL that a test knows, and which records it is true for.
        unloadable: Ids that a bulk read reports as errors for now.
    """

    def __init__(self, *, email: str = "mia@example.com", token: str = "jira-token") -> None:
        super().__init__()
        self.email = email
        self.token = token
        self.issues: dict[str, dict[str, Any]] = {}
        self.statuses = dict(STATUSES)
        self.clauses: dict[str, Callable[[dict[str, Any]], bool]] = {}
        self.unloadable: set[str] = set()
        self.comments: list[Any] = []
        self.page_size = 100
        self.projects: dict[str, str] = {}
        """Keys of projects, and the keys that these have now."""
        self.hidden = False
        """The token may not see the projects any more."""

    def add(
        self,
        number: int,
        *,
        state: str = "To Do",
        project: str = "EX",
        labels: tuple[str, ...] = (),
        blockers: tuple[str, ...] = (),
        **fields: Any,
    ) -> str:
        """Put an issue there; ``blockers`` are ids of issues that were added before."""
        record = payload("issue")
        record["id"] = str(10_000 + number)
        record["key"] = f"{project}-{number}"
        record["self"] = f"https://your-domain.atlassian.net/rest/api/3/issue/{record['id']}"
        template = record["fields"]["issuelinks"][0]
        links = []
        for blocker in blockers:
            link = copy.deepcopy(template)
            link["inwardIssue"] |= {"id": blocker, "key": self.issues[blocker]["key"]}
            links.append(link)
        record["fields"] |= {"summary": f"Issue {number}", "labels": list(labels), **fields}
        record["fields"]["issuelinks"] = links
        record["fields"]["project"]["key"] = project
        self.projects.setdefault(project, project)
        self.issues[record["id"]] = record
        self.set_state(record["id"], state)
        return str(record["id"])

    def set_state(self, issue_id: str, state: str) -> None:
        number, category, key, name = self.statuses[state]
        status = self.issues[issue_id]["fields"]["status"]
        status |= {"name": state, "id": number}
        status["statusCategory"] |= {"id": category, "key": key, "name": name}

    @property
    def requests(self) -> list[Request]:
        return [self._request(call) for call in self.calls]

    @staticmethod
    def _request(call: Any) -> Request:
        query = {name: values[-1] for name, values in call.query.items()}
        return Request(call.method, call.path, query, call.headers, call.json())

    def handle(self, call: Any) -> Any:
        return Reply(*self._respond(self._request(call)))

    def _respond(self, request: Request) -> tuple[int, Any]:
        credentials = b64encode(f"{self.email}:{self.token}".encode()).decode()
        if request.headers.get("authorization") != f"Basic {credentials}":
            return 401, {"errorMessages": ["You are not authenticated."], "errors": {}}
        body = request.body if isinstance(request.body, dict) else {}
        match (request.method, *request.path.removeprefix("/rest/api/3/").split("/")):
            case ("POST", "search", "jql"):
                return self._search(body)
            case ("GET", "search", "jql"):
                return self._search(dict(request.query))
            case ("POST", "issue", "bulkfetch"):
                return self._bulk(body)
            case ("POST", "jql", "match"):
                return self._match(body)
            case ("GET", "project", key, *rest) if not rest or rest == ["statuses"]:
                if key not in self.projects or self.hidden:
                    return 404, {"errorMessages": [f"No project could be found with key '{key}'."]}
                return self._project_statuses() if rest else (200, {"key": self.projects[key]})
            case ("POST", "issue", name, "comment") if self._find(name):
                self.comments.append(body)
                return 201, {"id": "10050", "body": body.get("body")}
            case ("POST", "issue", name, "transitions") if (found := self._find(name)) is not None:
                self.set_state(found["id"], body["transition"]["id"])
                return 204, None
            case ("GET", "issue", name) if (found := self._find(name)) is not None:
                return 200, self._shown(found)
            case ("GET", "myself"):
                return 200, {"accountId": "5b10a2844c20165700ede21g", "token": self.token}
            case ("POST", "issue"):
                return 201, {"id": "10099", "key": f"{body['fields']['project']['key']}-99"}
            case ("POST", "issueLink"):
                return 201, None
        return 404, {"errorMessages": ["Issue does not exist or you do not have permission."]}

    def _find(self, name: str) -> dict[str, Any] | None:
        return next((r for r in self.issues.values() if name in (r["id"], r["key"])), None)

    def _shown(self, record: dict[str, Any]) -> dict[str, Any]:
        """The record as it is sent: links show what their issues are now."""
        shown = copy.deepcopy(record)
        for link in shown["fields"].get("issuelinks") or ():
            other = self.issues.get(link.get("inwardIssue", {}).get("id"))
            if other is not None:
                status = copy.deepcopy(other["fields"]["status"])
                link["inwardIssue"]["fields"]["status"] = status
        return shown

    def _cut(self, record: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        shown = self._shown(record)
        wanted = body.get("fields") or []
        shown["fields"] = {k: v for k, v in shown["fields"].items() if k in wanted}
        return shown

    def _search(self, body: dict[str, Any]) -> tuple[int, Any]:
        strange = set(body) - _SEARCH_KEYS
        match = _QUERY.fullmatch(body.get("jql", ""))
        if strange or match is None:
            return 400, {"errorMessages": [f"Invalid request: {strange} {body.get('jql')}"]}
        asked = json.loads(f'"{match["project"]}"')
        if self.hidden:
            said = f"The value '{asked}' does not exist for the field 'project'."
            return 400, {"errorMessages": [said]}
        field = (match["field"] or "status").lower()
        states = [
            json.loads(text) for text in re.findall(r'"(?:\\.|[^"\\])*"', match["states"] or "")
        ]
        known = {s[3] for s in self.statuses.values()} if field != "status" else self.statuses
        unknown = next((state for state in states if state not in known), None)
        if unknown is not None:
            error = payload("error")
            error["errorMessages"] = [error["errorMessages"][0].replace("NAME", unknown)]
            return 400, error
        if match["rest"] and match["rest"] not in self.clauses:
            return 400, {"errorMessages": [f"Error in the JQL query: {match['rest']}"]}
        holds = self.clauses.get(match["rest"] or "", lambda record: True)
        found = [
            record
            for record in self.issues.values()
            if record["fields"]["project"]["key"] == self.projects.get(asked, asked)
            and (not states or self._state(record, field) in states)
            and holds(record)
        ]
        return 200, self._page(found, body)

    @staticmethod
    def _state(record: dict[str, Any], field: str) -> str:
        status = record["fields"]["status"]
        return str(status["name"] if field == "status" else status["statusCategory"]["name"])

    def _page(self, found: list[dict[str, Any]], body: dict[str, Any]) -> dict[str, Any]:
        start = int(body.get("nextPageToken", "page-0").removeprefix("page-"))
        end = start + min(int(body.get("maxResults", 50)), self.page_size)
        page: dict[str, Any] = payload("search_page")
        page["issues"] = [self._cut(record, body) for record in found[start:end]]
        if end < len(found):
            page |= {"isLast": False, "nextPageToken": f"page-{end}"}
        return page

    def _bulk(self, body: dict[str, Any]) -> tuple[int, Any]:
        names = body.get("issueIdsOrKeys")
        if set(body) - _BULK_KEYS or not isinstance(names, list) or not 1 <= len(names) <= 100:
            return 400, {"errorMessages": ["Between 1 and 100 issues can be fetched at once."]}
        answer = payload("bulkfetch")
        for record in self.issues.values():
            if self.hidden or (record["id"] not in names and record["key"] not in names):
                continue
            if record["id"] in self.unloadable:
                error = {"id": record["id"], "errorMessage": "The issue could not be loaded."}
                answer["issueErrors"].append(error)
            else:
                answer["issues"].append(self._cut(record, body))
        return 200, answer

    def _match(self, body: dict[str, Any]) -> tuple[int, Any]:
        if set(body) != {"issueIds", "jqls"}:
            return 400, {"errorMessages": ["Invalid request"]}
        answer = payload("match")
        (jql,) = body["jqls"]
        if jql not in self.clauses:
            answer["matches"][0]["errors"] = [f"Error in the JQL query: {jql}"]
            return 200, answer
        for number in body["issueIds"]:
            record = self.issues.get(str(number))
            if record is not None and self.clauses[jql](record):
                answer["matches"][0]["matchedIssues"].append(number)
        return 200, answer

    def _project_statuses(self) -> tuple[int, Any]:
        answer = payload("statuses")
        listed = answer[0]["statuses"]
        for name, (number, *_) in self.statuses.items():
            if name not in {status["name"] for kind in answer for status in kind["statuses"]}:
                listed.append({**copy.deepcopy(listed[0]), "name": name, "id": number})
        return 200, answer
