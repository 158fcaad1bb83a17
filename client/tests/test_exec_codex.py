"""``codex exec`` of the real binaries with a scripted model; no network."""

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest
from codex_app_server import (
    ExecClient,
    ExecFailed,
    InvalidParams,
    TurnFailed,
    TurnInterrupted,
    TurnTimeout,
    TurnTimeouts,
    UnknownNotification,
)

from symphony.demo.script import DroppedStream, Exec, Fail, Patch, Say, Think, turn

pytestmark = pytest.mark.codex
PATCH = "*** Begin Patch\n*** Add File: made.txt\n+made\n*** End Patch\n"
RETRIES = {"model_providers.custom.stream_max_retries": 1}
FREE: dict[str, Any] = {"sandbox": "danger-full-access", "skip_git_repo_check": True}


def _client(real: Any, **options: Any) -> ExecClient:
    return ExecClient(real.binary, env=real.env, env_mode="replace", **options)


async def test_a_run_has_the_events_and_the_result_of_a_turn(codex) -> None:
    real = await codex(A=turn(Exec("echo hi"), Patch(PATCH), Say("All done.")))
    run = _client(real).run("Issue: A", cwd=real.workspace, **FREE)
    events = [event async for event in run]
    result = await run
    assert [event.method for event in events][:2] == ["thread/started", "turn/started"]
    assert events[-1].method == "turn/completed"
    odd = [e for e in events if isinstance(e.params, InvalidParams | UnknownNotification)]
    assert odd == []
    kinds = [item.tag for item in result.items]
    assert kinds == ["commandExecution", "fileChange", "agentMessage"]
    assert (result.items[0].aggregated_output, result.items[0].exit_code) == ("hi\n", 0)
    assert result.final_message == "All done."
    assert result.thread_id == run.thread_id
    assert result.usage.total_tokens == 3 * 1280
    assert (real.workspace / "made.txt").exists()


async def test_a_resumed_thread_counts_only_what_its_turn_adds(codex) -> None:
    real = await codex(A=turn(Think("hm"), Say("ok")))
    client = _client(real)
    first = await client.run("Issue: A", cwd=real.workspace, **FREE)
    again = await client.run("Issue: A", cwd=real.workspace, resume=first.thread_id, **FREE)
    assert again.thread_id == first.thread_id
    assert again.usage == first.usage
    # Another program knows nothing of the first one: the thread's record tells.
    stranger = _client(real)
    for resume in (first.thread_id, "last"):
        run = stranger.run("Issue: A", cwd=real.workspace, resume=resume, **FREE)
        third = await run
        assert (third.thread_id, third.usage) == (first.thread_id, first.usage)
        assert run.warnings == []
        stranger.usage_totals.clear()


async def test_failures_of_the_provider_are_typed_and_retries_are_not_the_end(codex) -> None:
    real = await codex(
        A=turn(Fail(401, "unauthorized", times=None)),
        B=turn(DroppedStream(), Say("ok")),
        C=turn(Fail(429, "usage_limit_reached", times=None)),
    )
    client = _client(real, config=RETRIES)
    with pytest.raises(TurnFailed) as caught:
        await client.run("Issue: A", cwd=real.workspace, **FREE)
    assert (caught.value.http_status, caught.value.retryable) == (401, False)
    run = client.run("Issue: B", cwd=real.workspace, **FREE)
    events = [event async for event in run]
    (error,) = [event for event in events if event.method == "error"]
    assert error.data["willRetry"] is True
    assert (await run).final_message == "ok"
    with pytest.raises(TurnFailed) as caught:
        await client.run("Issue: C", cwd=real.workspace, **FREE)
    assert caught.value.code == "usageLimitExceeded"


@pytest.mark.parametrize("how", ["interrupt", "cancel", "timeout"])
async def test_ending_a_run_leaves_no_process(
    codex, commands_with: Callable[[str], list[int]], eventually: Any, how: str
) -> None:
    # Only the number: in /proc a blank of a command line is a NUL.
    marker = f"64{os.getpid()}.5"
    command = f"setsid sleep {marker} & sleep {marker}; true"
    real = await codex(A=turn(Exec(command), Say("never")))
    limits = TurnTimeouts(idle_s=2.0) if how == "timeout" else None
    run = _client(real).run("Issue: A", cwd=real.workspace, timeouts=limits, **FREE)
    waiting = asyncio.create_task(run.result())
    await eventually(lambda: len(commands_with(marker)) >= 2)
    if how == "cancel":
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    else:
        if how == "interrupt":
            await run.interrupt()
        with pytest.raises(TurnInterrupted if how == "interrupt" else TurnTimeout):
            await waiting
    assert run.done
    assert run.thread_id is not None
    await eventually(lambda: not commands_with(marker))


async def test_what_exec_refuses_says_what_to_mend(codex) -> None:
    real = await codex(A=turn(Say("ok")))
    client = _client(real)
    with pytest.raises(ExecFailed, match="skip_git_repo_check=True"):
        await client.run("Issue: A", cwd=real.workspace)
    nobody = "01a1fd25-e09e-74c1-943c-73e02be4ab8b"
    with pytest.raises(ExecFailed, match="no such thread"):
        await client.run("Issue: A", cwd=real.workspace, resume=nobody, **FREE)
    with pytest.raises(ExecFailed, match="bogus"):
        await client.run("Issue: A", cwd=real.workspace, arguments=["--bogus"], **FREE)
    run = client.run(
        "Issue: A", cwd=real.workspace, arguments=["--ask-for-approval", "never"], **FREE
    )
    assert (await run).final_message == "ok"
    assert "--ask-for-approval" in run.warnings[0]


async def test_a_schema_and_overrides_reach_the_model(codex) -> None:
    real = await codex(A=turn(Say('{"answer": 42}')))
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "integer"}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    client = _client(real)
    result = await client.run(
        "Issue: A",
        cwd=real.workspace,
        model="gpt-5.4",
        output_schema=schema,
        config={"model_reasoning_effort": "low"},
        **FREE,
    )
    body = real.model.requests[-1].body
    assert result.final_message == '{"answer": 42}'
    assert body["model"] == "gpt-5.4"
    assert body["text"]["format"]["schema"] == schema
    assert body["reasoning"]["effort"] == "low"
