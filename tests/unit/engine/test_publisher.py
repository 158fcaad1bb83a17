"""Faults of ours in what is shown must not end what it shows."""

from __future__ import annotations

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
