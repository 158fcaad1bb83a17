"""Builds the parts of one daemon, in the order in which their faults are worth telling.

Each part is closed by the exit stack in the reverse order. Nothing is dispatched while parts are
being built: a fault here ends the start with one message and leaves nothing behind.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from codex_app_server import BufferBudget
from codex_app_server.home import HomeError, prepare_home

from symphony.config.loading import Workflow, WorkflowSource, build_workflow
from symphony.config.places import Places
from symphony.config.settings import Settings
from symphony.config.state_dir import InstanceLock, StateDir, locate
from symphony.config.store import WorkflowStore
from symphony.engine.lookup import IssueLookup
from symphony.engine.loop import Mailbox
from symphony.engine.trackers import TrackerSlot
from symphony.errors import ConfigError, StateDirError
from symphony.hosts.local import LocalHost
from symphony.ledger import Ledger
from symphony.observe.bus import SnapshotBus
from symphony.observe.logs import LogHandle, get_logger, setup_logging
from symphony.runner.session import HomeGate, SessionOptions
from symphony.scheduler.state import SchedulerState, new_state
from symphony.service.backend import EngineBackend
from symphony.service.locks import WorkspaceLocks
from symphony.service.options import DaemonOptions, read_clock
from symphony.service.preflight import CodexPlaces, check_codex_command, find_codex
from symphony.service.view import View
from symphony.service.webhooks import secret_names, take_webhooks
from symphony.trackers import registry
from symphony.trackers.base import ChecksAtStart, Tracker
from symphony.web.server import WebServer
from symphony.workspaces.manager import Workspaces

_log = get_logger(__name__)


WORKSPACE_ROOT = "the workspace root"
"""The name of the lock on the root among the places."""


@dataclass(slots=True)
class Parts:
    """The parts of a daemon that is about to run."""

    store: WorkflowStore
    state_dir: StateDir
    logs: LogHandle
    trackers: TrackerSlot
    ledger: Ledger
    host: LocalHost
    workspaces: Workspaces
    state: SchedulerState
    view: View
    bus: SnapshotBus
    mailbox: Mailbox
    web: WebServer
    session_options: SessionOptions
    places: Places
    locks: WorkspaceLocks


async def build_parts(options: DaemonOptions, stack: AsyncExitStack) -> Parts:
    """Build all parts.

    Raises:
        SymphonyError: The daemon can't start: configuration, state directory, port, tracker.
    """
    store, places, locks = await _load(options)
    settings = store.current.settings
    state_dir = locate(
        store.path, instance=options.instance, logs_root=options.logs_root, env=options.environ
    )
    state_dir.prepare()
    stack.enter_context(state_dir.lock())
    logs = _open_logs(stack, options, settings, state_dir)
    webhooks = take_webhooks(store, options, logs, state_dir)
    trackers = await _trackers(stack, options, store, logs)
    session_options = _session_options(options, settings, state_dir, places, logs)
    ledger = await _open_ledger(stack, store, state_dir)
    host = LocalHost(instance=state_dir.instance)
    stack.push_async_callback(host.aclose)
    workspaces = _workspaces(store, trackers, host, options)
    claim = locks.open(state_dir, settings, Path(await workspaces.open()))
    stack.callback(locks.close)
    state = new_state(settings, workflow_id=store.current.workflow_id, seed=secrets.randbits(128))
    view = _view(state, trackers, ledger, webhooks.problem)
    locks.live = view.progress.keys
    mailbox, bus = Mailbox(), SnapshotBus(view.snapshot)
    stack.callback(bus.close)
    web = WebServer(
        EngineBackend(
            bus=bus,
            state=state,
            ledger=ledger,
            mailbox=mailbox,
            clock=read_clock,
            workspace_path=workspaces.path_for,
            supervisor_pid=lambda: host.supervisor_pid,
            lookup=_lookup(trackers, state),
            tally=view.tally,
        ),
        webhooks=webhooks,
    )
    _listen(stack, web, options, settings, state_dir)
    return Parts(
        store=store,
        state_dir=state_dir,
        logs=logs,
        trackers=trackers,
        ledger=ledger,
        host=host,
        workspaces=workspaces,
        state=state,
        view=view,
        bus=bus,
        mailbox=mailbox,
        web=web,
        session_options=session_options,
        places=_places(state_dir, ledger, claim),
        locks=locks,
    )


def _lookup(trackers: TrackerSlot, state: SchedulerState) -> IssueLookup:
    return IssueLookup(
        tracker=lambda: trackers.current,
        mono=time.monotonic,
        not_before=lambda: state.poll.not_before_mono,
    )


def _view(
    state: SchedulerState,
    trackers: TrackerSlot,
    ledger: Ledger,
    webhook_error: Callable[[], str | None],
) -> View:
    return View(
        state,
        tracker=lambda: trackers.current,
        webhook_error=webhook_error,
        ledger_error=lambda: ledger.degraded,
    )


def _places(state_dir: StateDir, ledger: Ledger, claim: InstanceLock) -> Places:
    return Places(
        {
            "the state directory": state_dir.lock_file,
            "the ledger": ledger.path,
            WORKSPACE_ROOT: claim.path,
        }
    )


def _workspaces(
    store: WorkflowStore, trackers: TrackerSlot, host: LocalHost, options: DaemonOptions
) -> Workspaces:
    return Workspaces(
        settings=lambda: store.current.settings,
        host=host,
        environ=options.environ,
        secret_names=lambda: secret_names(store, trackers),
    )


def build_tracker(
    settings: Settings, options: DaemonOptions, base_dir: Path, logs: LogHandle
) -> Tracker:
    """Build the tracker of these settings, and tell the log which values it must never write.

    Raises:
        TrackerError: It can't be built.
    """
    tracker = registry.build(settings.tracker, options.environ, base_dir)
    logs.redactor.add(*(options.environ.get(name) for name in tracker.secret_environment_names))
    return tracker


def takes_terminal(options: DaemonOptions, settings: Settings) -> bool:
    """Say whether the terminal view is shown."""
    return (
        options.show_terminal and settings.observability.dashboard_enabled and sys.stdout.isatty()
    )


async def _load(options: DaemonOptions) -> tuple[WorkflowStore, CodexPlaces, WorkspaceLocks]:
    base_dir = options.workflow_path.absolute().parent
    locks = WorkspaceLocks()

    def build(source: WorkflowSource) -> Workflow:
        workflow = build_workflow(
            source,
            environ=options.environ,
            profiles=registry.PROFILES,
            validate_tracker=lambda settings: registry.validate(
                settings.tracker, options.environ, base_dir
            ),
        )
        locks.allow(workflow)
        return workflow

    store = WorkflowStore(options.workflow_path, build)
    places = find_codex(options.environ)
    await check_codex_command(
        store.current.settings.codex.command,
        environ=options.environ,
        fallback=places.last,
        tell=lambda text: print(f"symphony: {text}", file=sys.stderr, flush=True),
    )
    return store, places, locks


def _open_logs(
    stack: AsyncExitStack, options: DaemonOptions, settings: Settings, state_dir: StateDir
) -> LogHandle:
    lines: Literal["none", "warnings", "all"] = "none" if options.quiet else "all"
    handle = setup_logging(
        state_dir.logs_root,
        log_format=settings.logging.format,
        stderr="none" if takes_terminal(options, settings) else lines,
    )
    for warning in state_dir.warnings:
        _log.warning("State directory", problem=warning)
    stack.callback(handle.close)
    return handle


async def _trackers(
    stack: AsyncExitStack, options: DaemonOptions, store: WorkflowStore, logs: LogHandle
) -> TrackerSlot:
    slot = TrackerSlot(await _first_tracker(options, store, logs))
    stack.push_async_callback(slot.aclose)
    return slot


async def _first_tracker(options: DaemonOptions, store: WorkflowStore, logs: LogHandle) -> Tracker:
    tracker = build_tracker(store.current.settings, options, store.path.parent, logs)
    faults = await tracker.faults_at_start() if isinstance(tracker, ChecksAtStart) else ()
    if faults:
        listed = "\n".join(f"  {fault}" for fault in faults)
        raise ConfigError("tracker_faulty", f"the tracker has faults to mend first:\n{listed}")
    return tracker


def _codex_home(options: DaemonOptions, state_dir: StateDir) -> Path:
    try:
        return prepare_home(state_dir.codex_home, environment=options.environ)
    except HomeError as error:
        raise StateDirError("state_dir_unusable", str(error)) from error


async def _open_ledger(stack: AsyncExitStack, store: WorkflowStore, state_dir: StateDir) -> Ledger:
    ledger = await Ledger.open(
        state_dir.ledger, workflow_id=store.current.workflow_id, clock=read_clock
    )
    stack.push_async_callback(ledger.aclose)
    ledger.zone = lambda: store.current.settings.budget.zone
    if ledger.notice:
        _log.warning("Ledger", problem=ledger.notice)
    return ledger


def _session_options(
    options: DaemonOptions,
    settings: Settings,
    state_dir: StateDir,
    places: CodexPlaces,
    logs: LogHandle,
) -> SessionOptions:
    return SessionOptions(
        environ=options.environ,
        codex_home=_codex_home(options, state_dir),
        temp_root=state_dir.cache / "tmp",
        codex_first=places.first,
        codex_last=places.last,
        instance=state_dir.instance,
        home_gate=HomeGate(),
        redact=logs.redactor.text,
        buffer_budget=BufferBudget(settings.codex.buffer_limit_mb * 1024 * 1024),
    )


def _listen(
    stack: AsyncExitStack,
    web: WebServer,
    options: DaemonOptions,
    settings: Settings,
    state_dir: StateDir,
) -> None:
    """Open the sockets: a port that is in use is told now, before anything has started."""
    stack.callback(web.close)
    web.listen_control(state_dir.socket)
    port = options.port if options.port is not None else settings.server.port
    if port is not None:
        web.listen_tcp(settings.server.host, port)
