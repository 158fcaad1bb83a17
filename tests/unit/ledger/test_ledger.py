import sqlite3
import stat

import pytest

from symphony.errors import LedgerError
from symphony.hosts.base import ProcessIdentity
from symphony.ledger import EventRow
from symphony.ledger.decisions import bind
from symphony.ledger.writer import Part
from symphony.model.question import Ask, Decision, Option, Question, QuestionKind, Reply
from symphony.model.run import Outcome, OutcomeKind, RetryKind, StopReason
from symphony.model.usage import TokenUsage
from symphony.scheduler.commands import (
    DropClaim,
    DropPark,
    SaveClaim,
    SaveEnd,
    SavePark,
    SaveStop,
)
from symphony.scheduler.events import Restored, RestoredPark, RunEnded, Seen

USED = TokenUsage(100, 20, 120, 50, 5)


def retry_of(issue, **changes):
    fields = {
        "kind": "retry",
        "issue": issue,
        "attempt": 3,
        "retry_kind": RetryKind.FAILURE,
        "error": "turn failed",
        "thread_id": "thread-1",
        "workspace_path": "/w/ABC-1",
    }
    return SaveClaim(**(fields | changes))


async def test_a_new_ledger_restores_nothing_and_has_no_notice(ledger, path):
    contents = await ledger.load()
    assert contents.restored == Restored((), TokenUsage(), 0.0)
    assert contents.open_runs == ()
    assert ledger.notice is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_running_claim_is_restored_with_its_issue_exactly(
    open_ledger, ledger, make_spec, clock
):
    spec = make_spec(attempt=2, retry_kind=RetryKind.CONTINUATION, previous_error="before")
    await ledger.run_started(spec, started_wall=clock.wall)
    await ledger.run_workspace(spec.run_id, "/w/ABC-1")
    await ledger.run_thread(spec.run_id, "thread-9")
    [claim] = (await (await open_ledger()).load()).restored.claims
    assert claim.kind == "running"
    assert claim.issue == spec.issue
    assert (claim.attempt, claim.retry_kind) == (2, RetryKind.CONTINUATION)
    assert (claim.thread_id, claim.workspace_path) == ("thread-9", "/w/ABC-1")
    assert (claim.error, claim.since_wall, claim.host) == ("before", clock.wall, "local")


async def test_a_retry_is_restored_with_the_delay_that_remains(ledger, make_issue, clock):
    await ledger.save(retry_of(make_issue(), due_wall=clock.wall + 40))
    clock.wall += 15
    [claim] = (await ledger.load()).restored.claims
    assert claim.kind == "retry"
    assert claim.issue == make_issue()
    assert claim.delay_s == 25
    assert (claim.attempt, claim.retry_kind, claim.error) == (3, RetryKind.FAILURE, "turn failed")
    assert (claim.thread_id, claim.workspace_path) == ("thread-1", "/w/ABC-1")


async def test_failures_in_a_row_are_restored_apart_from_the_attempt(
    ledger, make_spec, make_issue, clock
):
    await ledger.run_started(make_spec(attempt=1, failures=0), started_wall=clock.wall)
    await ledger.save(retry_of(make_issue(2), attempt=1, failures=4))
    claims = (await ledger.load()).restored.claims
    assert {claim.issue.id: (claim.attempt, claim.failures) for claim in claims} == {
        "id-1": (1, 0),
        "id-2": (1, 4),
    }


async def test_an_overdue_retry_is_due_at_once(ledger, make_issue, clock):
    await ledger.save(retry_of(make_issue(), due_wall=clock.wall + 40))
    clock.wall += 1000
    assert (await ledger.load()).restored.claims[0].delay_s == 0


async def test_a_wall_clock_that_was_set_back_lengthens_no_delay(ledger, make_issue, clock):
    await ledger.save(retry_of(make_issue(), due_wall=clock.wall + 40))
    clock.wall -= 86400
    assert (await ledger.load()).restored.claims[0].delay_s == 40


async def test_a_block_keeps_its_reason_and_its_time(ledger, make_issue, clock):
    await ledger.save(
        retry_of(
            make_issue(),
            kind="blocked",
            blocked_category="turn_input_required",
            since_wall=clock.wall - 9,
        )
    )
    [claim] = (await ledger.load()).restored.claims
    assert (claim.kind, claim.blocked_category) == ("blocked", "turn_input_required")
    assert claim.since_wall == clock.wall - 9
    assert claim.delay_s is None


async def test_an_issue_has_one_claim_and_the_last_write_counts(
    ledger, make_spec, make_issue, clock
):
    await ledger.run_started(make_spec("run-1"), started_wall=clock.wall)
    await ledger.save(retry_of(make_issue(), due_wall=clock.wall + 1))
    assert [claim.kind for claim in (await ledger.load()).restored.claims] == ["retry"]
    await ledger.run_started(make_spec("run-2"), started_wall=clock.wall + 1)
    assert [claim.kind for claim in (await ledger.load()).restored.claims] == ["running"]
    await ledger.save(DropClaim(make_issue().id))
    await ledger.save(DropClaim(make_issue().id))
    assert (await ledger.load()).restored.claims == ()


async def test_a_run_that_ended_is_not_open_but_its_claim_waits_for_the_scheduler(
    ledger, make_spec, clock
):
    spec = make_spec()
    await ledger.run_started(spec, started_wall=clock.wall)
    failed = Outcome(kind=OutcomeKind.FAILED, category="turn_failed", message="boom")
    await ledger.run_ended(spec.run_id, failed, USED, 12.5, ended_wall=clock.wall + 12.5)
    contents = await ledger.load()
    assert contents.open_runs == ()
    assert [(claim.kind, claim.error) for claim in contents.restored.claims] == [
        ("running", "boom")
    ]


async def test_open_runs_name_their_processes_for_the_sweep(ledger, make_spec, clock):
    spec = make_spec()
    hook, agent = ProcessIdentity(10, 500, "boot"), ProcessIdentity(11, 400, "boot")
    await ledger.run_started(spec, started_wall=clock.wall)
    await ledger.run_process(spec.run_id, hook)
    clock.wall += 1
    await ledger.run_process(spec.run_id, agent)
    await ledger.run_process(spec.run_id, agent)
    await ledger.run_workspace(spec.run_id, "/w/ABC-1")
    [run] = (await ledger.load()).open_runs
    assert run.processes == (hook, agent)
    assert run.process == agent
    assert (run.run_id, run.issue_identifier) == ("run-1", "ABC-1")
    assert run.workspace_path == "/w/ABC-1"


async def test_a_run_without_a_process_is_open_too(ledger, make_spec, clock):
    await ledger.run_started(make_spec(), started_wall=clock.wall)
    [run] = (await ledger.load()).open_runs
    assert run.process is None


async def test_a_later_run_of_an_issue_supersedes_one_that_has_no_end(ledger, make_spec, clock):
    await ledger.run_started(make_spec("run-1"), started_wall=clock.wall)
    await ledger.run_started(make_spec("run-2"), started_wall=clock.wall + 1)
    assert [run.run_id for run in (await ledger.load()).open_runs] == ["run-2"]
    [_, first] = await ledger.runs("ABC-1")
    assert first.outcome.category == "superseded"


async def test_totals_outlive_the_daemon_and_count_nothing_twice(
    open_ledger, ledger, make_spec, clock
):
    spec = make_spec()
    await ledger.run_started(spec, started_wall=clock.wall)
    await ledger.turn_started(spec.run_id, turn_id="t1", thread_id="th", number=1, wall=clock.wall)
    half = TokenUsage(40, 10, 50, 0, 0)
    await ledger.turn_ended(
        spec.run_id, turn_id="t1", status="completed", wall=clock.wall + 5, usage=half
    )
    contents = await ledger.load()
    assert (contents.restored.usage, contents.restored.seconds) == (half, 5)
    done = Outcome(kind=OutcomeKind.COMPLETED)
    for _ in range(2):
        await ledger.run_ended(spec.run_id, done, USED, 8.0, ended_wall=clock.wall + 8)
    restored = (await (await open_ledger()).load()).restored
    assert (restored.usage, restored.seconds) == (USED, 8.0)


async def test_a_run_of_a_dead_daemon_is_closed_with_what_it_was_known_to_use(
    ledger, make_spec, clock
):
    spec = make_spec()
    await ledger.run_started(spec, started_wall=clock.wall)
    await ledger.turn_started(
        spec.run_id, turn_id="t1", thread_id="th", number=1, wall=clock.wall + 7
    )
    lost = Outcome(kind=OutcomeKind.INTERRUPTED, message="the daemon died")
    await ledger.run_ended(spec.run_id, lost, ended_wall=clock.wall + 5000)
    [run] = await ledger.runs("ABC-1")
    assert (run.seconds, run.ended_wall) == (7, clock.wall + 5000)
    assert (await ledger.load()).restored.seconds == 7


async def test_the_history_of_an_issue_tells_its_runs_newest_first(ledger, make_spec, clock):
    first, second = make_spec("run-1"), make_spec("run-2", attempt=1)
    await ledger.run_started(first, started_wall=clock.wall)
    outcome = Outcome(
        kind=OutcomeKind.CANCELLED,
        category="cancelled",
        message="left",
        retryable=False,
        retry_at=clock.wall + 99,
        stop_reason=StopReason.INACTIVE,
    )
    await ledger.run_ended(
        first.run_id, outcome, USED, 3.0, ended_wall=clock.wall + 3, thread_id="th"
    )
    await ledger.run_started(second, started_wall=clock.wall + 10)
    await ledger.turn_started("run-2", turn_id="a", thread_id="th", number=1, wall=clock.wall)
    await ledger.turn_started("run-2", turn_id="b", thread_id="th", number=2, wall=clock.wall)
    await ledger.run_started(make_spec("other", 2), started_wall=clock.wall)
    newest, oldest = await ledger.runs("ABC-1")
    assert (newest.run_id, newest.attempt, newest.turns) == ("run-2", 1, 2)
    assert newest.outcome is None
    assert oldest.outcome == outcome
    assert (oldest.usage, oldest.thread_id, oldest.seconds) == (USED, "th", 3.0)
    assert len(await ledger.runs()) == 3
    assert len(await ledger.runs(limit=1)) == 1


async def test_only_the_newest_events_of_a_run_are_kept_and_long_ones_are_cut(
    ledger, make_spec, clock
):
    await ledger.run_started(make_spec(), started_wall=clock.wall)
    for number in range(450):
        ledger.record_event("run-1", clock.wall + number, "item/completed", f"number {number}")
    ledger.record_event("run-1", clock.wall + 450, "turn/completed", "x" * 5000)
    await ledger.flush()
    events = await ledger.recent_events("ABC-1", 1000)
    assert len(events) == 200
    assert events[0].event == "turn/completed"
    assert len(events[0].message) == 1000
    assert events[1] == EventRow(clock.wall + 449, "item/completed", "number 449", "run-1")
    assert events[-1].message == "number 251"


async def test_events_go_on_where_an_earlier_daemon_stopped(open_ledger, make_spec, clock):
    first = await open_ledger()
    await first.run_started(make_spec(), started_wall=clock.wall)
    first.record_event("run-1", clock.wall, "a")
    await first.aclose()
    second = await open_ledger()
    second.record_event("run-1", clock.wall + 1, "orphan ended", "broken \ud800 text")
    await second.flush()
    assert [row.event for row in await second.recent_events("ABC-1")] == ["orphan ended", "a"]


async def test_each_workflow_sees_its_own_rows(open_ledger, ledger, make_spec, clock):
    other = await open_ledger("other")
    await ledger.run_started(make_spec(), started_wall=clock.wall)
    ledger.record_event("run-1", clock.wall, "a")
    await ledger.flush()
    contents = await other.load()
    assert (contents.restored, contents.open_runs) == (Restored(()), ())
    assert await other.runs() == ()
    assert await other.recent_events("ABC-1") == ()


async def test_a_claim_that_cannot_be_read_is_reported_and_the_others_are_restored(
    ledger, make_issue, path
):
    await ledger.save(retry_of(make_issue(1)))
    await ledger.save(retry_of(make_issue(2)))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE claims SET issue = '{' WHERE issue_id = 'id-1'")
    connection.close()
    contents = await ledger.load()
    assert [claim.issue.id for claim in contents.restored.claims] == ["id-2"]
    assert "ABC-1" in contents.faults[0]


async def test_pruning_forgets_old_runs_and_keeps_totals_and_current_ones(ledger, make_spec, clock):
    done = Outcome(kind=OutcomeKind.COMPLETED)
    for number, run in ((1, "old"), (2, "current"), (3, "young")):
        await ledger.run_started(make_spec(run, number), started_wall=clock.wall)
        ledger.record_event(run, clock.wall, "a")
        await ledger.run_ended(
            run, done, USED, 1.0, ended_wall=clock.wall + (100 if run == "young" else 1)
        )
    await ledger.save(DropClaim("id-1"))
    await ledger.flush()
    await ledger.prune(ended_before_wall=clock.wall + 50)
    assert {run.run_id for run in await ledger.runs()} == {"current", "young"}
    assert await ledger.recent_events("ABC-1") == ()
    assert (await ledger.load()).restored.seconds == 3.0


async def test_writing_after_the_end_is_an_error_and_events_are_counted_as_lost(
    ledger, make_issue, clock
):
    await ledger.aclose()
    with pytest.raises(LedgerError, match="closed"):
        await ledger.save(retry_of(make_issue()))
    ledger.record_event("run-1", clock.wall, "a")
    assert ledger.dropped_events == 1
    await ledger.aclose()


async def test_what_was_recorded_before_the_end_is_written(open_ledger, make_spec, clock):
    first = await open_ledger()
    await first.run_started(make_spec(), started_wall=clock.wall)
    for number in range(5000):
        first.record_event("run-1", clock.wall, f"event {number}")
    await first.aclose()
    second = await open_ledger()
    assert (await second.recent_events("ABC-1"))[0].event == "event 4999"


async def test_a_write_that_is_itself_wrong_fails_alone(ledger, make_spec, make_issue, clock):
    with pytest.raises(LedgerError) as caught:
        await ledger.save(retry_of(make_issue(1), kind="no such kind"))
    assert caught.value.category == "ledger_write_failed"
    assert ledger.degraded is None
    await ledger.save(retry_of(make_issue(2)))
    assert [claim.issue.id for claim in (await ledger.load()).restored.claims] == ["id-2"]


async def test_a_path_belongs_to_the_issue_whose_run_worked_there_last(ledger, make_spec):
    first, again = make_spec("run-1", 1), make_spec("run-2", 2)
    elsewhere = make_spec("run-3", 3, host="far")
    for wall, spec, path in (
        (10.0, first, "/root/A"),
        (20.0, again, "/root/A"),
        (30.0, elsewhere, "/root/B"),
    ):
        await ledger.run_started(spec, started_wall=wall)
        await ledger.run_workspace(spec.run_id, path)
    assert await ledger.workspace_issues() == {"/root/A": again.issue_id}


async def test_a_block_keeps_its_question_answer_and_end(open_ledger, ledger, make_issue, clock):
    ask = Ask(id="q", text="Which \ud800?", options=(Option(label="Red"),), is_secret=True)
    question = Question(kind=QuestionKind.INPUT, text="Which?", asks=(ask,), detail="d")
    reply = Reply(question=question, text="a\x00b", choices=(("q", "Red"),), at_wall=clock.wall)
    claim = retry_of(
        make_issue(),
        kind="blocked",
        blocked_category="turn_input_required",
        due_wall=clock.wall + 60,
        question=question,
        reply=reply,
        seen=Seen("todo", ("a", "b")),
    )
    await ledger.save(claim)
    clock.wall += 20
    [restored] = (await (await open_ledger()).load()).restored.claims
    assert (restored.question, restored.reply) == (question, reply)
    assert (restored.seen, restored.delay_s) == (Seen("todo", ("a", "b")), 40)


async def test_an_answer_goes_with_a_run_until_it_is_saved_without(ledger, make_spec, make_issue):
    reply = Reply(question=None, text="yes", decision=Decision.APPROVE)
    await ledger.run_started(make_spec(reply=reply), started_wall=1.0)
    assert (await ledger.load()).restored.claims[0].reply == reply
    await ledger.save(retry_of(make_issue()))
    assert (await ledger.load()).restored.claims[0].reply is None


async def test_a_stop_of_a_live_run_is_kept_until_the_next_claim(ledger, make_spec, make_issue):
    spec = make_spec()
    await ledger.run_started(spec, started_wall=1.0)
    await ledger.save(SaveStop(spec.run_id, spec.issue_id, "wrong branch"))
    [claim] = (await ledger.load()).restored.claims
    assert (claim.kind, claim.stopped) == ("running", "wrong branch")
    await ledger.save(SaveStop(spec.run_id, spec.issue_id, None))
    assert (await ledger.load()).restored.claims[0].stopped is None
    await ledger.save(SaveStop(spec.run_id, spec.issue_id, "again"))
    await ledger.run_started(make_spec("run-2"), started_wall=2.0)
    await ledger.save(SaveStop(spec.run_id, spec.issue_id, "too late"))
    assert (await ledger.load()).restored.claims[0].stopped is None


async def test_a_park_is_restored_with_the_wait_that_remains(ledger, clock):
    await ledger.save(SavePark(clock.wall + 100, "usage limit"))
    clock.wall += 30
    assert (await ledger.load()).restored.park == RestoredPark(clock.wall + 70, "usage limit", 70)
    clock.wall -= 1000
    assert (await ledger.load()).restored.park.delay_s == 100
    await ledger.save(DropPark())
    assert (await ledger.load()).restored.park is None


async def test_what_a_step_decides_is_durable_together(ledger, make_spec, make_issue, clock, path):
    spec = make_spec("run-1")
    await ledger.run_started(spec, started_wall=clock.wall)
    asked = Outcome(kind=OutcomeKind.INPUT_REQUIRED, category="turn_input_required")
    question = Question(kind=QuestionKind.INPUT, text="which?")
    ended = RunEnded(spec.run_id, asked, USED, 3.0, thread_id="th")
    blocked = retry_of(
        spec.issue, kind="blocked", blocked_category="turn_input_required", question=question
    )
    between = []
    # The first part of the write looks at what others can see by then.
    look = sqlite3.connect(path, check_same_thread=False)
    end = bind(SaveEnd(ended), workflow_id="wf", wall=clock.wall, day="2027-01-15")

    def watched(connection):
        end.operation(connection)
        between.append(look.execute("SELECT ended_wall FROM runs").fetchone())

    claim = bind(blocked, workflow_id="wf", wall=clock.wall, day="2027-01-15")
    await ledger._writer.submit_all([Part(watched), claim])
    look.close()
    assert between == [(None,)]
    contents = await ledger.load()
    assert contents.open_runs == ()
    assert contents.restored.usage == USED
    assert [(one.kind, one.question) for one in contents.restored.claims] == [("blocked", question)]


async def test_a_part_that_is_refused_leaves_the_others_of_its_step_be(ledger, make_issue):
    with pytest.raises(LedgerError):
        await ledger.save(retry_of(make_issue(1), kind="no such kind"), retry_of(make_issue(2)))
    assert ledger.degraded is None
    assert [claim.issue.id for claim in (await ledger.load()).restored.claims] == ["id-2"]
