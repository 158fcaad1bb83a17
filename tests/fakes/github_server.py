"""A stateful GitHub: issues, labels, comments, dependencies and a project, over REST and GraphQL.

REST requests and answers are checked by openapi-core against GitHub's own description where both
are found (``description_missing`` says why not); GraphQL is validated and executed by graphql-core
on an excerpt of GitHub's schema. What does not fit is a 599, which fails the test that caused it.
"""

from __future__ import annotations

import functools
import json
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from graphql import ExecutionResult, GraphQLError, GraphQLSchema, build_schema, parse, validate
from graphql.execution import execute
from rest_server import Fault, Reply, RestServer, moment

__all__ = ["Fault", "GitHubServer"]

TOKEN = "ghp_test"
EXCERPT = """
scalar DateTime
scalar BigInt
scalar URI
type Query {
  repository(owner: String!, name: String!, followRenames: Boolean = true): Repository
  repositoryOwner(login: String!): RepositoryOwner
}
interface RepositoryOwner { login: String! }
interface ProjectV2Owner { projectV2(number: Int!): ProjectV2 }
type Organization implements RepositoryOwner & ProjectV2Owner {
  login: String! projectV2(number: Int!): ProjectV2
}
type User implements RepositoryOwner & ProjectV2Owner {
  login: String! projectV2(number: Int!): ProjectV2
}
type Repository { nameWithOwner: String! issueOrPullRequest(number: Int!): IssueOrPullRequest }
union IssueOrPullRequest = Issue | PullRequest
type PageInfo { hasNextPage: Boolean! endCursor: String }
type Label { name: String! }
type LabelConnection { nodes: [Label] }
type Actor { login: String! }
type UserConnection { nodes: [Actor] }
type Milestone { title: String! }
type SubIssuesSummary { total: Int! completed: Int! }
type IssueDependenciesSummary { blockedBy: Int! totalBlockedBy: Int! }
type Issue {
  id: ID! fullDatabaseId: BigInt number: Int! title: String! body: String! closed: Boolean!
  url: URI! createdAt: DateTime! updatedAt: DateTime! repository: Repository!
  assignees(first: Int): UserConnection! labels(first: Int): LabelConnection milestone: Milestone
  subIssuesSummary: SubIssuesSummary!
  issueDependenciesSummary: IssueDependenciesSummary!
  projectItems(first: Int, includeArchived: Boolean = true): ProjectV2ItemConnection!
}
type PullRequest {
  id: ID! fullDatabaseId: BigInt number: Int! title: String! body: String! closed: Boolean!
  url: URI! createdAt: DateTime! updatedAt: DateTime! repository: Repository!
  assignees(first: Int): UserConnection! labels(first: Int): LabelConnection milestone: Milestone
}
type DraftIssue { title: String! }
union ProjectV2ItemContent = DraftIssue | Issue | PullRequest
type ProjectV2ItemFieldSingleSelectValue { name: String }
type ProjectV2ItemFieldTextValue { text: String }
union ProjectV2ItemFieldValue =
  ProjectV2ItemFieldSingleSelectValue | ProjectV2ItemFieldTextValue
type ProjectV2Item {
  isArchived: Boolean! project: ProjectV2! content: ProjectV2ItemContent
  fieldValueByName(name: String!): ProjectV2ItemFieldValue
}
type ProjectV2ItemConnection { nodes: [ProjectV2Item] pageInfo: PageInfo! }
type ProjectV2SingleSelectFieldOption { name: String! }
type ProjectV2SingleSelectField { options: [ProjectV2SingleSelectFieldOption!]! }
type ProjectV2Field { name: String! }
union ProjectV2FieldConfiguration = ProjectV2SingleSelectField | ProjectV2Field
type ProjectV2 {
  number: Int! owner: ProjectV2Owner! field(name: String!): ProjectV2FieldConfiguration
  items(first: Int, after: String): ProjectV2ItemConnection!
}
"""


@functools.cache
def schema() -> GraphQLSchema:
    return build_schema(EXCERPT)


@functools.cache
def description() -> tuple[Any, str | None]:
    """GitHub's REST description ready to check with, and None; or None and why there is none."""
    folder = os.environ.get("SYMPHONY_SCHEMAS")
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "schemas"
    path = (Path(folder) if folder else beside) / "github_issues.openapi.json"
    if not path.is_file():
        return None, "github_issues.openapi.json not found (SYMPHONY_SCHEMAS)"
    try:
        from openapi_core import Config, OpenAPI
    except ImportError:
        return None, "openapi-core is not installed"
    document = json.loads(path.read_text("utf-8"))
    return OpenAPI.from_dict(document, config=Config(spec_validator_cls=None)), None


_seen: set[str] = set()
_checked: set[int] = set()


@functools.cache
def _parsed(query: str) -> Any:
    """The document and what of it does not fit the schema."""
    try:
        document = parse(query)
    except GraphQLError as error:
        return None, [error]
    return document, validate(schema(), document)


def _unlike_before(payload: Any) -> Any:
    """A list without the records that differ from checked ones in nothing but digits."""
    if not isinstance(payload, list):
        return payload
    forms = {re.sub(r"\d+", "0", json.dumps(record)): record for record in payload}
    fresh = [record for form, record in forms.items() if form not in _seen]
    _seen.update(forms)
    return fresh


def user(login: str, number: int = 1) -> dict[str, Any]:
    base = f"https://api.github.com/users/{login}"
    names = ["events", "followers", "following", "gists", "organizations", "received_events"]
    names += ["repos", "starred", "subscriptions"]
    urls = {f"{name}_url": f"{base}/{name}" for name in names}
    return {
        "login": login,
        "id": number,
        "node_id": f"U_{number}",
        "avatar_url": "https://avatars.example/1",
        "gravatar_id": "",
        "url": base,
        "html_url": f"https://github.com/{login}",
        "type": "User",
        "site_admin": False,
        **urls,
    }


class GitHubServer(RestServer):
    """One repository ``octo/demo`` and one project."""

    def __init__(self) -> None:
        super().__init__()
        self.token = TOKEN
        self.issues: dict[int, dict[str, Any]] = {}
        self.deleted: set[int] = set()
        self.moved: set[int] = set()
        self.renamed_to = ""
        self.hidden = False
        """The token may not see the repository any more."""
        self.blocked_by: dict[int, list[int]] = {}
        self.comments: list[dict[str, Any]] = []
        self.statuses: dict[int, str | None] = {}
        self.archived: set[int] = set()
        self.crowded: set[int] = set()
        """Issues that are in more projects than are sent with them."""
        self.lacks: set[str] = set()
        """Fields that an older Enterprise Server does not have."""
        self.points = 5_000
        """GraphQL points that are left; each query costs one."""
        self.options = ["Todo", "In Progress", "Done"]
        self.labels: list[str] = []
        self.problems: list[str] = []
        self.described: set[str] = set()
        """The REST calls that were found to fit the description, numbers as ``{n}``."""

    def add(
        self,
        number: int,
        *,
        state: str = "open",
        labels: tuple[str, ...] = (),
        blocked_by: tuple[int, ...] = (),
        pull_request: bool = False,
        assignee: str | None = None,
        sub_issues: tuple[int, int] = (0, 0),
        **fields: Any,
    ) -> int:
        """Put an issue there; ``sub_issues`` are total and completed."""
        base = f"https://api.github.com/repos/octo/demo/issues/{number}"
        person = user(assignee, 7) if assignee else None
        total, completed = sub_issues
        record = {
            "id": 5_000_000_000 + number,
            "node_id": f"I_{number}",
            "number": number,
            "title": f"Issue {number}",
            "body": "Do it.",
            "state": state,
            # GitHub sends null for an open issue, which its own description forbids.
            "state_reason": "completed",
            "locked": False,
            "comments": 0,
            "url": base,
            "repository_url": "https://api.github.com/repos/octo/demo",
            "labels_url": base + "/labels{/name}",
            "comments_url": base + "/comments",
            "events_url": base + "/events",
            "html_url": f"https://github.com/octo/demo/issues/{number}",
            "user": user("author"),
            "assignee": person,
            "assignees": [person] if person else [],
            "labels": [self._label(name) for name in labels],
            "milestone": None,
            "author_association": "OWNER",
            "closed_at": None,
            "created_at": moment(self.now),
            "updated_at": moment(self.now),
            "sub_issues_summary": {
                "total": total,
                "completed": completed,
                "percent_completed": 100 * completed // total if total else 0,
            },
            **fields,
        }
        if pull_request:
            urls = {f"{kind}url": base for kind in ("", "html_", "diff_", "patch_")}
            record["pull_request"] = {**urls, "merged_at": None}
        self.issues[number] = record
        self.blocked_by[number] = list(blocked_by)
        self.statuses.setdefault(number, "Todo")
        return number

    def change(self, number: int, **fields: Any) -> None:
        if "labels" in fields:
            fields["labels"] = [self._label(name) for name in fields["labels"]]
        self.issues[number] |= {"updated_at": moment(self.now), **fields}

    def remove(self, number: int) -> None:
        """Delete an issue: GitHub says 410 from then on."""
        del self.issues[number]
        self.deleted.add(number)

    def transfer(self, number: int) -> None:
        """Move an issue to another repository: GitHub redirects to it."""
        del self.issues[number]
        self.moved.add(number)

    def _label(self, name: str) -> dict[str, Any]:
        if name not in self.labels:
            self.labels.append(name)
        url = "https://api.github.com/repos/octo/demo/labels/x"
        return {
            "id": self.labels.index(name) + 1,
            "node_id": "L_1",
            "url": url,
            "name": name,
            "color": "ffffff",
            "default": False,
            "description": None,
        }

    def handle(self, call: Any) -> Any:
        if call.headers.get("authorization") != f"Bearer {self.token}":
            return Reply(401, {"message": "Bad credentials", "status": "401"})
        segments = call.segments
        if call.path == "/graphql":
            return self._graphql(call.json())
        if self.hidden and segments[:1] != ["graphql"]:
            return Reply(404, {"message": "Not Found", "status": "404"})
        if self.renamed_to and segments[:3] == ["repos", "octo", "demo"]:
            rest_of = "/".join(segments[3:])
            query = urlsplit(call.target).query
            location = f"{self.url}/repositories/1/{rest_of}" + (f"?{query}" if query else "")
            return Reply(301, {"message": "Moved Permanently"}, {"Location": location})
        if segments[0] == "repositories":
            segments = ["repos", "octo", "demo", *segments[2:]]
        if segments[:3] != ["repos", "octo", "demo"]:
            return Reply(404, {"message": "Not Found", "status": "404"})
        return self._repository(call, segments[3:])

    def _repository(self, call: Any, rest_of: list[str]) -> Any:
        match call.method, rest_of:
            case "GET", ["issues"]:
                return self._list(call)
            case "GET", ["labels"]:
                return self._paged(call, [self._label(name) for name in self.labels])
            case "GET" | "PATCH", ["issues", number]:
                return self._single(call, int(number))
            case "GET", ["issues", number, "dependencies", "blocked_by"]:
                blockers = [self._shown(n) for n in self.blocked_by.get(int(number), [])]
                return self._paged(call, blockers)
            case "POST", ["issues", number, "comments"] if int(number) in self.issues:
                self.comments.append({"number": int(number), **call.json()})
                return self._comment(int(number), call.json()["body"])
        return Reply(404, {"message": "Not Found", "status": "404"})

    def _single(self, call: Any, number: int) -> Any:
        if number in self.deleted:
            return Reply(410, {"message": "This issue was deleted", "status": "410"})
        if number in self.moved:
            target = {"Location": f"{self.url}/repositories/2/issues/{number}"}
            return Reply(301, {"message": "Moved Permanently", "url": self.url}, target)
        if number not in self.issues:
            return Reply(404, {"message": "Not Found", "status": "404"})
        if call.method == "PATCH":
            self.change(number, **call.json())
        return Reply(200, self._shown(number))

    def _comment(self, number: int, body: str) -> Any:
        base = f"https://api.github.com/repos/octo/demo/issues/comments/{len(self.comments)}"
        when = moment(self.now)
        return Reply(
            201,
            {
                "id": len(self.comments),
                "node_id": "IC_1",
                "url": base,
                "html_url": base,
                "issue_url": self.issues[number]["url"],
                "body": body,
                "user": user("symphony"),
                "author_association": "OWNER",
                "created_at": when,
                "updated_at": when,
            },
        )

    def _shown(self, number: int) -> dict[str, Any]:
        return {**self.issues[number], "issue_dependencies_summary": self.dependencies(number)}

    def dependencies(self, number: int) -> dict[str, int]:
        """How many issues block this one, and how many of them are open."""
        blockers = self.blocked_by.get(number, [])
        still = sum(self.issues[b]["state"] == "open" for b in blockers if b in self.issues)
        summary = {"blocked_by": still, "blocking": 0, "total_blocked_by": len(blockers)}
        return {**summary, "total_blocking": 0}

    def _list(self, call: Any) -> Any:
        state, since = call.one("state", "open"), call.one("since")
        records = [
            self._shown(number)
            for number, record in self.issues.items()
            if state in ("all", record["state"]) and record["updated_at"] >= since
        ]
        key = {"created": "created_at", "updated": "updated_at"}[call.one("sort", "created")]
        records.sort(key=lambda record: (record[key], record["number"]))
        if call.one("direction", "desc") == "desc":
            records.reverse()
        return self._paged(call, records)

    def _paged(self, call: Any, records: list[Any]) -> Any:
        size, number = int(call.one("per_page", "30")), int(call.one("page", "1"))
        page = records[(number - 1) * size : number * size]
        headers = {}
        if len(records) > size:
            last = -(-len(records) // size)
            links = {"next": number + 1 if number < last else 0, "last": last}
            texts = [f'<{self.url}/x?page={n}>; rel="{rel}"' for rel, n in links.items() if n]
            headers["Link"] = ", ".join(texts)
        return Reply(200, page, headers)

    def check(self, call: Any, reply: Any) -> None:
        api, missing = description()
        # The description is an excerpt, and says nothing of 301 bodies and of missing tokens.
        described = call.path.startswith("/repos/octo/demo/")
        if missing or not described or reply.status in (301, 401):
            return
        self.described.add(re.sub(r"\d+", "{n}", f"{call.method} {call.path}"))
        form = hash((call.method, call.target, call.body, reply.status, json.dumps(reply.payload)))
        if form in _checked:
            return
        _checked.add(form)
        from openapi_core.testing import MockRequest, MockResponse

        request = MockRequest(
            "https://api.github.com",
            call.method.lower(),
            call.path,
            args=dict(parse_qsl(urlsplit(call.target).query)),
            headers=call.headers,
            data=call.body or None,
        )
        body = json.dumps(_unlike_before(reply.payload)).encode()
        response = MockResponse(
            data=body, status_code=reply.status, content_type="application/json"
        )
        try:
            api.validate_request(request)
            api.validate_response(request, response)
        except Exception as error:
            cause = error.__cause__ or error
            detail = getattr(cause, "schema_errors", None) or [cause]
            self.problems.append(f"{call.method} {call.target}: {[str(d)[:300] for d in detail]}")
            reply.status, reply.payload = 599, {"message": self.problems[-1]}

    def _graphql(self, payload: dict[str, Any]) -> Any:
        reply = self._queried(payload)
        self.points = max(0, self.points - 1)
        reset = str(int(self.now.timestamp()) + 600)
        headers = {"Limit": "5000", "Remaining": str(self.points), "Reset": reset}
        headers["Resource"] = "graphql"
        reply.headers |= {f"X-RateLimit-{name}": value for name, value in headers.items()}
        return reply

    def _queried(self, payload: dict[str, Any]) -> Any:
        if self.points == 0:
            error = {"type": "RATE_LIMITED", "message": "API rate limit already exceeded"}
            return Reply(200, {"errors": [error]})
        lacking = [name for name in sorted(self.lacks) if name in payload["query"]]
        if lacking:
            return Reply(200, {"errors": [_undefined(name) for name in lacking]})
        document, problems = _parsed(payload["query"])
        if problems:
            self.problems += [problem.message for problem in problems]
            return Reply(200, {"errors": [{"message": p.message} for p in problems]})
        result = execute(
            schema(), document, root_value=_Root(self), variable_values=payload["variables"]
        )
        assert isinstance(result, ExecutionResult)
        # An error without a path is of the variables: nothing was executed.
        self.problems += [error.message for error in result.errors or () if error.path is None]
        answer: dict[str, Any] = {"data": result.data}
        if result.errors:
            answer["errors"] = [
                {
                    "type": (error.extensions or {}).get("type", "INTERNAL"),
                    "path": error.path,
                    "message": error.message,
                }
                for error in result.errors
            ]
        return Reply(200, answer)


class _Root:
    """Resolvers; graphql-core calls attributes with (info, **arguments)."""

    def __init__(self, server: GitHubServer) -> None:
        self._server = server

    def repository(self, info: Any, owner: str, name: str, followRenames: bool = True) -> Any:
        if (owner, name) != ("octo", "demo") or self._server.hidden:
            raise GraphQLError("Could not resolve to a Repository", extensions=NOT_FOUND)
        return _Repository(self._server)

    def repositoryOwner(self, info: Any, login: str) -> Any:
        if login != "octo":
            return None
        return {"__typename": "Organization", "login": login, "projectV2": self._project}

    def _project(self, info: Any, number: int) -> Any:
        return _project(self._server) if number == 3 else None


NOT_FOUND = {"type": "NOT_FOUND"}


def _undefined(name: str) -> dict[str, Any]:
    return {
        "path": ["fragment SymphonyIssue", name],
        "extensions": {"code": "undefinedField", "typeName": "Issue", "fieldName": name},
        "locations": [{"line": 1, "column": 1}],
        "message": f"Field '{name}' doesn't exist on type 'Issue'",
    }


class _Repository:
    def __init__(self, server: GitHubServer) -> None:
        self._server = server
        self.nameWithOwner = server.renamed_to or "octo/demo"

    def issueOrPullRequest(self, info: Any, number: int) -> Any:
        if number not in self._server.issues:
            raise GraphQLError(f"Could not resolve to number of {number}.", extensions=NOT_FOUND)
        return _issue(self._server, number)


def _issue(server: GitHubServer, number: int) -> dict[str, Any]:
    record = server.issues[number]
    summary = record.get("sub_issues_summary", {"total": 0, "completed": 0})
    dependencies = server.dependencies(number)
    return {
        "__typename": "PullRequest" if "pull_request" in record else "Issue",
        "id": record["node_id"],
        "fullDatabaseId": str(record["id"]),
        "number": number,
        "title": record["title"],
        "body": record["body"] or "",
        "closed": record["state"] == "closed",
        "url": record["html_url"],
        "createdAt": record["created_at"],
        "updatedAt": record["updated_at"],
        "repository": {"nameWithOwner": server.renamed_to or "octo/demo"},
        "assignees": {"nodes": [{"login": a["login"]} for a in record["assignees"]]},
        "labels": {"nodes": [{"name": label["name"]} for label in record["labels"]]},
        "milestone": record["milestone"],
        "subIssuesSummary": {"total": summary["total"], "completed": summary["completed"]},
        "issueDependenciesSummary": {
            "blockedBy": dependencies["blocked_by"],
            "totalBlockedBy": dependencies["total_blocked_by"],
        },
        "projectItems": lambda info, **_: (
            {
                "nodes": [_item(server, number)] if number in server.statuses else [],
                "pageInfo": {"hasNextPage": number in server.crowded},
            }
        ),
    }


def _item(server: GitHubServer, number: int) -> dict[str, Any]:
    status = server.statuses[number]
    value = {"__typename": "ProjectV2ItemFieldSingleSelectValue", "name": status}
    return {
        "isArchived": number in server.archived,
        "project": lambda info: _project(server),
        "content": lambda info: _issue(server, number),
        "fieldValueByName": lambda info, name: value if name == "Status" and status else None,
    }


def _project(server: GitHubServer) -> dict[str, Any]:
    def items(info: Any, first: int, after: str | None = None) -> dict[str, Any]:
        numbers = [number for number in server.statuses if number in server.issues]
        start = int(after or 0)
        end = start + first
        page = {"hasNextPage": end < len(numbers), "endCursor": str(end)}
        return {"nodes": [_item(server, n) for n in numbers[start:end]], "pageInfo": page}

    def field(info: Any, name: str) -> dict[str, Any]:
        if name != "Status":
            return {"__typename": "ProjectV2Field", "name": name}
        options = [{"name": option} for option in server.options]
        return {"__typename": "ProjectV2SingleSelectField", "options": options}

    owner = {"__typename": "Organization", "login": "octo"}
    return {"number": 3, "owner": owner, "items": items, "field": field}
