"""What a tool call of an agent may change, in a few words for the history of its run.

Role: tells changes from reads by the arguments, whatever the tracker: a REST method and path, the
operations of a GraphQL document, an action of the local board.
Invariant: pure; neither queries nor bodies nor values are named, so that nothing secret and nothing
private gets into the ledger. In doubt a call counts as a change.
Neighbour: ``session`` records it before the call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

MAX_CHARS: Final = 120
_READS: Final = frozenset({"get", "head", "options", "list"})
_SHORTEST_OPAQUE: Final = 24
_LITERALS: Final = re.compile(r'"""(?:.|\n)*?"""|"(?:\\.|[^"\\\n])*"|#[^\n]*')
_TOKENS: Final = re.compile(r"[{}():@]|\.\.\.|\$?[A-Za-z_]\w*")
_OPAQUE: Final = re.compile(rf"[A-Za-z0-9_+=-]{{{_SHORTEST_OPAQUE},}}")


def change_of(arguments: Any) -> str | None:
    """Return what a call may change, at most ``MAX_CHARS`` long; None for a read."""
    if isinstance(arguments, str):
        found = _of_document(arguments)
    elif not isinstance(arguments, Mapping):
        found = None
    elif isinstance(arguments.get("method"), str):
        found = _of_request(arguments["method"], arguments.get("path"))
    elif isinstance(arguments.get("query"), str):
        found = _of_document(arguments["query"])
    elif isinstance(arguments.get("action"), str):
        found = _of_action(arguments["action"], arguments.get("identifier"))
    else:
        found = "a call of another shape"
    return None if found is None else _cleaned(found)


def _of_request(method: str, path: object) -> str | None:
    if method.strip().lower() in _READS:
        return None
    # A query may hold what a person wrote; the path says which thing was changed.
    where = re.split(r"[?#]", path, maxsplit=1)[0] if isinstance(path, str) else ""
    # A long run of letters and digits may be a key.
    shown = _OPAQUE.sub(lambda hit: hit[0] if hit[0].isalpha() else f"{hit[0][:6]}…", where)
    return f"{method.strip().upper()} {shown}"


def _of_action(action: str, identifier: object) -> str | None:
    if action.strip().lower() in _READS:
        return None
    return f"{action} {identifier}" if isinstance(identifier, str) else action


def _of_document(document: str) -> str | None:
    """Name the root fields of all mutations in a GraphQL document."""
    tokens = _TOKENS.findall(_LITERALS.sub(" ", document))
    fields: list[str] = []
    braces = brackets = 0
    mutating = seen = False
    for index, token in enumerate(tokens):
        following = tokens[index + 1] if index + 1 < len(tokens) else ""
        if token in "{}":
            braces += 1 if token == "{" else -1
        elif token in "()":
            brackets += 1 if token == "(" else -1
        elif braces == 0 and brackets == 0 and token in ("mutation", "query", "fragment"):
            mutating = token == "mutation"
            seen = seen or mutating
        elif mutating and braces == 1 and brackets == 0 and _is_field(tokens, index, following):
            fields.append(token)
    return f"mutation {' '.join(fields)}".rstrip() if seen else None


def _is_field(tokens: list[str], index: int, following: str) -> bool:
    """Tell a field from its alias, a directive and the name of a fragment."""
    return tokens[index][0] not in ":@.$" and following != ":" and tokens[index - 1] not in "@..."


def _cleaned(text: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= MAX_CHARS else f"{line[: MAX_CHARS - 1]}…"
