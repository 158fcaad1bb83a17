"""What the executor answers, also to faults of ours, and leaves to be seen of an ended run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from symphony.engine.executor import Executor
from symphony.engine.stalls import silent_runs
from symphony.engine.trackers import TrackerSlot
from symphony.errors import TrackerError, WorkspaceError
from symphony.model.clock import Instant
from symphony.model.issue import Issue, IssueId
from symphony.model.run import Outcome, OutcomeKind, Phase, RunId, RunSpec, StopReason
from symphony.model.spend import IdleTurns, Raise, Spend
from symphony.model.usage import TokenUsage
from symphony.observe.tally import Tally
from symphony.scheduler.commands import (
    DropClaim,
    FetchCandidates,
    FinishRun,
    Level,
    Note,
    RefreshIssues,
    RefreshPurpose,
    SaveEnd,
    StartRun,
)
from symphony.scheduler.events import CandidatesFailed, CandidatesFetched, RefreshFailed, RunEnded
from symphony.trackers.memory import MemoryTracker
from symphony.workspaces.manager import Workspace

ISSUE = Issue(id=IssueId("1"), identifier="A-1", title="one", state="Todo", dispatchable=True)
SPEC = RunSpec(run_id=RunId("run"), issue=ISSUE, attempt=None, retry_kind=None)


class Silent:
    """A ledger that takes everything."""

    def __getattr__(self, _name):
        async def take(*_args, **_kwargs):
            return None

        return take


class Worker:
    """A worker that ends at once."""

    spec = SPEC

    async def run(self) -> Outcome:
        return Outcome(kind=OutcomeKind.COMPLETED)


def make_executor(tasks: asyncio.TaskGroup, post: Callable[[Any], None], **parts: Any) -> Executor:
    made = {
        "tracker": lambda: None,
        "make_attempt": lambda _spec, _progress: Worker(),
        "describe": str,
        "ledger": Silent(),
        "workspaces": None,
        **parts,
    }
    return Executor(
        tasks=tasks,
        post=post,
        clock=lambda: Instant(0.0, 0.0),
        progress={},
        **made,
    )


class Recorder(Silent):
    """A ledger that keeps what it was told together."""

    def __init__(self) -> None:
        self.saved: list[tuple[Any, ...]] = []
        self.outcomes: list[tuple[RunId, Outcome]] = []
        self.started: list[RunSpec] = []

    async def run_started(self, spec: RunSpec, **_: Any) -> None:
        self.started.append(spec)

    async def run_outcome(self, run_id: RunId, outcome: Outcome, **_: Any) -> None:
        self.outcomes.append((run_id, outcome))

    async def save(self, *commands: Any) -> None:
        self.saved.append(commands)


async def test_a_run_s_end_is_recorded_in_one_with_what_follows_from_it():
    posted, ledger = [], Recorder()
    async with asyncio.TaskGroup() as tasks:
        executor = make_executor(tasks, posted.append, ledger=ledger)
        executor.execute([StartRun(SPEC)])
        await executor.idle()
        (ended,) = posted
        assert ledger.saved == []
        follows = [SaveEnd(ended), Note(Level.INFO, "next"), DropClaim(ISSUE.id)]
        executor.execute(follows)
        await executor.drained()
    assert ledger.saved == [(SaveEnd(ended), DropClaim(ISSUE.id))]


async def test_a_run_whose_end_the_scheduler_never_takes_is_left_to_the_next_start():
    posted, ledger = [], Recorder()
    async with asyncio.TaskGroup() as tasks:
        executor = make_executor(tasks, posted.append, ledger=ledger)
        executor.execute([StartRun(SPEC)])
        await executor.drained()
    assert ledger.saved == []
    assert ledger.outcomes == [("run", posted[0].outcome)]


ENDED = RunEnded(
    RunId("run"),
    Outcome(kind=OutcomeKind.INPUT_REQUIRED, message="Which colour?"),
    usage=TokenUsage(3, 4, 7),
    seconds=50.0,
    thread_id="thread",
    workspace_path="/w/A-1",
    spend=Spend(tokens=7, micro_usd=11, wall_ms=40_000, unpriced_tokens=2),
    idle=IdleTurns(2, "mark"),
)


class Folders:
    """Workspaces of which one is there, or which fail."""

    def __init__(self, error: Exception | None = None, *, there: bool = True) -> None:
        self.done: list[tuple[str, str]] = []
        self._error = error
        self._there = there

    async def find(self, issue: Issue, path: str) -> Workspace | None:
        if self._error is not None:
            raise self._error
        return Workspace(path, issue.identifier, "/w", False) if self._there else None

    async def after_run(self, workspace: Workspace, spec: RunSpec) -> None:
        self.done.append((workspace.path, spec.run_id))


async def wound_up(folders: Folders, ended: RunEnded = ENDED) -> tuple[Any, Recorder]:
    posted, ledger = [], Recorder()
    async with asyncio.TaskGroup() as tasks:
        executor = make_executor(tasks, posted.append, ledger=ledger, workspaces=folders)
        executor.execute([FinishRun(SPEC, ended)])
        (worker,) = executor.attempts
        worker.stop(StopReason.TERMINAL)
        worker.end_after_turn()
        worker.raise_issue_limits(Raise(tokens=1))
        (record,) = executor.progress.values()
        # It is busy with what has a limit of its own, and shown as what it was.
        assert silent_runs(executor.progress, limit=1.0, now=1e9) == []
        assert (record.phase, record.usage) == (Phase.FINISHING, ended.usage)
        await executor.idle()
    (event,) = posted
    return event, ledger


async def test_a_run_of_a_dead_daemon_is_wound_up_once_and_ends_as_it_had():
    folders = Folders()
    event, ledger = await wound_up(folders)
    assert folders.done == [("/w/A-1", "run")]
    assert replace(event, last_message=None) == ENDED
    assert ledger.started == []


@pytest.mark.parametrize(
    "folders",
    [
        Folders(there=False),
        Folders(WorkspaceError("workspace_outside_root", "elsewhere")),
        Folders(ValueError("a fault of ours")),
    ],
    ids=["gone", "not its own", "a fault"],
)
async def test_what_it_meets_then_changes_nothing_of_how_it_ended(folders, caplog):
    event, _ = await wound_up(folders)
    assert event.outcome == ENDED.outcome
    assert folders.done == []
    assert "Run is not wound up" in caplog.text


async def test_a_run_that_never_had_a_workspace_just_ends():
    event, _ = await wound_up(Folders(), replace(ENDED, workspace_path=None))
    assert event.outcome == ENDED.outcome


def broken(*_: Any) -> Any:
    raise ValueError("a fault of ours")


async def test_the_record_of_a_run_stays_until_the_scheduler_takes_its_end():
    posted = []
    async with asyncio.TaskGroup() as tasks:
        executor = make_executor(tasks, posted.append)
        executor.execute([StartRun(SPEC)])
        await executor.drained()
    assert [type(event) for event in posted] == [RunEnded]
    assert list(executor.attempts) == []
    # A snapshot of this moment still shows the run, and so must count its tokens.
    assert set(executor.progress) == {"run"}
    executor.execute([])
    assert executor.progress == {}


async def test_a_run_whose_last_message_can_not_be_told_ends_all_the_same():
    posted = []
    async with asyncio.TaskGroup() as tasks:
        make_executor(tasks, posted.append, describe=broken).execute([StartRun(SPEC)])
    assert [(event.run_id, event.last_message) for event in posted] == [("run", "")]


@pytest.mark.parametrize("part", ["before_poll", "tracker"])
async def test_a_poll_that_meets_a_fault_of_ours_is_answered_and_ends_nothing(part):
    posted = []
    async with asyncio.TaskGroup() as tasks:
        executor = make_executor(tasks, posted.append, **{part: broken})
        executor.execute([FetchCandidates(cause=7, states=("Todo",))])
    assert [(type(event), event.cause) for event in posted] == [(CandidatesFailed, 7)]
    assert "a fault of ours" in posted[0].message


class Answering:
    """A tracker that answers, or fails with a category."""

    kind = "fake"

    def __init__(self, category: str | None) -> None:
        self._category = category

    async def fetch_issues_by_states(self, states: Sequence[str]) -> list[Any]:
        if self._category is not None:
            raise TrackerError(self._category, "no")
        return []


async def test_polls_are_counted_by_result_and_runs_by_outcome():
    tally = Tally()
    for category in (None, "tracker_status", None, "tracker_rate_limited"):
        async with asyncio.TaskGroup() as tasks:
            tracker = Answering(category)
            executor = make_executor(
                tasks, lambda _: None, tracker=lambda t=tracker: t, tally=tally
            )
            executor.execute([FetchCandidates(cause=7, states=("Todo",)), StartRun(SPEC)])
    assert tally.polls == {"ok": 2, "tracker_status": 1, "tracker_rate_limited": 1}
    assert tally.runs == {OutcomeKind.COMPLETED: 4}
    assert tally.polled_wall == 0.0


class Closable:
    """A tracker that only knows whether it was closed; closing may fail."""

    kind = "fake"

    def __init__(self, *, fails: bool = False) -> None:
        self.closed = False
        self._fails = fails

    async def aclose(self) -> None:
        self.closed = True
        if self._fails:
            raise OSError("gone already")


class Bound(Worker):
    """A worker that ends when told, bound to the tracker of its start."""

    def __init__(self, spec: RunSpec, tracker: Closable) -> None:
        self.spec = spec
        self.tracker = tracker
        self.told = asyncio.Event()

    async def run(self) -> Outcome:
        await self.told.wait()
        return await super().run()


async def test_a_tracker_that_can_not_be_closed_keeps_no_other_open():
    first, second = Closable(fails=True), Closable(fails=True)
    slot = TrackerSlot(first)
    slot.exchange(second)
    await slot.aclose()
    assert (first.closed, second.closed) == (True, True)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_replaced_tracker_is_closed_when_the_last_run_bound_to_it_has_ended(fails):
    first, second = Closable(fails=fails), Closable()
    slot = TrackerSlot(first)
    workers: list[Bound] = []

    def make_attempt(spec: RunSpec, _: Any) -> Bound:
        workers.append(Bound(spec, slot.current))
        return workers[-1]

    posted: asyncio.Queue[Any] = asyncio.Queue()
    async with asyncio.TaskGroup() as tasks:
        executor = make_executor(
            tasks, posted.put_nowait, make_attempt=make_attempt, retire=slot.close_unbound
        )
        executor.execute([StartRun(replace(SPEC, run_id=RunId(name))) for name in ("a", "b")])
        slot.exchange(second)
        workers[0].told.set()
        assert (await posted.get()).run_id == "a"
        assert not first.closed
        workers[1].told.set()
        await executor.drained()
    assert first.closed
    assert not second.closed


async def test_a_replaced_tracker_stays_open_until_a_read_of_it_has_ended():
    class Slow(Closable):
        def __init__(self) -> None:
            super().__init__()
            self.asked, self.go_on = asyncio.Event(), asyncio.Event()

        async def fetch_issues_by_states(self, _states):
            self.asked.set()
            await self.go_on.wait()
            assert not self.closed
            return []

    first, second = Slow(), Closable()
    slot = TrackerSlot(first)
    workers: list[Bound] = []

    def make_attempt(spec: RunSpec, _: Any) -> Bound:
        workers.append(Bound(spec, slot.current))
        return workers[-1]

    posted: asyncio.Queue[Any] = asyncio.Queue()
    async with asyncio.TaskGroup() as tasks:
        executor = make_executor(
            tasks,
            posted.put_nowait,
            tracker=lambda: slot.current,
            make_attempt=make_attempt,
            retire=slot.close_unbound,
        )
        executor.execute([StartRun(SPEC), FetchCandidates(cause=7, states=("Todo",))])
        await first.asked.wait()
        slot.exchange(second)
        workers[0].told.set()
        assert isinstance(await posted.get(), RunEnded)
        assert not first.closed
        first.go_on.set()
        assert isinstance(await posted.get(), CandidatesFetched)
    assert first.closed
    assert not second.closed


async def test_runs_of_a_former_tracker_are_left_alone_while_it_refuses():
    refused = TrackerError("tracker_status", "HTTP 401: check the token", status=401)
    one, two = (
        Issue(id=IssueId(name), identifier=name, title=name, state="Todo", dispatchable=True)
        for name in ("A", "B")
    )
    former, present = MemoryTracker([one]), MemoryTracker([two])
    in_force = [former]
    bound = Bound(replace(SPEC, issue=one), former)
    posted: asyncio.Queue[Any] = asyncio.Queue()
    refresh = RefreshIssues(
        cause=9, purpose=RefreshPurpose.RECONCILE, ids=(IssueId("A"), IssueId("B"))
    )
    async with asyncio.TaskGroup() as tasks:
        executor = make_executor(
            tasks,
            posted.put_nowait,
            tracker=lambda: in_force[-1],
            make_attempt=lambda *_: bound,
        )
        executor.execute([StartRun(bound.spec)])
        in_force.append(present)
        former.failure = refused
        executor.execute([refresh])
        answer = await posted.get()
        assert (answer.issues, answer.unread, answer.failed) == ([two], {"A"}, None)
        former.failure, present.failure = None, refused
        executor.execute([refresh])
        answer = await posted.get()
        assert (answer.issues, answer.unread) == ([one], {"B"})
        assert answer.failed.message == "HTTP 401: check the token"
        former.failure = refused
        executor.execute([refresh])
        assert isinstance(await posted.get(), RefreshFailed)
        bound.told.set()


async def test_a_shutdown_waits_for_no_tracker_that_does_not_answer():
    asked = asyncio.Event()

    class Mute:
        kind = "mute"

        async def fetch_issues_by_states(self, _states):
            asked.set()
            await asyncio.Event().wait()

    posted: list[Any] = []
    async with asyncio.TaskGroup() as tasks:
        executor = make_executor(tasks, posted.append, tracker=Mute)
        executor.execute([FetchCandidates(1, ("Todo",))])
        await asked.wait()
        await executor.drained()
    assert posted == []
    assert executor.polled.is_set()
