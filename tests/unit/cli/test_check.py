"""``symphony check`` and ``symphony tracker test`` tell which profile is for which issues."""

from __future__ import annotations

from pathlib import Path

import pytest

from symphony.cli.check import check_workflow
from symphony.cli.tracker import describe
from symphony.config.loading import load_workflow
from symphony.model.issue import Issue, IssueId
from symphony.trackers import registry

FRONT = """---
tracker: {kind: memory, active_states: [Todo, Merging], terminal_states: [Done]}
codex: {command: "true"}
agent:
  profiles:
    landing: {states: [Merging], prompt: "Land it. LANDING", max_turns: 2, read_only: true}
    docs: {labels: [docs, easy], model: small, reasoning_effort: low}
---
Work on {{ issue.title }}.
"""


def workflow(tmp_path: Path, text: str = FRONT) -> Path:
    path = tmp_path / "WORKFLOW.md"
    path.write_text(text)
    return path


def test_check_lists_the_profiles_with_what_they_are_for_and_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_workflow(workflow(tmp_path)) == 0
    landing, docs, valid = capsys.readouterr().out.splitlines()
    assert landing == (
        "profile landing: state merging: prompt agent.profiles.landing.prompt, turns 2, "
        "read only yes"
    )
    assert docs == "profile docs: label docs and easy: model small, effort low"
    assert valid.endswith("valid; tracker memory, active Todo, Merging")


def test_check_takes_a_fault_in_a_profiles_template_for_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = workflow(tmp_path, FRONT.replace("LANDING", "{% if false %}{{ colour }}{% endif %}"))
    assert check_workflow(path) == 1
    assert "agent.profiles.landing.prompt: line 6: unknown variable 'colour'" in (
        capsys.readouterr().err
    )


def test_check_tells_settings_prompts_command_and_warnings_all_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = FRONT.replace('"true"', "/no/such/codex").replace("LANDING", "{{ colour }}")
    text = text.replace("tracker:", "pollings: 1\npolling: {interval_ms: soon}\ntracker:")
    assert check_workflow(workflow(tmp_path, text + "{{ issue.title | shout }} {{ mood }}")) == 1
    said = capsys.readouterr().err
    for fault in (
        "polling.interval_ms (line 3): must be an integer above 0, got 'soon'",
        "unknown setting 'pollings' (line 2)",
        "error: line 12: unknown filter 'shout'",
        "error: line 12: unknown variable 'mood'",
        "agent.profiles.landing.prompt: line 8: unknown variable 'colour'",
        "error: codex.command: the program '/no/such/codex' can't be found",
    ):
        assert fault in said


def test_check_tells_of_the_prompt_where_no_tracker_can_be_made_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_workflow(workflow(tmp_path, "---\nagent: {}\n---\n{{ mood }}")) == 1
    said = capsys.readouterr().err
    assert "tracker.kind: is required" in said
    assert "error: line 4: unknown variable 'mood'" in said


def test_the_trackers_test_says_which_profile_each_issue_would_take(tmp_path: Path) -> None:
    loaded = load_workflow(workflow(tmp_path), environ={}, profiles=registry.PROFILES)
    issues = [
        Issue(
            id=IssueId(name),
            identifier=name,
            title="x",
            state=state,
            dispatchable=True,
            labels=labels,
        )
        for name, state, labels in (
            ("A-1", "Merging", ()),
            ("A-2", "Todo", ("easy", "docs")),
            ("A-3", "Todo", ()),
        )
    ]
    _, first, second, third = describe(loaded, issues)
    assert "starts, profile landing" in first
    assert "starts, profile docs" in second
    assert "profile" not in third
