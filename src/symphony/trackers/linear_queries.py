"""The GraphQL documents that are sent to Linear.

Connections in an issue ask for ``NESTED_PAGE`` entries, or ``CHILDREN_PAGE`` sub-issues: Linear
limits the complexity of a query, nested pages multiply, and an issue with more is completed by a
query of its own. Parents and sub-issues are only asked for where a setting needs them.
"""

from dataclasses import dataclass
from typing import Final

PAGE: Final = 50
"""Issues of one page, and ids of one batch."""

NESTED_PAGE: Final = 25
"""Labels and relations that come with each issue of a page."""

CHILDREN_PAGE: Final = 10
"""Sub-issues that come with each issue of a page."""

MARKS_PAGE: Final = 250
"""Marks of one page, and blockers of one batch: Linear gives no more, and these are cheap."""

_LABELS = "nodes { name } pageInfo { hasNextPage endCursor }"
_RELATIONS = (
    "nodes { type issue { id identifier state { name } } } pageInfo { hasNextPage endCursor }"
)
_OTHER = "id identifier state { name }"
_CHILDREN = f"nodes {{ {_OTHER} }} pageInfo {{ hasNextPage endCursor }}"
_FAMILY = {
    "independent": "",
    "before_parent": f"      children(first: {CHILDREN_PAGE}) {{ {_CHILDREN} }}\n",
    "with_parent": f"      parent {{ {_OTHER} }}\n",
    "never": f"      parent {{ {_OTHER} }}\n",
}
"""What is asked of an issue's family, by ``sub_issues``."""

_ISSUE = f"""
      id
      identifier
      title
      description
      priority
      state {{ name }}
      branchName
      url
      assignee {{ id }}
      team {{ key }}
      labelIds
      labels(first: $relationFirst) {{ {_LABELS} }}
      inverseRelations(first: $relationFirst) {{ {_RELATIONS} }}
      createdAt
      updatedAt
"""

_BY_STATES: Final = f"""
query SymphonyLinearPoll(
  $projectSlug: String!, $stateNames: [String!]!, $first: Int!, $relationFirst: Int!, $after: String
) {{
  issues(
    filter: {{project: {{slugId: {{eq: $projectSlug}}}}, state: {{name: {{in: $stateNames}}}}}}
    first: $first
    after: $after
  ) {{
    nodes {{{_ISSUE}%s    }}
    pageInfo {{ hasNextPage endCursor }}
  }}
}}
"""

_BY_IDS: Final = f"""
query SymphonyLinearIssuesById(
  $ids: [ID!]!, $projectSlug: String!, $first: Int!, $relationFirst: Int!
) {{
  issues(filter: {{id: {{in: $ids}}, project: {{slugId: {{eq: $projectSlug}}}}}}, first: $first) {{
    nodes {{{_ISSUE}%s    }}
    pageInfo {{ hasNextPage endCursor }}
  }}
}}
"""

BY_NUMBER: Final = f"""
query SymphonyLinearIssueByNumber(
  $team: String!, $number: Float!, $projectSlug: String!, $relationFirst: Int!
) {{
  issues(
    filter: {{
      number: {{eq: $number}}
      team: {{key: {{eq: $team}}}}
      project: {{slugId: {{eq: $projectSlug}}}}
    }}
    first: 1
  ) {{
    nodes {{{_ISSUE}    }}
    pageInfo {{ hasNextPage endCursor }}
  }}
}}
"""

_LISTED = """
    filter: {project: {slugId: {eq: $projectSlug}}, state: {name: {in: $stateNames}}}
"""
_MARKS = """
    nodes {
      id
      identifier
      title
      priority
      branchName
      updatedAt
      labelIds
      state { name }
      assignee { id }
      team { key }
    }
    pageInfo { hasNextPage endCursor }
"""
_BLOCKERS = """
    filter: {id: {in: $blockers}}
    includeArchived: true
    first: $blockersFirst
  ) {
    nodes { id identifier archivedAt state { name } }
    pageInfo { hasNextPage endCursor }
"""

_CHANGES: Final = f"""
query SymphonyLinearChanges(
  $projectSlug: String!, $stateNames: [String!]!, $marksFirst: Int!, $relationFirst: Int!
  $ids: [ID!]!, $first: Int!, $withIds: Boolean!
  $blockers: [ID!]!, $blockersFirst: Int!, $withBlockers: Boolean!
) {{
  marks: issues({_LISTED}    first: $marksFirst
  ) {{{_MARKS}  }}
  asked: issues(
    filter: {{id: {{in: $ids}}, project: {{slugId: {{eq: $projectSlug}}}}}}, first: $first
  ) @include(if: $withIds) {{
    nodes {{{_ISSUE}%s    }}
    pageInfo {{ hasNextPage endCursor }}
  }}
  blockers: issues({_BLOCKERS.replace(") {", ") @include(if: $withBlockers) {")}  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Documents:
    """The documents that read whole issues.

    Attributes:
        by_states: A page of the issues in some states.
        by_ids: A batch of issues.
        changes: What a poll asks that knows the board: marks of all issues, a few whole issues,
            and issues elsewhere that they wait for.
    """

    by_states: str
    by_ids: str
    changes: str


def documents(sub_issues: str) -> Documents:
    """The documents for a value of ``tracker.provider.sub_issues``."""
    family = _FAMILY[sub_issues]
    return Documents(_BY_STATES % family, _BY_IDS % family, _CHANGES % family)


MORE_MARKS: Final = f"""
query SymphonyLinearMarks(
  $projectSlug: String!, $stateNames: [String!]!, $first: Int!, $after: String
) {{
  issues({_LISTED}    first: $first
    after: $after
  ) {{{_MARKS}  }}
}}
"""

BLOCKERS: Final = f"""
query SymphonyLinearBlockers($blockers: [ID!]!, $blockersFirst: Int!) {{
  issues({_BLOCKERS}  }}
}}
"""

MORE_LABELS: Final = f"""
query SymphonyLinearLabels($id: String!, $first: Int!, $after: String) {{
  issue(id: $id) {{ labels(first: $first, after: $after) {{ {_LABELS} }} }}
}}
"""

MORE_RELATIONS: Final = f"""
query SymphonyLinearRelations($id: String!, $first: Int!, $after: String) {{
  issue(id: $id) {{ inverseRelations(first: $first, after: $after) {{ {_RELATIONS} }} }}
}}
"""

MORE_CHILDREN: Final = f"""
query SymphonyLinearSubIssues($id: String!, $first: Int!, $after: String) {{
  issue(id: $id) {{ children(first: $first, after: $after) {{ {_CHILDREN} }} }}
}}
"""

VIEWER: Final = "query SymphonyLinearViewer { viewer { id } }"

USER: Final = """
query SymphonyLinearUser($id: ID!) {
  users(filter: {id: {eq: $id}}, first: 1) { nodes { id } }
}
"""

STATES: Final = """
query SymphonyLinearStates($projectSlug: String!) {
  projects(filter: {slugId: {eq: $projectSlug}}, first: 1) {
    nodes { id teams(first: 20) { nodes { key states(first: 50) { nodes { name } } } } }
  }
}
"""
