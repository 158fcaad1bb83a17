"""Checks of options by a table: unknown names and wrong types are refused before anything happens.

Pure. The tables are beside the functions that take the options.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from codex_app_server.errors import InvalidArgument

__all__ = [
    "Checks",
    "check_options",
    "is_count",
    "is_seconds",
    "is_strings",
    "is_text",
    "or_none",
]

Checks = Mapping[str, tuple[str, Callable[[Any], bool]]]
"""What each option takes, in words, and whether a value is that."""


def check_options(options: Mapping[str, Any], checks: Checks) -> None:
    """Check options against a table.

    Raises:
        InvalidArgument: Naming the option and what it takes.
    """
    unknown = options.keys() - checks.keys()
    if unknown:
        raise InvalidArgument(
            f"unknown options: {', '.join(sorted(unknown))}; there are {', '.join(sorted(checks))}"
        )
    for name, value in options.items():
        words, fits = checks[name]
        if not fits(value):
            raise InvalidArgument(f"{name}={value!r}: give {words}")


def is_seconds(value: Any) -> bool:
    """Tell whether a value is a positive number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def is_count(value: Any) -> bool:
    """Tell whether a value is a whole number from 1; True is none."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def is_text(value: Any) -> bool:
    """Tell whether a value is a string that is not empty."""
    return isinstance(value, str) and bool(value)


def or_none(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Return a check that None passes too."""
    return lambda value: value is None or fits(value)


def is_strings(value: Any) -> bool:
    """Tell whether a value is a sequence of strings; a string alone is none."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return False
    return all(isinstance(one, str) for one in value)
