"""Logs of a simulated daemon: not written anywhere, but an unexpected failure is kept."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Iterator, MutableMapping
from typing import Any

import structlog

EXPECTED = ("AgentBug", "KeyError: 'a fault of the adapter'")
"""Faults that the simulation throws in on purpose and that the engine turns into answers."""


@contextlib.contextmanager
def captured_logs() -> Iterator[list[str]]:
    """Collect logged exceptions that nobody planned, as text with their traceback."""
    found: list[str] = []

    def collect(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Any:
        error = event.get("exc_info")
        if error:
            given = isinstance(error, BaseException)
            text = "".join(traceback.format_exception(error)) if given else traceback.format_exc()
            if not any(name in text for name in EXPECTED):
                found.append(f"{event.get('event')}\n{text}")
        raise structlog.DropEvent

    before = structlog.get_config()
    levels = {name: logging.getLogger(name).level for name in ("symphony",)}
    structlog.configure(
        processors=[collect],
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        cache_logger_on_first_use=False,
    )
    logging.getLogger("symphony").setLevel(logging.CRITICAL + 1)
    try:
        yield found
    finally:
        structlog.configure(**before)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
