"""Issues as JSON text in the ledger, and back to exactly the same value.

``ledger`` writes what ``encode_issue`` gives, ``reading`` takes it back. Trackers hand over text
of strangers, so a lone surrogate (not encodable as UTF-8) must not stop a claim from being saved.
"""

from __future__ import annotations

import json

import msgspec

from symphony.model.issue import Issue

_decoder = msgspec.json.Decoder(Issue)


def encode_issue(issue: Issue) -> str:
    """Return the issue as JSON text."""
    try:
        return msgspec.json.encode(issue).decode()
    except UnicodeEncodeError:
        # ASCII escapes carry lone surrogates, which msgspec refuses.
        return json.dumps(msgspec.to_builtins(issue), ensure_ascii=True)


def decode_issue(text: str) -> Issue:
    """Return the issue that ``encode_issue`` wrote.

    Raises:
        ValueError: The text is not an issue (``msgspec.ValidationError`` is one of these).
    """
    try:
        return _decoder.decode(text)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return msgspec.convert(json.loads(text), Issue)


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
