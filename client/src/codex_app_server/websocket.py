"""A transport over WebSocket, by TCP or by a unix socket: for a server that outlives its clients.

Invariants: one message is one line; no ``Origin`` header is ever sent (the server refuses it);
proxies of the environment are not used; a token goes into a header, never into a URL or a log, to
nobody before its certificate is checked (``wss``), and to no other address: redirects are refused.

What differs from a pipe. The server goes on when its clients are gone: turns run, approvals wait.
The next client that connects and resumes the thread (`Connection.resume_thread`) is asked again,
with the same ids; of several clients the first answer counts. A client that does not read is cut
by the server (`SlowClient`), while a pipe makes it wait. Observed on 0.125 to 0.169, where
WebSockets are marked experimental.

Needs the extra ``codex-app-server[websocket]``; importing this module does not.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import os
import ssl as tls
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from codex_app_server.checks import (
    CONTENT,
    SECONDS,
    TEXT,
    Checks,
    check_options,
    check_secrets,
    check_values,
    is_count,
    is_seconds,
    is_text,
    optional,
    or_none,
)
from codex_app_server.errors import (
    CertificateRefused,
    ConnectionClosed,
    HandshakeRefused,
    InvalidArgument,
    MissingExtra,
    SlowClient,
)
from codex_app_server.home import login_home
from codex_app_server.protocol.framing import DEFAULT_MAX_LINE_BYTES

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection, connect

__all__ = ["WebSocketTransport", "default_socket_path", "signed_bearer"]

QUEUED_BYTES = 8 * 1024 * 1024
BATCH_BYTES = 256 * 1024
CAUGHT_UP_S = 0.1
MESSAGE_TOO_BIG = 1009
RETRY_FIRST_S = 0.02
RETRY_MAX_S = 1.0
CLOSE_S = 2.0
# The package `websockets` logs headers and frames at DEBUG, tokens included: not here.
LOGGER = logging.getLogger(__name__)
LOGGER.setLevel(logging.INFO)
LOGGER.addFilter(lambda record: record.levelno > logging.DEBUG)
ALWAYS = {
    "logger": LOGGER,
    "compression": None,
    "close_timeout": CLOSE_S,
    "user_agent_header": None,
    "proxy": None,
}
_CHECKS: Checks = {
    "url": ("ws://host:port, wss://host or unix:///path/of.sock", is_text),
    "token": ("a text or None", or_none(lambda value: isinstance(value, str))),
    "headers": ("a mapping or None", or_none(lambda value: isinstance(value, Mapping))),
    "ssl": ("an ssl.SSLContext or None", or_none(lambda one: isinstance(one, tls.SSLContext))),
    "open_timeout_s": ("seconds above 0", is_seconds),
    "retry_for_s": ("seconds, or 0", lambda value: is_seconds(value) or value == 0),
    "keepalive_s": ("seconds above 0, or None", or_none(is_seconds)),
    "max_message_bytes": ("a number from 1", is_count),
}
# OpenSSL's verify codes.
UNKNOWN_AUTHORITY = (18, 19, 20, 21)
OTHER_NAME = (62, 64)
OUT_OF_TIME = (9, 10)


def default_socket_path(environment: Mapping[str, str] | None = None) -> Path:
    """Return where ``codex app-server --listen unix://`` listens: below its CODEX_HOME."""
    return login_home(environment) / "app-server-control" / "app-server-control.sock"


def signed_bearer(
    secret: bytes,
    *,
    lifetime_s: float = 300.0,
    issuer: str | None = None,
    audience: str | None = None,
    now: float | None = None,
) -> str:
    """Return a token for a server with ``--ws-auth signed-bearer-token``: a JWT with HS256.

    Args:
        secret: Content of its ``--ws-shared-secret-file``, without surrounding white space; the
            server asks for at least 32 bytes.
        lifetime_s: From now to its expiry.
        issuer: As its ``--ws-issuer``.
        audience: As its ``--ws-audience``.
        now: Unix seconds; the clock's by default.

    Raises:
        InvalidArgument: A secret that the server would refuse, or a lifetime that is over.
    """
    check_secrets(secret=(secret, CONTENT))
    check_values(
        lifetime_s=(lifetime_s, SECONDS),
        issuer=(issuer, optional(TEXT)),
        audience=(audience, optional(TEXT)),
        now=(now, ("Unix seconds, or None", or_none(is_seconds))),
    )
    if len(secret) < 32:
        raise InvalidArgument(f"secret has {len(secret)} bytes: the server asks for at least 32")
    issued = time.time() if now is None else now
    claims: dict[str, Any] = {"exp": int(issued + lifetime_s), "iat": int(issued)}
    claims |= {"iss": issuer} if issuer is not None else {}
    claims |= {"aud": audience} if audience is not None else {}
    parts = [
        _base64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)
    ]
    signature = hmac.new(secret, ".".join(parts).encode(), hashlib.sha256).digest()
    return ".".join([*parts, _base64(signature)])


class WebSocketTransport:
    """A transport to a listening app-server. Use `connect`.

    Attributes:
        url: Where it leads, without credentials.
    """

    def __init__(self, connection: ClientConnection, url: str) -> None:
        self.url = url
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._closed = False
        self._messages: deque[bytes] = deque()
        self._queued_bytes = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._behind = False
        self._end: ConnectionClosed | None = None
        self._ended = False
        self._pump = self._loop.create_task(self._take_messages(), name="codex-websocket")

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        ssl: tls.SSLContext | None = None,
        open_timeout_s: float = 10.0,
        retry_for_s: float = 0.0,
        keepalive_s: float | None = None,
        max_message_bytes: int = DEFAULT_MAX_LINE_BYTES,
    ) -> WebSocketTransport:
        """Connect to a server that listens.

        To connect again after a loss, call this again with ``retry_for_s`` and resume the threads.

        Args:
            url: ``ws://host:port``, ``wss://host[:port]``, ``unix:///path/of.sock``, or ``unix://``
                for `default_socket_path`.
            token: The capability token, or what `signed_bearer` returns.
            headers: More headers of the upgrade; not ``Origin``.
            ssl: Whom ``wss`` trusts, and the client's own certificate where one is asked for; by
                default `ssl.create_default_context()`: the system's authorities, or those of
                ``SSL_CERT_FILE``, and the name of the host is checked.
            open_timeout_s: Deadline of one attempt.
            retry_for_s: How long a server that does not listen yet is tried again.
            keepalive_s: Seconds between pings; a server that answers none for as long is given up.
                Off by default: a paused reader would be mistaken for a dead server.
            max_message_bytes: A longer message ends the connection.

        Raises:
            InvalidArgument: An argument that cannot work, such as ``ssl`` without ``wss``.
            MissingExtra: The package ``websockets`` is not installed.
            CertificateRefused: Its authority is unknown, its name another, its time over.
            HandshakeRefused: An HTTP error, such as 401 for a token, or a redirect.
            ConnectionClosed: Nobody listens there, or not in time.
        """
        limits: dict[str, Any] = {"open_timeout_s": open_timeout_s, "retry_for_s": retry_for_s}
        limits |= {"keepalive_s": keepalive_s, "max_message_bytes": max_message_bytes}
        whom = {"url": url, "token": token, "headers": headers, "ssl": ssl}
        check_options({**whom, **limits}, _CHECKS)
        connector = _connector()
        shown, target, path = _target(url)
        options = {
            "additional_headers": _headers(headers, token),
            "open_timeout": open_timeout_s,
            "max_size": max_message_bytes,
            **dict.fromkeys(("ping_interval", "ping_timeout"), keepalive_s),
            **ALWAYS,
            **_security(ssl, shown),
        }
        if path is not None:
            options |= {"unix": True, "path": path}

        async def attempt() -> ClientConnection:
            return await connector(target, **options)

        deadline = asyncio.get_running_loop().time() + retry_for_s
        return cls(await _retrying(attempt, shown, deadline), shown)

    async def send(self, data: bytes) -> None:
        """See `Transport.send`; each line becomes one message."""
        from websockets.exceptions import ConnectionClosed as Closed

        try:
            for line in data.splitlines():
                await self._connection.send(line, text=True)
        except Closed as error:
            raise self._reason(error) from error

    async def receive(self) -> bytes:
        """See `Transport.receive`.

        Raises:
            ConnectionClosed: The connection broke; `SlowClient` where the server cut it for that.
        """
        # Yields at least once, so that whoever consumes the last bytes gets its turn.
        await asyncio.sleep(0)
        if not self._messages and not self._ended:
            self._arrived.clear()
            waited_from = self._loop.time()
            await self._arrived.wait()
            if self._loop.time() - waited_from >= CAUGHT_UP_S:
                self._behind = False
        parts: list[bytes] = []
        size = 0
        while self._messages and size < BATCH_BYTES:
            parts.append(self._messages.popleft())
            size += len(parts[-1])
        self._queued_bytes -= size
        self._room.set()
        if parts:
            return b"\n".join(parts) + b"\n"
        if self._end is not None:
            raise self._end
        return b""

    async def aclose(self) -> None:
        """Close the connection; the server and its turns go on. Safe to call twice."""
        self._closed = True
        self._room.set()
        await self._connection.close()
        if not self._pump.done():
            self._pump.cancel()
            await asyncio.wait([self._pump])

    async def _take_messages(self) -> None:
        """Take messages as they come while there is room, and note when there is none."""
        from websockets.exceptions import ConnectionClosed as Closed
        from websockets.exceptions import ConnectionClosedOK

        try:
            while True:
                message = await self._connection.recv(decode=False)
                self._messages.append(message)
                self._queued_bytes += len(message)
                self._arrived.set()
                while self._queued_bytes > QUEUED_BYTES and not self._closed:
                    self._behind = True
                    self._room.clear()
                    await self._room.wait()
        except ConnectionClosedOK:
            pass
        except Closed as error:
            if not self._closed:
                self._end = self._reason(error)
        finally:
            self._ended = True
            self._arrived.set()

    def _reason(self, error: Any) -> ConnectionClosed:
        """Return our word for the end of a connection."""
        if self._closed:
            return ConnectionClosed("the connection was closed here")
        if error.rcvd is None and error.sent is None and self._behind:
            # The server cuts without a close frame; that we lagged is what tells it from a crash.
            return SlowClient(f"{self.url} cut this client, which read too slowly")
        if error.sent is not None and error.sent.code == MESSAGE_TOO_BIG:
            return ConnectionClosed(f"{self.url} sent a message over the limit")
        if error.sent is not None and "ping timeout" in error.sent.reason:
            return ConnectionClosed(f"{self.url} answered no ping in time and was given up")
        if error.rcvd is None:
            return ConnectionClosed(f"{self.url} is gone: the connection broke")
        words = error.rcvd.reason or "without a reason"
        return ConnectionClosed(f"{self.url} closed the connection ({error.rcvd.code}, {words})")


async def _retrying(
    attempt: Callable[[], Awaitable[ClientConnection]], shown: str, deadline: float
) -> ClientConnection:
    from websockets.exceptions import InvalidStatus, WebSocketException

    loop, pause_s = asyncio.get_running_loop(), RETRY_FIRST_S
    while True:
        try:
            return await attempt()
        except InvalidStatus as error:
            status = error.response.status_code
            hint = ": is the token right?" if status in (401, 403) else ""
            if 300 <= status < 400:
                hint = ": redirects are not followed, connect to where the server itself listens"
            raise HandshakeRefused(f"{shown} refused with HTTP {status}{hint}", status) from error
        except tls.SSLCertVerificationError as error:
            raise CertificateRefused(
                f"the certificate of {shown} does not hold: {_distrust(error)}", error.verify_code
            ) from error
        except (OSError, WebSocketException) as error:
            # TimeoutError is an OSError; an upgrade that breaks off is a server that is starting.
            if loop.time() + pause_s > deadline:
                raise ConnectionClosed(f"cannot connect to {shown}: {_why(error)}") from error
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, RETRY_MAX_S)


def _distrust(error: tls.SSLCertVerificationError) -> str:
    """Return what is wrong with a certificate, and the mend."""
    words = error.verify_message.rstrip(".")
    if error.verify_code in UNKNOWN_AUTHORITY:
        mend = (
            "give its authority as ssl=ssl.create_default_context(cafile='ca.pem'), "
            "or name that file in SSL_CERT_FILE"
        )
    elif error.verify_code in OTHER_NAME:
        mend = "connect by a name that it carries, or have this one added to it"
    elif error.verify_code in OUT_OF_TIME:
        mend = "renew it, or set the clock of this machine"
    else:
        mend = "replace it, or give an ssl context that takes it"
    return f"{words}; {mend}"


def _why(error: Exception) -> str:
    if isinstance(error, tls.SSLError):
        return f"no TLS there ({error.reason or error}); is it a server for ws://?"
    if isinstance(error, FileNotFoundError):
        return "no such socket; start `codex app-server --listen unix://PATH`"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there; start `codex app-server --listen ws://HOST:PORT`"
    return str(error) or type(error).__name__


def _target(url: str) -> tuple[str, str, str | None]:
    """Return a URL for messages, the WebSocket URL, and the path of a unix socket or None."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidArgument(f"url: {error}") from error
    if parts.scheme == "unix":
        path = str(default_socket_path()) if not parts.path and not parts.netloc else parts.path
        if parts.netloc or not os.path.isabs(path):
            raise InvalidArgument(
                "url: unix:// needs an absolute path, as in unix:///run/codex.sock"
            )
        return f"unix://{path}", "ws://localhost/", path
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise InvalidArgument("url: use ws://host:port, wss://host or unix:///path/of.sock")
    if parts.username is not None or parts.password is not None:
        raise InvalidArgument("url: give credentials as token= or headers=, not in the URL")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    shown = f"{parts.scheme}://{host}" + (f":{port}" if port else "")
    return shown, url, None


def _headers(headers: Mapping[str, str] | None, token: str | None) -> dict[str, str]:
    if any(name.lower() == "origin" for name in headers or {}):
        raise InvalidArgument("headers: the server refuses every client that sends Origin")
    bearer = {} if token is None else {"Authorization": f"Bearer {_checked_token(token)}"}
    return {**(headers or {}), **bearer}


def _security(context: tls.SSLContext | None, shown: str) -> dict[str, Any]:
    if shown.startswith("wss:"):
        return {"ssl": context if context is not None else tls.create_default_context()}
    if context is not None:
        raise InvalidArgument(f"ssl: only wss:// is encrypted, and the URL is {shown}")
    return {}


def _checked_token(token: str) -> str:
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidArgument("token: it is empty or has characters that no header can carry")
    return token


def _connector() -> type[connect]:
    """Return what connects, without its habit of following redirects with our headers."""
    try:
        from websockets.asyncio.client import connect
    except ImportError as error:
        raise MissingExtra(
            "the WebSocket transport needs the package `websockets`: "
            "install codex-app-server[websocket]"
        ) from error

    class Direct(connect):
        def process_redirect(self, exc: Exception) -> Exception | str:
            return exc

    return Direct


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
