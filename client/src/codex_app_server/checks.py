"""Checks of options by a table: unknown names and wrong types are refused before anything happens.

Pure. The tables are beside the functions that take the options.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from codex_app_server.errors import InvalidArgument

__all__ = [
    "CONTENT",
    "COUNT",
    "FLAG",
    "FUNCTION",
    "LIMIT",
    "NAMES",
    "PATH",
    "SECONDS",
    "TABLE",
    "TEXT",
    "WORDS",
    "Check",
    "Checks",
    "check_arguments",
    "check_options",
    "check_secrets",
    "check_values",
    "is_bool",
    "is_count",
    "is_mapping",
    "is_path",
    "is_seconds",
    "is_strings",
    "is_text",
    "one_of",
    "optional",
    "or_none",
    "shown",
    "unknown_names",
]

Check = tuple[str, Callable[[Any], bool]]
"""What an option takes, in words, and whether a value is that."""

Checks = Mapping[str, Check]

SHOWN = 200


def check_options(options: Mapping[str, Any], checks: Checks) -> None:
    """Check options against a table.

    Raises:
        InvalidArgument: Naming the option and what it takes.
    """
    unknown = [name for name in options if name not in checks]
    if unknown:
        raise InvalidArgument(unknown_names(unknown, checks))
    for name, value in options.items():
        words, fits = checks[name]
        if not fits(value):
            raise InvalidArgument(f"{name}={shown(value)}: give {words}")


def check_arguments(given: Mapping[str, Any], checks: Checks) -> None:
    """Check those of a function's arguments that a table has; ``given`` is its ``locals()``."""
    check_options({name: given[name] for name in checks}, checks)


def check_values(**given: tuple[Any, Check]) -> None:
    """Check arguments, each a value and what it must be.

    Raises:
        InvalidArgument: Naming the argument and what it takes.
    """
    for name, (value, (words, fits)) in given.items():
        if not fits(value):
            raise InvalidArgument(f"{name}={shown(value)}: give {words}")


def check_secrets(**given: tuple[Any, Check]) -> None:
    """Check arguments as `check_values` does, without telling what they are."""
    for name, (value, (words, fits)) in given.items():
        if not fits(value):
            what = "it is empty" if value == "" else f"not {type(value).__name__}"
            raise InvalidArgument(f"{name}: give {words}; {what}")


def unknown_names(unknown: Iterable[str], known: Iterable[str]) -> str:
    """Return what to say of option names that are none: the nearest one, or all that there are."""
    import difflib  # late: costly, and only for an error

    there = sorted(known)
    parts = []
    for name in sorted(unknown):
        near = difflib.get_close_matches(name.lower(), there, 1)
        parts.append(f"{name!r}: did you mean {near[0]!r}?" if near else f"{name!r}")
    return f"unknown options: {', '.join(parts)}; there are {', '.join(there)}"


def shown(value: Any) -> str:
    """Return a wrong value for an error's text; a long one, or what has no text, cut short."""
    try:
        text = repr(value)
    except Exception:
        return f"<{type(value).__name__}>"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({type(value).__name__})"


def is_bool(value: Any) -> bool:
    """Tell whether a value is True or False itself."""
    return isinstance(value, bool)


def is_mapping(value: Any) -> bool:
    """Tell whether a value is a mapping."""
    return isinstance(value, Mapping)


def is_path(value: Any) -> bool:
    """Tell whether a value is a path: a text that is not empty, or a path object."""
    return is_text(value) or hasattr(value, "__fspath__")


def one_of(*words: str) -> tuple[str, Callable[[Any], bool]]:
    """Return the check for one of some words."""
    return f"one of {', '.join(words)}", lambda value: isinstance(value, str) and value in words


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


def optional(check: Check) -> Check:
    """Return a check that None passes too."""
    words, fits = check
    return f"{words}, or None", or_none(fits)


TEXT: Check = ("a text that is not empty", is_text)
WORDS: Check = ("a text", lambda value: isinstance(value, str))
PATH: Check = ("a path", is_path)
NAMES: Check = ("a list of texts", is_strings)
FLAG: Check = ("True or False", is_bool)
COUNT: Check = ("a number from 1", is_count)
SECONDS: Check = ("seconds above 0", is_seconds)
LIMIT: Check = ("seconds above 0, or None", or_none(is_seconds))
TABLE: Check = ("a mapping", is_mapping)
FUNCTION: Check = ("a function", callable)
CONTENT: Check = ("bytes", lambda value: isinstance(value, bytes | bytearray | memoryview))
