"""What the tools of all trackers share: their limits, their results, their audit line.

``rest_tool`` and ``linear_tool`` send; this module writes what the agent reads and what the log
keeps of it.

Invariant: no result holds a secret that it was told of.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import structlog

from .base import ToolContext, ToolResult

MAX_ANSWER: Final = 1 << 20
"""Bytes of a provider's answer."""
MAX_BODY: Final = 256 << 10
"""Bytes of what an agent sends."""
TIMEOUT_S: Final = 60.0
"""Seconds of one call, look-ups included."""

log = structlog.get_logger(__name__)


def write_result(value: Any, secrets: Sequence[str]) -> str:
    """Write JSON as the model reads it, without the secrets; what no encoding holds is ``?``."""
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False)
    except RecursionError:
        text = json.dumps({"error": {"message": "The answer is nested too deeply."}})
    for secret in secrets:
        if secret:
            text = text.replace(json.dumps(secret, ensure_ascii=False)[1:-1], "[redacted]")
    return text.encode("utf-8", "replace").decode("utf-8")


def failed(error: Any, secrets: Sequence[str] = ()) -> ToolResult:
    """A failed result with this error object."""
    return ToolResult(False, write_result({"error": error}, secrets))


def unsupported(name: str, known: str) -> ToolResult:
    """A tool that the adapter does not have."""
    message = f"Unsupported dynamic tool: {json.dumps(name)}."
    return failed({"message": message, "supportedTools": [known]})


def audit(tool: str, context: ToolContext, *, status: int | None, **what: str) -> None:
    """One line for each call that may have changed something; no query, no body, no values."""
    log.info(
        "Tracker changed by an agent's tool",
        tool=tool,
        status=status,
        issue=context.issue.identifier,
        run_id=context.run_id,
        **what,
    )
