"""The queue between the reader and a consumer that lags: what it holds, and what it never loses."""

import json
from collections.abc import Iterator

import pytest
from codex_app_server.events import Event
from codex_app_server.protocol.rpc import Rpc, Run
from codex_app_server.sink import DEFAULT_LIMIT, MERGED_EVENT_BYTES, MERGED_TEXT_BYTES, Sink

BATCH = 500


def _batches(deltas: int, text: str = "word {} ") -> Iterator[list[Event]]:
    """Deltas of one item as the reader hands them over."""
    rpc = Rpc()
    for first in range(0, deltas, BATCH):
        lines = (
            {
                "method": "item/agentMessage/delta",
                "params": {"threadId": "t", "turnId": "u", "itemId": "i", "delta": text.format(n)},
            }
            for n in range(first, min(first + BATCH, deltas))
        )
        for run in rpc.receive(b"".join(json.dumps(line).encode() + b"\n" for line in lines), 0.0):
            assert isinstance(run, Run)
            yield run.events


def _drain(sink: Sink) -> list[Event]:
    return [sink.pop() for _ in range(len(sink.events))]


@pytest.mark.parametrize("policy", ["coalesce", "drop_deltas"])
def test_what_nobody_reads_stays_at_its_bound(policy: str) -> None:
    sink = Sink(policy)  # type: ignore[arg-type] # a parameter of the test
    for batch in _batches(100_000):
        sink.push(batch, may_block=True)
        # Some more than the limit: a long text is merged into several events.
        assert len(sink.events) <= DEFAULT_LIMIT + MERGED_TEXT_BYTES // MERGED_EVENT_BYTES
    events = _drain(sink)
    assert sum(event.merged for event in events) + sink.dropped == 100_000
    if policy == "coalesce":
        assert sink.dropped == 0
        text = "".join(event.params.delta for event in events)
        assert text == "".join(f"word {n} " for n in range(100_000))


def test_an_iterator_that_lags_asks_the_reader_to_stop_before_the_queue_has_grown() -> None:
    sink = Sink("block", 1000)
    pushed = 0
    for batch in _batches(200_000):
        if sink.wants_pause:
            break
        sink.push(batch, may_block=True)
        pushed += len(batch)
    assert 1000 < pushed <= 1000 + BATCH
    assert len(_drain(sink)) == pushed
    assert not sink.wants_pause


def test_merged_text_has_a_bound_over_which_deltas_are_dropped_and_counted() -> None:
    sink = Sink("coalesce", 10)
    for batch in _batches(3000, "ä" * 1000):
        sink.push(batch, may_block=True)
    events = _drain(sink)
    merged = [event for event in events if event.merged > 1]
    text = "".join(event.params.delta for event in merged)
    assert len(text.encode()) <= MERGED_TEXT_BYTES
    assert sink.dropped == 3000 - sum(event.merged for event in events)
    assert sink.dropped > 0
    # What has been read makes room again.
    for batch in _batches(20):
        sink.push(batch, may_block=True)
    assert sum(event.merged for event in _drain(sink)) == 20


def test_no_merged_event_is_much_longer_than_a_piece() -> None:
    sink = Sink("coalesce", 1)
    for batch in _batches(1200, "x" * 1000):
        sink.push(batch, may_block=True)
    sizes = [len(event.params.delta) for event in _drain(sink)]
    assert sum(sizes) == 1_200_000
    assert max(sizes) <= MERGED_EVENT_BYTES + 1000
