"""Tokens a second over the last five seconds, from samples of a running total.

Invariant: bounded memory and O(1) a sample: one sample is kept for each quarter of a second, and
those that leave the window are dropped from the left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

WINDOW_MS = 5_000.0
_SAMPLE_MS = 250.0


class Throughput:
    """The token rate.

    Args:
        samples: Earlier samples as (milliseconds, total tokens), in any order.
    """

    __slots__ = ("_rate", "_samples", "_second")

    def __init__(self, samples: Iterable[tuple[float, int]] = ()) -> None:
        self._samples = deque(sorted(samples))
        self._second: int | None = None
        self._rate = 0.0

    def rate(self, now_ms: float, total_tokens: int) -> float:
        """Take a sample and return tokens a second; the figure changes once a second at most."""
        self._sample(now_ms, total_tokens)
        second = int(now_ms // 1000)
        if second != self._second:
            self._second = second
            self._rate = self._measure(now_ms, total_tokens)
        return self._rate

    def _sample(self, now_ms: float, total_tokens: int) -> None:
        while self._samples and self._samples[0][0] < now_ms - WINDOW_MS:
            self._samples.popleft()
        if not self._samples or now_ms - self._samples[-1][0] >= _SAMPLE_MS:
            self._samples.append((now_ms, total_tokens))

    def _measure(self, now_ms: float, total_tokens: int) -> float:
        start_ms, start_tokens = self._samples[0]
        elapsed_s = (now_ms - start_ms) / 1000
        return max(0, total_tokens - start_tokens) / elapsed_s if elapsed_s > 0 else 0.0
