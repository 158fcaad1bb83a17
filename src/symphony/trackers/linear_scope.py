"""Whether a GraphQL document of an agent stays within the configured project or team. Pure.

The document is parsed, every operation in it walked along the tables of ``linear_graph``, and what
it names by id is collected as references, which ``linear_tool`` looks up before it sends anything.

Invariant: what can't be shown to stay inside is refused. A document is judged as a whole, with the
values of its variables; fragments, aliases and defaults are followed as the server follows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from graphql import GraphQLError, parse
from graphql.language import ast

from .linear_graph import (
    INPUTS,
    MUTATIONS,
    PAGING,
    QUERIES,
    SHAPES,
    WIDER,
    Input,
    OutOfScope,
    Reading,
    Reference,
    Root,
)
from .rest_records import dig

MAX_TOKENS: Final = 20_000
MAX_REFERENCES: Final = 50

_MISSING: Final = object()
_OPEN: Final = frozenset({"__schema", "__type", "__typename"})


def read_document(
    query: str, variables: Mapping[str, Any], *, scope: str, project_slug: str
) -> Reading:
    """Judge a document.

    Args:
        query: The document.
        variables: Their values, as they will be sent.
        scope: ``project`` or ``team``; ``any`` only names the mutations.
        project_slug: The configured project.

    Raises:
        OutOfScope: It is no document, or not shown to stay inside.
    """
    try:
        document = parse(query, no_location=True, max_tokens=MAX_TOKENS)
    except GraphQLError as error:
        raise OutOfScope(f"`query` is no GraphQL document: {error.message}") from None
    except RecursionError:
        raise OutOfScope("`query` is nested too deeply.") from None
    fragments = {
        d.name.value: d for d in document.definitions if isinstance(d, ast.FragmentDefinitionNode)
    }
    operations = [d for d in document.definitions if isinstance(d, ast.OperationDefinitionNode)]
    if not operations or len(fragments) + len(operations) < len(document.definitions):
        raise OutOfScope("`query` must hold operations and their fragments, each name once.")
    mutations: list[str] = []
    references: dict[Reference, None] = {}
    for operation in operations:
        walk = _Walk(operation, fragments, variables, scope, project_slug)
        try:
            walk.run()
        except RecursionError:
            raise OutOfScope("`query` is nested too deeply.") from None
        mutations += walk.mutations
        references.update(dict.fromkeys(walk.references))
    if len(references) > MAX_REFERENCES:
        raise OutOfScope(f"`query` must not name more than {MAX_REFERENCES} records.")
    return Reading(tuple(mutations), tuple(references))


@dataclass(slots=True)
class _Walk:
    """One operation, walked from its root fields to its plain ones."""

    operation: ast.OperationDefinitionNode
    fragments: Mapping[str, ast.FragmentDefinitionNode]
    variables: Mapping[str, Any]
    scope: str
    project_slug: str
    mutations: list[str] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)
    _seen: set[tuple[str, str]] = field(default_factory=set)

    def run(self) -> None:
        kind = self.operation.operation.value
        if kind == "subscription" and self.scope != "any":
            raise OutOfScope("a subscription can't be sent.")
        root = kind.capitalize()
        for selected in self._fields(self.operation.selection_set, root, root):
            if kind == "mutation":
                self.mutations.append(selected.name.value)
            if self.scope != "any":
                self._root(selected, MUTATIONS if kind == "mutation" else QUERIES)

    def _root(self, selected: ast.FieldNode, table: Mapping[str, Root]) -> None:
        name = selected.name.value
        if name in _OPEN:
            return
        root = table.get(name)
        if root is None or self.scope not in root.scopes:
            raise OutOfScope(
                f"`{name}` is not among the fields that stay within the {self.scope}; {WIDER}."
            )
        arguments = self._arguments(selected)
        for key, value in arguments.items():
            known = key in root.refs or key in root.free or key in PAGING
            known = known or (key == "input" and root.input != "")
            if not known and not (key == "filter" and root.condition is not None):
                raise OutOfScope(f"the argument `{key}` of `{name}` is not allowed; {WIDER}.")
            if key in root.refs and (value is not None or key == next(iter(root.refs))):
                self._refer(root.refs[key], value, f"`{name}({key}:)`")
        if root.refs and next(iter(root.refs)) not in arguments:
            raise OutOfScope(f"`{name}` needs `{next(iter(root.refs))}`.")
        if root.input:
            self._input(name, INPUTS[root.input], arguments.get("input"))
        if root.condition is not None:
            condition = dig(arguments.get("filter"), *root.condition)
            if not self._confines(condition):
                path = "".join(f"{key}: {{" for key in root.condition)
                raise OutOfScope(
                    f"`{name}` needs the filter {{{path}project: {{slugId: {{eq: "
                    f'"{self.project_slug}"}}}}{"}" * len(root.condition)}}} without an `or` '
                    f"beside it; {WIDER}."
                )
        self._selections(selected.selection_set, root.type)

    def _input(self, name: str, rule: Input, given: object) -> None:
        if not isinstance(given, Mapping):
            raise OutOfScope(f"`{name}` needs an `input` object.")
        for key, value in given.items():
            if key in rule.free:
                continue
            if key not in rule.refs:
                raise OutOfScope(f"`input.{key}` of `{name}` is not allowed; {WIDER}.")
            clearable = rule.clearable.get("", set()) | rule.clearable.get(self.scope, set())
            if value is None and key in clearable:
                continue
            self._refer(rule.refs[key], value, f"`input.{key}` of `{name}`")
        for scope, keys in rule.required.items():
            if scope in ("", self.scope) and all(given.get(key) is None for key in keys):
                named = " or ".join(f"`input.{key}`" for key in sorted(keys))
                raise OutOfScope(f"`{name}` needs {named}, so that its place is known.")

    def _refer(self, kind: str, value: object, where: str) -> None:
        for one in value if isinstance(value, list) else [value]:
            if not isinstance(one, str) or not one:
                raise OutOfScope(f"{where} must name a record by its id.")
            if kind != "project" or one != self.project_slug:
                self.references.append(Reference(kind, one))

    def _confines(self, condition: object) -> bool:
        """Whether a filter of issues lets only those of the scope pass."""
        if not isinstance(condition, Mapping) or "or" in condition:
            return False
        one = dig(condition, "id", "eq")
        if isinstance(one, str) and one:
            self.references.append(Reference("issue", one))
            return True
        if self._is_place(condition.get("project"), "project", ("slugId", "id")):
            return True
        team = condition.get("team")
        if self.scope == "team" and self._is_place(team, "team", ("id", "key")):
            return True
        parts = condition.get("and")
        return isinstance(parts, list) and any(self._confines(part) for part in parts)

    def _is_place(self, condition: object, kind: str, keys: Sequence[str]) -> bool:
        if not isinstance(condition, Mapping) or "or" in condition:
            return False
        for key in keys:
            value = dig(condition, key, "eq")
            if not isinstance(value, str) or not value:
                continue
            if kind == "project" and key == "slugId":
                return value == self.project_slug
            self.references.append(Reference(kind, value))
            return True
        return False

    def _selections(self, selections: ast.SelectionSetNode | None, kind: str) -> None:
        """Check the fields of a type, which may be a connection (``T+``) or its edge (``T*``)."""
        if selections is None:
            return
        base = kind.rstrip("+*")
        shape = SHAPES[base]
        leaves = shape.leaves
        linear = shape.linear or base
        if kind.endswith("+"):
            edges = {"nodes": base, "edges": f"{base}*", "pageInfo": "PageInfo"}
            condition, leaves = f"{linear}Connection", frozenset({"totalCount"})
        elif kind.endswith("*"):
            edges, condition, leaves = {"node": base}, f"{linear}Edge", frozenset({"cursor"})
        else:
            edges, condition = {**shape.edges}, linear
            if self.scope == "team":
                edges |= shape.in_team
        for selected in self._fields(selections, condition, kind):
            name = selected.name.value
            if name in edges and selected.selection_set is not None:
                self._selections(selected.selection_set, edges[name])
            elif name != "__typename" and (
                selected.selection_set is not None or (leaves is not None and name not in leaves)
            ):
                raise OutOfScope(
                    f"`{condition}.{name}` is not known to stay within the {self.scope} here; "
                    f"{WIDER}."
                )

    def _fields(
        self, selections: ast.SelectionSetNode | None, condition: str, kind: str
    ) -> Iterable[ast.FieldNode]:
        """The fields of a selection set, those of its fragments too, each fragment once."""
        for selection in selections.selections if selections is not None else ():
            for directive in selection.directives or ():
                if directive.name.value not in ("include", "skip") and self.scope != "any":
                    raise OutOfScope(f"the directive `@{directive.name.value}` is not allowed.")
            if isinstance(selection, ast.FieldNode):
                yield selection
                continue
            if isinstance(selection, ast.FragmentSpreadNode):
                fragment = self.fragments.get(selection.name.value)
                if fragment is None:
                    raise OutOfScope(f"there is no fragment `{selection.name.value}`.")
                if (fragment.name.value, kind) in self._seen:
                    continue
                self._seen.add((fragment.name.value, kind))
                on, inner = fragment.type_condition.name.value, fragment.selection_set
            else:
                assert isinstance(selection, ast.InlineFragmentNode)
                inner = selection.selection_set
                given = selection.type_condition
                on = given.name.value if given is not None else condition
            if on != condition and self.scope != "any":
                raise OutOfScope(f"a fragment on `{on}` stands where a `{condition}` is.")
            yield from self._fields(inner, condition, kind)

    def _arguments(self, selected: ast.FieldNode) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for argument in selected.arguments or ():
            if argument.name.value in found:
                raise OutOfScope(f"the argument `{argument.name.value}` is given twice.")
            value = self._value(argument.value)
            if value is not _MISSING:
                found[argument.name.value] = value
        return found

    def _value(self, node: ast.ValueNode) -> Any:
        """A value as the server will see it; ``_MISSING`` for a variable without one."""
        if isinstance(node, ast.VariableNode):
            return self._variable(node.name.value)
        if isinstance(node, ast.ListValueNode):
            return [None if v is _MISSING else v for v in map(self._value, node.values)]
        if isinstance(node, ast.ObjectValueNode):
            found: dict[str, Any] = {}
            for part in node.fields:
                if part.name.value in found:
                    raise OutOfScope(f"the key `{part.name.value}` is given twice.")
                found[part.name.value] = self._value(part.value)
            return {key: value for key, value in found.items() if value is not _MISSING}
        if isinstance(node, ast.NullValueNode):
            return None
        # Numbers and enums never name a record, so what they are does not matter.
        return node.value if isinstance(node, ast.StringValueNode) else 0

    def _variable(self, name: str) -> Any:
        if name in self.variables:
            return self.variables[name]
        for definition in self.operation.variable_definitions or ():
            if definition.variable.name.value == name and definition.default_value is not None:
                return self._value(definition.default_value)
        return _MISSING
