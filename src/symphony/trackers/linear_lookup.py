"""Whether the records that an agent's document names belong to the configured project or team.

``linear_scope`` collects the references, ``linear_tool`` has them checked here before it sends the
document. One query asks for all of them; the project and its teams are learned with the first one.

Invariant: what Linear does not show, and what it shows elsewhere, is outside.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from symphony.errors import TrackerError

from .base import ToolContext
from .linear_graph import WIDER, OutOfScope, Reference
from .linear_reads import LinearReads
from .linear_settings import LinearSettings
from .rest_records import dig, entries, text

_ISSUE: Final = "{ project { id } team { id } }"
_PROJECT: Final = "{ id teams { nodes { id } } }"
LOOK_UPS: Final = {
    "attachment": f"attachment(id: %s) {{ issue {_ISSUE} }}",
    "comment": f"comment(id: %s) {{ issue {_ISSUE} }}",
    "issue": f"issue(id: %s) {_ISSUE}",
    "milestone": f"projectMilestone(id: %s) {{ project {_PROJECT} }}",
    "project": f"project(id: %s) {_PROJECT}",
    "relation": f"issueRelation(id: %s) {{ issue {_ISSUE} relatedIssue {_ISSUE} }}",
}
"""Asks of a record of each kind where it belongs."""


@dataclass(frozen=True, slots=True)
class _Place:
    """The configured project as Linear knows it: its id, and ids and keys of its teams."""

    project_id: str
    teams: frozenset[str]


class LinearLookup:
    """The look-ups of one tracker.

    Args:
        settings: Resolved settings: project and scope.
        reads: Sends the query.
    """

    def __init__(self, settings: LinearSettings, reads: LinearReads) -> None:
        self._settings = settings
        self._reads = reads
        self._place: _Place | None = None

    async def check(self, references: Sequence[Reference], context: ToolContext) -> None:
        """Pass where all of these are in scope; the issue of the call itself is not asked for.

        Raises:
            OutOfScope: One is outside, or Linear does not show it.
            TrackerError: Linear could not be asked.
        """
        here = (context.issue.id, context.issue.identifier)
        unknown = [r for r in references if not (r.kind == "issue" and r.id in here)]
        asked = [r for r in unknown if self._is_asked(r)]
        records: Mapping[str, Any] = {}
        if asked or (unknown and self._place is None):
            records = await self._asked(asked)
        for reference in unknown:
            record = records.get(f"r{asked.index(reference)}") if reference in asked else None
            if self._place is None or not self._is_inside(reference, record, self._place):
                raise OutOfScope(
                    f"the {reference.kind} {json.dumps(reference.id[:80])} does not belong to the "
                    f"{self._settings.tool_scope} that is configured; {WIDER}."
                )

    def _is_asked(self, reference: Reference) -> bool:
        """Whether Linear must tell: the project itself and its teams are known."""
        if reference.kind == "project":
            return self._settings.tool_scope == "team"
        return reference.kind != "team"

    async def _asked(self, references: Sequence[Reference]) -> Mapping[str, Any]:
        variables = {f"r{index}": reference.id for index, reference in enumerate(references)}
        declared = "".join(f", ${name}: String!" for name in variables)
        aliases = " ".join(
            f"r{index}: {LOOK_UPS[reference.kind] % f'$r{index}'}"
            for index, reference in enumerate(references)
        )
        document = (
            f"query SymphonyLinearScope($projectSlug: String!{declared}) {{ "
            "projects(filter: {slugId: {eq: $projectSlug}}, first: 1) { nodes { id teams { nodes "
            f"{{ id key }} }} }} }} {aliases} }}"
        )
        variables["projectSlug"] = self._settings.project_slug
        try:
            data = await self._reads.query(document, variables)
        except TrackerError as error:
            if error.code != "linear_graphql_errors":
                raise
            named = ", ".join(f"{r.kind} {json.dumps(r.id[:80])}" for r in references)
            raise OutOfScope(f"Linear does not show all of {named}: {error.message}") from None
        project = next(iter(entries(dig(data, "projects", "nodes"))), None)
        project_id = text(dig(project, "id"))
        if project_id is not None:
            teams = entries(dig(project, "teams", "nodes"))
            names = (text(dig(team, key)) for team in teams for key in ("id", "key"))
            self._place = _Place(project_id, frozenset(name for name in names if name))
        return data

    def _is_inside(self, reference: Reference, record: object, place: _Place) -> bool:
        match reference.kind:
            case "team":
                return reference.id in place.teams
            case "project" if self._settings.tool_scope == "project":
                return reference.id == place.project_id
            case "project":
                return self._holds_project(record, place)
            case "milestone":
                return self._holds_project(dig(record, "project"), place)
            case "issue":
                return self._holds_issue(record, place)
            case "relation":
                ends = (dig(record, "issue"), dig(record, "relatedIssue"))
                return all(self._holds_issue(end, place) for end in ends)
            case _:
                return self._holds_issue(dig(record, "issue"), place)

    def _holds_issue(self, issue: object, place: _Place) -> bool:
        if self._settings.tool_scope == "project":
            return text(dig(issue, "project", "id")) == place.project_id
        return text(dig(issue, "team", "id")) in place.teams

    def _holds_project(self, project: object, place: _Place) -> bool:
        if self._settings.tool_scope == "project":
            return text(dig(project, "id")) == place.project_id
        teams = (text(dig(team, "id")) for team in entries(dig(project, "teams", "nodes")))
        return any(team in place.teams for team in teams)
