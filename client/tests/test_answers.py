"""What a handler returns for the wire: a reply that the server cannot read would hang its turn."""

from typing import Any

import pytest
from codex_app_server import (
    InvalidArgument,
    RequestOutcome,
    ServerRequestHandlers,
    ServerRequestInfo,
    ServerRequestRecord,
)

METHODS = {
    "command": "item/commandExecution/requestApproval",
    "legacy": "execCommandApproval",
    "permissions": "item/permissions/requestApproval",
    "user_input": "item/tool/requestUserInput",
    "elicitation": "mcpServer/elicitation/request",
}
SAFE: dict[str, dict[str, Any]] = {
    "command": {"decision": "decline"},
    "legacy": {"decision": "denied"},
    "permissions": {"permissions": {}, "scope": "turn"},
    "user_input": {"answers": {}},
    "elicitation": {"action": "decline", "content": None},
}
NETWORK = {"network": {"enabled": True}}


@pytest.mark.parametrize(
    ("kind", "answer", "says"),
    [
        ("command", ["accept"], r"answer=\['accept'\] is no answer"),
        ("command", {"decision": ["accept"]}, r"decision=\['accept'\]: use accept"),
        ("legacy", {}, "decision=None: use approved"),
        ("legacy", {"decision": "yes"}, "decision='yes': use approved"),
        ("permissions", {}, "permissions=None: return a mapping"),
        ("permissions", NETWORK, "permissions=None: return a mapping"),
        ("permissions", {"decision": "accept"}, "permissions=None: return a mapping"),
        ("permissions", {"permissions": ["network"]}, r"permissions=\['network'\]"),
        (
            "permissions",
            {"permissions": NETWORK, "scope": "ever"},
            "scope='ever': use turn, session",
        ),
        ("user_input", {"q": 5}, "answer to 'q'=5: give a text"),
        ("user_input", {"q": ["a", 5]}, "answer to 'q'"),
        ("user_input", {"answers": {"q": {"answers": None}}}, "answer to 'q'"),
        ("elicitation", {}, "action=None: use accept, decline, cancel"),
        ("elicitation", {"action": ["accept"]}, r"action=\['accept'\]: use accept"),
    ],
)
async def test_a_reply_that_the_server_cannot_read_is_not_sent(
    server, connect, kind, answer, says
) -> None:
    told: list[ServerRequestRecord] = []

    async def decide(request: ServerRequestInfo) -> Any:
        return answer

    policies: dict[str, Any] = {kind if kind != "legacy" else "command": decide}
    await connect(handlers=ServerRequestHandlers(**policies, on_answered=told.append))
    server.feed({"id": 0, "method": METHODS[kind], "params": {}})
    assert (await server.replied(0))["result"] == SAFE[kind]
    (record,) = told
    assert record.outcome is RequestOutcome.FAILED
    assert record.error is not None
    with pytest.raises(InvalidArgument, match=says):
        raise InvalidArgument(record.error)


@pytest.mark.parametrize(
    ("kind", "answer", "sent"),
    [
        ("legacy", {"decision": "acceptForSession"}, {"decision": "approved_for_session"}),
        ("legacy", {"decision": "approved"}, {"decision": "approved"}),
        (
            "permissions",
            {"permissions": {**NETWORK, "fileSystem": None}},
            {"permissions": NETWORK, "scope": "turn"},
        ),
        (
            "permissions",
            {"permissions": {}, "scope": "session", "strictAutoReview": True},
            {"permissions": {}, "scope": "session", "strictAutoReview": True},
        ),
        ("user_input", {"q": "a"}, {"answers": {"q": {"answers": ["a"]}}}),
        ("user_input", {"answers": {"q": ["a", "b"]}}, {"answers": {"q": {"answers": ["a", "b"]}}}),
        ("user_input", {"answers": "a"}, {"answers": {"answers": {"answers": ["a"]}}}),
        ("user_input", {}, {"answers": {}}),
        ("elicitation", {"action": "cancel"}, {"action": "cancel"}),
    ],
)
async def test_a_reply_that_says_enough_is_completed(server, connect, kind, answer, sent) -> None:
    handlers = ServerRequestHandlers(
        command="manual", permissions="manual", user_input="manual", elicitation="manual"
    )
    connection = await connect(handlers=handlers)
    server.feed({"id": 0, "method": METHODS[kind], "params": {}})
    async for pending in connection.manual_requests():
        pending.answer(answer)
        break
    assert (await server.replied(0))["result"] == sent
