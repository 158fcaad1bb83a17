"""Follows what may change while a daemon runs: the workflow file, and a board with a watch."""

from __future__ import annotations

import asyncio

from symphony.config.loading import Workflow, prompt_findings
from symphony.config.settings import Settings
from symphony.config.store import Broken, Changed, Repaired, WorkflowChange
from symphony.errors import SymphonyError
from symphony.observe.logs import get_logger
from symphony.scheduler.events import (
    ConfigBroken,
    ConfigRepaired,
    RefreshRequested,
    SettingsChanged,
)
from symphony.service.options import DaemonOptions
from symphony.service.parts import WORKSPACE_ROOT, Parts, build_tracker
from symphony.service.webhooks import register_secrets
from symphony.trackers.base import Tracker

_log = get_logger(__name__)


class Following:
    """Turns changes into events and puts an exchanged tracker in force."""

    def __init__(self, parts: Parts, options: DaemonOptions) -> None:
        self._parts = parts
        self._options = options
        self._tracker_settings = parts.store.current.settings.tracker
        self._tracker_exchanged = asyncio.Event()
        self._prompt_changed = asyncio.Event()

    def config_changed(self, change: WorkflowChange) -> None:
        """Take a change of the workflow file (the store's callback)."""
        path = str(self._parts.store.path)
        match change:
            case Changed(workflow):
                _log.info("Workflow reloaded", path=path)
                tell_warnings(workflow)
                register_secrets(workflow.settings, self._options, self._parts.logs)
                self._exchange_tracker(workflow.settings)
                self._parts.locks.release_unused()
                self._parts.places.move(WORKSPACE_ROOT, self._parts.locks.path)
                self._prompt_changed.set()
                self._parts.mailbox.post(SettingsChanged(workflow.settings))
            case Broken(error):
                _log.error(
                    "Failed to reload workflow, keeping last known good configuration",
                    path=path,
                    error=error.message,
                )
                self._parts.mailbox.post(ConfigBroken(error.message))
            case Repaired():
                _log.info("Workflow is valid again", path=path)
                self._parts.mailbox.post(ConfigRepaired())

    async def watch_tracker(self) -> None:
        """Poll as soon as a watched board changes; follows the tracker that is in force."""
        while True:
            self._tracker_exchanged.clear()
            tracker = self._parts.trackers.current
            watch = asyncio.create_task(self._follow(tracker), name="board watch")
            try:
                await self._tracker_exchanged.wait()
            finally:
                watch.cancel()
                await asyncio.wait([watch])

    async def check_prompts(self) -> None:
        """Tell faults of each version of the template; its engine is too slow for the start."""
        from symphony.runner.prompt import check_prompt

        while True:
            self._prompt_changed.clear()
            workflow = self._parts.store.current
            for prompt in workflow.prompts:
                for fault in await asyncio.to_thread(prompt_findings, prompt, check_prompt):
                    _log.warning("Prompt template", path=str(workflow.path), problem=fault)
            await self._prompt_changed.wait()

    async def _follow(self, tracker: Tracker) -> None:
        changes = tracker.changes()
        if changes is None:
            return
        # What changed between the last poll and the watch is seen by this one.
        self._parts.mailbox.post(RefreshRequested("tracker"))
        try:
            async for _ in changes:
                self._parts.mailbox.post(RefreshRequested("tracker"))
        except Exception:
            # Polling goes on without the watch; it is slower, not wrong.
            _log.exception("The tracker's watch failed; polling goes on without it")

    def _exchange_tracker(self, settings: Settings) -> None:
        if settings.tracker == self._tracker_settings:
            return
        parts = self._parts
        try:
            tracker = build_tracker(settings, self._options, parts.store.path.parent, parts.logs)
        except SymphonyError as error:
            _log.error("The tracker of the new workflow can't be used", error=error.message)
            return
        self._tracker_settings = settings.tracker
        parts.trackers.exchange(tracker)
        self._tracker_exchanged.set()


def tell_warnings(workflow: Workflow) -> None:
    """Log what is odd but usable in a workflow's settings."""
    for warning in workflow.warnings:
        _log.warning("Workflow setting", path=str(workflow.path), problem=warning)
