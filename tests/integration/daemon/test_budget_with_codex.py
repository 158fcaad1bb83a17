"""Budgets with the real Codex: what the scripted model reports is counted, limited, and kept."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from codex_app_server.binary import resolve_binary
from codex_app_server.errors import BinaryNotFound
from codex_app_server.home import provider_config, write_config

from symphony.cli.status import describe
from symphony.config.state_dir import locate
from symphony.demo.model_server import ModelServer
from symphony.demo.script import Exec, IssueScript, Reply, Say, Script, Tool, Usage

pytestmark = [pytest.mark.codex, pytest.mark.timeout(120)]

BINARIES = Path(__file__).parents[3] / ".codex-binaries"
EACH = Usage(input=1000, output=100, cached=500)
TOKENS = 1100
PRICES = {
    "gpt": {"input_per_million": 2, "cached_input_per_million": 0.2, "output_per_million": 10}
}
COST = 0.0021  # 500 at $2, 500 at $0.2, 100 at $10


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


DONE = Reply((Tool("local_board", {"action": "move", "state": "Done"}),), usage=EACH)


def steps(number: int, *, held: asyncio.Event | None = None, at: int = 0) -> tuple[Reply, ...]:
    """A turn of so many commands; before the one at ``at`` the model waits for an event."""

    async def gate(_: Any) -> None:
        assert held is not None
        await held.wait()

    replies = [
        Reply((Exec("true"),), usage=EACH, gate=gate if held is not None and i == at else None)
        for i in range(number)
    ]
    return (*replies, DONE, Reply((Say("Finished."),), usage=EACH))


class World:
    """A daemon whose agents spend ``TOKENS`` an answer."""

    def __init__(self, place: Any, codex: Path, cache: Path) -> None:
        self.place = place
        self.command = f"{codex} app-server"
        self._login = cache / "login"

    @asynccontextmanager
    async def model(self, turn: tuple[Reply, ...]) -> AsyncIterator[ModelServer]:
        script = Script({f"AB-{number}": IssueScript((turn,)) for number in (1, 2, 3)})
        async with ModelServer(script) as server:
            self._login.mkdir(mode=0o700, exist_ok=True)
            config = provider_config(await server.start(), model="gpt-5.5", provider="scripted")
            write_config(self._login, config)
            self.place.environ["CODEX_HOME"] = str(self._login)
            yield server

    def limit(self, **budget: Any) -> None:
        """Write the workflow with these limits, while the daemon runs or before."""
        self.place.configure(
            budget={"prices": PRICES, **budget},
            codex={"command": self.command, "turn_timeout_ms": 60_000},
        )

    def budget(self) -> Any:
        return self.place.get("/api/v1/budget")

    async def blocked(self, name: str = "AB-1") -> dict[str, Any]:
        return await self.place.until(lambda: self.place.rows("blocked").get(name), limit_s=60)

    async def finished(self, *names: str) -> None:
        def states() -> set[str]:
            return {self.place.board.get(name).state for name in names}

        await self.place.until(lambda: states() == {"Done"}, limit_s=60)

    def ledger_tokens(self) -> int:
        path = locate(
            self.place.workflow, instance=self.place.instance, env=self.place.environ
        ).ledger
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            query = "SELECT coalesce(sum(total_tokens), 0) FROM totals"
            return int(connection.execute(query).fetchone()[0])


@pytest.fixture
def world(place: Any, codex: Path, cache_dir: Path) -> World:
    return World(place, codex, cache_dir)


async def test_a_turn_that_spends_too_much_is_interrupted_and_may_be_retried(
    world: World,
) -> None:
    place = world.place
    world.limit(turn={"tokens": 4 * TOKENS})
    place.board.add("Paint the shed")
    async with world.model(steps(40)):
        await place.start()
        row = await world.blocked()
        assert row["category"] == "budget_turn"
        assert "4,400 tokens is spent" in row["error"]
        run = place.get("/api/v1/AB-1")["runs"][0]
        assert run["category"] == "budget_turn"
        assert 4 * TOKENS <= run["total_tokens"] <= 8 * TOKENS
        assert run["model"] == "gpt-5.5"

        place.command("retry", "AB-1")
        again = await place.until(lambda: place.rows("running").get("AB-1"))
        assert again["thread_id"] == run["thread_id"]
        assert await world.blocked()
        assert await place.stop() == 0


async def test_an_issues_dollars_are_counted_exactly_and_raised_by_an_order(world: World) -> None:
    place = world.place
    world.limit(issue={"usd": 0.01})
    place.board.add("Paint the shed")
    async with world.model(steps(12)):
        await place.start()
        row = await world.blocked()
        assert row["category"] == "budget_issue"
        assert "$0.01 is spent" in row["error"]
        (issue,) = world.budget()["issues"]
        answers = round(issue["tokens"] / TOKENS)
        assert issue["tokens"] == answers * TOKENS
        assert issue["usd"] == pytest.approx(answers * COST, abs=1e-9)
        assert (issue["unpriced_tokens"], issue["runs"]) == (0, 1)

        refused = place.command("retry", "AB-1", status=1)
        assert "stays blocked" in refused
        assert "budget raise AB-1" in refused
        assert "SPENT" in place.command("budget", "show")
        assert "no limit of tokens" in place.command(
            "budget", "raise", "AB-1", "--tokens", "5", status=1
        )
        place.command("budget", "raise", "AB-1", "--usd", "1")

        await world.finished("AB-1")
        await place.until(lambda: not place.rows("running"))
        (issue,) = world.budget()["issues"]
        assert issue["tokens"] >= 14 * TOKENS
        assert issue["usd"] == pytest.approx(issue["tokens"] / TOKENS * COST, abs=1e-9)
        assert await place.stop() == 0


async def test_the_days_budget_ends_all_work_until_it_is_raised(world: World) -> None:
    place = world.place
    world.limit(day={"tokens": 6 * TOKENS})
    for title in ("Paint the shed", "Mend the gate"):
        place.board.add(title)
    async with world.model(steps(25)):
        await place.start()

        def waits() -> bool:
            rows = place.rows("retrying").values()
            return len(rows) == 2 and all("the day's budget" in (r["error"] or "") for r in rows)

        await place.until(waits, limit_s=60)
        place.board.add("Oil the hinge")
        await place.until(lambda: (place.state() or {}).get("waiting"))
        explained = place.command("explain", "AB-3", status=1)
        assert "SHUT  within_budget" in explained
        assert "until" in explained
        budget = (place.state() or {})["budget"]
        assert "6,600 tokens is spent" in budget["day"]["shut"]
        assert any("budget day tokens" in line for line in describe(place.state()))

        world.limit(day={"tokens": 1_000_000})
        await world.finished("AB-1", "AB-2", "AB-3")
        assert await place.stop() == 0


async def test_a_sigkill_forgets_no_spend_and_counts_none_twice(world: World) -> None:
    place, held = world.place, asyncio.Event()
    world.limit(issue={"tokens": 1_000_000})
    place.board.add("Paint the shed")
    async with world.model(steps(4, held=held, at=3)) as server:
        daemon = await place.start()
        await place.until(lambda: world.ledger_tokens() == 3 * TOKENS)
        daemon.send_signal(signal.SIGKILL)
        await daemon.wait()
        await place.until(lambda: not place.processes())

        held.set()
        before = server.count
        await place.start()
        assert world.budget()["total"]["tokens"] >= 3 * TOKENS
        await world.finished("AB-1")
        await place.until(lambda: not place.rows("running") and not place.rows("retrying"))
        answered = 3 + server.count - before
        assert world.budget()["total"]["tokens"] == answered * TOKENS
        assert world.ledger_tokens() == answered * TOKENS
        assert world.budget()["issues"][0]["runs"] == 2
        assert await place.stop() == 0


async def test_a_model_without_a_price_blocks_before_the_first_turn_until_it_has_one(
    world: World,
) -> None:
    place = world.place
    agent = place.root / "agent"  # nobody can tell from outside which model it takes
    agent.write_text(f'#!/bin/sh\nexec {world.command} "$@"\n')
    agent.chmod(0o755)
    world.command = str(agent)
    world.limit(total={"usd": 5}, prices={"other": PRICES["gpt"]})
    place.board.add("Paint the shed")
    async with world.model(steps(1)) as server:
        await place.start()
        row = await world.blocked()
        assert row["category"] == "budget_unpriced"
        assert "'gpt-5.5'" in row["error"]
        assert server.count == 0

        world.limit(total={"usd": 5})
        await world.finished("AB-1")
        assert await place.stop() == 0
