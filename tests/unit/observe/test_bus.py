import asyncio
import contextlib
from itertools import pairwise

import pytest

from symphony.model.usage import TokenUsage
from symphony.observe.bus import PUBLISH_INTERVAL_S, SnapshotBus
from symphony.scheduler.snapshot import PollingRow, Snapshot


def snapshot_of(sequence):
    return Snapshot(
        sequence=sequence,
        generated_wall=0.0,
        generated_mono=0.0,
        workflow_id="wf",
        running=(),
        retrying=(),
        blocked=(),
        cleaning=(),
        usage=TokenUsage(),
        seconds_running=0.0,
        rate_limits=None,
        polling=PollingRow(checking=False, next_poll_in_s=None, interval_s=30.0),
        max_concurrent_agents=10,
        config_error=None,
        tracker_error=None,
    )


class World:
    """What a snapshot shows: builds note the time at which they were made."""

    def __init__(self):
        self.value = 0
        self.built = []

    def build(self):
        self.built.append((asyncio.get_running_loop().time(), self.value))
        return snapshot_of(self.value)


@pytest.fixture
def world():
    return World()


@pytest.fixture
def bus(world):
    return SnapshotBus(world.build)


async def pass_time(seconds):
    """Let the loop run on for that long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()


async def until(bus, sequence):
    async with asyncio.timeout(5):
        async for snapshot in bus.subscribe():
            if snapshot.sequence == sequence:
                return snapshot


class TestRequests:
    @pytest.mark.looptime
    async def test_a_storm_of_requests_makes_ten_snapshots_a_second_and_shows_the_last_state(
        self, world, bus
    ):
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() < began + 1.0:
            world.value += 1
            bus.request_publish()
            await pass_time(0.001)
        await until(bus, world.value)
        times = [at for at, _ in world.built]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert 10 <= len(times) <= 12
        assert min(gaps) >= PUBLISH_INTERVAL_S - 1e-6
        assert bus.latest.sequence == world.value

    @pytest.mark.looptime
    async def test_the_first_request_after_a_quiet_time_is_served_at_once(self, world, bus):
        loop = asyncio.get_running_loop()
        bus.request_publish()
        await until(bus, 0)
        await pass_time(10)
        world.value = 1
        asked = loop.time()
        bus.request_publish()
        await until(bus, 1)
        assert world.built[-1][0] - asked < 0.01

    @pytest.mark.looptime
    async def test_without_a_request_nothing_is_built(self, world, bus):
        bus.publish_now()
        await pass_time(100)
        assert len(world.built) == 1


async def test_requests_of_one_moment_make_one_snapshot(world, bus):
    for _ in range(100):
        bus.request_publish()
    await until(bus, 0)
    assert len(world.built) == 1


@pytest.mark.looptime
async def test_publishing_now_replaces_a_request_that_waits(world, bus):
    bus.publish_now()
    bus.request_publish()
    world.value = 1
    bus.publish_now()
    assert bus.latest.sequence == 1
    await pass_time(PUBLISH_INTERVAL_S * 1.5)
    assert len(world.built) == 2


async def test_a_snapshot_that_cannot_be_built_is_logged_and_the_next_one_is_shown(caplog):
    results = [ValueError("no view"), snapshot_of(2)]

    def build():
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    bus = SnapshotBus(build, interval_s=0.0)
    bus.publish_now()
    assert bus.latest is None
    assert "could not build a snapshot" in caplog.text
    bus.request_publish()
    assert (await until(bus, 2)).sequence == 2


async def test_a_slow_reader_skips_to_the_newest(bus):
    reader = bus.subscribe()
    bus.publish(snapshot_of(1))
    assert (await anext(reader)).sequence == 1
    for sequence in (2, 3, 4):
        bus.publish(snapshot_of(sequence))
    assert (await anext(reader)).sequence == 4
    waiting = asyncio.ensure_future(anext(reader))
    await pass_time(0)
    assert not waiting.done()
    bus.publish(snapshot_of(5))
    assert (await waiting).sequence == 5


async def test_a_reader_that_goes_away_disturbs_no_other(bus):
    leaving, staying = (asyncio.ensure_future(bus.wait_newer(None)) for _ in range(2))
    await pass_time(0)
    leaving.cancel()
    bus.publish(snapshot_of(1))
    assert (await staying).sequence == 1
    assert leaving.cancelled()


async def test_each_form_is_encoded_once_a_snapshot(bus):
    calls = []

    def encode(snapshot):
        calls.append(snapshot.sequence)
        return str(snapshot.sequence).encode()

    assert bus.encoded("json", encode) is None
    bus.publish(snapshot_of(1))
    assert [bus.encoded("json", encode) for _ in range(3)] == [b"1"] * 3
    assert bus.encoded("html", encode) == b"1"
    bus.publish(snapshot_of(2))
    assert bus.encoded("json", encode) == b"2"
    assert calls == [1, 1, 2]


async def test_closing_ends_the_readers_after_the_last_snapshot(bus):
    async def read():
        return [snapshot.sequence async for snapshot in bus.subscribe()]

    reader = asyncio.ensure_future(read())
    await pass_time(0)
    bus.publish(snapshot_of(1))
    bus.close()
    bus.publish(snapshot_of(2))
    bus.request_publish()
    assert await asyncio.wait_for(reader, 5) == [1]
    assert bus.latest.sequence == 1
