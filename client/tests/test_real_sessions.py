"""Launching, sessions and tools on the real binaries. The model is scripted; no network."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from codex_app_server import (
    ApprovalNeeded,
    Codex,
    InputNeeded,
    Session,
    ToolOutput,
    TurnInterrupted,
    messages,
    run,
    run_codex,
    tool,
)
from codex_app_server.home import prepare_home, provider_config, write_config

from symphony.demo.model_server import ModelServer
from symphony.demo.script import Exec, IssueScript, Patch, Reply, Say, Script, turn
from symphony.demo.script import Tool as Call

pytestmark = pytest.mark.codex
PATCH = "*** Begin Patch\n*** Add File: made.txt\n+made\n*** End Patch\n"
FREE: dict[str, Any] = {"approval_policy": "never", "sandbox": "danger-full-access"}
Place = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
async def place(codex_binary: Path, cache_dir: Path) -> AsyncIterator[Place]:
    """Returns ``await place(A=turn(...))``: launch options for a Codex with a scripted model."""
    async with AsyncExitStack() as stack:

        async def make(**turns: Any) -> dict[str, Any]:
            issues = {name: IssueScript((one,)) for name, one in turns.items()}
            model = await stack.enter_async_context(ModelServer(Script(issues)))
            home = prepare_home(cache_dir / "codex", seed=False)
            write_config(home, provider_config(await model.start(), model="gpt-5.5"))
            (cache_dir / "home").mkdir()
            return {
                "codex_home": home,
                "env_mode": "allow",
                "allow": ["PATH"],
                "env": {"HOME": str(cache_dir / "home")},
            }

        yield make


@pytest.fixture
def workspace(cache_dir: Path) -> Path:
    path = cache_dir / "workspace"
    path.mkdir()
    return path


async def test_one_prompt_runs_with_tools_and_tells_everything(
    place: Place, workspace: Path, codex_binary: Path
) -> None:
    @tool
    async def add(first: int, second: int = 1) -> int:
        """Add two numbers.

        Args:
            first: Of them.
        """
        return first + second

    @tool
    def picture() -> ToolOutput:
        """Show a picture."""
        return ToolOutput.text("here") + ToolOutput.image(
            "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDw"
            "AChwGA60e6kgAAAABJRU5ErkJggg=="
        )

    seen: list[messages.SessionMessage] = []
    calls = (Call("add", {"first": 1, "second": 2}), Call("add", {"first": "one"}))
    options = await place(A=turn(Reply((*calls, Call("picture", {}))), Say("All done.")))
    result = await run(
        workspace,
        "Issue: A",
        command=codex_binary,
        tools=[add, picture],
        title="A-1: Add",
        on_message=seen.append,
        **FREE,
        **options,
    )
    assert result.final_message == "All done."
    events = [message.event for message in seen]
    assert events[0] == "notification" or events[0] == "session_started"
    assert events.count("tool_call_completed") == 2
    failed = [message for message in seen if isinstance(message, messages.ToolCallFailed)]
    assert "Expected `int`, got `str`" in str(failed[0].answer)
    assert events[-1] == "turn_completed"
    assert "malformed" not in events
    assert "other_message" not in events


async def test_turns_share_their_thread_and_tools_of_one_name_may_be_in_two_namespaces(
    place: Place, workspace: Path, codex_binary: Path
) -> None:
    @tool(namespace="one", namespace_description="The first.")
    async def note() -> None:
        """Take a note."""

    options = await place(A=turn(Exec("echo x >> turns.txt"), Say("ok")))
    old = (await run_codex(["--version"], codex_binary, **options)).stdout.endswith(b" 0.125.0\n")
    tools = [] if old else [note, msgspec.structs.replace(note, namespace="two")]
    async with await Session.start(
        workspace, command=codex_binary, tools=tools, **FREE, **options
    ) as session:
        first = await session.run("Issue: A", title="One")
        second = await session.run("Issue: A", title="Two")
    assert first.thread_id == second.thread_id
    assert first.turn_id != second.turn_id
    assert (workspace / "turns.txt").read_text() == "x\nx\n"


async def test_an_approval_that_nobody_gives_ends_the_turn_and_auto_approve_gives_it(
    place: Place, workspace: Path, codex_binary: Path
) -> None:
    seen: list[messages.SessionMessage] = []
    options = await place(A=turn(Patch(PATCH), Say("ok")))
    async with await Session.start(
        workspace,
        command=codex_binary,
        on_message=seen.append,
        **{**FREE, "approval_policy": "untrusted"},
        **options,
    ) as session:
        with pytest.raises(ApprovalNeeded, match="item/fileChange/requestApproval"):
            await session.run("Issue: A")
        assert not (workspace / "made.txt").exists()
        await session.run("Issue: A", auto_approve=True)
    assert (workspace / "made.txt").read_text() == "made\n"
    events = [message.event for message in seen]
    assert {"approval_required", "approval_auto_approved"} <= set(events)


async def test_a_question_that_nobody_answers_ends_the_turn(
    place: Place, workspace: Path, codex_binary: Path
) -> None:
    question = {
        "id": "q1",
        "header": "Pick",
        "question": "Which?",
        "options": [{"label": "A", "description": "a"}, {"label": "B", "description": "b"}],
    }
    options = await place(A=turn(Call("request_user_input", {"questions": [question]}), Say("ok")))
    config = {"features.default_mode_request_user_input": True}
    seen: list[messages.SessionMessage] = []
    async with await Session.start(
        workspace,
        command=codex_binary,
        config=config,
        on_message=seen.append,
        **FREE,
        **options,
    ) as session:
        if session.connection.server.version == "0.125.0":
            pytest.skip("0.125 asks in plan mode only")
        with pytest.raises(InputNeeded):
            await session.run("Issue: A", auto_approve=False)
        await session.run("Issue: A")
    answered = [m for m in seen if isinstance(m, messages.ToolInputAutoAnswered)]
    assert answered[0].answer == {"answers": {"q1": {"answers": ["A"]}}}


@pytest.mark.parametrize(
    ("sandbox", "config"),
    [
        ("danger-full-access", {}),
        # Commands then inherit no mark of ours, only the ids that Codex gives them.
        ("danger-full-access", {"shell_environment_policy.inherit": "core"}),
        ("workspace-write", {}),
    ],
    ids=["free", "free-core", "sandboxed"],
)
async def test_closing_in_the_middle_of_a_command_leaves_no_process_and_no_mountpoint(
    place: Place,
    workspace: Path,
    codex_binary: Path,
    commands_with: Callable[[str], list[int]],
    eventually: Any,
    sandbox: str,
    config: dict[str, Any],
) -> None:
    seconds = f"64{os.getpid()}"
    command = f"setsid sleep {seconds} & sleep {seconds}"
    options = await place(A=turn(Exec(command), Say("never")))
    codex = await Codex.start(codex_binary, config=config, **options)
    thread = await codex.start_thread(cwd=workspace, approval_policy="never", sandbox=sandbox)
    running = asyncio.create_task(thread.run("Issue: A").result())
    await eventually(lambda: len(commands_with(f"sleep\0{seconds}")) >= 2)
    # The sandbox's mountpoints are there while a command runs.
    assert bool(os.listdir(workspace)) is (sandbox == "workspace-write")
    await codex.aclose()
    with pytest.raises(TurnInterrupted):
        await running
    await eventually(lambda: not commands_with(f"sleep\0{seconds}"))
    assert os.listdir(workspace) == []


async def test_cancelling_a_run_ends_its_command_and_the_session_goes_on(
    place: Place,
    workspace: Path,
    codex_binary: Path,
    commands_with: Callable[[str], list[int]],
    eventually: Any,
) -> None:
    seconds = f"66{os.getpid()}"
    options = await place(A=turn(Exec(f"sleep {seconds}"), Say("never")))
    async with await Session.start(workspace, command=codex_binary, **FREE, **options) as session:
        running = asyncio.create_task(session.run("Issue: A"))
        await eventually(lambda: commands_with(f"sleep\0{seconds}"))
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await eventually(lambda: not commands_with(f"sleep\0{seconds}"))
        assert not session.thread.is_busy


async def test_a_tool_that_persists_in_a_thread_is_refused_in_words_where_nobody_serves_it(
    place: Place, workspace: Path, codex_binary: Path
) -> None:
    @tool
    async def note() -> str:
        return "noted"

    seen: list[messages.SessionMessage] = []
    options: dict[str, Any] = {**await place(A=turn(Call("note", {}), Say("ok"))), **FREE}
    first = await run(workspace, "Issue: A", command=codex_binary, tools=[note], **options)
    second = await run(
        workspace,
        "Issue: A",
        command=codex_binary,
        resume=first.thread_id,
        on_message=seen.append,
        **options,
    )
    assert second.final_message == "ok"
    unsupported = [m for m in seen if isinstance(m, messages.UnsupportedToolCall)]
    assert [message.tool for message in unsupported] == ["note"]


async def test_a_command_runs_to_its_end(codex_binary: Path, cache_dir: Path) -> None:
    result = await run_codex(["--version"], codex_binary, env={"HOME": str(cache_dir)})
    assert result.returncode == 0
    assert result.stdout.startswith(b"codex-cli ")
