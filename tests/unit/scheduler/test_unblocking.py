"""A block is ended by an answer, by a change in the tracker, by a time or by an order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from symphony.model.question import Answer, Ask, Decision, Option, Question, QuestionKind
from symphony.model.run import OutcomeKind, RetryKind, StopReason
from symphony.scheduler.blocks import WAYS, BlockKind, Way
from symphony.scheduler.claims import Blocked, RetryQueued, Running
from symphony.scheduler.commands import (
    DropPark,
    RefreshPurpose,
    SaveClaim,
    SavePark,
    SaveStop,
)
from symphony.scheduler.events import (
    ControlAction,
    ControlRequested,
    Restored,
    RestoredClaim,
    RestoredPark,
    Seen,
    SettingsChanged,
)
from symphony.scheduler.publish import explain
from symphony.scheduler.unblocking import unanswerable

RETRY, RECONCILE = RefreshPurpose.RETRY, RefreshPurpose.RECONCILE
COLOUR = Question(
    kind=QuestionKind.INPUT,
    text="Which colour?",
    asks=(Ask(id="q1", text="Which colour?", options=(Option(label="Red"), Option(label="Blue"))),),
)
COMMAND = Question(kind=QuestionKind.COMMAND, text="run a command", detail="make", subject="d")


def order(driver, action, identifier=None, answer=None):
    return driver.send(
        ControlRequested(ControlAction(action), identifier, "why", "ann", answer=answer)
    )


def block(driver, issue, *, question=COLOUR, kind=OutcomeKind.INPUT_REQUIRED, **fields):
    """Start the issue and let its agent ask."""
    (spec,) = driver.start(issue)
    driver.end(spec, kind, question=question, message="Which?", thread_id="t", **fields)
    return spec


def look(driver, issue):
    """One poll that shows the issue."""
    driver.poll([issue], held=[issue])
    return driver.claim(issue)


def test_an_answer_lets_the_issue_run_at_once_on_its_thread_with_the_answer(drive, issue):
    driver = drive()
    one = issue("A-1")
    block(driver, one)

    order(driver, "answer", "A-1", Answer(text="As the fence", options=("Blue",)))

    (saved,) = driver.of(SaveClaim)
    assert (saved.kind, saved.retry_kind) == ("retry", RetryKind.UNBLOCKED)
    driver.wake()
    driver.show(RETRY, one)
    (spec,) = driver.started()
    assert spec.thread_id == "t"
    assert spec.retry_kind is RetryKind.UNBLOCKED
    assert spec.reply == saved.reply
    assert (spec.reply.question, spec.reply.text) == (COLOUR, "As the fence")
    assert (spec.reply.choices, spec.reply.by) == ((("q1", "Blue"),), "ann")


def test_an_answer_goes_with_failures_and_restarts_until_a_run_has_completed(drive, issue):
    driver = drive()
    one = issue("A-1")
    block(driver, one)
    order(driver, "answer", "A-1", Answer(text="red"))
    driver.wake()
    driver.show(RETRY, one)
    (spec,) = driver.started()
    driver.end(spec, OutcomeKind.FAILED, message="no")
    assert driver.retry(one).reply.text == "red"
    (saved,) = driver.of(SaveClaim)
    assert saved.reply.text == "red"

    again = drive(seed=9)
    left = RestoredClaim("running", one, None, None, None, reply=saved.reply)
    again.send(Restored([left]))
    again.wake()
    again.show(RETRY, one)
    (spec,) = again.started()
    assert (spec.retry_kind, spec.reply.text) == (RetryKind.RECOVERY, "red")
    again.end(spec, OutcomeKind.COMPLETED)
    assert again.retry(one).reply is None


def test_another_question_takes_the_place_of_an_answered_one(drive, issue):
    driver = drive()
    one = issue("A-1")
    block(driver, one)
    order(driver, "answer", "A-1", Answer(text="red"))
    driver.wake()
    driver.show(RETRY, one)
    (spec,) = driver.started()
    other = replace(COLOUR, text="Which shade?")
    driver.end(spec, OutcomeKind.INPUT_REQUIRED, question=other)
    claim = driver.claim(one)
    assert (claim.question, claim.reply) == (other, None)


def test_a_fault_after_an_answer_keeps_the_answer_for_the_next_run(drive, issue):
    driver = drive()
    one = issue("A-1")
    block(driver, one)
    order(driver, "answer", "A-1", Answer(text="red"))
    driver.wake()
    driver.show(RETRY, one)
    (spec,) = driver.started()
    driver.end(spec, OutcomeKind.FAILED, code="unauthorized", retryable=False)
    order(driver, "retry", "A-1")
    driver.wake()
    driver.show(RETRY, one)
    (spec,) = driver.started()
    assert spec.reply.text == "red"


@pytest.mark.parametrize(
    ("question", "kind", "said", "problem"),
    [
        (COLOUR, OutcomeKind.INPUT_REQUIRED, Answer(), "empty"),
        (COLOUR, OutcomeKind.INPUT_REQUIRED, Answer(options=("Green",)), "'Red', 'Blue'"),
        (COLOUR, OutcomeKind.INPUT_REQUIRED, Answer(options=("Red", "Blue")), "second choice"),
        (COLOUR, OutcomeKind.INPUT_REQUIRED, Answer(decision=Decision.APPROVE), "with a text"),
        (COMMAND, OutcomeKind.APPROVAL_REQUIRED, Answer(text="yes"), "--approve or --decline"),
        (None, OutcomeKind.INPUT_REQUIRED, Answer(options=("1",)), "none, so answer with a text"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused_with_what_would(
    drive, issue, question, kind, said, problem
):
    driver = drive()
    block(driver, issue("A-1"), question=question, kind=kind)
    assert problem in unanswerable(driver.state, "A-1", said)
    order(driver, "answer", "A-1", said)
    assert isinstance(driver.claim(issue("A-1")), Blocked)
    assert "answer not taken" in driver.notes()


@pytest.mark.parametrize("option", ["Blue", "2", "q1=Blue", "q1=2"])
def test_an_option_may_be_named_or_numbered(drive, issue, option):
    driver = drive()
    block(driver, issue("A-1"))
    assert unanswerable(driver.state, "A-1", Answer(options=(option,))) is None
    order(driver, "answer", "A-1", Answer(options=(option,)))
    assert driver.retry(issue("A-1")).reply.choices == (("q1", "Blue"),)


def test_several_questions_need_their_ids(drive, issue):
    driver = drive()
    second = Ask(id="q2", text="How many coats?", options=(Option(label="Two"),))
    block(driver, issue("A-1"), question=replace(COLOUR, asks=(*COLOUR.asks, second)))
    assert "'q2=Two'" in unanswerable(driver.state, "A-1", Answer(options=("Red",)))
    order(driver, "answer", "A-1", Answer(options=("q1=Red", "q2=1")))
    assert driver.retry(issue("A-1")).reply.choices == (("q1", "Red"), ("q2", "Two"))


def test_only_what_asks_can_be_answered(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    assert "not blocked" in unanswerable(driver.state, "A-1", Answer(text="x"))
    driver.end(spec, OutcomeKind.FAILED, code="unauthorized", retryable=False)
    problem = unanswerable(driver.state, "A-1", Answer(text="x"))
    assert "asked nothing (unauthorized)" in problem
    assert "symphony retry A-1" in problem
    order(driver, "answer", "A-1", Answer(text="x"))
    assert isinstance(driver.claim(one), Blocked)


@pytest.mark.parametrize("change", [{"state": "In Progress"}, {"labels": ("go",)}])
def test_a_change_by_a_person_unblocks_once(drive, issue, change):
    driver = drive()
    one = issue("A-1")
    block(driver, one)
    assert driver.state.poll.next_mono == driver.mono
    assert isinstance(look(driver, one), Blocked)
    assert isinstance(look(driver, one), Blocked)

    moved = replace(one, **change)
    claim = look(driver, moved)

    assert isinstance(claim, RetryQueued)
    driver.wake()
    driver.show(RETRY, moved)
    (spec,) = driver.started()
    assert (spec.retry_kind, spec.thread_id, spec.reply) == (RetryKind.UNBLOCKED, "t", None)
    driver.end(spec, OutcomeKind.INPUT_REQUIRED)
    assert isinstance(look(driver, moved), Blocked)
    assert isinstance(look(driver, moved), Blocked)


def test_what_the_agent_changed_before_it_asked_does_not_unblock(drive, issue):
    driver = drive()
    one = issue("A-1")
    block(driver, one)
    own = replace(one, state="In Progress", labels=("doing",))
    assert isinstance(look(driver, own), Blocked)
    assert isinstance(look(driver, own), Blocked)
    assert isinstance(look(driver, one), RetryQueued)


def test_a_read_that_was_issued_before_the_end_of_the_run_tells_nothing(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.state.poll.next_mono = driver.mono
    driver.wake()
    driver.advance(2.0)
    driver.end(spec, OutcomeKind.INPUT_REQUIRED, question=COLOUR)
    driver.show(RECONCILE, one)
    assert driver.claim(one).seen is None
    driver.offer(one)
    own = replace(one, state="In Progress")
    driver.show(RECONCILE, own)
    driver.offer(own)
    assert isinstance(driver.claim(one), Blocked)
    assert driver.claim(one).seen == Seen("in progress", ())


def test_what_a_person_changed_while_no_daemon_ran_unblocks(drive, issue):
    driver = drive()
    one = issue("A-1")
    left = RestoredClaim(
        "blocked",
        one,
        None,
        None,
        "Which?",
        thread_id="t",
        blocked_category="turn_input_required",
        question=COLOUR,
        seen=Seen("todo", ()),
    )
    driver.send(Restored([left]))
    assert driver.claim(one).question == COLOUR
    driver.show(RECONCILE, replace(one, labels=("go",)))
    assert isinstance(driver.claim(one), RetryQueued)


def test_changes_that_are_not_listed_do_not_unblock(drive, issue):
    driver = drive(agent={"unblock_on": ["state"]})
    one = issue("A-1")
    block(driver, one)
    look(driver, one)
    labelled = replace(one, labels=("go",))
    assert isinstance(look(driver, labelled), Blocked)
    assert isinstance(look(driver, replace(labelled, state="In Progress")), RetryQueued)


def test_with_no_listed_change_no_poll_is_made_for_a_block(drive, issue):
    driver = drive(agent={"unblock_on": []})
    one = issue("A-1")
    block(driver, one)
    assert driver.state.poll.next_mono > driver.mono
    look(driver, one)
    assert isinstance(look(driver, replace(one, state="In Progress")), Blocked)


def test_another_board_is_no_change_by_a_person(drive, issue, settings):
    driver = drive()
    one = issue("A-1")
    block(driver, one)
    look(driver, one)
    driver.send(SettingsChanged(settings(tracker={"provider": {"board": "two"}})))
    other = replace(one, labels=("other",))
    driver.show(RECONCILE, other)
    driver.offer(other)
    driver.confirm(other)
    assert isinstance(driver.claim(one), Blocked)
    assert isinstance(look(driver, other), Blocked)


def test_a_change_by_a_person_counts_where_the_board_was_another_for_a_while(
    drive, issue, settings
):
    driver = drive()
    one = issue("A-1")
    block(driver, one)
    look(driver, one)
    driver.send(SettingsChanged(settings(tracker={"provider": {"board": "two"}})))
    driver.send(SettingsChanged(settings()))
    driver.show(RECONCILE)
    driver.offer()
    changed = replace(one, labels=("go",))
    driver.show(RECONCILE, changed)
    claim = driver.claim(one)
    assert isinstance(claim, RetryQueued)
    assert claim.retry_kind is RetryKind.UNBLOCKED


def test_time_unblocks_where_it_is_set_and_its_end_outlives_a_restart(drive, issue):
    driver = drive(agent={"blocked_retry_ms": {"input": 60_000}})
    one = issue("A-1")
    block(driver, one)
    saved = next(command for command in driver.history if isinstance(command, SaveClaim))
    assert saved.due_wall == driver.wall + 60
    look(driver, one)
    driver.wake(59.0)
    assert isinstance(driver.claim(one), Blocked)

    again = drive(seed=9, agent={"blocked_retry_ms": {"input": 60_000}})
    left = RestoredClaim(
        "blocked", one, None, None, "?", 20.0, blocked_category="turn_input_required"
    )
    again.send(Restored([left]))
    again.show(RECONCILE, one)
    again.offer(one)
    again.wake(19.0)
    assert isinstance(again.claim(one), Blocked)
    again.wake_when_due()
    again.show(RETRY, one)
    assert [spec.retry_kind for spec in again.started()] == [RetryKind.UNBLOCKED]

    driver.wake_at(1_000.0 + 60.0)
    assert driver.has_refresh(RETRY)


def test_without_the_setting_a_block_has_no_end_of_its_own(drive, issue):
    driver = drive(agent={"blocked_retry_ms": {"fault": 60_000}})
    one = issue("A-1")
    block(driver, one)
    assert driver.claim(one).until_mono is None
    for _ in range(3):
        driver.advance(1e6)
        assert isinstance(look(driver, one), Blocked)


def test_what_an_operator_stopped_waits_for_an_operator(drive, issue):
    driver = drive(agent={"blocked_retry_ms": 1_000})
    one = issue("A-1")
    (spec,) = driver.start(one)
    order(driver, "stop", "A-1")
    driver.end(spec, OutcomeKind.CANCELLED, stop_reason=StopReason.OPERATOR)
    driver.wake(10.0)
    look(driver, one)
    assert isinstance(look(driver, replace(one, state="In Progress", labels=("go",))), Blocked)
    assert driver.claim(one).until_mono is None


def test_explain_says_how_to_go_on(drive, issue):
    driver = drive(agent={"blocked_retry_ms": 60_000, "unblock_on": ["labels"]})
    one = issue("A-1")
    block(driver, one)
    detail = next(gate.detail for gate in explain(driver.state, one) if not gate.passed)
    assert "symphony answer A-1 TEXT | --option CHOICE" in detail
    assert "change its labels in the tracker" in detail
    assert "symphony retry A-1" in detail
    assert "wait until 2026-01-01T00:01:00Z" in detail


@pytest.mark.parametrize("action", ["resume", "retry"])
def test_an_answer_to_a_stopped_issue_is_kept_and_goes_along_once_it_is_resumed(
    drive, issue, action
):
    driver = drive()
    one = issue("A-1")
    block(driver, one)
    order(driver, "stop", "A-1")
    assert unanswerable(driver.state, "A-1", Answer(text="Red")) is None
    driver.send(ControlRequested(ControlAction.ANSWER, "A-1", answer=Answer(text="Blue")))
    driver.send(ControlRequested(ControlAction.ANSWER, "A-1", answer=Answer(text="Red")))
    (saved,) = driver.of(SaveClaim)
    assert (saved.kind, saved.reply.text) == ("blocked", "Red")
    claim = driver.claim(one)
    assert (claim.category, claim.reply.text) == ("stopped_by_operator", "Red")
    assert driver.started() == []
    order(driver, action, "A-1")
    (saved,) = driver.of(SaveClaim)
    assert (saved.kind, saved.retry_kind) == ("retry", RetryKind.UNBLOCKED)
    assert saved.reply.text == "Red"


def test_the_answer_of_a_stopped_issue_outlives_a_restart(drive, issue):
    driver = drive()
    one = issue("A-1")
    block(driver, one)
    order(driver, "stop", "A-1")
    driver.send(ControlRequested(ControlAction.ANSWER, "A-1", answer=Answer(text="Red")))
    (saved,) = driver.of(SaveClaim)
    again = drive()
    left = RestoredClaim(
        saved.kind,
        saved.issue,
        saved.attempt,
        saved.retry_kind,
        saved.error,
        blocked_category=saved.blocked_category,
        question=saved.question,
        reply=saved.reply,
    )
    again.send(Restored(claims=(left,)))
    order(again, "resume", "A-1")
    assert [claim.reply.text for claim in again.of(SaveClaim)] == ["Red"]


def test_a_stopped_issue_that_asked_nothing_takes_no_answer(drive, issue):
    driver = drive()
    (spec,) = driver.start(issue("A-1"))
    order(driver, "stop", "A-1")
    driver.end(spec, OutcomeKind.CANCELLED, stop_reason=StopReason.OPERATOR)
    refused = unanswerable(driver.state, "A-1", Answer(text="Red"))
    assert "asked nothing" in refused
    assert "symphony resume A-1" in refused


def test_a_stopped_issue_that_asked_for_an_approval_takes_a_decision_only(drive, issue):
    driver = drive()
    question = Question(kind=QuestionKind.COMMAND, text="run make", detail="make")
    block(driver, issue("A-1"), question=question)
    order(driver, "stop", "A-1")
    assert "--approve" in unanswerable(driver.state, "A-1", Answer(text="yes"))
    approved = Answer(text="", decision=Decision.APPROVE)
    assert unanswerable(driver.state, "A-1", approved) is None


def test_explain_tells_that_a_stopped_issue_can_be_answered_before_it_is_resumed(drive, issue):
    driver = drive()
    one = issue("A-1")
    block(driver, one)
    order(driver, "stop", "A-1")
    detail = next(gate.detail for gate in explain(driver.state, one) if not gate.passed)
    assert "symphony resume A-1 (its question can be answered before: symphony answer" in detail


def test_a_stop_taken_back_leaves_the_question_that_its_run_has_asked(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    order(driver, "stop", "A-1")
    order(driver, "resume", "A-1")
    question = Question(kind=QuestionKind.INPUT, text="Which?")
    driver.end(spec, OutcomeKind.INPUT_REQUIRED, category="turn_input_required", question=question)
    claim = driver.claim(one)
    assert (claim.category, claim.question) == ("turn_input_required", question)


@pytest.mark.parametrize("is_secret", [True, False])
def test_a_question_for_a_secret_says_that_no_answer_may_hold_it(drive, issue, is_secret):
    driver = drive()
    one = issue("A-1")
    asks = (Ask(id="q1", text="Which key?", is_secret=is_secret),)
    block(driver, one, question=Question(kind=QuestionKind.INPUT, text="Which key?", asks=asks))
    detail = next(gate.detail for gate in explain(driver.state, one) if not gate.passed)
    assert ("don't write it here" in detail) == is_secret


def test_a_text_for_a_question_for_a_secret_is_kept_nowhere_unless_it_holds_none(drive, issue):
    driver = drive()
    one = issue("A-1")
    asks = (Ask(id="q1", text="Which key?", options=(Option(label="none"),), is_secret=True),)
    block(driver, one, question=Question(kind=QuestionKind.INPUT, text="Which key?", asks=asks))
    secret = Answer(text="hunter2")

    refused = unanswerable(driver.state, "A-1", secret)
    order(driver, "answer", "A-1", answer=secret)

    assert "with --no-secret" in refused
    assert "hunter2" not in refused + str(driver.commands)
    assert isinstance(driver.claim(one), Blocked)
    assert unanswerable(driver.state, "A-1", Answer(options=("none",))) is None
    said = Answer(text="it is in $KEY", holds_no_secret=True)
    assert unanswerable(driver.state, "A-1", said) is None
    order(driver, "answer", "A-1", answer=said)
    assert driver.retry(one).reply.text == "it is in $KEY"


def test_every_kind_of_block_has_a_way_out_that_a_person_can_take_at_once():
    assert set(WAYS) == set(BlockKind)
    assert all({Way.RETRY, Way.RESUME} & set(ways) for ways in WAYS.values())


def test_a_stop_is_durable_before_the_run_has_ended_and_outlives_a_crash(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    order(driver, "stop", "A-1")
    assert driver.of(SaveStop) == [SaveStop(spec.run_id, one.id, "why")]

    again = drive(seed=9)
    left = RestoredClaim("running", one, 2, RetryKind.FAILURE, None, thread_id="t", stopped="why")
    again.send(Restored([left]))

    claim = again.claim(one)
    assert isinstance(claim, Blocked)
    assert (claim.category, claim.error, claim.thread_id) == ("stopped_by_operator", "why", "t")
    assert [command.kind for command in again.of(SaveClaim)] == ["blocked"]
    order(again, "resume", "A-1")
    assert isinstance(again.claim(one), RetryQueued)


@pytest.mark.parametrize("action", ["resume", "retry"])
def test_a_stopped_run_that_is_resumed_before_its_end_is_followed_by_another(drive, issue, action):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    order(driver, "stop", "A-1")
    order(driver, action, "A-1")
    assert driver.of(SaveStop) == [SaveStop(spec.run_id, one.id, None)]
    assert isinstance(driver.claim(one), Running)
    order(driver, action, "A-1")
    assert driver.of(SaveStop) == []

    driver.end(spec, OutcomeKind.CANCELLED, stop_reason=StopReason.OPERATOR, thread_id="t")

    driver.wake()
    driver.show(RETRY, one)
    (again,) = driver.started()
    assert (again.thread_id, again.retry_kind) == ("t", RetryKind.RECOVERY)


def test_the_last_of_stop_and_resume_counts(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    for action in ("stop", "resume", "stop"):
        order(driver, action, "A-1")
    assert driver.of(SaveStop)[0].reason == "why"
    assert driver.stopped() == []
    driver.end(spec, OutcomeKind.CANCELLED, stop_reason=StopReason.OPERATOR)
    assert isinstance(driver.claim(one), Blocked)


def test_a_park_is_durable_and_goes_on_after_a_restart(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.end(
        spec, OutcomeKind.FAILED, code="usageLimitExceeded", retry_at=driver.wall + 100, message="x"
    )
    assert driver.of(SavePark) == [SavePark(driver.wall + 100, "x")]

    again = drive(seed=9)
    again.send(Restored(park=RestoredPark(again.wall + 40, "x", 40.0)))
    again.offer(one)
    assert again.confirm(one) == []
    assert "parked until 2026-01-01T00:00:40Z: x" in again.state.parked_reason
    again.wake_at(again.mono + 40.0)
    assert again.state.park is None
    assert again.of(DropPark) == [DropPark()]


def test_a_park_that_was_over_before_the_start_holds_nothing(drive, issue):
    driver = drive()
    driver.send(Restored(park=RestoredPark(driver.wall - 5, "x", 0.0)))
    assert driver.of(DropPark) == [DropPark()]
    driver.offer(issue("A-1"))
    assert [spec.issue.identifier for spec in driver.confirm(issue("A-1"))] == ["A-1"]


def test_an_operator_lifts_a_park_and_what_met_the_limit_runs_at_once(drive, issue):
    driver = drive()
    one = issue("A-1")
    (spec,) = driver.start(one)
    driver.end(spec, OutcomeKind.FAILED, code="usageLimitExceeded", retry_at=driver.wall + 100)

    order(driver, "unpark")

    assert driver.of(DropPark) == [DropPark()]
    assert driver.state.park is None
    driver.wake()
    driver.show(RETRY, one)
    assert [spec.issue.identifier for spec in driver.started()] == ["A-1"]
    assert order(driver, "unpark")[1:] == []


def test_rows_of_the_former_board_are_gone_with_it(drive, issue, settings):
    driver = drive(agent={"max_concurrent_agents": 1})
    one, two = issue("A-1"), issue("A-2")
    driver.start(one, two)
    assert [waiting.identifier for waiting, _ in driver.state.waiting] == ["A-2"]
    driver.send(SettingsChanged(settings(tracker={"provider": {"board": "two"}})))
    assert driver.state.waiting == ()


def test_candidates_that_the_former_board_gave_are_not_looked_at(drive, issue, settings):
    driver = drive()
    one, two = issue("A-1"), issue("A-2")
    driver.start(one)
    driver.state.poll.next_mono = driver.mono
    driver.wake()
    driver.offer(one, two)
    driver.send(SettingsChanged(settings(tracker={"provider": {"board": "two"}})))
    driver.show(RECONCILE, one)
    assert not driver.has_refresh(RefreshPurpose.DISPATCH)
    assert driver.state.waiting == ()


def test_rows_that_a_reload_concerns_are_judged_anew(drive, issue, settings):
    driver = drive(agent={"max_concurrent_agents": 1})
    one, two = issue("A-1"), issue("A-2", state="In Progress")
    driver.start(one, two)
    labelled = {"required_labels": ["agent"], "active_states": ["Todo", "In Progress"]}
    driver.send(SettingsChanged(settings(tracker=labelled)))
    ((waiting, gate),) = driver.state.waiting
    assert (waiting, gate.name.value) == (two, "required_labels")
    driver.send(SettingsChanged(settings(tracker={"active_states": ["Todo"]})))
    assert driver.state.waiting == ()
