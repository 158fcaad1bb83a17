from __future__ import annotations

import pytest

from symphony.config.blocked import changes_of, retry_delays


@pytest.mark.parametrize(
    ("value", "delays"),
    [
        (None, {}),
        (0, {}),
        (60_000, {"input": 60_000, "approval": 60_000, "fault": 60_000}),
        ("5", {"input": 5, "approval": 5, "fault": 5}),
        ({"fault": 7, "input": 0}, {"fault": 7}),
    ],
)
def test_delays_are_one_number_or_a_map_by_kind(value, delays):
    assert retry_delays(value) == delays


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (-1, "from 0"),
        (True, "from 0"),
        ("soon", "from 0"),
        ([1], "from 0"),
        (10**30, "from 0"),
        ({"stopped": 5}, "knows no kind of block 'stopped'; there are input, approval, fault"),
        ({"input": "x"}, "input must be"),
    ],
)
def test_a_bad_delay_is_refused_with_what_is_allowed(value, told):
    with pytest.raises(ValueError, match=r"from 0|knows no|must be") as caught:
        retry_delays(value)
    assert told in str(caught.value)


def test_changes_are_known_words_in_our_order():
    assert changes_of(("Labels ", "state", "labels")) == ("state", "labels")
    assert changes_of(()) == ()
    with pytest.raises(ValueError, match="knows no 'comment'; list any of state, labels"):
        changes_of(("state", "comment"))
