"""The sample of the demo, repository and board and workflow: set up, and checked at the end.

Invariant: the check reads the repository's log and the board's files and asks nobody else; what
the daemon says about itself counts for nothing. ``story`` has what is expected.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TypeAlias

from symphony.demo.board import add_issue, create_board
from symphony.demo.project import Commit, branch_of, branches_beyond_main, create_repository
from symphony.demo.story import DONE, SIXTH, STORY, StoryIssue
from symphony.errors import TrackerError
from symphony.model.issue import normalize_state
from symphony.trackers.local_board import Board

Branches: TypeAlias = Mapping[str, Sequence[Commit]]
"""By name; the commits beyond main, newest first."""


@dataclass(frozen=True, slots=True)
class DemoSample:
    """Where the parts of a demo lie.

    Attributes:
        root: The folder of everything.
        repo: The sample repository.
        board_dir: The board of the tracker ``local``.
        workflow_path: The WORKFLOW.md to run.
        workspace_root: Where the workflow puts workspaces.
    """

    root: Path
    repo: Path
    board_dir: Path
    workflow_path: Path
    workspace_root: Path


@dataclass(frozen=True, slots=True)
class IssueReport:
    """What became of one issue.

    Attributes:
        identifier: Of the issue.
        title: As on the board, or of the story where the file is gone.
        expected_state: In which it should be.
        state: In which it is, or None where its file is gone or malformed.
        commit: Hash of the newest commit on its branch, or None.
        commits: How many commits the branch has beyond the first one of the repository.
        problem: What is wrong, or None.
    """

    identifier: str
    title: str
    expected_state: str
    state: str | None
    commit: str | None
    commits: int
    problem: str | None

    @property
    def ok(self) -> bool:
        """Whether everything is as it should be."""
        return self.problem is None


def make_sample(
    root: Path, *, codex_command: str = "codex app-server", live: bool = False
) -> DemoSample:
    """Make repository, board and workflow in a folder.

    Args:
        root: Made if absent. It should not lie below the temp directory, where Codex's sandbox
            lets one agent write to the workspace of another.
        codex_command: The workflow's ``codex.command``, for ``bash -lc``.
        live: Whether a real model works on the board; then failures back off as usual.

    Raises:
        DemoError: The folder holds another repository, or git is missing or fails.
        TrackerError: The board cannot be written.
        OSError: The folder cannot be written.
    """
    root = root.absolute()
    sample = DemoSample(
        root, root / "textkit", root / "board", root / "WORKFLOW.md", root / "workspaces"
    )
    create_repository(sample.repo)
    create_board(sample.board_dir)
    template = (files("symphony.demo") / "templates" / "WORKFLOW.md").read_text("utf-8")
    text = template.replace("@REPOSITORY@", shlex.quote(str(sample.repo)))
    # A JSON string is a YAML string, whatever the command holds.
    text = text.replace("@CODEX_COMMAND@", json.dumps(codex_command, ensure_ascii=False))
    text = text.replace("@MAX_RETRY_BACKOFF_MS@", "300000" if live else "2000")
    sample.workflow_path.write_text(text, "utf-8")
    return sample


def add_sixth_issue(sample: DemoSample) -> str:
    """Put the sixth issue on the board, as a person does meanwhile, and return its identifier.

    Raises:
        TrackerError: The board cannot be written, or has it already.
    """
    add_issue(Board(sample.board_dir), SIXTH)
    return SIXTH.identifier


def verify(sample: DemoSample, *, sixth: bool = True) -> list[IssueReport]:
    """Return what became of each issue, from git's log and the board's files alone.

    Args:
        sample: What ``make_sample`` returned.
        sixth: Whether the sixth issue is expected too.

    Raises:
        DemoError: git fails.
    """
    expected = (*STORY, SIXTH) if sixth else STORY
    board, branches = Board(sample.board_dir), branches_beyond_main(sample.repo)
    return [_report(board, branches, issue) for issue in expected]


def _report(board: Board, branches: Branches, issue: StoryIssue) -> IssueReport:
    commits = branches.get(branch_of(issue.identifier), [])
    problem = _problem_of_branch(branches, issue)
    title, state = issue.title, None
    try:
        document = board.get(issue.identifier)
        title, state = document.title, document.state
        problem = _problem_on_board(board, issue, state) or problem
    except TrackerError as error:
        problem = error.message
    newest = commits[0].sha if commits else None
    return IssueReport(issue.identifier, title, DONE, state, newest, len(commits), problem)


def _problem_on_board(board: Board, issue: StoryIssue, state: str) -> str | None:
    if normalize_state(state) != normalize_state(DONE):
        return f"its state is {state}, not {DONE}"
    if not board.comments(issue.identifier):
        return "it has no comment"
    return None


def _problem_of_branch(branches: Branches, issue: StoryIssue) -> str | None:
    branch = branch_of(issue.identifier)
    commits = branches.get(branch, [])
    if not any(commit.subject.startswith(f"{issue.identifier}: ") for commit in commits):
        return f"no commit on the branch {branch}"
    for blocker in issue.blocked_by:
        base = branches.get(branch_of(blocker))
        if not base or base[0] not in commits:
            return f"{branch} does not build on {branch_of(blocker)}"
    return None
