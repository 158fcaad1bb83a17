"""The choice of a host (SPEC, Appendix A.2)."""

from __future__ import annotations

import pytest

from symphony.scheduler.placement import Slots, place


@pytest.fixture
def slots():
    taken = Slots()
    for host in ("a", "a", "b"):
        taken.take("todo", host)
    return taken


def test_without_hosts_work_runs_here(slots):
    assert place((), 1, slots) == "local"


def test_full_hosts_are_skipped(slots):
    assert place(("a", "b"), 2, slots) == "b"


def test_work_waits_where_every_host_is_full(slots):
    assert place(("a", "b"), 1, slots, preferred="a") is None


def test_the_previous_host_wins_while_it_has_room(slots):
    assert place(("a", "b", "c"), 3, slots, preferred="a") == "a"
    assert place(("a", "b", "c"), 2, slots, preferred="a") == "c"


def test_the_least_loaded_host_is_chosen_and_ties_go_by_order(slots):
    assert place(("a", "b", "c"), None, slots) == "c"
    assert place(("d", "c", "a"), None, slots) == "d"


def test_a_lost_host_does_not_attract_work_though_it_looks_idle(slots):
    assert place(("c", "b"), None, slots, preferred="c", suspects={"c"}) == "b"
    assert place(("c",), None, slots, suspects={"c"}) == "c"


def test_a_host_that_was_removed_is_not_preferred(slots):
    assert place(("b",), None, slots, preferred="a") == "b"


def test_slots_given_back_leave_no_trace(slots):
    for host in ("a", "a", "b"):
        slots.give_back("todo", host)
    assert slots == Slots()
    assert not slots.by_host
    assert slots != "slots"
