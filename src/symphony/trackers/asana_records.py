"""Asana's tasks as normalised issues (SPEC 11.3). Pure: decoded JSON in, issues out.

A task's state is its section in the configured project; a completed task is in a terminal state
wherever it lies. ``asana_reads`` fetches the records.

Invariant: whatever JSON comes in, the result is a valid ``Issue`` or ``Malformed``, never another
exception.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from symphony.model.issue import (
    BlockerRef,
    Issue,
    IssueId,
    blocked_sentence,
    normalize_state,
)

from .asana_settings import AsanaSettings
from .rest_records import Malformed, dig, entries, instant, integer, labels, required, string, text

_FIELDS: Final = (
    "name",
    "notes",
    "completed",
    "resource_subtype",
    "assignee",
    "tags.name",
    "memberships.project",
    "memberships.section",
    "memberships.section.name",
    "permalink_url",
    "created_at",
    "modified_at",
)
_PRIORITY_FIELDS: Final = (
    "custom_fields.name",
    "custom_fields.enum_value.name",
    "custom_fields.number_value",
)


def fields(settings: AsanaSettings) -> list[str]:
    """The ``opt_fields`` that these settings need; ids come with every object."""
    found = list(_FIELDS)
    if settings.dependencies:
        found.append("dependencies")
    if settings.priority_field is not None:
        found += _PRIORITY_FIELDS
    return found


def is_outside(task: object, settings: AsanaSettings) -> bool:
    """Whether a task is well-formed and not of the project."""
    memberships = dig(task, "memberships")
    return (
        text(dig(task, "gid")) is not None
        and text(dig(task, "name")) is not None
        and isinstance(memberships, list)
        and _membership(task, settings) is None
    )


def dependency_gids(task: object) -> list[str]:
    """The tasks that this one waits for."""
    gids = (text(dig(entry, "gid")) for entry in entries(dig(task, "dependencies")))
    return list(dict.fromkeys(gid for gid in gids if gid is not None))


def to_issue(
    task: object, settings: AsanaSettings, others: Mapping[str, object] | None = None
) -> Issue:
    """Normalise one task.

    Args:
        task: The record.
        settings: The adapter's settings.
        others: Records of the tasks that it may wait for, by gid.

    Raises:
        Malformed: A required field is missing or blank, or the task is not of the project.
    """
    if not isinstance(task, Mapping):
        raise Malformed("the record is no object")
    gid = required(task.get("gid"), "gid")
    membership = _membership(task, settings)
    state = _state(task, membership, settings)
    blocked_by = tuple(
        _blocker(other, (others or {}).get(other), settings)
        for other in (dependency_gids(task) if settings.dependencies else ())
    )
    withheld = _withheld(task, state, blocked_by, settings)
    return Issue(
        id=IssueId(gid),
        identifier=f"ASANA-{gid}",
        title=required(task.get("name"), "name"),
        state=state,
        dispatchable=withheld is None,
        withheld=withheld,
        description=text(task.get("notes")),
        priority=_priority(task.get("custom_fields"), settings),
        url=text(task.get("permalink_url")),
        assignee_id=text(dig(task, "assignee", "gid")),
        labels=labels(dig(tag, "name") for tag in entries(task.get("tags"))),
        blocked_by=blocked_by,
        native_ref=_native_ref(gid, membership, settings),
        created_at=instant(task.get("created_at")),
        updated_at=instant(task.get("modified_at")),
    )


def _withheld(
    task: Mapping[str, Any], state: str, blocked_by: Sequence[BlockerRef], settings: AsanaSettings
) -> str | None:
    """Why it may not start: no task, no open one, or what it must wait for where it would start."""
    if task.get("resource_subtype") == "section":
        return "a section, no task"
    if task.get("completed") is not False:
        return "completed" if task.get("completed") is True else "not known to be open"
    waits_for = [
        blocker
        for blocker in blocked_by
        if blocker.state is None or normalize_state(blocker.state) not in settings.terminal_keys
    ]
    held = _is_waiting(state, settings) and waits_for
    return blocked_sentence(waits_for) if held else None


def _membership(task: object, settings: AsanaSettings) -> object | None:
    for membership in entries(dig(task, "memberships")):
        if dig(membership, "project", "gid") == settings.project_gid:
            return membership if isinstance(membership, Mapping) else None
    return None


def _state(task: object, membership: object, settings: AsanaSettings) -> str:
    section = required(dig(membership, "section", "name"), "section")
    return _settled(section, dig(task, "completed"), settings)


def _settled(section: str, completed: object, settings: AsanaSettings) -> str:
    """The section, or a terminal state for a task that is completed elsewhere."""
    done = completed is True and normalize_state(section) not in settings.terminal_keys
    return settings.completed_state or section if done else section


def _is_waiting(state: str, settings: AsanaSettings) -> bool:
    """Whether a task in this state has not been begun: the first active state."""
    active = [normalize_state(name) for name in settings.active]
    return not active or normalize_state(state) == active[0]


def _blocker(gid: str, task: object, settings: AsanaSettings) -> BlockerRef:
    """A task that is waited for; one that can't be read has no state and keeps blocking."""
    section = text(dig(_membership(task, settings), "section", "name"))
    if section is None:
        section = text(dig(next(iter(entries(dig(task, "memberships"))), None), "section", "name"))
    completed = dig(task, "completed")
    state = None
    if section is not None:
        state = _settled(section, completed, settings)
    elif completed is True:
        state = settings.completed_state
    return BlockerRef(id=gid, identifier=f"ASANA-{gid}", state=state)


def _priority(custom_fields: object, settings: AsanaSettings) -> int | None:
    wanted = settings.priority_field
    if wanted is None:
        return None
    for entry in entries(custom_fields):
        name, gid = text(dig(entry, "name")), dig(entry, "gid")
        if gid != wanted and (name is None or name.lower() != wanted.lower()):
            continue
        option = text(dig(entry, "enum_value", "name"))
        if option is not None:
            return settings.priorities.get(option.lower())
        return integer(dig(entry, "number_value"))
    return None


def _native_ref(gid: str, membership: object, settings: AsanaSettings) -> dict[str, Any]:
    section = string(dig(membership, "section", "gid"))
    ref = {"task_gid": gid, "project_gid": settings.project_gid, "section_gid": section}
    return {key: value for key, value in ref.items() if value is not None}
