"""A run ends soon also where its app-server is deaf; time is virtual, and what is waited counts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from codex_app_server import TurnInterrupted
from codex_app_server.testing import Notify, Result, ScriptedTransport, Silence

from symphony.config.settings import Settings
from symphony.hosts.base import ExitStatus, ProcessIdentity
from symphony.model.clock import Instant
from symphony.model.issue import Issue, IssueId
from symphony.model.run import RunId, RunProgress, RunSpec
from symphony.runner.ending import HASTY_GRACE_S, INTERRUPT_S, STOP_GRACE_S
from symphony.runner.models import Choice
from symphony.runner.narrator import Narrator
from symphony.runner.requests import RequestPolicy
from symphony.runner.session import Session
from symphony.trackers.memory import MemoryTracker

ISSUE = Issue(id=IssueId("1"), identifier="A-1", title="one", state="Todo", dispatchable=True)
SPEC = RunSpec(run_id=RunId("r"), issue=ISSUE, attempt=None, retry_kind=None)
OPEN_TURN = {"turn": {"id": "turn-1", "status": "inProgress"}}


class StubbornProcess:
    """A process that ignores everything but KILL, which comes at the end of the grace."""

    def __init__(self) -> None:
        self.transport = ScriptedTransport()
        self.identity = ProcessIdentity(pid=1, start_ticks=1, boot_id="b")

    def stderr_tail(self) -> str:
        return ""

    async def wait(self) -> ExitStatus:
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    async def stop(self, grace_s: float) -> ExitStatus:
        loop = asyncio.get_running_loop()
        killed = loop.create_future()
        loop.call_later(grace_s, killed.set_result, ExitStatus(signal=9))
        status: ExitStatus = await killed
        return status


class Bench:
    """A session in memory whose turn runs."""

    def __init__(self, tmp_path: Path) -> None:
        self.process = StubbornProcess()
        self.server = self.process.transport
        self.server.on("turn/start", Result(OPEN_TURN))
        progress = RunProgress(
            run_id=SPEC.run_id,
            issue=ISSUE,
            attempt=None,
            host="local",
            started_mono=0.0,
            started_wall=0.0,
            last_activity_mono=0.0,
        )
        self.narrator = Narrator(
            progress,
            clock=lambda: Instant(0.0, 0.0),
            history=lambda name, _: None,
            rate_limits=lambda _: None,
        )
        self.session = Session(
            process=self.process,
            requests=RequestPolicy("never", self.narrator),
            spec=SPEC,
            workspace=str(tmp_path),
            settings=Settings.model_validate({"tracker": {"kind": "memory"}}),
            temp_dir=tmp_path / "temp",
            environ={},
        )

    async def begin(self) -> Any:
        await self.session.connect(self.narrator)
        await self.session.open(
            tracker=MemoryTracker([ISSUE]), narrator=self.narrator, issue=lambda: ISSUE
        )
        turn = self.session.turn("Go", Choice(), idle_s=3600.0)
        return await turn.start()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.looptime
async def test_a_stop_waits_a_moment_for_a_deaf_agent_and_then_ends_its_process(
    bench: Bench,
) -> None:
    bench.server.on("turn/interrupt", Silence())
    turn = await bench.begin()
    working = asyncio.create_task(turn.result())
    await asyncio.wait([working], timeout=100.0)
    began = now()

    working.cancel()
    await asyncio.wait([working])

    assert working.cancelled()
    assert bench.session.turn_runs
    assert now() - began == pytest.approx(INTERRUPT_S)
    await bench.session.close(HASTY_GRACE_S)
    assert now() - began == pytest.approx(INTERRUPT_S + HASTY_GRACE_S)
    assert not bench.session.turn_runs


def test_a_stop_takes_three_seconds_at_most() -> None:
    assert INTERRUPT_S + HASTY_GRACE_S <= 3.0
    assert HASTY_GRACE_S < STOP_GRACE_S


@pytest.mark.looptime
async def test_an_agent_that_obeys_is_not_waited_for(bench: Bench) -> None:
    ended = {"threadId": "thread-1", "turn": {"id": "turn-1", "status": "interrupted"}}
    bench.server.on("turn/interrupt", Result({}), Notify("turn/completed", ended))
    turn = await bench.begin()
    began = now()

    await bench.session.endable(turn).interrupt()

    assert now() == pytest.approx(began)
    assert not bench.server.is_closed
    with pytest.raises(TurnInterrupted):
        await turn


@pytest.mark.looptime
@pytest.mark.parametrize("answer", [Silence(), Result({})])
async def test_a_turn_that_goes_on_after_its_interrupt_loses_its_connection(
    bench: Bench, answer: Any
) -> None:
    bench.server.on("turn/interrupt", answer)
    turn = await bench.begin()
    began = now()

    await bench.session.endable(turn).interrupt()

    assert now() - began == pytest.approx(INTERRUPT_S)
    assert turn.done
    assert bench.server.is_closed
