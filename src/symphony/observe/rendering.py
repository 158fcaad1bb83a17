"""One log event as one line: key=value pairs (logfmt), or JSON.

``logs`` calls these in the thread that logs. Every line can be parsed back: a value is bare, or a
JSON string in quotes, so that no text of a stranger can start a line or a pair of its own.
"""

from __future__ import annotations

import json
import re
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from symphony.model.clock import iso

from .redaction import Redactor

VALUE_LIMIT = 8192
"""Characters kept of one value (SPEC 13.1: no large payloads)."""

_OWN_KEYS = frozenset({"ts", "level", "logger", "msg"})
_NEEDS_QUOTES = re.compile(r'[\s="\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')
_UNSAFE_IN_QUOTES = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(frozen=True, slots=True)
class LogEvent:
    """What is logged: epoch seconds, level, the logger's name, a constant message, its fields."""

    wall: float
    level: str
    logger: str
    message: str
    fields: Mapping[str, Any]


def render_logfmt(event: LogEvent, redactor: Redactor) -> str:
    """Return ``ts=... level=... logger=... msg="..." key=value ...``, fields in their order."""
    pairs = [
        f"ts={_timestamp(event.wall)} level={event.level} logger={_quoted(event.logger)}",
        f"msg={_quoted(_cut(redactor.text(event.message)))}",
    ]
    for key, value in _prepared(event.fields, redactor).items():
        pairs.append(f"{_NOT_IN_KEYS.sub('_', key) or '_'}={_quoted(_text(value))}")
    return " ".join(pairs)


def render_json(event: LogEvent, redactor: Redactor) -> str:
    """Return one JSON object with ``ts``, ``level``, ``logger``, ``msg`` and the fields."""
    line: dict[str, Any] = {
        "ts": _timestamp(event.wall),
        "level": event.level,
        "logger": event.logger,
        "msg": _cut(redactor.text(event.message)),
    }
    for key, value in _prepared(event.fields, redactor).items():
        plain = value is None or isinstance(value, bool | int | float)
        if not plain:
            text = _text(value)
            value = text if isinstance(value, str) or len(text) > VALUE_LIMIT else value
        line[key] = value
    return json.dumps(line, default=str)


def _prepared(fields: Mapping[str, Any], redactor: Redactor) -> dict[str, Any]:
    """Redact all fields, keep them apart from the line's own, make ``exc_info`` a text."""
    prepared = {}
    for key, value in fields.items():
        if key == "exc_info":
            if (trace := _traceback(value)) is not None:
                prepared["exception"] = redactor.text(trace)
        else:
            prepared[f"{key}_" if key in _OWN_KEYS else key] = redactor.value(value)
    return prepared


def _traceback(exc_info: Any) -> str | None:
    match exc_info:
        case BaseException():
            error = exc_info
        case (_, BaseException() as error, _):
            pass
        case _ if exc_info:
            current = sys.exc_info()[1]
            if current is None:
                return None
            error = current
        case _:
            return None
    return "".join(traceback.format_exception(error)).rstrip()


def _timestamp(wall: float) -> str:
    return iso(wall, microseconds=True)[:-4] + "Z"


def _text(value: Any) -> str:
    match value:
        case str():
            return _cut(value)
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case list() | dict():
            return _cut(json.dumps(value, ensure_ascii=False, default=str))
        case _:
            return str(value)


def _cut(text: str) -> str:
    if len(text) <= VALUE_LIMIT:
        return text
    return f"{text[:VALUE_LIMIT]}...({len(text) - VALUE_LIMIT} more)"


def _quoted(text: str) -> str:
    if text and _NEEDS_QUOTES.search(text) is None:
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNSAFE_IN_QUOTES.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)
