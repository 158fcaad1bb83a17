"""Replaces registered secret values wherever they occur in what is shown.

``logs`` passes every field of every line through it. Secrets are known by value, not by the name
of a field, so that one inside an error text, a URL or a command is found as well.
"""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any

PLACEHOLDER = "[redacted]"
SHORTEST = 4
"""Characters below which a value is no secret that could be told from ordinary text."""


class Redactor:
    """Knows the secrets of this process by value.

    Besides a secret itself its spellings in JSON, in URLs and in base64 are replaced.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._spellings: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self.add(*secrets)

    def add(self, *secrets: str | None) -> None:
        """Register secrets; None and values shorter than four characters are ignored."""
        for secret in secrets:
            if secret is not None and len(secret.strip()) >= SHORTEST:
                self._spellings.update(_spellings(secret.strip()))
        # The longest first: a secret may begin with another one.
        ordered = sorted(self._spellings, key=lambda text: (-len(text), text))
        self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def text(self, value: str) -> str:
        """Return the text with every secret replaced."""
        return value if self._pattern is None else self._pattern.sub(PLACEHOLDER, value)

    def value(self, value: Any) -> Any:
        """Return a JSON-like copy in which every text has its secrets replaced.

        What is neither text, number, list nor mapping becomes its ``str``.
        """
        match value:
            case None | bool() | int() | float():
                return value
            case str():
                return self.text(value)
            case Mapping():
                return {self.text(str(key)): self.value(item) for key, item in value.items()}
            case list() | tuple() | set() | frozenset():
                return [self.value(item) for item in value]
            case bytes():
                return self.text(value.decode("utf-8", "replace"))
            case _:
                return self.text(str(value))


def _spellings(secret: str) -> set[str]:
    raw = secret.encode("utf-8", "replace")
    found = {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        urllib.parse.quote(raw, safe=""),
        urllib.parse.quote_plus(raw),
        base64.b64encode(raw).decode().rstrip("="),
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
    }
    return {text for text in found if len(text) >= SHORTEST}
