"""Records the lines of a connection and plays them again, without the server.

A recording is JSONL: ``{"dir": ">" or "<", "t": seconds, "line": "..."}`` a line, where ``>`` is
the client's and ``<`` the server's line as it was. Invariants: recording never changes what passes;
a secret never reaches the file; a replay gives each server line only after the client has sent what
stood before it, with the ids of this client's requests.

`codex_app_server.testing` is where users import it from.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec
from msgspec import Struct

from codex_app_server.checks import (
    FUNCTION,
    PATH,
    TABLE,
    check_values,
    is_path,
    is_seconds,
    optional,
    or_none,
)
from codex_app_server.errors import ConnectionClosed, RecordingError
from codex_app_server.protocol.framing import LineSplitter, Oversized
from codex_app_server.protocol.mending import DECODE_ERRORS
from codex_app_server.protocol.rpc import encode_message
from codex_app_server.transport import Transport

__all__ = ["RecordedLine", "RecordingTransport", "ReplayTransport", "Scrubber", "read_recording"]

REDACTED = "[redacted]"
SHORTEST_SECRET = 4
_UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")


class RecordedLine(Struct, frozen=True):
    """One line of a recording.

    Attributes:
        dir: ``>`` from the client, ``<`` from the server.
        t: Seconds since the recording began.
        line: As it was, without its newline, after redaction.
    """

    dir: Literal[">", "<"]
    t: float
    line: str


_decode_line = msgspec.json.Decoder(RecordedLine).decode


def read_recording(path: str | os.PathLike[str]) -> list[RecordedLine]:
    """Read a recording.

    Raises:
        RecordingError: It cannot be read, or a line is none of a recording (named by its number).
    """
    check_values(path=(path, PATH))
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise RecordingError(f"cannot read {os.fspath(path)}: {error.strerror}") from error
    lines = []
    for number, line in enumerate(content.split(b"\n"), 1):
        try:
            if line.strip():
                lines.append(_decode_line(line))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise RecordingError(f"{os.fspath(path)}, line {number}: {error}") from error
    return lines


class Scrubber:
    """Replaces what identifies a machine or a person, the same by the same.

    UUIDs become numbered ones; what ``replace`` names becomes what it says (paths, host names,
    versions of the system). For samples that are to be published; give it as ``transform``.

    Args:
        replace: Texts to replace, the longest first, and by what.
    """

    def __init__(self, replace: dict[str, str] | None = None) -> None:
        check_values(replace=(replace, optional(TABLE)))
        pairs = sorted((replace or {}).items(), key=lambda pair: -len(pair[0]))
        self._replace = [(_inside_json(old), _inside_json(new)) for old, new in pairs]
        self._uuids: dict[str, str] = {}

    def __call__(self, line: str) -> str:
        """Return the line without them."""
        for old, new in self._replace:
            line = line.replace(old, new)
        return _UUID.sub(self._uuid, line)

    def _uuid(self, found: re.Match[str]) -> str:
        number = len(self._uuids) + 1
        return self._uuids.setdefault(found[0], f"00000000-0000-7000-8000-{number:012}")


class RecordingTransport:
    """Writes what passes through another transport into a file.

    Args:
        inner: Closed together with this one.
        path: The file; created with mode 0600, replaced where it exists.
        redact: Secrets; each becomes ``[redacted]`` wherever it stands. Shorter than 4
            characters is refused: it would tear the lines apart.
        transform: Applied to each line after that, for example a `Scrubber`.

    Attributes:
        error: Why the recording stopped before the connection (a full disk), or None. The
            connection goes on; whoever needs the recording looks here.
        lines: How many were written.

    Raises:
        RecordingError: The file cannot be created.
    """

    def __init__(
        self,
        inner: Transport,
        path: str | os.PathLike[str],
        *,
        redact: Iterable[str] = (),
        transform: Callable[[str], str] | None = None,
    ) -> None:
        check_values(
            inner=(inner, ("a Transport", lambda value: isinstance(value, Transport))),
            path=(path, PATH),
            redact=(redact, ("a list of texts", _are_texts)),
            transform=(transform, optional(FUNCTION)),
        )
        self.error: RecordingError | None = None
        self.lines = 0
        self._inner = inner
        self._path = os.fspath(path)
        self._secrets = _secrets(redact)
        self._transform = transform
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._splitter = LineSplitter()
        self._file: BinaryIO | None = self._create()

    async def send(self, data: bytes) -> None:
        """See `Transport.send`."""
        self._write(">", data.splitlines())
        await self._inner.send(data)

    async def receive(self) -> bytes:
        """See `Transport.receive`."""
        chunk = await self._inner.receive()
        lines = self._splitter.feed(chunk) if chunk else self._splitter.finish()
        self._write("<", lines)
        return chunk

    async def exit_status(self, timeout_s: float) -> int | None:
        """Return the exit status that the inner transport knows, or None."""
        ask = getattr(self._inner, "exit_status", None)
        status = await ask(timeout_s) if ask is not None else None
        return status if isinstance(status, int) else None

    async def aclose(self) -> None:
        """Close the file and the inner transport."""
        try:
            await self._inner.aclose()
        finally:
            self._close()

    def _create(self) -> BinaryIO:
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        except OSError as error:
            raise RecordingError(f"cannot write {self._path}: {error.strerror}") from error
        return os.fdopen(descriptor, "wb")

    def _write(self, direction: str, lines: Sequence[bytes | Oversized]) -> None:
        if self._file is None:
            return
        t = round(self._loop.time() - self._began, 6)
        try:
            for line in lines:
                text = (line.head if isinstance(line, Oversized) else line).decode(
                    "utf-8", "replace"
                )
                entry = {"dir": direction, "t": t, "line": self._cleaned(text)}
                self._file.write(json.dumps(entry).encode() + b"\n")
                self.lines += 1
            self._file.flush()
        except OSError as error:
            self._stop(error)

    def _cleaned(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        return text if self._transform is None else self._transform(text)

    def _stop(self, error: OSError) -> None:
        self.error = RecordingError(
            f"the recording {self._path} stopped after {self.lines} lines: {error.strerror}; "
            "make room there, or record to another place"
        )
        self._close()

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:
                if self.error is None:
                    self._stop(error)


class ReplayTransport:
    """Plays a recording as if it were the server.

    The client's requests are matched by method, in order for each method; replies get the ids of
    this client. Its params are not compared, so another prompt or path will do. A request that
    the recording has not (any more) is refused. Where the recording has a request or an answer
    that this client does not send, the replay stands still (`waits_for` tells which): deadlines
    end the wait.

    Args:
        recording: Lines, or the path of a file.
        speed: 1.0 keeps the recorded pauses of the server, 2.0 halves them; None makes none.

    Attributes:
        unexpected: Methods that the client called and the recording has not.
        is_closed: Whether the client has closed the transport.

    Raises:
        RecordingError: See `read_recording`.
    """

    def __init__(
        self,
        recording: str | os.PathLike[str] | Iterable[RecordedLine],
        *,
        speed: float | None = None,
    ) -> None:
        check_values(
            recording=(recording, ("lines, or the path of a file", _is_recording)),
            speed=(speed, ("a number above 0, or None", or_none(is_seconds))),
        )
        if isinstance(recording, str | os.PathLike):
            recording = read_recording(Path(recording))
        self.unexpected: list[str] = []
        self.is_closed = False
        self._speed = speed
        self._lines = deque(recording)
        self._sent_requests: defaultdict[str, deque[Any]] = defaultdict(deque)
        self._sent_answers: set[Any] = set()
        self._expected = _expected_requests(self._lines)
        self._ids: dict[Any, Any] = {}
        self._extra: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self._last_t: float | None = None

    @property
    def waits_for(self) -> str | None:
        """What the client must send before the next line of the server, or None."""
        for entry in self._lines:
            if entry.dir == "<":
                return None
            message = _message(entry.line)
            if "id" in message:
                return str(message.get("method") or f"the answer to request {message['id']!r}")
        return None

    @property
    def finished(self) -> bool:
        """Whether all lines of the server have been given."""
        return not any(entry.dir == "<" for entry in self._lines)

    async def send(self, data: bytes) -> None:
        """See `Transport.send`."""
        if self.is_closed:
            raise ConnectionClosed("the connection was closed here")
        for line in data.splitlines():
            self._take(_message(line))
        self._changed.set()

    async def receive(self) -> bytes:
        """See `Transport.receive`; the end of the stream is the end of the recording."""
        # Yields at least once, so that whoever waits for a reply is ahead of the end.
        await asyncio.sleep(0)
        while not self.is_closed:
            if self._extra:
                return self._extra.popleft()
            self._skip_what_was_sent()
            if not self._lines:
                return b""
            if self._lines and self._lines[0].dir == "<":
                return await self._give(self._lines.popleft())
            self._changed.clear()
            await self._changed.wait()
        return b""

    async def aclose(self) -> None:
        """See `Transport.aclose`."""
        self.is_closed = True
        self._changed.set()

    def _take(self, message: dict[str, Any]) -> None:
        method, has_id = message.get("method"), "id" in message
        if method is None:
            self._sent_answers.add(message.get("id"))
        elif has_id and self._expected[method] > 0:
            self._expected[method] -= 1
            self._sent_requests[method].append(message["id"])
        elif has_id:
            self.unexpected.append(method)
            error = {"code": -32600, "message": f"the recording has no (further) {method}"}
            self._extra.append(encode_message({"id": message["id"], "error": error}))

    def _skip_what_was_sent(self) -> None:
        """Drop the client's lines at the head of the recording that this client has sent too."""
        while self._lines and self._lines[0].dir == ">":
            message = _message(self._lines[0].line)
            method = message.get("method")
            if "id" in message and method is not None:
                if not self._sent_requests[method]:
                    return
                self._ids[message["id"]] = self._sent_requests[method].popleft()
            elif method is None and message.get("id") not in self._sent_answers:
                return
            self._lines.popleft()

    async def _give(self, entry: RecordedLine) -> bytes:
        if self._speed and self._last_t is not None and entry.t > self._last_t:
            await asyncio.sleep((entry.t - self._last_t) / self._speed)
        self._last_t = entry.t
        message = _message(entry.line)
        if "method" not in message and message.get("id") in self._ids:
            return encode_message({**message, "id": self._ids[message["id"]]})
        return entry.line.encode() + b"\n"


def _message(line: str | bytes) -> dict[str, Any]:
    """Return a line's message; empty for junk, which is played as it is."""
    try:
        message = msgspec.json.decode(line)
    except DECODE_ERRORS:
        return {}
    return message if isinstance(message, dict) else {}


def _expected_requests(lines: Iterable[RecordedLine]) -> defaultdict[str, int]:
    expected: defaultdict[str, int] = defaultdict(int)
    for entry in lines:
        message = _message(entry.line) if entry.dir == ">" else {}
        if "id" in message and isinstance(message.get("method"), str):
            expected[message["method"]] += 1
    return expected


def _are_texts(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes)


def _is_recording(value: Any) -> bool:
    return is_path(value) or (isinstance(value, Iterable) and not isinstance(value, str | bytes))


def _secrets(values: Iterable[str]) -> list[str]:
    """Return each secret as it may stand in a line of JSON, the longest first."""
    forms: set[str] = set()
    for value in values:
        if len(value) < SHORTEST_SECRET:
            raise RecordingError(f"redact: a secret of {len(value)} characters is too short")
        forms |= {value, _inside_json(value), json.dumps(value)[1:-1]}
    return sorted(forms, key=len, reverse=True)


def _inside_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
