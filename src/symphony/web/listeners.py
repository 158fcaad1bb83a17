"""The listening sockets: the control socket of the state directory, and TCP where a port is given.

Role: opens both before the web server is imported, so that a bad port is told at start, in one
sentence, and the first poll needn't wait for a web server.
Invariant: the control socket can be connected to only with mode 0600 set, and a path is taken over
only from a socket at which nobody answers.
Neighbours: ``server`` serves on what is opened here.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from symphony.errors import ConfigError

_UNIX_PATH_BYTES = 107
"""Longest path of a unix socket on Linux (``sun_path`` without its final zero)."""
_BACKLOG = 128


class WebError(ConfigError):
    """The HTTP surface can't be served: ``server_port_in_use``, ``server_port_forbidden``,
    ``server_port_invalid``, ``server_host_invalid``, ``control_socket_unusable``.
    """


def open_tcp(host: str, port: int) -> socket.socket:
    """Listen on a TCP port; 0 takes a free one.

    Raises:
        WebError: The port is taken, reserved or no port, or the host is none of this machine.
    """
    if not 0 <= port <= 65535:
        raise WebError(
            "server_port_invalid", f"server.port (--port): {port} is no port; give 0 to 65535."
        )
    family, address = _resolve(host, port)
    # asyncio turns Nagle's delay (40 ms an answer) off only where the protocol is told.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        # Two sockets may bind one port as long as neither listens, so the claim is made here.
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise _tcp_error(host, port, error) from error
    return sock


@dataclass(frozen=True, slots=True)
class ControlSocket:
    """The control socket, with what tells its file from one that another daemon put there.

    Attributes:
        sock: The listening socket.
        path: Its file.
        inode: Device and inode of that file.
    """

    sock: socket.socket
    path: Path
    inode: tuple[int, int]

    def close(self) -> None:
        """Close the socket and remove its file if it is still ours; may be called twice."""
        with contextlib.suppress(OSError):
            if _inode(self.path) == self.inode:
                self.path.unlink()
        self.sock.close()


def open_unix(path: Path) -> ControlSocket:
    """Listen on the control socket at ``path``, taking over a stale one.

    Raises:
        WebError: Somebody answers there, something else lies there, or it can't be made.
    """
    if len(os.fsencode(path)) > _UNIX_PATH_BYTES:
        raise WebError(
            "control_socket_unusable",
            f"{path}: longer than the {_UNIX_PATH_BYTES} bytes that a socket's path may have; "
            "set XDG_STATE_HOME to a shorter directory.",
        )
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(os.fspath(path))
        # Nobody can connect before listen(), so there is no moment with wider permissions.
        path.chmod(0o600)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
        return ControlSocket(sock, path, _inode(path))
    except OSError as error:
        sock.close()
        raise WebError(
            "control_socket_unusable",
            f"{path}: the control socket can't be made ({error.strerror}); "
            "check the owner and the mode of its directory.",
        ) from error


def bound_port(sock: socket.socket) -> int:
    """Return the port that a TCP socket really has."""
    return int(sock.getsockname()[1])


def dashboard_url(host: str, port: int) -> str:
    """Return the address to type into a browser: wildcard hosts become loopback."""
    if host in ("", "0.0.0.0"):
        host = "127.0.0.1"
    elif host == "::":
        host = "::1"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    bare = host.strip("[]")
    try:
        ipaddress.ip_address(bare)
        flags = int(socket.AI_NUMERICHOST)
    except ValueError:
        flags = 0
    try:
        found = socket.getaddrinfo(bare or "0.0.0.0", port, type=socket.SOCK_STREAM, flags=flags)
    except (OSError, UnicodeError) as error:
        raise _host_error(host, "it can't be resolved") from error
    # A name like localhost has both families; IPv4 is what the printed address says.
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    family, _, _, _, address = found[0]
    return family, (str(address[0]), int(address[1]))


def _host_error(host: str, problem: str) -> WebError:
    return WebError(
        "server_host_invalid",
        f"server.host: {host!r} can't be listened on: {problem}; give an address of this machine, "
        "for example 127.0.0.1.",
    )


def _tcp_error(host: str, port: int, error: OSError) -> WebError:
    if error.errno == errno.EADDRINUSE:
        return WebError(
            "server_port_in_use",
            f"server.port (--port): port {port} on {host} is in use by another program; "
            "give another port, or 0 for a free one.",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return WebError(
            "server_port_forbidden",
            f"server.port (--port): this user may not listen on port {port}; give one above 1023.",
        )
    return _host_error(host, error.strerror or str(error))


def _inode(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise WebError(
            "control_socket_unusable", f"{path}: is not a socket; move it away and start again."
        )
    if _answers(path):
        raise WebError(
            "control_socket_unusable",
            f"{path}: another daemon answers on this control socket; stop it first.",
        )
    path.unlink(missing_ok=True)


def _answers(path: Path) -> bool:
    """Tell whether somebody listens at ``path``; in doubt, yes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True
