"""What the executor leaves to be seen of a run that has just ended."""

from __future__ import annotations

import asyncio

from symphony.engine.executor import Executor
from symphony.model.clock import Instant
from symphony.model.issue import Issue, IssueId
from symphony.model.run import Outcome, OutcomeKind, RunId, RunSpec
from symphony.scheduler.commands import StartRun
from symphony.scheduler.events import RunEnded

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


async def test_the_record_of_a_run_stays_until_the_scheduler_takes_its_end():
    posted = []
    async with asyncio.TaskGroup() as tasks:
        executor = Executor(
            tasks=tasks,
            post=posted.append,
            clock=lambda: Instant(0.0, 0.0),
            tracker=lambda: None,
            workspaces=None,
            ledger=Silent(),
            make_attempt=lambda _spec, _progress: Worker(),
            progress={},
            describe=str,
        )
        executor.execute([StartRun(SPEC)])
        await executor.drained()
    assert [type(event) for event in posted] == [RunEnded]
    assert list(executor.attempts) == []
    # A snapshot of this moment still shows the run, and so must count its tokens.
    assert set(executor.progress) == {"run"}
    executor.execute([])
    assert executor.progress == {}
