"""Sessions of real binaries, recorded and scrubbed, played again through the whole client."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from codex_app_server import (
    ClientInfo,
    CodexError,
    Connection,
    Event,
    InvalidParams,
    RequestOutcome,
    ServerRequestHandlers,
    ServerRequestRecord,
    TurnFailed,
    TurnInterrupted,
    TurnResult,
    TurnTimeouts,
    UnknownNotification,
)
from codex_app_server.protocol import types
from codex_app_server.protocol.rpc import Rpc, Run
from codex_app_server.testing import ReplayTransport, read_recording

DATA = Path(__file__).parent / "data"
VERSIONS = ["0.125.0", "0.163.0", "0.169.0"]


class Replay:
    """What came of a played session."""

    def __init__(self, version: str, name: str) -> None:
        self.transport = ReplayTransport(DATA / f"transcript_{version}_{name}.jsonl")
        self.events: list[Event] = []
        self.records: list[ServerRequestRecord] = []
        self.result: TurnResult | None = None
        self.error: CodexError | None = None

    async def play(self, *, interrupt: bool = False, **policies: Any) -> None:
        handlers = ServerRequestHandlers(on_answered=self.records.append, **policies)
        async with await Connection.open(
            self.transport,
            ClientInfo("test", "1"),
            on_events=self.events.extend,
            handlers=handlers,
            request_timeout_s=5,
        ) as connection:
            thread = await connection.start_thread(cwd="/elsewhere")
            running = thread.run("another prompt", timeouts=TurnTimeouts(idle_s=5))
            async for event in running:
                if (
                    interrupt
                    and event.method == "item/started"
                    and b"commandExecution" in event.raw
                ):
                    await running.interrupt()
            try:
                self.result = await running
            except CodexError as error:
                self.error = error


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_completed_turn_has_its_items_and_message(version: str) -> None:
    replay = Replay(version, "completed")
    await replay.play()
    assert replay.result is not None
    assert replay.result.final_message == "All done."
    kinds = [item.tag for item in replay.result.items]
    assert kinds == ["userMessage", "reasoning", "commandExecution", "fileChange", "agentMessage"]
    assert replay.result.usage.total_tokens == 3 * 1280
    assert replay.transport.unexpected == []
    odd = [e for e in replay.events if isinstance(e.params, InvalidParams | UnknownNotification)]
    assert odd == []


@pytest.mark.parametrize("version", VERSIONS)
async def test_approvals_are_answered_as_they_were(version: str) -> None:
    replay = Replay(version, "approvals")
    await replay.play(command="accept")
    assert replay.result is not None
    assert replay.result.final_message == "ok"
    assert [record.request.id for record in replay.records] == [0, 1]
    assert [record.outcome for record in replay.records] == [RequestOutcome.ANSWERED] * 2
    answers = [record.answer for record in replay.records]
    assert answers == [{"decision": "accept"}, {"decision": "decline"}]


@pytest.mark.parametrize("version", VERSIONS)
async def test_failed_and_interrupted_turns_end_so(version: str) -> None:
    failed = Replay(version, "failed")
    await failed.play()
    assert isinstance(failed.error, TurnFailed)
    assert "the scripted model fails here" in str(failed.error)
    interrupted = Replay(version, "interrupted")
    await interrupted.play(interrupt=True)
    assert isinstance(interrupted.error, TurnInterrupted)
    assert interrupted.transport.unexpected == []


@pytest.mark.parametrize("version", VERSIONS)
def test_every_line_of_a_recorded_server_is_of_a_type_we_know(version: str) -> None:
    """Notifications, requests and answers of each version, by the types of the newest schema."""
    counts: Counter[str] = Counter()
    for path in sorted(DATA.glob(f"transcript_{version}_*.jsonl")):
        asked: dict[Any, str] = {}
        for entry in read_recording(path):
            message = json.loads(entry.line)
            method = message.get("method")
            if entry.dir == ">":
                if method is not None and "id" in message:
                    asked[message["id"]] = method
            elif method is None and "result" in message:
                kind = types.CLIENT_REQUESTS[asked[message["id"]]].response
                msgspec.json.decode(msgspec.json.encode(message["result"]), type=kind)
                counts["answers"] += 1
            elif method is not None and "id" in message:
                kind = types.SERVER_REQUESTS[method]
                msgspec.json.decode(msgspec.json.encode(message["params"]), type=kind)
                counts["requests"] += 1
            elif method is not None:
                (run,) = Rpc().receive(entry.line.encode() + b"\n", 0.0)
                assert isinstance(run, Run)
                odd = isinstance(run.events[0].params, InvalidParams | UnknownNotification)
                assert not odd, entry.line
                counts["notifications"] += 1
    assert counts["answers"] >= 12
    assert counts["requests"] >= 2
    assert counts["notifications"] > 50


@pytest.mark.parametrize(
    "path", sorted(DATA.glob("transcript_*.jsonl")), ids=lambda path: path.stem
)
def test_nothing_of_a_machine_is_in_a_transcript(path: Path) -> None:
    text = path.read_text()
    for word in ("/root", "/tmp/", ".cache", "ghp_", "sk-"):
        assert word not in text
