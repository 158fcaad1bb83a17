"""The command line: arguments only. Each command imports what it needs when it is called.

Exit status: 0 well, 1 the daemon or a command failed or refused, 2 a command line that is wrong in
itself, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import cyclopts

__all__ = ["command_names", "main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the arguments name; ends the process with its exit status."""
    from symphony.cli.usage import printable
    from symphony.errors import SymphonyError, UsageError

    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = build_app()(words)
    except SymphonyError as error:
        print(printable(f"symphony: {error.message}"), file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(status if isinstance(status, int) else 0)


def build_app() -> cyclopts.App:
    """Build the application with all of its commands."""
    from symphony.cli.app import make_app

    return make_app()


def command_names() -> list[str]:
    """Return every command as it is typed, such as ``symphony issue add``; for the docs' test."""
    return [" ".join(path) for path in _paths(build_app(), ("symphony",))]


def _paths(app: cyclopts.App, prefix: tuple[str, ...]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name in app:
        if name.startswith("-"):
            continue
        path = (*prefix, name)
        below = _paths(app[name], path)
        found.extend(below or [path])
    return sorted(found)
