"""The normalised issue (SPEC 4.1.1) and how states compare (SPEC 4.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NewType

IssueId = NewType("IssueId", str)
"""Opaque dispatch identity within the tracker's scope; the key of every map of issues."""


def normalize_state(name: str) -> str:
    """Return the form in which state names compare: trimmed and lower case (SPEC 4.2)."""
    return name.strip().lower()


@dataclass(frozen=True, slots=True)
class BlockerRef:
    """An issue that blocks another one, as far as the tracker tells (SPEC 4.1.1)."""

    id: str | None = None
    identifier: str | None = None
    state: str | None = None


def blocked_sentence(blockers: Sequence[BlockerRef]) -> str:
    """Say who blocks an issue, with what is known of each: ``blocked by A-1 (Todo)``."""
    named = [
        f"{ref.identifier or ref.id or 'an issue that is not shown'}"
        + (f" ({ref.state})" if ref.state else "")
        for ref in blockers
    ]
    more = f" and {len(named) - 5} more" if len(named) > 5 else ""
    return f"blocked by {', '.join(named[:5])}{more}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """A schedulable work item as every tracker adapter returns it.

    ``id``, ``identifier``, ``title`` and ``state`` are non-empty. ``labels`` are trimmed, lower
    case and unique. ``dispatchable`` is the adapter's own verdict; the scheduler adds states,
    labels, claims and slots. ``withheld`` says why it is false, in a few words for a person, or is
    None. ``native_ref`` holds the provider's ids for tools, never a secret.
    """

    id: IssueId
    identifier: str
    title: str
    state: str
    dispatchable: bool
    description: str | None = None
    priority: int | None = None
    branch_name: str | None = None
    url: str | None = None
    assignee_id: str | None = None
    labels: tuple[str, ...] = ()
    blocked_by: tuple[BlockerRef, ...] = ()
    native_ref: Mapping[str, Any] | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    withheld: str | None = None

    @property
    def state_key(self) -> str:
        """The state in the form in which states compare."""
        return normalize_state(self.state)
