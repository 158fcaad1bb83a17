from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from symphony.config.loading import load_workflow
from symphony.config.settings import Settings
from symphony.demo.board import add_issue
from symphony.demo.conversation import Conversation
from symphony.demo.project import (
    DemoError,
    branch_of,
    branches_beyond_main,
    create_repository,
)
from symphony.demo.repository import DemoSample, add_sixth_issue, make_sample, verify
from symphony.demo.script import Exec, Fail, Reply, Say, Tool
from symphony.demo.story import SIXTH, STORY, demo_script
from symphony.errors import TrackerError
from symphony.trackers.local_board import Board
from symphony.trackers.registry import PROFILES


@pytest.fixture
def sample(tmp_path: Path) -> DemoSample:
    return make_sample(tmp_path / "demo")


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t.invalid", "-c", "commit.gpgsign=false"]
    command = ["git", *identity, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def settings_of(sample: DemoSample) -> Settings:
    return load_workflow(sample.workflow_path, environ={}, profiles=PROFILES).settings


def finish(sample: DemoSample, identifier: str, base: str = "main") -> None:
    """What an agent does, as far as the check sees it."""
    git(sample.repo, "switch", "-q", "-c", branch_of(identifier), base)
    git(sample.repo, "commit", "-q", "--allow-empty", "-m", f"{identifier}: work")
    git(sample.repo, "switch", "-q", "main")
    board = Board(sample.board_dir)
    board.comment(identifier, "It is done.", author="agent")
    board.move(identifier, "Done")


def finish_all(sample: DemoSample) -> None:
    for issue in STORY:
        finish(sample, issue.identifier, *map(branch_of, issue.blocked_by))


def problems(sample: DemoSample, **options: bool) -> dict[str, str | None]:
    return {report.identifier: report.problem for report in verify(sample, **options)}


# The repository


def test_the_first_commit_is_the_same_everywhere(tmp_path: Path):
    one, other = create_repository(tmp_path / "a"), create_repository(tmp_path / "b")
    assert one == other
    assert (one.subject, len(one.sha)) == ("Begin textkit", 40)
    assert git(tmp_path / "a", "status", "--porcelain") == ""
    assert (tmp_path / "a/.gitignore").exists()


def test_the_tests_of_the_project_pass(sample: DemoSample):
    environment = {"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["./check"], cwd=sample.repo, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"Ran 1 test" in done.stderr


def test_a_folder_that_is_in_use_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DemoError, match="is not empty: choose another folder"):
        create_repository(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_missing_git_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DemoError, match="git is not on PATH: install it"):
        create_repository(tmp_path / "repo")


def test_only_branches_of_issues_count_and_only_what_main_lacks(sample: DemoSample):
    assert branches_beyond_main(sample.repo) == {}
    git(sample.repo, "branch", "other")
    git(sample.repo, "branch", branch_of("DEMO-9"))
    assert branches_beyond_main(sample.repo) == {"symphony/DEMO-9": []}


def test_a_branch_has_the_commits_of_what_was_merged_into_it(sample: DemoSample):
    finish(sample, "DEMO-1")
    finish(sample, "DEMO-2")
    git(sample.repo, "switch", "-q", branch_of("DEMO-2"))
    git(sample.repo, "merge", "-q", "--no-ff", "-m", "DEMO-2: merge", branch_of("DEMO-1"))
    branches = branches_beyond_main(sample.repo)
    subjects = {name: [one.subject for one in found] for name, found in branches.items()}
    assert subjects["symphony/DEMO-1"] == ["DEMO-1: work"]
    assert subjects["symphony/DEMO-2"][0] == "DEMO-2: merge"
    assert sorted(subjects["symphony/DEMO-2"][1:]) == ["DEMO-1: work", "DEMO-2: work"]


def test_a_git_that_fails_says_where(sample: DemoSample, tmp_path: Path):
    with pytest.raises(DemoError, match=f"git for-each-ref in {tmp_path} failed: .*not a git"):
        branches_beyond_main(tmp_path)


# Board and workflow


def test_the_board_has_five_issues_and_a_person_adds_the_sixth(sample: DemoSample):
    board = Board(sample.board_dir)
    issues = board.read().issues
    assert {issue.identifier: issue.blocked_by for issue in issues} == {
        "DEMO-1": (),
        "DEMO-2": (),
        "DEMO-3": ("DEMO-1",),
        "DEMO-4": (),
        "DEMO-5": (),
    }
    assert sorted(issue.priority or 0 for issue in issues) == [1, 1, 2, 3, 4]
    assert add_sixth_issue(sample) == "DEMO-6"
    assert board.get("DEMO-6").state == "Todo"


def test_the_sixth_issue_is_added_once(sample: DemoSample):
    add_sixth_issue(sample)
    with pytest.raises(TrackerError, match="already has `DEMO-6`"):
        add_sixth_issue(sample)


def test_the_workflow_is_what_the_loader_takes(tmp_path: Path):
    root = tmp_path / "a b's"
    sample = make_sample(root, codex_command="/a b/codex app-server -c 'x=\"y\"'")
    settings = settings_of(sample)
    assert settings.codex.command == "/a b/codex app-server -c 'x=\"y\"'"
    assert Path(settings.workspace.path) == sample.workspace_root
    assert sample.board_dir == root / settings.tracker.provider["path"]
    assert "@" not in (settings.hooks.after_create or "").replace("demo@symphony", "")


def test_a_real_model_backs_off_as_usual(sample: DemoSample, tmp_path: Path):
    live = make_sample(tmp_path / "live", live=True)
    assert settings_of(sample).agent.max_retry_backoff_ms == 2000
    assert settings_of(live).agent.max_retry_backoff_ms == 300_000


def run_hook(script: str, cwd: Path) -> None:
    env = {**os.environ, "SYMPHONY_ISSUE_IDENTIFIER": "DEMO-1"}
    subprocess.run(["bash", "-c", script], cwd=cwd, env=env, check=True, capture_output=True)


def test_the_hooks_bring_the_work_back_without_running_what_the_agent_planted(tmp_path: Path):
    sample = make_sample(tmp_path / "a b's")
    hooks = settings_of(sample).hooks
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    run_hook(hooks.after_create or "", workspace)
    git(workspace, "switch", "-q", "-c", branch_of("DEMO-1"))
    git(workspace, "commit", "-q", "--allow-empty", "-m", "DEMO-1: work")
    planted = workspace / "planted"
    planted.write_text("#!/bin/sh\ntouch ../harm\n")
    planted.chmod(0o755)
    for key in ("core.fsmonitor", "core.sshCommand", "uploadpack.packObjectsHook"):
        git(workspace, "config", key, str(planted))
    git(workspace, "config", "core.hooksPath", str(workspace))
    run_hook(hooks.after_run or "", workspace)
    (found,) = branches_beyond_main(sample.repo).values()
    assert [one.subject for one in found] == ["DEMO-1: work"]
    assert not (tmp_path / "harm").exists()


# The check


def test_a_finished_board_is_in_order(sample: DemoSample):
    finish_all(sample)
    add_sixth_issue(sample)
    finish(sample, "DEMO-6")
    reports = verify(sample)
    assert [report.identifier for report in reports] == [f"DEMO-{n}" for n in range(1, 7)]
    assert all(report.ok for report in reports), reports
    assert [report.commits for report in reports] == [1, 1, 2, 1, 1, 1]
    assert all(len(report.commit or "") == 40 for report in reports)


def test_a_fresh_board_is_not(sample: DemoSample):
    found = problems(sample)
    assert found["DEMO-1"] == "its state is Todo, not Done"
    assert "has no issue `DEMO-6`" in (found["DEMO-6"] or "")
    assert "DEMO-6" not in problems(sample, sixth=False)
    assert not any(report.ok for report in verify(sample))


def test_an_issue_that_is_done_without_a_commit_is_not_in_order(sample: DemoSample):
    finish_all(sample)
    git(sample.repo, "branch", "-D", branch_of("DEMO-4"))
    assert problems(sample, sixth=False)["DEMO-4"] == "no commit on the branch symphony/DEMO-4"


def test_a_commit_of_another_issue_does_not_count(sample: DemoSample):
    finish_all(sample)
    git(sample.repo, "branch", "-f", branch_of("DEMO-5"), branch_of("DEMO-4"))
    assert "no commit" in (problems(sample, sixth=False)["DEMO-5"] or "")


def test_an_issue_that_does_not_build_on_its_blocker_is_not_in_order(sample: DemoSample):
    for issue in STORY:
        finish(sample, issue.identifier)
    assert problems(sample, sixth=False) == {
        "DEMO-1": None,
        "DEMO-2": None,
        "DEMO-3": "symphony/DEMO-3 does not build on symphony/DEMO-1",
        "DEMO-4": None,
        "DEMO-5": None,
    }


def test_an_issue_without_a_comment_is_not_in_order(sample: DemoSample):
    finish_all(sample)
    (sample.board_dir / "DEMO-1.md").unlink()
    add_issue(Board(sample.board_dir), STORY[0])
    Board(sample.board_dir).move("DEMO-1", "Done")
    assert problems(sample, sixth=False)["DEMO-1"] == "it has no comment"


def test_a_broken_board_file_is_reported_and_the_others_still_read(sample: DemoSample):
    finish_all(sample)
    (sample.board_dir / "DEMO-1.md").write_text("nothing")
    found = problems(sample, sixth=False)
    assert "malformed" in (found.pop("DEMO-1") or "")
    assert set(found.values()) == {None}


# The script


def at(identifier: str, *, attempt: int | None = None, finished: int = 0) -> Conversation:
    number = f"\nAttempt: {attempt}" if attempt else ""
    return Conversation((f"Issue: {identifier}{number}",), finished, (), 3)


def answers(conversation: Conversation) -> list[object]:
    """All answers of the turn, as if each call brought its outputs."""
    script, given, outputs = demo_script(now=0), [], ()
    while True:
        stands = Conversation(conversation.prompts, conversation.finished_turns, outputs, 3)
        _, answer = script.answer(stands, lambda place: 0)
        given.append(answer)
        if not isinstance(answer, Reply) or not answer.calls:
            return given
        outputs += ("",) * answer.calls


@pytest.mark.parametrize("issue", [*STORY, SIXTH], ids=lambda issue: issue.identifier)
def test_each_issue_is_moved_to_done_in_its_last_turn(issue: object):
    identifier = issue.identifier  # type: ignore[attr-defined]  # parametrised
    turns = answers(at(identifier, attempt=1, finished=5))
    tools = [item for answer in turns for item in answer.items if isinstance(item, Tool)]
    assert tools[-1].arguments == {"action": "move", "state": "Done"}
    assert isinstance(turns[-1].items[-1], Say)


def test_the_second_issue_fails_on_its_first_attempt_alone():
    assert isinstance(answers(at("DEMO-2"))[-1], Fail)
    assert not any(isinstance(answer, Fail) for answer in answers(at("DEMO-2", attempt=1)))


def test_the_fourth_issue_is_not_done_after_its_first_turn():
    tools = [
        item.arguments["state"]
        for answer in answers(at("DEMO-4"))
        for item in answer.items
        if isinstance(item, Tool)
    ]
    assert tools == ["In Progress"]


def test_the_interpreter_is_quoted_for_the_shell():
    script = demo_script(python="/a b/python", now=0)
    turns = script.issues["DEMO-1"].turns[0]
    commands = [item.command for one in turns for item in one.items if isinstance(item, Exec)]
    assert "PYTHON='/a b/python' ./check" in commands


def test_the_limits_rise_and_stay_below_their_end():
    limits = demo_script(now=1000).rate_limits
    early, late = limits(1), limits(10_000)
    assert early.primary_percent < late.primary_percent == 100
    assert early.primary_resets_at == 1000 + 3 * 3600
