"""Gates, rules and the dispatch order (SPEC 8.2, 8.3)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from symphony.model.issue import BlockerRef
from symphony.model.run import OutcomeKind
from symphony.scheduler.eligibility import (
    GateName,
    Rules,
    Standing,
    dispatch_key,
    first_shut,
    gates,
)
from symphony.scheduler.events import ConfigBroken, ShutdownRequested
from symphony.scheduler.lifting import lift
from symphony.scheduler.publish import explain


def shut(driver, issue):
    return [gate.name for gate in explain(driver.state, issue) if not gate.passed]


@pytest.mark.parametrize(
    ("fields", "gate", "detail"),
    [
        ({"title": "  "}, GateName.COMPLETE, "blank: title"),
        ({"identifier": "", "title": ""}, GateName.COMPLETE, "blank: identifier, title"),
        ({"state": " done "}, GateName.NOT_TERMINAL, "state ' done ' is terminal"),
        ({"state": "Review"}, GateName.ACTIVE, "state 'Review' is not one of Todo, In Progress"),
        ({"dispatchable": False}, GateName.DISPATCHABLE, "the tracker's own rules exclude it"),
        (
            {"dispatchable": False, "withheld": "a pull request", "blocked_by": (BlockerRef("9"),)},
            GateName.DISPATCHABLE,
            "a pull request",
        ),
        (
            {"dispatchable": False, "blocked_by": (BlockerRef(identifier="B-1"), BlockerRef("9"))},
            GateName.DISPATCHABLE,
            "blocked by B-1, 9",
        ),
        ({"labels": ("x",)}, GateName.LABELS, "lacks 'agent'"),
    ],
)
def test_an_issue_fails_the_gate_that_names_its_fault(drive, issue, fields, gate, detail):
    driver = drive(tracker={"required_labels": [" Agent "]})
    candidate = replace(issue("A-1", labels=("agent", "x")), **fields)
    first = first_shut(candidate, driver.state.view())
    assert first is not None
    assert (first.name, first.detail) == (gate, detail)


def test_an_eligible_issue_passes_every_gate_and_each_says_what_that_means(drive, issue):
    driver = drive()
    answers = explain(driver.state, issue("A-1"))
    assert [gate.name for gate in answers] == list(GateName)
    assert all(gate.passed for gate in answers)
    assert all(gate.detail == gate.name.sentence for gate in answers)
    assert first_shut(issue("A-1"), driver.state.view()) is None


def test_explain_lists_all_shut_gates_and_not_only_the_first(drive, issue):
    driver = drive(agent={"max_concurrent_agents": 1}, tracker={"required_labels": ["agent"]})
    driver.start(issue("A-1", labels=("agent",)))
    driver.send(ConfigBroken("line 3 is bad"))
    driver.send(ShutdownRequested())
    assert shut(driver, issue("A-2", state="Review")) == [
        GateName.ACTIVE,
        GateName.LABELS,
        GateName.CONFIG,
        GateName.ACCEPTING,
        GateName.GLOBAL_SLOT,
    ]


def test_every_shut_gate_says_how_it_is_opened(drive, issue):
    driver = drive()
    driver.start()
    for name in GateName:
        assert lift(name, issue("A-1"), driver.state)
    (held,) = [
        gate for gate in explain(driver.state, issue("A-1", state="Backlog")) if not gate.passed
    ]
    assert held.lift == "move it to one of tracker.active_states (Todo, In Progress)"


def test_dispatch_and_explain_read_the_same_table(drive, issue):
    driver = drive(tracker={"required_labels": ["agent"]})
    candidate = issue("A-1")
    first = first_shut(candidate, driver.state.view())
    listed = [gate for gate in gates(candidate, driver.state.view()) if not gate.passed]
    assert listed[0] == first


def test_explain_tells_what_holds_a_claimed_issue(drive, issue):
    driver = drive()
    one, two = issue("A-1"), issue("A-2")
    first, second = driver.start(one, two)
    driver.end(first, OutcomeKind.INPUT_REQUIRED, message="which colour?")
    driver.end(second, OutcomeKind.FAILED, message="no luck")
    details = {
        candidate.identifier: next(
            gate.detail
            for gate in explain(driver.state, candidate)
            if gate.name is GateName.UNCLAIMED
        )
        for candidate in (one, two)
    }
    assert "(input_required): which colour?; to go on: symphony answer A-1" in details["A-1"]
    assert details["A-2"].startswith("waiting for its failure retry at 2026-01-01T00:00:")
    assert details["A-2"].endswith("no luck")


def test_state_names_compare_without_case_and_blank_around_them(settings, issue):
    rules = Rules.from_settings(
        settings(tracker={"active_states": [" ToDo ", ""], "terminal_states": ["DONE", " "]})
    )
    assert rules.standing(issue("A-1", state=" TODO")) is Standing.WANTED
    assert rules.standing(issue("A-1", state="done ")) is Standing.TERMINAL
    assert rules.active == {"todo"}
    assert rules.terminal_names == ("DONE",)


def test_a_state_that_is_both_active_and_terminal_counts_as_terminal(settings, issue):
    rules = Rules.from_settings(
        settings(tracker={"active_states": ["Done"], "terminal_states": ["Done"]})
    )
    assert rules.standing(issue("A-1", state="Done")) is Standing.TERMINAL


def test_a_blank_required_label_matches_nothing(settings, issue):
    rules = Rules.from_settings(settings(tracker={"required_labels": [""]}))
    assert rules.standing(issue("A-1", labels=("a",))) is Standing.UNROUTABLE


def test_without_active_states_nothing_is_active_and_the_gate_says_so(drive, issue):
    driver = drive(tracker={"active_states": []})
    gate = first_shut(issue("A-1"), driver.state.view())
    assert gate is not None
    assert gate.detail == "state 'Todo' is not one of none"


def test_dispatch_order_is_priority_then_age_then_identifier(issue):
    same = datetime(2026, 1, 1)
    ordered = [
        issue("A-9", priority=1),
        issue("A-8", priority=4),
        issue("A-3", priority=None),
        issue("A-4", priority=5),
        issue("A-5", priority=0),
        issue("A-6", priority=-1),
        issue("B-1", priority=9, created_at=same.replace(year=2027)),
        issue("B-2", priority=None, created_at=same.replace(year=2027)),
        issue("C-1", priority=None, created_at=None),
    ]
    shuffled = [ordered[(7 * number) % len(ordered)] for number in range(len(ordered))]
    by_key = sorted(shuffled, key=lambda entry: dispatch_key(entry, fresh=True))
    assert [entry.identifier for entry in by_key] == [entry.identifier for entry in ordered]


def test_a_retry_goes_before_fresh_issues_of_its_priority_but_not_of_a_higher_one(issue):
    young = issue("A-9", priority=2)
    assert dispatch_key(young, fresh=False) < dispatch_key(issue("A-1", priority=2), fresh=True)
    assert dispatch_key(young, fresh=False) > dispatch_key(issue("A-8", priority=1), fresh=True)
