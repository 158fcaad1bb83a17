"""How an answer reaches the agent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from symphony.config.loading import load_workflow
from symphony.model.issue import Issue, IssueId
from symphony.model.question import Ask, Decision, Option, Question, QuestionKind, Reply
from symphony.model.run import RetryKind, RunId, RunSpec
from symphony.runner.instructions import Instructions
from symphony.runner.replies import answer_note, answer_text, question_text
from symphony.trackers import registry

COLOUR = Ask(id="c", text="Which colour?", options=(Option(label="Red"),))
COATS = Ask(id="n", text="How many coats?", options=(Option(label="Two"),))
QUESTION = Question(kind=QuestionKind.INPUT, text="Which colour?", asks=(COLOUR,))
ISSUE = Issue(id=IssueId("1"), identifier="A-1", title="Paint", state="Todo", dispatchable=True)
SPEC = RunSpec(
    run_id=RunId("r"),
    issue=ISSUE,
    attempt=None,
    retry_kind=RetryKind.UNBLOCKED,
    previous_error="codex turn requires operator input: Which colour?",
    reply=Reply(question=QUESTION, text="as the fence", choices=(("c", "Red"),)),
)


def workflow(folder: Path, template: str) -> Any:
    path = folder / "WORKFLOW.md"
    path.write_text(f"---\ntracker: {{kind: memory}}\n---\n{template}\n")
    return load_workflow(path, environ={}, profiles=registry.PROFILES)


def test_a_resumed_thread_gets_question_and_answer(tmp_path: Path) -> None:
    text = Instructions(SPEC).resumed(workflow(tmp_path, "x"), ISSUE)
    assert "because a person was needed" in text
    assert "> Which colour?" in text
    assert "> Red\n> as the fence" in text
    assert "don't ask the same again" in text


def test_a_template_that_does_not_tell_the_answer_gets_it_appended(tmp_path: Path) -> None:
    text = Instructions(SPEC).first(workflow(tmp_path, "Issue: {{ issue.identifier }}"), ISSUE)
    assert text.startswith("Issue: A-1\n")
    assert text.count("> Which colour?") == 1
    assert "> Red\n> as the fence" in text


def test_a_template_that_tells_the_answer_has_it_its_own_way(tmp_path: Path) -> None:
    template = "{% if answer %}Q: {{ question }} A: {{ answer }}{% else %}none{% endif %}"
    own = workflow(tmp_path, template)
    assert Instructions(SPEC).first(own, ISSUE) == "Q: Which colour? A: Red\nas the fence"
    bare = replace(SPEC, reply=None, retry_kind=None)
    assert Instructions(bare).first(own, ISSUE) == "none"


def test_what_went_on_without_an_answer_says_so(tmp_path: Path) -> None:
    spec = replace(SPEC, reply=None)
    for text in (
        Instructions(spec).resumed(workflow(tmp_path, "x"), ISSUE),
        Instructions(spec).first(workflow(tmp_path, "x"), ISSUE),
    ):
        assert "Nobody has answered here" in text
        assert "Which colour?" in text


def test_a_crash_after_an_answer_tells_both(tmp_path: Path) -> None:
    spec = replace(SPEC, retry_kind=RetryKind.RECOVERY)
    text = Instructions(spec).resumed(workflow(tmp_path, "x"), ISSUE)
    assert "broken off from outside" in text
    assert "> as the fence" in text


def test_several_answers_name_their_questions() -> None:
    question = replace(QUESTION, asks=(COLOUR, COATS))
    reply = Reply(question=question, choices=(("c", "Red"), ("n", "Two")))
    assert answer_text(reply) == "Which colour? Red\nHow many coats? Two"


@pytest.mark.parametrize(
    ("decision", "told"),
    [(Decision.APPROVE, "approved once"), (Decision.DECLINE, "Don't try it again")],
)
def test_a_decision_says_what_it_covers(decision: Decision, told: str) -> None:
    asked = Question(kind=QuestionKind.COMMAND, text="May it run a command?", detail="make")
    note = answer_note(Reply(question=asked, decision=decision, text="for now"))
    assert "> May it run a command?\n> make" in note
    assert "\n> for now" in note
    assert told in note


def test_an_answer_to_a_forgotten_question_is_told_all_the_same() -> None:
    reply = Reply(question=None, text="yes")
    assert question_text(reply) is None
    assert "Asked:" not in answer_note(reply)
    assert "> yes" in answer_note(reply)
