"""Values of a provider's JSON as fields of an ``Issue`` (SPEC 11.3), for the REST trackers. Pure.

Invariant: whatever JSON value comes in, each function returns a valid field or None; only
``required`` raises, and then ``Malformed``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any


class Malformed(ValueError):
    """A record without the required fields; the message names the first one that is missing."""


def dig(value: object, *path: str) -> Any:
    """The value at the end of a path of keys; None where it ends early."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def string(value: object) -> str | None:
    """A text that UTF-8 can hold: JSON may carry half of a surrogate pair."""
    if not isinstance(value, str) or value.isascii():
        return value if isinstance(value, str) else None
    return value.encode("utf-8", "replace").decode("utf-8")


def text(value: object) -> str | None:
    """A trimmed text; None where it is blank."""
    found = string(value)
    return found.strip() or None if found is not None else None


def required(value: object, name: str) -> str:
    """A text that is not blank, as it is spelled.

    Raises:
        Malformed: It is missing or blank.
    """
    found = string(value)
    if found is None or not found.strip():
        raise Malformed(f"`{name}` is missing or blank")
    return found


def integer(value: object) -> int | None:
    """A whole number, also where it is written as a float or as digits in a text."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value.is_integer() else None
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdecimal() and len(value) < 20 else None
    return value if isinstance(value, int) else None


def instant(value: object) -> datetime | None:
    """An RFC 3339 moment in UTC; None without an offset."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        if moment is None or moment.tzinfo is None:
            return None
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def labels(names: Iterable[object]) -> tuple[str, ...]:
    """Names trimmed, in lower case, unique, without blank ones."""
    found = (text(name) for name in names)
    return tuple(dict.fromkeys(name.lower() for name in found if name))


def entries(value: object) -> Sequence[Any]:
    """A list; empty where it is none."""
    return value if isinstance(value, list) else ()
