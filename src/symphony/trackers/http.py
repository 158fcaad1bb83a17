"""The one HTTP layer of the adapters: deadlines, size cap, retries of reads, rate limits.

An adapter says what to send and what an answer means; this module makes sure that a call ends in
bounded time and memory, that a token goes to the configured host only, and that what goes wrong
is a ``TrackerError`` of SPEC 11.4. httpx2 and stamina are imported at the first call, since they
cost a start-up 0.1 s.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

from symphony.errors import TrackerError

if TYPE_CHECKING:
    import httpx2

CONNECT_TIMEOUT_S: Final = 10.0
SILENCE_TIMEOUT_S: Final = 30.0
TOTAL_TIMEOUT_S: Final = 60.0
MAX_ANSWER_BYTES: Final = 32 << 20
MAX_CONNECTIONS: Final = 10
SHORT_WAIT_S: Final = 5.0
"""A provider that asks for a longer wait than this gets no retry; the caller waits instead."""

_TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What a provider said about its limits in its last answer; None where it said nothing.

    Attributes:
        limit: Requests of the window.
        remaining: Requests that are left in it.
        reset_wall: Epoch seconds at which the window ends.
    """

    limit: int | None = None
    remaining: int | None = None
    reset_wall: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer of a provider, whatever its status."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    retry_after_s: float | None = None

    def json(self) -> Any:
        """Decode the content.

        Raises:
            ValueError: It is no JSON.
        """
        try:
            return json.loads(self.content)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error

    def excerpt(self, length: int = 300) -> str:
        """The beginning of the content as one line, for messages."""
        text = self.content[: length * 4].decode("utf-8", "replace")
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:length]


class HttpClient:
    """Calls one provider.

    Args:
        provider: Its name, for messages.
        headers: Sent with every call; may hold the token.
        attempts: Tries of an idempotent call, the first one included.
        retry_wait_s: Seconds before the second try; doubles, with jitter.
        silence_timeout_s: Longest time without a byte.
        total_timeout_s: Longest time of one try.
        max_bytes: Largest answer, unpacked.
        wall: Epoch seconds, for Retry-After dates.

    Attributes:
        rate_limit: From the last answer that had such headers.
        requests: Number of requests that were sent.
    """

    def __init__(
        self,
        *,
        provider: str,
        headers: Mapping[str, str],
        attempts: int = 3,
        retry_wait_s: float = 0.3,
        silence_timeout_s: float = SILENCE_TIMEOUT_S,
        total_timeout_s: float = TOTAL_TIMEOUT_S,
        max_bytes: int = MAX_ANSWER_BYTES,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.provider = provider
        self.rate_limit: RateLimit | None = None
        self.requests = 0
        self._headers = {"Content-Type": "application/json", **headers}
        self._attempts = attempts
        self._retry_wait_s = retry_wait_s
        self._silence_timeout_s = silence_timeout_s
        self._total_timeout_s = total_timeout_s
        self._max_bytes = max_bytes
        self._wall = wall
        self._client: httpx2.AsyncClient | None = None

    async def post_json(self, url: str, payload: Any, *, idempotent: bool) -> Answer:
        """Send JSON and return the answer of any status below 300 or above 399.

        Args:
            url: Absolute.
            payload: JSON-safe.
            idempotent: Whether a failed try may be repeated.

        Raises:
            TrackerError: ``tracker_request`` (transport, time), ``tracker_response`` (too large),
                ``tracker_status`` (a redirect, which is never followed).
        """
        import stamina

        attempts = self._attempts if idempotent else 1
        try:
            async for attempt in stamina.retry_context(
                on=_retry_wait,
                attempts=attempts,
                timeout=None,
                wait_initial=self._retry_wait_s,
                wait_max=SHORT_WAIT_S,
                wait_jitter=self._retry_wait_s,
            ):
                with attempt:
                    answer = await self._post_once(url, payload)
                    if answer.status in _TRANSIENT and attempt.num < attempts:
                        raise _Transient(answer)
                    return answer
        except _Transient as transient:
            return transient.answer
        raise AssertionError("every try ends with a return or a raise")

    async def aclose(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _post_once(self, url: str, payload: Any) -> Answer:
        import httpx2

        self.requests += 1
        # ASCII, since a text of an agent may hold what UTF-8 can't.
        body = json.dumps(payload).encode("ascii")
        try:
            async with (
                asyncio.timeout(self._total_timeout_s),
                self._open().stream("POST", url, content=body) as response,
            ):
                content = await self._read_capped(response)
        except TimeoutError as error:
            raise self._failure(
                f"gave no complete answer in {self._total_timeout_s:g} s"
            ) from error
        except httpx2.TimeoutException as error:
            raise self._failure(f"was silent too long ({type(error).__name__})") from error
        except httpx2.InvalidURL as error:
            raise self._failure(f"has an unusable address: {error}") from error
        except (httpx2.HTTPError, OSError, UnicodeError) as error:
            reason = str(error) or type(error).__name__
            raise _Unreached(
                "tracker_request", f"{self.provider} could not be reached: {reason}"
            ) from error
        headers = {name.lower(): value for name, value in response.headers.items()}
        self.rate_limit = parse_rate_limit(headers) or self.rate_limit
        if 300 <= response.status_code < 400:
            raise TrackerError(
                "tracker_status",
                f"{self.provider} answered with a redirect (HTTP {response.status_code}); "
                "redirects are not followed, so that the token stays with the configured host: "
                "set the endpoint to the final address",
                status=response.status_code,
            )
        retry_after_s = parse_retry_after(headers.get("retry-after"), self._wall())
        return Answer(response.status_code, headers, content, retry_after_s)

    async def _read_capped(self, response: httpx2.Response) -> bytes:
        content = bytearray()
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > self._max_bytes:
                raise TrackerError(
                    "tracker_response",
                    f"{self.provider} answered with more than {self._max_bytes} bytes",
                )
        return bytes(content)

    def _open(self) -> httpx2.AsyncClient:
        if self._client is None:
            import httpx2

            self._client = httpx2.AsyncClient(
                headers=self._headers,
                timeout=httpx2.Timeout(self._silence_timeout_s, connect=CONNECT_TIMEOUT_S),
                limits=httpx2.Limits(max_connections=MAX_CONNECTIONS),
                follow_redirects=False,
            )
        return self._client

    def _failure(self, what: str) -> TrackerError:
        return TrackerError("tracker_request", f"{self.provider} {what}")


class _Unreached(TrackerError):
    """A connection that failed at once, unlike one that used up its time: worth another try."""


class _Transient(Exception):
    """An answer that another try may better."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"HTTP {answer.status}")
        self.answer = answer


def _retry_wait(error: Exception) -> bool | float:
    """Whether to try again, or after how many seconds (the provider's wish, where it is short)."""
    if isinstance(error, _Transient):
        wish = error.answer.retry_after_s
        if wish is None:
            # A rate limit without a date is not mended by asking again at once.
            return error.answer.status != 429
        return wish if wish <= SHORT_WAIT_S else False
    return isinstance(error, _Unreached)


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
    return min(max(seconds, 0.0), 86_400.0) if seconds == seconds else None


def parse_rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    """Read the rate-limit headers (names in lower case); None where there are none.

    Understands ``RateLimit-*``, ``X-RateLimit-*`` and Linear's ``X-RateLimit-Requests-*``; a reset
    is epoch seconds, or epoch milliseconds at Linear.
    """
    for prefix in ("x-ratelimit-requests-", "x-ratelimit-", "ratelimit-"):
        limit, remaining, reset = (
            _number(headers.get(prefix + name)) for name in ("limit", "remaining", "reset")
        )
        if (limit, remaining, reset) == (None, None, None):
            continue
        reset_wall = None
        if reset is not None:
            reset_wall = reset / 1000 if reset > 1e11 else float(reset)
        return RateLimit(limit, remaining, reset_wall)
    return None


def _number(text: str | None) -> int | None:
    text = text.strip() if text is not None else ""
    return int(text) if text.isdecimal() and len(text) < 19 else None
