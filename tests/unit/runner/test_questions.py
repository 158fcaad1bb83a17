"""What a person gets to see of a request, and what an approval covers."""

from __future__ import annotations

from typing import Any

import pytest
from codex_app_server import RequestKind, ServerRequestInfo

from symphony.model.question import Decision, QuestionKind, Reply
from symphony.runner.questions import (
    ASKS_LIMIT,
    DETAIL_LIMIT,
    OPTIONS_LIMIT,
    TEXT_LIMIT,
    question_of,
)
from symphony.runner.requests import RequestPolicy

COMMAND = {"command": "make all", "cwd": "/w/A-1", "reason": "to build"}


def request(kind: RequestKind, **params: Any) -> ServerRequestInfo:
    return ServerRequestInfo(
        id=0, method="m", kind=kind, thread_id="t", turn_id="u", item_id="i", params=params
    )


def ask(kind: RequestKind, item: Any = None, redact: Any = str, **params: Any) -> Any:
    return question_of(request(kind, **params), item, redact)


class Silent:
    """A narrator that keeps nothing but what happened."""

    def __init__(self, item: Any = None) -> None:
        self.events: list[str] = []
        self._item = item

    def item(self, item_id: str | None) -> Any:
        return self._item

    def happened(self, event: str, detail: Any = None) -> None:
        self.events.append(event)


def test_questions_keep_their_ids_and_options() -> None:
    options = [{"label": "Red", "description": "warm"}, {"label": "Blue"}, "junk", {"label": ""}]
    asked = [
        {"id": "c", "header": "Colour", "question": "Which?", "options": options, "isSecret": True},
        {"question": "How many?"},
        "junk",
    ]
    question = ask(RequestKind.USER_INPUT, questions=asked)
    assert question.kind is QuestionKind.INPUT
    assert question.text == "Which?\nHow many?"
    assert question.choices == ("c=Red", "c=Blue")
    first, second = question.asks
    assert (first.id, first.header, first.is_secret) == ("c", "Colour", True)
    assert first.options[0].description == "warm"
    assert (second.id, second.options) == ("q2", ())


def test_a_form_tells_its_message_and_schema() -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    question = ask(RequestKind.ELICITATION, message="Your name?", requestedSchema=schema)
    assert (question.kind, question.text) == (QuestionKind.FORM, "Your name?")
    assert '"name"' in question.detail
    assert question.subject == ""


def test_a_command_and_a_file_change_are_told_whole() -> None:
    command = ask(RequestKind.COMMAND, **COMMAND)
    assert command.text == "May it run a command? to build"
    assert command.detail == "make all\nin /w/A-1"
    item = {"changes": [{"path": "a.py", "kind": {"type": "add"}, "diff": "+x"}]}
    change = ask(RequestKind.FILE_CHANGE, item)
    assert (change.kind, change.detail) == (QuestionKind.FILE_CHANGE, "a.py\n+x")


@pytest.mark.parametrize(
    "other",
    [
        {**COMMAND, "command": "make al"},
        {**COMMAND, "cwd": "/w/A-2"},
        {**COMMAND, "command": "make all" + " " * DETAIL_LIMIT + "; rm -rf ~"},
    ],
)
def test_another_command_is_another_subject_however_alike_it_looks(other: Any) -> None:
    first = ask(RequestKind.COMMAND, **COMMAND)
    assert ask(RequestKind.COMMAND, **{**COMMAND, "reason": "again"}).subject == first.subject
    assert ask(RequestKind.COMMAND, **other).subject != first.subject


def test_what_a_request_does_not_tell_has_no_subject() -> None:
    assert ask(RequestKind.COMMAND).subject == ""
    assert ask(RequestKind.FILE_CHANGE).subject == ""
    assert ask(RequestKind.PERMISSIONS).subject == ""
    assert ask(RequestKind.MCP_TOOL, message="May it?").subject == ""
    item = {"command": "make", "cwd": "/w"}
    assert ask(RequestKind.COMMAND, item).detail == "make\nin /w"


def test_secrets_control_characters_and_excess_are_taken_out() -> None:
    asked = [
        {
            "id": str(number),
            "question": "token s3cret \x1b[2J?" + "x" * 5000,
            "options": [{"label": f"l{one}"} for one in range(50)],
        }
        for number in range(30)
    ]
    question = ask(
        RequestKind.USER_INPUT, redact=lambda text: text.replace("s3cret", "***"), questions=asked
    )
    assert len(question.asks) == ASKS_LIMIT
    assert {len(one.options) for one in question.asks} == {OPTIONS_LIMIT}
    assert question.asks[0].text.startswith("token ***  [2J?")
    assert max(len(one.text) for one in question.asks) == TEXT_LIMIT


@pytest.mark.parametrize("questions", [None, "x", [], [None, 3], {"a": 1}])
def test_odd_questions_are_still_a_question(questions: Any) -> None:
    assert ask(RequestKind.USER_INPUT, questions=questions).text == "a question without a text"


async def decide(policy: RequestPolicy, **params: Any) -> Any:
    command: Any = policy.handlers().command
    return await command(request(RequestKind.COMMAND, **params))


async def test_an_approval_is_granted_once_and_for_nothing_else() -> None:
    asked = ask(RequestKind.COMMAND, **COMMAND)
    reply = Reply(question=asked, decision=Decision.APPROVE)
    narrator: Any = Silent()
    policy = RequestPolicy("untrusted", narrator, reply=reply)
    assert await decide(policy, command="make none", cwd="/w/A-1") == "cancel"
    assert policy.blocked is not None
    assert policy.blocked.question.detail == "make none\nin /w/A-1"

    policy = RequestPolicy("untrusted", narrator, reply=reply)
    assert await decide(policy, **COMMAND) == "accept"
    assert narrator.events == ["approval_granted"]
    assert policy.blocked is None
    assert await decide(policy, **COMMAND) == "cancel"
    assert policy.blocked.question == asked


async def test_what_was_declined_is_refused_and_the_turn_goes_on() -> None:
    narrator: Any = Silent()
    reply = Reply(question=ask(RequestKind.COMMAND, **COMMAND), decision=Decision.DECLINE)
    policy = RequestPolicy("untrusted", narrator, reply=reply)
    assert [await decide(policy, **COMMAND) for _ in range(3)] == ["decline"] * 3
    assert policy.blocked is None


async def test_an_answer_in_words_grants_nothing() -> None:
    narrator: Any = Silent()
    reply = Reply(question=ask(RequestKind.COMMAND, **COMMAND), text="yes, approve")
    policy = RequestPolicy("untrusted", narrator, reply=reply)
    assert await decide(policy, **COMMAND) == "cancel"
