"""Sends the typed requests: checks what goes out, decodes what comes back.

Invariants: a value of the wrong type is refused here with the member's name, before anything is
sent; an enum value that neither the pinned schema nor a newer server can know is refused too; an
experimental request without the capability is an `ExperimentalRequired` at once. An answer may
have any additions.

`codex_app_server.protocol.requests` has the methods, `codex_app_server.api` hands this to them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET

from codex_app_server import members
from codex_app_server.checks import LIMIT, check_values
from codex_app_server.errors import ExperimentalRequired, UnexpectedReply
from codex_app_server.handshake import ServerInfo
from codex_app_server.protocol import types
from codex_app_server.protocol.requests import ENUMS
from codex_app_server.protocol.unions import TaggedUnion

__all__ = ["Asker"]

Call = Callable[..., Awaitable[msgspec.Raw]]
SLOW_S = {
    "externalAgentConfig/import": 600.0,
    "feedback/upload": 120.0,
    "marketplace/add": 600.0,
    "marketplace/upgrade": 600.0,
    "mcpServer/tool/call": 600.0,
    "plugin/install": 600.0,
    "thread/guardianReview": 600.0,
    "thread/sample": 600.0,
}
"""Deadlines of requests that take as long as somebody else's work does."""

ENDLESS_S = 3600.0
AFTER_LIMIT_S = 30.0
WHOLE = ""
"""The name under which a union that is the params as a whole is given."""


class Asker:
    """The requests of one connection.

    Args:
        call: `Connection.call_raw`.
        server: What the server says of itself.
    """

    def __init__(self, call: Call, server: ServerInfo) -> None:
        self._call = call
        self._server = server
        self._decoders: dict[Any, Callable[[Any], Any]] = {}

    async def __call__(
        self,
        method: str,
        params: Mapping[str, Any] | None,
        timeout_s: float | None,
        idempotent: bool,
    ) -> Any:
        """Send a request and return its decoded answer.

        Raises:
            InvalidArgument: A member of the wrong type, or an enum value that is none.
            ExperimentalRequired: The method is experimental and this connection is not.
            UnexpectedReply: The answer is not of its type.
            CodexError: As for `Connection.call_raw`.
        """
        check_values(timeout_s=(timeout_s, LIMIT))
        known = types.CLIENT_REQUESTS[method]
        if known.experimental and not self._server.experimental:
            raise ExperimentalRequired(method, method)
        sent = None if params is None else self._checked(method, params, known.params)
        if timeout_s is None:
            timeout_s = _usual_deadline(method, params or {})
        raw = await self._call(method, sent, timeout_s=timeout_s, idempotent=idempotent)
        return self._decoded(method, raw, known.response)

    def _checked(self, method: str, params: Mapping[str, Any], kind: Any) -> Any:
        if WHOLE in params:
            sent: Any = params[WHOLE]
        else:
            sent = {name: value for name, value in params.items() if value is not UNSET}
        members.check_types(method, sent, self._decoder(kind))
        if WHOLE not in params:
            for wire, enum in ENUMS.get(method, {}).items():
                name = members.snake_name(wire)
                members.check_enum(method, name, sent.get(wire), enum, self._server.version)
        return sent

    def _decoded(self, method: str, raw: msgspec.Raw, kind: Any) -> Any:
        try:
            return self._decoder(kind)(raw)
        except UnicodeDecodeError as error:
            raise UnexpectedReply(method, f"a text is no UTF-8 ({error.reason})") from None
        except msgspec.ValidationError as error:
            for name, union in vars(types).items():
                if isinstance(union, TaggedUnion) and getattr(types, name[1:]) is kind:
                    return union.one(raw)
            raise UnexpectedReply(method, str(error)) from None

    def _decoder(self, kind: Any) -> Callable[[Any], Any]:
        if kind not in self._decoders:
            self._decoders[kind] = msgspec.json.Decoder(kind).decode
        return self._decoders[kind]


def _usual_deadline(method: str, params: Mapping[str, Any]) -> float | None:
    """Return the deadline of a request whose caller gave none; None is the connection's."""
    if method != "command/exec":
        return SLOW_S.get(method)
    limit_ms = params.get("timeoutMs")
    if isinstance(limit_ms, int):
        return limit_ms / 1000 + AFTER_LIMIT_S
    return ENDLESS_S if params.get("disableTimeout") is True else None
