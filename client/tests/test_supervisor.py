"""Threads that outlive their server, over scripted servers and virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from codex_app_server import (
    Backoff,
    ClientInfo,
    CodexError,
    Connection,
    ConnectionClosed,
    InvalidArgument,
    ServerRequestHandlers,
    ServerRequestInfo,
    Supervisor,
    SupervisorEvent,
    TurnInProgress,
)
from hypothesis import given
from hypothesis import strategies as st

APPROVAL = "item/commandExecution/requestApproval"


class Fleet:
    """Scripted servers, one a start; ``faults`` are raised by the next starts."""

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.servers: list[Any] = []
        self.faults: list[Exception] = []
        self.handlers: ServerRequestHandlers | None = None
        self.prepare: Callable[[Any], None] = lambda server: None
        self.events: list[SupervisorEvent] = []
        self.starts: list[float] = []

    async def start(self) -> Connection:
        self.starts.append(asyncio.get_running_loop().time())
        if self.faults:
            raise self.faults.pop(0)
        server = self.kind()
        self.servers.append(server)
        self.prepare(server)
        return await Connection.open(server, ClientInfo("test", "1"), handlers=self.handlers)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


@pytest.fixture
async def fleet(server: Any) -> Fleet:
    return Fleet(type(server))


@pytest.fixture
async def supervise(fleet: Fleet) -> AsyncIterator[Callable[..., Supervisor]]:
    opened: list[Supervisor] = []

    def make(**options: Any) -> Supervisor:
        opened.append(
            Supervisor(fleet.start, on_event=fleet.events.append, chance=lambda: 0.0, **options)
        )
        return opened[-1]

    yield make
    for supervisor in opened:
        await supervisor.aclose()


def ends_turns(server: Any) -> None:
    server.answers["turn/start"] = lambda m: [
        server.reply(m, {"turn": {"id": server.turn_id}}),
        server.ended(),
    ]


@pytest.mark.looptime
async def test_a_thread_is_resumed_on_the_next_server_and_its_lost_turn_is_named(
    fleet: Fleet, supervise: Any
) -> None:
    supervisor = supervise()
    thread = await supervisor.start_thread(cwd="/w", sandbox="read-only")
    assert supervisor.threads == [thread]
    turn = await thread.turn("x")
    first = fleet.servers[0]
    fleet.prepare = ends_turns
    first.end()
    with pytest.raises(ConnectionClosed):
        await turn
    assert (await thread.run("y")).status == "completed"
    assert first.closed
    (resumed,) = fleet.servers[1].requests("thread/resume")
    assert resumed["params"] == {
        "threadId": first.thread_id,
        "cwd": "/w",
        "sandbox": "read-only",
        "excludeTurns": True,
    }
    assert (thread.interrupted_turn, thread.restarts) == (first.turn_id, 1)
    assert fleet.kinds() == ["started", "lost", "started", "restored"]
    assert fleet.events[-1].turn_id == first.turn_id
    assert not fleet.events[-1].still_running


@pytest.mark.looptime
async def test_a_turn_that_has_ended_is_not_called_interrupted(
    fleet: Fleet, supervise: Any, eventually: Any
) -> None:
    fleet.prepare = ends_turns
    thread = await supervise().start_thread()
    await thread.run("x")
    fleet.servers[0].end()
    await eventually(lambda: thread.restarts == 1)
    assert thread.interrupted_turn is None


@pytest.mark.looptime
async def test_a_server_that_lives_on_offers_its_request_again_once_and_keeps_its_turn(
    fleet: Fleet, supervise: Any, eventually: Any
) -> None:
    asked: list[ServerRequestInfo] = []

    async def decide(info: ServerRequestInfo) -> str:
        asked.append(info)
        return "accept"

    fleet.handlers = ServerRequestHandlers(command=decide)
    thread = await supervise().start_thread()
    turn = await thread.turn("x")
    first = fleet.servers[0]

    def replay(server: Any) -> None:
        ids = {"threadId": server.thread_id, "turnId": server.turn_id}
        request = {"method": APPROVAL, "id": 1, "params": ids}
        facts = {"id": server.thread_id, "status": {"type": "active", "activeFlags": []}}
        server.answers["thread/resume"] = lambda m: [
            request,
            server.reply(m, {"thread": facts}),
            request,
        ]

    fleet.prepare = replay
    first.end()
    with pytest.raises(ConnectionClosed):
        await turn
    await thread.live()
    second = fleet.servers[1]
    assert (await second.replied(1))["result"] == {"decision": "accept"}
    assert len(asked) == 1
    assert fleet.events[-1].still_running
    with pytest.raises(TurnInProgress):
        await thread.run("y")
    ends_turns(second)
    second.feed(second.ended())
    await eventually(lambda: not thread.thread.is_busy)
    assert (await thread.run("y")).status == "completed"


@pytest.mark.looptime
async def test_restarts_back_off_and_the_row_ends_with_a_server_that_lives(
    fleet: Fleet, supervise: Any
) -> None:
    supervisor = supervise(backoff=Backoff(first_s=1, limit_s=3, stable_s=60))
    thread = await supervisor.start_thread()
    await asyncio.wait([asyncio.ensure_future(fleet.servers[0].until(lambda: False))], timeout=100)
    fleet.faults = [CodexError("no"), OSError("no"), CodexError("no")]
    fleet.servers[0].end()
    await asyncio.wait([asyncio.ensure_future(fleet.servers[0].until(lambda: False))], timeout=1)
    await thread.live()
    pauses = [b - a for a, b in zip(fleet.starts[1:], fleet.starts[2:], strict=False)]
    assert pauses == pytest.approx([1, 2, 3], abs=0.1)
    assert fleet.kinds()[-2:] == ["started", "restored"]


@pytest.mark.looptime
async def test_a_server_that_never_comes_back_is_given_up(fleet: Fleet, supervise: Any) -> None:
    thread = await supervise(backoff=Backoff(attempts=2)).start_thread()
    fleet.faults = [CodexError("no")] * 9
    fleet.servers[0].end()
    with pytest.raises(ConnectionClosed):
        await thread.run("x")
    with pytest.raises(CodexError, match="after 3 failures in a row"):
        await thread.live()
    assert fleet.kinds()[-1] == "gave_up"


async def test_the_first_starts_fault_is_the_callers_and_the_next_one_may_succeed(
    fleet: Fleet, supervise: Any
) -> None:
    supervisor = supervise()
    fleet.faults = [CodexError("no such binary")]
    with pytest.raises(CodexError, match="no such binary"):
        await supervisor.start_thread()
    assert supervisor.threads == []
    await supervisor.start_thread()
    assert len(supervisor.threads) == 1


@pytest.mark.looptime
async def test_a_thread_without_a_turn_is_started_anew(
    fleet: Fleet, supervise: Any, eventually: Any
) -> None:
    thread = await supervise().start_thread(cwd="/w")

    def forget(server: Any) -> None:
        error = {"code": -32600, "message": "no rollout found for thread id x"}
        server.answers["thread/resume"] = lambda m: [{"id": m["id"], "error": error}]

    fleet.prepare = forget
    fleet.servers[0].end()
    await eventually(lambda: thread.restarts == 1)
    await thread.live()
    assert fleet.kinds()[-1] == "replaced"
    assert fleet.servers[1].requests("thread/start")[0]["params"] == {"cwd": "/w"}


@pytest.mark.looptime
async def test_a_thread_that_cannot_be_resumed_fails_alone(
    fleet: Fleet, supervise: Any, eventually: Any
) -> None:
    supervisor = supervise()
    thread = await supervisor.start_thread()

    def refuse(server: Any) -> None:
        error = {"code": -32600, "message": "the disk is gone"}
        server.answers["thread/resume"] = lambda m: [{"id": m["id"], "error": error}]

    fleet.prepare = refuse
    fleet.servers[0].end()
    await eventually(lambda: "thread_lost" in fleet.kinds())
    with pytest.raises(CodexError, match="the disk is gone"):
        await thread.run("x")
    assert await supervisor.start_thread()


@pytest.mark.looptime
async def test_with_a_server_each_a_crash_touches_one_thread(
    fleet: Fleet, supervise: Any, eventually: Any
) -> None:
    supervisor = supervise(mode="per_thread")
    one, two = await supervisor.start_thread(), await supervisor.start_thread()
    assert len(fleet.servers) == 2
    fleet.servers[0].end()
    await eventually(lambda: one.restarts == 1)
    assert (one.restarts, two.restarts, len(fleet.servers)) == (1, 0, 3)
    await two.aclose()
    assert fleet.servers[1].closed
    assert supervisor.threads == [one]
    with pytest.raises(ConnectionClosed):
        await two.run("x")


async def test_a_thread_that_is_left_is_not_resumed(fleet: Fleet, supervise: Any) -> None:
    supervisor = supervise()
    thread = await supervisor.start_thread()
    server = fleet.servers[0]
    server.answers["thread/unsubscribe"] = lambda m: [server.reply(m, {})]
    await thread.aclose()
    await thread.aclose()
    assert server.requests("thread/unsubscribe")
    assert supervisor.threads == []
    assert not server.closed


async def test_at_most_four_servers_start_at_once(server: Any, eventually: Any) -> None:
    under_way, most = 0, 0
    go = asyncio.Event()

    async def start() -> Connection:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await go.wait()
        under_way -= 1
        return await Connection.open(type(server)(), ClientInfo("test", "1"))

    async with Supervisor(start, mode="per_thread") as supervisor:
        starting = [asyncio.create_task(supervisor.start_thread()) for _ in range(9)]
        await eventually(lambda: most == 4)
        go.set()
        await asyncio.gather(*starting)
        assert most == 4
        assert len(supervisor.threads) == 9


async def test_a_closed_supervisor_says_so(fleet: Fleet, supervise: Any) -> None:
    supervisor = supervise()
    thread = await supervisor.start_thread()
    await supervisor.aclose()
    await supervisor.aclose()
    assert fleet.servers[0].closed
    for waiting in (thread.live(), supervisor.start_thread()):
        with pytest.raises(ConnectionClosed, match="supervisor was closed"):
            await waiting


async def test_a_callback_that_raises_is_reported(fleet: Fleet) -> None:
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, c: reported.append(c["exception"]))

    def broken(event: SupervisorEvent) -> None:
        raise RuntimeError(event.kind)

    async with Supervisor(fleet.start, on_event=broken) as supervisor:
        await supervisor.start_thread()
    assert [str(error) for error in reported] == ["started"]


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="mode='some'"):
        Supervisor(mode="some")  # type: ignore[arg-type] # what is tested


@given(st.integers(-5, 10_000), st.floats(0, 1))
def test_pauses_stay_within_their_limit(failures: int, chance: float) -> None:
    backoff = Backoff()
    pause = backoff.pause_s(failures, chance)
    assert 0 <= pause <= backoff.limit_s
    assert (pause == 0) is (failures < 1)


@pytest.mark.parametrize(
    ("member", "value", "words"),
    [("first_s", -1, "seconds"), ("limit_s", "30", "seconds"), ("attempts", 0, "a number from 1")],
)
def test_a_back_off_that_makes_no_sense_is_refused_by_name(member, value, words) -> None:
    with pytest.raises(InvalidArgument, match=f"{member}={value!r}: give {words}"):
        Backoff(**{member: value})
