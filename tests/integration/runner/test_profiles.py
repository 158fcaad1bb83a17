"""A run follows its issue's profile: what is told, what is asked for, what is allowed."""

from __future__ import annotations

import json
from typing import Any

from symphony.model.run import OutcomeKind, RetryKind

from .conftest import Bench

GO_ON = [{"status": "completed"}]
VERSIONED = "symphony/0.169.0 (Linux) x"


def move(state: str) -> list[dict[str, Any]]:
    return [{"tool": "move", "arguments": {"state": state}}, {"status": "completed"}]


def configure(bench: Bench, profiles: Any, **codex: Any) -> None:
    command = bench.workflow.settings.codex.command
    agent = json.dumps({"profiles": profiles})
    bench.configure(f"agent: {agent}\ncodex: {json.dumps({'command': command, **codex})}\n")


def prompts(bench: Bench) -> list[str]:
    return [m["params"]["input"][0]["text"] for m in bench.received("turn/start")]


def asked(bench: Bench) -> list[tuple[str | None, str | None]]:
    turns = [m["params"] for m in bench.received("turn/start")]
    return [(turn.get("model"), turn.get("effort")) for turn in turns]


async def test_where_nothing_names_a_model_nothing_is_sent(bench: Bench) -> None:
    configure(bench, {"short": {"labels": ["short"], "max_turns": 1}})
    bench.script(turns=[GO_ON, move("Done")], user_agent=VERSIONED)
    await bench.run()
    for message in (*bench.received("thread/start"), *bench.received("turn/start")):
        assert not {"model", "effort"} & message["params"].keys()
    assert bench.received("config/read") == []


async def test_the_settings_model_and_effort_are_asked_for_in_every_turn(bench: Bench) -> None:
    configure(bench, [], model="big", reasoning_effort="high")
    bench.script(turns=[GO_ON, move("Done")])
    await bench.run()
    assert bench.received("thread/start")[0]["params"]["model"] == "big"
    assert asked(bench) == [("big", "high"), ("big", "high")]


async def test_prompt_model_and_turns_follow_the_issues_state_between_turns(bench: Bench) -> None:
    configure(
        bench,
        {
            "planning": {
                "states": ["Todo"],
                "prompt": "Plan {{ issue.title }} as {{ profile }}.",
                "model": "small",
                "continuation_prompt": "Plan on, {{ turn }} of {{ max_turns }}.",
                "max_turns": 7,
            },
            "building": {"prompt": "Build {{ issue.title }}.", "model": "big", "max_turns": 4},
        },
        reasoning_effort="low",
    )
    bench.script(turns=[GO_ON, move("In Progress"), GO_ON, GO_ON])

    outcome = await bench.run()

    assert outcome.kind is OutcomeKind.COMPLETED
    first, second, third, fourth = prompts(bench)
    assert first == "Plan Paint the shed as planning."
    assert second == "Plan on, 2 of 7."
    assert "'In Progress' now" in third
    assert third.endswith("Build Paint the shed.")
    assert "continuation turn #4 of 4" in fourth
    assert asked(bench) == [("small", "low"), ("small", "low"), ("big", "low"), ("big", "low")]
    assert bench.progress.profile == "building"


async def test_a_resumed_thread_is_told_the_prompt_that_holds_now(bench: Bench) -> None:
    configure(bench, {"landing": {"states": ["Todo"], "prompt": "Land {{ issue.title }}."}})
    bench.script(turns=[move("Done")], user_agent=VERSIONED, preview="Work on Paint the shed.")
    await bench.run(attempt=1, retry_kind=RetryKind.CONTINUATION, thread_id="thr-1")
    (told,) = prompts(bench)
    assert told.startswith("You go on with the issue of this thread.")
    assert told.endswith("Land Paint the shed.")


async def test_a_profile_may_take_permissions_away(bench: Bench) -> None:
    configure(
        bench,
        {"review": {"states": ["Todo"], "read_only": True}},
        approval_policy="never",
        turn_sandbox_policy={"type": "dangerFullAccess"},
        thread_sandbox="danger-full-access",
    )
    bench.script(turns=[move("Done")])
    await bench.run()
    thread = bench.received("thread/start")[0]["params"]
    turn = bench.received("turn/start")[0]["params"]
    assert thread["sandbox"] == "read-only"
    assert turn["sandboxPolicy"] == {"type": "readOnly", "networkAccess": False}
    assert not any(turn["approvalPolicy"]["granular"].values())


async def test_a_run_ends_where_the_next_turn_would_have_other_permissions(bench: Bench) -> None:
    configure(bench, {"review": {"states": ["In Progress"], "read_only": True}})
    bench.script(turns=[GO_ON, move("In Progress"), GO_ON])
    outcome = await bench.run()
    assert outcome.kind is OutcomeKind.COMPLETED
    assert len(bench.received("turn/start")) == 2


async def test_a_profiles_prompt_that_can_not_be_rendered_names_its_place(bench: Bench) -> None:
    configure(bench, {"a": {"prompt": "{{ issue.title | no_such_filter }}"}})
    outcome = await bench.run()
    assert outcome.category == "template_render_error"
    assert outcome.message.startswith("agent.profiles.a.prompt: ")
