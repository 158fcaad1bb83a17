"""What a tracker lets us ask, as of its last answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Allowance:
    """One budget of requests.

    Attributes:
        name: The provider's name of it, or "".
        limit: Requests (or points) of a whole window, or None where the provider does not tell.
        remaining: What is left of the window.
        reset_in_s: Seconds until the window ends.
    """

    name: str
    limit: int | None
    remaining: int
    reset_in_s: float
