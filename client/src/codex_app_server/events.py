"""What the server tells: one `Event` a notification, decoded as late as possible.

Invariant: whatever arrives becomes a value. An unknown method has `UnknownNotification` as its
params, a known one of the wrong shape `InvalidParams`, a line that is no message is a
`MalformedLine`. Nothing here raises on account of the server.

`Event` is decoded straight from the line by `codex_app_server.protocol.rpc` (the hot path: one
pass, two objects); the typed params are decoded when they are first read. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

__all__ = ["DELTA_METHODS", "Event", "InvalidParams", "MalformedLine", "UnknownNotification"]

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


class Event(Struct, gc=False, eq=False):
    """A notification.

    Attributes:
        method: Such as ``item/completed``.
        raw: The line as received, without its newline.
        received_at: Monotonic seconds when the bytes were read.
        merged: How many deltas were merged into this one (1: none were).
    """

    # The wire has method, id and params; the other fields are set after decoding, and their names
    # on the wire cannot occur in practice.
    method: str = ""
    id: int | str | UnsetType | None = UNSET
    scope: _Scope | None = field(default=None, name="params")
    raw: bytes = field(default=b"", name="<raw>")
    received_at: float = field(default=0.0, name="<at>")
    merged: int = field(default=1, name="<merged>")
    _params: Any = field(default=UNSET, name="<params>")

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
    def is_delta(self) -> bool:
        """Whether this only adds text to an open item."""
        return self.method in DELTA_METHODS

    @property
    def params(self) -> Any:
        """The typed params (`codex_app_server.protocol.types`), decoded at the first access.

        `UnknownNotification` or `InvalidParams` where they cannot be decoded.
        """
        if self._params is UNSET:
            self._params = _decode_params(self.method, self.raw)
        return self._params

    @property
    def data(self) -> dict[str, Any]:
        """The params as plain data, decoded anew at each access; empty if they are no object."""
        return _plain_params(self.raw)

    def __repr__(self) -> str:
        # Never the content: prompts and outputs do not belong in logs.
        return f"{type(self).__name__}({self.method!r}, {self.thread_id}, {self.turn_id})"


class MalformedLine(Event, kw_only=True):
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
        return InvalidParams(self.method, self.raw.decode("utf-8", "replace"), self.reason)


class _Line(Struct, Generic[T]):
    params: T


class _AnyLine(Struct):
    params: Any = None


_decode_any = msgspec.json.Decoder(_AnyLine).decode
_decoders: dict[str, Callable[[bytes], _Line[Any]] | None] = {}


def _decoder(method: str) -> Callable[[bytes], _Line[Any]] | None:
    if method not in _decoders:
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
        return decode(raw).params
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return InvalidParams(method, _lenient_params(raw), str(error))


def _lenient_params(raw: bytes) -> Any:
    try:
        return _decode_any(raw).params
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _plain_params(raw: bytes) -> dict[str, Any]:
    params = _lenient_params(raw)
    return params if isinstance(params, dict) else {}
