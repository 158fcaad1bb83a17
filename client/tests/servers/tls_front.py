"""An authority made for a run of the tests, and a front that ends TLS before a plain server."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from pathlib import Path

CONFIG = """
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Authority:
    """Signs certificates for servers; ``file`` is what a client has to trust.

    Args:
        folder: For keys and certificates; must be empty.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "ca.pem"
        self._folder = folder
        self._key = folder / "ca.key"
        config = self._config("DNS:none.test")
        words = ["-x509", *KEY, "-config", config, "-extensions", "authority", "-days", "2"]
        names = ["-subj", "/CN=An authority of the tests", "-keyout", self._key, "-out", self.file]
        _openssl("req", *words, *names)

    def server(self, *names: str, days: int = 1) -> ssl.SSLContext:
        """Return the context of a server whose certificate is for these, as ``DNS:localhost``."""
        stem = self._folder / f"server-{len(list(self._folder.iterdir()))}"
        key, request, certificate = (stem.with_suffix(end) for end in (".key", ".csr", ".pem"))
        config = self._config(",".join(names))
        _openssl("req", *KEY, "-config", config, "-subj", "/", "-keyout", key, "-out", request)
        signer = ["-CA", self.file, "-CAkey", self._key, "-set_serial", "7", "-days", days]
        extensions = ["-extfile", config, "-extensions", "server"]
        _openssl("x509", "-req", "-in", request, "-out", certificate, *signer, *extensions)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        return context

    def trusted(self) -> ssl.SSLContext:
        """Return the context of a client that trusts this authority and no other."""
        return ssl.create_default_context(cafile=str(self.file))

    def _config(self, names: str) -> Path:
        path = self._folder / "openssl.cnf"
        path.write_text(CONFIG.format(names=names))
        return path


def _openssl(*words: object) -> None:
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Front:
    """Passes bytes on to a server, with TLS ended here where there is a context.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        received: What clients sent, as the server gets it.
        connections: How many came through a handshake; without TLS, how many came.
    """

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self.received = b""
        self.connections = 0
        self._target = port
        self._context = context
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Front:
        """Listen."""
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", 0, ssl=self._context
        )
        self.port = self._server.sockets[0].getsockname()[1]
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
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        try:
            behind, ahead = await asyncio.open_connection("127.0.0.1", self._target)
            writers.append(ahead)
            pumps = [
                asyncio.create_task(self._pump(reader, ahead, note=True)),
                asyncio.create_task(self._pump(behind, writer, note=False)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass  # nobody behind: whoever connected sees its end
        finally:
            for one in writers:
                one.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, note: bool
    ) -> None:
        while chunk := await reader.read(65536):
            if note:
                self.received += chunk
            writer.write(chunk)
            await writer.drain()
