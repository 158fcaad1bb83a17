"""What ends a block by itself: values that are wrong are told all at once."""

from __future__ import annotations

import pytest

from symphony.config.blocked import changes_of, retry_delays


def test_one_number_counts_for_all_kinds_and_zero_for_none() -> None:
    assert retry_delays(60_000) == {"input": 60_000, "approval": 60_000, "fault": 60_000}
    assert retry_delays({"input": "5000", "fault": 0}) == {"input": 5000}
    assert retry_delays(None) == {}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (-1, "must be milliseconds from 0"),
        (True, "must be milliseconds from 0"),
        ({"input": -1, "approval": "soon"}, "input and approval must be milliseconds"),
        ({"lunch": 1, "tea": 1, "fault": -2}, "no kind of block 'lunch' or 'tea'; there are input"),
        ({"lunch": 1, "fault": -2}, "; fault must be milliseconds from 0"),
    ],
)
def test_every_fault_of_a_delay_is_told(value: object, told: str) -> None:
    with pytest.raises(ValueError, match="milliseconds") as caught:
        retry_delays(value)
    assert told in str(caught.value)


def test_every_unknown_change_is_told() -> None:
    with pytest.raises(ValueError, match="knows no 'colour' or 'size'; list any of state, labels"):
        changes_of(("state", "size", "colour"))
