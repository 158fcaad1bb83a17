"""JSON responses and the one form that every failure has."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response

from .api import encode, present_failure


def json_response(
    body: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return ``body`` as JSON; bytes are taken as encoded already."""
    content = body if isinstance(body, bytes) else encode(body)
    return Response(content, status, headers, "application/json")


def error_response(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Return ``{"error": {"code", "message"}}`` with an HTTP status."""
    return json_response(present_failure(code, message), status=status, headers=headers)
