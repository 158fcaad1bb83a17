"""What the server tells: one `Event` a notification, decoded as late as possible.

Invariant: whatever arrives becomes a value. An unknown method has `UnknownNotification` as its
params, a known one of the wrong shape `InvalidParams`, a line that is no message is a
`MalformedLine`. Nothing here raises on account of the server.

`codex_app_server.protocol.rpc` decodes lines straight into these: deltas (the hot path) typed in
one pass, all others with just enough to be routed, their params when they are first read. Pure.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Generic, TypeVar, Union

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from codex_app_server.protocol.deltas import DELTAS
from codex_app_server.protocol.mending import DECODE_ERRORS, decode_mended

__all__ = [
    "DELTA_METHODS",
    "DeltaEvent",
    "Event",
    "InvalidParams",
    "MalformedLine",
    "Notification",
    "UnknownNotification",
    "delta_decoder",
    "with_delta",
]

T = TypeVar("T")

DELTA_METHODS = frozenset(
    {
        "item/agentMessage/delta",
        "item/plan/delta",
        "item/reasoning/summaryTextDelta",
        "item/reasoning/textDelta",
        "item/commandExecution/outputDelta",
        "item/fileChange/outputDelta",
    }
)
"""Notifications that add text to an open item; the only ones that may be merged or dropped."""


class UnknownNotification(Struct):
    """Params of a method that the pinned schema does not know."""

    method: str
    params: Any


class InvalidParams(Struct):
    """Params of a known method that do not have the shape of the schema."""

    method: str
    params: Any
    error: str


class _Ref(Struct, gc=False, frozen=True):
    id: str | None = None


class _Scope(Struct, gc=False, frozen=True, rename="camel"):
    """The part of params that says whom a message concerns."""

    thread_id: str | None = None
    turn_id: str | None = None
    turn: _Ref | None = None
    thread: _Ref | None = None


class Event(Struct, gc=False, eq=False, kw_only=True):
    """A notification: a `Notification`, a `DeltaEvent` or a `MalformedLine`.

    Attributes:
        raw: The line as received, without its newline.
        received_at: Monotonic seconds when the bytes were read.
        merged: How many deltas were merged into this one (1: none were).
    """

    # These are set after decoding; the names on the wire cannot occur in practice.
    raw: bytes = field(default=b"", name="<raw>")
    received_at: float = field(default=0.0, name="<at>")
    merged: int = field(default=1, name="<merged>")

    @property
    def method(self) -> str:
        """Such as ``item/completed``; empty for a malformed line."""
        return ""

    @property
    def thread_id(self) -> str | None:
        """The thread that this concerns, or None."""
        return None

    @property
    def turn_id(self) -> str | None:
        """The turn that this concerns, or None."""
        return None

    @property
    def params(self) -> Any:
        """The typed params (`codex_app_server.protocol.types`), decoded at the first access.

        `UnknownNotification` or `InvalidParams` where they cannot be decoded.
        """
        return None

    @property
    def is_delta(self) -> bool:
        """Whether this only adds text to an open item."""
        return self.method in DELTA_METHODS

    @property
    def data(self) -> dict[str, Any]:
        """The params as plain data, decoded anew at each access; empty if they are no object."""
        params = _lenient_params(self.raw)
        return params if isinstance(params, dict) else {}

    def __repr__(self) -> str:
        # Never the content: prompts and outputs do not belong in logs.
        return f"{type(self).__name__}({self.method!r}, {self.thread_id}, {self.turn_id})"


class Notification(Event, gc=False, eq=False, kw_only=True):
    """Any notification whose params are decoded when they are read."""

    method: str = ""
    id: int | str | UnsetType | None = UNSET
    scope: _Scope | None = field(default=None, name="params")
    cached: Any = field(default=UNSET, name="<params>")

    @property
    def thread_id(self) -> str | None:
        """The thread that this concerns, or None."""
        scope = self.scope
        if scope is None:
            return None
        if scope.thread_id is None and scope.thread is not None:
            return scope.thread.id
        return scope.thread_id

    @property
    def turn_id(self) -> str | None:
        """The turn that this concerns, or None."""
        scope = self.scope
        if scope is None:
            return None
        if scope.turn_id is None and scope.turn is not None:
            return scope.turn.id
        return scope.turn_id

    @property
    def params(self) -> Any:
        """See `Event.params`."""
        if self.cached is UNSET:
            self.cached = _decode_params(self.method, self.raw)
        return self.cached


class DeltaEvent(Event, gc=False, eq=False, kw_only=True):
    """A delta, its params decoded together with the line (the hot path)."""

    @property
    def method(self) -> str:
        """Such as ``item/agentMessage/delta``."""
        return str(self.__struct_config__.tag)

    @property
    def thread_id(self) -> str | None:
        """The thread that this concerns."""
        return str(self.params.thread_id)

    @property
    def turn_id(self) -> str | None:
        """The turn that this concerns."""
        return str(self.params.turn_id)


class MalformedLine(Event, gc=False, eq=False, kw_only=True):
    """A line that is no JSON-RPC message.

    Attributes:
        reason: What is wrong with it.
        size: Its length in bytes; ``raw`` keeps only the beginning of a long one.
    """

    reason: str = ""
    size: int = 0

    @property
    def params(self) -> Any:
        """Always `InvalidParams`."""
        return InvalidParams("", self.raw.decode("utf-8", "replace"), self.reason)


@functools.cache
def delta_decoder() -> Callable[[bytes], DeltaEvent]:
    """Return a decoder of delta lines, typed in one pass; any other line makes it raise."""
    kinds = [
        msgspec.defstruct(
            DELTAS[method].__name__.replace("Notification", "Event"),
            [("params", DELTAS[method])],
            bases=(DeltaEvent,),
            # Facts of the class, not properties: whoever counts deltas asks each event.
            namespace={"method": method, "is_delta": True},
            tag_field="method",
            tag=method,
            gc=False,
            eq=False,
            kw_only=True,
        )
        for method in sorted(DELTA_METHODS & DELTAS.keys())
    ]
    decoder: msgspec.json.Decoder[DeltaEvent] = msgspec.json.Decoder(Union[tuple(kinds)])  # noqa: UP007 # made at run time
    return decoder.decode


def with_delta(event: Event, delta: str, merged: int) -> Event:
    """Return a copy of a delta event with another text, in its raw line and its params."""
    message = decode_mended(msgspec.json.decode, event.raw)
    message["params"]["delta"] = delta
    raw = msgspec.json.encode(message)
    copy = msgspec.structs.replace(event, raw=raw, merged=merged)
    if isinstance(copy, DeltaEvent):
        return msgspec.structs.replace(
            copy, params=msgspec.structs.replace(event.params, delta=delta)
        )
    return msgspec.structs.replace(copy, cached=UNSET)


class _Line(Struct, Generic[T]):
    params: T


class _AnyLine(Struct):
    params: Any = None


_decode_any = msgspec.json.Decoder(_AnyLine).decode
_decoders: dict[str, Callable[[bytes], _Line[Any]] | None] = {}


def _decoder(method: str) -> Callable[[bytes], _Line[Any]] | None:
    if method not in _decoders:
        params = DELTAS.get(method)
        if params is None:
            # The generated module is large and many users never read typed params.
            from codex_app_server.protocol.types import NOTIFICATIONS

            params = NOTIFICATIONS.get(method)
        if params is None:
            return None
        _decoders[method] = msgspec.json.Decoder(_Line[params]).decode  # type: ignore[valid-type]
    return _decoders[method]


def _decode_params(method: str, raw: bytes) -> Any:
    decode = _decoder(method)
    if decode is None:
        return UnknownNotification(method, _lenient_params(raw))
    try:
        return decode_mended(decode, raw).params
    except DECODE_ERRORS as error:
        return InvalidParams(method, _lenient_params(raw), str(error))


def _lenient_params(raw: bytes) -> Any:
    try:
        return decode_mended(_decode_any, raw).params
    except DECODE_ERRORS:
        return None
