"""The worker of a run whose agent had its last word before the daemon died: winds it up.

Role: does what ``attempt`` was about to do then, so that ``after_run`` runs and the issue's branch
comes back before anybody else works in the workspace; its outcome is the recorded one. A daemon
that dies in the middle of ``after_run`` has it run again, from its start.

Invariant: no process of the run lives any more; nothing that is met here changes its outcome.
Neighbours: ``engine.executor`` runs it in an attempt's place, ``scheduler.restoring`` asks for it.
"""

from __future__ import annotations

import logging
import math

from symphony.errors import SymphonyError
from symphony.model.clock import Instant
from symphony.model.run import Outcome, Phase, RunProgress, RunSpec, StopReason
from symphony.model.spend import NO_SPEND, Raise
from symphony.scheduler.events import RunEnded
from symphony.trackers.base import Tracker
from symphony.workspaces.manager import Workspaces

_log = logging.getLogger(__name__)


class Finishing:
    """Winds one run up.

    Attributes:
        spec: What it was started with.
        tracker: The one in force.
    """

    def __init__(
        self, spec: RunSpec, ended: RunEnded, *, workspaces: Workspaces, tracker: Tracker
    ) -> None:
        self.spec = spec
        self.tracker = tracker
        self._ended = ended
        self._workspaces = workspaces

    def stop(self, reason: StopReason) -> None:
        """Do nothing: its agent is gone, and ``after_run`` runs on every end."""

    def end_after_turn(self) -> None:
        """Do nothing: there is no further turn."""

    def raise_issue_limits(self, amounts: Raise) -> None:
        """Do nothing: it spends no more."""

    async def run(self) -> Outcome:
        """Run ``after_run`` and bring the branch back; return what the run had come to."""
        try:
            await self._after_run()
        except SymphonyError as error:
            self._warn(error.message)
        except Exception as error:
            # What the run had come to counts, whatever this is.
            _log.debug("Run could not be wound up", exc_info=True)
            self._warn(f"{type(error).__name__}: {error}")
        return self._ended.outcome

    async def _after_run(self) -> None:
        path = self._ended.workspace_path
        if path is None:
            return
        workspace = await self._workspaces.find(self.spec.issue, path)
        if workspace is None:
            self._warn(f"the workspace {path} is gone")
            return
        await self._workspaces.after_run(workspace, self.spec)

    def _warn(self, error: str) -> None:
        issue = self.spec.issue
        fields = {"issue_id": issue.id, "issue_identifier": issue.identifier, "error": error}
        _log.warning("Run is not wound up", extra={**fields, "run_id": self.spec.run_id})


def progress_of(spec: RunSpec, ended: RunEnded, now: Instant) -> RunProgress:
    """Return the live record of a run that is wound up again: as it was, and as old."""
    spend = ended.spend or NO_SPEND
    progress = RunProgress(
        run_id=spec.run_id,
        issue=spec.issue,
        attempt=spec.attempt,
        host=ended.host,
        started_mono=now.mono - ended.seconds,
        started_wall=now.wall - ended.seconds,
        last_activity_mono=now.mono,
        phase=Phase.FINISHING,
        workspace_path=ended.workspace_path,
        thread_id=ended.thread_id,
        idle=ended.idle,
        # Hook and git have limits of their own: their silence is no stall.
        busy_until_mono=math.inf,
        waited_s=max(0.0, ended.seconds - spend.wall_ms / 1000),
    )
    progress.meter.take_up(ended.usage)
    progress.cost.take_up(spend)
    return progress
