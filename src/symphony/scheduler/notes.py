"""The one builder of notes about an issue: constant message, the same two fields first."""

from __future__ import annotations

from typing import Any

from symphony.model.issue import Issue

from .commands import Level, Note


def note(level: Level, message: str, issue: Issue, **fields: Any) -> Note:
    """Return a note that names its issue; fields without a value are left out (SPEC 13.1)."""
    named = {"issue_id": issue.id, "issue_identifier": issue.identifier}
    return Note(
        level, message, named | {name: value for name, value in fields.items() if value is not None}
    )
