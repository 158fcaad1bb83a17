"""Real sessions, spoilt: lines cut, flipped, doubled, lost, moved, and values of the wrong kind.

`make test` tries the same few spoilt sessions each time, `make test-full` new ones. What holds for
all of them: nothing inbound raises, nothing hangs, nothing is left to the loop's fault handler, and
each wait ends in a result or in one of this library's errors.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from codex_app_server import ClientInfo, CodexError, Connection, ServerRequestHandlers
from codex_app_server.protocol.rpc import Rpc, Run
from codex_app_server.protocol.turn import TurnMachine
from codex_app_server.testing import read_recording
from hypothesis import given
from hypothesis import strategies as st

DATA = Path(__file__).parent / "data"
SESSIONS = {
    path.stem.removeprefix("transcript_"): [
        entry.line.encode() for entry in read_recording(path) if entry.dir == "<"
    ]
    for path in sorted(DATA.glob("transcript_*.jsonl"))
}
VALUES: list[Any] = [None, True, -1, 0, 1.5, 2**70, "", "novel", "\x00", [], [None], {}, {"a": 1}]
positions = st.integers(0, 2**16)
spoils = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["cut", "lose", "double", "move", "flip"]), positions, positions),
        st.tuples(st.just("value"), positions, positions, st.sampled_from(VALUES)),
        st.tuples(st.just("tag"), positions, positions, st.sampled_from(["novel", "", 5, None])),
        st.tuples(st.just("junk"), positions, st.binary(max_size=40)),
    ),
    min_size=1,
    max_size=12,
)
sessions = st.sampled_from(sorted(SESSIONS))


def spoil(lines: list[bytes], how: list[tuple[Any, ...]]) -> bytes:
    """Return a session with some of its lines spoilt."""
    lines = list(lines)
    for kind, place, *rest in how:
        at = place % len(lines) if lines else 0
        match kind, rest:
            case "junk", [junk]:
                lines.insert(at, junk)
            case _ if not lines:
                pass
            case "lose", _:
                del lines[at]
            case "double", _:
                lines.insert(at, lines[at])
            case "move", [to]:
                lines.insert(to % len(lines), lines.pop(at))
            case "cut", [to]:
                lines[at] = lines[at][: to % (len(lines[at]) + 1)]
            case "flip", [to] if lines[at]:
                whole = bytearray(lines[at])
                whole[to % len(whole)] ^= 1 << (to % 8)
                lines[at] = bytes(whole)
            case (("value" | "tag"), [to, value]):
                lines[at] = replaced(lines[at], to, value, tags_only=kind == "tag")
    return b"\n".join(lines) + b"\n"


def replaced(line: bytes, to: int, value: Any, *, tags_only: bool) -> bytes:
    """Return a line with one value of its JSON replaced; tags are what tells kinds apart."""
    try:
        message = json.loads(line)
    except ValueError:
        return line
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, inner in list(items):
            if not tags_only or key in ("type", "method", "status", "kind", "id"):
                places.append((node, key))
            if isinstance(inner, dict | list):
                walk(inner)

    if not isinstance(message, dict | list):
        return line
    walk(message)
    if places:
        node, key = places[to % len(places)]
        node[key] = value
    return json.dumps(message).encode()


def look_at(value: Any, depth: int = 6) -> None:
    """Read everything of a value, as a program that shows it would; lazy parts decode here."""
    if depth and isinstance(value, msgspec.Struct):
        for name in [*value.__struct_fields__, "tag"]:
            look_at(getattr(value, name, None), depth - 1)
    elif depth and isinstance(value, list | tuple):
        for one in value:
            look_at(one, depth - 1)


@given(sessions, spoils, st.integers(1, 4000))
def test_nothing_that_a_spoilt_session_says_raises(
    name: str, how: list[tuple[Any, ...]], step: int
) -> None:
    data = spoil(SESSIONS[name], how)
    rpc = Rpc()
    for method in ("initialize", "thread/start", "turn/start"):
        rpc.request(method, {})
    machines: dict[Any, TurnMachine] = {}
    for at in range(0, len(data), step):
        for inbound in rpc.receive(data[at : at + step], 0.0):
            if not isinstance(inbound, Run):
                continue
            machine = machines.setdefault(inbound.thread_id, TurnMachine(str(inbound.thread_id)))
            if machine.turn_id is None and inbound.turn_id is not None:
                machine.feed(machine.bind(inbound.turn_id)[0])
            machine.feed(inbound.events)
            for event in inbound.events:
                look_at(event.params)
                assert isinstance(event.data, dict)
                assert repr(event)
    for machine in machines.values():
        assert machine.usage.total_tokens >= 0
        assert isinstance(machine.final_message, str | None)
        for event in machine.items:
            look_at(event.params)


class Played:
    """A transport that plays bytes in pieces, takes what it is sent, and ends."""

    def __init__(self, data: bytes, step: int) -> None:
        self._pieces = [data[at : at + step] for at in range(0, len(data), step)]
        self.sent: list[Any] = []

    async def send(self, data: bytes) -> None:
        self.sent += map(json.loads, data.splitlines())

    async def receive(self) -> bytes:
        arrived = asyncio.Event()  # a piece is an event of the loop: others have their turn first
        asyncio.get_running_loop().call_soon(arrived.set)
        await arrived.wait()
        return self._pieces.pop(0) if self._pieces else b""

    async def aclose(self) -> None:
        self._pieces.clear()


async def play(data: bytes, step: int) -> list[dict[str, Any]]:
    """Run a whole client over a spoilt session; return what the loop's fault handler was told."""
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    handlers = ServerRequestHandlers(command="accept", file_change="accept", timeout_s=5)
    events: list[Any] = []
    said: list[str] = []
    async with asyncio.timeout(20):
        try:
            transport = Played(data, step)
            async with await Connection.open(
                transport, ClientInfo("fuzz", "1"), handlers=handlers, on_events=events.extend
            ) as connection:
                thread = await connection.start_thread(cwd="/workspace")
                turn = thread.run("hello")
                async for event in turn:
                    look_at(event.params)
                result = await turn
                assert isinstance(result.final_message, str | None)
        except CodexError as error:
            said.append(str(error))
    assert "" not in said
    return faults


@pytest.mark.timeout(300)
@given(sessions, spoils, st.integers(64, 8000))
def test_a_client_in_a_spoilt_session_ends_with_a_result_or_an_error_of_ours(
    name: str, how: list[tuple[Any, ...]], step: int
) -> None:
    assert asyncio.run(play(spoil(SESSIONS[name], how), step)) == []


@pytest.mark.parametrize("name", sorted(SESSIONS))
def test_the_whole_sessions_play_without_a_fault(name: str) -> None:
    """So that the spoilt ones begin where something happens."""
    assert asyncio.run(play(spoil(SESSIONS[name], [])[:-1], 500)) == []
