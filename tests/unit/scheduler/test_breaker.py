"""The failure breaker: what all issues share stops new starts, and one canary lifts it again."""

from __future__ import annotations

import pytest

from symphony.config.settings import Settings
from symphony.model.failure import FailureClass, failure_class
from symphony.model.run import Outcome, OutcomeKind, RetryKind
from symphony.model.usage import TokenUsage
from symphony.scheduler.claims import Running
from symphony.scheduler.commands import (
    DropBreaker,
    Note,
    RefreshPurpose,
    SaveBreaker,
)
from symphony.scheduler.eligibility import GateName
from symphony.scheduler.events import (
    BreakerRecord,
    ControlAction,
    ControlRequested,
    Failure,
    IssuesRefreshed,
    Restored,
    RestoredClaim,
    RunIssueChanged,
    SettingsChanged,
)
from symphony.scheduler.publish import build_snapshot, explain
from symphony.scheduler.state import next_wakeup

FAILED = OutcomeKind.FAILED
OVERLOADED = {"category": "turn_failed", "code": "serverOverloaded"}
REFUSED = {"category": "turn_failed", "code": "unauthorized", "retryable": False}
HOOK = {"category": "workspace_hook_failed"}
UNKNOWN = {"category": "turn_failed", "code": "other"}
COOLDOWN_S = 600.0


@pytest.fixture
def shop(drive, issue):
    """A daemon with room for all, and ten issues that run."""

    def shop(*, breaker=None, issues=10, **sections):
        driver = drive(
            # No read follows a block: polls are not what these tests are about.
            agent={
                "max_concurrent_agents": 20,
                "max_retry_backoff_ms": 10_000,
                "unblock_on": [],
            },
            codex={"stall_timeout_ms": 0},
            breaker=breaker or {},
            **{"polling": {"interval_ms": 10**9}, **sections},
        )
        names = [issue(f"A-{number}") for number in range(1, issues + 1)]
        specs = driver.start(*names)
        assert len(specs) == issues
        return driver, names, specs

    return shop


def shut(driver, issue):
    return [gate.name for gate in explain(driver.state, issue) if not gate.passed]


def states(driver):
    return [(row.failure_class, row.state, row.canary) for row in snapshot(driver).breakers]


def snapshot(driver):
    return build_snapshot(driver.state, {}, driver.now, sequence=1, rate_limits=None)


def order(driver, action, identifier=None, **fields):
    return driver.send(ControlRequested(ControlAction(action), identifier, "why", "ann", **fields))


def trip(driver, specs, outcome=OVERLOADED, count=5):
    for spec in specs[:count]:
        driver.end(spec, FAILED, **outcome)


def answer_retries(driver, names):
    """Confirm whatever due retries were read; returns what was started."""
    started = []
    while driver.has_refresh(RefreshPurpose.RETRY):
        read = driver.refresh(RefreshPurpose.RETRY)
        driver.send(IssuesRefreshed(read.cause, [one for one in names if one.id in read.ids]))
        started += driver.started()
    return started


def test_failures_of_one_class_in_several_issues_stop_all_starts(shop, issue):
    driver, _, specs = shop()
    trip(driver, specs, count=4)
    assert snapshot(driver).breakers == ()

    driver.end(specs[4], FAILED, **OVERLOADED)

    assert states(driver) == [("model", "open", None)]
    other = issue("A-99")
    assert driver.poll([other], held=[spec.issue for spec in specs]) == []
    (gate,) = [gate for gate in explain(driver.state, other) if not gate.passed]
    assert gate.name is GateName.BREAKER
    assert "5 failures of class model in 5 issues" in gate.detail
    assert "nothing starts before 2026-01-01T00:10:00Z" in gate.detail
    assert "symphony breaker reset model" in gate.detail


def test_what_runs_goes_on_while_the_breaker_is_open(shop):
    driver, names, specs = shop()
    trip(driver, specs)
    assert driver.stopped() == []
    assert all(isinstance(driver.claim(one), Running) for one in names[5:])


def test_one_issue_alone_never_opens_the_breaker(drive, issue):
    driver = drive(agent={"max_retry_backoff_ms": 1}, codex={"stall_timeout_ms": 0})
    one = issue("A-1")
    (spec,) = driver.start(one)
    for _ in range(20):
        driver.end(spec, FAILED, **HOOK)
        driver.wake_when_due()
        (spec,) = answer_retries(driver, [one])
    assert snapshot(driver).breakers == ()


def test_one_issue_that_fails_often_and_another_once_do_not_open_it(shop):
    driver, names, specs = shop(issues=2, breaker={"failures": 5})
    spec = specs[0]
    for _ in range(8):
        driver.end(spec, FAILED, **HOOK)
        driver.wake(20.0)
        (spec,) = answer_retries(driver, names)
    driver.end(specs[1], FAILED, **HOOK)
    assert snapshot(driver).breakers == ()
    driver.wake(20.0)
    (again,) = answer_retries(driver, names)
    driver.end(again, FAILED, **HOOK)
    assert states(driver) == [("hook", "open", None)]


def test_failures_without_a_telling_cause_count_once_an_issue(shop):
    driver, names, specs = shop(issues=4, breaker={"failures": 4})
    failing = specs[:3]
    for _ in range(5):
        for spec in failing:
            driver.end(spec, FAILED, **UNKNOWN)
        driver.wake(20.0)
        failing = answer_retries(driver, names)
        assert len(failing) == 3
    assert snapshot(driver).breakers == ()
    driver.end(specs[3], FAILED, **UNKNOWN)
    assert states(driver) == [("unclear", "open", None)]


def test_a_run_that_ends_well_sets_the_count_back(shop):
    driver, _, specs = shop()
    trip(driver, specs, count=4)
    driver.end(specs[5])
    assert driver.of(DropBreaker) == [DropBreaker(FailureClass.MODEL)]
    driver.end(specs[4], FAILED, **OVERLOADED)
    assert snapshot(driver).breakers == ()


def test_only_failures_within_the_window_count(shop):
    driver, _, specs = shop(breaker={"window_ms": 60_000})
    trip(driver, specs, count=4)
    driver.advance(61.0)
    trip(driver, specs[4:], count=4)
    assert snapshot(driver).breakers == ()
    driver.end(specs[8], FAILED, **OVERLOADED)
    assert states(driver) == [("model", "open", None)]


def test_classes_are_counted_apart(shop):
    driver, _, specs = shop()
    for number, spec in enumerate(specs[:8]):
        driver.end(spec, FAILED, **(HOOK if number % 2 else OVERLOADED))
    assert snapshot(driver).breakers == ()


def test_a_refused_login_counts_though_it_is_not_retried(shop, issue):
    driver, _, specs = shop()
    trip(driver, specs, REFUSED)
    assert states(driver) == [("unauthorized", "open", None)]
    assert shut(driver, issue("A-99")) == [GateName.BREAKER]


def test_a_breaker_that_is_off_counts_nothing(shop):
    driver, _, specs = shop(breaker={"failures": 0})
    trip(driver, specs, count=10)
    assert snapshot(driver).breakers == ()
    assert [one for one in driver.history if isinstance(one, SaveBreaker)] == []


def test_after_the_cool_down_exactly_one_issue_starts(shop, issue):
    driver, names, specs = shop()
    trip(driver, specs)
    driver.wake(COOLDOWN_S - 1)
    assert answer_retries(driver, names) == []

    driver.wake(1.0)

    (canary,) = answer_retries(driver, names)
    assert states(driver) == [("model", "half_open", canary.issue.identifier)]
    assert driver.poll([issue("A-98"), issue("A-99")], held=names) == []
    assert shut(driver, issue("A-99")) == [GateName.BREAKER]
    detail = next(gate.detail for gate in explain(driver.state, names[3]) if not gate.passed)
    assert detail


def test_a_fresh_candidate_can_be_the_canary(shop, issue):
    driver, _, specs = shop(breaker={"failures": 2})
    trip(driver, specs, REFUSED, count=2)
    driver.wake(COOLDOWN_S)
    fresh = [issue("A-97"), issue("A-98")]
    assert len(driver.poll(fresh, held=[spec.issue for spec in specs])) == 1


def test_the_loop_wakes_up_when_the_cool_down_ends(shop):
    driver, _, specs = shop()
    for spec in specs[:5]:
        driver.end(spec, FAILED, **REFUSED)
    assert next_wakeup(driver.state) == driver.mono + COOLDOWN_S


def test_a_canary_that_works_closes_the_breaker(shop):
    driver, names, specs = shop()
    trip(driver, specs)
    driver.wake(COOLDOWN_S)
    (canary,) = answer_retries(driver, names)

    driver.end(canary, usage=TokenUsage(1, 1, 2))

    assert snapshot(driver).breakers == ()
    assert DropBreaker(FailureClass.MODEL) in driver.commands
    assert "breaker is closed" in driver.notes()
    assert len(answer_retries(driver, names)) == 4


def test_a_turn_of_the_canary_that_ends_well_is_enough(shop):
    driver, names, specs = shop()
    trip(driver, specs)
    driver.wake(COOLDOWN_S)
    (canary,) = answer_retries(driver, names)

    driver.send(RunIssueChanged(canary.run_id, canary.issue))

    assert snapshot(driver).breakers == ()
    assert isinstance(driver.claim(canary.issue), Running)
    assert len(answer_retries(driver, names)) == 4


@pytest.mark.parametrize("kind", [OutcomeKind.INPUT_REQUIRED, OutcomeKind.APPROVAL_REQUIRED])
def test_a_canary_that_asks_has_worked(shop, kind):
    driver, names, specs = shop()
    trip(driver, specs)
    driver.wake(COOLDOWN_S)
    (canary,) = answer_retries(driver, names)
    driver.end(canary, kind)
    assert snapshot(driver).breakers == ()


def test_a_canary_that_fails_alike_doubles_the_cool_down_up_to_the_cap(shop):
    driver, names, specs = shop(breaker={"max_cooldown_ms": 2_000_000})
    trip(driver, specs)
    waits = []
    wait_s = COOLDOWN_S
    for _ in range(4):
        driver.wake(wait_s)
        (canary,) = answer_retries(driver, names)
        driver.end(canary, FAILED, **OVERLOADED)
        assert "breaker is open again" in driver.notes()
        (row,) = snapshot(driver).breakers
        wait_s = row.until_wall - driver.wall
        waits.append(wait_s)
        assert row.since_wall == driver.wall - sum([COOLDOWN_S, *waits[:-1]])
    assert waits == pytest.approx([1200.0, 2000.0, 2000.0, 2000.0])


def test_a_canary_that_settles_nothing_leaves_its_place_to_the_next(shop):
    driver, names, specs = shop()
    trip(driver, specs)
    driver.wake(COOLDOWN_S)
    (canary,) = answer_retries(driver, names)

    driver.end(canary, FAILED, category="turn_failed", code="contextWindowExceeded")

    (following,) = answer_retries(driver, names)
    assert following.issue.id != canary.issue.id
    assert states(driver) == [("model", "half_open", following.issue.identifier)]


def test_a_canary_that_moved_its_issue_after_the_model_answered_has_worked(shop, moved):
    driver, names, specs = shop()
    trip(driver, specs)
    driver.wake(COOLDOWN_S)
    (canary,) = answer_retries(driver, names)
    held = [moved(one, "Done") if one.id == canary.issue.id else one for one in names]
    driver.poll([], held=held)

    driver.end(canary, OutcomeKind.CANCELLED, usage=TokenUsage(5, 5, 10))

    assert snapshot(driver).breakers == ()


def test_a_canary_that_a_person_took_away_settles_nothing(shop, moved):
    driver, names, specs = shop()
    trip(driver, specs)
    driver.wake(COOLDOWN_S)
    (canary,) = answer_retries(driver, names)
    held = [moved(one, "Done") if one.id == canary.issue.id else one for one in names]
    driver.poll([], held=held)

    driver.end(canary, OutcomeKind.CANCELLED)

    assert [state for _, state, _ in states(driver)] == ["half_open"]
    assert len(answer_retries(driver, names)) == 1


def test_runs_of_before_neither_close_nor_prolong_it(shop):
    driver, names, specs = shop()
    trip(driver, specs)
    before = snapshot(driver).breakers
    driver.end(specs[5], FAILED, **OVERLOADED)
    driver.end(specs[6])
    assert snapshot(driver).breakers == before

    driver.wake(COOLDOWN_S)
    (canary,) = answer_retries(driver, names)
    driver.end(specs[7], FAILED, **OVERLOADED)
    driver.end(specs[8])
    assert states(driver) == [("model", "half_open", canary.issue.identifier)]


def test_two_classes_are_closed_by_one_canary(shop):
    driver, names, specs = shop(breaker={"failures": 2})
    trip(driver, specs, OVERLOADED, count=2)
    trip(driver, specs[2:], HOOK, count=2)
    assert len(states(driver)) == 2
    driver.wake(COOLDOWN_S)
    (canary,) = answer_retries(driver, names)
    driver.end(canary)
    assert states(driver) == []


def test_a_class_that_opens_while_another_is_tried_waits_for_its_own_canary(shop):
    driver, names, specs = shop(breaker={"failures": 2})
    trip(driver, specs, OVERLOADED, count=2)
    driver.wake(COOLDOWN_S)
    (canary,) = answer_retries(driver, names)
    trip(driver, specs[2:], HOOK, count=2)

    driver.end(canary)

    assert [(name, state) for name, state, _ in states(driver)] == [("hook", "open")]


def test_reset_closes_at_once_and_forgets_the_count(shop):
    driver, names, specs = shop()
    trip(driver, specs)
    driver.wake(20.0)
    assert answer_retries(driver, names) == []

    order(driver, "reset_breaker")

    assert states(driver) == []
    assert len(answer_retries(driver, names)) == 5
    assert DropBreaker(FailureClass.MODEL) in driver.history


def test_reset_of_one_class_leaves_the_others(shop):
    driver, _, specs = shop(breaker={"failures": 2})
    trip(driver, specs, OVERLOADED, count=2)
    trip(driver, specs[2:], HOOK, count=2)
    order(driver, "reset_breaker", failure_class=FailureClass.HOOK)
    assert states(driver) == [("model", "open", None)]


def test_retry_of_an_issue_makes_it_the_canary_at_once(shop):
    driver, names, specs = shop()
    trip(driver, specs)
    driver.wake(20.0)
    assert answer_retries(driver, names) == []

    order(driver, "retry", "A-4")
    driver.wake()

    (canary,) = answer_retries(driver, names)
    assert canary.issue.identifier == "A-4"
    assert states(driver) == [("model", "half_open", "A-4")]


def test_retry_of_a_candidate_makes_it_the_canary(shop, issue):
    driver, _, specs = shop()
    trip(driver, specs, REFUSED)
    fresh = [issue("A-98"), issue("A-99")]
    driver.poll(fresh, held=[spec.issue for spec in specs])

    order(driver, "retry", "A-99")
    driver.show(RefreshPurpose.RECONCILE, *(spec.issue for spec in specs))
    driver.offer(*fresh)

    assert [spec.issue.identifier for spec in driver.confirm(*fresh)] == ["A-99"]


def test_retry_of_an_issue_that_no_poll_has_listed_makes_it_the_canary(shop, issue):
    driver, _, specs = shop()
    trip(driver, specs, REFUSED)

    order(driver, "retry", "A-99", found=issue("A-99"))

    assert states(driver) == [("unauthorized", "half_open", "A-99")]


def test_retry_of_a_held_issue_keeps_no_place_for_it(shop):
    driver, names, specs = shop()
    trip(driver, specs)
    driver.wake(20.0)
    answer_retries(driver, names)
    order(driver, "pause", "A-4")

    order(driver, "retry", "A-4")

    assert "not chosen for the breaker" in driver.notes()
    assert states(driver) == [("model", "open", None)]


def test_retry_of_an_issue_that_runs_keeps_no_place_for_it(shop):
    driver, _, specs = shop()
    trip(driver, specs)

    order(driver, "retry", "A-9")

    assert states(driver) == [("model", "open", None)]


def half_open_with_a_canary(driver, names):
    driver.wake(COOLDOWN_S)
    (canary,) = answer_retries(driver, names)
    return canary


def test_a_canary_that_runs_long_enough_without_failing_has_shown_that_it_works(shop):
    driver, names, specs = shop()
    trip(driver, specs)
    canary = half_open_with_a_canary(driver, names)
    (row,) = snapshot(driver).breakers
    assert "until a turn of it ends well, at the latest 2026-01-01T00:12:00Z" in row.sentence

    driver.wake(119.0)
    assert states(driver) == [("model", "half_open", canary.issue.identifier)]
    driver.wake_when_due()

    assert states(driver) == []
    assert "breaker is closed" in driver.notes()
    assert len(answer_retries(driver, names)) == 4
    # What it does later is one failure like any other.
    driver.end(canary, FAILED, **OVERLOADED)
    assert states(driver) == []


def test_a_canary_is_tried_for_twice_as_long_as_the_slowest_failure_took(shop):
    driver, names, specs = shop()
    for spec, seconds in zip(specs[:5], (1.0, 400.0, 2.0, 3.0, 4.0), strict=True):
        driver.end(spec, FAILED, seconds=seconds, **OVERLOADED)
    half_open_with_a_canary(driver, names)
    driver.wake(799.0)
    assert len(states(driver)) == 1
    driver.wake(1.0)
    assert states(driver) == []


def test_the_end_of_a_turn_alone_decides_where_the_trial_is_turned_off(shop):
    driver, names, specs = shop(breaker={"canary_ms": 0})
    trip(driver, specs)
    half_open_with_a_canary(driver, names)
    driver.wake(100_000.0)
    assert len(states(driver)) == 1


def test_a_canary_that_has_failed_in_its_trial_opens_the_class_again(shop):
    driver, names, specs = shop()
    trip(driver, specs)
    canary = half_open_with_a_canary(driver, names)
    driver.advance(60.0)
    driver.end(canary, FAILED, **OVERLOADED)
    assert states(driver) == [("model", "open", None)]
    driver.wake(119.0)
    assert states(driver) == [("model", "open", None)]


def test_a_chosen_canary_that_does_not_come_loses_its_place(shop, issue):
    driver, names, specs = shop()
    trip(driver, specs)
    driver.wake(20.0)
    assert answer_retries(driver, names) == []
    fresh = issue("A-99")
    driver.poll([fresh], held=names)
    order(driver, "retry", "A-99")
    driver.show(RefreshPurpose.RECONCILE, *names)
    driver.offer()
    assert answer_retries(driver, names) == []

    driver.wake(61.0)

    assert len(answer_retries(driver, names)) == 1


def test_turning_it_off_lifts_it(shop, settings):
    driver, names, specs = shop()
    trip(driver, specs)
    driver.wake(20.0)
    answer_retries(driver, names)
    driver.send(
        SettingsChanged(settings(breaker={"failures": 0}, agent={"max_concurrent_agents": 20}))
    )
    assert states(driver) == []
    assert len(answer_retries(driver, names)) == 5


def test_every_change_is_recorded_and_told_once(shop):
    driver, names, specs = shop()
    trip(driver, specs)
    records = [one.record for one in driver.history if isinstance(one, SaveBreaker)]
    assert [record.until_wall is not None for record in records] == [False] * 4 + [True]
    assert len(records[-1].failures) == 5
    assert records[-1].until_wall == driver.wall + COOLDOWN_S
    driver.wake(COOLDOWN_S)
    (canary,) = answer_retries(driver, names)
    driver.end(canary)
    told = [
        one.message
        for one in driver.history
        if isinstance(one, Note) and one.message.startswith("breaker")
    ]
    assert told == [
        "breaker is open: nothing starts",
        "breaker is half-open: one issue is tried",
        "breaker is closed",
    ]


def opened(driver, *, left_s=300.0, cooldown_s=COOLDOWN_S):
    return BreakerRecord(
        failure_class=FailureClass.MODEL,
        failures=(Failure("id-A-1", 0.0, driver.wall - 60), Failure("id-A-2", 0.0, driver.wall)),
        count=2,
        issues=2,
        since_wall=driver.wall - 300,
        until_wall=driver.wall + left_s,
        cooldown_s=cooldown_s,
    )


def test_a_restart_keeps_it_open_for_the_rest_of_its_time(drive, issue):
    driver = drive(breaker={"failures": 2})
    one = issue("A-1")
    claim = RestoredClaim("retry", one, 1, RetryKind.FAILURE, "overloaded")
    driver.send(Restored(claims=(claim,), breakers=(opened(driver),)))

    assert answer_retries(driver, [one]) == []
    assert states(driver) == [("model", "open", None)]
    driver.wake(299.0)
    assert answer_retries(driver, [one]) == []
    driver.wake(1.0)
    (canary,) = answer_retries(driver, [one])
    driver.end(canary, FAILED, **OVERLOADED)
    (row,) = snapshot(driver).breakers
    assert row.until_wall == pytest.approx(driver.wall + 2 * COOLDOWN_S)


def test_a_clock_that_was_set_back_does_not_lengthen_it(drive):
    driver = drive()
    driver.send(Restored(breakers=(opened(driver, left_s=86_400.0),)))
    (row,) = snapshot(driver).breakers
    assert row.until_wall == driver.wall + COOLDOWN_S


def test_a_restart_keeps_the_count(drive, issue):
    driver = drive(breaker={"failures": 2})
    record = BreakerRecord(
        failure_class=FailureClass.MODEL,
        failures=(Failure("id-A-1", 0.0, driver.wall - 3_000),),
    )
    driver.send(Restored(breakers=(record,)))
    driver.offer(issue("A-2"))
    (spec,) = driver.confirm(issue("A-2"))
    driver.end(spec, FAILED, **OVERLOADED)
    assert states(driver) == [("model", "open", None)]


def test_a_start_with_the_breaker_off_forgets_what_was_recorded(drive):
    driver = drive(breaker={"failures": 0})
    driver.send(Restored(breakers=(opened(driver),)))
    assert states(driver) == []
    assert driver.of(DropBreaker) == [DropBreaker(FailureClass.MODEL)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"category": "turn_failed", "code": "unauthorized"}, "unauthorized"),
        ({"category": "turn_failed", "code": "server_overloaded"}, "model"),
        ({"category": "turn_failed", "code": "responseStreamConnectionFailed"}, "model"),
        ({"category": "turn_failed", "code": "badRequest"}, "request"),
        ({"category": "turn_failed", "code": "sandboxError"}, "sandbox"),
        ({"category": "turn_failed", "code": "other"}, "unclear"),
        ({"category": "turn_failed"}, "unclear"),
        ({"category": "turn_failed", "code": "contextWindowExceeded"}, None),
        ({"category": "turn_failed", "code": "usageLimitExceeded"}, None),
        ({"category": "turn_failed", "code": "aCodeOfTomorrow"}, None),
        ({"category": "codex_not_found"}, "agent"),
        ({"category": "port_exit"}, "agent"),
        ({"category": "workspace_hook_timeout"}, "hook"),
        ({"category": "workspace_root_unwritable"}, "workspace"),
        ({"category": "template_render_error"}, "prompt"),
        ({"category": "issue_state_refresh_failed"}, None),
        ({"category": "budget_issue_tokens"}, None),
    ],
)
def test_a_class_is_drawn_from_code_and_category(fields, expected):
    found = failure_class(Outcome(kind=FAILED, **fields))
    assert (None if found is None else found.value) == expected


@pytest.mark.parametrize("kind", [OutcomeKind.COMPLETED, OutcomeKind.CANCELLED])
def test_what_did_not_fail_has_no_class(kind):
    assert failure_class(Outcome(kind=kind, category="port_exit")) is None


def test_every_class_has_its_sentence():
    assert all(one.sentence for one in FailureClass)


@pytest.mark.parametrize("value", [-1, "many", 1.5, True])
def test_the_number_of_failures_is_checked(value):
    with pytest.raises(ValueError, match="integer from 0"):
        Settings.model_validate({"tracker": {"kind": "memory"}, "breaker": {"failures": value}})
