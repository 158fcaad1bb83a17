"""Servers for the tests of your own program: no process, no network, no account.

`ScriptedTransport` follows rules, `ReplayTransport` plays a recorded session, `RecordingTransport`
makes one. Give them to `Connection.open` as any other transport::

    transport = ScriptedTransport().on_call("turn/start", agent_turn("Fixed."))
    async with await Connection.open(transport, ClientInfo("test", "1")) as connection:
        thread = await connection.start_thread()
        assert (await thread.run("Fix it")).final_message == "Fixed."

`SAMPLE_RECORDING` is a real session of Codex 0.169.0, to try a program out with: one turn that runs
a command, adds a file and says so.
"""

from pathlib import Path

from codex_app_server.recording import (
    RecordedLine,
    RecordingTransport,
    ReplayTransport,
    Scrubber,
    read_recording,
)
from codex_app_server.scripted import (
    Action,
    Ask,
    End,
    Notify,
    RawBytes,
    Refusal,
    Result,
    ScriptedTransport,
    Silence,
    Spend,
    WaitFor,
    agent_turn,
)

__all__ = [
    "SAMPLE_RECORDING",
    "Action",
    "Ask",
    "End",
    "Notify",
    "RawBytes",
    "RecordedLine",
    "RecordingTransport",
    "Refusal",
    "ReplayTransport",
    "Result",
    "ScriptedTransport",
    "Scrubber",
    "Silence",
    "Spend",
    "WaitFor",
    "agent_turn",
    "read_recording",
]

SAMPLE_RECORDING = Path(__file__).with_name("sample.jsonl")
"""The recording that comes with this package; `ReplayTransport` plays it."""
