"""The API over real HTTP: routes, codes, guard, streams and shutdown."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families as read_metrics

from symphony.errors import ConfigError
from symphony.model.run import OutcomeKind
from symphony.web.server import WebError, WebServer
from symphony.web.streams import MAX_STREAMS

if TYPE_CHECKING:
    from conftest import Site

STATE_KEYS = {
    "generated_at", "counts", "running", "retrying", "blocked", "codex_totals", "rate_limits",
}  # fmt: skip


def code(response: httpx2.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message"}
    return response.status_code, body["error"]["code"]


async def test_the_state_is_served_on_both_sockets(site: Site, snapshots: ModuleType) -> None:
    site.publish(snapshots.busy())
    over_tcp = await site.tcp.get("/api/v1/state")
    over_unix = await site.unix.get("/api/v1/state")
    assert over_tcp.status_code == 200
    assert over_tcp.content == over_unix.content
    assert set(over_tcp.json()) >= STATE_KEYS


async def test_figures_are_served_to_scrapers_on_both_sockets(
    site: Site, snapshots: ModuleType
) -> None:
    site.backend.counted.run_ended(OutcomeKind.COMPLETED)
    early = await site.unix.get("/metrics")
    site.publish(snapshots.busy())
    for client in (site.tcp, site.unix):
        answer = await client.get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=")
        families = {family.name: family for family in read_metrics(answer.text)}
        assert {s.labels["status"]: s.value for s in families["symphony_issues"].samples} == {
            "running": 3,
            "retrying": 3,
            "blocked": 1,
            "waiting": 2,
            "cleaning": 0,
        }
    assert 'symphony_runs_ended_total{outcome="completed"} 1.0' in early.text
    assert "symphony_issues" not in early.text
    stranger = await site.tcp.get("/metrics", headers={"host": "evil.example"})
    assert code(stranger) == (403, "host_not_allowed")


async def test_the_control_socket_is_for_its_owner_alone(site: Site) -> None:
    assert stat.S_IMODE(site.path.stat().st_mode) == 0o600


async def test_before_the_first_snapshot_the_state_is_200_with_an_error(site: Site) -> None:
    response = await site.tcp.get("/api/v1/state")
    assert response.status_code == 200
    body = response.json()
    assert set(body) == {"generated_at", "error"}
    assert body["error"] == {"code": "snapshot_unavailable", "message": "Snapshot unavailable"}


async def test_before_the_first_snapshot_an_issue_is_unavailable_not_unknown(site: Site) -> None:
    assert code(await site.tcp.get("/api/v1/MT-1")) == (503, "snapshot_unavailable")


async def test_an_issue_is_found_by_its_identifier(site: Site, snapshots: ModuleType) -> None:
    site.publish(snapshots.busy())
    site.backend.events = [{"at": snapshots.WALL, "event": "hook_started", "message": None}]
    body = (await site.tcp.get("/api/v1/MT-450")).json()
    assert body["status"] == "retrying"
    assert body["recent_events"][0]["message"] == "hook started"
    assert code(await site.tcp.get("/api/v1/MT-404")) == (404, "issue_not_found")


@pytest.mark.parametrize(
    ("identifier", "path"),
    [
        ("group/project#12", "/api/v1/group%2Fproject%2312"),
        ("Zoë 1", "/api/v1/Zo%C3%AB%201"),
        ("a%2Fb", "/api/v1/a%252Fb"),
    ],
)
async def test_an_identifier_may_hold_any_character_when_encoded(
    site: Site, snapshots: ModuleType, identifier: str, path: str
) -> None:
    site.publish(snapshots.snapshot(running=(snapshots.running(identifier),)))
    response = await site.tcp.get(path)
    assert response.json()["issue_identifier"] == identifier
    page = (await site.tcp.get("/")).text
    assert f'href="{path}"' in page


async def test_the_names_of_routes_shadow_identifiers(site: Site, snapshots: ModuleType) -> None:
    rows = tuple(snapshots.running(name) for name in ("state", "refresh"))
    site.publish(snapshots.snapshot(running=rows))
    assert "counts" in (await site.tcp.get("/api/v1/state")).json()
    assert code(await site.tcp.get("/api/v1/refresh")) == (405, "method_not_allowed")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"json": {}},
        {"json": {"why": "now"}},
        {"data": {"a": "b"}},
        {"content": b"{broken", "headers": {"content-type": "application/json"}},
    ],
)
async def test_a_refresh_takes_any_body(site: Site, body: dict[str, Any]) -> None:
    response = await site.tcp.post("/api/v1/refresh", **body)
    assert response.status_code == 202
    assert response.json() == {
        "queued": True,
        "coalesced": False,
        "requested_at": "2030-03-17T17:46:40.250000Z",
        "operations": ["poll", "reconcile"],
    }
    assert site.backend.refreshes == 1


async def test_a_refresh_without_a_scheduler_is_503(site: Site) -> None:
    site.backend.receipt = None
    assert code(await site.tcp.post("/api/v1/refresh")) == (503, "orchestrator_unavailable")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/", "GET, HEAD"),
        ("DELETE", "/api/v1/state", "GET, HEAD"),
        ("POST", "/api/v1/state", "GET, HEAD"),
        ("GET", "/api/v1/refresh", "POST"),
        ("HEAD", "/api/v1/refresh", "POST"),
        ("PUT", "/api/v1/MT-1", "GET, HEAD"),
        ("OPTIONS", "/api/v1/MT-1", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_405(site: Site, method: str, path: str, allow: str) -> None:
    response = await site.tcp.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"] == allow
    if method != "HEAD":
        assert code(response) == (405, "method_not_allowed")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/nope"), ("POST", "/nope"), ("GET", "/api/v1/"), ("GET", "/api/v1/a/b"),
     ("GET", "/api/v1/state/"), ("GET", "/static/../server.py"), ("GET", "/static/none.css"),
     ("GET", "/static/%2e%2e%2fapi.py")],
)  # fmt: skip
async def test_another_path_is_404(site: Site, method: str, path: str) -> None:
    assert code(await site.tcp.request(method, path)) == (404, "not_found")


@pytest.mark.parametrize("path", ["/", "/api/v1/state", "/api/v1/MT-101", "/healthz", "/readyz"])
async def test_head_is_answered_like_get_without_a_body(
    site: Site, snapshots: ModuleType, path: str
) -> None:
    site.publish(snapshots.busy())
    head = await site.tcp.head(path)
    got = await site.tcp.get(path)
    assert head.status_code == got.status_code == 200
    assert head.content == b""
    assert head.headers["content-type"] == got.headers["content-type"]


@pytest.mark.parametrize("path", ["/api/v1/events", "/live"])
async def test_head_of_a_stream_ends(site: Site, path: str) -> None:
    response = await site.tcp.head(path)
    assert response.headers["content-type"].startswith("text/event-stream")


async def test_liveness_and_readiness_differ(site: Site, snapshots: ModuleType) -> None:
    assert (await site.tcp.get("/healthz")).json() == {"status": "ok"}
    assert code(await site.tcp.get("/readyz")) == (503, "not_ready")
    site.publish(snapshots.snapshot())
    assert (await site.tcp.get("/readyz")).json() == {"status": "ready"}
    site.publish(snapshots.snapshot(shutting_down=True))
    assert code(await site.tcp.get("/readyz")) == (503, "not_ready")


async def test_an_error_of_ours_tells_nothing_to_the_reader(site: Site) -> None:
    site.backend.broken = True
    response = await site.tcp.get("/api/v1/state")
    assert code(response) == (500, "request_failed")
    assert "secret" not in response.text


# ---- guard


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80"])
async def test_a_foreign_host_header_is_refused_on_tcp(site: Site, host: str) -> None:
    response = await site.tcp.get("/api/v1/state", headers={"host": host})
    assert code(response) == (403, "host_not_allowed")


async def test_any_host_header_is_taken_on_the_control_socket(site: Site) -> None:
    response = await site.unix.get("/api/v1/state", headers={"host": "evil.example"})
    assert response.status_code == 200


async def test_a_request_without_a_host_is_refused(site: Site) -> None:
    def ask() -> bytes:
        with socket.create_connection(("127.0.0.1", site.server.port or 0), 5) as client:
            client.sendall(b"GET /api/v1/state HTTP/1.0\r\n\r\n")
            return client.recv(65536)

    assert b" 403 " in (await asyncio.to_thread(ask)).split(b"\r\n")[0]


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
async def test_another_page_cannot_ask_for_a_refresh(site: Site, headers: dict[str, str]) -> None:
    response = await site.tcp.post("/api/v1/refresh", headers=headers)
    assert code(response) == (403, "origin_not_allowed")
    assert site.backend.refreshes == 0


async def test_our_own_page_can_ask_for_a_refresh(site: Site) -> None:
    origin = f"http://127.0.0.1:{site.server.port}"
    headers = {"origin": origin, "sec-fetch-site": "same-origin"}
    response = await site.tcp.post("/api/v1/refresh", headers=headers)
    assert response.status_code == 202


async def test_a_body_that_is_announced_as_too_large_is_refused(site: Site) -> None:
    response = await site.tcp.post("/api/v1/refresh", content=b"x" * 70_000)
    assert code(response) == (413, "payload_too_large")
    assert site.backend.refreshes == 0


async def test_a_chunked_body_that_grows_too_large_is_refused(site: Site) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(70):
            yield b"x" * 1000

    response = await site.tcp.post("/api/v1/refresh", content=chunks())
    assert code(response) == (413, "payload_too_large")
    assert site.backend.refreshes == 0


@pytest.mark.parametrize("path", ["/", "/api/v1/state", "/nope", "/static/dashboard.css"])
async def test_every_answer_has_the_security_headers_and_no_cors(site: Site, path: str) -> None:
    headers = (await site.tcp.get(path, headers={"origin": "https://evil.example"})).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert not [name for name in headers if name.startswith("access-control-")]


# ---- page


async def test_the_page_shows_the_board_and_escapes_what_others_wrote(
    site: Site, snapshots: ModuleType
) -> None:
    site.publish(snapshots.busy(config_error="<b>bad</b> key"))
    page = (await site.tcp.get("/")).text
    assert "&lt;script&gt;alert(&#39;hi&#39;)&lt;/script&gt;" in page
    assert "<script>alert" not in page
    assert "javascript:" not in page
    assert "&lt;b&gt;bad&lt;/b&gt; key" in page
    assert (
        'href="https://tracker.example/issues/MT-101" target="_blank" rel="noopener noreferrer"'
        in page
    )
    assert " style=" not in page
    assert " onclick=" not in page
    for text in ("MT-450", "waits for a slot", "which colour?", "blockers_done", "43% used"):
        assert text in page


async def test_an_idle_page_says_so_and_one_without_a_snapshot_too(
    site: Site, snapshots: ModuleType
) -> None:
    assert "Snapshot unavailable" in (await site.tcp.get("/")).text
    site.publish(snapshots.snapshot())
    page = (await site.tcp.get("/")).text
    for text in ("No active agents", "No queued retries", "No candidate waits", "not reported any"):
        assert text in page


async def test_files_are_kept_for_ever_only_under_their_digest(site: Site) -> None:
    page = (await site.tcp.get("/")).text
    links = [part.split('"')[0] for part in page.split('"/static/')[1:]]
    assert sorted(link.split("?")[0] for link in links) == [
        "dashboard.css",
        "dashboard.js",
        "favicon.svg",
    ]
    for link in links:
        name, digest = link.split("?v=")
        pinned = await site.tcp.get(f"/static/{link}")
        assert hashlib.sha256(pinned.content).hexdigest()[:12] == digest
        assert "immutable" in pinned.headers["cache-control"]
        loose = await site.tcp.get(f"/static/{name}", headers={"if-none-match": f'"{digest}"'})
        assert (loose.status_code, loose.headers["cache-control"]) == (304, "no-cache")


# ---- streams


class Events:
    """Reads server-sent events from an open response."""

    def __init__(self, response: httpx2.Response) -> None:
        self._lines = response.aiter_lines()

    async def next(self) -> tuple[str, str]:
        """Return name and data of the next event, comments and ``retry`` skipped."""
        name, data = "", []
        async for line in self._lines:
            if not line and data:
                return name, "\n".join(data)
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                data.append(value)
        raise EOFError


@asynccontextmanager
async def listening(client: httpx2.AsyncClient, path: str) -> AsyncIterator[Events]:
    async with client.stream("GET", path) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Events(response)


async def test_the_stream_starts_with_the_newest_state_and_goes_on(
    site: Site, snapshots: ModuleType
) -> None:
    site.publish(snapshots.snapshot(sequence=1))
    async with listening(site.unix, "/api/v1/events") as events:
        name, data = await events.next()
        assert (name, json.loads(data)["sequence"]) == ("state", 1)
        site.publish(snapshots.snapshot(sequence=2))
        assert json.loads((await events.next())[1])["sequence"] == 2


async def test_a_burst_is_coalesced_into_the_newest_state(
    site: Site, snapshots: ModuleType
) -> None:
    site.publish(snapshots.snapshot(sequence=0))
    async with listening(site.tcp, "/api/v1/events") as events:
        await events.next()
        started = asyncio.get_running_loop().time()
        seen = []
        for sequence in range(1, 101):
            site.publish(snapshots.snapshot(sequence=sequence))
            if sequence % 5 == 0:
                await site.unix.get("/healthz")
        while not seen or seen[-1] < 100:
            seen.append(json.loads((await events.next())[1])["sequence"])
        elapsed = asyncio.get_running_loop().time() - started
    assert len(seen) <= 1 + elapsed / 0.25


async def test_the_page_is_updated_by_the_same_template(site: Site, snapshots: ModuleType) -> None:
    async with listening(site.tcp, "/live") as events:
        site.publish(snapshots.busy())
        name, data = await events.next()
    assert name == "dashboard"
    assert "MT-101" in data
    assert "<html" not in data
    assert "<script>alert" not in data


async def test_a_reader_that_goes_away_leaves_nothing_behind(
    site: Site, snapshots: ModuleType
) -> None:
    site.publish(snapshots.snapshot())
    for _ in range(5):
        async with listening(site.tcp, "/api/v1/events") as events:
            await events.next()
    left = [task for task in asyncio.all_tasks() if task.get_name().startswith("sse")]
    if left:
        _, pending = await asyncio.wait(left, timeout=5)
        assert not pending


async def test_streams_are_limited_in_number(site: Site, snapshots: ModuleType) -> None:
    site.publish(snapshots.snapshot())
    limits = httpx2.Limits(max_connections=MAX_STREAMS + 2)
    async with httpx2.AsyncClient(base_url=site.tcp.base_url, limits=limits, timeout=10) as client:
        opened = []
        for _ in range(MAX_STREAMS):
            request = client.build_request("GET", "/api/v1/events")
            response = await client.send(request, stream=True)
            events = Events(response)
            await events.next()
            opened.append((response, events))
        assert code(await client.get("/api/v1/events")) == (503, "too_many_streams")
        for response, _ in opened:
            await response.aclose()


async def test_stopping_ends_streams_within_a_second(
    tmp_path: Path, site: Site, snapshots: ModuleType
) -> None:
    site.publish(snapshots.snapshot())
    async with listening(site.unix, "/api/v1/events") as events:
        await events.next()
        loop = asyncio.get_running_loop()
        started = loop.time()
        site.server.stop()
        with pytest.raises(EOFError):
            await events.next()
        assert loop.time() - started < 1.0


async def test_a_reader_that_stopped_reading_delays_neither_others_nor_the_end(
    site: Site, snapshots: ModuleType
) -> None:
    rows = tuple(snapshots.running(f"MT-{number}") for number in range(500))
    stalled = socket.socket()
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stalled.connect(("127.0.0.1", site.server.port))
    stalled.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with listening(site.unix, "/api/v1/events") as events:
        for sequence in range(1, 5):
            site.publish(snapshots.snapshot(sequence=sequence, running=rows))
            assert json.loads((await events.next())[1])["sequence"] == sequence
    loop = asyncio.get_running_loop()
    started = loop.time()
    site.server.stop()
    await site.finished.wait()
    assert loop.time() - started < 2.0
    stalled.close()


# ---- server


async def test_the_server_leaves_no_socket_and_no_task_behind(
    tmp_path: Path, snapshots: ModuleType, site: Site
) -> None:
    tasks = asyncio.all_tasks()
    server = WebServer(site.backend)
    path = tmp_path / "second.sock"
    server.listen_control(path)
    port = server.listen_tcp("127.0.0.1", 0)
    assert server.url == f"http://127.0.0.1:{port}/"
    running = asyncio.create_task(server.run())
    await server.wait_started()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not path.exists()
    assert asyncio.all_tasks() == tasks
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 1).close()


async def test_a_port_in_use_is_a_config_error_and_the_control_socket_still_serves(
    tmp_path: Path, site: Site
) -> None:
    server = WebServer(site.backend)
    server.listen_control(tmp_path / "third.sock")
    with pytest.raises(WebError) as caught:
        server.listen_tcp("127.0.0.1", site.server.port or 0)
    assert isinstance(caught.value, ConfigError)
    assert caught.value.category == "server_port_in_use"
    assert server.url is None
    async with asyncio.TaskGroup() as group:
        group.create_task(server.run())
        await server.wait_started()
        transport = httpx2.AsyncHTTPTransport(uds=str(tmp_path / "third.sock"))
        async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
            assert (await client.get("/healthz")).status_code == 200
        server.stop()


async def test_a_fault_of_the_server_ends_the_server_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, site: Site
) -> None:
    server = WebServer(site.backend)
    server.listen_control(tmp_path / "fourth.sock")
    assert server._control is not None
    server._control.sock.close()
    await server.run()
    assert "the daemon goes on without it" in caplog.text


async def test_a_plain_client_of_the_standard_library_is_served(site: Site) -> None:
    def ask() -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("localhost", site.server.port, timeout=5)
        connection.request("POST", "/api/v1/refresh")
        response = connection.getresponse()
        answer = response.status, response.read()
        connection.close()
        return answer

    status, body = await asyncio.to_thread(ask)
    assert status == 202
    assert json.loads(body)["queued"] is True
