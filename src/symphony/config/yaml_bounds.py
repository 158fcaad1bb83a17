"""Bounds on YAML, so that no text keeps the daemon busy: depth, parts, and what aliases stand for.

The library's scanner takes time that grows with the square of the depth, and seconds for a long
list; front matter that people write is far from either. The bounds are checked while the text is
scanned, so a refusal is quick. ``front_matter`` uses them.
"""

from __future__ import annotations

from typing import Any

from ruamel.yaml.scanner import Scanner, ScannerError

MAX_DEPTH = 64
"""Maps and lists within each other."""

MAX_PARTS = 5_000
"""Scalars, brackets, dashes and colons; a long text is one part."""

MAX_EXPANDED = 100_000
"""Values with each alias written out; nothing is copied here, but later readers walk them all."""


class BoundedScanner(Scanner):
    """The library's scanner, which refuses text beyond the bounds as soon as it meets it."""

    _parts = 0

    def fetch_more_tokens(self) -> Any:
        """Scan on, and count."""
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise self._beyond(f"there are more than {MAX_PARTS} values and marks")
        return super().fetch_more_tokens()

    def fetch_flow_collection_start(self, TokenClass: Any, to_push: str) -> None:
        """Enter brackets or braces."""
        super().fetch_flow_collection_start(TokenClass, to_push)
        self._check_depth()

    def add_indent(self, column: int) -> bool:
        """Enter an indented map or list."""
        added: bool = super().add_indent(column)
        if added:
            self._check_depth()
        return added

    def _check_depth(self) -> None:
        if len(self.flow_context) + len(self.indents) > MAX_DEPTH:
            raise self._beyond(f"is nested too deeply: more than {MAX_DEPTH} levels")

    def _beyond(self, problem: str) -> ScannerError:
        return ScannerError(None, None, problem, self.reader.get_mark())
