"""What publishing costs is bounded, and faults of ours in what is shown do not end it."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from symphony.engine.publisher import Publisher
from symphony.model.issue import Issue, IssueId
from symphony.model.run import RunId, RunProgress

ISSUE = Issue(id=IssueId("1"), identifier="A-1", title="one", state="Todo", dispatchable=True)


async def durable() -> None:
    return


def test_an_event_that_can_not_be_told_is_given_up_and_the_next_snapshot_is_published():
    told, published = [], []

    def settle(message: object) -> str:
        told.append(message)
        if message == {"bad": 1}:
            raise ValueError("a fault of ours")
        return "well"

    progress = RunProgress(
        run_id=RunId("r"),
        issue=ISSUE,
        attempt=None,
        host="local",
        started_mono=0.0,
        started_wall=0.0,
        last_activity_mono=0.0,
        last_message={"bad": 1},
    )
    publisher = Publisher(
        build=lambda: progress.last_message,
        publish=published.append,
        durable=durable,
        progress={RunId("r"): progress},
        settle=settle,
    )
    publisher.publish_now()
    publisher.publish_now()
    progress.last_message = {"good": 1}
    publisher.publish_now()

    assert told == [{"bad": 1}, {"good": 1}]
    assert published == [None, "well"]


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("cost_s", "apart_s"), [(0.0, 0.1), (0.002, 0.1), (0.03, 0.6), (0.2, 1.2), (5.0, 6.0)]
)
async def test_a_snapshot_that_costs_much_is_built_less_often(cost_s: float, apart_s: float):
    loop: Any = asyncio.get_running_loop()
    built: list[float] = []
    enough = asyncio.Event()

    def build() -> None:
        built.append(loop.time())
        loop.setup_looptime(start=loop.time() + cost_s)
        publisher.request()
        if len(built) == 4:
            enough.set()

    publisher = Publisher(
        build=build, publish=lambda _: None, durable=durable, progress={}, settle=str
    )
    publisher.request()
    task = asyncio.create_task(publisher.run())
    await enough.wait()
    task.cancel()

    apart = [later - earlier for earlier, later in pairwise(built)]
    assert apart == pytest.approx([apart_s] * 3)
