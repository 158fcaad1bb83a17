"""The composition root: builds the parts of one daemon, runs them, and takes them down in stages.

The order of the start is chosen so that the first poll waits for nothing that it does not need: the
web server, the terminal view and the check of the template come after it. The order of the end is
stop dispatch, end the runs, wait, kill, flush, close; a second signal forces.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import codex_app_server as codex
from codex_app_server.home import HomeError, prepare_home

from symphony.config.loading import Workflow, build_workflow
from symphony.config.settings import Settings
from symphony.config.state_dir import StateDir, locate
from symphony.config.store import Broken, Changed, Repaired, WorkflowChange, WorkflowStore
from symphony.engine.executor import Executor
from symphony.engine.loop import Loop, Mailbox
from symphony.engine.publisher import Publisher
from symphony.engine.recovery import recover
from symphony.engine.stalls import watch_for_stalls
from symphony.engine.trackers import TrackerSlot
from symphony.errors import StateDirError, SymphonyError
from symphony.hosts.local import LocalHost
from symphony.ledger import Ledger
from symphony.model.clock import Instant
from symphony.model.run import RunId, RunProgress
from symphony.observe.bus import SnapshotBus
from symphony.observe.humanize import humanize
from symphony.observe.logs import LogHandle, get_logger, setup_logging
from symphony.runner.attempt import Attempt, RunnerContext
from symphony.runner.session import HomeGate, SessionOptions
from symphony.scheduler.events import (
    ConfigBroken,
    ConfigRepaired,
    RefreshRequested,
    SettingsChanged,
    ShutdownRequested,
)
from symphony.scheduler.publish import build_snapshot
from symphony.scheduler.snapshot import Snapshot
from symphony.scheduler.state import new_state
from symphony.service.backend import EngineBackend
from symphony.service.preflight import bundled_codex_dir, check_codex_command
from symphony.trackers import registry
from symphony.trackers.base import Tracker
from symphony.web.server import WebServer
from symphony.workspaces.manager import Workspaces

_log = get_logger(__name__)

SHUTDOWN_LIMIT_S = 25.0
"""Runs that have not ended this long after the first signal are killed."""


_DECODED_BYTES = 256 * 1024


def read_clock() -> Instant:
    """Read both clocks."""
    return Instant(time.monotonic(), time.time())


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonOptions:
    """What the command line decides.

    Attributes:
        port: TCP port of the API, over ``server.port``; None leaves that to the workflow.
        logs_root: Where ``log/symphony.log`` goes, or None for the state directory.
        instance: A name for the state directory, or None for one made of the workflow's path.
        show_terminal: Whether the terminal view may take the terminal.
        quiet: Whether only warnings go to stderr where there is no terminal view.
        environ: The environment; secrets are looked up in it.
        on_ready: Called with the daemon's addresses once the API answers.
    """

    workflow_path: Path
    port: int | None = None
    logs_root: Path | None = None
    instance: str | None = None
    show_terminal: bool = True
    quiet: bool = False
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    on_ready: Callable[[Daemon], None] | None = None


class Daemon:
    """One daemon of one workflow.

    ``run`` returns once it has been asked to stop (a signal, or ``request_stop``) and everything of
    it is gone.
    """

    def __init__(self, options: DaemonOptions) -> None:
        self.options = options
        self.url: str | None = None
        self.bus: SnapshotBus | None = None
        self._stop = asyncio.Event()
        self._force = asyncio.Event()
        self._progress: dict[RunId, RunProgress] = {}
        self._mailbox = Mailbox()
        self._sequence = 0
        self._rate_limits: dict[str, Any] | None = None
        self._tracker_exchanged = asyncio.Event()
        self.failed: str | None = None

    def request_stop(self) -> None:
        """Stop in stages; asked a second time, kill what is left at once."""
        if self._stop.is_set():
            self._force.set()
        self._stop.set()

    async def run(self) -> None:
        """Run until asked to stop.

        Raises:
            SymphonyError: The daemon can't start: configuration, state directory, port, tracker.
        """
        async with AsyncExitStack() as stack:
            self._environ = self.options.environ
            store = self._load()
            self._state_dir = self._open_state_dir(stack, store.current)
            self._logs = self._open_logs(stack, store.current.settings)
            await self._compose(stack, store)
            async with asyncio.TaskGroup() as tasks:
                await self._serve(tasks, stack)

    # -- building -----------------------------------------------------------------------------

    def _load(self) -> WorkflowStore:
        base_dir = self.options.workflow_path.absolute().parent
        store = WorkflowStore(
            self.options.workflow_path,
            lambda source: build_workflow(
                source,
                environ=self._environ,
                profiles=registry.PROFILES,
                validate_tracker=lambda settings: registry.validate(
                    settings.tracker, self._environ, base_dir
                ),
            ),
        )
        self._fallback = bundled_codex_dir()
        check_codex_command(
            store.current.settings.codex.command, environ=self._environ, fallback=self._fallback
        )
        return store

    def _open_state_dir(self, stack: AsyncExitStack, workflow: Workflow) -> StateDir:
        state_dir = locate(
            workflow.path,
            instance=self.options.instance,
            logs_root=self.options.logs_root,
            env=self._environ,
        )
        state_dir.prepare()
        stack.enter_context(state_dir.lock())
        return state_dir

    def _open_logs(self, stack: AsyncExitStack, settings: Settings) -> LogHandle:
        handle = setup_logging(
            self._state_dir.logs_root,
            log_format=settings.logging.format,
            stderr=self._stderr_lines(settings),
        )
        stack.callback(handle.close)
        for warning in self._state_dir.warnings:
            _log.warning("State directory", problem=warning)
        return handle

    def _stderr_lines(self, settings: Settings) -> Literal["none", "warnings", "all"]:
        if self._takes_terminal(settings):
            return "none"
        return "warnings" if self.options.quiet else "all"

    def _takes_terminal(self, settings: Settings) -> bool:
        return (
            self.options.show_terminal
            and settings.observability.dashboard_enabled
            and sys.stdout.isatty()
        )

    async def _compose(self, stack: AsyncExitStack, store: WorkflowStore) -> None:
        self._store = store
        workflow = store.current
        self._tell_warnings(workflow)
        self._slot = TrackerSlot(self._build_tracker(workflow.settings))
        stack.push_async_callback(self._slot.aclose)
        self._ledger = await Ledger.open(
            self._state_dir.ledger, workflow_id=workflow.workflow_id, clock=read_clock
        )
        stack.push_async_callback(self._ledger.aclose)
        if self._ledger.notice:
            _log.warning("Ledger", problem=self._ledger.notice)
        self._host = LocalHost(instance=self._state_dir.instance)
        stack.push_async_callback(self._host.aclose)
        self._workspaces = self._make_workspaces()
        await self._workspaces.open()
        self._web = self._open_web(stack, workflow.settings)

    def _build_tracker(self, settings: Settings) -> Tracker:
        tracker = registry.build(settings.tracker, self._environ, self._store.path.parent)
        self._tracker_settings = settings.tracker
        self._hide_secrets(tracker)
        return tracker

    def _hide_secrets(self, tracker: Tracker) -> None:
        """Tell the log which values must never be written."""
        for name in tracker.secret_environment_names:
            value = self._environ.get(name)
            if value:
                self._logs.redactor.add(value)

    def _make_workspaces(self) -> Workspaces:
        return Workspaces(
            settings=lambda: self._store.current.settings,
            host=self._host,
            environ=self._environ,
            secret_names=lambda: tuple(self._slot.current.secret_environment_names),
        )

    def _open_web(self, stack: AsyncExitStack, settings: Settings) -> WebServer:
        """Open the sockets: a port that is in use is told now, before anything has started."""
        backend = EngineBackend(
            bus=lambda: self._the_bus,
            state=lambda: self._loop.state,
            ledger=self._ledger,
            post=self._mailbox.post,
            clock=read_clock,
            workspace_path=self._workspaces.path_for,
        )
        web = WebServer(backend)
        stack.callback(web.close)
        web.listen_control(self._state_dir.socket)
        port = self.options.port if self.options.port is not None else settings.server.port
        if port is not None:
            web.listen_tcp(settings.server.host, port)
        self.url = web.url
        return web

    def _session_options(self) -> SessionOptions:
        try:
            home = prepare_home(self._state_dir.codex_home, environment=self._environ)
        except HomeError as error:
            raise StateDirError("state_dir_unusable", str(error)) from error
        return SessionOptions(
            environ=self._environ,
            codex_home=home,
            temp_root=self._state_dir.cache / "tmp",
            fallback_path=self._fallback,
            instance=self._state_dir.instance,
            home_gate=HomeGate(),
        )

    # -- running ------------------------------------------------------------------------------

    async def _serve(self, tasks: asyncio.TaskGroup, stack: AsyncExitStack) -> None:
        workflow = self._store.current
        state = new_state(
            workflow.settings, workflow_id=workflow.workflow_id, seed=secrets.randbits(128)
        )
        options = self._session_options()
        context = RunnerContext(
            workflow=lambda: self._store.current,
            tracker=lambda: self._slot.current,
            host=self._host,
            workspaces=self._workspaces,
            ledger=self._ledger,
            clock=read_clock,
            post=self._mailbox.post,
            session_options=options,
            describe=_settle,
            on_rate_limits=self._keep_rate_limits,
        )
        self._executor = Executor(
            tasks=tasks,
            post=self._mailbox.post,
            clock=read_clock,
            tracker=lambda: self._slot.current,
            workspaces=self._workspaces,
            ledger=self._ledger,
            make_attempt=lambda spec, progress: Attempt(spec, progress, context),
            progress=self._progress,
            describe=_settle,
            before_poll=self._store.recheck,
        )
        self.bus = self._the_bus = SnapshotBus(self._snapshot)
        stack.callback(self.bus.close)
        publisher = Publisher(
            build=self._snapshot,
            publish=self.bus.publish,
            durable=self._ledger.flush,
            progress=self._progress,
            settle=_settle,
        )
        self._loop = Loop(
            state=state,
            mailbox=self._mailbox,
            execute=self._executor.execute,
            clock=read_clock,
            stepped=publisher.request,
        )
        self._mailbox.post(
            await recover(self._ledger, instance=self._state_dir.instance, clock=read_clock)
        )
        stack.callback(self._store.subscribe(self._config_changed))
        background = self._start_background(tasks, publisher)
        self._handle_signals(stack)
        await self._stop.wait()
        await self._shut_down(background)

    def _start_background(
        self, tasks: asyncio.TaskGroup, publisher: Publisher
    ) -> list[asyncio.Task[None]]:
        def start(name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
            return tasks.create_task(self._endless(name, work), name=name)

        return [
            start("scheduler", self._loop.run()),
            start("publisher", publisher.run()),
            start("workflow watch", self._store.watch()),
            start("tracker watch", self._watch_tracker()),
            start(
                "stall watch",
                watch_for_stalls(
                    progress=self._progress,
                    limit_s=lambda: self._store.current.settings.codex.stall_timeout_s,
                    now=time.monotonic,
                    post=self._mailbox.post,
                ),
            ),
            start("surfaces", self._surfaces()),
        ]

    async def _endless(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run a task that is not meant to end; its failure ends the daemon in stages."""
        try:
            await work
        except Exception:
            _log.exception("A part of the daemon failed; stopping", part=name)
            self.failed = name
            self._stop.set()

    async def _surfaces(self) -> None:
        """Serve the API and show the terminal view, once the first poll is under way."""
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(self._web.run(), name="web server")
            await self._web.wait_started()
            _log.info(
                "Serving",
                socket=str(self._state_dir.socket),
                url=self._web.url,
                log=str(self._logs.path),
            )
            if self.options.on_ready is not None:
                self.options.on_ready(self)
            if self._takes_terminal(self._store.current.settings):
                await self._show_terminal()
            await serving

    async def _show_terminal(self) -> None:
        from symphony.terminal.dashboard import TerminalView, Urls

        view = TerminalView(lambda: Urls(dashboard=self._web.url))
        await view.run(self._the_bus.subscribe)

    async def _watch_tracker(self) -> None:
        """Poll as soon as a watched board changes; follows the tracker that is in force."""
        while True:
            self._tracker_exchanged.clear()
            watch = asyncio.create_task(self._follow(self._slot.current), name="board watch")
            try:
                await self._tracker_exchanged.wait()
            finally:
                watch.cancel()
                await asyncio.wait([watch])

    async def _follow(self, tracker: Tracker) -> None:
        changes = tracker.changes()
        if changes is None:
            return
        try:
            async for _ in changes:
                self._mailbox.post(RefreshRequested("tracker"))
        except Exception:
            # Polling goes on without the watch; it is slower, not wrong.
            _log.exception("The tracker's watch failed; polling goes on without it")

    # -- changes of the configuration ---------------------------------------------------------

    def _config_changed(self, change: WorkflowChange) -> None:
        match change:
            case Changed(workflow):
                self._tell_warnings(workflow)
                _log.info("Workflow reloaded", path=str(workflow.path))
                self._exchange_tracker(workflow.settings)
                self._mailbox.post(SettingsChanged(workflow.settings))
            case Broken(error):
                _log.error(
                    "Failed to reload workflow, keeping last known good configuration",
                    path=str(self._store.path),
                    error=error.message,
                )
                self._mailbox.post(ConfigBroken(error.message))
            case Repaired():
                _log.info("Workflow is valid again", path=str(self._store.path))
                self._mailbox.post(ConfigRepaired())

    def _exchange_tracker(self, settings: Settings) -> None:
        if settings.tracker == self._tracker_settings:
            return
        try:
            tracker = self._build_tracker(settings)
        except SymphonyError as error:
            _log.error("The tracker of the new workflow can't be used", error=error.message)
            return
        self._slot.exchange(tracker)
        self._tracker_exchanged.set()

    def _tell_warnings(self, workflow: Workflow) -> None:
        for warning in workflow.warnings:
            _log.warning("Workflow setting", path=str(workflow.path), problem=warning)

    # -- the view -----------------------------------------------------------------------------

    def _snapshot(self) -> Snapshot:
        self._sequence += 1
        return build_snapshot(
            self._loop.state,
            self._progress,
            read_clock(),
            sequence=self._sequence,
            rate_limits=self._rate_limits,
        )

    def _keep_rate_limits(self, limits: Mapping[str, Any]) -> None:
        """Keep the newest rate limits; nulls never take the place of known values."""
        known = {key: value for key, value in limits.items() if value is not None}
        if known.keys() - {"limitId", "limitName"}:
            self._rate_limits = {**(self._rate_limits or {}), **known}

    # -- the end ------------------------------------------------------------------------------

    def _handle_signals(self, stack: AsyncExitStack) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.request_stop)
            stack.callback(loop.remove_signal_handler, number)

    async def _shut_down(self, background: list[asyncio.Task[None]]) -> None:
        _log.info("Stopping", runs=len(self._executor.attempts))
        self._mailbox.post(ShutdownRequested())
        if not await self._runs_ended(SHUTDOWN_LIMIT_S):
            _log.warning("Runs are killed", runs=len(self._executor.attempts))
            await self._host.aclose()
            self._executor.cancel_all()
        await self._executor.drained()
        self._web.stop()
        for task in background:
            task.cancel()
        await asyncio.wait(background)
        _log.info("Stopped")

    async def _runs_ended(self, limit_s: float) -> bool:
        """Wait for all runs to end; give up after the limit or when forced."""
        ended = asyncio.create_task(self._executor.idle(), name="runs ended")
        forced = asyncio.create_task(self._force.wait(), name="forced")
        try:
            await asyncio.wait(
                (ended, forced), timeout=limit_s, return_when=asyncio.FIRST_COMPLETED
            )
            return ended.done()
        finally:
            for task in (ended, forced):
                task.cancel()
            await asyncio.wait((ended, forced))


def _settle(message: Any) -> str:
    """Turn a run's newest event into a text for people."""
    if message is None or isinstance(message, str):
        return message or ""
    if isinstance(message, codex.Event):
        # Whole files and outputs are not decoded for the sake of one line.
        params = message.data if len(message.raw) <= _DECODED_BYTES else {}
        return humanize("notification", {"method": message.method, "params": params})
    event = str(message.get("event"))
    if event == "turn_completed":
        return humanize("notification", {"method": "turn/completed", "params": {}})
    return humanize(event, message)
