"""The dashboard: one page rendered here, kept live by small fragments of the same template.

Role: turns a snapshot into what the templates print, and serves the page's own files.
Invariant: every text is escaped by Jinja2, links lead to http and https only, and the page holds no
inline script or style, so that its content security policy needs no exception.
Neighbours: ``app`` binds it to ``/``, ``/live`` and ``/static``; ``templates`` and ``static``.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined

from symphony.model.clock import iso
from symphony.observe.humanize import clean_line, format_count, format_duration, humanize
from symphony.observe.rate_limits import format_wait, read_rate_limits
from symphony.scheduler.snapshot import BlockedRow, RetryingRow, RunningRow, Snapshot

_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_TONES = (
    ("danger", ("blocked", "error", "fail")),
    ("active", ("progress", "running", "active")),
    ("warning", ("todo", "queued", "pending", "retry")),
)
_PHASE_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the page: its content, its type, and the first 12 hex digits of its SHA-256."""

    content: bytes
    media_type: str
    digest: str


class Pages:
    """The templates, compiled once, and the page's files, read once."""

    def __init__(self) -> None:
        self._assets = _load_assets()
        self._environment = Environment(
            loader=PackageLoader("symphony.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(
            count=format_count,
            duration=format_duration,
            iso=iso,
            safe_url=safe_url,
            segment=lambda text: quote(text, safe=""),
            tone=tone,
            wait=format_wait,
        )
        self._environment.globals["asset"] = self._asset_url

    def page(self, snapshot: Snapshot | None, now_wall: float) -> str:
        """Return the whole page, also without a snapshot."""
        view = None if snapshot is None else _view(snapshot, max(now_wall, snapshot.generated_wall))
        return self._environment.get_template("dashboard.html").render(view=view, now=now_wall)

    def fragment(self, snapshot: Snapshot) -> str:
        """Return the changing part of the page, as of the snapshot's own instant."""
        template = self._environment.get_template("fragment.html")
        return template.render(view=_view(snapshot, snapshot.generated_wall))

    def asset(self, name: str) -> Asset | None:
        """Return a file of the page by its name, or None."""
        return self._assets.get(name)

    def _asset_url(self, name: str) -> str:
        return f"/static/{name}?v={self._assets[name].digest}"


def safe_url(url: str | None) -> str | None:
    """Return ``url`` if it is an http or https address with a host, otherwise None."""
    if url is None or any(character.isspace() or not character.isprintable() for character in url):
        return None
    try:
        parts = urlsplit(url)
        return url if parts.scheme in ("http", "https") and parts.hostname else None
    except ValueError:
        return None


def tone(state: str) -> str:
    """Return the badge class for a state's name, by the words in it."""
    low = state.lower()
    return next((name for name, words in _TONES if any(word in low for word in words)), "neutral")


def _load_assets() -> dict[str, Asset]:
    assets = {}
    for entry in files("symphony.web").joinpath("static").iterdir():
        media_type = _MEDIA_TYPES.get(entry.name[entry.name.rfind(".") :])
        if media_type is not None:
            content = entry.read_bytes()
            digest = hashlib.sha256(content).hexdigest()[:12]
            assets[entry.name] = Asset(content, media_type, digest)
    return assets


def _view(snapshot: Snapshot, now: float) -> dict[str, Any]:
    """Return what the templates print; ages are as of ``now`` (epoch seconds)."""
    late_s = now - snapshot.generated_wall
    limits = read_rate_limits(snapshot.rate_limits, now_wall=now)
    live = sorted(snapshot.running, key=lambda row: row.issue_identifier)
    queued = sorted(snapshot.retrying, key=lambda row: row.due_wall)
    poll = snapshot.polling.next_poll_in_s
    return {
        "snapshot": snapshot,
        "seconds_running": snapshot.seconds_running + late_s * len(snapshot.running),
        "next_poll_wall": None if poll is None else snapshot.generated_wall + poll,
        "next_poll_in": None if poll is None else format_wait(poll - late_s),
        "limits": limits,
        "running": [_running(row, now, late_s) for row in live],
        "retrying": [_retrying(row, now) for row in queued],
        "blocked": [_blocked(row, now) for row in snapshot.blocked],
    }


def _running(row: RunningRow, now: float, late_s: float) -> dict[str, Any]:
    runtime_s = row.runtime_s + late_s
    return {
        "row": row,
        "session": _short(row.session_id),
        "phase": _PHASE_WORDS.sub(" ", row.phase).lower(),
        "runtime": format_duration(runtime_s),
        "since": round(now - runtime_s, 3),
        "latest": _latest(row, now),
    }


def _retrying(row: RetryingRow, now: float) -> dict[str, Any]:
    due_in_s = row.due_wall - now
    error = clean_line(row.error, 300) if row.error else None
    due = format_wait(due_in_s) if due_in_s > 0 else "now"
    return {"row": row, "error": error, "due": due}


def _blocked(row: BlockedRow, now: float) -> dict[str, Any]:
    return {
        "row": row,
        "session": _short(row.session_id),
        "ago": format_wait(now - row.blocked_wall),
        "error": clean_line(row.error if row.question is None else row.question.text, 300),
        "unblock_by": ", ".join(row.unblock_by),
        "latest": _latest(row, now),
    }


def _latest(row: RunningRow | BlockedRow, now: float) -> dict[str, Any] | None:
    """Return the last event in words, its own name, and when it was."""
    if row.last_event is None and row.last_message is None:
        return None
    wall = row.last_event_wall
    return {
        "text": humanize(row.last_event, row.last_message),
        "event": row.last_event,
        "wall": wall,
        "ago": None if wall is None else format_wait(now - wall),
    }


def _short(session: str | None) -> str | None:
    if session is None or len(session) <= 10:
        return session
    return f"{session[:4]}…{session[-6:]}"
