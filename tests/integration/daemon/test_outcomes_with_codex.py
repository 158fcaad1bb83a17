"""Every way in which a model's provider fails, with the real Codex, up to what the daemon does.

The model is scripted; Codex's own retries are cut short, since they are not ours to test.
"""

from __future__ import annotations

import calendar
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from codex_app_server.binary import resolve_binary
from codex_app_server.errors import BinaryNotFound
from codex_app_server.home import provider_config, write_config

from symphony.demo.model_server import ModelServer
from symphony.demo.script import (
    Answer,
    DroppedStream,
    Fail,
    FailedResponse,
    IssueScript,
    RateLimits,
    Reply,
    Say,
    Script,
    turn,
)

pytestmark = [pytest.mark.codex, pytest.mark.timeout(120)]

BINARIES = Path(__file__).parents[3] / ".codex-binaries"


@pytest.fixture(params=["0.169.0", "wheel"])
def codex(request: pytest.FixtureRequest) -> Path:
    if request.param == "wheel":
        try:
            return resolve_binary(environment={"PATH": ""}).path
        except BinaryNotFound as error:
            pytest.skip(str(error))
    folder = BINARIES / request.param
    if not folder.is_dir():
        pytest.skip(f"codex {request.param} is not in .codex-binaries (make codex)")
    return resolve_binary(folder).path


class Model:
    """A scripted model, a daemon of one issue that is worked with it, and what became of it."""

    def __init__(self, place: Any, codex: Path, cache: Path) -> None:
        self.place = place
        self._codex = codex
        self._login = cache / "login"

    @asynccontextmanager
    async def fails(
        self, *answers: Answer, limits: RateLimits | None = None, **codex: Any
    ) -> AsyncIterator[ModelServer]:
        """Let the model answer so for AB-1, and the daemon start on it."""
        steps = turn(*answers)
        script = Script(
            {"AB-1": IssueScript((steps,)), "AB-2": IssueScript((turn(Say("Done.")),))},
            rate_limits=lambda _: limits,
        )
        async with ModelServer(script) as server:
            self._login.mkdir(mode=0o700)
            config = provider_config(
                await server.start(),
                model="gpt-5.5",
                provider="scripted",
                provider_options={"request_max_retries": 0, "stream_max_retries": 0},
            )
            write_config(self._login, config)
            self.place.environ["CODEX_HOME"] = str(self._login)
            command = f"{self._codex} app-server"
            self.place.configure(
                agent={"max_turns": 2},
                codex={"command": command, "turn_timeout_ms": 60000, **codex},
            )
            self.place.board.add("Paint the shed")
            await self.place.start()
            yield server

    async def blocked(self) -> dict[str, Any]:
        rows = await self.place.until(lambda: self.place.rows("blocked"), limit_s=60)
        return rows["AB-1"]

    async def retrying(self) -> dict[str, Any]:
        def failed() -> dict[str, Any] | None:
            row = self.place.rows("retrying").get("AB-1")
            return row if row is not None and row["kind"] == "failure" else None

        return await self.place.until(failed, limit_s=60)

    def last_run(self) -> dict[str, Any]:
        return self.place.get("/api/v1/AB-1")["runs"][0]


@pytest.fixture
def model(place: Any, codex: Path, cache_dir: Path) -> Model:
    return Model(place, codex, cache_dir)


UNSUPPORTED = "The 'gpt-5.5' model is not supported when using Codex with a ChatGPT account."
UNKNOWN = "The model `gpt-5.5` does not exist or you do not have access to it."


@pytest.mark.parametrize(
    ("fault", "category", "said"),
    [
        (Fail(401, "invalid_api_key", "Incorrect API key", times=None), "unauthorized", "login"),
        (Fail(403, "forbidden", "Not for you", times=None), "unauthorized", "`codex login`"),
        (Fail(404, "model_not_found", UNKNOWN, times=None), "model_not_found", "codex.model"),
        (Fail(400, "model_not_found", UNKNOWN, times=None), "model_not_found", "codex.model"),
        (
            Fail(400, "invalid_request_error", UNSUPPORTED, times=None),
            "model_not_found",
            "codex.model",
        ),
        (
            Fail(400, "invalid_request_error", "No.", times=None),
            "bad_request",
            "refuses the request",
        ),
    ],
    ids=["401", "403", "404-model", "400-model", "400-model-in-words", "400"],
)
async def test_what_only_a_person_can_mend_blocks_with_the_mend_and_is_not_tried_again(
    model: Model, fault: Fail, category: str, said: str
) -> None:
    async with model.fails(fault) as server:
        row = await model.blocked()
        assert row["category"] == category
        assert said in row["error"]
        assert fault.message.rstrip(".") in row["error"]
        assert server.count == 1
        assert model.last_run()["category"] == "turn_failed"
        await model.place.stop()


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fail(429, times=None), "responseTooManyFailedAttempts"),
        (Fail(500, times=None), "internalServerError"),
        (Fail(503, "server_is_overloaded", times=None), "serverOverloaded"),
        (DroppedStream(times=None), "other"),
    ],
    ids=["429", "500", "503", "dropped-stream"],
)
async def test_what_passes_by_itself_is_tried_again_after_a_while(
    model: Model, fault: Any, code: str
) -> None:
    async with model.fails(fault):
        row = await model.retrying()
        assert row["attempt"] == 1
        assert code in row["error"]
        run = model.last_run()
        assert (run["outcome"], run["category"], run["code"]) == ("failed", "turn_failed", code)
        await model.place.stop()


async def test_a_usage_limit_parks_all_work_until_it_resets(model: Model) -> None:
    reset = int(time.time()) + 3600
    limits = RateLimits(100, 7, reset, reset + 86_400)
    used_up = Fail(429, "usage_limit_reached", "The usage limit has been reached", times=None)
    async with model.fails(used_up, limits=limits) as server:
        state = await model.place.until(
            lambda: (found := model.place.state()) and found["parked"] and found, limit_s=60
        )
        parked = time.strptime(state["parked_until"], "%Y-%m-%dT%H:%M:%SZ")
        assert abs(calendar.timegm(parked) - reset) <= 2
        assert "usage" in state["parked"]
        row = (await model.place.until(lambda: model.place.rows("retrying")))["AB-1"]
        assert row["attempt"] == 0
        # Another issue is not begun either, though there is room.
        model.place.board.add("Mend the fence")
        waiting = await model.place.until(
            lambda: {w["issue_identifier"]: w for w in model.place.state()["waiting"]}.get("AB-2")
        )
        assert waiting["gate"] == "not_parked"
        assert server.count == 1
        await model.place.stop()


async def test_a_full_context_window_is_compacted_and_the_thread_goes_on(model: Model) -> None:
    # The summary is the second answer; what follows begins with it and the prompt after it.
    async with model.fails(
        FailedResponse("context_length_exceeded"), Say("In short: the shed is blue.")
    ) as server:
        await model.place.until(lambda: server.count >= 3, limit_s=60)
        prompts = server.requests[2].conversation.prompts
        assert "has been summarised" in prompts[-1]
        assert any("In short: the shed is blue." in prompt for prompt in prompts)
        run = await model.place.until(lambda: _ended(model.last_run()), limit_s=60)
        assert run["outcome"] == "completed"
        assert model.place.rows("blocked") == {}
        assert len(model.place.get("/api/v1/AB-1")["runs"]) == 1
        # Codex reports the whole window as spent once it is full; the model counted far less.
        assert run["total_tokens"] < 10_000
        await model.place.stop()


def _ended(run: dict[str, Any]) -> dict[str, Any] | None:
    return run if run["outcome"] is not None else None


async def test_a_context_window_that_stays_full_begins_anew_with_the_reason(model: Model) -> None:
    full = FailedResponse("context_length_exceeded", times=None)
    async with model.fails(full) as server:
        row = await model.retrying()
        assert "contextWindowExceeded" in row["error"]
        threads = {request.body.get("prompt_cache_key") for request in server.requests}
        before = server.count
        model.place.command("retry", "AB-1")
        await model.place.until(lambda: server.count > before, limit_s=60)
        fresh = server.requests[before]
        assert fresh.body.get("prompt_cache_key") not in threads
        prompt = fresh.conversation.prompts[-1]
        assert prompt.startswith("Issue: AB-1")
        assert "contextWindowExceeded" in prompt
        await model.place.stop()


async def test_a_fault_that_has_passed_lets_the_thread_go_on(model: Model) -> None:
    async with model.fails(Fail(500), Reply((Say("Better now."),))) as server:
        await model.retrying()
        model.place.command("retry", "AB-1")
        await model.place.until(lambda: server.count > 1, limit_s=60)
        prompts = server.requests[1].conversation.prompts
        assert prompts[0].startswith("Issue: AB-1")
        assert "internalServerError" in prompts[-1]
        await model.place.stop()
