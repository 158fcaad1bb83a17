"""A model on loopback that knows one trick: it runs the command that a prompt names.

For the smoke test, so that a real Codex binary can be tried without account, key or network. It
speaks as much of HTTP and of OpenAI's Responses API as Codex 0.125 to 0.169 need. A prompt with a
command in backquotes (``Run `sleep 20` in the shell``) gets a call of the shell, and ``done`` once
that has an output; any other prompt gets ``ok``. Invariant: the answer follows from the request
alone; a client that breaks off costs its own connection.

Used by `codex_app_server.smoke`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

__all__ = ["AFTER_COMMAND", "AT_ONCE", "ScriptedModel", "answer"]

AT_ONCE = "ok"
AFTER_COMMAND = "done"
MAX_HEAD = 64 * 1024
MAX_BODY = 64 * 1024 * 1024
USAGE = {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110}
_COMMAND = re.compile(r"`([^`\n]+)`")
_LENGTH = re.compile(rb"^content-length:\s*(\d+)\s*$", re.IGNORECASE | re.MULTILINE)
# Codex puts messages of its own among the user's: the environment, instructions, an interrupt.
_OWN = ("<", "# AGENTS.md")


class ScriptedModel:
    """Listens while its ``async with`` block runs.

    Attributes:
        base_url: For a ``model_providers`` entry, see `codex_app_server.home.provider_config`.
        asked: How many answers were asked for.
    """

    def __init__(self) -> None:
        self.base_url = ""
        self.asked = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=MAX_HEAD)
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(
            self._serve(reader, writer), name="codex-scripted-model"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request; the end of the connection ends the answer."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            found = _LENGTH.search(head)
            size = min(int(found[1]), MAX_BODY) if found else 0
            body = await reader.readexactly(size)
            if head.startswith(b"POST"):
                self.asked += 1
                _write(writer, "text/event-stream", b"".join(map(_line, self._events(body))))
            else:
                _write(writer, "application/json", b'{"data": [], "models": []}')
            await writer.drain()
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asked is gone, or asked nothing that we understand
        finally:
            writer.close()

    def _events(self, body: bytes) -> Iterator[dict[str, Any]]:
        name = f"resp_{self.asked}"
        yield {"type": "response.created", "response": {"id": name}}
        item = answer(json.loads(body))
        yield {"type": "response.output_item.done", "output_index": 0, "item": item}
        yield {"type": "response.completed", "response": {"id": name, "usage": USAGE}}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Return the item that a request of the Responses API is answered with."""
    prompt, ran, length = "", False, 0
    for item in request.get("input") or ():
        length += 1
        if item.get("type") == "function_call_output":
            ran = True
        elif item.get("role") == "user" and not _text(item).lstrip().startswith(_OWN):
            prompt, ran = _text(item), False
    command = _COMMAND.search(prompt)
    if command is not None and not ran:
        arguments = json.dumps({"cmd": command[1]})
        ids = {"id": f"fc_{length}", "call_id": f"call_{length}"}
        return {"type": "function_call", "name": "exec_command", "arguments": arguments, **ids}
    text = AT_ONCE if command is None else AFTER_COMMAND
    content = [{"type": "output_text", "text": text}]
    return {"type": "message", "role": "assistant", "id": f"msg_{length}", "content": content}


def _text(item: dict[str, Any]) -> str:
    content = item.get("content")
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content or ())


def _line(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def _write(writer: asyncio.StreamWriter, kind: str, body: bytes) -> None:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
