"""Linear's issue nodes as normalised issues (SPEC 11.3). Pure: decoded JSON in, issues out.

Invariant: whatever JSON comes in, the result is a valid ``Issue`` or ``Malformed``, never another
exception. ``linear`` fetches the nodes and completes labels and relations before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from symphony.model.issue import BlockerRef, Issue, IssueId, normalize_state


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
    """

    assignee_id: str | None
    terminal: frozenset[str]
    team: str | None = None
    blocked_anywhere: bool = False


def to_issue(node: object, routing: Routing) -> Issue:
    """Normalise one node.

    Raises:
        Malformed: A required field is missing or blank.
    """
    if not isinstance(node, Mapping):
        raise Malformed("the record is no object")
    state = _required(_get(node, "state", "name"), "state")
    blocked_by = _blockers(_get(node, "inverseRelations", "nodes"))
    assignee_id = _text(_get(node, "assignee", "id"))
    return Issue(
        id=IssueId(_required(node.get("id"), "id")),
        identifier=_required(node.get("identifier"), "identifier"),
        title=_required(node.get("title"), "title"),
        state=state,
        dispatchable=_is_ours(node, assignee_id, routing) and _is_free(state, blocked_by, routing),
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


def _is_ours(node: Mapping[str, Any], assignee_id: str | None, routing: Routing) -> bool:
    if routing.assignee_id is not None and assignee_id != routing.assignee_id:
        return False
    return routing.team is None or (_text(_get(node, "team", "key")) or "").lower() == routing.team


def _is_free(state: str, blocked_by: Sequence[BlockerRef], routing: Routing) -> bool:
    """Not waiting, in Todo or by setting anywhere, for a blocker that is open or unknown."""
    waits = routing.blocked_anywhere or normalize_state(state) == "todo"
    return not waits or all(
        blocker.state is not None and normalize_state(blocker.state) in routing.terminal
        for blocker in blocked_by
    )


def _blockers(nodes: object) -> tuple[BlockerRef, ...]:
    """The issues at the other end of inverse relations of the type ``blocks``."""
    found = []
    for node in nodes if isinstance(nodes, list) else ():
        kind = _text(_get(node, "type"))
        if kind is not None and kind.lower() == "blocks":
            found.append(
                BlockerRef(
                    id=_text(_get(node, "issue", "id")),
                    identifier=_text(_get(node, "issue", "identifier")),
                    state=_text(_get(node, "issue", "state", "name")),
                )
            )
    return tuple(found)


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
