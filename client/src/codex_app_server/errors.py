"""Every error of this library, and what a turn's failure code means for a retry.

::

    CodexError
    ├── InvalidArgument            refused before anything was sent (also a ValueError)
    ├── BinaryNotFound             the program to start does not exist or may not be run
    ├── UnsupportedVersion         the server is older than this library can work with
    ├── LoginFailed                a login ended without success
    ├── MissingExtra               a part of this library needs a package that is not installed
    ├── ConnectionClosed           the server is gone; ``returncode`` where it is known
    │   ├── BufferLimitExceeded    ended here: it held the most of a budget that was exceeded
    │   ├── CertificateRefused     the certificate behind ``wss://`` does not hold here: reason
    │   ├── HandshakeRefused       it answered the WebSocket upgrade with an HTTP error: status
    │   └── SlowClient             it cut a WebSocket client that did not read fast enough
    ├── ExecFailed                 ``codex exec`` ended without a turn: returncode, stderr
    ├── RecordingError             a recording cannot be written or read
    ├── RequestTimeout             no reply within the deadline; the connection stays usable
    ├── RequestError               the server refused a request: code, message, data
    │   ├── ExperimentalRequired   needs the capability experimentalApi
    │   ├── MethodUnavailable      this server does not know the method; its successor
    │   ├── Overloaded             -32001, after all retries
    │   └── ActiveWriter           another process has this thread open for writing
    ├── UnexpectedReply            a reply without the fields that its method promises
    └── TurnError                  about one turn: thread_id, turn_id
        ├── TurnInProgress         the thread runs a turn already; nothing was sent
        ├── TurnFailed             turn.status "failed": code, http_status, retryable, resets_at
        ├── TurnInterrupted        turn.status "interrupted"
        ├── ApprovalNeeded         a session's turn was ended: nobody gives an approval
        ├── InputNeeded            a session's turn was ended: nobody answers a question
        └── TurnTimeout            total, idle or first_event ran out; the turn was interrupted

Pure: imported by `codex_app_server.protocol`. Facts about failure codes were observed on 0.169.0.
"""

from __future__ import annotations

import copyreg
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from codex_app_server.approvals import ServerRequestInfo

__all__ = [
    "ActiveWriter",
    "ApprovalNeeded",
    "BinaryNotFound",
    "BufferLimitExceeded",
    "CertificateRefused",
    "CodexError",
    "ConnectionClosed",
    "ExecFailed",
    "ExperimentalRequired",
    "HandshakeRefused",
    "InputNeeded",
    "InvalidArgument",
    "LoginFailed",
    "MethodUnavailable",
    "MissingExtra",
    "Overloaded",
    "RecordingError",
    "RequestError",
    "RequestTimeout",
    "SlowClient",
    "TurnError",
    "TurnFailed",
    "TurnInProgress",
    "TurnInterrupted",
    "TurnTimeout",
    "UnexpectedReply",
    "UnsupportedVersion",
    "decode_error_info",
    "is_retryable",
    "limit_reset",
]

OVERLOADED = -32001

_RETRYABLE = frozenset(
    {
        "serverOverloaded",
        "internalServerError",
        "rateLimitExceeded",
        "flexUnavailable",
        "policyCapacityUnavailable",
        "httpConnectionFailed",
        "responseStreamConnectionFailed",
        "responseStreamDisconnected",
        "responseTooManyFailedAttempts",
        "usageLimitExceeded",
        "other",
    }
)
_NEVER_BY_STATUS = frozenset({400, 401, 403, 404, 422})


class CodexError(Exception):
    """Root of all errors of this library; they can be copied and pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Without __init__: what it takes is not what it leaves in `args`.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined] # not in typeshed


class InvalidArgument(CodexError, ValueError):
    """A value that the server would refuse or lose; nothing was sent."""


class BinaryNotFound(CodexError):
    """The program to start does not exist or may not be executed."""


class UnsupportedVersion(CodexError):
    """The server is older than this library can work with.

    Attributes:
        version: Of the server.
        floor: The oldest that works.
    """

    def __init__(self, version: str, floor: str) -> None:
        self.version = version
        self.floor = floor
        super().__init__(
            f"Codex {version} is too old: this library needs {floor} or newer; "
            "upgrade it, or name a newer binary"
        )


class LoginFailed(CodexError):
    """A login ended without success: refused, cancelled, or out of time.

    Attributes:
        login_id: Or None where the server gave none.
        reason: The server's words.
    """

    def __init__(self, reason: str, login_id: str | None = None) -> None:
        self.reason = reason
        self.login_id = login_id
        super().__init__(f"login failed: {reason}")


class ConnectionClosed(CodexError):
    """The connection has ended.

    Attributes:
        reason: Why, in words.
        returncode: Exit status of the server process (negative: signal), where it is known.
    """

    def __init__(self, reason: str, returncode: int | None = None) -> None:
        self.reason = reason
        self.returncode = returncode
        suffix = "" if returncode is None else f" (exit status {returncode})"
        super().__init__(reason + suffix)


class BufferLimitExceeded(ConnectionClosed):
    """The connection was ended here, since it held the most of a `BufferBudget` that was exceeded.

    Its server wrote a line without end. The other connections go on.

    Attributes:
        limit_bytes: Of the budget.
        held_bytes: What all of its connections held.
        own_bytes: What this one held of it.
    """

    def __init__(self, limit_bytes: int, held_bytes: int, own_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = held_bytes
        self.own_bytes = own_bytes
        super().__init__(
            f"unfinished lines of all connections came to {held_bytes} bytes, more than the limit "
            f"of {limit_bytes}; this one held the most, {own_bytes}, and was ended"
        )


class MissingExtra(CodexError):
    """A part of this library needs a package that is not installed; the message names it."""


class CertificateRefused(ConnectionClosed):
    """The certificate of a ``wss://`` server does not hold here; nothing was sent to it, no token.

    The message says how to mend it: another authority, another name, a new certificate.

    Attributes:
        verify_code: OpenSSL's, such as 20 for an authority that is unknown, 62 for another name.
    """

    def __init__(self, reason: str, verify_code: int) -> None:
        self.verify_code = verify_code
        super().__init__(reason)


class HandshakeRefused(ConnectionClosed):
    """A server answered the WebSocket upgrade with an HTTP error.

    Attributes:
        status: The HTTP status: 401 for a missing or wrong token, 403 for an ``Origin`` header, 3xx
            for a redirect, which is never followed.
    """

    def __init__(self, reason: str, status: int) -> None:
        self.status = status
        super().__init__(reason)


class SlowClient(ConnectionClosed):
    """The server cut a WebSocket client that did not read fast enough.

    Its turns go on in the server. Connect again and resume the threads, and read without pauses:
    ``overflow="block"`` is for pipes, where the server waits instead.
    """


class ExecFailed(CodexError):
    """``codex exec`` ended without the end of a turn.

    Attributes:
        returncode: Exit status, negative for a signal; None where it is not known.
        stderr: The end of what it wrote there.
    """

    def __init__(self, message: str, *, returncode: int | None, stderr: str) -> None:
        self.returncode = returncode
        self.stderr = stderr
        super().__init__(message)


class RecordingError(CodexError):
    """A recording cannot be written (a full disk) or read (no such file, a bad line)."""


class RequestTimeout(CodexError):
    """No reply to a request within its deadline; the request may still take effect.

    Attributes:
        method: Of the request.
        timeout_s: The deadline that ran out, in seconds.
        hint: What may be the cause, and which setting to raise; None where nothing is known.
    """

    def __init__(self, method: str, timeout_s: float, hint: str | None = None) -> None:
        self.method = method
        self.timeout_s = timeout_s
        self.hint = hint
        text = f"no reply to {method} within {timeout_s:g} s"
        super().__init__(text if hint is None else f"{text}: {hint}")


class RequestError(CodexError):
    """The server refused a request.

    Attributes:
        method: Of the request.
        code: JSON-RPC code; -32600 for nearly everything.
        message: The server's words.
        data: Further detail as received, or None.
    """

    def __init__(self, method: str, code: int, message: str, data: Any = None) -> None:
        self.method = method
        self.code = code
        self.message = message
        self.data = data
        super().__init__(f"{method} refused ({code}): {message}")


class ExperimentalRequired(RequestError):
    """Something needs the capability ``experimentalApi``, which this connection does not have.

    Attributes:
        capability: What needs it, such as ``thread/start.dynamicTools``.
    """

    def __init__(self, method: str, capability: str, code: int = -32600) -> None:
        self.capability = capability
        super().__init__(
            method,
            code,
            f"{capability} requires experimentalApi capability: open the connection with "
            "experimental=True, or do without",
        )


class MethodUnavailable(RequestError):
    """The connected server does not know the method.

    Attributes:
        successor: What took its place, in words; None where nothing is known.
    """

    def __init__(
        self, method: str, successor: str | None, *, version: str | None = None, code: int = -32600
    ) -> None:
        self.successor = successor
        who = f"Codex {version}" if version else "this server"
        hint = f"use {successor}" if successor else "see Connection.capabilities for what it knows"
        super().__init__(method, code, f"{who} does not know {method}: {hint}")


class Overloaded(RequestError):
    """The server refused with -32001 until the retries or the deadline ran out."""


class ActiveWriter(RequestError):
    """Another process has this thread open for writing; fork it, or end that process."""

    def __str__(self) -> str:
        return f"{super().__str__()}; fork it (fork_when_held=True), or end that process"


class UnexpectedReply(CodexError):
    """A reply without the fields that its method promises."""

    def __init__(self, method: str, detail: str) -> None:
        self.method = method
        super().__init__(f"reply to {method}: {detail}")


class TurnError(CodexError):
    """About one turn.

    Attributes:
        thread_id: Of the turn.
        turn_id: Or None where it never got one.
    """

    def __init__(self, message: str, *, thread_id: str, turn_id: str | None) -> None:
        self.thread_id = thread_id
        self.turn_id = turn_id
        super().__init__(message)


class TurnInProgress(TurnError):
    """The thread runs a turn already; a second start would be merged into it silently."""

    def __init__(self, *, thread_id: str, turn_id: str | None) -> None:
        super().__init__(
            f"thread {thread_id} runs turn {turn_id or '(starting)'} already: "
            "await or interrupt it, or steer it",
            thread_id=thread_id,
            turn_id=turn_id,
        )


class TurnFailed(TurnError):
    """The turn ended with status "failed".

    Attributes:
        code: ``codexErrorInfo`` without its detail, such as ``usageLimitExceeded``; "other" where
            the server gave none.
        message: The server's words.
        http_status: Of the model provider, where it was given.
        retryable: Whether the same turn may succeed later without a change.
        resets_at: Unix seconds from which a retry makes sense (usage limits), or None.
        details: ``additionalDetails`` as received.
    """

    def __init__(
        self,
        message: str,
        *,
        thread_id: str,
        turn_id: str | None,
        code: str = "other",
        http_status: int | None = None,
        resets_at: float | None = None,
        details: str | None = None,
    ) -> None:
        self.code = code
        self.message = message
        self.http_status = http_status
        self.retryable = is_retryable(code, http_status)
        self.resets_at = resets_at
        self.details = details
        super().__init__(f"turn failed ({code}): {message}", thread_id=thread_id, turn_id=turn_id)


class TurnInterrupted(TurnError):
    """The turn ended with status "interrupted": by us, by a cancelled approval, by a restart."""

    def __init__(self, *, thread_id: str, turn_id: str | None) -> None:
        super().__init__("turn interrupted", thread_id=thread_id, turn_id=turn_id)


class ApprovalNeeded(TurnError):
    """The agent wants an approval that nobody gives; the turn was interrupted.

    Attributes:
        request: What was asked.
    """

    def __init__(self, request: ServerRequestInfo, *, thread_id: str, turn_id: str | None) -> None:
        self.request = request
        super().__init__(
            f"the agent wants an approval ({request.method}) and nobody gives it: allow it with "
            "auto_approve or handlers, or choose a policy that does not ask",
            thread_id=thread_id,
            turn_id=turn_id,
        )


class InputNeeded(TurnError):
    """The agent asks a question that nobody answers; the turn was interrupted.

    Attributes:
        request: What was asked.
    """

    def __init__(self, request: ServerRequestInfo, *, thread_id: str, turn_id: str | None) -> None:
        self.request = request
        super().__init__(
            f"the agent asks for input ({request.method}) and nobody answers: give handlers, or "
            "auto_approve to have it answered without a person",
            thread_id=thread_id,
            turn_id=turn_id,
        )


class TurnTimeout(TurnError):
    """A time limit of the turn ran out; the turn was interrupted.

    Attributes:
        kind: ``total``, ``idle`` (silence) or ``first_event``.
        limit_s: The limit in seconds.
    """

    def __init__(
        self,
        kind: Literal["total", "idle", "first_event"],
        limit_s: float,
        *,
        thread_id: str,
        turn_id: str | None,
    ) -> None:
        self.kind = kind
        self.limit_s = limit_s
        super().__init__(
            f"turn exceeded its {kind.replace('_', ' ')} limit of {limit_s:g} s",
            thread_id=thread_id,
            turn_id=turn_id,
        )


def decode_error_info(info: object) -> tuple[str, int | None]:
    """Split ``codexErrorInfo`` into a code and an HTTP status.

    It is a string, or an object with one key such as
    ``{"httpConnectionFailed": {"httpStatusCode": 401}}``; anything else is "other".
    """
    if isinstance(info, str):
        return info, None
    if isinstance(info, Mapping) and len(info) == 1:
        ((code, detail),) = info.items()
        status = detail.get("httpStatusCode") if isinstance(detail, Mapping) else None
        return str(code), status if isinstance(status, int) else None
    return "other", None


def is_retryable(code: str, http_status: int | None = None) -> bool:
    """Tell whether a turn that failed so may succeed later without a change.

    ``usageLimitExceeded`` is (once the limit resets); a client error of the provider
    (400, 401, 403, 404, 422) is not, whatever the code.
    """
    return code in _RETRYABLE and http_status not in _NEVER_BY_STATUS


def limit_reset(rate_limits: Mapping[str, Any] | None) -> float | None:
    """Return when the exhausted windows of a rate limit snapshot reset (Unix seconds).

    Only windows at 100 % or more count; the latest of them decides. Where none is exhausted the
    answer is None.
    """
    resets: list[float] = []
    for name in ("primary", "secondary"):
        window = (rate_limits or {}).get(name)
        if not isinstance(window, Mapping):
            continue
        used, at = window.get("usedPercent"), window.get("resetsAt")
        if isinstance(used, int | float) and used >= 100 and isinstance(at, int | float):
            resets.append(float(at))
    return max(resets, default=None)
