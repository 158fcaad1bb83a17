"""The routes of the web surface and what each of them does.

Role: binds paths to the presenters of ``api`` and ``pages``, with the reference's routes, codes
and envelopes.

- ``GET /`` the dashboard; ``GET /live`` its updates as server-sent events
- ``GET /static/<name>`` its files
- ``GET /api/v1/state``, ``GET /api/v1/events`` (the same, as server-sent events)
- ``POST /api/v1/refresh``, ``POST /api/v1/control``, ``POST /api/v1/webhooks/<kind>``
- ``GET /api/v1/budget``
- ``GET /api/v1/<identifier>`` and ``.../explain``, percent-encoded; ``state``, ``events``,
  ``budget``, ``control`` and ``refresh`` are shadowed
- ``GET /metrics`` figures for Prometheus
- ``GET /healthz`` the process answers; ``GET /readyz`` the scheduler works

HEAD is answered as GET. Another method on these is 405, another path 404.
Neighbours: ``guard`` is put around it, ``server`` serves it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from importlib.metadata import version
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from . import api
from .backend import Backend, Refusal
from .budgets import present_budget
from .control import obey
from .envelope import error_response, json_response
from .guard import Guard, HostRule
from .pages import Pages
from .streams import Streams
from .webhooks import Webhooks

Handler = Callable[[Request], Awaitable[Response]]
_API = b"/api/v1/"
MAX_ARRIVING = 32
"""Deliveries whose bodies are held at a time; providers send them again."""

_EXPLAIN = b"/explain"
_FAULTS = {
    404: ("not_found", "Route not found"),
    405: ("method_not_allowed", "Method not allowed"),
    413: ("payload_too_large", "The request's body is too large"),
}


class Resource:
    """One path: a handler a method. HEAD is GET, any other method is 405."""

    def __init__(self, **handlers: Handler) -> None:
        self._handlers = handlers
        allowed = [*handlers, *(["HEAD"] if "GET" in handlers else [])]
        self._allow = {"allow": ", ".join(sorted(allowed))}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        handler = self._handlers.get(method)
        if handler is None:
            response = error_response(405, *_FAULTS[405], headers=self._allow)
        else:
            response = await handler(Request(scope, receive, send))
        await response(scope, receive, send)


class Handlers:
    """What the routes do, over one backend."""

    def __init__(
        self, backend: Backend, streams: Streams, pages: Pages, webhooks: Webhooks | None
    ) -> None:
        self._backend = backend
        self._webhooks = webhooks
        self._arriving = 0
        self._streams = streams
        self._pages = pages
        self._state = api.SnapshotCache(lambda snapshot: api.encode(api.present_state(snapshot)))
        self._fragment = api.SnapshotCache(lambda snapshot: pages.fragment(snapshot).encode())

    async def dashboard(self, request: Request) -> Response:
        """``GET /``."""
        page = self._pages.page(self._backend.snapshot(), time.time())
        return Response(page, media_type="text/html")

    async def live(self, request: Request) -> Response:
        """``GET /live``: the changing part of the dashboard, whenever it changes."""
        return self._streams.respond(request, "dashboard", self._fragment.get)

    async def static(self, request: Request) -> Response:
        """``GET /static/<name>``: kept for ever only under the digest of its content."""
        asset = self._pages.asset(request.path_params["name"])
        if asset is None:
            return error_response(404, *_FAULTS[404])
        etag = f'"{asset.digest}"'
        pinned = request.query_params.get("v") == asset.digest
        headers = {
            "etag": etag,
            "cache-control": "public, max-age=31536000, immutable" if pinned else "no-cache",
        }
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(asset.content, headers=headers, media_type=asset.media_type)

    async def state(self, request: Request) -> Response:
        """``GET /api/v1/state``: 200 also before the first snapshot, then with an error in it."""
        snapshot = self._backend.snapshot()
        if snapshot is not None:
            return json_response(self._state.get(snapshot))
        failure = api.present_failure(
            "snapshot_unavailable", "Snapshot unavailable", wall=time.time()
        )
        return json_response(failure)

    async def events(self, request: Request) -> Response:
        """``GET /api/v1/events``: each new state, at most four a second."""
        return self._streams.respond(request, "state", self._state.get)

    async def refresh(self, request: Request) -> Response:
        """``POST /api/v1/refresh``: any body is taken and none is needed."""
        async for _ in request.stream():
            pass
        receipt = self._backend.request_refresh()
        if receipt is None:
            return error_response(503, "orchestrator_unavailable", "Orchestrator is unavailable")
        return json_response(api.present_refresh(receipt), status=202)

    async def webhook(self, request: Request) -> Response:
        """``POST /api/v1/webhooks/<kind>``: a signed delivery wakes the poll, and no more."""
        if self._webhooks is None:
            return error_response(404, "webhook_not_configured", "No webhooks are taken here.")
        if self._arriving >= MAX_ARRIVING:
            return error_response(503, "too_many_deliveries", "Too many deliveries arrive at once.")
        self._arriving += 1
        try:
            kind, body = request.path_params["kind"], await request.body()
        finally:
            self._arriving -= 1
        verdict = self._webhooks.judge(kind, request.headers, body)
        if not verdict.taken:
            status = 404 if verdict.code == "webhook_not_configured" else 401
            return error_response(status, verdict.code, verdict.message)
        duplicate = verdict.code == "duplicate"
        if not duplicate and self._backend.request_refresh("webhook") is None:
            self._webhooks.forget(kind, request.headers, body)
            return error_response(503, "orchestrator_unavailable", "Orchestrator is unavailable")
        return json_response({"accepted": True, "duplicate": duplicate}, status=202)

    async def issue(self, request: Request) -> Response:
        """``GET /api/v1/<identifier>``."""
        raw: bytes = request.scope["raw_path"].removeprefix(_API)
        if raw.endswith(_EXPLAIN) and b"/" not in raw.removesuffix(_EXPLAIN):
            return await self._explain(_identifier(raw.removesuffix(_EXPLAIN)))
        if not raw or b"/" in raw:
            return error_response(404, *_FAULTS[404])
        identifier = _identifier(raw)
        snapshot = self._backend.snapshot()
        if snapshot is None:
            return error_response(503, "snapshot_unavailable", "Snapshot unavailable")
        details = api.present_issue(
            snapshot,
            identifier,
            workspace_path=self._backend.workspace_path_for(identifier),
            events=await self._backend.recent_events(identifier, api.RECENT_EVENTS),
            runs=await self._backend.runs(identifier, api.RECENT_RUNS),
        )
        if details is None:
            return error_response(404, "issue_not_found", "Issue not found")
        return json_response(details)

    async def _explain(self, identifier: str) -> Response:
        """``GET /api/v1/<identifier>/explain``: may it start now, and if not, why."""
        explained = await self._backend.explain(identifier)
        if isinstance(explained, Refusal):
            return error_response(explained.status, explained.code, explained.message)
        return json_response(api.present_gates(explained, self._backend.snapshot()))

    async def control(self, request: Request) -> Response:
        """``POST /api/v1/control``."""
        return await obey(request, self._backend)

    async def budget(self, request: Request) -> Response:
        """``GET /api/v1/budget``: every issue that has cost something, not the shown ones alone."""
        row = self._backend.budget()
        if row is None:
            return error_response(503, "snapshot_unavailable", "Snapshot unavailable")
        return json_response(present_budget(row))

    async def metrics(self, request: Request) -> Response:
        """``GET /metrics``: for scrapers, in the form that they ask for."""
        # Its library is imported with the first scrape, which nobody else is to wait for.
        metrics = await asyncio.to_thread(import_module, "symphony.observe.metrics")
        content, media_type = metrics.render(
            self._backend.snapshot(),
            self._backend.tally(),
            version=version("symphony-orchestrator"),
            accept=request.headers.get("accept", ""),
        )
        return Response(content, headers={"content-type": media_type})

    async def health(self, request: Request) -> Response:
        """``GET /healthz``: the event loop answers."""
        return json_response({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """``GET /readyz``: the scheduler has published a snapshot and isn't stopping."""
        snapshot = self._backend.snapshot()
        if snapshot is None or snapshot.shutting_down:
            why = "starting" if snapshot is None else "stopping"
            return error_response(503, "not_ready", f"The scheduler is {why}.")
        return json_response({"status": "ready"})


def build_app(
    backend: Backend, streams: Streams, hosts: HostRule, webhooks: Webhooks | None = None
) -> ASGIApp:
    """Return the guarded application; without ``webhooks`` every delivery is a 404."""
    do = Handlers(backend, streams, Pages(), webhooks)
    resources: Mapping[str, Resource] = {
        "/": Resource(GET=do.dashboard),
        "/live": Resource(GET=do.live),
        "/static/{name}": Resource(GET=do.static),
        "/metrics": Resource(GET=do.metrics),
        "/healthz": Resource(GET=do.health),
        "/readyz": Resource(GET=do.ready),
        "/api/v1/state": Resource(GET=do.state),
        "/api/v1/events": Resource(GET=do.events),
        "/api/v1/refresh": Resource(POST=do.refresh),
        "/api/v1/budget": Resource(GET=do.budget),
        "/api/v1/control": Resource(POST=do.control),
        "/api/v1/webhooks/{kind}": Resource(POST=do.webhook),
        "/api/v1/{identifier:path}": Resource(GET=do.issue),
    }
    app = Starlette(
        routes=[Route(path, resource) for path, resource in resources.items()],
        exception_handlers={
            HTTPException: _http_failure,
            ClientDisconnect: _gone,
            Exception: _failure,
        },
    )
    app.router.redirect_slashes = False
    return Guard(app, hosts, too_large=webhooks.too_large if webhooks is not None else None)


def _identifier(raw: bytes) -> str:
    return unquote(raw.decode("ascii", "replace"))


async def _http_failure(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    code, message = _FAULTS.get(status, ("request_failed", "Request failed"))
    return error_response(status, code, message)


async def _gone(request: Request, error: Exception) -> Response:
    """Answer to nobody: whoever sent a body went away before its end, which is no fault of ours."""
    return error_response(400, "request_incomplete", "The request ended too early")


async def _failure(request: Request, error: Exception) -> Response:
    """Answer for a handler that raised; the trace goes to the log, never to the reader."""
    return error_response(500, "request_failed", "Request failed")
