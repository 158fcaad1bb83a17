"""Who may talk to the web surface, decided before any handler runs.

Role: an ASGI wrapper that checks Host and Origin, caps request bodies and adds the security
headers. Any page in the operator's browser can send requests to a loopback port, also under a name
of its own that it lets resolve to 127.0.0.1; the Host check stops the second, the Origin check
keeps the first from acting, and the missing CORS headers keep it from reading.
Invariant: over TCP no handler sees a request whose Host isn't allowed, or a changing request from
another origin. Over the control socket file permissions decide: a browser can't reach it.
Neighbours: ``app`` puts it around all routes.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .envelope import error_response
from .webhooks import MAX_WEBHOOK_BYTES

MAX_BODY_BYTES = 64 * 1024
"""Bodies carry a few words at most."""

WEBHOOK_PATH = "/api/v1/webhooks/"
"""Deliveries come from the provider under whatever name a proxy has, and prove who they are by a
signature: neither Host nor Origin says anything about them, and their answers show nothing."""

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_WILDCARDS = frozenset({"", "0.0.0.0", "::"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class HostRule:
    """Which Host headers are ours.

    Loopback names always are, and the host that is listened on. On a wildcard address every IP
    literal is, since a rebinding page needs a name, and this machine's own name.
    """

    __slots__ = ("_any_literal", "_names")

    def __init__(self, bound_host: str, extra: Iterable[str] = ()) -> None:
        bound = bound_host.strip("[]").lower()
        self._any_literal = bound in _WILDCARDS
        names = {*_LOOPBACK_NAMES, *(name.lower() for name in extra)}
        names.add(socket.gethostname().lower() if self._any_literal else bound)
        self._names = frozenset(names)

    def allows(self, authority: str) -> bool:
        """Tell whether ``name``, ``name:port`` or ``[address]:port`` is one of our names."""
        name = _hostname(authority)
        if name is None:
            return False
        return name in self._names or (self._any_literal and _is_literal(name))


class Guard:
    """The ASGI wrapper.

    Args:
        app: What it protects.
        hosts: The rule for the Host header of TCP requests.
        too_large: Called with the tracker's kind where a delivery of a webhook is over the cap.
    """

    def __init__(
        self, app: ASGIApp, hosts: HostRule, *, too_large: Callable[[str], None] | None = None
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._tell_too_large = too_large

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that may not pass; otherwise pass it on with capped body."""
        if scope["type"] != "http":
            return
        send = _with_security_headers(send)
        refusal = self._refusal(scope)
        if refusal is not None:
            await error_response(*refusal)(scope, receive, send)
            return
        await self._app(scope, self._capped(scope, receive), send)

    def _too_large(self, scope: Scope) -> None:
        if self._tell_too_large is not None and _is_delivery(scope):
            self._tell_too_large(scope["path"].rpartition("/")[2])

    def _capped(self, scope: Scope, receive: Receive) -> Receive:
        """Stop a chunked body at the cap, which Content-Length doesn't announce."""
        size, limit = 0, _body_limit(scope)

        async def wrapped() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > limit:
                self._too_large(scope)
                raise HTTPException(413)
            return message

        return wrapped

    def _refusal(self, scope: Scope) -> tuple[int, str, str] | None:
        """Return status, code and message of a request that may not pass."""
        headers = Headers(scope=scope)
        limit = _body_limit(scope)
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > limit:
            self._too_large(scope)
            return 413, "payload_too_large", f"A body may have {limit} bytes at most."
        return None if _is_delivery(scope) else self._stranger(scope, headers)

    def _stranger(self, scope: Scope, headers: Headers) -> tuple[int, str, str] | None:
        """Return why a request may come from another page, or None."""
        # uvicorn gives (path, None) as the server of a unix socket.
        server = scope.get("server")
        over_unix = server is not None and server[1] is None
        hosts = headers.getlist("host")
        if not over_unix and (len(hosts) != 1 or not self._hosts.allows(hosts[0])):
            return (
                403,
                "host_not_allowed",
                "The Host header names none of this server's addresses; "
                "open it under 127.0.0.1 or localhost.",
            )
        if scope["method"] not in _SAFE_METHODS and not _same_origin(headers):
            return 403, "origin_not_allowed", "Requests from other web pages are refused."
        return None


def _is_delivery(scope: Scope) -> bool:
    path: str = scope["path"]
    return scope["method"] == "POST" and path.startswith(WEBHOOK_PATH)


def _body_limit(scope: Scope) -> int:
    return MAX_WEBHOOK_BYTES if _is_delivery(scope) else MAX_BODY_BYTES


def _same_origin(headers: Headers) -> bool:
    """Tell whether a changing request comes from our own page or from no page at all."""
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return False
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    host = headers.get("host", "")
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def _hostname(authority: str) -> str | None:
    if any(mark in authority for mark in "@/\\?#, "):
        return None
    try:
        parts = urlsplit(f"//{authority}")
        _ = parts.port
    except ValueError:
        return None
    name = parts.hostname
    return name.lower().removesuffix(".") if name else None


def _is_literal(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _with_security_headers(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers[name] = value
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return wrapped
