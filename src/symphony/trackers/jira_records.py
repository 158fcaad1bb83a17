"""Jira's issues as normalised issues (SPEC 11.3). Pure: decoded JSON in, issues out.

Invariant: whatever JSON comes in, the result is a valid ``Issue`` or ``Malformed``, never another
exception. ``jira`` fetches the records; ``jira_adf`` reads the descriptions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from symphony.model.issue import (
    BlockerRef,
    Issue,
    IssueId,
    blocked_sentence,
    normalize_state,
)

from . import jira_adf
from .jira_settings import CATEGORIES, JiraSettings
from .rest_records import Malformed, dig, entries, instant, labels, required, string, text

FIELDS: Final = (
    "summary",
    "description",
    "status",
    "labels",
    "assignee",
    "created",
    "updated",
    "project",
    "issuelinks",
)
"""What a read asks for; ``priority`` is added where priorities are mapped."""

_OFFSET: Final = re.compile(r"([+-]\d{2})(\d{2})$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How records become issues.

    Attributes:
        settings: The adapter's settings.
        terminal: Keys of the states in which a blocker blocks no more.
    """

    settings: JiraSettings
    terminal: frozenset[str] = field(default_factory=frozenset)


def fields(settings: JiraSettings) -> list[str]:
    """The fields that these settings need."""
    return [*FIELDS, *(["priority"] if settings.priorities else [])]


def project_key(record: object) -> str | None:
    """The project of a record, in the form in which keys compare; None where it has none."""
    key = text(dig(record, "fields", "project", "key"))
    return key.lower() if key is not None else None


def is_in_project(record: object, settings: JiraSettings) -> bool:
    """Whether a record belongs to the configured project."""
    return project_key(record) == settings.project_key.strip().lower()


def to_issue(record: object, reading: Reading) -> Issue:
    """Normalise one record.

    Raises:
        Malformed: A required field is missing or blank, or the project is another one.
    """
    if not isinstance(record, Mapping) or not isinstance(record.get("fields"), Mapping):
        raise Malformed("the record has no `fields`")
    settings, found = reading.settings, record["fields"]
    if not is_in_project(record, settings):
        raise Malformed("`project` is missing or another one")
    key = required(record.get("key"), "key")
    state = required(_state(found.get("status"), settings), "status")
    blocked_by = _blockers(found.get("issuelinks"), settings)
    withheld = _withheld(state, found.get("status"), blocked_by, reading)
    return Issue(
        id=IssueId(required(record.get("id"), "id")),
        identifier=key,
        title=required(found.get("summary"), "summary"),
        state=state,
        dispatchable=withheld is None,
        withheld=withheld,
        description=_description(found.get("description"), settings),
        priority=_priority(found.get("priority"), settings),
        url=f"{settings.base_url}/browse/{quote(key, safe='')}",
        assignee_id=text(dig(found, "assignee", "accountId")),
        labels=labels(entries(found.get("labels"))),
        blocked_by=blocked_by,
        created_at=_instant(found.get("created")),
        updated_at=_instant(found.get("updated")),
    )


def _state(status: object, settings: JiraSettings) -> str | None:
    """The status's name, or its category's; both as issues are compared by."""
    if not settings.by_category:
        return string(dig(status, "name"))
    key = text(dig(status, "statusCategory", "key"))
    return CATEGORIES.get(key.lower()) if key is not None else None


def _withheld(
    state: str, status: object, blocked_by: Sequence[BlockerRef], reading: Reading
) -> str | None:
    """An issue that nobody began waits for its blockers; an unknown state of one blocks."""
    category = text(dig(status, "statusCategory", "key"))
    if category is not None:
        gated = category.lower() == "new"
    else:
        gated = normalize_state(state) in ("todo", "to do")
    waits_for = [
        blocker
        for blocker in blocked_by
        if blocker.state is None or normalize_state(blocker.state) not in reading.terminal
    ]
    return blocked_sentence(waits_for) if gated and waits_for else None


def _blockers(links: object, settings: JiraSettings) -> tuple[BlockerRef, ...]:
    """The issues at the inward end of links of the type ``Blocks``."""
    found = []
    for link in entries(links):
        kind, other = text(dig(link, "type", "name")), dig(link, "inwardIssue")
        if kind is None or kind.lower() != "blocks" or not isinstance(other, Mapping):
            continue
        state = text(_state(dig(other, "fields", "status"), settings))
        found.append(
            BlockerRef(id=text(other.get("id")), identifier=text(other.get("key")), state=state)
        )
    return tuple(found)


def _description(value: object, settings: JiraSettings) -> str | None:
    if isinstance(value, Mapping):
        value = jira_adf.to_markdown(value) if settings.markdown else jira_adf.to_text(value)
    return text(value)


def _priority(value: object, settings: JiraSettings) -> int | None:
    name = text(dig(value, "name"))
    return settings.priorities.get(name.lower()) if name is not None else None


def _instant(value: Any) -> datetime | None:
    """A moment whose offset Jira writes without a colon."""
    return instant(_OFFSET.sub(r"\1:\2", value)) if isinstance(value, str) else None
