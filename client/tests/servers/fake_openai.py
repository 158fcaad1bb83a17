"""Stands in for OpenAI's login, account and model services: a real Codex can log in offline.

It listens with TLS, as the real binary asks of a workspace's backend. What it answers was found by
watching what Codex 0.125 to 0.169 ask; tokens are JSON Web Tokens that nobody has signed.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

ACCOUNT = "acc-1"
EMAIL = "a@b.test"
EXPIRES = 4_000_000_000
RESETS = 1_900_000_000
USAGE = {
    "plan_type": "pro",
    "rate_limit": {
        "allowed": True,
        "limit_reached": False,
        "primary_window": {
            "used_percent": 42,
            "limit_window_seconds": 18_000,
            "reset_after_seconds": 100,
            "reset_at": RESETS,
        },
        "secondary_window": None,
    },
    "credits": {"has_credits": True, "unlimited": False, "balance": "12.5"},
}


def token(name: str) -> str:
    """Return an access token, told apart by a name in it."""
    claims = {
        "exp": EXPIRES,
        "email": EMAIL,
        "name": name,
        "https://api.openai.com/auth": {
            "chatgpt_plan_type": "pro",
            "chatgpt_account_id": ACCOUNT,
            "chatgpt_user_id": "user-1",
        },
        "https://api.openai.com/profile": {"email": EMAIL},
    }
    parts = [{"alg": "none", "typ": "JWT"}, claims]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()) for part in parts]
    return ".".join(part.rstrip(b"=").decode() for part in encoded) + ".c2ln"


@dataclass
class Asked:
    """One request."""

    method: str
    path: str
    bearer: str
    account: str
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        """Its body, be it a form or JSON."""
        text = self.body.decode()
        if text.startswith("{"):
            return {name: str(value) for name, value in json.loads(text).items()}
        return {name: values[0] for name, values in parse_qs(text).items()}


class FakeOpenAI:
    """Use as ``async with``; listens on 127.0.0.1.

    Attributes:
        url: Without a slash at its end.
        asked: All requests, in order.
        expired: Access tokens that the model refuses with 401.
        device: Statuses of the next polls for a device code; 200 when they are used up.
        refuses: Whether the exchange of codes for tokens is refused.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.url = ""
        self.asked: list[Asked] = []
        self.expired: set[str] = set()
        self.device: list[int] = []
        self.refuses = False
        self._issued = 0
        self._context = context
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def requests(self, path: str) -> list[Asked]:
        """Return the requests whose path ends so, without its query."""
        return [one for one in self.asked if one.path.partition("?")[0].endswith(path)]

    async def __aenter__(self) -> FakeOpenAI:
        """Listen."""
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", 0, ssl=self._context
        )
        self.url = f"https://localhost:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        """End what is open."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.rstrip().split("\r\n")
            pairs = (line.partition(":") for line in lines)
            fields = {name.strip().lower(): value.strip() for name, _, value in pairs}
            body = await reader.readexactly(int(fields.get("content-length", "0")))
            method, path, _ = first.split(" ")
            bearer = fields.get("authorization", "").removeprefix("Bearer ")
            asked = Asked(method, path, bearer, fields.get("chatgpt-account-id", ""), body)
            self.asked.append(asked)
            status, answer = self._answer(asked)
            kind = "application/json"
            if isinstance(answer, list):
                kind, data = "text/event-stream", b"".join(map(_line, answer))
            else:
                data = json.dumps(answer).encode()
            top = f"HTTP/1.1 {status} Status\r\ncontent-type: {kind}\r\nconnection: close\r\n"
            writer.write(f"{top}content-length: {len(data)}\r\n\r\n".encode() + data)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            writer.close()

    def _answer(self, asked: Asked) -> tuple[int, Any]:
        match asked.path.partition("?")[0].rsplit("/", 2)[-2:]:
            case ["oauth", "token"]:
                return self._tokens()
            case ["oauth", "revoke"]:
                return 200, {}
            case ["deviceauth", "usercode"]:
                return 200, {"device_auth_id": "d", "user_code": "ABCD-1234", "interval": "0"}
            case ["deviceauth", "token"]:
                status = self.device.pop(0) if self.device else 200
                code = {"authorization_code": "code-of-device", "code_verifier": "v"}
                return status, {**code, "code_challenge": "c"} if status == 200 else {}
            case ["accounts", "check"]:
                free = "NO_CONSTRAINT"
                routing = {"workspace_backend_origin": free, "account_routing_override": free}
                one = {"id": ACCOUNT, "plan_type": "pro", **routing}
                return 200, {"accounts": [one], "account_ordering": [ACCOUNT]}
            case ["wham", "usage"]:
                return 200, USAGE
            case [_, "models"]:
                return 200, {"data": [], "models": []}
            case [_, "responses"] if asked.bearer in self.expired:
                return 401, {"error": {"message": "it has expired", "code": "token_expired"}}
            case [_, "responses"]:
                return 200, _reply()
        return 404, {}

    def _tokens(self) -> tuple[int, Any]:
        if self.refuses:
            return 400, {"error": "invalid_grant", "error_description": "that code is used up"}
        self._issued += 1
        issued = token(f"issued-{self._issued}")
        refresh = f"refresh-{self._issued}"
        return 200, {"id_token": issued, "access_token": issued, "refresh_token": refresh}


def _reply() -> list[dict[str, Any]]:
    content = [{"type": "output_text", "text": "Done."}]
    item = {"type": "message", "role": "assistant", "id": "m", "content": content}
    usage = {"input_tokens": 10, "output_tokens": 1, "total_tokens": 11}
    return [
        {"type": "response.created", "response": {"id": "r"}},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {"id": "r", "usage": usage}},
    ]


def _line(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
