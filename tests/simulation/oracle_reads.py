"""What the tracker has shown: each issue anew, what was missing, and whose answers count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from symphony.model.issue import Issue
from symphony.scheduler.events import (
    CleanupEnded,
    IssuesRefreshed,
    SettingsChanged,
)

from .blocks import read
from .oracle_books import Books

if TYPE_CHECKING:
    pass


class ReadBooks(Books):
    """Keeps what was asked and shown."""

    def _is_first(self, event: Any) -> bool:
        """Say whether this is the answer that counts, not a copy of it."""
        if event.cause in self._answered:
            return False
        if self._stopping and not isinstance(event, CleanupEnded):
            return False
        self._answered.add(event.cause)
        return event.cause in self._asked

    def _settings_changed(self, event: SettingsChanged) -> None:
        before, self._settings = self._settings, event.settings
        self._settings_since = self._now
        self._config_broken = False
        if before.tracker.provider != event.settings.tracker.provider:
            self._moved_board = True
            self._last_cause_of_former_board = max(self._asked, default=0)
            self._candidates = None
            self._absences.clear()

    def _refreshed(self, event: IssuesRefreshed) -> None:
        command, issued = self._asked[event.cause]
        found = {issue.id: issue for issue in event.issues}
        for issue_id in command.ids:
            if issue_id in found:
                self._show(found[issue_id])
                self._read_blocked(found[issue_id], event.cause, issued)
            elif issue_id in event.unread:
                self._world.counts["issues of an owner that failed"] += 1
            elif event.cause > self._last_cause_of_former_board:
                self._absences.setdefault(issue_id, []).append((issued, self._now))

    def _show(self, issue: Issue) -> None:
        self._seen[issue.id] = issue
        self._absences.pop(issue.id, None)
        if self._standing(issue) != "wanted":
            self._excused.add(issue.id)

    def _read_blocked(self, issue: Issue, cause: int, issued: float) -> None:
        block = self._blocks.get(issue.id)
        if block is None or cause <= self._last_cause_of_former_board or self._stopping:
            return
        if self._standing(issue) == "wanted":
            match read(block, issue, settings=self._settings, issued=issued, board=self._board):
                case "changed":
                    self._changed.add(issue.id)
                case "noted":
                    self._noted.add(issue.id)

    def _is_of_former_board(self) -> bool:
        """Say whether this step takes an answer to what another board was asked."""
        event = self._event
        return isinstance(event, IssuesRefreshed) and (
            event.cause <= self._last_cause_of_former_board
        )

    def _ask(self, command: Any) -> None:
        self._must(command.cause not in self._asked, lambda: f"cause used twice: {command}")
        self._asked[command.cause] = (command, self._now)
