"""What a prompt may be, and further members of threads and turns: names, types, words."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, get_args

import msgspec
import pytest
from codex_app_server import Connection, InvalidArgument, Thread, versions
from codex_app_server.protocol import types
from codex_app_server.thread_options import (
    ThreadForkMembers,
    ThreadResumeMembers,
    ThreadStartMembers,
    TurnStartMembers,
)

ITEMS = "text, image, localImage, audio, localAudio, skill, mention"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("", "input='': give a prompt"),
        ("  \n", "it is empty"),
        ([], "input=[]: give a text, or at least one item"),
        ({}, "input={}: give a text, or items"),
        (b"go", "input=b'go': give a text, or items"),
        (["go"], "input[0]='go': give a mapping with type: text,"),
        ([{}], f"input[0].type=None: use {ITEMS}"),
        ([{"type": ""}], f"input[0].type='': use {ITEMS}"),
        ([{"type": "bogus"}], f"input[0].type='bogus': use {ITEMS}"),
        ([{"type": "text"}], "input[0]: type 'text' needs text"),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": 5}], "input[1].text=5: give a"),
        ([{"type": "image"}], "input[0]: type 'image' needs url or fileId"),
        ([{"type": "localImage", "path": ""}], "input[0].path='': give a path"),
        ([{"type": "skill", "name": "s"}], "input[0]: type 'skill' needs name and path"),
    ],
)
async def test_input_that_no_server_takes_is_refused(server, connect, given, says):
    thread = await (await connect()).start_thread()
    sent = len(server.sent)
    with pytest.raises(InvalidArgument, match=re.escape(says)):
        thread.run(given)
    assert len(server.sent) == sent
    assert not thread.is_busy


async def test_every_kind_of_input_reaches_the_server(server, connect):
    items = [
        {"type": "text", "text": ""},
        {"type": "image", "url": "data:image/png;base64,"},
        {"type": "image", "fileId": "f"},
        {"type": "localImage", "path": "/a.png", "detail": "high"},
        {"type": "audio", "url": "https://a"},
        {"type": "localAudio", "path": "/a.wav"},
        {"type": "skill", "name": "s", "path": "/s"},
        {"type": "mention", "name": "m", "path": "/m"},
    ]
    thread = await (await connect()).start_thread()
    turn = await thread.run(items).start()
    assert server.requests("turn/start")[0]["params"]["input"] == items
    server.feed(server.ended())
    await turn
    assert {one.tag for one in get_args(types.UserInput)} == {item["type"] for item in items}


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("everything", "target.type='everything': use uncommittedChanges, baseBranch, commit"),
        (5, "target=5: give a mapping with type"),
        ({"type": "baseBranch"}, "target: type 'baseBranch' needs branch"),
        ({"type": "commit", "sha": 5}, "target.sha=5: give a name"),
        ({"type": "custom"}, "target: type 'custom' needs instructions"),
    ],
)
async def test_a_review_of_nothing_is_refused(server, connect, target, says):
    thread = await (await connect()).start_thread()
    with pytest.raises(InvalidArgument, match=re.escape(says)):
        thread.review(target)
    assert server.requests("review/start") == []


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("start_thread", {"modle": "m"}, "'modle'"),
    ("start_thread", {"modelProvider": "m"}, "'modelProvider': did you mean 'model_provider'?"),
    ("start_thread", {"service_teir": "m"}, "'service_teir': did you mean 'service_tier'?"),
    ("start_thread", {"service_tier": 5}, "thread/start: service_tier=5: Expected `str | null`"),
    ("start_thread", {"personality": "rude"}, "personality='rude': use friendly, none, pragm"),
    ("start_thread", {"environments": [{"cwd": 5}]}, "thread/start: environments[0]"),
    ("start_thread", {"thread_id": "t"}, "'thread_id'"),
    ("fork_thread", {"last_turn": "t"}, "'last_turn': did you mean 'last_turn_id'?"),
    ("resume_thread", {"initial_turns_page": 5}, "initial_turns_page=5: Expected `object"),
    ("run", {"sumary": "auto"}, "'sumary': did you mean 'summary'?"),
    ("run", {"summary": "long"}, "turn/start: summary='long': use auto, concise, detailed"),
    ("run", {"thread_id": "other"}, "'thread_id'"),
    ("run", {"service_tier": "a\ud800"}, "service_tier='a\\ud800': cannot be sent as JSON"),
]


@pytest.mark.parametrize(("method", "options", "says"), WRONG)
async def test_a_misspelt_or_wrong_member_is_refused(server, connect, method, options, says):
    connection = await connect()
    thread = await connection.start_thread()
    sent = len(server.sent)
    calls: dict[str, Callable[[], Any]] = {
        "start_thread": lambda: connection.start_thread(**options),
        "resume_thread": lambda: connection.resume_thread("t", **options),
        "fork_thread": lambda: connection.fork_thread("t", **options),
        "run": lambda: thread.run("go", **options).start(),
    }
    with pytest.raises(InvalidArgument, match=re.escape(says)):
        await calls[method]()
    assert len(server.sent) == sent


async def test_a_newer_server_may_know_more_members_words_and_items(server, connect):
    server.answers["initialize"] = lambda m: [server.reply(m, {"userAgent": "x/0.999.0 (y)"})]
    connection = await connect()
    thread = await connection.start_thread(new_member="x", personality="rude")
    params = server.requests("thread/start")[0]["params"]
    assert params == {"newMember": "x", "personality": "rude"}
    turn = await thread.run([{"type": "smell"}], another_one=1).start()
    params = server.requests("turn/start")[0]["params"]
    assert (params["input"], params["anotherOne"]) == ([{"type": "smell"}], 1)
    server.feed(server.ended())
    await turn


MEMBERS: dict[str, tuple[type, Any]] = {
    "thread/start": (ThreadStartMembers, Connection.start_thread),
    "thread/resume": (ThreadResumeMembers, Connection.resume_thread),
    "thread/fork": (ThreadForkMembers, Connection.fork_thread),
    "turn/start": (TurnStartMembers, Thread.run),
}
OTHER_NAMES = {"dynamic_tools": "tools"}


@pytest.mark.parametrize("method", MEMBERS)
def test_every_member_of_the_schema_is_an_argument_of_its_method(method: str) -> None:
    members, function = MEMBERS[method]
    own = set(inspect.signature(function).parameters)
    schema = {one.name for one in msgspec.structs.fields(types.CLIENT_REQUESTS[method].params)}
    taken = {one for one in schema if OTHER_NAMES.get(one, one) in own}
    assert set(members.__annotations__) == schema - taken - {"thread_id"}


def test_the_version_of_the_types_is_known_without_them() -> None:
    assert versions.SCHEMA_VERSION == types.SCHEMA_VERSION
