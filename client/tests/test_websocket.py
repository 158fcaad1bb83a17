"""WebSockets: addresses, tokens, and what a server that outlives its clients does."""

import asyncio
import json
import logging
import signal
from pathlib import Path
from typing import Any

import pytest
from codex_app_server import (
    ClientInfo,
    Connection,
    ConnectionClosed,
    HandshakeRefused,
    InvalidArgument,
    RequestKind,
    ServerRequestHandlers,
    SlowClient,
    WebSocketTransport,
)
from codex_app_server.websocket import default_socket_path, signed_bearer

from symphony.demo.script import Exec, Say, turn

pytest.importorskip("websockets", reason="needs the extra [websocket]")
SECRET = b"0123456789abcdef0123456789abcdef"
INFO = ClientInfo("test", "1")


@pytest.mark.parametrize(
    ("url", "options", "says"),
    [
        ("http://x", {}, "ws://"),
        ("ws://", {}, "ws://"),
        ("unix://relative", {}, "absolute"),
        ("ws://user:word@host:1", {}, "token="),
        ("ws://host:99999", {}, "url"),
        ("ws://127.0.0.1:1", {"headers": {"Origin": "x"}}, "Origin"),
        ("ws://127.0.0.1:1", {"token": "a\nb"}, "token"),
        (5, {}, "url=5: give ws://"),
        ("ws://127.0.0.1:1", {"token": 5}, "token=5: give a text"),
        ("ws://127.0.0.1:1", {"headers": 5}, "headers=5: give a mapping"),
        ("ws://127.0.0.1:1", {"ssl": True}, "ssl=True: give an ssl.SSLContext"),
        ("ws://127.0.0.1:1", {"open_timeout_s": "5"}, "open_timeout_s='5': give seconds"),
        ("ws://127.0.0.1:1", {"retry_for_s": -1}, "retry_for_s=-1: give seconds"),
        ("ws://127.0.0.1:1", {"keepalive_s": 0}, "keepalive_s=0: give seconds"),
        ("ws://127.0.0.1:1", {"max_message_bytes": 0}, "max_message_bytes=0: give a number"),
    ],
)
async def test_what_cannot_work_is_refused_before_anything_is_sent(
    url: Any, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidArgument, match=says):
        await WebSocketTransport.connect(url, **options)


async def test_nobody_there_is_a_typed_error_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(ConnectionClosed, match="app-server --listen unix"):
        await WebSocketTransport.connect(f"unix://{tmp_path}/none.sock")
    with pytest.raises(ConnectionClosed, match="nobody listens"):
        await WebSocketTransport.connect("ws://127.0.0.1:1", retry_for_s=0.05)


def test_the_default_socket_lies_below_codex_home() -> None:
    path = default_socket_path({"CODEX_HOME": "/home/u/.codex"})
    assert path == Path("/home/u/.codex/app-server-control/app-server-control.sock")


def test_a_bearer_is_signed_and_refused_with_a_short_secret() -> None:
    token = signed_bearer(SECRET, now=1000.0, issuer="me", audience="it", lifetime_s=60)
    # Made with the reference of RFC 7515: header, claims, HMAC-SHA256.
    assert token.split(".")[0] == "eyJhbGciOiAiSFMyNTYiLCAidHlwIjogIkpXVCJ9"
    assert token != signed_bearer(SECRET[::-1], now=1000.0, issuer="me", audience="it")
    with pytest.raises(InvalidArgument, match="32"):
        signed_bearer(b"short")
    with pytest.raises(InvalidArgument, match="lifetime_s"):
        signed_bearer(SECRET, lifetime_s=0)


async def test_tokens_and_keys_stay_out_of_the_most_talkative_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = pytest.importorskip("websockets.asyncio.server")
    authorization: list[str] = []

    async def serve(connection: Any) -> None:
        authorization.append(connection.request.headers["Authorization"])
        async for line in connection:
            message = json.loads(line)
            if "id" in message:
                kind = {"type": "apiKey"} if "login" in message["method"] else {}
                await connection.send(json.dumps({"id": message["id"], "result": kind}))

    caplog.set_level(logging.DEBUG)
    for name in ("codex_app_server.websocket", "websockets.client"):
        caplog.set_level(logging.DEBUG, logger=name)
    silent = logging.Logger("silent")
    async with server.serve(serve, "127.0.0.1", 0, logger=silent) as listening:
        url = f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        transport = await WebSocketTransport.connect(url, token="a-token-of-some-length")
        async with await Connection.open(transport, INFO) as connection:
            await connection.account.login_api_key("sk-of-a-test")
            shown = repr(connection) + repr(transport) + repr(connection.server)
    assert authorization == ["Bearer a-token-of-some-length"]
    for secret in ("a-token-of-some-length", "sk-of-a-test"):
        assert secret not in caplog.text
        assert secret not in shown


async def _listen(real: Any, *words: str) -> str:
    url = await real.free_url()
    await real.spawn("app-server", "--listen", url, *words)
    return str(url)


@pytest.mark.codex
async def test_a_capability_token_opens_the_door_and_no_other(codex, tmp_path: Path) -> None:
    real = await codex(A=turn(Say("ok")))
    file = tmp_path / "token"
    file.write_text("a-capability-token-of-some-length")
    words = ("--ws-auth", "capability-token", "--ws-token-file", str(file))
    url = await _listen(real, *words)
    token = "a-capability-token-of-some-length"
    transport = await WebSocketTransport.connect(url, token=token, retry_for_s=20)
    async with await Connection.open(transport, INFO) as connection:
        thread = await connection.start_thread(cwd=str(real.workspace))
        assert (await thread.run("Issue: A")).final_message == "ok"
    for wrong in (None, "another-token"):
        with pytest.raises(HandshakeRefused) as caught:
            await WebSocketTransport.connect(url, token=wrong)
        assert caught.value.status == 401
        assert "another-token" not in str(caught.value)


@pytest.mark.codex
async def test_a_signed_bearer_is_checked_for_signature_and_time(codex, tmp_path: Path) -> None:
    real = await codex(A=turn(Say("ok")))
    file = tmp_path / "secret"
    file.write_bytes(SECRET)
    words = ["--ws-auth", "signed-bearer-token", "--ws-shared-secret-file", str(file)]
    url = await _listen(real, *words, "--ws-issuer", "me", "--ws-audience", "it")
    good = signed_bearer(SECRET, issuer="me", audience="it")
    transport = await WebSocketTransport.connect(url, token=good, retry_for_s=20)
    await transport.aclose()
    for wrong in (
        signed_bearer(SECRET[::-1], issuer="me", audience="it"),
        signed_bearer(SECRET, issuer="me", audience="it", now=1000.0),
        signed_bearer(SECRET, issuer="you", audience="it"),
    ):
        with pytest.raises(HandshakeRefused):
            await WebSocketTransport.connect(url, token=wrong)


@pytest.mark.codex
async def test_an_approval_is_asked_again_of_the_next_client_that_resumes(codex) -> None:
    real = await codex(A=turn(Exec("touch asked.txt"), Say("ok")))
    url = await _listen(real)
    transport = await WebSocketTransport.connect(url, retry_for_s=20)
    manual = ServerRequestHandlers(command="manual")
    first = await Connection.open(transport, INFO, handlers=manual)
    thread = await first.start_thread(
        cwd=str(real.workspace), approval_policy="untrusted", sandbox="danger-full-access"
    )
    running = thread.run("Issue: A")
    async for event in running:
        if "waitingOnApproval" in str(event.raw):
            break
    await first.aclose()
    asked: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def answer(request: Any) -> str:
        asked.set_result(request)
        return "accept"

    def watch(events: list[Any]) -> None:
        for event in events:
            if event.method == "turn/completed" and not ended.done():
                ended.set_result(event.data["turn"]["status"])

    second = await WebSocketTransport.connect(url)
    handlers = ServerRequestHandlers(command=answer)
    async with await Connection.open(second, INFO, handlers=handlers, on_events=watch) as again:
        await again.resume_thread(thread.id)
        assert (await asyncio.wait_for(asked, 20)).kind is RequestKind.COMMAND
        assert await asyncio.wait_for(ended, 20) == "completed"
    assert (real.workspace / "asked.txt").exists()


@pytest.mark.codex
@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_client_that_does_not_read_is_cut_and_told_so(newest_codex) -> None:
    text = " ".join(map(str, range(250000)))
    real = await newest_codex(A=turn(Say(text)))
    url = await _listen(real)
    transport = await WebSocketTransport.connect(url, retry_for_s=20)
    connection = await Connection.open(transport, INFO)
    thread = await connection.start_thread(cwd=str(real.workspace))
    ended = asyncio.Event()

    def watch(events: list[Any]) -> None:
        # The status of a thread is told to every client, its deltas are not.
        for event in events:
            if event.method == "thread/status/changed" and b'"idle"' in event.raw:
                ended.set()

    other = await WebSocketTransport.connect(url)
    async with await Connection.open(other, INFO, on_events=watch):
        running = thread.run("Issue: A", overflow="block", queue_limit=1)
        with pytest.raises(SlowClient, match="too slowly"):
            await _read_late(running, ended)
    await connection.aclose()


async def _read_late(running: Any, ended: asyncio.Event) -> None:
    async for _ in running:
        await asyncio.wait_for(ended.wait(), 150)


@pytest.mark.codex
async def test_a_server_that_dies_is_no_slow_client(newest_codex) -> None:
    real = await newest_codex(A=turn(Say("ok")))
    url = await _listen(real)
    transport = await WebSocketTransport.connect(url, retry_for_s=20)
    async with await Connection.open(transport, INFO) as connection:
        real.transports[0].send_signal(signal.SIGKILL)
        reason = await connection.closed
        assert not isinstance(reason, SlowClient)
        assert "gone" in reason.reason
