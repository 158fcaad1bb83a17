"""What work has cost: tokens, money, time and runs, all in integers; limits and their crossing.

Money is counted in pico-dollars while a run adds it up and shown in micro-dollars, rounded up once
a run, so that no order of reports and no number of restarts changes a sum. Cached input tokens are
a part of the input tokens, reasoning tokens a part of the output tokens: neither is charged twice.

Invariant: pure values; a spend never falls. ``usage`` counts the tokens, ``config.budget`` has the
limits and prices, ``scheduler.budget`` keeps the books, the runner watches what a run spends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import StrEnum
from operator import add
from typing import TypeVar

from .usage import TokenUsage

PICO_PER_MICRO = 1_000_000

Counts = TypeVar("Counts", "Spend", "Raise")


class BudgetScope(StrEnum):
    """What a limit counts, from the smallest to the largest."""

    TURN = "turn"
    RUN = "run"
    ISSUE = "issue"
    DAY = "day"
    TOTAL = "total"


class Quantity(StrEnum):
    """What is limited, under the names of the settings."""

    TOKENS = "tokens"
    USD = "usd"
    WALL = "wall_ms"
    ATTEMPTS = "attempts"
    PRICE = "price"
    """No limit of its own: a limit in USD needs the price of the model, and there is none."""


def _joined(one: Counts, other: Counts, join: Callable[[int, int], int]) -> Counts:
    """Return counts of which each is joined from the same one of both."""
    names = (field.name for field in fields(one))
    return type(one)(**{name: join(getattr(one, name), getattr(other, name)) for name in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """What has been spent; every count is zero or above and only grows.

    Attributes:
        tokens: Input and output tokens.
        micro_usd: Millionths of a dollar.
        wall_ms: Run time in milliseconds, without the time for which a person was waited for.
        runs: Runs that were started.
        unpriced_tokens: Those of ``tokens`` for which no price was known; no money counts them.
    """

    tokens: int = 0
    micro_usd: int = 0
    wall_ms: int = 0
    runs: int = 0
    unpriced_tokens: int = 0

    def __add__(self, other: Spend) -> Spend:
        return _joined(self, other, add)

    def since(self, earlier: Spend) -> Spend:
        """Return what was added since ``earlier``, never below zero in any count."""
        return _joined(self, earlier, lambda now, before: max(0, now - before))

    def of(self, quantity: Quantity) -> int:
        """Return one of the limited counts; money in micro-dollars."""
        match quantity:
            case Quantity.TOKENS:
                return self.tokens
            case Quantity.USD:
                return self.micro_usd
            case Quantity.WALL:
                return self.wall_ms
            case Quantity.ATTEMPTS:
                return self.runs
            case Quantity.PRICE:
                return self.unpriced_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Raise:
    """What an operator has added to the limits of a scope, zero where nothing."""

    tokens: int = 0
    micro_usd: int = 0
    wall_ms: int = 0
    attempts: int = 0

    def __add__(self, other: Raise) -> Raise:
        return _joined(self, other, add)

    def of(self, quantity: Quantity) -> int:
        """Return what is added to the limit of one quantity."""
        match quantity:
            case Quantity.TOKENS:
                return self.tokens
            case Quantity.USD:
                return self.micro_usd
            case Quantity.WALL:
                return self.wall_ms
            case Quantity.ATTEMPTS:
                return self.attempts
            case Quantity.PRICE:
                return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """A limit that is reached.

    Attributes:
        limit: The limit that was in force, raises included; money in micro-dollars.
        spent: What was spent when it was seen.
        model: The model without a price, for ``Quantity.PRICE``.
    """

    scope: BudgetScope
    quantity: Quantity
    limit: int
    spent: int
    model: str | None = None

    @property
    def category(self) -> str:
        """The stable word for blocked rows and outcomes, such as ``budget_issue``."""
        return "budget_unpriced" if self.quantity is Quantity.PRICE else f"budget_{self.scope}"

    @property
    def sentence(self) -> str:
        """One line for people, with the numbers."""
        if self.quantity is Quantity.PRICE:
            return (
                f"a limit in USD is set (budget.{self.scope}.usd), and budget.prices has no price "
                f"for the model {self.model!r}"
            )
        whose = {
            BudgetScope.TURN: "the turn's budget",
            BudgetScope.RUN: "the run's budget",
            BudgetScope.ISSUE: "the issue's budget",
            BudgetScope.DAY: "the day's budget",
            BudgetScope.TOTAL: "the total budget",
        }[self.scope]
        limit, spent = shown(self.quantity, self.limit), shown(self.quantity, self.spent)
        return f"{whose} of {limit} is spent: {spent} (budget.{self.scope}.{self.quantity})"


def shown(quantity: Quantity, amount: int) -> str:
    """Return an amount for people: ``1,000 tokens``, ``$1.25``, ``90.0 s``, ``3 runs``."""
    match quantity:
        case Quantity.USD:
            cents, rest = divmod(amount, 10_000)
            return f"${cents / 100:,.2f}" if not rest else f"${amount / 1_000_000:,.6f}".rstrip("0")
        case Quantity.WALL:
            return f"{amount / 1000:,.1f} s"
        case Quantity.ATTEMPTS:
            return f"{amount:,} run" if amount == 1 else f"{amount:,} runs"
        case _:
            return f"{amount:,} tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one scope; None is no limit. ``attempts`` counts runs of an issue."""

    scope: BudgetScope
    tokens: int | None = None
    micro_usd: int | None = None
    wall_ms: int | None = None
    attempts: int | None = None

    def of(self, quantity: Quantity) -> int | None:
        """Return the limit of one quantity, or None."""
        match quantity:
            case Quantity.TOKENS:
                return self.tokens
            case Quantity.USD:
                return self.micro_usd
            case Quantity.WALL:
                return self.wall_ms
            case Quantity.ATTEMPTS:
                return self.attempts
            case Quantity.PRICE:
                return None

    @property
    def is_set(self) -> bool:
        """Whether anything at all is limited."""
        return any(self.of(quantity) is not None for quantity in Quantity)

    def raised(self, by: Raise) -> Limits:
        """Return the limits with what an operator added; what has no limit gets none."""

        def more(quantity: Quantity) -> int | None:
            limit = self.of(quantity)
            return None if limit is None else limit + by.of(quantity)

        return Limits(
            scope=self.scope,
            tokens=more(Quantity.TOKENS),
            micro_usd=more(Quantity.USD),
            wall_ms=more(Quantity.WALL),
            attempts=more(Quantity.ATTEMPTS),
        )

    def crossed(self, spend: Spend, *, starts: bool = False) -> Crossing | None:
        """Return the first limit that is reached, or None.

        Args:
            spend: What this scope has spent.
            starts: Another run is to start. The number of runs counts only then: the last one
                that is allowed may go on.
        """
        for quantity in (Quantity.TOKENS, Quantity.USD, Quantity.WALL, Quantity.ATTEMPTS):
            limit = self.of(quantity)
            if limit is None or (quantity is Quantity.ATTEMPTS and not starts):
                continue
            spent = spend.of(quantity)
            if spent >= limit:
                return Crossing(scope=self.scope, quantity=quantity, limit=limit, spent=spent)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Micro-dollars per million tokens of a model."""

    input: int
    cached_input: int
    output: int

    def pico_usd(self, usage: TokenUsage) -> int:
        """Return what these tokens cost in pico-dollars; cached ones are a part of the input."""
        cached = min(usage.cached_input_tokens, usage.input_tokens)
        uncached = usage.input_tokens - cached
        return (
            uncached * self.input + cached * self.cached_input + usage.output_tokens * self.output
        )


class CostMeter:
    """Adds up what one run's tokens cost, at the price that holds when they are reported."""

    __slots__ = ("_pico", "unpriced_tokens")

    def __init__(self) -> None:
        self._pico = 0
        self.unpriced_tokens = 0

    def add(self, added: TokenUsage, price: Price | None) -> None:
        """Take tokens that were just added; without a price they are counted as unpriced."""
        if price is None:
            self.unpriced_tokens += added.total_tokens
        else:
            self._pico += price.pico_usd(added)

    def take_up(self, spend: Spend) -> None:
        """Go on from what an earlier lifetime of the daemon has recorded of the run."""
        self._pico = spend.micro_usd * PICO_PER_MICRO
        self.unpriced_tokens = spend.unpriced_tokens

    @property
    def micro_usd(self) -> int:
        """The cost so far, rounded up to a millionth of a dollar."""
        return -(-self._pico // PICO_PER_MICRO)


@dataclass(frozen=True, slots=True)
class IdleTurns:
    """Completed turns in a row that changed neither the workspace nor the issue.

    Attributes:
        count: How many; zero after a change and where nobody can tell.
        mark: Digest of what the last turn left, or None where none was taken.
    """

    count: int = 0
    mark: str | None = None


NO_SPEND = Spend()
NO_RAISE = Raise()
NOT_IDLE = IdleTurns()
