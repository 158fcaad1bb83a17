from __future__ import annotations

from typing import Any

import pytest

from symphony.demo.conversation import Conversation, read_conversation
from symphony.demo.events import reply_stream
from symphony.demo.script import (
    NOTHING_LEFT,
    Exec,
    Fail,
    IssueScript,
    Patch,
    Reply,
    Say,
    Script,
    Think,
    Tool,
    issue_by_line,
    next_answer,
    turn,
)

ENVIRONMENT = {"role": "user", "type": "message", "content": [{"text": "<environment_context>"}]}


def user(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def assistant(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text}]
    return {"type": "message", "role": "assistant", "content": content}


CALL = {"type": "function_call", "name": "exec_command", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "output": "fine"}


def read(*items: object) -> Conversation:
    return read_conversation({"input": list(items)})


def never(place: int) -> int:
    return 0


# Reading a request


def test_a_first_request_has_its_prompt_and_nothing_done():
    stands = read(ENVIRONMENT, user("Issue: DEMO-1\nDo it."))
    assert stands == Conversation(("Issue: DEMO-1\nDo it.",), 0, (), 2)


def test_outputs_count_since_the_last_prompt_and_a_turn_that_ended_with_a_message_is_finished():
    stands = read(user("a"), CALL, OUTPUT, assistant("done"), user("b"), CALL, OUTPUT)
    assert (stands.finished_turns, stands.outputs) == (1, ("fine",))


def test_an_interrupted_turn_is_not_finished():
    aborted = user("<turn_aborted> by the user")
    stands = read(user("a"), assistant("I look"), CALL, OUTPUT, aborted, user("again"))
    assert (stands.finished_turns, stands.outputs) == (0, ())


@pytest.mark.parametrize("message", ["<environment_context>", "# AGENTS.md instructions for /w"])
def test_messages_of_codex_itself_are_no_prompts(message: str):
    assert read(user(message)).prompts == ()


def test_the_output_of_a_tool_may_be_a_list_of_parts_or_an_object():
    parts = {
        "type": "custom_tool_call_output",
        "output": [{"text": "a"}, {"image": 1}, {"text": "b"}],
    }
    nested = {"type": "function_call_output", "output": {"content": "c", "success": True}}
    assert read(user("x"), parts, nested).outputs == ("ab", "c")


@pytest.mark.parametrize("body", [{}, {"input": "text"}, {"input": [1, None, {"type": 3}]}])
def test_a_request_of_another_shape_is_an_empty_conversation(body: dict[str, Any]):
    assert read_conversation(body).prompts == ()


def test_the_attempt_is_what_the_last_prompt_with_a_number_says():
    assert read(user("Issue: A"), user("Issue: A\nAttempt: 3"), user("Go on.")).attempt == 3
    assert read(user("Issue: A\nAttempt: 2\n")).attempt == 2
    assert read(user("Issue: A\n")).attempt is None
    assert read().attempt is None


# Choosing the answer

TURN = turn(Think("hm"), Reply((Exec("a"), Patch("b"))), Tool("t", {}), Say("end"))
WORK = TURN[1:]


@pytest.mark.parametrize(("outputs", "place"), [(0, 0), (1, 0), (2, 1), (3, 2), (9, 2)])
def test_the_place_follows_from_the_number_of_outputs(outputs: int, place: int):
    assert next_answer(WORK, outputs, never) == (place, WORK[place])


def test_a_reply_without_a_call_ends_the_turn():
    assert next_answer(TURN, 5, never)[0] == 0


def test_a_turn_that_is_used_up_says_so():
    assert next_answer(turn(Exec("a")), 1, never) == (1, NOTHING_LEFT)


def test_a_fault_comes_as_often_as_it_says():
    steps = turn(Exec("a"), Fail(times=2), Say("end"))
    assert next_answer(steps, 0, never)[0] == 0
    assert next_answer(steps, 1, lambda place: 1) == (1, steps[1])
    assert next_answer(steps, 1, lambda place: 2) == (2, steps[2])


def test_a_fault_without_a_number_never_ends():
    steps = turn(Fail(times=None), Say("end"))
    assert next_answer(steps, 0, lambda place: 1000) == (0, steps[0])


def test_turns_follow_each_other_and_the_last_one_repeats():
    one, two = turn(Say("1")), turn(Say("2"))
    script = IssueScript((one, two))
    told = [user("p"), assistant("x")]
    assert [script.turn_for(read(*told * n, user("p"))) for n in range(4)] == [one, two, two, two]


def test_the_first_attempt_may_differ():
    script = IssueScript((turn(Say("good")),), first_attempt=(turn(Fail()),))
    assert script.turn_for(read(user("Issue: A"))) == turn(Fail())
    assert script.turn_for(read(user("Issue: A\nAttempt: 1"))) == turn(Say("good"))


def test_the_issue_is_the_first_that_a_prompt_names():
    script = Script({"A": IssueScript((turn(Say("for A")),))})
    conversation = read(user("hello"), user("Issue: A"), user("Issue: B"))
    assert script.issue_in(conversation) == "A"
    assert script.answer(conversation, never)[1] == Reply((Say("for A"),))


def test_a_conversation_about_no_known_issue_is_answered_politely():
    script = Script({})
    assert script.answer(read(user("Issue: Z")), never) == (0, NOTHING_LEFT)
    assert issue_by_line("An Issue: A in the middle") is None


# The events


def test_ids_differ_within_a_thread_and_between_its_requests():
    reply = Reply((Exec("a"), Exec("b"), Say("c")))
    items = [
        event["item"]
        for stands in (read(user("x")), read(user("x"), CALL, OUTPUT))
        for event in reply_stream("r", reply, stands)
        if event["type"] == "response.output_item.done"
    ]
    assert len({item["id"] for item in items}) == len(items) == 6
    assert len({item["call_id"] for item in items if "call_id" in item}) == 4


def test_a_message_is_streamed_word_by_word_and_its_words_add_up():
    text = "  Two words,\nand more. "
    events = list(reply_stream("r", Reply((Say(text),)), read()))
    deltas = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]
    assert len(deltas) == 5
    assert "".join(deltas) == text
    assert events[-1]["response"]["usage"]["total_tokens"] == 1280


def test_arguments_may_be_made_from_the_conversation():
    tool = Tool("t", lambda stands: {"seen": stands.outputs[0]})
    events = reply_stream("r", Reply((tool,)), read(user("x"), OUTPUT))
    calls = [event["item"] for event in events if "item" in event]
    assert (calls[0]["name"], calls[0]["arguments"]) == ("t", '{"seen": "fine"}')
