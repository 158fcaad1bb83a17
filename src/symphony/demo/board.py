"""The sample board of the demo: the issues of the story as files of the tracker ``local``."""

from __future__ import annotations

from pathlib import Path

from symphony.demo.story import PREFIX, STORY, StoryIssue
from symphony.trackers.local_board import Board


def create_board(path: Path) -> None:
    """Make the board with the first five issues.

    Raises:
        TrackerError: The folder cannot be written, or has one of the issues already.
    """
    board = Board.create(path, prefix=PREFIX)
    for issue in STORY:
        add_issue(board, issue)


def add_issue(board: Board, issue: StoryIssue) -> None:
    """Put an issue of the story on a board.

    Raises:
        TrackerError: As ``Board.add``.
    """
    board.add(
        issue.title,
        identifier=issue.identifier,
        description=issue.description,
        priority=issue.priority,
        labels=issue.labels,
        blocked_by=issue.blocked_by,
    )
