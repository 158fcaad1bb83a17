"""Issues and other values as JSON text in the ledger, and back to exactly the same value.

``operations`` writes what the encoders give, ``reading`` takes it back. Trackers hand over text
of strangers, so a lone surrogate (not encodable as UTF-8) must not stop a claim from being saved.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from symphony.model.issue import Issue

_T = TypeVar("_T")


def encode_issue(issue: Issue) -> str:
    """Return the issue as JSON text."""
    return _encode(issue)


def decode_issue(text: str) -> Issue:
    """Return the issue that ``encode_issue`` wrote.

    Raises:
        ValueError: The text is not an issue (``msgspec.ValidationError`` is one of these).
    """
    return _decode(text, Issue)


def encode_optional(value: Any) -> str | None:
    """Return a value (frozen dataclasses of plain values) as JSON text, None as None."""
    return None if value is None else _encode(value)


def decode_optional(text: str | None, kind: type[_T]) -> _T | None:
    """Return the value of this type that ``encode_optional`` wrote.

    Raises:
        ValueError: The text is no such value.
    """
    return None if text is None else _decode(text, kind)


def _encode(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        # ASCII escapes carry lone surrogates, which msgspec refuses.
        return json.dumps(msgspec.to_builtins(value), ensure_ascii=True)


def _decode(text: str, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return msgspec.convert(json.loads(text), kind)


def storable(text: str | None) -> str | None:
    """Return the text with lone surrogates replaced, since SQLite stores UTF-8."""
    if text is None or text.isascii():
        return text
    return text.encode("utf-8", "replace").decode()


def capped(text: str | None, limit: int) -> str | None:
    """Return storable text of at most ``limit`` characters, the cut marked by an ellipsis."""
    if text is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    return storable(text)
