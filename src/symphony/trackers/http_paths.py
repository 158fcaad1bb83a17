"""The guard of the paths and methods that an agent hands to a provider tool.

Pure. An agent is hostile: its path must mean on the provider's side what the scope check read
here. So a path is taken apart, decoded once, checked segment by segment and put together again;
the call sends the result, never the agent's text.

Invariant: a guarded path has no dot segment, no empty segment, no query, no host, no control
character, and decodes to the same segments however often it is decoded.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

MAX_PATH: Final = 2_000

_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ESCAPE: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_SAFE: Final = "-._~!$&'()*+,;=:@"


class BadCall(ValueError):
    """The agent's method or path can't be used; the message says what is expected."""


@dataclass(frozen=True, slots=True)
class GuardedPath:
    """A path that is safe to send.

    Attributes:
        text: The path in its one spelling, percent-encoded, beginning with ``/``.
        segments: The same decoded, for scope checks.
    """

    text: str
    segments: tuple[str, ...]


def guard_method(method: object, allowed: Collection[str]) -> str:
    """Return the method in upper case.

    Raises:
        BadCall: It is none of the allowed ones.
    """
    name = method.strip().upper() if isinstance(method, str) else ""
    if name not in allowed:
        raise BadCall(f"`method` must be one of {', '.join(allowed)}.")
    return name


def guard_path(path: object, *, encoded_slash: bool = False) -> GuardedPath:
    """Return the path in its one spelling.

    Args:
        path: What the agent gave.
        encoded_slash: Whether a segment may hold ``%2F``, as GitLab's project paths do.

    Raises:
        BadCall: It is no plain absolute path; the message says why.
    """
    text = path.strip(" ") if isinstance(path, str) else ""
    if not text.startswith("/"):
        raise BadCall("`path` must be a text that begins with `/`, relative to the API's address.")
    if len(text) > MAX_PATH:
        raise BadCall(f"`path` must not be longer than {MAX_PATH} characters.")
    if any(not c.isprintable() or c == "\\" for c in text):
        raise BadCall("`path` must not contain control characters, line breaks or backslashes.")
    if "?" in text or "#" in text:
        raise BadCall("`path` must not contain a query or fragment; use the argument for them.")
    if "://" in text or text.startswith("//"):
        raise BadCall("`path` must not name a host.")
    if _BAD_ESCAPE.search(text):
        raise BadCall("`path` contains a `%` that is no percent-encoding.")
    raw = text[1:].split("/")
    if raw[-1] == "" and len(raw) > 1:
        raw.pop()
    segments = tuple(_segment(part, encoded_slash) for part in raw)
    return GuardedPath("/" + "/".join(quote(part, safe=_SAFE) for part in segments), segments)


def plain_name(segment: str) -> str:
    """A segment in the form in which names of resources compare.

    Servers ignore the case, strip ``;parameters`` and take ``.json`` for a wish about the answer.
    """
    return segment.partition(";")[0].partition(".")[0].strip().lower()


def _segment(raw: str, encoded_slash: bool) -> str:
    try:
        part = unquote(raw, errors="strict")
        part.encode()
    except UnicodeError:
        raise BadCall("`path` contains a percent-encoding that is no UTF-8.") from None
    # Some servers strip `;parameters` and decode twice before they resolve dot segments.
    if part == "" or part.split(";")[0] in (".", ".."):
        raise BadCall("`path` must not contain `.`, `..` or empty segments.")
    if any(not c.isprintable() or c == "\\" for c in part) or _ESCAPE.search(part):
        raise BadCall("`path` must not hide characters behind percent-encodings.")
    # Full-width dots and slashes: a server that folds Unicode would read the plain ones.
    folded = unicodedata.normalize("NFKC", part)
    slashes = folded.count("/") != part.count("/") or "\\" in folded
    if slashes or any(p.split(";")[0] in (".", "..") for p in folded.split("/")):
        raise BadCall("`path` must not hide dots or slashes behind other characters.")
    if "/" in part and not encoded_slash:
        raise BadCall("`path` must not contain an encoded slash.")
    if "/" in part and any(p.split(";")[0] in ("", ".", "..") for p in part.split("/")):
        raise BadCall("`path` must not contain `.`, `..` or empty segments.")
    return part
