"""Linear's issue nodes as normalised issues (SPEC 11.3). Pure: decoded JSON in, issues out.

Invariant: whatever JSON comes in, the result is a valid ``Issue`` or ``Malformed``, never another
exception. ``linear`` fetches the nodes and completes labels and relations before.
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

from .rest_records import Malformed, dig, entries, instant, integer, labels, required, string, text


@dataclass(frozen=True, slots=True)
class Routing:
    """What decides whether an issue is ours to start.

    Attributes:
        assignee_id: Only issues of this user; None for all.
        terminal: Keys of the states in which a blocker blocks no more.
        team: Only issues of the team with this key, in lower case; None for all.
        blocked_anywhere: Whether open blockers hold an issue back in every state, not only in Todo.
        sub_issues: What holds sub-issues and their parents back (``linear_settings.SUB_ISSUES``).
        active: Keys of the active states: a parent in one of them is being worked on.
    """

    assignee_id: str | None
    terminal: frozenset[str]
    team: str | None = None
    blocked_anywhere: bool = False
    sub_issues: str = "independent"
    active: frozenset[str] = frozenset()


def to_issue(node: object, routing: Routing) -> Issue:
    """Normalise one node.

    Raises:
        Malformed: A required field is missing or blank.
    """
    if not isinstance(node, Mapping):
        raise Malformed("the record is no object")
    state = required(dig(node, "state", "name"), "state")
    blocked_by = _blockers(dig(node, "inverseRelations", "nodes"))
    if routing.sub_issues == "before_parent":
        blocked_by += _sub_issues(dig(node, "children", "nodes"))
    assignee_id = text(dig(node, "assignee", "id"))
    withheld = _withheld(node, state, assignee_id, blocked_by, routing)
    return Issue(
        id=IssueId(required(node.get("id"), "id")),
        identifier=required(node.get("identifier"), "identifier"),
        title=required(node.get("title"), "title"),
        state=state,
        dispatchable=withheld is None,
        withheld=withheld,
        description=string(node.get("description")),
        priority=integer(node.get("priority")),
        branch_name=text(node.get("branchName")),
        url=text(node.get("url")),
        assignee_id=assignee_id,
        labels=labels(dig(label, "name") for label in entries(dig(node, "labels", "nodes"))),
        blocked_by=blocked_by,
        created_at=instant(node.get("createdAt")),
        updated_at=instant(node.get("updatedAt")),
    )


def _withheld(
    node: Mapping[str, Any],
    state: str,
    assignee_id: str | None,
    blocked_by: Sequence[BlockerRef],
    routing: Routing,
) -> str | None:
    """Why an issue is not ours to start, or may not start yet; None where it may."""
    if routing.assignee_id is not None and assignee_id != routing.assignee_id:
        return f"assigned to {assignee_id or 'nobody'}, not to {routing.assignee_id}"
    team = text(dig(node, "team", "key")) or ""
    if routing.team is not None and team.lower() != routing.team:
        return f"an issue of the team {team or 'without a key'}, not of {routing.team.upper()}"
    parent = _reference(node.get("parent"))
    if parent is not None and routing.sub_issues == "never":
        return f"a sub-issue of {parent.identifier or parent.id} (sub_issues: never)"
    # An issue that was begun is not stopped by what happens around it, unless that is set.
    if not routing.blocked_anywhere and normalize_state(state) != "todo":
        return None
    open_ones = tuple(blocker for blocker in blocked_by if not _is_in(blocker, routing.terminal))
    if open_ones:
        return blocked_sentence(open_ones)
    if parent is None or routing.sub_issues != "with_parent" or _is_in(parent, routing.active):
        return None
    where = f"in state {parent.state!r}" if parent.state else "in an unknown state"
    return f"its parent {parent.identifier or parent.id} is {where}, which is not active"


def _is_in(issue: BlockerRef, states: frozenset[str]) -> bool:
    return issue.state is not None and normalize_state(issue.state) in states


def _blockers(nodes: object) -> tuple[BlockerRef, ...]:
    """The issues at the other end of inverse relations of the type ``blocks``."""
    found = []
    for node in entries(nodes):
        kind = text(dig(node, "type"))
        if kind is not None and kind.lower() == "blocks":
            found.append(_reference(dig(node, "issue")) or BlockerRef())
    return tuple(found)


def _sub_issues(nodes: object) -> tuple[BlockerRef, ...]:
    found = (_reference(node) for node in entries(nodes))
    return tuple(reference for reference in found if reference is not None)


def _reference(node: object) -> BlockerRef | None:
    """Another issue as far as it is told; None where there is none."""
    if not isinstance(node, Mapping):
        return None
    return BlockerRef(
        id=text(node.get("id")),
        identifier=text(node.get("identifier")),
        state=text(dig(node, "state", "name")),
    )
