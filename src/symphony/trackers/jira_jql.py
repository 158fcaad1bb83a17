"""JQL: writing it, and keeping what others wrote within the project. Pure.

Invariant: a clause that ``split_order`` accepts is closed in itself, its quotes and brackets end
where it ends, so nothing in it reaches around the brackets that are put about it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

_TOKEN: Final = re.compile(
    r"""\"(?:\\.|[^"\\])*\"|'(?:\\.|[^'\\])*'|[()]|order(?=\s+by\b)|[\w.\-\[\]]+|\\.|.""",
    re.IGNORECASE | re.DOTALL,
)


class UnusableJql(ValueError):
    """The text is no clause that can be put into brackets; the message says why."""


def quoted(text: str) -> str:
    """The text as a JQL string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def state_query(
    project_key: str, states: Iterable[str], *, field: str = "status", filters: Sequence[str] = ()
) -> str:
    """The issues of a project in these states."""
    listed = ", ".join(quoted(state) for state in states)
    clauses = [f"project = {quoted(project_key)}", f"{field} IN ({listed})", *filters]
    return " AND ".join(clauses)


def scoped(jql: str, project_key: str) -> str:
    """The query narrowed down to the project, in its own order.

    Raises:
        UnusableJql: It can't be put into brackets.
    """
    clause, order = split_order(jql)
    project = f"project = {quoted(project_key)}"
    return (f"{project} AND ({clause})" if clause else project) + (f" {order}" if order else "")


def split_order(jql: str) -> tuple[str, str]:
    """Split a query into its clause and its ``ORDER BY``.

    Raises:
        UnusableJql: A quote or bracket is not closed, or closes too much.
    """
    depth, order_at = 0, None
    for match in _TOKEN.finditer(jql):
        token = match[0]
        if token in ("'", '"'):
            raise UnusableJql("has a quote that is not closed")
        if token == "(":
            depth += 1
        elif token == ")":
            depth -= 1
            if depth < 0:
                raise UnusableJql("has a bracket that closes too much")
        elif token.lower() == "order" and depth == 0 and order_at is None:
            order_at = match.start()
    if depth:
        raise UnusableJql("has a bracket that is not closed")
    if order_at is None:
        return jql.strip(), ""
    order = jql[order_at:].strip()
    if "(" in order:
        raise UnusableJql("has a bracket behind ORDER BY")
    return jql[:order_at].strip(), order
