"""A transport over two descriptors: efficient, never blocking the loop, flow-controlled both ways.

Invariants: what `send` takes is written whole and in order, or the transport is broken; reads go
straight from the descriptor in large pieces, so a reader that stops makes the pipe fill and the
server wait.

Re-exported as `codex_app_server.transport.FdTransport`; `codex_app_server.process` builds on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque

from codex_app_server.checks import check_values
from codex_app_server.errors import ConnectionClosed

__all__ = ["FdTransport"]

READ_BYTES = 256 * 1024
HIGH_WATER_BYTES = 1024 * 1024


class FdTransport:
    """A transport over two descriptors of pipes or sockets, which it owns from now on.

    Use `open`. One descriptor may serve both ways (a socket).
    """

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._read_fd: int | None = read_fd
        self._write_fd: int | None = write_fd
        self._same = read_fd == write_fd
        self._receiving: asyncio.Future[None] | None = None
        self._chunk: bytes | None = None
        self._reading = False
        self._eof = False
        self._outgoing: deque[memoryview] = deque()
        self._outgoing_bytes = 0
        self._writing = False
        self._broken: str | None = None
        self._drained: list[asyncio.Future[None]] = []

    @classmethod
    async def open(cls, *, read_fd: int, write_fd: int) -> FdTransport:
        """Adopt two descriptors; they are made non-blocking and closed by `aclose`.

        Raises:
            OSError: One of them is not open.
        """
        number = ("the number of an open descriptor", lambda one: isinstance(one, int))
        check_values(read_fd=(read_fd, number), write_fd=(write_fd, number))
        os.set_blocking(read_fd, False)
        os.set_blocking(write_fd, False)
        return cls(read_fd, write_fd)

    async def receive(self) -> bytes:
        """Return the next bytes; ``b""`` at the end. One reader at a time."""
        if self._chunk is None:
            if self._read_fd is None:
                return b""
            self._receiving = waiter = self._loop.create_future()
            # The descriptor stays registered from one call to the next: registering it anew for
            # each chunk cost a fifth of a busy reader's time.
            if self._eof:
                self._on_readable()
            elif not self._reading:
                self._loop.add_reader(self._read_fd, self._on_readable)
                self._reading = True
            try:
                await waiter
            finally:
                self._receiving = None
        # Kept here and not in the future: a cancelled reader must not lose it.
        chunk, self._chunk = self._chunk, None
        return chunk or b""

    def _on_readable(self) -> None:
        waiter = self._receiving
        if waiter is None or waiter.done() or self._read_fd is None:
            # Nobody takes it: the pipe fills and the server waits.
            self._stop_reading()
            return
        try:
            chunk = os.read(self._read_fd, READ_BYTES)
        except (BlockingIOError, InterruptedError):
            if not self._eof:
                return
            chunk = b""
        except OSError:
            # EIO of a terminal, ECONNRESET of a socket: the other side is gone.
            chunk = b""
        if not chunk:
            self._stop_reading()
        self._chunk = chunk
        waiter.set_result(None)

    def _stop_reading(self) -> None:
        if self._reading and self._read_fd is not None:
            self._loop.remove_reader(self._read_fd)
        self._reading = False

    def end_input(self) -> None:
        """Treat the stream as ended once all that is readable has been read.

        For the case that the process is gone while a descendant keeps its pipe open.
        """
        self._eof = True
        if self._receiving is not None:
            self._on_readable()

    async def send(self, data: bytes) -> None:
        """Write complete lines, in order.

        Raises:
            ConnectionClosed: The other side has closed its end, or this transport is closed.
        """
        self._check_writable()
        self._outgoing.append(memoryview(data))
        self._outgoing_bytes += len(data)
        if not self._writing:
            self._write()
            self._check_writable()
        if self._outgoing_bytes > HIGH_WATER_BYTES:
            waiter = self._loop.create_future()
            self._drained.append(waiter)
            # Cancelling only stops the wait: the line stays queued, whole.
            await waiter
            self._check_writable()

    def _check_writable(self) -> None:
        if self._broken is not None:
            raise ConnectionClosed(self._broken)
        if self._write_fd is None:
            raise ConnectionClosed("the connection was closed here")

    def _write(self) -> None:
        while self._outgoing and self._write_fd is not None:
            data = self._outgoing[0]
            try:
                written = os.write(self._write_fd, data)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self._break(f"the server does not read any more ({error.strerror})")
                break
            self._outgoing_bytes -= written
            if written == len(data):
                self._outgoing.popleft()
            else:
                self._outgoing[0] = data[written:]
        if self._outgoing_bytes <= HIGH_WATER_BYTES // 2:
            self._release()
        self._watch_writable(bool(self._outgoing))

    def _watch_writable(self, wanted: bool) -> None:
        if self._write_fd is None or wanted == self._writing:
            return
        self._writing = wanted
        if wanted:
            self._loop.add_writer(self._write_fd, self._write)
        else:
            self._loop.remove_writer(self._write_fd)

    def _break(self, reason: str) -> None:
        self._broken = reason
        self._outgoing.clear()
        self._outgoing_bytes = 0

    def _release(self) -> None:
        waiters, self._drained = self._drained, []
        for waiter in waiters:
            _wake(waiter)

    async def drain(self) -> None:
        """Wait until all that was sent has been written (or can never be)."""
        while self._outgoing and self._write_fd is not None:
            waiter = self._loop.create_future()
            self._drained.append(waiter)
            await waiter

    def close_output(self) -> None:
        """Close the writing end; the other side reads the end of its input."""
        if self._write_fd is None:
            return
        self._watch_writable(False)
        fd, self._write_fd = self._write_fd, None
        self._break("the connection was closed here")
        self._release()
        if not self._same:
            os.close(fd)

    async def aclose(self) -> None:
        """Close both ends."""
        self.close_output()
        if self._read_fd is None:
            return
        self._stop_reading()
        fd, self._read_fd = self._read_fd, None
        if self._receiving is not None:
            _wake(self._receiving)
        with contextlib.suppress(OSError):
            os.close(fd)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
