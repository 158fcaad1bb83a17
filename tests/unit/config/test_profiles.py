"""``agent.profiles``: which one an issue takes, what may be in one, and every fault at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from symphony.config.loading import build_workflow, read_workflow
from symphony.config.profiles import Profile, profile_of
from symphony.config.store import Broken, Changed, Repaired, WorkflowChange, WorkflowStore
from symphony.errors import SettingsError
from symphony.model.issue import Issue, IssueId
from symphony.runner.prompt import check_prompt

if TYPE_CHECKING:
    from .conftest import Loader


def issue(state: str = "Todo", *labels: str) -> Issue:
    return Issue(
        id=IssueId("1"),
        identifier="A-1",
        title="x",
        state=state,
        dispatchable=True,
        labels=labels,
    )


def profiles(load: Loader, yaml: str) -> tuple[Profile, ...]:
    return load.front(f"agent:\n  profiles:\n{yaml}").settings.agent.profiles


BY_NAME = """\
    landing: {states: [" In progress "], max_turns: "3"}
    docs: {labels: [Docs], model: small, reasoning_effort: low}
    both: {states: [Todo], labels: [ui, URGENT], read_only: true}
    rest: {continuation_prompt: Go on.}
"""


def test_the_first_profile_that_fits_is_taken(load: Loader) -> None:
    found = profiles(load, BY_NAME)
    assert [profile.name for profile in found] == ["landing", "docs", "both", "rest"]

    def taken(*about: str) -> str | None:
        profile = profile_of(found, issue(*about))
        return None if profile is None else profile.name

    assert taken("IN PROGRESS", "docs") == "landing"
    assert taken("Todo", "docs", "ui", "urgent") == "docs"
    assert taken("Todo", "urgent", "ui") == "both"
    assert taken("Todo", "urgent") == "rest"
    assert profile_of(found[:3], issue("Todo", "urgent")) is None
    assert found[0].max_turns == 3
    assert (found[1].model, found[1].reasoning_effort) == ("small", "low")
    assert found[2].read_only


def test_a_list_of_profiles_has_names_too(load: Loader) -> None:
    found = profiles(load, "    - {name: a b, states: [Todo]}\n    - {name: c}\n")
    assert [profile.name for profile in found] == ["a b", "c"]


def test_all_faults_come_at_once_with_key_line_value_and_what_is_allowed(load: Loader) -> None:
    yaml = """\
    one:
      states: Todo
      labels: [""]
      max_turns: 0
      read_only: perhaps
      model: 5
      prompt: "  "
    two: {prompt: a, prompt_file: b, label: [x], approval_policy: never}
    "-": {}
    four: [1]
    five: {turn_sandbox_policy: {type: dangerFullAccess}, prompt_file: missing.md, states: []}
"""
    with pytest.raises(SettingsError) as caught:
        profiles(load, yaml)
    told = {fault.path.removeprefix("agent.profiles."): fault for fault in caught.value.faults}
    assert set(told) == {
        "one.states",
        "one.labels",
        "one.max_turns",
        "one.read_only",
        "one.model",
        "one.prompt",
        "two.label",
        "two.approval_policy",
        "two.prompt_file",
        "-",
        "four",
        "five.turn_sandbox_policy",
        "five.prompt_file",
        "five.states",
    }
    assert str(told["one.max_turns"]) == (
        "agent.profiles.one.max_turns (line 9): must be an integer above 0, got 0"
    )
    assert str(told["one.states"]).endswith(
        "must be a list of one state or more, none of them blank, got 'Todo'"
    )
    assert "did you mean 'labels'?" in told["two.label"].problem
    assert "read_only: true narrows it" in told["two.approval_policy"].problem
    assert "one of the two" in told["two.prompt_file"].problem
    assert "No such file" in told["five.prompt_file"].problem
    assert told["five.prompt_file"].value == "'missing.md'"
    assert told["two.label"].line == 13


@pytest.mark.parametrize(
    ("yaml", "path", "problem"),
    [
        ("profiles: docs", "agent.profiles", "must be a map of profiles by name"),
        ("profiles: [{states: [Todo]}]", "agent.profiles.0.name", "is required in a list"),
        ("profiles: [{name: a}, {name: a}]", "agent.profiles.1.name", "must differ"),
        ("profiles: {a: {name: b}}", "agent.profiles.a.name", "is no setting of a profile"),
    ],
)
def test_what_is_no_set_of_profiles_is_refused(
    load: Loader, yaml: str, path: str, problem: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load.front(f"agent: {{{yaml}}}")
    (fault,) = caught.value.faults
    assert fault.path == path
    assert problem in fault.problem


def test_a_profile_that_can_never_be_used_is_warned_of(load: Loader) -> None:
    found = load.front(
        "agent:\n  profiles:\n"
        "    a: {labels: [x]}\n    b: {states: [Todo], labels: [x, y]}\n"
        "    c: {states: [Elsewhere], reasoning_effort: wild}\n"
    )
    assert "agent.profiles: 'b' is never used: 'a' before it fits as well" in found.warnings
    assert any("'c' is never used: none of its states" in one for one in found.warnings)
    assert any("reasoning_effort 'wild' is passed on" in one for one in found.warnings)
    assert len([one for one in found.warnings if "profiles" in one]) == 3


@pytest.mark.parametrize(
    ("front", "place"),
    [
        ("agent: {profiles: {a: {model: dear}}}", "agent.profiles.a.model"),
        ("codex: {model: dear}", "codex.model"),
    ],
)
def test_a_model_without_a_price_is_refused_where_money_is_limited(
    load: Loader, front: str, place: str
) -> None:
    budget = (
        "budget: {day: {usd: 5}, prices: {cheap: {input_per_million: 1, output_per_million: 2}}}"
    )
    with pytest.raises(SettingsError, match=rf"no price for the model 'dear' \({place}\)"):
        load.front(f"{budget}\n{front}")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"caf\xe9", "must name a file of UTF-8 text"),
        (b" \n ", "names a blank file"),
        (b"x" * (1024 * 1024 + 1), "larger than 1024 KiB"),
    ],
)
def test_a_prompt_file_that_can_not_be_used_is_a_fault(
    load: Loader, content: bytes, problem: str
) -> None:
    (load.path.parent / "p.md").write_bytes(content)
    with pytest.raises(SettingsError, match=problem):
        profiles(load, "    a: {prompt_file: p.md}\n")


def test_a_prompt_file_that_is_a_pipe_holds_nobody_up(load: Loader) -> None:
    import os

    os.mkfifo(load.path.parent / "pipe")
    with pytest.raises(SettingsError, match="no regular file"):
        profiles(load, "    a: {prompt_file: pipe}\n")


def test_faults_of_every_template_are_told_with_its_place(load: Loader) -> None:
    (load.path.parent / "p.md").write_text("\n\nFine.\n{% if false %}{{ colour }}{% endif %}\n")
    text = """---
tracker: {kind: local}
agent:
  continuation_prompt: "{{ issue.colour }}"
  profiles:
    a: {prompt_file: p.md}
    b:
      prompt: |
        {{ profile }}
        {{ issue.title | shout }}
      continuation_prompt: "{{ turn }}{{ turns }}"
---
{{ nobody }}
"""
    found = load(text, check_prompt=check_prompt).prompt_warnings
    assert len(found) == 5
    body, general, from_file, inline, later = found
    assert body.startswith("line 13: unknown variable 'nobody'")
    assert general.startswith("agent.continuation_prompt: line 1: unknown field 'issue.colour'")
    assert from_file.startswith(f"{load.path.parent}/p.md: line 4: unknown variable 'colour'")
    assert inline.startswith("agent.profiles.b.prompt: line 10: unknown filter 'shout'")
    assert later.startswith("agent.profiles.b.continuation_prompt: line 11: unknown variable")


class Followed:
    """A store over a workflow that names a prompt file."""

    def __init__(self, load: Loader) -> None:
        self.file = load.path.parent / "p.md"
        self.file.write_text("One.")
        self.text = (
            "---\ntracker: {kind: local}\nagent: {profiles: {a: {prompt_file: p.md}}}\n---\n"
        )
        load.write(self.text)
        self.path = load.path
        self.changes: list[WorkflowChange] = []
        self.store = WorkflowStore(
            load.path,
            lambda source: build_workflow(source, environ=load.environ, profiles=load.profiles),
        )
        self.store.subscribe(self.changes.append)

    @property
    def prompt(self) -> str:
        (profile,) = self.store.current.settings.agent.profiles
        assert profile.prompt is not None
        return profile.prompt.text

    def heard(self) -> list[type[Any]]:
        self.store.recheck()
        kinds = [type(change) for change in self.changes]
        self.changes.clear()
        return kinds


def test_a_prompt_file_is_followed_together_with_the_workflow(load: Loader) -> None:
    followed = Followed(load)
    assert followed.prompt == "One."
    assert followed.heard() == []

    followed.file.write_text("Two.")
    assert followed.heard() == [Changed]
    assert followed.prompt == "Two."

    # Both at once: nobody ever sees the one without the other.
    followed.file.write_text("Three.")
    followed.path.write_text(followed.text + "Body.\n")
    assert followed.heard() == [Changed]
    assert (followed.prompt, followed.store.current.prompt_template) == ("Three.", "Body.")

    followed.file.unlink()
    assert followed.heard() == [Broken]
    assert followed.heard() == []
    assert followed.prompt == "Three."
    assert "p.md" in str(followed.store.problem)

    followed.file.write_text("Three.")
    assert followed.heard() == [Repaired]
    assert followed.store.problem is None

    followed.file.unlink()
    followed.store.recheck()
    followed.changes.clear()
    followed.file.write_text("Four.")
    assert followed.heard() == [Changed, Repaired]
    assert followed.prompt == "Four."


def test_a_prompt_file_that_a_broken_version_names_is_followed_too(load: Loader) -> None:
    followed = Followed(load)
    other = followed.path.parent / "other.md"
    followed.path.write_text(followed.text.replace("p.md", "other.md"))
    assert followed.heard() == [Broken]
    other.write_text("Other.")
    assert followed.heard() == [Changed, Repaired]
    assert followed.prompt == "Other."


def test_a_workflow_file_that_is_a_pipe_or_too_large_is_refused_at_once(tmp_path: Path) -> None:
    import os

    from symphony.errors import WorkflowFileError

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WorkflowFileError, match="no regular file"):
        read_workflow(tmp_path / "pipe")
    (tmp_path / "huge").write_bytes(b"x" * 2**21)
    with pytest.raises(WorkflowFileError, match="larger than 1024 KiB") as caught:
        read_workflow(tmp_path / "huge")
    assert caught.value.category == "missing_workflow_file"
