"""GitLab's issue records as normalised issues (SPEC 11.3). Pure: decoded JSON in, issues out.

Invariant: whatever JSON comes in, the result is a valid ``Issue`` or ``Malformed``, never another
exception.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from symphony.model.issue import (
    BlockerRef,
    Issue,
    IssueId,
    blocked_sentence,
    normalize_state,
)

from .gitlab_settings import GitLabSettings
from .rest_records import Malformed, dig, entries, instant, integer, labels, required, text


def to_issue(
    record: object, settings: GitLabSettings, blocked_by: tuple[BlockerRef, ...] = ()
) -> Issue:
    """Normalise one record.

    Raises:
        Malformed: A required field is missing or blank.
    """
    if not isinstance(record, Mapping):
        raise Malformed("the record is no object")
    iid = iid_of(record)
    names = _label_names(record)
    state = _state(required(record.get("state"), "state"), names, settings)
    gated = is_gated(state, settings)
    waits_for = [blocker for blocker in blocked_by if gated and not _is_over(blocker)]
    return Issue(
        id=IssueId(str(iid)),
        identifier=f"GL-{iid}",
        title=required(record.get("title"), "title"),
        state=state,
        dispatchable=not waits_for,
        withheld=blocked_sentence(waits_for) if waits_for else None,
        description=text(record.get("description")),
        priority=_priority(record, names, settings),
        url=text(record.get("web_url")),
        assignee_id=_assignee(record),
        labels=names,
        blocked_by=blocked_by,
        native_ref=_native_ref(record, iid, settings),
        created_at=instant(record.get("created_at")),
        updated_at=instant(record.get("updated_at")),
    )


def iid_of(record: Mapping[str, Any]) -> int:
    """The issue's number within its project.

    Raises:
        Malformed: There is none.
    """
    value = record.get("iid")
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise Malformed("`iid` is missing or no number")
    return value


def is_gated(state: str, settings: GitLabSettings) -> bool:
    """Whether an issue in this state would be started: only there blockers hold it."""
    return not settings.active or normalize_state(state) == normalize_state(settings.active[0])


def to_blockers(node: object) -> tuple[BlockerRef, ...]:
    """The issues that block a GraphQL issue; those of other projects keep their full name."""
    found = []
    here = text(dig(node, "reference")) or ""
    project = here.rpartition("#")[0]
    for blocker in entries(dig(node, "blockedByIssues", "nodes")):
        iid = text(dig(blocker, "iid"))
        reference = text(dig(blocker, "reference")) or ""
        if iid is None:
            continue
        own = reference.rpartition("#")[0] == project
        found.append(
            BlockerRef(
                id=iid if own else None,
                identifier=f"GL-{iid}" if own else reference or None,
                state=text(dig(blocker, "state")),
            )
        )
    return tuple(found)


def _is_over(blocker: BlockerRef) -> bool:
    return blocker.state is not None and normalize_state(blocker.state) == "closed"


def _state(native: str, names: Sequence[str], settings: GitLabSettings) -> str:
    """The state by label; a closed issue is ``closed`` unless the label's state is terminal too."""
    mapped = next((state for state, label in settings.state_labels.items() if label in names), None)
    if settings.state_scope:
        prefix = settings.state_scope + "::"
        values = (name.removeprefix(prefix).strip() for name in names if name.startswith(prefix))
        mapped = next((value for value in values if value), None)
    if mapped is None:
        return native
    if normalize_state(native) == "closed" and normalize_state(mapped) not in settings.terminal:
        return native
    return mapped


def _priority(
    record: Mapping[str, Any], names: Sequence[str], settings: GitLabSettings
) -> int | None:
    ranks = [settings.priority_labels[name] for name in names if name in settings.priority_labels]
    if ranks:
        return min(ranks)
    weight = integer(record.get("weight"))
    return settings.priority_weights.get(str(weight)) if weight is not None else None


def _assignee(record: Mapping[str, Any]) -> str | None:
    """The first assignee's number as text, else the user name."""
    first = next(iter(entries(record.get("assignees"))), None) or record.get("assignee")
    number = integer(dig(first, "id"))
    return str(number) if number is not None else text(dig(first, "username"))


def _label_names(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of labels, which GitLab gives as texts, or as objects where details are asked for."""
    found = entries(record.get("labels"))
    return labels(label if isinstance(label, str) else dig(label, "name") for label in found)


def _native_ref(record: Mapping[str, Any], iid: int, settings: GitLabSettings) -> dict[str, Any]:
    references = record.get("references")
    ref = {
        "id": integer(record.get("id")),
        "iid": iid,
        "project_id": integer(record.get("project_id")),
        "project_path": settings.project_path,
        "references": references if _is_safe(references) else None,
    }
    return {key: value for key, value in ref.items() if value is not None}


def _is_safe(references: object) -> bool:
    """A small map of texts, such as GitLab sends."""
    try:
        return (
            isinstance(references, Mapping)
            and all(isinstance(value, str) for value in references.values())
            and len(json.dumps(references, ensure_ascii=False).encode()) < 4_096
        )
    except (TypeError, ValueError):
        return False
