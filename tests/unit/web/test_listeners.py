"""The sockets, and the sentences for those that can't be had."""

from __future__ import annotations

import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from symphony.web.listeners import WebError, bound_port, dashboard_url, open_tcp, open_unix


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield bound_port(other)


def test_port_0_takes_a_free_port() -> None:
    with open_tcp("127.0.0.1", 0) as sock:
        assert bound_port(sock) > 0


def test_connections_of_a_port_are_recognised_as_tcp_and_answer_without_delay() -> None:
    with open_tcp("127.0.0.1", 0) as sock:
        assert sock.proto == socket.IPPROTO_TCP


def test_a_port_in_use_names_the_port_and_the_mend(taken: int) -> None:
    with pytest.raises(WebError) as caught:
        open_tcp("127.0.0.1", taken)
    assert caught.value.category == "server_port_in_use"
    assert str(caught.value) == (
        f"server.port (--port): port {taken} on 127.0.0.1 is in use by another program; "
        "give another port, or 0 for a free one."
    )


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1", "a" * 300, "bad\x00host"])
def test_a_host_that_is_not_this_machine_is_named(host: str) -> None:
    with pytest.raises(WebError, match=r"server\.host: .*127\.0\.0\.1") as caught:
        open_tcp(host, 0)
    assert caught.value.category == "server_host_invalid"


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_number_that_is_no_port_is_named(port: int) -> None:
    with pytest.raises(WebError, match=f"{port} is no port") as caught:
        open_tcp("127.0.0.1", port)
    assert caught.value.category == "server_port_invalid"


def test_the_control_socket_is_for_its_owner_alone(tmp_path: Path) -> None:
    control = open_unix(tmp_path / "c.sock")
    assert stat.S_IMODE(control.path.stat().st_mode) == 0o600
    control.close()
    assert not control.path.exists()


def test_a_stale_control_socket_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "c.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    control = open_unix(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    control.close()


def test_a_control_socket_that_answers_is_left_alone(tmp_path: Path) -> None:
    first = open_unix(tmp_path / "c.sock")
    with pytest.raises(WebError, match="another daemon answers"):
        open_unix(first.path)
    assert first.path.exists()
    first.close()


def test_a_file_in_the_place_of_the_control_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "c.sock"
    path.write_text("mine")
    with pytest.raises(WebError, match="is not a socket"):
        open_unix(path)
    assert path.read_text() == "mine"


def test_closing_leaves_the_socket_of_a_successor(tmp_path: Path) -> None:
    first = open_unix(tmp_path / "c.sock")
    first.path.unlink()
    second = open_unix(first.path)
    first.close()
    assert second.path.exists()
    second.close()


def test_a_path_that_is_too_long_for_a_socket_is_named(tmp_path: Path) -> None:
    with pytest.raises(WebError, match="XDG_STATE_HOME"):
        open_unix(tmp_path / ("d" * 120) / "c.sock")


def test_a_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(WebError, match="can't be made") as caught:
        open_unix(tmp_path / "none" / "c.sock")
    assert caught.value.category == "control_socket_unusable"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:4000/"),
        ("0.0.0.0", "http://127.0.0.1:4000/"),
        ("", "http://127.0.0.1:4000/"),
        ("::", "http://[::1]:4000/"),
        ("fd00::1", "http://[fd00::1]:4000/"),
        ("box.example", "http://box.example:4000/"),
    ],
)
def test_the_address_for_people_can_be_opened(host: str, url: str) -> None:
    assert dashboard_url(host, 4000) == url


def test_the_web_framework_is_imported_only_when_it_serves() -> None:
    script = (
        "import sys; import symphony.web.server, symphony.web.listeners; "
        "print(sorted({'starlette', 'uvicorn', 'jinja2', 'httptools'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
