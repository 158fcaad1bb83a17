"""``wss://``: whom the client trusts, what it says of whom it does not, and what it never sends.

The authority and the certificates are made for the run by the program ``openssl``; before the
plain server stands a front that ends TLS. Whole sessions over it are in the transport contract.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from codex_app_server import (
    CertificateRefused,
    ClientInfo,
    Connection,
    ConnectionClosed,
    HandshakeRefused,
    InvalidArgument,
    WebSocketTransport,
)

from symphony.demo.script import Say, turn

pytest.importorskip("websockets", reason="needs the extra [websocket]")
TOKEN = "a-capability-token-of-some-length"
HERE = ("DNS:localhost", "IP:127.0.0.1")


@pytest.fixture
async def silent() -> AsyncIterator[int]:
    """The port of a server that takes everything and answers nothing."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            pass
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    ("names", "days", "trusts", "code", "says"),
    [
        (HERE, 1, "others", 20, "cafile"),
        (("DNS:other.test",), 1, "it", 62, r"Hostname mismatch.*connect by a name"),
        (HERE, -1, "it", 10, "expired.*renew it"),
    ],
    ids=["unknown authority", "another name", "out of date"],
)
async def test_a_certificate_that_does_not_hold_is_refused_and_sees_no_token(
    authority: Any,
    front: type[Any],
    silent: int,
    *,
    names: tuple[str, ...],
    days: int,
    trusts: str,
    code: int,
    says: str,
) -> None:
    trusted = authority.trusted() if trusts == "it" else None
    ended = front(silent, authority.server(*names, days=days))
    async with ended as server, front(server.port) as wire:
        url = f"wss://localhost:{wire.port}"
        with pytest.raises(CertificateRefused, match=says) as caught:
            # A wrong certificate gets no better by trying again.
            await WebSocketTransport.connect(url, token=TOKEN, ssl=trusted, retry_for_s=30)
    assert caught.value.verify_code == code
    assert isinstance(caught.value, ConnectionClosed)
    assert (wire.connections, server.connections, server.received) == (1, 0, b"")
    assert wire.received.startswith(b"\x16\x03")
    assert TOKEN.encode() not in wire.received


async def test_a_server_without_tls_is_told_apart_and_sees_no_token(front: type[Any]) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server, front(server.sockets[0].getsockname()[1]) as wire:
        with pytest.raises(ConnectionClosed, match=r"no TLS there.*ws://"):
            await WebSocketTransport.connect(f"wss://127.0.0.1:{wire.port}", token=TOKEN)
    assert wire.received != b""
    assert TOKEN.encode() not in wire.received


async def test_a_redirect_is_refused_and_the_token_goes_nowhere_else(
    front: type[Any], silent: int
) -> None:
    async with front(silent) as elsewhere:

        async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            to = f"ws://127.0.0.1:{elsewhere.port}/"
            writer.write(f"HTTP/1.1 302 Found\r\nlocation: {to}\r\n\r\n".encode())
            writer.close()

        server = await asyncio.start_server(redirect, "127.0.0.1", 0)
        async with server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            with pytest.raises(HandshakeRefused, match="not followed") as caught:
                await WebSocketTransport.connect(url, token=TOKEN, headers={"X-Key": "secret"})
    assert (caught.value.status, elsewhere.connections) == (302, 0)


@pytest.mark.parametrize("url", ["ws://127.0.0.1:1", "unix:///nonexistent.sock"])
async def test_a_context_for_a_connection_that_is_not_encrypted_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument, match="ssl: only wss://"):
        await WebSocketTransport.connect(url, ssl=ssl.create_default_context())


async def _probe(url: str, *words: str, **env: str) -> tuple[int | None, str, str]:
    code = "import sys; from codex_app_server.cli import main; sys.exit(main())"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, "probe", "--url", url, *words),
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.mark.codex
async def test_the_real_server_behind_tls_takes_its_token_and_the_wire_shows_none(
    newest_codex: Any, authority: Any, front: type[Any], tmp_path: Path
) -> None:
    real = await newest_codex(A=turn(Say("Done.")))
    file = tmp_path / "token"
    file.write_text(TOKEN)
    plain = await real.free_url()
    words = ("--ws-auth", "capability-token", "--ws-token-file", str(file))
    await real.spawn("app-server", "--listen", plain, *words)
    ready = await WebSocketTransport.connect(plain, token=TOKEN, retry_for_s=20)
    await ready.aclose()
    port = urlsplit(plain).port
    async with front(port, authority.server(*HERE)) as server, front(server.port) as wire:
        url = f"wss://127.0.0.1:{wire.port}"
        trusted = authority.trusted()
        transport = await WebSocketTransport.connect(url, token=TOKEN, ssl=trusted)
        async with await Connection.open(transport, ClientInfo("test", "1")) as connection:
            thread = await connection.start_thread(cwd=str(real.workspace))
            assert (await thread.run("Issue: A")).final_message == "Done."
        with pytest.raises(HandshakeRefused) as caught:
            await WebSocketTransport.connect(url, token="another-token", ssl=trusted)
        assert caught.value.status == 401
        # The default trusts the authorities that SSL_CERT_FILE names, as other programs do.
        given = ["--token-file", str(file), "--json"]
        status, out, err = await _probe(url, *given, SSL_CERT_FILE=str(authority.file))
        assert (status, err) == (0, "")
        assert '"version": "0.169.0"' in out
        status, out, err = await _probe(url, *given)
        assert (status, out) == (3, "")
        assert "SSL_CERT_FILE" in err
    assert TOKEN.encode() in server.received
    assert TOKEN.encode() not in wire.received
