"""Codex's rate-limit payload in a form that people can read.

Role: ``read_rate_limits`` reads the payload that a snapshot carries verbatim, in both generations:
``usedPercent / windowDurationMins / resetsAt`` of the app-server protocol and the older
``remaining / limit / reset_in_seconds``.
Invariant: total over any JSON value and without a clock; what isn't understood is left out.
Neighbours: ``humanize`` (one line in an event), ``web`` (bars), ``terminal`` (one row).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitBucket:
    """One window of a limit.

    Attributes:
        name: ``primary`` or ``secondary``.
        used_percent: 0 to 100, or None where it can't be told.
        remaining: Units that are left, or None.
        limit: Units of the whole window, or None.
        window_s: Length of the window in seconds, or None.
        reset_in_s: Seconds until it starts anew as seen from ``now_wall``, or None.
    """

    name: str
    used_percent: float | None = None
    remaining: int | None = None
    limit: int | None = None
    window_s: float | None = None
    reset_in_s: float | None = None

    @property
    def amount(self) -> str:
        """What is used or left, in words; empty where nothing is known."""
        if self.remaining is not None and self.limit is not None:
            return f"{self.remaining:,}/{self.limit:,}"
        if self.remaining is not None:
            return f"remaining {self.remaining:,}"
        if self.limit is not None:
            return f"limit {self.limit:,}"
        return "" if self.used_percent is None else f"{_plain(self.used_percent)}% used"

    @property
    def reset(self) -> str:
        """``reset 30s``, or empty where the reset isn't known."""
        return "" if self.reset_in_s is None else f"reset {format_wait(self.reset_in_s)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """A rate-limit payload.

    Attributes:
        name: Id or name of the limit, or ``unknown``.
        buckets: The windows that carry figures.
        credits: ``unlimited``, a balance, ``available``, ``none`` or ``n/a``.
    """

    name: str
    buckets: tuple[LimitBucket, ...]
    credits: str

    @property
    def line(self) -> str:
        """All of it in one line: ``codex | primary 43% used reset 30s | credits none``."""
        parts = [self.name]
        for name in ("primary", "secondary"):
            bucket = next((b for b in self.buckets if b.name == name), None)
            words = [bucket.amount, bucket.reset] if bucket is not None else ["n/a"]
            parts.append(" ".join([name, *filter(None, words)]))
        return " | ".join([*parts, f"credits {self.credits}"])


def format_wait(seconds: float) -> str:
    """Return a length of time in its largest useful unit: ``95s``, ``12m``, ``5h 3m``, ``6d 2h``.

    Up to 120 seconds stay seconds, so that a short countdown moves.
    """
    whole = max(0, math.ceil(seconds))
    if whole <= 120:
        return f"{whole}s"
    minutes = whole // 60
    if minutes < 60:
        return f"{minutes}m"
    hours, rest = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h {rest}m" if rest else f"{hours}h"
    days, rest = divmod(hours, 24)
    return f"{days}d {rest}h" if rest else f"{days}d"


def read_rate_limits(payload: Any, *, now_wall: float) -> RateLimits | None:
    """Read a payload of either generation; None where it holds no limit at all.

    Args:
        payload: What Codex sent, also wrapped in ``rateLimits``.
        now_wall: Epoch seconds, to which resets given as instants are related.
    """
    if not isinstance(payload, Mapping):
        return None
    inner = payload.get("rateLimits")
    if isinstance(inner, Mapping):
        payload = inner
    buckets = tuple(
        bucket
        for name in ("primary", "secondary")
        if (bucket := _read_bucket(name, payload.get(name), now_wall)) is not None
    )
    name = _text(payload, "limitId", "limit_id") or _text(payload, "limitName", "limit_name")
    if not buckets and name is None and not isinstance(payload.get("credits"), Mapping):
        return None
    return RateLimits(
        name=name or "unknown", buckets=buckets, credits=_credits(payload.get("credits"))
    )


def summarize_rate_limits(payload: Any) -> str:
    """Return the used share of each window, ``primary 43% / 300m; secondary 7%``, or ``n/a``."""
    limits = read_rate_limits(payload, now_wall=0.0)
    parts = []
    for bucket in limits.buckets if limits is not None else ():
        if bucket.used_percent is None:
            continue
        share = f"{_plain(bucket.used_percent)}%"
        window = f" / {round(bucket.window_s / 60)}m" if bucket.window_s is not None else " used"
        parts.append(f"{bucket.name} {share}{window}")
    return "; ".join(parts) or "n/a"


def _read_bucket(name: str, raw: Any, now_wall: float) -> LimitBucket | None:
    if not isinstance(raw, Mapping):
        return None
    used = _number(raw, "usedPercent", "used_percent")
    remaining, limit = _number(raw, "remaining"), _number(raw, "limit")
    if used is None and remaining is None and limit is None:
        return None
    if used is None and remaining is not None and limit is not None and limit > 0:
        used = 100.0 * (limit - remaining) / limit
    minutes = _number(raw, "windowDurationMins", "window_minutes")
    wait = _number(raw, "reset_in_seconds", "resetInSeconds", "resets_in_seconds")
    if wait is None:
        instant = _number(raw, "resetsAt", "resets_at", "resetAt", "reset_at")
        wait = None if instant is None else instant - now_wall
    return LimitBucket(
        name=name,
        used_percent=None if used is None else min(100.0, max(0.0, used)),
        remaining=None if remaining is None else int(remaining),
        limit=None if limit is None else int(limit),
        window_s=None if minutes is None else minutes * 60.0,
        reset_in_s=None if wait is None else max(0.0, wait),
    )


def _credits(raw: Any) -> str:
    if not isinstance(raw, Mapping):
        return "n/a"
    if raw.get("unlimited") is True:
        return "unlimited"
    if not (raw.get("hasCredits") is True or raw.get("has_credits") is True):
        return "none"
    balance = raw.get("balance")
    if isinstance(balance, int) and not isinstance(balance, bool):
        return f"{balance:,}"
    amount = _number(raw, "balance")
    return "available" if amount is None else f"{amount:.2f}"


def _number(raw: Mapping[str, Any], *keys: str) -> float | None:
    for key in keys:
        value = raw.get(key)
        if isinstance(value, bool) or value is None:
            continue
        try:
            number = float(value) if isinstance(value, int | float | str) else math.nan
        except (ValueError, OverflowError):
            continue
        if math.isfinite(number):
            return number
    return None


def _text(raw: Mapping[str, Any], *keys: str) -> str | None:
    values = (raw.get(key) for key in keys)
    return next((value[:40] for value in values if isinstance(value, str) and value), None)


def _plain(number: float) -> str:
    return f"{number:.1f}".rstrip("0").rstrip(".")
