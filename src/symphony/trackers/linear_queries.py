"""The GraphQL documents that are sent to Linear.

Connections inside an issue ask for ``NESTED_PAGE`` entries: Linear limits the complexity of a
query, nested pages multiply, and an issue with more entries is completed by a query of its own.
"""

from typing import Final

PAGE: Final = 50
"""Issues of one page, and ids of one batch."""

NESTED_PAGE: Final = 25
"""Labels and relations that come with each issue of a page."""

MARKS_PAGE: Final = 250
"""Marks of one page, and blockers of one batch: Linear gives no more, and these are cheap."""

_LABELS = "nodes { name } pageInfo { hasNextPage endCursor }"
_RELATIONS = (
    "nodes { type issue { id identifier state { name } } } pageInfo { hasNextPage endCursor }"
)
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

BY_STATES: Final = f"""
query SymphonyLinearPoll(
  $projectSlug: String!, $stateNames: [String!]!, $first: Int!, $relationFirst: Int!, $after: String
) {{
  issues(
    filter: {{project: {{slugId: {{eq: $projectSlug}}}}, state: {{name: {{in: $stateNames}}}}}}
    first: $first
    after: $after
  ) {{
    nodes {{{_ISSUE}    }}
    pageInfo {{ hasNextPage endCursor }}
  }}
}}
"""

BY_IDS: Final = f"""
query SymphonyLinearIssuesById(
  $ids: [ID!]!, $projectSlug: String!, $first: Int!, $relationFirst: Int!
) {{
  issues(filter: {{id: {{in: $ids}}, project: {{slugId: {{eq: $projectSlug}}}}}}, first: $first) {{
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
    nodes { id identifier state { name } }
    pageInfo { hasNextPage endCursor }
"""

CHANGES: Final = f"""
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
    nodes {{{_ISSUE}    }}
    pageInfo {{ hasNextPage endCursor }}
  }}
  blockers: issues({_BLOCKERS.replace(") {", ") @include(if: $withBlockers) {")}  }}
}}
"""
"""What a poll asks that knows the board: marks of all issues, a few whole issues, blockers."""

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

VIEWER: Final = "query SymphonyLinearViewer { viewer { id } }"

STATES: Final = """
query SymphonyLinearStates($projectSlug: String!) {
  projects(filter: {slugId: {eq: $projectSlug}}, first: 1) {
    nodes { id teams(first: 20) { nodes { key states(first: 50) { nodes { name } } } } }
  }
}
"""
