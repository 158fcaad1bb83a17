"""Faults of the provider, loads and slow readers, on the real binaries with a scripted model."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from codex_app_server import TurnFailed, TurnTimeouts

from symphony.demo.script import DroppedStream, Exec, Fail, Say, turn

VERSIONS = [
    "wheel",
    pytest.param("0.169.0", marks=pytest.mark.slow),
    pytest.param("0.125.0", marks=pytest.mark.slow),
]
pytestmark = [
    pytest.mark.codex,
    pytest.mark.parametrize("codex_binary", VERSIONS, indirect=True),
]
FREE = {"approval_policy": "never", "sandbox": "danger-full-access"}
FEW_RETRIES = {
    "model_providers.custom.request_max_retries": 0,
    "model_providers.custom.stream_max_retries": 1,
}
MIB = 1024 * 1024


def rss_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / MIB


async def ended(codex: Any, fault: Any, **config: Any) -> tuple[TurnFailed | None, list[Any], Any]:
    """Run a turn into a fault; return its error, its ``error`` events and the connection."""
    real = await codex(A=turn(fault, Say("recovered")))
    connection = await real.open()
    thread = await connection.start_thread(
        cwd=str(real.workspace), config={**FEW_RETRIES, **config}, **FREE
    )
    errors = connection.subscribe(methods=["error"])
    running = thread.run("Issue: A", timeouts=TurnTimeouts(total_s=30))
    failure = None
    try:
        assert (await running).final_message == "recovered"
    except TurnFailed as error:
        failure = error
    errors.close_when_read()
    return failure, [event.data async for event in errors], connection


async def test_a_refused_key_fails_the_turn_and_is_not_worth_a_retry(codex) -> None:
    failure, errors, _ = await ended(codex, Fail(401, "invalid_api_key", times=None))
    assert failure is not None
    assert (failure.http_status, failure.retryable) == (401, False)
    assert [one["willRetry"] for one in errors] == [True] * (len(errors) - 1) + [False]


async def test_a_provider_that_fails_for_ever_ends_the_turn_within_a_bound(codex) -> None:
    begun = time.monotonic()
    failure, errors, _ = await ended(codex, Fail(500, times=None))
    assert failure is not None
    assert (failure.code, failure.retryable) == ("internalServerError", True)
    assert time.monotonic() - begun < 20
    assert any(one["willRetry"] for one in errors)


async def test_a_provider_that_recovers_costs_nothing(codex) -> None:
    failure, _, _ = await ended(codex, Fail(500, times=1))
    assert failure is None


async def test_a_stream_that_breaks_once_is_taken_up_again(codex) -> None:
    failure, errors, _ = await ended(codex, DroppedStream(times=1))
    assert failure is None
    assert [one["willRetry"] for one in errors] == [True]


async def test_a_stream_that_always_breaks_fails_the_turn(codex) -> None:
    failure, errors, _ = await ended(codex, DroppedStream(times=None))
    assert failure is not None
    assert failure.retryable
    assert errors[-1]["willRetry"] is False


async def test_a_bare_429_is_no_usage_limit(codex) -> None:
    failure, _, connection = await ended(codex, Fail(429, "slow_down", times=None))
    assert failure is not None
    assert (failure.http_status, failure.retryable, failure.resets_at) == (429, True, None)
    assert connection.rate_limits is None


async def test_a_429_with_retry_after_is_waited_for(codex) -> None:
    failure, errors, _ = await ended(codex, Fail(429, "slow_down", retry_after_s=1, times=1))
    assert failure is None or failure.http_status == 429
    assert failure is not None or len(errors) == 1


async def test_a_usage_limit_is_told_apart(codex) -> None:
    failure, _, connection = await ended(codex, Fail(429, "usage_limit_reached", times=None))
    assert failure is not None
    assert (failure.code, failure.retryable) == ("usageLimitExceeded", True)
    assert connection.rate_limits is None  # no numbers were given: nothing is made up


async def test_output_of_megabytes_comes_in_one_line(codex) -> None:
    real = await codex(A=turn(Exec("head -c 5000000 /dev/zero | tr '\\0' x"), Say("ok")))
    connection = await real.open()
    thread = await connection.start_thread(cwd=str(real.workspace), **FREE)
    result = await thread.run("Issue: A")
    assert result.final_message == "ok"
    text = "y" * 5_000_000
    (real.workspace / "big.txt").write_text(text)
    assert await connection.fs.read_text(str(real.workspace / "big.txt")) == text
    assert connection.malformed_lines == 0


async def test_a_consumer_that_reads_nothing_holds_memory_flat(codex) -> None:
    """The queue of an unread turn and of an unread subscription stay at their bounds."""
    words = " ".join(f"word{n}" for n in range(30_000))
    real = await codex(A=turn(Say(words)))
    connection = await real.open()
    thread = await connection.start_thread(cwd=str(real.workspace), **FREE)
    unread = connection.subscribe(limit=100, drop="drop_deltas")
    running = thread.run("Issue: A", queue_limit=100)
    iterator = aiter(running)
    await anext(iterator)
    await connection.subscribe(methods=["turn/completed"]).next(60)
    waiting = len(running._sink.events)
    assert waiting < 200
    assert unread.dropped > 10_000
    seen = [event async for event in iterator]
    assert seen[-1].method == "turn/completed"
    merged = "".join(e.params.delta for e in seen if e.method == "item/agentMessage/delta")
    assert words.endswith(merged)


@pytest.mark.slow
async def test_fifty_threads_of_one_process_keep_apart_and_small(codex, record_property) -> None:
    real = await codex(A=turn(Exec("pwd > where.txt; sleep 0.5"), Say("ok")))
    connection = await real.open("--disable", "shell_snapshot")
    pid = real.transports[0].pid
    folders = [real.workspace / str(number) for number in range(50)]
    for folder in folders:
        folder.mkdir()

    async def one(folder: Path) -> None:
        thread = await connection.start_thread(cwd=str(folder), **FREE)
        await thread.run("Issue: A", timeouts=TurnTimeouts(total_s=120))

    begun = time.monotonic()
    await asyncio.gather(*map(one, folders))
    report = {"rss_mib": round(rss_mib(pid)), "wall_s": round(time.monotonic() - begun, 1)}
    record_property("fifty_threads", json.dumps(report))
    print(f"50 threads in one process: {report}")
    assert [(f / "where.txt").read_text().strip() for f in folders] == list(map(str, folders))
    assert report["rss_mib"] < 600


async def test_a_report_without_limits_does_not_erase_what_is_known(codex) -> None:
    real = await codex(A=turn(Say("ok")))
    connection = await real.open()
    thread = await connection.start_thread(cwd=str(real.workspace), **FREE)
    connection.merge_rate_limits(
        {"limitId": "codex", "primary": {"usedPercent": 43, "resetsAt": 1_900_000_000}}
    )
    await thread.run("Issue: A")
    assert connection.rate_limits is not None
    assert connection.rate_limits["primary"]["usedPercent"] == 43
