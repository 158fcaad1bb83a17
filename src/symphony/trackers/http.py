"""The one HTTP layer of the adapters: deadlines, size cap, retries of reads, rate limits.

An adapter says what to send and what an answer means; this module makes sure that a call ends in
bounded time and memory, that a token goes to the configured host only and never comes back, and
that what goes wrong is a ``TrackerError`` of SPEC 11.4. httpx2 and stamina are imported at the
first call, since they cost a start-up 0.1 s.

``HttpClient.request(method, path, query=..., json=...)`` sends anything and returns an ``Answer``
of whatever status; ``post_json`` is the same for GraphQL. Reads may be ``conditional``: a 304 comes
back as the kept answer with ``not_modified`` (``http_cache``). Refusals by limit and failures in a
row stop further calls for a while (``http_limits.Breaker``); what only an adapter can read, such as
a limit inside a 403 or a GraphQL error, it reports with ``hold``. ``status_error`` makes the usual
error of an answer that is no success. Paths of agents go through ``http_paths.guard_path`` first.
"""

from __future__ import annotations

import asyncio
import json as json_format
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote, urljoin, urlsplit

from symphony.errors import TrackerError

from .http_cache import EtagStore
from .http_limits import (
    Breaker,
    RateLimit,
    answer_class,
    keep_limit,
    parse_rate_limit,
    parse_retry_after,
    server_wall,
)
from .http_secrets import SecretFilter

if TYPE_CHECKING:
    import httpx2

__all__ = [
    "Answer",
    "HttpClient",
    "Query",
    "RateLimit",
    "parse_rate_limit",
    "parse_retry_after",
    "status_error",
]

CONNECT_TIMEOUT_S: Final = 10.0
SILENCE_TIMEOUT_S: Final = 30.0
TOTAL_TIMEOUT_S: Final = 60.0
MAX_ANSWER_BYTES: Final = 32 << 20
MAX_CONNECTIONS: Final = 10
MAX_REDIRECTS: Final = 3
SHORT_WAIT_S: Final = 5.0
"""A provider that asks for a longer wait than this gets no retry; the caller waits instead."""

_TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_READS: Final = frozenset({"GET", "HEAD"})

Query = Mapping[str, str | int | bool | Sequence[str | int]]
"""Query parameters: a sequence repeats its name, booleans are ``true`` and ``false``."""
Redirects = Literal["refuse", "same_host", "give"]


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer of a provider, whatever its status.

    Attributes:
        status: HTTP status; 200 for a kept answer that a 304 confirmed.
        headers: Names in lower case.
        content: Unpacked body, without the credentials that were sent (``http_secrets``).
        retry_after_s: Seconds that the provider asks to wait.
        not_modified: Whether a 304 confirmed this answer.
        url: Where it came from, after redirects.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes
    retry_after_s: float | None = None
    not_modified: bool = False
    url: str = ""

    def json(self) -> Any:
        """Decode the content.

        Raises:
            ValueError: It is no JSON.
        """
        try:
            return json_format.loads(self.content)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error

    def excerpt(self, length: int = 300) -> str:
        """The beginning of the content as one line, for messages."""
        text = self.content[: length * 4].decode("utf-8", "replace")
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:length]


@dataclass(frozen=True, slots=True)
class _Call:
    method: str
    url: str
    body: bytes | None
    conditional: bool
    redirects: Redirects
    max_bytes: int


class HttpClient:
    """Calls one provider.

    Args:
        provider: Its name, for messages.
        headers: Sent with every call; may hold the token.
        base_url: What paths are appended to; without it every URL is absolute.
        attempts: Tries of an idempotent call, the first one included.
        retry_wait_s: Seconds before the second try; doubles, with jitter.
        silence_timeout_s: Longest time without a byte.
        total_timeout_s: Longest time of one try.
        max_bytes: Largest answer, unpacked.
        max_concurrent: Calls at a time; others wait.
        etags: Kept answers; None keeps them for this client alone.
        wall: Epoch seconds, for Retry-After dates.
        clock: Monotonic seconds, for the breaker.

    Attributes:
        rate_limit: From the last answer that had such headers.
        rate_limits: The same for each of the provider's budgets, by their name (or "").
        requests: Requests that were sent, those that got a 304 included.
        not_modified: Requests that got a 304.
        answers: Requests by what became of them (``http_limits.answer_class``).
        breaker: Whether calls pass.
    """

    def __init__(
        self,
        *,
        provider: str,
        headers: Mapping[str, str],
        base_url: str = "",
        attempts: int = 3,
        retry_wait_s: float = 0.3,
        silence_timeout_s: float = SILENCE_TIMEOUT_S,
        total_timeout_s: float = TOTAL_TIMEOUT_S,
        max_bytes: int = MAX_ANSWER_BYTES,
        max_concurrent: int = 4,
        etags: EtagStore[Answer] | None = None,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.provider = provider
        self.rate_limit: RateLimit | None = None
        self.rate_limits: dict[str, RateLimit] = {}
        self.requests = 0
        self.not_modified = 0
        self.answers: Counter[str] = Counter()
        self.breaker = Breaker(provider=provider, clock=clock)
        self._headers = {"Content-Type": "application/json", **headers}
        self._secrets = SecretFilter(headers)
        self._base_url = base_url.rstrip("/")
        self._attempts = attempts
        self._retry_wait_s = retry_wait_s
        self._silence_timeout_s = silence_timeout_s
        self._total_timeout_s = total_timeout_s
        self._max_bytes = max_bytes
        self._places = asyncio.Semaphore(max_concurrent)
        self._judgement = asyncio.Event()
        self._etags = etags if etags is not None else EtagStore[Answer]()
        self._scope = EtagStore.scope_of(self._headers)
        self._wall = wall
        self._client: httpx2.AsyncClient | None = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        json: Any = None,
        idempotent: bool | None = None,
        conditional: bool = False,
        redirects: Redirects = "refuse",
        max_bytes: int | None = None,
    ) -> Answer:
        """Send a request and return the answer, whatever its status.

        Args:
            method: In upper case.
            path: Appended to ``base_url``, percent-encoded; or an absolute URL.
            query: Added to the path.
            json: JSON-safe body; None sends none.
            idempotent: Whether a failed try may be repeated; None: for GET and HEAD.
            conditional: Ask whether the kept answer still holds; only for GET.
            redirects: ``refuse`` raises ``tracker_status``; ``same_host`` follows a read to another
                path of the same host and refuses the rest; ``give`` returns the 3xx.
            max_bytes: Largest answer, if smaller than the client's.

        Raises:
            TrackerError: ``tracker_request`` (transport, time), ``tracker_response`` (too large),
                ``tracker_status`` (a redirect); the category of an earlier failure, with
                ``retry_after_s``, while the breaker is open.
        """
        call = _Call(
            method=method,
            url=self._url(path, query),
            # ASCII, since a text of an agent may hold what UTF-8 can't.
            body=None if json is None else json_format.dumps(json).encode("ascii"),
            conditional=conditional and method == "GET",
            redirects=redirects,
            max_bytes=min(max_bytes or self._max_bytes, self._max_bytes),
        )
        attempts = self._attempts if _or(idempotent, method in _READS) else 1
        async with self._places:
            while self.breaker.is_tried:
                # Its end says whether we may go: a refusal beside a success would be for nothing.
                self._judgement.clear()
                await self._judgement.wait()
            self.breaker.admit()
            try:
                async with self._judged():
                    answer = await self._tried(call, attempts)
                    self._judge(answer)
            finally:
                self._judgement.set()
        return answer

    async def post_json(self, url: str, payload: Any, *, idempotent: bool) -> Answer:
        """Send JSON by POST and return the answer of any status below 300 or above 399.

        Args:
            url: Absolute, or a path below ``base_url``.
            payload: JSON-safe.
            idempotent: Whether a failed try may be repeated.

        Raises:
            TrackerError: As ``request``.
        """
        return await self.request("POST", url, json=payload, idempotent=idempotent)

    def hold(self, seconds: float, reason: str) -> None:
        """Send nothing for so long, since the provider refused for its rate limit."""
        self.breaker.hold(seconds, category="tracker_rate_limited", reason=reason)

    def reset_in_s(self) -> float | None:
        """Seconds until the limit of the last answer that told one is filled again."""
        reset = self.rate_limit.reset_wall if self.rate_limit is not None else None
        return max(1.0, reset - self._wall()) if reset is not None else None

    @property
    def breaker_state(self) -> str:
        """``closed``, ``half_open`` or ``open``."""
        return self.breaker.state

    async def aclose(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _url(self, path: str, query: Query | None) -> str:
        url = self._base_url + path if path.startswith("/") else path
        pairs = [
            f"{quote(name, safe='[]')}={quote(_text(value), safe='')}"
            for name, values in (query or {}).items()
            for value in (
                [values] if isinstance(values, str | int) or values is None else list(values)
            )
        ]
        return f"{url}?{'&'.join(pairs)}" if pairs else url

    @asynccontextmanager
    async def _judged(self) -> AsyncIterator[None]:
        """Tell the breaker of a call that ends without an answer."""
        try:
            yield
        except TrackerError as error:
            if error.category == "tracker_request":
                self.breaker.failed(error.category, error.message)
            else:
                self.breaker.abandoned()
            raise
        except BaseException:
            self.breaker.abandoned()
            raise

    def _judge(self, answer: Answer) -> None:
        if answer.status == 429:
            reason = "its rate limit is used up (HTTP 429)"
            wait_s = answer.retry_after_s
            if wait_s is not None:
                self.breaker.abandoned()
                self.breaker.hold(
                    wait_s, category="tracker_rate_limited", reason=reason, status=429
                )
            else:
                self.breaker.failed("tracker_rate_limited", reason, 429)
        elif answer.status >= 500:
            reason = f"it answered with HTTP {answer.status}"
            self.breaker.failed("tracker_status", reason, answer.status)
        else:
            self.breaker.succeeded()

    async def _tried(self, call: _Call, attempts: int) -> Answer:
        import stamina

        # It would log each of our tries; what is left after the last one is told by the caller.
        stamina.instrumentation.set_on_retry_hooks([])
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
                    answer = await self._followed(call)
                    if answer.status in _TRANSIENT and attempt.num < attempts:
                        raise _Transient(answer)
                    return answer
        except _Transient as transient:
            return transient.answer
        raise AssertionError("every try ends with a return or a raise")

    async def _followed(self, call: _Call) -> Answer:
        """One try, with the redirects that the call allows."""
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._send(call)
            if not 300 <= answer.status < 400 or call.redirects == "give":
                return answer
            target = _same_host(call.url, answer.headers.get("location"))
            if call.redirects != "same_host" or call.method not in _READS or target is None:
                break
            call = replace(call, url=target)
        raise TrackerError(
            "tracker_status",
            f"{self.provider} answered with a redirect (HTTP {answer.status}); "
            "redirects are not followed, so that the token stays with the configured host: "
            "set the endpoint to the final address",
            status=answer.status,
        )

    async def _send(self, call: _Call) -> Answer:
        import httpx2

        self.requests += 1
        status: int | None = None
        extra = self._etags.validators(call.url, self._scope) if call.conditional else {}
        try:
            async with (
                asyncio.timeout(self._total_timeout_s),
                self._open().stream(
                    call.method, call.url, content=call.body, headers=dict(extra)
                ) as response,
            ):
                status = response.status_code
                content = await self._read_capped(response, call.max_bytes)
        except TimeoutError as error:
            raise self._failure(
                f"gave no complete answer in {self._total_timeout_s:g} s"
            ) from error
        except httpx2.TimeoutException as error:
            raise self._failure(f"was silent too long ({type(error).__name__})") from error
        except httpx2.InvalidURL as error:
            reason = self._secrets.text(str(error))
            raise self._failure(f"has an unusable address: {reason}") from error
        except (httpx2.HTTPError, OSError, UnicodeError) as error:
            reason = self._secrets.text(str(error)) or type(error).__name__
            raise _Unreached(
                "tracker_request", f"{self.provider} could not be reached: {reason}"
            ) from error
        finally:
            self.answers[answer_class(status)] += 1
        return self._answer(call, response, content)

    def _answer(self, call: _Call, response: httpx2.Response, content: bytes) -> Answer:
        content = self._secrets.content(content)
        headers = {k.lower(): self._secrets.text(v) for k, v in response.headers.items()}
        # Moments that a provider names are of its own clock, which may not be ours.
        theirs = server_wall(headers)
        here = self._wall()
        ahead_s = 0.0 if theirs is None else theirs - here
        rate_limit = parse_rate_limit(headers, here + ahead_s)
        if rate_limit is not None:
            rate_limit = rate_limit.moved(-ahead_s)
            self.rate_limit = rate_limit
            keep_limit(self.rate_limits, rate_limit)
        status = response.status_code
        if status == 304 and call.conditional:
            kept = self._etags.get(call.url, self._scope)
            if kept is not None:
                self.not_modified += 1
                # A 304 carries a fresh Date and limits; what it says of the body is the old one's.
                fresh = {k: v for k, v in headers.items() if not k.startswith("content-")}
                return replace(kept, headers={**kept.headers, **fresh}, not_modified=True)
        retry_after_s = parse_retry_after(headers.get("retry-after"), here + ahead_s)
        answer = Answer(status, headers, content, retry_after_s, url=call.url)
        if call.conditional and status == 200:
            size = len(content)
            self._etags.put(call.url, self._scope, answer, headers=headers, size=size)
        return answer

    async def _read_capped(self, response: httpx2.Response, max_bytes: int) -> bytes:
        content = bytearray()
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > max_bytes:
                raise TrackerError(
                    "tracker_response",
                    f"{self.provider} answered with more than {max_bytes} bytes",
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


def status_error(
    provider: str, answer: Answer, *, code: str, hint: str = "", rate_limited: bool = False
) -> TrackerError:
    """The error of an answer that is no success.

    Args:
        provider: Its name.
        answer: What came.
        code: The adapter's own name of the error.
        hint: What to mend, for a person.
        rate_limited: Whether this is a refusal by limit though its status is not 429.
    """
    wait_s = answer.retry_after_s
    if rate_limited or answer.status == 429:
        asked = f"; it asks to wait {wait_s:.0f} s" if wait_s is not None else ""
        category, message = "tracker_rate_limited", f"{provider}'s rate limit is used up{asked}"
    else:
        said = answer.excerpt()
        category = "tracker_status"
        message = f"{provider} answered with HTTP {answer.status}"
        message += (f"; {hint}" if hint else "") + (f": {said}" if said else "")
    return TrackerError(category, message, retry_after_s=wait_s, status=answer.status, code=code)


def _retry_wait(error: Exception) -> bool | float:
    """Whether to try again, or after how many seconds (the provider's wish, where it is short)."""
    if isinstance(error, _Transient):
        wish = error.answer.retry_after_s
        if wish is None:
            # A rate limit without a date is not mended by asking again at once.
            return error.answer.status != 429
        return wish if wish <= SHORT_WAIT_S else False
    return isinstance(error, _Unreached)


def _same_host(url: str, location: str | None) -> str | None:
    """Where a redirect leads, if that is the same scheme, host and port."""
    if location is None:
        return None
    try:
        target = urljoin(url, location)
        here, there = urlsplit(url), urlsplit(target)
        same = (here.scheme, here.hostname, here.port) == (there.scheme, there.hostname, there.port)
    except ValueError:
        return None
    return target if same and there.username is None else None


def _text(value: str | int | None) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _or(value: bool | None, default: bool) -> bool:
    return default if value is None else value
