"""The breaker with the real Codex, whose provider answers 500 or 401 to every issue."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from codex_app_server.binary import resolve_binary
from codex_app_server.errors import BinaryNotFound
from codex_app_server.home import provider_config, write_config

from symphony.demo.model_server import ModelServer
from symphony.demo.script import Answer, Fail, IssueScript, Reply, Say, Script, Tool

pytestmark = [pytest.mark.codex, pytest.mark.timeout(120)]

DONE = (
    Reply((Tool("local_board", {"action": "move", "state": "Done"}),)),
    Reply((Say("Finished."),)),
)
NAMES = ("AB-1", "AB-2", "AB-3", "AB-4")


@pytest.fixture
def codex() -> Path:
    try:
        return resolve_binary(environment={"PATH": ""}).path
    except BinaryNotFound as error:
        pytest.skip(str(error))


class World:
    """A daemon with the real Codex and four issues whose model fails."""

    def __init__(self, place: Any, codex: Path, cache: Path) -> None:
        self.place = place
        self._command = f"{codex} app-server"
        self._login = cache / "login"

    @asynccontextmanager
    async def model(self, *turn: Answer) -> AsyncIterator[None]:
        script = Script({name: IssueScript((turn,)) for name in NAMES})
        async with ModelServer(script) as server:
            self._login.mkdir(mode=0o700, exist_ok=True)
            config = provider_config(
                await server.start(),
                model="gpt-5.5",
                provider="scripted",
                provider_options={"request_max_retries": 0, "stream_max_retries": 0},
            )
            write_config(self._login, config)
            self.place.environ["CODEX_HOME"] = str(self._login)
            yield

    def configure(self, agents: int, **breaker: int) -> None:
        self.place.configure(
            breaker=breaker,
            agent={"max_concurrent_agents": agents, "max_retry_backoff_ms": 500},
            codex={"command": self._command, "turn_timeout_ms": 60_000},
        )

    def breakers(self) -> dict[str, Any]:
        rows = (self.place.state() or {}).get("breakers", ())
        return {row["failure_class"]: row for row in rows}

    def states(self) -> set[str]:
        return {self.place.board.get(name).state for name in NAMES}


@pytest.fixture
def world(place: Any, codex: Path, cache_dir: Path) -> World:
    made = World(place, codex, cache_dir)
    for number in range(len(NAMES)):
        place.board.add(f"Issue {number}")
    return made


async def test_a_provider_that_fails_opens_the_breaker_and_a_canary_closes_it(
    world: World,
) -> None:
    place = world.place
    world.configure(2, failures=2, cooldown_ms=4_000)
    async with world.model(Fail(status=500, times=1), *DONE):
        await place.start()
        row = (await place.until(world.breakers, limit_s=60))["model"]
        assert row["failures"] == 2
        await place.until(lambda: world.states() == {"Done"}, limit_s=90)
        await place.until(lambda: not world.breakers())
        log = place.log()
        assert log.index("breaker is open") < log.index("breaker is half-open")
        assert log.index("breaker is half-open") < log.index("breaker is closed")
        assert await place.stop() == 0


async def test_a_refused_login_costs_two_issues_and_not_the_board(world: World) -> None:
    place = world.place
    world.configure(1, failures=2, cooldown_ms=600_000)
    async with world.model(Fail(status=401, code="invalid_api_key", times=None)):
        await place.start()
        assert "unauthorized" in await place.until(world.breakers, limit_s=60)
        await place.until(lambda: len(place.rows("blocked")) == 2)
        # Rows of waiting issues are those of the last poll, which may be older than the breaker.
        waiting = await place.until(lambda: waiting_for(place, "breaker_closed"))
        assert len(waiting) == 2
        assert await place.stop() == 0


def waiting_for(place: Any, gate: str) -> list[dict[str, Any]]:
    """Return the waiting rows if there are some and all wait for this gate."""
    rows = (place.state() or {}).get("waiting") or []
    return rows if all(row["gate"] == gate for row in rows) else []
