"""The rules on single values: what a key's YAML may be, and what it becomes.

Pure. Each type says in one sentence what is allowed; ``settings`` builds its sections from them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from symphony.model.issue import normalize_state

from .blocked import changes_of, retry_delays
from .hours import parse_window, zone_of

_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+")
_ENV_REFERENCE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def env_reference(value: object) -> str | None:
    """Return NAME where the whole value is ``$NAME``, else None: there is no interpolation."""
    match = _ENV_REFERENCE.fullmatch(value) if isinstance(value, str) else None
    return match.group(1) if match else None


def whole_number(value: object) -> int | None:
    """Return an integer, or a string that is one, as int; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and len(value) <= 20 and _WHOLE_NUMBER.fullmatch(value):
        return int(value)
    return None


def _fault(problem: str) -> PydanticCustomError:
    # Braces would be read as placeholders of pydantic's message template.
    return PydanticCustomError("setting", "{problem}", {"problem": problem})


def _integer(value: object) -> int:
    number = whole_number(value)
    if number is None:
        raise _fault("must be an integer")
    return number


def _positive(value: object) -> int:
    number = whole_number(value)
    if number is None or number <= 0:
        raise _fault("must be an integer above 0")
    return number


def _natural(value: object) -> int:
    number = whole_number(value)
    if number is None or number < 0:
        raise _fault("must be an integer from 0 (0: off)")
    return number


def _percent(value: object) -> int:
    number = whole_number(value)
    if number is None or not 0 < number <= 100:
        raise _fault("must be a percentage from 1 to 100")
    return number


def _port(value: object) -> int:
    number = whole_number(value)
    if number is None or not 0 <= number <= 65535:
        raise _fault("must be a port from 0 to 65535 (0: the system chooses one)")
    return number


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in _BOOLEANS:
        return _BOOLEANS[value]
    raise _fault("must be true or false")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _fault("must be a string (put it in quotes if it is meant as text)")
    return value


def _filled(value: object) -> str:
    text = _text(value)
    if not text.strip():
        raise _fault("can't be blank")
    return text


def _reference(value: object) -> str:
    if env_reference(value) is None:
        raise _fault("must be $NAME: the secret itself belongs in the environment")
    return str(value)


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise _fault("must be a list of strings, one item per entry")
    others = [
        f"entry {position} is {_as_written(item)}"
        for position, item in enumerate(value, start=1)
        if not isinstance(item, str)
    ]
    if others:
        raise _fault(f"must be a list of strings; {', '.join(others)}: text needs quotes there")
    return tuple(value)


def _as_written(item: object) -> str:
    """Return an entry as YAML has it, a nested one by its kind alone."""
    if isinstance(item, Mapping):
        return "a map"
    if isinstance(item, (list, tuple)):
        return "a list"
    words = {None: "null", True: "true", False: "false"}
    if item is None or isinstance(item, bool):
        return words[item]
    return repr(item)[:80]


def _labels(value: object) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.strip().lower() for text in _texts(value)))


def _windows(value: object) -> tuple[str, ...]:
    windows = _texts(value)
    problems = []
    for text in windows:
        try:
            parse_window(text)
        except ValueError as error:
            problems.append(f"{text!r}: {error}")
    if problems:
        raise _fault("; ".join(problems))
    return windows


def _zone(value: object) -> str:
    name = _text(value)
    try:
        zone_of(name)
    except ValueError as error:
        raise _fault(str(error)) from None
    return name


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _fault("must be a map of keys and values")
    return dict(value)


def _text_or_mapping(value: object) -> str | dict[str, Any]:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return dict(value)
    raise _fault("must be a string or a map")


def state_limits(value: Mapping[Any, Any]) -> tuple[dict[str, int], list[str]]:
    """Return the valid per-state limits by compared state name, and a sentence per ignored entry.

    SPEC 5.3.5: invalid entries (blank name, not a positive integer) are ignored, the rest count.
    """
    limits: dict[str, int] = {}
    ignored: list[str] = []
    for name, limit in value.items():
        state, number = normalize_state(str(name)), whole_number(limit)
        if not state:
            ignored.append("an entry with a blank state name is ignored")
        elif number is None or number <= 0:
            ignored.append(f"entry {str(name)!r} is ignored: must be an integer above 0")
        else:
            if state in limits:
                ignored.append(f"state {state!r} stands twice; {number}, the last one, counts")
            limits[state] = number
    return limits, ignored


def _changes(value: object) -> tuple[str, ...]:
    try:
        return changes_of(_texts(value))
    except ValueError as error:
        raise _fault(str(error)) from error


def _retry_delays(value: object) -> dict[str, int]:
    try:
        return retry_delays(value)
    except ValueError as error:
        raise _fault(str(error)) from error


def _state_limits(value: object) -> dict[str, int]:
    return state_limits(_mapping(value))[0]


Integer = Annotated[int, BeforeValidator(_integer)]
Positive = Annotated[int, BeforeValidator(_positive)]
Natural = Annotated[int, BeforeValidator(_natural)]
Percent = Annotated[int, BeforeValidator(_percent)]
Port = Annotated[int, BeforeValidator(_port)]
Boolean = Annotated[bool, BeforeValidator(_boolean)]
Text = Annotated[str, BeforeValidator(_text)]
FilledText = Annotated[str, BeforeValidator(_filled)]
Reference = Annotated[str, BeforeValidator(_reference)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_texts)]
Labels = Annotated[tuple[str, ...], BeforeValidator(_labels)]
Windows = Annotated[tuple[str, ...], BeforeValidator(_windows)]
Zone = Annotated[str, BeforeValidator(_zone)]
Map = Annotated[dict[str, Any], BeforeValidator(_mapping)]
TextOrMap = Annotated[str | dict[str, Any], BeforeValidator(_text_or_mapping)]
StateLimits = Annotated[dict[str, int], BeforeValidator(_state_limits)]
Changes = Annotated[tuple[str, ...], BeforeValidator(_changes)]
RetryDelays = Annotated[dict[str, int], BeforeValidator(_retry_delays)]
