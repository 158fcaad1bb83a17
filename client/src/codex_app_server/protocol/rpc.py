"""Messages of both directions: ids, requests, replies, notifications; without I/O.

Invariants: whatever the server writes becomes a value; a reply is handed out once and only for a
request that waits for it; a reply that precedes its request is kept (bounded) and matched when
the request is made, because servers exist that answer a scripted handshake early. The server's
ids are another name space than ours: 0 and strings are fine.

Codex repeats our ids as they are. A server that spells them otherwise, ``1.0`` or ``"1"`` for 1, is
understood: an integral float is the same number in JSON, and as all of our ids are integers, the
digits of one that waits can mean nothing else, so that no reply can reach a wrong request. A
time-out would say nothing about the cause, and a refusal would help nobody.

The order of the returned values is the order on the wire, but for this: among deltas that arrive
together with nothing else between them, those of one turn come as one `Run`, so that the shell does
its work once a batch, not once an event, also where many turns stream by turns.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from codex_app_server.errors import InvalidArgument
from codex_app_server.events import (
    DELTA_METHODS,
    Event,
    MalformedLine,
    Notification,
    delta_decoder,
)
from codex_app_server.protocol.framing import DEFAULT_MAX_LINE_BYTES, LineSplitter, Oversized
from codex_app_server.protocol.mending import DECODE_ERRORS, decode_mended, mended

__all__ = ["Inbound", "Response", "Rpc", "Run", "ServerRequest", "encode_message"]

METHOD_NOT_FOUND = -32601
INTERNAL_ERROR = -32603
KEPT_EARLY_REPLIES = 64
KEPT_JUNK_BYTES = 1024

RequestId = int | str


class Run(Struct, gc=False, eq=False):
    """Notifications about one turn (or about none) that arrived together.

    Attributes:
        thread_id: Or None.
        turn_id: Or None.
        events: In the order of the wire, at least one; only deltas of other turns were between.
        only_deltas: Whether all of them only add text.
    """

    thread_id: str | None
    turn_id: str | None
    events: list[Event]
    only_deltas: bool


class Response(Struct, eq=False):
    """A reply to a request of ours.

    Attributes:
        id: Of the request.
        result: Undecoded; empty where there is an error.
        code: JSON-RPC error code, or None for a result.
        message: Of the error.
        data: Of the error.
    """

    id: RequestId
    result: Raw
    code: int | None = None
    message: str = ""
    data: Any = None


class ServerRequest(Struct, eq=False):
    """A request of the server, to be answered with its id.

    Attributes:
        id: As received; may be 0 or a string.
        method: Such as ``item/commandExecution/requestApproval``.
        thread_id: Or None.
        turn_id: Or None.
        params: As plain data; None where absent.
        received_at: Monotonic seconds.
    """

    id: RequestId
    method: str
    thread_id: str | None
    turn_id: str | None
    params: Any
    received_at: float


Inbound = Run | Response | ServerRequest


class _Error(Struct):
    code: Any = None
    message: Any = None
    data: Any = None


class _Reply(Struct):
    id: int | str | float | None = None
    result: Raw = Raw(b"")
    error: Raw = Raw(b"")


class _Body(Struct):
    params: Any = None


_decode_event = msgspec.json.Decoder(Notification).decode
_decode_reply = msgspec.json.Decoder(_Reply).decode
_decode_error = msgspec.json.Decoder(_Error).decode
_decode_body = msgspec.json.Decoder(_Body).decode
_NOT_DECODED = (*DECODE_ERRORS, TypeError)
_WORDLESS = "the server gave no reason"
_DIGITS = re.compile(r"[1-9][0-9]{0,15}")


def encode_message(message: Mapping[str, Any]) -> bytes:
    """Encode one line.

    Raises:
        InvalidArgument: A value that JSON cannot carry, or text with a lone surrogate, which the
            server would drop without a word.
    """
    try:
        return msgspec.json.encode(message) + b"\n"
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            f"text with a lone surrogate (U+{ord(error.object[error.start]):04X}) cannot be sent; "
            "decode it with errors='replace'"
        ) from error
    except (TypeError, msgspec.MsgspecError, RecursionError, OverflowError) as error:
        raise InvalidArgument(f"cannot be sent as JSON: {error}") from error


class Rpc:
    """One connection's messages.

    Args:
        max_line_bytes: Longest line accepted; a longer one becomes a `MalformedLine`.

    Attributes:
        malformed: Lines so far that were no message.
        unmatched: Replies so far that nobody waited for (late ones after a time-out).
    """

    __slots__ = (
        "_decode_delta",
        "_early",
        "_expect_delta",
        "_next_id",
        "_pending",
        "_splitter",
        "malformed",
        "unmatched",
    )

    def __init__(self, max_line_bytes: int = DEFAULT_MAX_LINE_BYTES) -> None:
        self._splitter = LineSplitter(max_line_bytes)
        self._pending: set[RequestId] = set()
        self._early: dict[RequestId, Response] = {}
        self._next_id = 1
        self._decode_delta = delta_decoder()
        self._expect_delta = False
        self.malformed = 0
        self.unmatched = 0

    @property
    def pending(self) -> int:
        """Requests of ours without a reply."""
        return len(self._pending)

    @property
    def buffered(self) -> int:
        """Bytes held of the line that has no end yet."""
        return self._splitter.buffered

    def drop_unfinished(self) -> None:
        """Let go of the line that has no end yet: its end will not be read."""
        self._splitter.drop()

    def request(self, method: str, params: Any) -> tuple[int, bytes]:
        """Make a request: its id, waiting from now on, and the line to send.

        Params of None are left out, as the few methods without params want it.

        Raises:
            InvalidArgument: See `encode_message`; no id is used up.
        """
        message: dict[str, Any] = {"id": self._next_id, "method": method}
        if params is not None:
            message["params"] = params
        line = encode_message(message)
        request_id = self._next_id
        self._next_id += 1
        self._pending.add(request_id)
        return request_id, line

    def take_early(self, request_id: RequestId) -> Response | None:
        """Return the reply that arrived before this request was made, if there is one."""
        response = self._early.pop(request_id, None)
        if response is not None:
            self._pending.discard(request_id)
        return response

    def forget(self, request_id: RequestId) -> None:
        """Stop waiting for a reply; one that still comes is only counted."""
        self._pending.discard(request_id)

    @staticmethod
    def notification(method: str, params: Any = None) -> bytes:
        """Return the line of a notification."""
        return encode_message({"method": method, "params": {} if params is None else params})

    @staticmethod
    def reply(request_id: RequestId, result: Any) -> bytes:
        """Return the line that answers a request of the server."""
        return encode_message({"id": request_id, "result": result})

    @staticmethod
    def reply_error(request_id: RequestId, code: int, message: str) -> bytes:
        """Return the line that refuses a request of the server."""
        return encode_message({"id": request_id, "error": {"code": code, "message": message}})

    def receive(self, chunk: bytes, now: float) -> list[Inbound]:
        """Take the next bytes; return what they say, in order. ``now`` is monotonic seconds."""
        return self._decode(self._splitter.feed(chunk), now)

    def finish(self, now: float) -> list[Inbound]:
        """Take the end of the stream; return what an unterminated last line says."""
        return self._decode(self._splitter.finish(), now)

    def _decode(self, lines: list[bytes | Oversized], now: float) -> list[Inbound]:
        # The hot path: keep it free of calls but the decoders'.
        found: list[Inbound] = []
        run: Run | None = None
        append: Callable[[Event], None] = _nowhere
        thread_id: str | None = None
        turn_id: str | None = None
        # The runs that a delta may join: nothing but deltas has come since they were begun.
        open_runs: dict[tuple[str | None, str | None], Run] = {}
        decode_delta = self._decode_delta
        expect_delta = self._expect_delta
        for line in lines:
            if expect_delta:
                try:
                    event = decode_delta(line)  # type: ignore[arg-type] # Oversized: TypeError
                except _NOT_DECODED:
                    expect_delta = False
                else:
                    body = event.params
                    event.raw = line  # type: ignore[assignment] # decoded, so it is bytes
                    event.received_at = now
                    if run is None or body.turn_id != turn_id or body.thread_id != thread_id:
                        thread_id, turn_id = key = body.thread_id, body.turn_id
                        run = open_runs.get(key)
                        if run is None:
                            run = open_runs[key] = Run(thread_id, turn_id, [], True)
                            found.append(run)
                        append = run.events.append
                    append(event)
                    continue
            inbound = self._classify(self._decode_line(line), line, now)
            if isinstance(inbound, Event):
                expect_delta = inbound.method in DELTA_METHODS
                thread_id, turn_id = inbound.thread_id, inbound.turn_id
                run = found[-1] if found and isinstance(found[-1], Run) else None
                if run is None or (run.thread_id, run.turn_id) != (thread_id, turn_id):
                    run = Run(thread_id, turn_id, [], True)
                    found.append(run)
                append = run.events.append
                append(inbound)
                if not expect_delta:
                    run.only_deltas = False
                    open_runs.clear()
                open_runs[thread_id, turn_id] = run
            elif inbound is not None:
                found.append(inbound)
                run = None
                open_runs.clear()
        self._expect_delta = expect_delta
        return found

    def _decode_line(self, line: bytes | Oversized) -> Event | None:
        try:
            return _decode_event(line)  # type: ignore[arg-type] # Oversized: TypeError
        except _NOT_DECODED:
            return self._mend(line)

    def _classify(
        self, event: Event | None, line: bytes | Oversized, now: float
    ) -> Inbound | Event | None:
        if event is None:
            return None
        event.received_at = now
        if isinstance(event, MalformedLine):
            return event
        assert isinstance(line, bytes)
        event.raw = line
        if not isinstance(event, Notification):
            return event
        if not event.method:
            return self._reply_of(line, now)
        if isinstance(event.id, UnsetType) or event.id is None:
            return event
        return ServerRequest(
            event.id, event.method, event.thread_id, event.turn_id, _body(line), now
        )

    def _reply_of(self, line: bytes, now: float) -> Response | Event | None:
        try:
            reply = decode_mended(_decode_reply, line)
        except DECODE_ERRORS as error:
            return self._malformed(line, str(error), now)
        request_id = self._own_id(reply.id)
        empty = not (bytes(reply.result) or bytes(reply.error))
        if request_id is None or (empty and request_id not in self._pending):
            return self._malformed(line, "neither a method nor a reply with an id", now)
        if empty:
            # Whoever waits for it would wait in vain.
            reply.error = Raw(b'{"message":"the reply has neither a result nor an error"}')
        response = _response(request_id, reply)
        if request_id in self._pending:
            self._pending.discard(request_id)
            return response
        if isinstance(request_id, int) and request_id >= self._next_id:
            self._early[request_id] = response
            if len(self._early) > KEPT_EARLY_REPLIES:
                del self._early[next(iter(self._early))]
        else:
            self.unmatched += 1
        return None

    def _own_id(self, given: RequestId | float | None) -> RequestId | None:
        """Return the id of a reply as we have written it, whatever spelling the server chose."""
        if isinstance(given, float):
            return int(given) if given.is_integer() else None
        if isinstance(given, str) and given not in self._pending:
            number = int(given) if _DIGITS.fullmatch(given) else None
            return number if number in self._pending else given
        return given

    def _mend(self, line: bytes | Oversized) -> Event | None:
        """Make an event of a line that the fast decoder refused; None for a blank line."""
        if isinstance(line, Oversized):
            return self._malformed(line.head, "line too long", 0.0, line.size)
        if not line or line.isspace():
            return None
        better = mended(line)
        if better is not None:
            with contextlib.suppress(*DECODE_ERRORS):
                return _decode_event(better)
        try:
            message = msgspec.json.decode(line if better is None else better)
        except DECODE_ERRORS as error:
            return self._malformed(line, f"not JSON: {error}", 0.0)
        if not isinstance(message, dict):
            return self._malformed(line, f"not an object: {type(message).__name__}", 0.0)
        method, request_id = message.get("method", ""), message.get("id", UNSET)
        if not isinstance(method, str):
            return self._malformed(line, "method is not a string", 0.0)
        if isinstance(request_id, float) and request_id.is_integer() and not method:
            return Notification()  # a reply: its id is read with the rest of it
        if isinstance(request_id, bool) or not (
            request_id is None or request_id is UNSET or isinstance(request_id, int | str)
        ):
            return self._malformed(line, "id is neither an integer nor a string", 0.0)
        # Valid, but its params do not say whom it concerns in the usual way.
        return Notification(method=method, id=request_id)

    def _malformed(self, line: bytes, reason: str, now: float, size: int | None = None) -> Event:
        self.malformed += 1
        return MalformedLine(
            raw=line[:KEPT_JUNK_BYTES],
            received_at=now,
            reason=reason,
            size=len(line) if size is None else size,
        )


def _nowhere(event: Event) -> None:
    raise AssertionError("an event before its run")


def _body(line: bytes) -> Any:
    try:
        return decode_mended(_decode_body, line).params
    except DECODE_ERRORS:
        return None


def _response(request_id: RequestId, reply: _Reply) -> Response:
    raw_error = bytes(reply.error)
    if not raw_error or raw_error == b"null":
        return Response(request_id, reply.result)
    try:
        error = _decode_error(raw_error)
    except DECODE_ERRORS:
        error = _Error(message=raw_error.decode("utf-8", "replace"))
    code = error.code if isinstance(error.code, int) else INTERNAL_ERROR
    message = _WORDLESS if error.message is None else error.message
    message = message if isinstance(message, str) else repr(message)
    return Response(request_id, Raw(b""), code, message, error.data)
