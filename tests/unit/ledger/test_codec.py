from datetime import UTC

from hypothesis import given
from hypothesis import strategies as st

from symphony.ledger.codec import capped, decode_issue, encode_issue
from symphony.model.issue import BlockerRef, Issue

names = st.text(st.characters(), min_size=1, max_size=20)
maybe = st.none() | names
moments = st.none() | st.datetimes(timezones=st.just(UTC)) | st.datetimes()
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
issues = st.builds(
    Issue,
    id=names,
    identifier=names,
    title=names,
    state=names,
    dispatchable=st.booleans(),
    description=maybe,
    priority=st.none() | st.integers(-9, 9),
    branch_name=maybe,
    url=maybe,
    assignee_id=maybe,
    labels=st.lists(names, max_size=3).map(tuple),
    blocked_by=st.lists(st.builds(BlockerRef, maybe, maybe, maybe), max_size=2).map(tuple),
    native_ref=st.none() | st.dictionaries(names, json_values, max_size=3),
    created_at=moments,
    updated_at=moments,
)


@given(issues)
def test_an_issue_comes_back_exactly_as_it_was(issue):
    text = encode_issue(issue)
    text.encode()
    assert decode_issue(text) == issue


def test_capped_text_can_be_stored_and_shows_that_it_was_cut():
    assert capped("abcdef", 4) == "abc…"
    assert capped("abcd", 4) == "abcd"
    assert capped("a\ud800", 9) == "a?"
    assert capped(None, 4) is None
