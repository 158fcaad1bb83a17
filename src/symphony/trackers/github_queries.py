"""The GraphQL documents of the adapter ``github``, and the reading of their answers. Pure.

Read only: issues by number in one request, and the items of a project with their status.

Invariant: an issue counts as gone only where GitHub says NOT_FOUND of it and of nothing else; any
other error beside data fails the read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from symphony.errors import TrackerError

from .rest_records import dig, entries, text

BATCH: Final = 100
PAGE: Final = 100

YOUNG: Final = {
    "fullDatabaseId": " fullDatabaseId",
    "subIssuesSummary": " subIssuesSummary { total completed }",
    "issueDependenciesSummary": " issueDependenciesSummary { blockedBy }",
}
"""What of our documents an older Enterprise Server does not know, by field."""

_COMMON: Final = f"""
  __typename id{YOUNG["fullDatabaseId"]} number title body closed url createdAt updatedAt
  repository {{ nameWithOwner }}
  assignees(first: 1) {{ nodes {{ login }} }}
  labels(first: 100) {{ nodes {{ name }} }}
  milestone {{ title }}
"""

_FRAGMENTS: Final = (
    f"fragment SymphonyIssue on Issue {{{_COMMON} {YOUNG['subIssuesSummary']}"
    f"{YOUNG['issueDependenciesSummary']}\n}}\n"
)
_PULL: Final = f"fragment SymphonyPull on PullRequest {{{_COMMON}}}\n"

_STATUS: Final = (
    "fieldValueByName(name: $field) { ... on ProjectV2ItemFieldSingleSelectValue { name } }"
)
_ITEMS: Final = f"""
      projectItems(first: 50) {{ nodes {{
        isArchived
        project {{ number owner {{
          ... on Organization {{ login }}
          ... on User {{ login }}
        }} }}
        {_STATUS}
      }} pageInfo {{ hasNextPage }} }}
"""

PROJECT: Final = f"""
query SymphonyProject($owner: String!, $number: Int!, $field: String!, $after: String) {{
  repositoryOwner(login: $owner) {{ ... on ProjectV2Owner {{ projectV2(number: $number) {{
    items(first: {PAGE}, after: $after) {{
      pageInfo {{ hasNextPage endCursor }}
      nodes {{ isArchived {_STATUS} content {{ __typename ...SymphonyIssue }} }}
    }}
  }} }} }}
}}
{_FRAGMENTS}"""

OPTIONS: Final = """
query SymphonyStatuses($owner: String!, $number: Int!, $field: String!) {
  repositoryOwner(login: $owner) { ... on ProjectV2Owner { projectV2(number: $number) {
    field(name: $field) { ... on ProjectV2SingleSelectField { options { name } } }
  } } }
}
"""


def by_numbers(numbers: Sequence[int], *, project: bool) -> str:
    """The document that reads these issues, each under the alias ``i<number>``."""
    status = f"... on Issue {{{_ITEMS}}}" if project else ""
    aliases = "\n".join(
        f"    i{number}: issueOrPullRequest(number: {number}) "
        f"{{ ...SymphonyIssue ...SymphonyPull {status} }}"
        for number in numbers
    )
    variables = "$owner: String!, $name: String!" + (", $field: String!" if project else "")
    return (
        f"query SymphonyIssuesByNumber({variables}) {{\n"
        "  repository(owner: $owner, name: $name, followRenames: true) {\n"
        f"    nameWithOwner\n{aliases}\n  }}\n}}\n{_FRAGMENTS}{_PULL}"
    )


def found_issues(body: Mapping[str, Any], numbers: Sequence[int]) -> dict[int, Mapping[str, Any]]:
    """The issues of an answer to ``by_numbers``; those that are gone or moved away are left out.

    Raises:
        TrackerError: ``tracker_response``: an error of another kind, or an issue of which nothing
            is said.
    """
    gone: set[int] = set()
    errors = body.get("errors")
    if errors and not isinstance(errors, list):
        raise answered_with_errors(body)
    for error in entries(errors):
        path = dig(error, "path")
        if path == ["repository"] and dig(error, "type") == "NOT_FOUND":
            raise _unknown_repository()
        alias = path[1] if isinstance(path, list) and len(path) == 2 else None
        number = next((n for n in numbers if alias == f"i{n}"), None)
        if number is None or path[0] != "repository":
            raise answered_with_errors(body)
        if dig(error, "type") != "NOT_FOUND":
            raise answered_with_errors(body, of_one_issue=True)
        gone.add(number)
    repository = dig(body, "data", "repository")
    here = text(dig(repository, "nameWithOwner"))
    if here is None:
        raise unknown_payload("it has no `repository`")
    found: dict[int, Mapping[str, Any]] = {}
    for number in numbers:
        node = dig(repository, f"i{number}")
        if isinstance(node, Mapping):
            if (text(dig(node, "repository", "nameWithOwner")) or here) == here:
                found[number] = node
        elif number not in gone:
            # An issue that is missing counts as gone and its agent is stopped: better be sure.
            raise unknown_payload(f"nothing is said of issue {number}")
    return found


def _unknown_repository() -> TrackerError:
    return TrackerError(
        "tracker_response",
        "GitHub shows no such repository: check tracker.provider.repo, and that the token may read "
        "the issues of that repository",
        code="github_graphql_errors",
    )


def project_status(node: Mapping[str, Any], owner: str, number: int) -> tuple[bool, str | None]:
    """Whether an issue is in the project, and the value of its field there.

    Raises:
        TrackerError: ``tracker_pagination``: it is in so many projects that this one may be among
            those that were not sent.
    """
    for item in entries(dig(node, "projectItems", "nodes")):
        login = text(dig(item, "project", "owner", "login")) or ""
        same = dig(item, "project", "number") == number and login.lower() == owner.lower()
        if same and dig(item, "isArchived") is not True:
            return True, text(dig(item, "fieldValueByName", "name"))
    if dig(node, "projectItems", "pageInfo", "hasNextPage") is True:
        raise TrackerError(
            "tracker_pagination",
            f"GitHub's answer is cut: issue {node.get('number')} is in more than 50 projects; take "
            "it out of some, or leave out tracker.provider.project",
            code="github_cut_projects",
        )
    return False, None


def data_of(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The data of an answer without errors.

    Raises:
        TrackerError: ``tracker_response``.
    """
    if body.get("errors"):
        raise answered_with_errors(body)
    data = body.get("data")
    if not isinstance(data, Mapping):
        raise unknown_payload("it has no `data`")
    return data


def answered_with_errors(body: Mapping[str, Any], *, of_one_issue: bool = False) -> TrackerError:
    """The error of an answer with errors that are no NOT_FOUND of an issue."""
    errors = body["errors"] if isinstance(body["errors"], list) else [body["errors"]]
    said = [str(dig(error, "message") or "no message")[:200] for error in errors]
    return TrackerError(
        "tracker_response",
        f"GitHub answered with errors: {'; '.join(said[:3])}",
        code="github_graphql_errors",
        of_one_issue=of_one_issue,
    )


def unknown_fields(body: object) -> frozenset[str]:
    """Fields that this server does not have, where they are all that it complains of."""
    errors = entries(dig(body, "errors"))
    named = {text(dig(error, "extensions", "fieldName")) for error in errors}
    codes = {dig(error, "extensions", "code") for error in errors}
    lacks = frozenset(name for name in named if name in YOUNG)
    return lacks if lacks == named and codes == {"undefinedField"} else frozenset()


def without(document: str, fields: Collection[str]) -> str:
    """The document with these of the ``YOUNG`` fields taken out."""
    for name in fields:
        document = document.replace(YOUNG[name], "")
    return document


def is_rate_limited(body: object) -> bool:
    """GraphQL tells of a used-up limit in an error of an answer with status 200."""
    found = entries(dig(body, "errors"))
    return any(dig(error, "type") in ("RATE_LIMITED", "RATE_LIMIT") for error in found)


def unknown_payload(what: str, *, of_one_issue: bool = False) -> TrackerError:
    """The error of an answer that can't be read."""
    return TrackerError(
        "tracker_response",
        f"GitHub's answer can't be read: {what}",
        code="github_unknown_payload",
        of_one_issue=of_one_issue,
    )
