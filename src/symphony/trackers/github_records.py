"""GitHub's issue records as normalised issues (SPEC 11.3). Pure: decoded JSON in, issues out.

REST records are read as they are; ``from_graphql`` gives GraphQL nodes the same shape, so that one
mapping serves both.

Invariant: whatever JSON comes in, the result is a valid ``Issue`` or ``Malformed``, never another
exception.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from symphony.model.issue import (
    BlockerRef,
    Issue,
    IssueId,
    blocked_sentence,
    normalize_state,
)

from .github_settings import GitHubSettings
from .rest_records import Malformed, dig, entries, instant, integer, labels, required, string, text


@dataclass(frozen=True, slots=True)
class Extras:
    """What is known of an issue besides its record.

    Attributes:
        status: Value of the project's field; None where it has none or no project is asked.
        blocked_by: Issues that block it.
    """

    status: str | None = None
    blocked_by: tuple[BlockerRef, ...] = ()


NOTHING = Extras()


def to_issue(record: object, settings: GitHubSettings, extras: Extras = NOTHING) -> Issue:
    """Normalise one record.

    Raises:
        Malformed: A required field is missing or blank.
    """
    if not isinstance(record, Mapping):
        raise Malformed("the record is no object")
    number = number_of(record)
    names = _label_names(record)
    state = _state(required(record.get("state"), "state"), names, settings, extras)
    withheld = _withheld(record, state, settings, extras)
    return Issue(
        id=IssueId(str(number)),
        identifier=f"GH-{number}",
        title=required(record.get("title"), "title"),
        state=state,
        dispatchable=withheld is None,
        withheld=withheld,
        # REST tells null of an empty body and GraphQL an empty text.
        description=string(record.get("body")) or None,
        priority=_priority(record, names, settings),
        url=text(record.get("html_url")),
        assignee_id=text(dig(record, "assignee", "login")),
        labels=names,
        blocked_by=extras.blocked_by,
        native_ref=_native_ref(record, number, settings),
        created_at=instant(record.get("created_at")),
        updated_at=instant(record.get("updated_at")),
    )


def number_of(record: Mapping[str, Any]) -> int:
    """The issue's number.

    Raises:
        Malformed: There is none.
    """
    value = record.get("number")
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise Malformed("`number` is missing or no number")
    return value


def is_pull_request(record: Mapping[str, Any]) -> bool:
    """GitHub lists pull requests among the issues."""
    return record.get("pull_request") is not None


def blocked_by_count(record: Mapping[str, Any]) -> int | None:
    """How many open issues block this one; None where the record does not tell."""
    return integer(dig(record, "issue_dependencies_summary", "blocked_by"))


def to_blockers(records: object, settings: GitHubSettings) -> tuple[BlockerRef, ...]:
    """The issues that block another one; those of other repositories keep their full name."""
    found = []
    here = f"{settings.owner}/{settings.repo}".lower()
    for record in entries(records):
        number = integer(dig(record, "number"))
        if number is None:
            continue
        where = (text(dig(record, "repository_url")) or "").rpartition("/repos/")[2]
        own = not where or where.lower() == here
        found.append(
            BlockerRef(
                id=str(number) if own else None,
                identifier=f"GH-{number}" if own else f"{where}#{number}",
                state=text(dig(record, "state")),
            )
        )
    return tuple(found)


def from_graphql(node: Mapping[str, Any]) -> dict[str, Any]:
    """Give a GraphQL node the shape of a REST record."""
    closed = node.get("closed")
    record = {
        "id": integer(node.get("fullDatabaseId")),
        "node_id": node.get("id"),
        "number": node.get("number"),
        "title": node.get("title"),
        "body": node.get("body"),
        # The field `state` has other values for pull requests.
        "state": {True: "closed", False: "open"}[closed] if isinstance(closed, bool) else None,
        "html_url": node.get("url"),
        "created_at": node.get("createdAt"),
        "updated_at": node.get("updatedAt"),
        "labels": dig(node, "labels", "nodes"),
        "assignee": next(iter(entries(dig(node, "assignees", "nodes"))), None),
        "milestone": node.get("milestone"),
        "sub_issues_summary": node.get("subIssuesSummary"),
        "issue_dependencies_summary": {
            "blocked_by": dig(node, "issueDependenciesSummary", "blockedBy")
        },
    }
    if node.get("__typename") == "PullRequest":
        record["pull_request"] = {}
    return record


def _state(native: str, names: Sequence[str], settings: GitHubSettings, extras: Extras) -> str:
    """The state by label or project; a closed issue is ``closed`` unless that is terminal too."""
    mapped = text(extras.status)
    if mapped is None:
        mapped = next(
            (state for state, label in settings.state_labels.items() if label in names), None
        )
    if mapped is None:
        return native
    if normalize_state(native) == "closed" and normalize_state(mapped) not in settings.terminal:
        return native
    return mapped


def _withheld(
    record: Mapping[str, Any], state: str, settings: GitHubSettings, extras: Extras
) -> str | None:
    """Why it may not start: a pull request, or where it would start, what it must wait for."""
    if is_pull_request(record):
        return "a pull request"
    first = settings.active[0] if settings.active else state
    if normalize_state(state) != normalize_state(first):
        return None
    if settings.sub_issues:
        summary = record.get("sub_issues_summary")
        total, completed = (integer(dig(summary, key)) or 0 for key in ("total", "completed"))
        if completed < total:
            return f"waits for {total - completed} open sub-issues of {total}"
    over = settings.terminal | {"closed"}
    waits_for = [
        blocker
        for blocker in extras.blocked_by
        if blocker.state is None or normalize_state(blocker.state) not in over
    ]
    return blocked_sentence(waits_for) if waits_for else None


def _priority(
    record: Mapping[str, Any], names: Sequence[str], settings: GitHubSettings
) -> int | None:
    ranks = [settings.priority_labels[name] for name in names if name in settings.priority_labels]
    if ranks:
        return min(ranks)
    milestone = text(dig(record, "milestone", "title"))
    return settings.priority_milestones.get(milestone.lower()) if milestone else None


def _label_names(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of labels, which GitHub gives as objects or as texts."""
    found = entries(record.get("labels"))
    return labels(label if isinstance(label, str) else dig(label, "name") for label in found)


def _native_ref(record: Mapping[str, Any], number: int, settings: GitHubSettings) -> dict[str, Any]:
    ref = {
        "id": integer(record.get("id")),
        "node_id": text(record.get("node_id")),
        "number": number,
        "repo": f"{settings.owner}/{settings.repo}",
    }
    return {key: value for key, value in ref.items() if value is not None}
