"""What a provider says about its limits, and when it is left alone: pure but for a clock given in.

``RateLimit`` is read from headers, ``Breaker`` decides whether a call may be sent. ``http`` feeds
both; adapters add what only they can read (``HttpClient.hold``).

Invariant: an open breaker lets exactly one call through when its time is over, and that call's end
closes it or opens it again; a call that is cancelled gives its place back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from symphony.errors import TrackerError

LONGEST_WAIT_S: Final = 86_400.0
LONGEST_HOLD_S: Final = 3_600.0
"""Nobody is left alone for longer, whatever was asked for: polling slows down, it never stops."""

MAX_RESOURCES: Final = 8
"""Budgets that are told apart; a provider names them, and memory is bounded whatever it says."""

_EPOCH_FROM: Final = 1e9
_MILLISECONDS_FROM: Final = 1e11


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What a provider said about its limits in its last answer; None where it said nothing.

    Attributes:
        limit: Requests of the window.
        remaining: Requests that are left in it.
        reset_wall: Epoch seconds at which the window ends.
        resource: The provider's name of this budget (GitHub: ``core``, ``graphql``).
    """

    limit: int | None = None
    remaining: int | None = None
    reset_wall: float | None = None
    resource: str | None = None

    def moved(self, seconds: float) -> RateLimit:
        """The same by a clock that shows so much more."""
        if self.reset_wall is None:
            return self
        return replace(self, reset_wall=self.reset_wall + seconds)


def server_wall(headers: Mapping[str, str]) -> float | None:
    """What the provider's clock shows, in epoch seconds; None where it does not tell it.

    An answer that a proxy has kept (``Age``) tells when it was made, which is long ago. ``Date`` is
    in whole seconds, so that a drift of so little is none.
    """
    if "age" in headers:
        return None
    try:
        moment = parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError):
        return None
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Read Retry-After, seconds or an HTTP date, as seconds from ``now``; None if unusable."""
    if value is None:
        return None
    text = value.strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - now
    # NaN compares false with everything; a day is the longest wait that makes sense.
    return min(max(seconds, 0.0), LONGEST_WAIT_S) if seconds == seconds else None


def parse_rate_limit(headers: Mapping[str, str], now: float | None = None) -> RateLimit | None:
    """Read the rate-limit headers (names in lower case); None where there are none.

    Understands ``RateLimit-*``, ``X-RateLimit-*`` and Linear's ``X-RateLimit-Requests-*``. A reset
    is epoch seconds, epoch milliseconds (Linear), an ISO 8601 instant (Jira), or seconds from
    ``now`` where that is given.
    """
    for prefix in ("x-ratelimit-requests-", "x-ratelimit-", "ratelimit-"):
        limit, remaining = (_number(headers.get(prefix + name)) for name in ("limit", "remaining"))
        reset_wall = _reset(headers.get(prefix + "reset"), now)
        if (limit, remaining, reset_wall) != (None, None, None):
            return RateLimit(limit, remaining, reset_wall, headers.get(prefix + "resource"))
    return None


def keep_limit(limits: dict[str, RateLimit], limit: RateLimit) -> None:
    """Keep the newest word on a budget, and of too many budgets the newest ones."""
    name = (limit.resource or "")[:64]
    limits.pop(name, None)
    limits[name] = limit
    while len(limits) > MAX_RESOURCES:
        del limits[next(iter(limits))]


def answer_class(status: int | None) -> str:
    """The name under which an answer is counted; None: there was no answer."""
    if status is None:
        return "none"
    if status in (304, 401, 403, 404, 429):
        return str(status)
    return f"{status // 100}xx" if 200 <= status < 600 else "other"


def _reset(text: str | None, now: float | None) -> float | None:
    number = _number(text)
    if number is None:
        try:
            return datetime.fromisoformat(text).timestamp() if text and "T" in text else None
        except (ValueError, OverflowError):
            return None
    if number > _MILLISECONDS_FROM:
        return number / 1000
    return number + now if now is not None and number < _EPOCH_FROM else float(number)


def _number(text: str | None) -> int | None:
    text = text.strip() if text is not None else ""
    # isdecimal alone is also true of digits of other scripts, which no provider sends.
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


class Breaker:
    """Stops calls to a provider that fails, or that asked to be left alone.

    Args:
        provider: Its name, for messages.
        threshold: Failures in a row that open it.
        cooldown_s: Seconds until the first canary; doubles with each canary that fails, up to
            ten minutes.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        *,
        provider: str,
        threshold: int = 5,
        cooldown_s: float = 15.0,
        clock: Callable[[], float],
    ) -> None:
        self.failures = 0
        self._provider = provider
        self._threshold = threshold
        self._cooldown_s = cooldown_s
        self._clock = clock
        self._open_until: float | None = None
        self._openings = 0
        self._canary = False
        self._category = "tracker_request"
        self._status: int | None = None
        self._reason = ""

    @property
    def state(self) -> str:
        """``closed``, ``open`` or ``half_open`` (a canary is under way or may start)."""
        if self._open_until is None:
            return "closed"
        return "open" if self._clock() < self._open_until else "half_open"

    @property
    def is_tried(self) -> bool:
        """Whether a canary is under way."""
        return self._canary

    def admit(self) -> None:
        """Let a call pass; it must be followed by ``succeeded``, ``failed`` or ``abandoned``.

        Raises:
            TrackerError: The breaker is open: category and status of what opened it, with the
                seconds that are left in ``retry_after_s``.
        """
        if self._open_until is None:
            return
        left = self._open_until - self._clock()
        if left <= 0 and not self._canary:
            self._canary = True
            return
        left = max(left, 1.0)
        raise TrackerError(
            self._category,
            f"{self._provider} is left alone for another {left:.0f} s: {self._reason}",
            retry_after_s=left,
            status=self._status,
        )

    def succeeded(self) -> None:
        """The provider answered as it should: close, unless a hold was set meanwhile."""
        self._canary = False
        self.failures = 0
        if self._open_until is not None and self._clock() >= self._open_until:
            self._open_until = None
            self._openings = 0

    def failed(self, category: str, reason: str, status: int | None = None) -> None:
        """A call failed for the provider's part; the ``threshold``th in a row opens."""
        canary, self._canary = self._canary, False
        self.failures += 1
        if canary or self.failures >= self._threshold:
            wait_s = min(self._cooldown_s * 2 ** min(self._openings, 10), 600.0)
            self._openings += 1
            times = f"{self.failures} failures in a row, the last one: {reason}"
            self.hold(wait_s, category=category, reason=times, status=status)

    def abandoned(self) -> None:
        """A call was cancelled, or failed in a way that says nothing about the provider."""
        self._canary = False

    def hold(
        self, seconds: float, *, category: str, reason: str, status: int | None = None
    ) -> None:
        """Let nothing pass for so long; a longer hold that is set already stays."""
        until = self._clock() + min(seconds, LONGEST_HOLD_S)
        if self._open_until is None or until > self._open_until:
            self._open_until = until
            self._category, self._reason, self._status = category, reason, status
