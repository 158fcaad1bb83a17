"""Profiles with the real Codex: which model is really asked, and what stays of it in a thread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from codex_app_server.binary import resolve_binary
from codex_app_server.errors import BinaryNotFound
from codex_app_server.home import provider_config, write_config

from symphony.demo.model_server import ModelServer
from symphony.demo.script import Exec, IssueScript, Say, Script, Tool, turn

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


def start_with(place: Any, codex: Path, cache: Path, url: str, profiles: Any) -> None:
    login = cache / "login"
    login.mkdir(mode=0o700)
    write_config(login, provider_config(url, model="gpt-5.5", provider="scripted"))
    place.environ["CODEX_HOME"] = str(login)
    place.configure(
        tracker={
            "kind": "local",
            "provider": {"path": "board"},
            "active_states": ["Todo", "In Progress"],
        },
        agent={"max_turns": 3, "profiles": profiles},
        codex={"command": f"{codex} app-server"},
    )
    place.board.add("Paint the shed")


def models(server: ModelServer) -> list[str]:
    return [request.body["model"] for request in server.requests]


async def test_each_turn_asks_the_model_of_the_profile_that_fits_then(
    place: Any, codex: Path, cache_dir: Path
) -> None:
    to = {"action": "move", "state": "In Progress"}
    done = {"action": "move", "state": "Done"}
    turns = (
        turn(Tool("local_board", to), Say("Planned.")),
        turn(Tool("local_board", done), Say("Built.")),
    )
    async with ModelServer(Script({"AB-1": IssueScript(turns)})) as server:
        profiles = {
            "planning": {
                "states": ["Todo"],
                "model": "gpt-5.4",
                "reasoning_effort": "high",
                "prompt": "Issue: {{ issue.identifier }}\nPlan as {{ profile }}.",
            }
        }
        start_with(place, codex, cache_dir, await server.start(), profiles)
        await place.start()
        await place.until(lambda: place.board.get("AB-1").state == "Done", limit_s=60)
        await place.stop()
        requests = list(server.requests)
        assert requests[0].conversation.prompts[-1] == "Issue: AB-1\nPlan as planning."
        # Codex would have kept the profile's model; its own is asked for by name.
        assert models(server)[:3] == ["gpt-5.4", "gpt-5.4", "gpt-5.5"]
        assert requests[0].body["reasoning"]["effort"] == "high"
        assert requests[2].body["reasoning"]["effort"] != "high"
        assert "'In Progress' now" in requests[2].conversation.prompts[-1]


async def test_an_agent_of_a_read_only_profile_can_not_write(
    place: Any, codex: Path, cache_dir: Path
) -> None:
    turns = (
        turn(
            Exec("echo mine > mine.txt; cat WORKFLOW.md; ls"),
            Tool("local_board", {"action": "move", "state": "Done"}),
            Say("Looked."),
        ),
    )
    async with ModelServer(Script({"AB-1": IssueScript(turns)})) as server:
        profiles = [{"name": "review", "states": ["Todo"], "read_only": True}]
        start_with(place, codex, cache_dir, await server.start(), profiles)
        await place.start()
        row = await place.until(lambda: place.rows("running").get("AB-1"), limit_s=60)
        assert row["profile"] == "review"
        await place.until(lambda: place.board.get("AB-1").state == "Done", limit_s=60)
        output = server.requests[1].conversation.outputs[0]
        assert "Read-only file system" in output or "Permission denied" in output
        await place.stop()
