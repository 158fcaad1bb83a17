"""The ``budget`` section: limits in tokens, USD, time and runs, prices, and idle turns.

Invariant: a ``BudgetSettings`` is frozen and holds integers only: money is in micro-dollars
whatever was written. An unknown key in this section is a fault and not a warning as elsewhere,
because a limit that is misspelt would be no limit. ``settings`` includes it, ``checking`` turns
its faults into lines of the file, ``model.spend`` has the values that limits become.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from datetime import tzinfo
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from symphony.model.spend import BudgetScope, Limits, Price

DEFAULT_PRICE = "default"
"""Key of ``budget.prices`` for every model that no other key fits."""

_WHOLE = re.compile(r"\+?[0-9]{1,18}")
_MOST_USD = 1_000_000_000


def _fault(problem: str) -> PydanticCustomError:
    # Braces would be read as placeholders of pydantic's message template.
    return PydanticCustomError("setting", "{problem}", {"problem": problem})


def _whole(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, str) and _WHOLE.fullmatch(value) else None


def _positive(value: object) -> int:
    number = _whole(value)
    if number is None or not 0 < number < 10**18:
        raise _fault("must be an integer above 0; leave the key out for no limit")
    return number


def _count(value: object) -> int:
    number = _whole(value)
    if number is None or not 0 <= number < 10**9:
        raise _fault("must be an integer, 0 or above")
    return number


def micro_usd(value: object) -> int | None:
    """Return an amount of dollars (a number, or text of one) in micro-dollars, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        micro = Decimal(str(value).strip()) * 1_000_000
    except InvalidOperation:
        return None
    if not micro.is_finite() or micro != micro.to_integral_value():
        return None
    return int(micro) if abs(micro) <= _MOST_USD * 1_000_000 else None


def _money(value: object) -> int:
    amount = micro_usd(value)
    if amount is None or amount <= 0:
        raise _fault("must be an amount of US dollars above 0, such as 12.50, to six decimals")
    return amount


def _price(value: object) -> int:
    amount = micro_usd(value)
    if amount is None or amount < 0:
        raise _fault(
            "must be US dollars for a million tokens, 0 or above, such as 1.25, to six decimals"
        )
    return amount


def _zone_name(value: object) -> str:
    if isinstance(value, str):
        try:
            ZoneInfo(value)
        except (OSError, ValueError, LookupError):
            pass
        else:
            return value
    raise _fault(
        "must be the name of a time zone that this machine knows, such as Europe/Berlin or UTC"
    )


Positive = Annotated[int, BeforeValidator(_positive)]
Count = Annotated[int, BeforeValidator(_count)]
MicroUsd = Annotated[int, BeforeValidator(_money)]
MicroUsdPrice = Annotated[int, BeforeValidator(_price)]
ZoneName = Annotated[str, BeforeValidator(_zone_name)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LimitSettings(_Part):
    """Limits of one scope; None is none."""

    tokens: Positive | None = None
    """Input and output tokens, those of sub-agents included."""
    usd: MicroUsd | None = None
    """Dollars, kept in micro-dollars."""
    wall_ms: Positive | None = None
    """Run time in milliseconds, without waiting for a person."""


class IssueLimitSettings(LimitSettings):
    """Limits of one issue over all of its runs."""

    attempts: Positive | None = None
    """Runs of the issue: first ones, continuations, retries and recoveries alike."""


class PriceSettings(_Part):
    """What a million tokens of a model cost, in micro-dollars; written in dollars."""

    input_per_million: MicroUsdPrice
    output_per_million: MicroUsdPrice
    cached_input_per_million: MicroUsdPrice | None = None
    """None: cached input costs what other input does."""

    @property
    def price(self) -> Price:
        """The price as the meter takes it."""
        cached = self.cached_input_per_million
        return Price(
            input=self.input_per_million,
            cached_input=self.input_per_million if cached is None else cached,
            output=self.output_per_million,
        )


class BudgetSettings(_Part):
    """What work may cost, and when it counts as going nowhere."""

    turn: LimitSettings = LimitSettings()
    """Limits of one turn."""
    run: LimitSettings = LimitSettings()
    """Limits of one run."""
    issue: IssueLimitSettings = IssueLimitSettings()
    """Limits of one issue over all of its runs, across restarts."""
    day: LimitSettings = LimitSettings()
    """Limits of all work of one day."""
    total: LimitSettings = LimitSettings()
    """Limits of all work that the ledger of this workflow counts."""
    day_timezone: ZoneName = "UTC"
    """Where the day begins at midnight."""
    prices: dict[str, PriceSettings] = Field(default_factory=dict)
    """Prices by model: an exact name, else the longest that its name begins with, else default."""
    no_progress_turns: Count = 10
    """Turns in a row without any change after which an issue is blocked; 0: never."""

    @property
    def zone(self) -> tzinfo:
        """The time zone of the day."""
        return ZoneInfo(self.day_timezone)

    def limits(self, scope: BudgetScope) -> Limits:
        """Return the limits of a scope as they are written."""
        written: LimitSettings = getattr(self, scope.value)
        attempts = written.attempts if isinstance(written, IssueLimitSettings) else None
        return Limits(
            scope=scope,
            tokens=written.tokens,
            micro_usd=written.usd,
            wall_ms=written.wall_ms,
            attempts=attempts,
        )

    @property
    def money_scope(self) -> BudgetScope | None:
        """The smallest scope with a limit in USD, or None where money is not limited."""
        scopes = (scope for scope in BudgetScope if self.limits(scope).micro_usd is not None)
        return next(scopes, None)

    def price_of(self, model: str | None) -> Price | None:
        """Return the price of a model, or None where no entry fits it."""
        prices = self.prices
        found = None
        if model:
            found = prices.get(model)
            if found is None:
                names = [
                    name for name in prices if name != DEFAULT_PRICE and model.startswith(name)
                ]
                found = prices[max(names, key=len)] if names else None
        found = found or prices.get(DEFAULT_PRICE)
        return None if found is None else found.price


def budget_faults(error: ValidationError) -> Iterator[tuple[tuple[str, ...], str, object]]:
    """Yield path below ``budget``, problem and value of each fault."""
    for detail in error.errors(include_url=False):
        path = tuple(str(part) for part in detail["loc"])
        match detail["type"]:
            case "missing":
                yield path, "is required", None
            case "extra_forbidden":
                yield path, f"is no setting{_nearest(path)}", None
            case "model_type" | "model_attributes_type" | "dict_type":
                yield path, "must be a map of keys and values", detail["input"]
            case _:
                yield path, detail["msg"], detail["input"]


def _nearest(path: tuple[str, ...]) -> str:
    known: Mapping[str, Any] = {
        "issue": IssueLimitSettings.model_fields,
        "prices": PriceSettings.model_fields,
    }.get(path[0], LimitSettings.model_fields)
    if len(path) == 1:
        known = BudgetSettings.model_fields
    near = difflib.get_close_matches(path[-1], known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"


def unpriced_fault(budget: BudgetSettings, model: str | None, named_by: str) -> str | None:
    """Say why limits in USD can't be kept, or None where they can as far as is known now.

    Args:
        budget: The settings.
        model: The model that Codex is known to use, or None where that shows only in a run.
        named_by: Where that model is written, for the sentence.
    """
    scope = budget.money_scope
    if scope is None:
        return None
    if not budget.prices:
        return f"is required because budget.{scope}.usd is set: a price for each model, or default"
    if model is not None and budget.price_of(model) is None:
        return (
            f"has no price for the model {model!r} ({named_by}), which budget.{scope}.usd needs: "
            f"add it, or {DEFAULT_PRICE!r} for every model"
        )
    return None
