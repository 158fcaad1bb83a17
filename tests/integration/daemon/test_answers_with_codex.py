"""The real Codex asks, its daemon is killed, a person answers another one, the issue is done."""

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
from symphony.demo.script import Exec, IssueScript, Item, Say, Script, Tool, turn

pytestmark = [pytest.mark.codex, pytest.mark.timeout(180)]

BINARIES = Path(__file__).parents[3] / ".codex-binaries"
QUESTION = {
    "questions": [
        {
            "id": "colour",
            "header": "Colour",
            "question": "Which colour shall the shed have?",
            "options": [
                {"label": "Red", "description": "Warm"},
                {"label": "Blue", "description": "Cool"},
            ],
        }
    ]
}
DONE = (Tool("local_board", {"action": "move", "state": "Done"}), Say("Done."))


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


@asynccontextmanager
async def asking(
    place: Any, codex: Path, cache: Path, *, first: Item, then: tuple[Item, ...], **settings: Any
) -> AsyncIterator[ModelServer]:
    """A daemon whose agent asks in its first run; then it does the rest."""
    script = Script({"AB-1": IssueScript((turn(*then),), first_attempt=(turn(first, Say("Eh?")),))})
    async with ModelServer(script) as server:
        login = cache / "login"
        login.mkdir(mode=0o700)
        base_url = await server.start()
        write_config(login, provider_config(base_url, model="gpt-5.5", provider="scripted"))
        place.environ["CODEX_HOME"] = str(login)
        command = f"{codex} app-server --enable default_mode_request_user_input"
        place.configure(codex={"command": command, **settings})
        place.board.add("Paint the shed")
        await place.start()
        yield server


async def killed_and_started_again(place: Any) -> dict[str, Any]:
    """Wait until the issue is blocked, kill the daemon, start another; return the blocked row."""
    before = (await place.until(lambda: place.rows("blocked"), limit_s=90))["AB-1"]
    place.daemons[-1].kill()
    await place.daemons[-1].wait()
    await place.start()
    after = (await place.until(lambda: place.rows("blocked")))["AB-1"]
    for name in ("question", "options", "asked", "unblock_by", "category"):
        assert after[name] == before[name]
    return after


async def done(place: Any) -> None:
    await place.until(lambda: place.board.get("AB-1").state == "Done", limit_s=90)
    await place.until(lambda: not place.rows("running") and not place.rows("blocked"))


async def test_a_question_is_answered_after_a_crash_and_the_thread_goes_on(
    place: Any, codex: Path, cache_dir: Path
) -> None:
    ask = Tool("request_user_input", QUESTION)
    async with asking(place, codex, cache_dir, first=ask, then=DONE) as model:
        row = await killed_and_started_again(place)
        assert row["question"] == "Which colour shall the shed have?"
        assert row["options"] == ["Red", "Blue"]
        assert row["unblock_by"] == ["answer", "state", "labels", "retry"]
        assert "symphony answer AB-1" in place.command("explain", "AB-1", status=1)
        refused = place.command("answer", "AB-1", "--option", "Green", status=1)
        assert "'Red', 'Blue'" in refused

        place.command("answer", "AB-1", "as the fence", "--option", "Blue")

        await done(place)
        prompts = model.requests[-1].conversation.prompts
        assert len(prompts) == 2, "the thread was resumed"
        assert "> Which colour shall the shed have?" in prompts[1]
        assert "> Blue\n> as the fence" in prompts[1]
        runs = place.get("/api/v1/state")["counts"]
        assert runs["blocked"] == 0


async def test_an_approval_counts_for_exactly_what_was_asked(
    place: Any, codex: Path, cache_dir: Path
) -> None:
    command = Exec("mkdir made-by-approval; ls")
    async with asking(
        place,
        codex,
        cache_dir,
        first=command,
        then=(command, *DONE),
        approval_policy="untrusted",
    ) as model:
        row = await killed_and_started_again(place)
        assert row["category"] == "approval_required"
        assert row["asked"]["wants_decision"] is True
        assert "mkdir made-by-approval" in row["asked"]["detail"]
        assert "--approve" in place.command("answer", "AB-1", "yes", status=1)

        place.command("answer", "AB-1", "--approve")

        await done(place)
        assert "made-by-approval" in model.requests[-1].conversation.outputs[0]
        assert "> approved" in model.requests[-1].conversation.prompts[1]
