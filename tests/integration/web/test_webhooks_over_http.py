"""Deliveries through a running server: what wakes the poll, and the codes of what does not."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import TYPE_CHECKING

import httpx2
import pytest

from symphony.web.app import MAX_ARRIVING
from symphony.web.server import WebServer
from symphony.web.webhooks import MAX_WEBHOOK_BYTES, WebhookConfig, Webhooks

if TYPE_CHECKING:
    from conftest import Site

SECRET = "It's a Secret to Everybody"
PATH = "/api/v1/webhooks/github"


def headers(body: bytes, number: str = "1") -> dict[str, str]:
    digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    return {"X-Hub-Signature-256": f"sha256={digest}", "X-GitHub-Delivery": number}


def judge() -> Webhooks:
    config = WebhookConfig("github", SECRET, 3600.0)
    return Webhooks(config=lambda: config, wall=time.time)


@asynccontextmanager
async def serving(
    site: Site, webhooks: Webhooks | None = None, *, arrival_s: float = 20.0
) -> AsyncIterator[WebServer]:
    webhooks = webhooks or judge()
    server = WebServer(site.backend, webhooks=webhooks, arrival_s=arrival_s)
    server.listen_tcp("127.0.0.1", 0)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.run())
        await server.wait_started()
        yield server
        server.stop()


@pytest.fixture
def webhooks() -> Webhooks:
    return judge()


@pytest.fixture
async def client(site: Site, webhooks: Webhooks) -> AsyncIterator[httpx2.AsyncClient]:
    async with serving(site, webhooks) as server:
        base_url = f"http://127.0.0.1:{server.port}"
        async with httpx2.AsyncClient(base_url=base_url, timeout=10) as client:
            yield client


async def test_a_signed_delivery_wakes_the_poll_once(
    client: httpx2.AsyncClient, site: Site
) -> None:
    first = await client.post(PATH, content=b'{"zen": 1}', headers=headers(b'{"zen": 1}'))
    again = await client.post(PATH, content=b'{"zen": 1}', headers=headers(b'{"zen": 1}'))
    assert (first.status_code, first.json()) == (202, {"accepted": True, "duplicate": False})
    assert (again.status_code, again.json()) == (202, {"accepted": True, "duplicate": True})
    assert site.backend.sources == ["webhook"]


async def test_the_name_under_which_a_proxy_is_reached_does_not_matter(
    client: httpx2.AsyncClient,
) -> None:
    given = {**headers(b"x"), "Host": "hooks.example.com", "Origin": "https://github.com"}
    assert (await client.post(PATH, content=b"x", headers=given)).status_code == 202
    for method, path in (("GET", "/api/v1/state"), ("POST", "/api/v1/refresh"), ("GET", PATH)):
        answer = await client.request(method, path, headers={"Host": "hooks.example.com"})
        assert answer.json()["error"]["code"] == "host_not_allowed"


async def test_other_deliveries_wake_nothing(client: httpx2.AsyncClient, site: Site) -> None:
    unsigned = await client.post(PATH, content=b"x")
    forged = await client.post(PATH, content=b"y", headers=headers(b"x"))
    elsewhere = await client.post("/api/v1/webhooks/linear", content=b"x", headers=headers(b"x"))
    deeper = await client.post(f"{PATH}/state", content=b"x", headers=headers(b"x"))
    assert (unsigned.status_code, code(unsigned)) == (401, "webhook_signature_missing")
    assert (forged.status_code, code(forged)) == (401, "webhook_signature_invalid")
    assert (elsewhere.status_code, code(elsewhere)) == (404, "webhook_not_configured")
    assert deeper.status_code == 405
    assert site.backend.sources == []


async def test_a_delivery_may_be_larger_than_other_bodies_up_to_its_cap(
    client: httpx2.AsyncClient, webhooks: Webhooks
) -> None:
    async def chunks(size: int) -> AsyncIterator[bytes]:
        yield b"a" * size

    full, over = b"a" * MAX_WEBHOOK_BYTES, b"a" * (MAX_WEBHOOK_BYTES + 1)
    assert (await client.post(PATH, content=full, headers=headers(full))).status_code == 202
    told = await client.post(PATH, content=over, headers=headers(over))
    untold = await client.post(PATH, content=chunks(len(over)), headers=headers(over))
    assert (told.status_code, code(told)) == (413, "payload_too_large")
    assert (untold.status_code, code(untold)) == (413, "payload_too_large")
    # Both are told of, and the poll looks by itself until a delivery comes through.
    assert str(webhooks.problem()).startswith("2 webhook deliveries were rejected")
    assert "larger than 1 MiB. Have the tracker leave fields out" in str(webhooks.problem())
    assert not webhooks.wakes
    assert (await client.post(PATH, content=b"x", headers=headers(b"x", "2"))).status_code == 202
    assert (webhooks.problem(), webhooks.wakes) == (None, True)
    await client.post("/api/v1/webhooks/linear", content=over)
    assert webhooks.problem() is None, "nobody is configured to send there"


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "text/plain; charset=utf-16", "nonsense"]
)
async def test_the_content_type_changes_nothing_of_what_is_signed(
    client: httpx2.AsyncClient, content_type: str
) -> None:
    body = b"payload=%7B%7D"
    given = {**headers(body), "Content-Type": content_type}
    assert (await client.post(PATH, content=body, headers=given)).status_code == 202


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /api/v1/webhooks/github HT",
        b"POST /api/v1/webhooks/github HTTP/1.1\r\nHost: x\r\n",
        b"POST /api/v1/webhooks/github HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc",
    ],
    ids=["nothing", "half a line", "half the headers", "half a body"],
)
async def test_a_request_that_does_not_arrive_is_ended(
    site: Site, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(site, arrival_s=0.05) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(sent)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 408 ")
        writer.close()
        await writer.wait_closed()
    assert site.backend.sources == []
    assert [r.message for r in caplog.records if r.levelno >= logging.ERROR] == []


async def test_a_further_request_of_a_connection_has_its_own_time(site: Site) -> None:
    async with serving(site, arrival_s=1.0) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for _ in range(2):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
            await reader.readuntil(b"}")
        writer.write(b"GET /hea")
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
        writer.close()
        await writer.wait_closed()


async def test_who_leaves_before_the_end_of_a_body_is_no_fault(
    client: httpx2.AsyncClient, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port or 0)
    writer.write(
        b"POST /api/v1/webhooks/github HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await client.post(PATH, content=b"x", headers=headers(b"x"))).status_code == 202
    assert [r.message for r in caplog.records if r.levelno >= logging.ERROR] == []


async def test_so_many_deliveries_arrive_at_once_and_no_more(
    client: httpx2.AsyncClient, site: Site
) -> None:
    half = b"POST /api/v1/webhooks/github HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"
    half += b"Expect: 100-continue\r\n\r\n"
    slow = []
    for _ in range(MAX_ARRIVING):
        reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port or 0)
        writer.write(half)
        # The server asks for the body once its handler waits for it.
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        slow.append((reader, writer))
    refused = await client.post(PATH, content=b"x", headers=headers(b"x"))
    assert (refused.status_code, code(refused)) == (503, "too_many_deliveries")
    for reader, writer in slow:
        writer.write(b"done")
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 401 ")
        writer.close()
        await writer.wait_closed()
    assert (await client.post(PATH, content=b"x", headers=headers(b"x"))).status_code == 202


async def test_a_delivery_that_woke_nothing_may_come_again(
    client: httpx2.AsyncClient, site: Site
) -> None:
    receipt, site.backend.receipt = site.backend.receipt, None
    early = await client.post(PATH, content=b"x", headers=headers(b"x"))
    site.backend.receipt = receipt
    again = await client.post(PATH, content=b"x", headers=headers(b"x"))
    assert (early.status_code, code(early)) == (503, "orchestrator_unavailable")
    assert again.json() == {"accepted": True, "duplicate": False}


async def test_a_stopping_daemon_and_one_without_a_secret_take_no_deliveries(
    client: httpx2.AsyncClient, site: Site
) -> None:
    site.backend.receipt = None
    stopping = await client.post(PATH, content=b"x", headers=headers(b"x"))
    without = await site.tcp.post(PATH, content=b"x", headers=headers(b"x"))
    assert (stopping.status_code, code(stopping)) == (503, "orchestrator_unavailable")
    assert (without.status_code, code(without)) == (404, "webhook_not_configured")


async def test_the_tracker_and_its_webhooks_are_shown(site: Site, snapshots: ModuleType) -> None:
    from symphony.scheduler.snapshot import TrackerRow

    row = TrackerRow(
        kind="github",
        limit=5000,
        remaining=4321,
        reset_wall=snapshots.WALL + 60,
        requests=12,
        not_modified=7,
    )
    site.publish(snapshots.snapshot(tracker=row, webhook_error="3 <b>rejected</b>"))
    state = (await site.tcp.get("/api/v1/state")).json()
    page = (await site.tcp.get("/")).text
    assert state["tracker"]["rate_limit"]["remaining"] == 4321
    assert (state["tracker"]["requests"], state["tracker"]["not_modified"]) == (12, 7)
    assert state["problems"]["webhooks"] == "3 <b>rejected</b>"
    assert "4,321 of 5,000 left until" in page
    assert "3 &lt;b&gt;rejected&lt;/b&gt;" in page

    site.publish(snapshots.snapshot(tracker=TrackerRow(kind="local")))
    local = (await site.tcp.get("/api/v1/state")).json()["tracker"]
    assert local == {
        "kind": "local",
        "rate_limit": None,
        "requests": None,
        "not_modified": None,
        "rate_limits": [],
        "answers": {},
        "breaker": None,
    }


def code(answer: httpx2.Response) -> str:
    return str(answer.json()["error"]["code"])
