"""A stateful Linear on a real loopback socket, for tests.

Every request is validated and executed by graphql-core, on Linear's own schema where that file is
found (environment SYMPHONY_SCHEMAS, or ../shared/schemas beside the repository) and otherwise on
the excerpt below, so a field that Linear does not have fails the test. A fault's ``only`` is looked
for in the document.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphql import ExecutionResult, GraphQLError, GraphQLSchema, build_schema, parse, validate
from graphql.execution import execute
from graphql.language import DocumentNode
from rest_server import Call, Fault, Reply, RestServer

__all__ = ["Fault", "LinearServer"]

EXCERPT = """
scalar DateTime
type Query {
  projects(filter: ProjectFilter, first: Int): ProjectConnection!
  project(id: String!): Project!
  team(id: String!): Team!
  projectMilestone(id: String!): ProjectMilestone!
  comment(id: String, hash: String): Comment!
  attachment(id: String!): Attachment!
  issueRelation(id: String!): IssueRelation!
  issues(
    filter: IssueFilter, first: Int, after: String, includeArchived: Boolean
  ): IssueConnection!
  issue(id: String!): Issue!
  viewer: User!
  users(filter: UserFilter, first: Int): UserConnection!
}
input UserFilter { id: IDComparator }
input IDComparator { eq: ID }
type UserConnection { nodes: [User!]! }
type Mutation {
  issueUpdate(id: String!, input: IssueUpdateInput!): IssuePayload!
  commentCreate(input: CommentCreateInput!): CommentPayload!
  commentDelete(id: String!): DeletePayload!
}
type DeletePayload { success: Boolean! entityId: String! }
input ProjectFilter { slugId: StringComparator }
type ProjectConnection { nodes: [Project!]! }
type Project { id: ID! name: String! slugId: String! teams(first: Int): TeamConnection! }
type ProjectMilestone { id: ID! project: Project! }
type Attachment { id: ID! issue: Issue! }
type WorkflowStateConnection { nodes: [WorkflowState!]! }
type TeamConnection { nodes: [Team!]! }
type Team {
  id: ID!
  key: String!
  name: String!
  states(first: Int): WorkflowStateConnection!
}
input IssueFilter {
  id: IssueIDComparator
  project: NullableProjectFilter
  state: WorkflowStateFilter
  number: NumberComparator
  team: TeamFilter
}
input NumberComparator { eq: Float }
input TeamFilter { key: StringComparator }
input IssueIDComparator { in: [ID!] }
input NullableProjectFilter { slugId: StringComparator }
input WorkflowStateFilter { name: StringComparator }
input StringComparator { eq: String in: [String!] }
input IssueUpdateInput {
  stateId: String
  projectId: String
  projectMilestoneId: String
  teamId: String
}
input CommentCreateInput { issueId: String body: String }
type IssuePayload { success: Boolean! issue: Issue }
type CommentPayload { success: Boolean! comment: Comment! }
type Comment { id: ID! body: String! issue: Issue }
type CommentConnection { nodes: [Comment!]! pageInfo: PageInfo! }
type User { id: ID! name: String! }
type PageInfo { hasNextPage: Boolean! endCursor: String }
type IssueConnection { nodes: [Issue!]! pageInfo: PageInfo! }
type WorkflowState { id: ID! name: String! }
type IssueLabel { name: String! }
type IssueLabelConnection { nodes: [IssueLabel!]! pageInfo: PageInfo! }
type IssueRelation { type: String! issue: Issue! relatedIssue: Issue! }
type IssueRelationConnection { nodes: [IssueRelation!]! pageInfo: PageInfo! }
type Issue {
  id: ID!
  identifier: String!
  title: String!
  description: String
  priority: Float!
  state: WorkflowState!
  project: Project
  team: Team!
  comments(first: Int, after: String): CommentConnection!
  branchName: String!
  url: String!
  assignee: User
  labelIds: [String!]!
  labels(first: Int, after: String): IssueLabelConnection!
  inverseRelations(first: Int, after: String): IssueRelationConnection!
  parent: Issue
  children(first: Int, after: String): IssueConnection!
  createdAt: DateTime!
  updatedAt: DateTime!
  archivedAt: DateTime
}
"""


STATE_NAMES = ("Backlog", "Todo", "In Progress", "In Review", "Done", "Canceled", "Duplicate")
"""Workflow states of every team."""


def schema_path() -> Path | None:
    """Where Linear's published schema lies, or None."""
    folder = os.environ.get("SYMPHONY_SCHEMAS")
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "schemas"
    path = (Path(folder) if folder else beside) / "linear.graphql"
    return path if path.is_file() else None


@functools.cache
def schema() -> GraphQLSchema:
    path = schema_path()
    return build_schema(path.read_text("utf-8") if path else EXCERPT)


@functools.lru_cache(maxsize=256)
def checked(query: str) -> tuple[DocumentNode, list[GraphQLError]]:
    """The document and what of it does not fit the schema; the same few come again and again."""
    document = parse(query)
    return document, validate(schema(), document)


@dataclass
class Request:
    operation: str
    query: str
    variables: dict[str, Any]
    headers: dict[str, str]


class LinearServer(RestServer):
    """Issues of projects, behind ``endpoint``."""

    def __init__(self, *, token: str = "lin_api_test", viewer_id: str = "user-1") -> None:
        super().__init__()
        self.token = token
        self.viewer_id = viewer_id
        self.issues: dict[str, dict[str, Any]] = {}
        self.comments: dict[str, dict[str, Any]] = {}
        self.attachments: dict[str, str] = {}
        self.label_names: dict[str, str] = {}
        """Labels that were renamed: their names of now by those of old, which are their ids."""
        self.teams: dict[str, list[str]] = {"demo": ["DEMO"]}
        self.hidden = False
        """The token may not see the project any more."""
        self.problems: list[str] = []
        """What of the adapter's own documents does not fit the schema; an agent's may be wrong."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}/graphql"

    def add(
        self,
        number: int,
        *,
        state: str = "Todo",
        project: str | None = "demo",
        team: str = "DEMO",
        labels: tuple[str, ...] = (),
        blockers: tuple[str, ...] = (),
        assignee: str | None = None,
        parent: str | None = None,
        **fields: Any,
    ) -> str:
        """Put an issue there; ``blockers`` and ``parent`` are ids of issues there."""
        issue_id = f"00000000-0000-4000-8000-{number:012d}"
        self.issues[issue_id] = {
            "id": issue_id,
            "identifier": f"DEMO-{number}",
            "title": f"Issue {number}",
            "description": "Do it.",
            "priority": 2,
            "state": state,
            "branchName": f"demo/{number}",
            "url": f"https://linear.example/DEMO-{number}",
            "assignee": assignee,
            "parent": parent,
            "labels": list(labels),
            "relations": [("blocks", blocker) for blocker in blockers],
            "project": project,
            "team": team,
            "createdAt": "2026-01-01T10:00:00.000Z",
            "updatedAt": "2026-01-02T10:00:00.000Z",
            **fields,
        }
        return issue_id

    def change(self, issue_id: str, **fields: Any) -> None:
        """Edit an issue as a person does: ``updatedAt`` moves, for other values only."""
        issue = self.issues[issue_id]
        if any(issue.get(key) != value for key, value in fields.items()):
            stamp = self.now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            issue.update(fields, updatedAt=stamp)

    @property
    def requests(self) -> list[Request]:
        """What was asked so far."""
        return [_request(call) for call in self.calls]

    def label(self, call: Call) -> str:
        return str(call.json()["query"])

    def handle(self, call: Call) -> Reply:
        asked = _request(call)
        return Reply(*self.run(asked.headers, asked.query, asked.variables))

    def run(
        self, headers: Mapping[str, str], query: str, variables: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        """Validate and execute; Linear answers 400 to what does not fit its schema."""
        if headers.get("authorization") != self.token:
            return 401, {"errors": [{"message": "Authentication required"}]}
        try:
            document, problems = checked(query)
        except GraphQLError as error:
            return 400, {"errors": [{"message": error.message}]}
        if problems:
            self._note(query, problems)
            return 400, {"errors": [{"message": problem.message} for problem in problems]}
        result = execute(schema(), document, root_value=_Root(self), variable_values=variables)
        assert isinstance(result, ExecutionResult)
        # An error without a path is of the variables: nothing was executed.
        self._note(query, [error for error in result.errors or () if error.path is None])
        answer: dict[str, Any] = {"data": result.data}
        if result.errors:
            answer["errors"] = [{"message": error.message} for error in result.errors]
        return 200, answer

    def _note(self, query: str, problems: Sequence[GraphQLError]) -> None:
        if "Symphony" in query:
            self.problems += [f"{problem.message} in {query}" for problem in problems]


def _request(call: Call) -> Request:
    payload = call.json()
    query, variables = payload["query"], payload.get("variables") or {}
    words = query.replace("(", " ").replace("{", " ").split()
    return Request(words[1] if len(words) > 1 else "", query, variables, call.headers)


class _Root:
    """Resolvers of Query and Mutation; graphql-core calls attributes with (info, **arguments)."""

    def __init__(self, server: LinearServer) -> None:
        self._server = server

    def issues(
        self,
        info: Any,
        filter: Any = None,
        first: int = 50,
        after: Any = None,
        includeArchived: bool = False,
    ) -> Any:
        if not 1 <= first <= 250:
            raise GraphQLError("`first` must be between 1 and 250")
        wanted = filter or {}
        ids = wanted.get("id", {}).get("in")
        states = wanted.get("state", {}).get("name", {}).get("in")
        number = wanted.get("number", {}).get("eq")
        team = wanted.get("team", {}).get("key", {}).get("eq")
        slug = wanted.get("project", {}).get("slugId", {}).get("eq")
        found = [
            issue
            for issue in self._server.issues.values()
            if not self._server.hidden
            and (ids is None or issue["id"] in ids)
            and (includeArchived or not issue.get("archived"))
            and (states is None or issue["state"] in states)
            and (slug is None or issue["project"] == slug)
            and (number is None or issue["identifier"] == f"{team}-{int(number)}")
        ]
        return _page([_Issue(self._server, issue) for issue in found], first, after)

    def issue(self, info: Any, id: str) -> Any:
        return _Issue(self._server, self._server.issues[self._key(id)])

    def projects(self, info: Any, filter: Any = None, first: int = 50) -> Any:
        slug = (filter or {}).get("slugId", {}).get("eq")
        teams = () if self._server.hidden else self._server.teams
        found = [_project(self._server, name) for name in teams if slug == name]
        return {"nodes": found[:first]}

    def project(self, info: Any, id: str) -> Any:
        slug = id.removeprefix("project-")
        if slug not in self._server.teams:
            raise GraphQLError("Entity not found: Project")
        return _project(self._server, slug)

    def team(self, info: Any, id: str) -> Any:
        return _team(id.removeprefix("team-"))

    def projectMilestone(self, info: Any, id: str) -> Any:
        return {"id": id, "project": self.project(info, id.removeprefix("milestone-"))}

    def comment(self, info: Any, id: str | None = None, hash: str | None = None) -> Any:
        if id not in self._server.comments:
            raise GraphQLError("Entity not found: Comment")
        return _comment(self._server, id)

    def attachment(self, info: Any, id: str) -> Any:
        return {"id": id, "issue": self.issue(info, self._server.attachments[id])}

    def issueRelation(self, info: Any, id: str) -> Any:
        first, second = id.split("+")
        return {"issue": self.issue(info, first), "relatedIssue": self.issue(info, second)}

    def users(self, info: Any, filter: Any = None, first: int = 50) -> Any:
        wanted = (filter or {}).get("id", {}).get("eq")
        known = {self._server.viewer_id, *(i["assignee"] for i in self._server.issues.values())}
        return {"nodes": [{"id": user, "name": user} for user in known if user == wanted]}

    def viewer(self, info: Any) -> Any:
        return {"id": self._server.viewer_id, "name": "Test"}

    def issueUpdate(self, info: Any, id: str, input: dict[str, Any]) -> Any:
        issue = self._server.issues[self._key(id)]
        if "stateId" in input:
            self._server.change(issue["id"], state=input["stateId"].removeprefix("state-"))
        return {"success": True, "issue": _Issue(self._server, issue), "lastSyncId": 1.0}

    def commentCreate(self, info: Any, input: dict[str, Any]) -> Any:
        key = f"comment-{len(self._server.comments) + 1}"
        self._server.comments[key] = {**input, "issueId": self._key(input["issueId"])}
        return {"success": True, "comment": _comment(self._server, key), "lastSyncId": 1.0}

    def commentDelete(self, info: Any, id: str) -> Any:
        del self._server.comments[id]
        return {"success": True, "entityId": id, "lastSyncId": 1.0}

    def _key(self, id: str) -> str:
        id = next((k for k, issue in self._server.issues.items() if issue["identifier"] == id), id)
        if id not in self._server.issues:
            raise GraphQLError("Entity not found: Issue")
        return id


class _Issue:
    def __init__(self, server: LinearServer, record: dict[str, Any]) -> None:
        self._server = server
        self._record = record

    def __getattr__(self, name: str) -> Any:
        if name not in self._record:
            raise AttributeError(name)
        return self._record[name]

    @property
    def state(self) -> Any:
        return {"id": f"state-{self._record['state']}", "name": self._record["state"]}

    @property
    def project(self) -> Any:
        slug = self._record["project"]
        return _project(self._server, slug) if slug is not None else None

    @property
    def team(self) -> Any:
        return _team(self._record["team"])

    def comments(self, info: Any, first: int = 50, after: Any = None) -> Any:
        found = [
            _comment(self._server, key)
            for key, comment in self._server.comments.items()
            if comment["issueId"] == self._record["id"]
        ]
        return _page(found, first, after)

    @property
    def assignee(self) -> Any:
        user = self._record["assignee"]
        return {"id": user, "name": user} if user else None

    def labels(self, info: Any, first: int = 50, after: Any = None) -> Any:
        names = [self._server.label_names.get(name, name) for name in self._record["labels"]]
        return _page([{"name": name} for name in names], first, after)

    @property
    def labelIds(self) -> list[str]:
        return list(self._record["labels"])

    @property
    def archivedAt(self) -> str | None:
        return "2026-01-03T10:00:00.000Z" if self._record.get("archived") else None

    @property
    def parent(self) -> Any:
        parent = self._server.issues.get(self._record["parent"])
        return _Issue(self._server, parent) if parent is not None else None

    def children(self, info: Any, first: int = 50, after: Any = None) -> Any:
        found = [
            _Issue(self._server, issue)
            for issue in self._server.issues.values()
            if issue["parent"] == self._record["id"] and not issue.get("archived")
        ]
        return _page(found, first, after)

    def inverseRelations(self, info: Any, first: int = 50, after: Any = None) -> Any:
        relations = [
            {"type": kind, "issue": _Issue(self._server, self._server.issues[other])}
            for kind, other in self._record["relations"]
            if other in self._server.issues
        ]
        return _page(relations, first, after)


def _comment(server: LinearServer, key: str) -> dict[str, Any]:
    comment = server.comments[key]
    issue = _Issue(server, server.issues[comment["issueId"]])
    return {"id": key, "body": comment.get("body", ""), "issue": issue}


def _project(server: LinearServer, slug: str) -> dict[str, Any]:
    teams = [_team(key) for key in server.teams.get(slug, ())]
    return {"id": f"project-{slug}", "slugId": slug, "name": slug, "teams": {"nodes": teams}}


def _team(key: str) -> dict[str, Any]:
    states = [{"id": f"state-{name}", "name": name} for name in STATE_NAMES]
    return {"id": f"team-{key}", "key": key, "name": key, "states": {"nodes": states}}


def _page(entries: list[Any], first: int, after: str | None) -> dict[str, Any]:
    start = int(after.removeprefix("cursor-")) if after else 0
    end = start + first
    more = end < len(entries)
    page_info = {"hasNextPage": more, "endCursor": f"cursor-{end}" if more else None}
    return {"nodes": entries[start:end], "pageInfo": page_info}
