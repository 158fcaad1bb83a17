"""What words on the command line may be, and how what is said reaches the terminal.

cyclopts turns ``1.5`` into the whole number 1, which would prune or raise something else than was
meant: whole numbers are read here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import CycloptsError, Parameter, Token, UnusedCliTokensError

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)


def whole_number(type_: Any, tokens: Sequence[Token]) -> int:
    """Read a whole number in decimal digits.

    Raises:
        ValueError: It is none.
    """
    text = tokens[0].value
    if _WHOLE.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no whole number")
    return int(text)


Whole = Annotated[int, Parameter(converter=whole_number)]
"""A whole number as an argument."""


def printable(text: str) -> str:
    """Keep what a tracker, an agent or a hook has written from steering the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def log_to_stderr() -> None:
    """Keep what is logged on the way out of a command's answer; no daemon's log is open here."""
    import structlog

    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))


def told(error: CycloptsError) -> Any:
    """Return what is printed of wrong usage."""
    if isinstance(error, UnusedCliTokensError):
        words = " ".join(error.unused_tokens or ())
        command = " ".join(("symphony", *(error.command_chain or ())))
        return f"symphony: more words than it takes: {words}; see: {command} --help"
    from cyclopts import CycloptsPanel

    return CycloptsPanel(error)
