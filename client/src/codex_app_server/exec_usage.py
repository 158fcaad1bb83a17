"""What a thread had used before ``codex exec resume``: read from Codex's own record of it.

Exec reports a thread's total at the end of each turn, so the part of one turn is a difference.
Invariant: whatever the record looks like, the answer is a total or None; nothing is written. Used
by `codex_app_server.exec`. The format was observed on 0.125 to 0.169.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from codex_app_server.home import login_home
from codex_app_server.protocol.exec_events import usage_of
from codex_app_server.protocol.turn import TokenUsage

__all__ = ["recorded_total"]

_THREAD_ID = re.compile(r"[0-9a-f-]{36}")


def recorded_total(
    environment: Mapping[str, str], thread_id: str, before: float | None = None
) -> TokenUsage | None:
    """Return the token total that a thread's record ends with; None where there is none.

    Args:
        environment: Of the Codex process, for CODEX_HOME.
        thread_id: A UUID; for a name the answer is None.
        before: Only what was recorded before this moment counts (Unix seconds).
    """
    if not _THREAD_ID.fullmatch(thread_id):
        return None
    sessions = login_home(environment) / "sessions"
    try:
        records = sorted(sessions.glob(f"*/*/*/rollout-*-{thread_id}.jsonl"))
        if not records:
            return None
        with records[-1].open("rb") as file:
            return _last_total(file, before)
    except OSError:
        return None


def _last_total(lines: Iterable[bytes], before: float | None) -> TokenUsage | None:
    last: TokenUsage | None = TokenUsage()
    for line in lines:
        if b'"token_count"' not in line:
            continue
        try:
            entry = msgspec.json.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        usage = _total(entry)
        if usage is None:
            continue
        if before is not None and not _is_before(entry.get("timestamp"), before):
            break
        last = usage_of(usage)
    return last


def _total(entry: Any) -> Any:
    for name in ("payload", "info", "total_token_usage"):
        entry = entry.get(name) if isinstance(entry, dict) else None
    return entry


def _is_before(timestamp: Any, before: float) -> bool:
    try:
        return datetime.datetime.fromisoformat(timestamp).timestamp() < before
    except (TypeError, ValueError):
        return True
