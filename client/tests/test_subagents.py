"""Where threads come from, and waiting for a sub-agent, against the scripted server."""

from __future__ import annotations

from typing import Any

import pytest
from codex_app_server.errors import RequestError
from codex_app_server.subagents import ThreadOrigin, parse_origin

SPAWN = {"parent_thread_id": "p", "depth": 2, "agent_path": "/root/a", "agent_nickname": "Ada",
         "agent_role": "reviewer"}  # fmt: skip


@pytest.mark.parametrize(
    ("source", "origin"),
    [
        ("cli", ThreadOrigin(kind="cli")),
        ("appServer", ThreadOrigin(kind="appServer")),
        ("teapot", ThreadOrigin(kind="unknown")),
        (None, ThreadOrigin(kind="unknown")),
        ({"custom": "mine"}, ThreadOrigin(kind="custom", detail="mine")),
        ({"subAgent": "review"}, ThreadOrigin(kind="subAgentReview", detail="review")),
        ({"subAgent": "dance"}, ThreadOrigin(kind="subAgentOther", detail="dance")),
        ({"subAgent": {"other": "x"}}, ThreadOrigin(kind="subAgentOther", detail="x")),
        ({"subAgent": 7}, ThreadOrigin(kind="unknown")),
        (
            {"subAgent": {"thread_spawn": SPAWN}},
            ThreadOrigin(
                kind="subAgentThreadSpawn", parent_id="p", depth=2, agent_path="/root/a",
                nickname="Ada", role="reviewer",
            ),
        ),
    ],
)  # fmt: skip
def test_the_source_of_a_thread_is_parsed(source: Any, origin: ThreadOrigin):
    assert parse_origin(source) == origin
    assert origin.is_sub_agent == ("subAgent" in origin.kind)


def thread(thread_id: str, parent: str | None, status: str = "idle") -> dict[str, Any]:
    source = {"subAgent": {"thread_spawn": {"parent_thread_id": parent, "depth": 1}}}
    return {"id": thread_id, "source": source if parent else "cli", "status": {"type": status}}


async def test_children_are_asked_for_by_parent_and_others_left_out(server, connect):
    found = [thread("c", "p"), thread("other", "q"), thread("top", None)]
    server.answers["thread/list"] = lambda m: [server.reply(m, {"data": found})]
    connection = await connect()
    assert [one.id for one in await connection.subagents("p").list()] == ["c"]
    assert server.requests("thread/list")[0]["params"] == {"parentThreadId": "p"}


async def test_without_the_capability_all_threads_of_sub_agents_are_looked_through(server, connect):
    server.answers["thread/list"] = lambda m: [server.reply(m, {"data": [thread("c", "p")]})]
    connection = await connect(experimental=False)
    assert [one.id for one in await connection.subagents("p").list()] == ["c"]
    assert "subAgentThreadSpawn" in server.requests("thread/list")[0]["params"]["sourceKinds"]


def runs_until_told(server: Any, status: str = "completed") -> dict[str, str]:
    state = {"status": "active", "turn": "inProgress"}
    message = {"type": "agentMessage", "id": "m", "text": "done"}
    server.answers["thread/read"] = lambda m: [
        server.reply(
            m, {"thread": {"id": "c", "status": {"type": state["status"], "activeFlags": []}}}
        )
    ]
    server.answers["thread/turns/list"] = lambda m: [
        server.reply(m, {"data": [{"id": "t", "status": state["turn"], "items": [message]}]})
    ]
    return state


async def test_a_child_is_waited_for_until_its_last_turn_has_ended(server, connect):
    state = runs_until_told(server)
    connection = await connect()

    def ends(request: Any) -> list[Any]:
        state.update(status="idle", turn="completed")
        return [server.reply(request, {}), server.ended(thread="c", turn="t")]

    server.answers["end/it"] = ends
    with pytest.raises(TimeoutError):
        await connection.subagents("p").wait("c", timeout_s=0.05)
    await connection.call("end/it", {})
    end = await connection.subagents("p").wait("c", timeout_s=5)
    assert (end.thread_id, end.status, end.final_message) == ("c", "completed", "done")


async def test_a_child_that_never_ran_has_no_turn(server, connect):
    server.answers["thread/read"] = lambda m: [server.reply(m, {"thread": thread("c", "p")})]
    server.answers["thread/turns/list"] = lambda m: [server.reply(m, {"data": []})]
    connection = await connect()
    assert (await connection.subagents("p").wait("c", timeout_s=5)).status == "none"


async def test_a_child_that_does_not_exist_is_a_refusal(server, connect):
    server.answers["thread/read"] = lambda m: [
        {"id": m["id"], "error": {"code": -32600, "message": "thread not found"}}
    ]
    connection = await connect()
    with pytest.raises(RequestError, match="thread not found"):
        await connection.subagents("p").wait("c", timeout_s=5)
