"""What the guard of ``linear_graphql`` lets pass, and that its tables fit Linear's own schema."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from graphql import GraphQLInputObjectType, GraphQLObjectType, get_named_type
from hypothesis import given
from hypothesis import strategies as st

from symphony.trackers.linear_graph import (
    INPUTS,
    MUTATIONS,
    PAGING,
    QUERIES,
    SHAPES,
    OutOfScope,
    Reading,
    Reference,
)
from symphony.trackers.linear_scope import MAX_REFERENCES, read_document

SLUG = "abc123"
MINE = '{project: {slugId: {eq: "abc123"}}}'


def read(query: str, scope: str = "project", **variables: Any) -> Reading:
    return read_document(query, variables, scope=scope, project_slug=SLUG)


@pytest.mark.parametrize(
    ("query", "references"),
    [
        ("{ viewer { id name } rateLimitStatus { kind limits { type } } }", []),
        ('{ __type(name: "Issue") { fields { name args { name } } } }', []),
        ('{ issue(id: "A-1") { id state { name } __typename } }', [("issue", "A-1")]),
        ('{ a: issue(id: "A-1") { id } b: issue(id: "A-1") { id } }', [("issue", "A-1")]),
        (f"{{ issues(filter: {MINE}, first: 5) {{ nodes {{ title }} totalCount }} }}", []),
        (f"{{ issues(filter: {{and: [{MINE}, {{or: []}}]}}) {{ nodes {{ id }} }} }}", []),
        ('{ issues(filter: {id: {eq: "i"}}) { nodes { id } } }', [("issue", "i")]),
        (
            '{ issues(filter: {project: {id: {eq: "p"}}}) { edges { cursor node { id } } } }',
            [("project", "p")],
        ),
        (f"{{ comments(filter: {{issue: {MINE}}}) {{ nodes {{ body }} }} }}", []),
        ('{ project(id: "abc123") { name teams { nodes { states { nodes { id } } } } } }', []),
        ('{ team(id: "T") { key labels { nodes { name } } } }', [("team", "T")]),
        ('{ workflowStates(filter: {name: {eq: "Done"}}) { nodes { id } } }', []),
        (
            "fragment F on Issue { parent { identifier } comments { nodes { ...C } } }"
            " fragment C on Comment { body user { name } }"
            ' query Q { issue(id: "A-1") { ...F ... on Issue { title } } }',
            [("issue", "A-1")],
        ),
    ],
)
def test_reads_within_the_project_pass_with_what_they_name(
    query: str, references: list[tuple[str, str]]
) -> None:
    reading = read(query)
    assert [(r.kind, r.id) for r in reading.references] == references
    assert reading.mutations == ()


@pytest.mark.parametrize(
    ("query", "references"),
    [
        (
            'mutation { issueUpdate(id: "A-1", input: {stateId: "s", parentId: null}) '
            "{ success issue { id } } }",
            [("issue", "A-1")],
        ),
        (
            'mutation { issueUpdate(id: "A-1", input: {projectId: "p", teamId: "t"}) { success } }',
            [("issue", "A-1"), ("project", "p"), ("team", "t")],
        ),
        (
            'mutation { issueCreate(input: {title: "T", teamId: "t", projectId: "p"}) '
            "{ issue { url } } }",
            [("team", "t"), ("project", "p")],
        ),
        (
            'mutation { commentCreate(input: {body: "b", parentId: "c"}) { comment { id } } }',
            [("comment", "c")],
        ),
        ('mutation { commentDelete(id: "c") { success } }', [("comment", "c")]),
        (
            'mutation { issueBatchUpdate(ids: ["a", "b"], input: {priority: 1}) { success } }',
            [("issue", "a"), ("issue", "b")],
        ),
        (
            'mutation { attachmentLinkGitHubPR(issueId: "i", url: "u", linkKind: links) '
            "{ success attachment { id } } }",
            [("issue", "i")],
        ),
        (
            'mutation { issueRelationCreate(input: {issueId: "a", relatedIssueId: "b", '
            "type: blocks}) { issueRelation { id relatedIssue { identifier } } } }",
            [("issue", "a"), ("issue", "b")],
        ),
        (
            'mutation { fileUpload(contentType: "t", filename: "f", size: 1) '
            "{ uploadFile { uploadUrl headers { key value } } } }",
            [],
        ),
    ],
)
def test_mutations_within_the_project_pass_with_what_they_name(
    query: str, references: list[tuple[str, str]]
) -> None:
    reading = read(query)
    assert [(r.kind, r.id) for r in reading.references] == references
    assert len(reading.mutations) == 1


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("{ organization { id } }", "`organization` is not among"),
        ("{ issues { nodes { id } } }", "`issues` needs the filter"),
        ("{ issues(filter: {}) { nodes { id } } }", "needs the filter"),
        ('{ issues(filter: {project: {slugId: {eq: "zzz"}}}) { nodes { id } } }', "needs the filt"),
        (
            f"{{ issues(filter: {{or: [{MINE}, {{}}]}}) {{ nodes {{ id }} }} }}",
            "needs the filter",
        ),
        (
            '{ issues(filter: {project: {slugId: {eq: "abc123"}, or: [{}]}}) { nodes { id } } }',
            "needs the filter",
        ),
        (
            '{ issues(filter: {project: {slugId: {eq: "abc123"}}, or: [{}]}) { nodes { id } } }',
            "needs the filter",
        ),
        (
            '{ issues(filter: {project: {slugId: {in: ["abc123"]}}}) { nodes { id } } }',
            "needs the filter",
        ),
        ('{ issues(filter: {team: {key: {eq: "T"}}}) { nodes { id } } }', "needs the filter"),
        ("{ issue { id } }", "`issue` needs `id`"),
        ("{ issue(id: 7) { id } }", "must name a record by its id"),
        ('{ comment(hash: "h") { id } }', "argument `hash`"),
        ('{ searchIssues(term: "x") { nodes { id } } }', "`searchIssues` is not among"),
        ('{ issue(id: "A-1") { team { issues { nodes { id } } } } }', "`Team.issues`"),
        ('{ issue(id: "A-1") { team { inviteHash } } }', "`Team.inviteHash`"),
        ('{ issue(id: "A-1") { assignee { assignedIssues { nodes { id } } } } }', "assignedIssues"),
        ('{ issue(id: "A-1") { parent { description } } }', "`Issue.description`"),
        (
            '{ issue(id: "A-1") { parent { ...F } } }'
            " fragment F on Issue { comments { nodes { id } } }",
            "`Issue.comments`",
        ),
        ('{ issue(id: "A-1") { ...F } } fragment F on User { id }', "a fragment on `User`"),
        ('{ issue(id: "A-1") { ...F } }', "no fragment `F`"),
        ('{ issue(id: "A-1") @live { id } }', "@live"),
        ('{ issue(id: "A-1", id: "A-2") { id } }', "given twice"),
        (
            'mutation { issueUpdate(id: "A-1", input: {projectId: "p", projectId: "q"}) '
            "{ success } }",
            "given twice",
        ),
        ('mutation { issueUpdate(id: "A-1", input: {projectId: null}) { success } }', "by its id"),
        ('mutation { issueUpdate(id: "A-1", input: {other: 1}) { success } }', "`input.other`"),
        ('mutation { issueUpdate(id: "A-1") { success } }', "needs an `input`"),
        ('mutation { issueCreate(input: {teamId: "t"}) { success } }', "`input.projectId`"),
        ('mutation { commentCreate(input: {body: "b"}) { success } }', "`input.issueId`"),
        (
            'mutation { commentCreate(input: {issueId: "i", projectUpdateId: "u"}) { success } }',
            "`input.projectUpdateId`",
        ),
        ('mutation { issueDelete(id: "A-1", permanentlyDelete: true) { success } }', "permanently"),
        ("mutation { organizationDelete { success } }", "`organizationDelete` is not among"),
        ('mutation { issueLabelCreate(input: {teamId: "t", name: "n"}) { success } }', "not among"),
        ("subscription { issueUpdated { id } }", "subscription"),
        ("type A { b: Int }", "must hold operations"),
        ("{ viewer { id }", "is no GraphQL document"),
        ("{ viewer { id } } fragment F on User { id } fragment F on User { name }", "once"),
        ("{" * 5_000, "no GraphQL document|nested too deeply"),
        ("{ viewer" + "{ viewer" * 3_000 + " }" * 3_001, "nested too deeply"),
        ("{ viewer { id } } #" + "{ a " * 30_000 + "\n" + "{ a }" * 9_000, "no GraphQL document"),
    ],
)
def test_what_is_not_shown_to_stay_inside_is_refused(query: str, words: str) -> None:
    with pytest.raises(OutOfScope, match=words):
        read(query)


def test_variables_and_their_defaults_are_judged_by_value() -> None:
    query = "query Q($f: IssueFilter) { issues(filter: $f) { nodes { id } } }"
    assert read(query, f={"project": {"slugId": {"eq": SLUG}}}).references == ()
    for wrong in ({"project": {"slugId": {"eq": "other"}}}, None, [], "x"):
        with pytest.raises(OutOfScope, match="needs the filter"):
            read(query, f=wrong)
    with pytest.raises(OutOfScope, match="needs the filter"):
        read(query)
    query = 'query Q($id: String = "A-7") { issue(id: $id) { id } }'
    assert read(query).references == (Reference("issue", "A-7"),)
    assert read(query, id="A-8").references == (Reference("issue", "A-8"),)
    with pytest.raises(OutOfScope, match="by its id"):
        read(query, id=None)


def test_every_operation_of_a_document_is_judged() -> None:
    with pytest.raises(OutOfScope, match="organization"):
        read("query A { viewer { id } } query B { organization { id } }")


def test_fragments_that_call_each_other_end() -> None:
    query = (
        '{ issue(id: "A-1") { ...A } } fragment A on Issue { ...B } fragment B on Issue { ...A }'
    )
    assert read(query).references == (Reference("issue", "A-1"),)


def test_a_document_names_no_more_than_can_be_looked_up() -> None:
    names = " ".join(f'a{n}: issue(id: "A-{n}") {{ id }}' for n in range(MAX_REFERENCES + 1))
    with pytest.raises(OutOfScope, match="must not name more"):
        read(f"{{ {names} }}")


def test_a_team_s_scope_has_its_issues_and_labels_but_not_all_of_a_project() -> None:
    query = '{ issues(filter: {team: {key: {eq: "T"}}}) { nodes { project { name } } } }'
    assert read(query, "team").references == (Reference("team", "T"),)
    query = 'mutation { issueLabelCreate(input: {teamId: "t", name: "n"}) { success } }'
    assert read(query, "team").references == (Reference("team", "t"),)
    query = 'mutation { issueUpdate(id: "A-1", input: {projectId: null}) { success } }'
    assert read(query, "team").references == (Reference("issue", "A-1"),)
    with pytest.raises(OutOfScope, match=r"`Project\.issues`"):
        read('{ issue(id: "A-1") { project { issues { nodes { id } } } } }', "team")


def test_any_scope_passes_everything_and_names_the_mutations() -> None:
    assert read("{ organization { id @live } ... on X { y } }", "any") == Reading(())
    query = "mutation { ...F x: teamDelete(id: 1) { success } } fragment F on Mutation { a { b } }"
    assert read(query, "any").mutations == ("a", "teamDelete")


@pytest.mark.parametrize(("table", "name"), [(QUERIES, "Query"), (MUTATIONS, "Mutation")])
def test_root_fields_and_their_arguments_are_linear_s(
    fakes: ModuleType, table: Any, name: str
) -> None:
    if fakes.schema_path() is None:
        pytest.skip("linear.graphql not found (SYMPHONY_SCHEMAS)")
    fields = fakes.schema().get_type(name).fields
    for key, root in table.items():
        arguments = fields[key].args
        base = root.type.rstrip("+")
        linear = SHAPES[base].linear or base
        expected = f"{linear}Connection" if root.type.endswith("+") else linear
        assert get_named_type(fields[key].type).name == expected, key
        assert set(root.refs) | root.free <= set(arguments), key
        if root.input:
            assert get_named_type(arguments["input"].type).name == root.input
        if root.condition is not None:
            assert "filter" in arguments
        # What the tables don't name must be an argument of a list: nothing else is let pass.
        assert not (set(root.refs) | root.free) & PAGING


def test_types_and_inputs_are_linear_s(fakes: ModuleType) -> None:
    if fakes.schema_path() is None:
        pytest.skip("linear.graphql not found (SYMPHONY_SCHEMAS)")
    types = fakes.schema().type_map
    for name, shape in SHAPES.items():
        found = types[shape.linear or name]
        assert isinstance(found, GraphQLObjectType)
        for field, kind in (*shape.edges.items(), *shape.in_team.items()):
            base = kind.rstrip("+")
            linear = SHAPES[base].linear or base
            expected = f"{linear}Connection" if kind.endswith("+") else linear
            assert get_named_type(found.fields[field].type).name == expected, (name, field)
        assert (shape.leaves or set()) <= set(found.fields), name
    for name, rule in INPUTS.items():
        found = types[name]
        assert isinstance(found, GraphQLInputObjectType)
        assert set(rule.refs) | rule.free <= set(found.fields), name


NAMES = st.sampled_from(
    ["issue", "issues", "viewer", "team", "project", "nodes", "id", "comments", "parent", "F"]
)
VALUES = st.sampled_from(['"abc123"', "$v", "null", "{}", "[]", MINE, "7", "true", "X"])


@given(st.data())
def test_any_document_is_read_or_refused(data: st.DataObject) -> None:
    def selection(depth: int) -> str:
        parts = []
        for _ in range(data.draw(st.integers(1, 3))):
            name = data.draw(NAMES)
            if data.draw(st.booleans()):
                name += (
                    f"({data.draw(st.sampled_from(['id', 'filter', 'x']))}: {data.draw(VALUES)})"
                )
            if depth and data.draw(st.booleans()):
                name += selection(depth - 1)
            parts.append(data.draw(st.sampled_from(["", "...F ", "a: "])) + name)
        return "{ " + " ".join(parts) + " }"

    kind = data.draw(st.sampled_from(["", "query Q", "mutation M", "query ($v: X = 3)"]))
    query = f"{kind} {selection(3)} fragment F on Issue {selection(1)}"
    try:
        reading = read(query, data.draw(st.sampled_from(["project", "team"])))
    except OutOfScope:
        return
    assert all(reference.id for reference in reading.references)
