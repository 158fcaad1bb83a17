"""Takes the credentials out of what a provider sends back.

Pure. ``http`` passes every answer through it before anybody reads one, so that no message, no
issue and no result of a tool can repeat a token, whichever field a provider put it in.

Invariant: what is replaced is the credentials of the client's own headers, in the spellings that
JSON, URLs and Basic authentication give them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, quote_plus

PLACEHOLDER: Final = "[redacted]"
SHORTEST: Final = 8
"""Characters below which a credential is no token and might stand in any text."""

_CREDENTIALS: Final = frozenset({"authorization", "private-token"})


class SecretFilter:
    """Knows the credentials of some headers.

    Args:
        headers: As they are sent.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        found: set[str] = set()
        for secret in _secrets_in(headers):
            if len(secret) >= SHORTEST:
                found |= _spellings(secret)
        # The longest first: a spelling may contain another one.
        self._spellings = sorted(found, key=lambda text: (-len(text), text))

    def content(self, content: bytes) -> bytes:
        """The body of an answer without them."""
        for spelling in self._spellings:
            content = content.replace(spelling.encode(), PLACEHOLDER.encode())
        return content

    def text(self, text: str) -> str:
        """A text without them."""
        for spelling in self._spellings:
            text = text.replace(spelling, PLACEHOLDER)
        return text


def _secrets_in(headers: Mapping[str, str]) -> set[str]:
    """The credentials in these headers, also those inside of ``Basic``."""
    found: set[str] = set()
    for name, value in headers.items():
        words = value.split()
        if name.lower() not in _CREDENTIALS or not words:
            continue
        found.add(words[-1])
        if words[0].lower() == "basic":
            try:
                plain = base64.b64decode(words[-1]).decode("utf-8", "replace")
            except ValueError:
                continue
            found |= {plain, plain.partition(":")[2]}
    return found


def _spellings(secret: str) -> set[str]:
    written = json.dumps(secret)[1:-1]
    return {
        secret,
        written,
        written.replace("/", "\\/"),
        quote(secret, safe=""),
        quote_plus(secret),
    }
