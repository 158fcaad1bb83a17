"""Texts that no decoder takes: a byte order mark, bytes that are no UTF-8, lone surrogates.

Invariant: only what cannot be read is replaced (by U+FFFD); the rest of a line stays as it is. A
server that writes such a text still says which turn it means and how that ended, and that must
not be lost with it. Pure; for `protocol.rpc` and `codex_app_server.events`, off the hot path.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import msgspec

__all__ = ["DECODE_ERRORS", "decode_mended", "mended"]

T = TypeVar("T")
DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_MARK = b"\xef\xbb\xbf"
_REPLACEMENT = rb"\ufffd"
# Escapes from left to right, so that an escaped backslash before a "u" is not taken for one.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def mended(line: bytes) -> bytes | None:
    """Return a line without what no decoder takes; None where there is nothing of that kind."""
    better = line.removeprefix(_MARK)
    better = better.decode("utf-8", "replace").encode()
    better = _ESCAPE.sub(_whole, better)
    return None if better == line else better


def decode_mended(decode: Callable[[bytes], T], line: bytes) -> T:
    """Decode a line; where that fails, as it is once it is mended.

    Raises:
        msgspec.MsgspecError: It is no JSON even then, or of another shape.
        UnicodeDecodeError, RecursionError: Likewise.
    """
    try:
        return decode(line)
    except DECODE_ERRORS:
        better = mended(line)
        if better is None:
            raise
        return decode(better)


def _whole(escape: re.Match[bytes]) -> bytes:
    return _REPLACEMENT if escape["lone"] else escape[0]
