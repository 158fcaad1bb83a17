"""Spend is exact: integers, nothing counted twice, cached input charged once."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony.model.spend import (
    BudgetScope,
    CostMeter,
    Crossing,
    Limits,
    Price,
    Quantity,
    Raise,
    Spend,
    shown,
)
from symphony.model.usage import TokenUsage, UsageMeter

counts = st.integers(0, 10**9)
prices = st.builds(Price, input=counts, cached_input=counts, output=counts)


@st.composite
def usages(draw: st.DrawFn) -> TokenUsage:
    """What one answer of a model used: cached input is a part of the input."""
    given_in, out = draw(st.integers(0, 10**6)), draw(st.integers(0, 10**5))
    cached = draw(st.integers(0, given_in))
    return TokenUsage(given_in, out, given_in + out, cached, draw(st.integers(0, out)))


@given(st.lists(st.tuples(st.sampled_from("abc"), usages()), max_size=20), st.data())
def test_no_token_of_any_thread_is_counted_twice(
    steps: list[tuple[str, TokenUsage]], data: st.DataObject
) -> None:
    """Threads report running totals; reports come again, late and out of order."""
    totals: dict[str, TokenUsage] = {}
    reports = []
    for thread, added in steps:
        totals[thread] = totals.get(thread, TokenUsage()) + added
        reports.append((thread, totals[thread]))
    again = data.draw(st.lists(st.sampled_from(reports), max_size=10)) if reports else []
    meter = UsageMeter()
    for thread, total in [*reports, *again]:
        meter.report(thread, total)
    assert meter.total == sum(totals.values(), TokenUsage())


@given(st.lists(usages(), max_size=20), prices)
def test_money_is_the_exact_sum_rounded_up_once(parts: list[TokenUsage], price: Price) -> None:
    meter = CostMeter()
    for part in parts:
        meter.add(part, price)
    exact = sum(
        Fraction(
            (one.input_tokens - one.cached_input_tokens) * price.input
            + one.cached_input_tokens * price.cached_input
            + one.output_tokens * price.output,
            1_000_000,
        )
        for one in parts
    )
    assert isinstance(meter.micro_usd, int)
    assert exact <= meter.micro_usd < exact + 1


@given(st.lists(usages(), min_size=1, max_size=12), prices, st.integers(0, 11))
def test_reports_at_any_moments_add_up_to_the_whole_cost(
    parts: list[TokenUsage], price: Price, cut: int
) -> None:
    """What the ledger adds are differences of totals, so pauses between them change nothing."""
    meter = CostMeter()
    booked, last = 0, 0
    for number, part in enumerate(parts):
        meter.add(part, price)
        if number != cut:
            booked, last = booked + meter.micro_usd - last, meter.micro_usd
    booked += meter.micro_usd - last
    assert booked == meter.micro_usd


def test_cached_input_is_a_part_of_the_input_and_reasoning_of_the_output() -> None:
    price = Price(input=1_250_000, cached_input=125_000, output=10_000_000)
    usage = TokenUsage(1_000_000, 100_000, 1_100_000, 800_000, 90_000)
    meter = CostMeter()
    meter.add(usage, price)
    # 0.2 M at $1.25, 0.8 M at $0.125, 0.1 M at $10
    assert meter.micro_usd == 250_000 + 100_000 + 1_000_000


def test_tokens_without_a_price_are_told_apart_and_cost_nothing_by_mistake() -> None:
    meter = CostMeter()
    meter.add(TokenUsage(10, 5, 15), None)
    assert (meter.micro_usd, meter.unpriced_tokens) == (0, 15)


@given(st.lists(st.builds(Spend, tokens=counts, micro_usd=counts, wall_ms=counts), max_size=8))
def test_differences_of_totals_add_up_and_never_fall(reports: list[Spend]) -> None:
    seen = booked = Spend()
    for report in reports:
        added = report.since(seen)
        seen, booked = seen + added, booked + added
    assert booked == seen
    assert booked.tokens == max((one.tokens for one in reports), default=0)


@pytest.mark.parametrize(
    ("limits", "spend", "starts", "crossed"),
    [
        ({"tokens": 10}, {"tokens": 9}, False, None),
        ({"tokens": 10}, {"tokens": 10}, False, Quantity.TOKENS),
        ({"micro_usd": 10}, {"micro_usd": 11, "tokens": 99}, False, Quantity.USD),
        ({"wall_ms": 10}, {"wall_ms": 10}, False, Quantity.WALL),
        ({"attempts": 2}, {"runs": 2}, False, None),
        ({"attempts": 2}, {"runs": 2}, True, Quantity.ATTEMPTS),
        ({}, {"tokens": 10**15}, True, None),
    ],
)
def test_a_limit_is_crossed_when_it_is_reached(
    limits: dict[str, int], spend: dict[str, int], starts: bool, crossed: Quantity | None
) -> None:
    found = Limits(scope=BudgetScope.ISSUE, **limits).crossed(Spend(**spend), starts=starts)
    assert (found and found.quantity) == crossed


@given(st.builds(Limits, scope=st.just(BudgetScope.DAY), tokens=st.none() | counts), counts)
def test_a_raise_adds_to_what_is_limited_and_limits_nothing_else(limits: Limits, more: int) -> None:
    raised = limits.raised(Raise(tokens=more, micro_usd=7))
    assert raised.tokens == (None if limits.tokens is None else limits.tokens + more)
    assert raised.micro_usd is None


@pytest.mark.parametrize(
    ("quantity", "amount", "text"),
    [
        (Quantity.TOKENS, 1_234_567, "1,234,567 tokens"),
        (Quantity.USD, 12_500_000, "$12.50"),
        (Quantity.USD, 1_234_567, "$1.234567"),
        (Quantity.USD, 50_200, "$0.0502"),
        (Quantity.WALL, 90_500, "90.5 s"),
        (Quantity.ATTEMPTS, 1, "1 run"),
        (Quantity.ATTEMPTS, 30, "30 runs"),
    ],
)
def test_amounts_are_shown_in_words(quantity: Quantity, amount: int, text: str) -> None:
    assert shown(quantity, amount) == text


def test_a_crossing_tells_the_setting_and_both_numbers() -> None:
    crossed = Crossing(
        scope=BudgetScope.ISSUE, quantity=Quantity.USD, limit=5_000_000, spent=5_100_000
    )
    assert crossed.category == "budget_issue"
    assert crossed.sentence == "the issue's budget of $5.00 is spent: $5.10 (budget.issue.usd)"
