"""What ends a block by itself: the values of ``agent.unblock_on`` and ``agent.blocked_retry_ms``.

Pure; ``settings`` turns the errors into faults of their keys, ``scheduler.blocks`` has the kinds of
block and what else ends them.
"""

from __future__ import annotations

from collections.abc import Mapping

CHANGES = ("state", "labels")
"""Changes of an issue that a person makes in the tracker."""

TIMED_KINDS = ("input", "approval", "fault")
"""Kinds of block that time may end; what an operator has stopped waits for an operator."""


def changes_of(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the named changes, each once, in our order.

    Raises:
        ValueError: One is unknown; the text is the rest of a sentence about the key.
    """
    named = {text.strip().lower() for text in texts}
    unknown = sorted(named.difference(CHANGES))
    if unknown:
        raise ValueError(
            f"knows no {' or '.join(map(repr, unknown))}; list any of {', '.join(CHANGES)}, "
            "or [] for neither"
        )
    return tuple(change for change in CHANGES if change in named)


def retry_delays(value: object, limit: int = 2**53) -> dict[str, int]:
    """Return milliseconds by kind of block; kinds that time does not end are left out.

    One number counts for all kinds, a map for those that it names; 0 means never.

    Raises:
        ValueError: As in ``changes_of``; the text names every fault.
    """
    if value is None:
        return {}
    given = value if isinstance(value, Mapping) else dict.fromkeys(TIMED_KINDS, value)
    delays: dict[str, int] = {}
    unknown, unusable = [], []
    for kind, delay in given.items():
        number = _whole(delay)
        if kind not in TIMED_KINDS:
            unknown.append(repr(kind))
        elif number is None or not 0 <= number <= limit:
            unusable.append(kind)
        elif number > 0:
            delays[kind] = number
    problems = []
    if unknown:
        known = ", ".join(TIMED_KINDS)
        problems.append(f"knows no kind of block {' or '.join(unknown)}; there are {known}")
    if unusable:
        where = f"{' and '.join(unusable)} " if isinstance(value, Mapping) else ""
        problems.append(
            f"{where}must be milliseconds from 0 (never), or a map of them by kind of block"
        )
    if problems:
        raise ValueError("; ".join(problems))
    return delays


def _whole(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 16:
        return int(value)
    return None
