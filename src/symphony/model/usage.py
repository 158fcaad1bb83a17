"""Token counts: totals from the server, deltas that we add (SPEC 13.5)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Counts of tokens; all zero or positive."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_output_tokens: int = 0

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.total_tokens + other.total_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.reasoning_output_tokens + other.reasoning_output_tokens,
        )

    def since(self, earlier: TokenUsage) -> TokenUsage:
        """Return what was added since ``earlier``, never below zero in any count."""
        return TokenUsage(
            max(0, self.input_tokens - earlier.input_tokens),
            max(0, self.output_tokens - earlier.output_tokens),
            max(0, self.total_tokens - earlier.total_tokens),
            max(0, self.cached_input_tokens - earlier.cached_input_tokens),
            max(0, self.reasoning_output_tokens - earlier.reasoning_output_tokens),
        )


class UsageMeter:
    """Adds the absolute totals of several threads without counting a token twice.

    Each thread (the run's own and its sub-agents') reports a running total of its own. The meter
    keeps the highest total of each; a lower one is ignored. A baseline, set for a resumed thread,
    is what earlier runs already counted.
    """

    __slots__ = ("_baselines", "_totals", "total")

    def __init__(self) -> None:
        self._totals: dict[str, TokenUsage] = {}
        self._baselines: dict[str, TokenUsage] = {}
        self.total = TokenUsage()

    def set_baseline(self, thread_id: str, usage: TokenUsage) -> None:
        """Treat ``usage`` as counted already for this thread."""
        self._baselines[thread_id] = usage
        self._totals.setdefault(thread_id, usage)

    def report(self, thread_id: str, usage: TokenUsage) -> TokenUsage:
        """Take a thread's absolute total; return the delta that it added."""
        seen = self._totals.get(thread_id, TokenUsage())
        delta = usage.since(seen)
        self._totals[thread_id] = seen + delta
        self.total = self.total + delta
        return delta

    def take_up(self, usage: TokenUsage) -> None:
        """Go on from what an earlier lifetime of the daemon has recorded of the run."""
        self.total = usage

    def thread_total(self, thread_id: str) -> TokenUsage | None:
        """The highest absolute total that this thread has reported, or None."""
        return self._totals.get(thread_id)
