"""Linear's issue nodes as normalised issues (SPEC 11.3). Pure: decoded JSON in, issues out.

Invariant: whatever JSON comes in, the result is a valid ``Issue`` or ``Malformed``, never another
exception. ``linear`` fetches the nodes and completes labels and relations before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from symphony.model.issue import (
    BlockerRef,
    Issue,
    IssueId,
    blocked_sentence,
    normalize_state,
)


class Malformed(ValueError):
    """A node without the required fields; the message names the first one that is missing."""


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
    state = _required(_get(node, "state", "name"), "state")
    blocked_by = _blockers(_get(node, "inverseRelations", "nodes"))
    if routing.sub_issues == "before_parent":
        blocked_by += _sub_issues(_get(node, "children", "nodes"))
    assignee_id = _text(_get(node, "assignee", "id"))
    withheld = _withheld(node, state, assignee_id, blocked_by, routing)
    return Issue(
        id=IssueId(_required(node.get("id"), "id")),
        identifier=_required(node.get("identifier"), "identifier"),
        title=_required(node.get("title"), "title"),
        state=state,
        dispatchable=withheld is None,
        withheld=withheld,
        description=_string(node.get("description")),
        priority=_integer(node.get("priority")),
        branch_name=_text(node.get("branchName")),
        url=_text(node.get("url")),
        assignee_id=assignee_id,
        labels=_labels(_get(node, "labels", "nodes")),
        blocked_by=blocked_by,
        created_at=_instant(node.get("createdAt")),
        updated_at=_instant(node.get("updatedAt")),
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
    team = _text(_get(node, "team", "key")) or ""
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
    for node in nodes if isinstance(nodes, list) else ():
        kind = _text(_get(node, "type"))
        if kind is not None and kind.lower() == "blocks":
            found.append(_reference(_get(node, "issue")) or BlockerRef())
    return tuple(found)


def _sub_issues(nodes: object) -> tuple[BlockerRef, ...]:
    found = (_reference(node) for node in (nodes if isinstance(nodes, list) else ()))
    return tuple(reference for reference in found if reference is not None)


def _reference(node: object) -> BlockerRef | None:
    """Another issue as far as it is told; None where there is none."""
    if not isinstance(node, Mapping):
        return None
    return BlockerRef(
        id=_text(node.get("id")),
        identifier=_text(node.get("identifier")),
        state=_text(_get(node, "state", "name")),
    )


def _labels(nodes: object) -> tuple[str, ...]:
    names = (_text(_get(node, "name")) for node in (nodes if isinstance(nodes, list) else ()))
    return tuple(dict.fromkeys(name.lower() for name in names if name))


def _get(value: object, *path: str) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _string(value: object) -> str | None:
    """A text that UTF-8 can hold: JSON may carry half of a surrogate pair."""
    if not isinstance(value, str) or value.isascii():
        return value if isinstance(value, str) else None
    return value.encode("utf-8", "replace").decode("utf-8")


def _text(value: object) -> str | None:
    text = _string(value)
    return text.strip() or None if text is not None else None


def _required(value: object, name: str) -> str:
    text = _string(value)
    if text is None or not text.strip():
        raise Malformed(f"`{name}` is missing or blank")
    return text


def _integer(value: object) -> int | None:
    """An integer; the schema types priorities as floats, so ``2.0`` is one too."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _instant(value: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        if moment is None or moment.tzinfo is None:
            return None
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
