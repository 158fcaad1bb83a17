"""Tagged unions that are decoded when somebody reads them, and that never fail on a new tag.

Invariant: what comes in may grow. A server of a later version sends tags, and shapes of known tags,
that the pinned schema does not have; they become ``Unknown`` and the message around them stays
readable. For this the generated ``types`` module keeps a nested union as ``msgspec.Raw`` and reads
it through a ``TaggedUnion``. Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Raw, Struct

T = TypeVar("T")

EMPTY = Raw()
"""Stands for an absent union; not ``Raw | None``, because msgspec ignores Raw inside a union."""


class Unknown(Struct, frozen=True):
    """A value whose tag or shape the pinned schema does not know.

    Attributes:
        tag: The value of the tag field, if there is one and it is a string.
        value: The whole value as plain JSON types.
    """

    tag: str | None
    value: Any


class TaggedUnion(Generic[T]):
    """The lazy decoder of one tagged union.

    Args:
        field: The wire name of the tag, for example ``type``.
        union: Returns the union of its variants; called at the first decode, so that importing
            the generated module builds no decoder.
    """

    __slots__ = ("_decode", "_union", "field")

    def __init__(self, field: str, union: Callable[[], Any]) -> None:
        self.field = field
        self._union = union
        self._decode: Callable[[Raw], T] | None = None

    def one(self, raw: Raw) -> T | Unknown | None:
        """Decode one value; absent and ``null`` are None.

        Raises:
            msgspec.DecodeError: ``raw`` is no JSON; cannot happen to a part of a decoded message.
        """
        if raw is EMPTY:
            return None
        decode = self._decode
        if decode is None:
            decode = self._decode = msgspec.json.Decoder(self._union()).decode
        try:
            return decode(raw)
        except msgspec.ValidationError:
            return self._unknown(raw)
        except UnicodeDecodeError:
            # The message around it was taken: nobody reads a text before it is asked for.
            return self.one(Raw(bytes(raw).decode("utf-8", "replace").encode()))

    def many(self, raws: Sequence[Raw] | None) -> list[T | Unknown]:
        """Decode a list of values; absent is the empty list, and ``null`` members are left out."""
        decoded = [self.one(raw) for raw in raws or ()]
        return [value for value in decoded if value is not None]

    def values(self, raws: Mapping[str, Raw] | None) -> dict[str, T | Unknown]:
        """Decode the values of an object; absent is the empty dict."""
        decoded = {key: self.one(raw) for key, raw in (raws or {}).items()}
        return {key: value for key, value in decoded.items() if value is not None}

    def _unknown(self, raw: Raw) -> Unknown | None:
        try:
            value = msgspec.json.decode(raw)
        except UnicodeDecodeError:
            value = msgspec.json.decode(bytes(raw).decode("utf-8", "replace"))
        if value is None:
            return None
        tag = value.get(self.field) if isinstance(value, dict) else None
        return Unknown(tag if isinstance(tag, str) else None, value)


def raw_json(value: object) -> Raw:
    """Encode a value for a field that keeps its union as ``Raw``."""
    return Raw(msgspec.json.encode(value))
