"""Two boards with issues, the people who work on them, and a tracker that answers badly."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from symphony.errors import TrackerError
from symphony.model.issue import Issue, IssueId

from .scenario import STATES, Scenario, Weather

_START = datetime(2026, 1, 1, tzinfo=UTC)


class Board:
    """What is true of the issues. Deleted issues are kept aside; people may bring them back."""

    def __init__(self, scenario: Scenario, rng: Random) -> None:
        self.rng = rng
        self.issues: dict[IssueId, Issue] = {}
        self.deleted: dict[IssueId, Issue] = {}
        self.filed = 0
        self.limit = scenario.issues + 6
        for _ in range(scenario.issues):
            self.file()

    def file(self) -> None:
        self.filed += 1
        name = f"A-{self.filed}"
        rng = self.rng
        self.issues[IssueId(f"id-{name}")] = Issue(
            id=IssueId(f"id-{name}"),
            identifier=name,
            title=f"Title of {name}",
            state=rng.choice(["Todo", "Todo", "In Progress", "Review"]),
            dispatchable=rng.random() < 0.9,
            priority=rng.choice([None, 1, 2, 3]),
            labels=("agent",) if rng.random() < 0.9 else (),
            created_at=_START + timedelta(minutes=self.filed),
        )

    def change(self, issue_id: IssueId, **fields: Any) -> None:
        """Change an issue that is still there."""
        if issue_id in self.issues:
            self.issues[issue_id] = replace(self.issues[issue_id], **fields)

    def meddle(self) -> str:
        """One thing that a person does; returns a line about it."""
        rng = self.rng
        act = rng.choice(["move", "move", "move", "reopen", "block", "label", "delete", "file"])
        if act == "file" and self.filed < self.limit:
            self.file()
            return f"files A-{self.filed}"
        if act == "delete" and self.deleted and rng.random() < 0.6:
            issue_id, issue = self.deleted.popitem()
            self.issues[issue_id] = issue
            return f"restores {issue_id}"
        if not self.issues:
            return "does nothing"
        issue_id = rng.choice(list(self.issues))
        match act:
            case "reopen":
                self.change(issue_id, state="Todo")
            case "block":
                self.change(issue_id, dispatchable=rng.random() < 0.5)
            case "label":
                self.change(issue_id, labels=rng.choice([(), ("agent",), ("agent", "soon")]))
            case "delete":
                self.deleted[issue_id] = self.issues.pop(issue_id)
            case _:
                self.change(issue_id, state=rng.choice(STATES), priority=rng.choice([None, 1, 2]))
        return f"{act} {issue_id} -> {self.issues.get(issue_id)}"

    def go_quiet(self) -> None:
        """People bring everything into order and leave: all that is left is to be worked on."""
        self.issues |= self.deleted
        self.deleted.clear()
        for issue_id in list(self.issues):
            self.change(issue_id, dispatchable=True, labels=("agent",))


class SimTracker:
    """The adapter of one scope. Both boards hold issues; the second one holds only some of them."""

    def __init__(self, board: Board, *, scope: str, weather: Weather, rng: Random) -> None:
        self.scope = scope
        self.is_down = False
        self._board = board
        self._weather = weather
        self._rng = rng

    kind = "memory"
    secret_environment_names: Sequence[str] = ()

    def shown(self) -> list[Issue]:
        """What a perfect read would show now."""
        return [issue for issue in self._board.issues.values() if self.shows(issue.id)]

    def shows(self, issue_id: IssueId) -> bool:
        return self.scope == "one" or int(issue_id.rsplit("-", 1)[1]) % 2 == 0

    async def fetch_issues_by_states(self, states: Sequence[str]) -> list[Issue]:
        wanted = {state.lower() for state in states}
        return await self._read(lambda: [one for one in self.shown() if one.state_key in wanted])

    async def fetch_issues_by_ids(self, ids: Sequence[IssueId]) -> list[Issue]:
        return await self._read(lambda: [one for one in self.shown() if one.id in ids])

    async def fetch_issue(self, name: str) -> Issue | None:
        found = await self._read(lambda: [one for one in self.shown() if one.identifier == name])
        return found[0] if found else None

    async def _read(self, look: Any) -> list[Issue]:
        rng, weather = self._rng, self._weather
        # What is shown may be old by the time it arrives, or be read at the last moment.
        early = look() if rng.random() < 0.5 else None
        await asyncio.sleep(self._delay())
        if rng.random() < weather.read_lost:
            await asyncio.get_running_loop().create_future()
        if self.is_down or rng.random() < weather.read_error:
            raise TrackerError(
                rng.choice(["tracker_request", "tracker_status", "tracker_rate_limited"]),
                "503 from the provider",
                retry_after_s=rng.choice([None, None, 0.0, 7.0, 90.0]),
            )
        if rng.random() < weather.read_raises:
            raise KeyError("a fault of the adapter")
        answer: list[Issue] = look() if early is None else early
        if rng.random() < weather.read_empty:
            return []
        if rng.random() < weather.read_partial:
            return [issue for issue in answer if rng.random() < 0.6]
        if rng.random() < 0.1:
            rng.shuffle(answer)
        return answer

    def _delay(self) -> float:
        rng = self._rng
        if rng.random() < self._weather.read_slow:
            return rng.choice([3.0, 6.0, 20.0, 119.0, 130.0]) * rng.uniform(0.9, 1.0)
        return rng.uniform(0.005, 0.8)

    def agent_tools(self) -> Sequence[Any]:
        return ()

    async def aclose(self) -> None:
        """Nothing is open."""
