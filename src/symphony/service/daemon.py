"""The composition root: runs the parts of one daemon and takes them down in stages.

The order of the start is chosen so that the first poll waits for nothing that it does not need: the
web server, the terminal view and the check of the template come beside it. The order of the end is
stop dispatch, end the runs, wait, kill, flush, close; a second signal forces.
"""

from __future__ import annotations

import asyncio
import gc
import shutil
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from importlib import import_module
from typing import Any

from symphony.config.settings import Settings
from symphony.engine.conditions import ConditionWatch
from symphony.engine.executor import Executor
from symphony.engine.loop import Loop
from symphony.engine.publisher import Publisher
from symphony.engine.recovery import recover
from symphony.engine.retention import keep_pruned
from symphony.engine.spending import SpendReporter
from symphony.engine.stalls import watch_for_stalls
from symphony.observe.logs import get_logger
from symphony.runner.attempt import Attempt, RunnerContext
from symphony.scheduler.eligibility import ResourceRules
from symphony.scheduler.events import ShutdownRequested
from symphony.service.following import Following, tell_warnings
from symphony.service.options import DaemonOptions, read_clock
from symphony.service.pace import observe_pace
from symphony.service.parts import Parts, build_parts, takes_terminal
from symphony.service.view import describe
from symphony.trackers.base import Tracker
from symphony.trackers.shared_reads import SharedReads

_log = get_logger(__name__)

LAST_STEPS_S = 5.0
"""How long a shutdown waits for the scheduler to take the last ends; a failed one never does."""

Part = Callable[[], Coroutine[Any, Any, None]]

FIRST_LOOK_S = 1.0
"""How long the start waits for the host's resources: the first poll is to know them."""

FIRST_POLL_S = 1.0
"""How long the rest of the daemon waits for the first poll's answer."""

SHUTDOWN_LIMIT_S = 25.0
"""Runs that have not ended this long after the first signal are killed."""


class Daemon:
    """One daemon of one workflow.

    ``run`` returns once it has been asked to stop (a signal, or ``request_stop``) and everything of
    it is gone.

    Attributes:
        failed: The part whose failure ended the daemon, or None.
    """

    def __init__(self, options: DaemonOptions) -> None:
        self._options = options
        self._stop = asyncio.Event()
        self._force = asyncio.Event()
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
            self._handle_signals(stack)
            parts = await self._built(stack)
            if parts is None:
                print("symphony: stopped before the start was complete", file=sys.stderr)
                return
            tell_warnings(parts.store.current)
            restored = await recover(
                parts.ledger, instance=parts.state_dir.instance, clock=read_clock
            )
            # What was killed could not take its temp directory away.
            temp_root = parts.session_options.temp_root
            await asyncio.to_thread(shutil.rmtree, temp_root, ignore_errors=True)
            parts.mailbox.post(restored)
            try:
                async with asyncio.TaskGroup() as tasks:
                    await self._serve(parts, tasks, stack)
            except Exception:
                # Told here, where the log still takes the secrets out.
                _log.exception("The daemon failed")
                self.failed = "daemon"

    async def _built(self, stack: AsyncExitStack) -> Parts | None:
        """Build the parts; None where a signal to stop came before they were there."""
        building = asyncio.create_task(build_parts(self._options, stack), name="build")
        stopping = asyncio.create_task(self._stop.wait(), name="stop while building")
        try:
            await asyncio.wait((building, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            if not building.done():
                building.cancel()
            await asyncio.wait((building, stopping))
        return None if building.cancelled() else building.result()

    async def _serve(self, parts: Parts, tasks: asyncio.TaskGroup, stack: AsyncExitStack) -> None:
        reporter = SpendReporter(
            progress=parts.view.progress,
            post=parts.mailbox.post,
            ledger=parts.ledger,
            clock=read_clock,
        )
        executor = self._make_executor(parts, tasks, reporter)
        watch = await _first_look(parts)
        publisher = Publisher(
            build=parts.view.snapshot,
            publish=parts.bus.publish,
            durable=parts.ledger.flush,
            progress=parts.view.progress,
            settle=describe,
        )
        loop = Loop(
            state=parts.state,
            mailbox=parts.mailbox,
            execute=executor.execute,
            clock=read_clock,
            stepped=publisher.request,
        )
        following = Following(parts, self._options)
        stack.callback(parts.store.subscribe(following.config_changed))
        # What imports a lot or can wait does so until the first poll is under way and answered.
        at_once: Mapping[str, Part] = {
            "scheduler": loop.run,
            "publisher": publisher.run,
            "spend reports": reporter.run,
        }
        later: Mapping[str, Part] = {
            "workflow watch": parts.store.watch,
            "tracker watch": following.watch_tracker,
            "prompt check": partial(_once_served, parts, following.check_prompts),
            "surfaces": partial(self._surfaces, parts),
            "retention": partial(
                keep_pruned,
                parts.ledger,
                retention_days=lambda: parts.store.current.settings.ledger.retention_days,
                clock=read_clock,
            ),
            "condition watch": watch.run,
            "stall watch": partial(_watch_stalls, parts),
        }
        background = [
            tasks.create_task(self._endless(name, part), name=name)
            for name, part in at_once.items()
        ]
        background.append(tasks.create_task(_warm_up(executor), name="warm-up"))
        for name, part in later.items():
            work = self._endless(name, part, after=executor)
            background.append(tasks.create_task(work, name=name))
        await self._stop.wait()
        await self._shut_down(parts, executor, background)

    def _make_executor(
        self, parts: Parts, tasks: asyncio.TaskGroup, reporter: SpendReporter
    ) -> Executor:
        reads = SharedReads(tasks)
        context = RunnerContext(
            workflow=lambda: parts.store.current,
            tracker=lambda: parts.trackers.current,
            host=parts.host,
            workspaces=parts.workspaces,
            ledger=parts.ledger,
            clock=read_clock,
            post=parts.mailbox.post,
            session_options=parts.session_options,
            describe=describe,
            on_rate_limits=parts.view.keep_rate_limits,
            on_spend=reporter.touch,
            read_issues=reads.read,
        )

        async def retire(bound: Sequence[Tracker]) -> None:
            """Give back what ended runs have needed: replaced trackers, former locks."""
            await parts.trackers.close_unbound(bound)
            parts.locks.release_unused(attempt.spec.run_id for attempt in executor.attempts)

        executor = Executor(
            tasks=tasks,
            post=parts.mailbox.post,
            clock=read_clock,
            tracker=lambda: parts.trackers.current,
            workspaces=parts.workspaces,
            ledger=parts.ledger,
            make_attempt=lambda spec, progress: Attempt(spec, progress, context),
            progress=parts.view.progress,
            describe=describe,
            before_poll=parts.store.recheck,
            observe_pace=lambda: observe_pace(
                parts.trackers.current, webhooks=parts.web.is_woken, wall=time.time()
            ),
            retire=retire,
            tally=parts.view.tally,
            read_issues=reads.read,
        )
        return executor

    async def _endless(self, name: str, part: Part, *, after: Executor | None = None) -> None:
        """Run a part that is not meant to end; its failure ends the daemon in stages."""
        try:
            if after is not None:
                await _first_poll(after)
            await part()
        except Exception:
            _log.exception("A part of the daemon failed; stopping", part=name)
            self.failed = name
            self._stop.set()

    async def _surfaces(self, parts: Parts) -> None:
        """Serve the API and show the terminal view."""
        async with asyncio.TaskGroup() as group:
            group.create_task(parts.web.run(), name="web server")
            await parts.web.wait_started()
            _log.info(
                "Serving",
                socket=str(parts.state_dir.socket),
                url=parts.web.url,
                log=str(parts.logs.path),
            )
            self._options.on_ready(parts.web.url)
            if takes_terminal(self._options, parts.store.current.settings):
                from symphony.terminal.dashboard import TerminalView, Urls

                view = TerminalView(lambda: Urls(dashboard=parts.web.url))
                await view.run(parts.bus.subscribe)

    def _handle_signals(self, stack: AsyncExitStack) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup: the daemon is to outlive its terminal
            loop.add_signal_handler(number, self.request_stop)
            stack.callback(loop.remove_signal_handler, number)

    async def _shut_down(
        self, parts: Parts, executor: Executor, background: list[asyncio.Task[None]]
    ) -> None:
        _log.info("Stopping", runs=len(executor.attempts))
        parts.mailbox.post(ShutdownRequested())
        if not await self._runs_ended(executor):
            _log.warning("Runs are killed", runs=len(executor.attempts))
            await parts.host.aclose()
            executor.cancel_all()
        with suppress(TimeoutError):
            # The ends of the runs are recorded with what the scheduler makes of them.
            async with asyncio.timeout(LAST_STEPS_S):
                await parts.mailbox.caught_up()
        await executor.drained()
        parts.web.stop()
        for task in background:
            task.cancel()
        await asyncio.wait(background)
        _log.info("Stopped")

    async def _runs_ended(self, executor: Executor) -> bool:
        """Wait for all runs to end; give up after the limit or when forced."""
        ended = asyncio.create_task(executor.idle(), name="runs ended")
        forced = asyncio.create_task(self._force.wait(), name="forced")
        try:
            await asyncio.wait(
                (ended, forced), timeout=SHUTDOWN_LIMIT_S, return_when=asyncio.FIRST_COMPLETED
            )
            return ended.done()
        finally:
            for task in (ended, forced):
                task.cancel()
            await asyncio.wait((ended, forced))


async def _watch_stalls(parts: Parts) -> None:
    await watch_for_stalls(
        progress=parts.view.progress,
        limit_s=lambda: parts.store.current.settings.codex.stall_timeout_s,
        now=time.monotonic,
        post=parts.mailbox.post,
    )


async def _first_look(parts: Parts) -> ConditionWatch:
    """Return the watch after its first look, which the first poll is to know of."""

    def settings() -> Settings:
        return parts.store.current.settings

    watch = ConditionWatch(
        resources=lambda: parts.host.resources(
            (settings().workspace.path, str(parts.state_dir.root))
        ),
        rules=lambda: ResourceRules.from_settings(settings()),
        wanted=lambda: parts.state.resources.reserves,
        places=parts.places,
        post=parts.mailbox.post,
    )
    with suppress(TimeoutError):
        async with asyncio.timeout(FIRST_LOOK_S):
            await watch.look()
    return watch


async def _first_poll(executor: Executor) -> None:
    """Wait for the end of the first poll, but not for a tracker that does not answer."""
    try:
        async with asyncio.timeout(FIRST_POLL_S):
            await executor.polled.wait()
    except TimeoutError:
        return


async def _once_served(parts: Parts, part: Part) -> None:
    """Run a part that imports a lot only when the API answers: two imports share one processor."""
    await parts.web.wait_started()
    await part()


async def _warm_up(executor: Executor) -> None:
    """Do beforehand what the first run would otherwise do while it is waited for."""
    await _first_poll(executor)
    # What was imported and built lives as long as the daemon: the collector need not look at it.
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    gc.enable()
    await asyncio.to_thread(import_module, "codex_app_server.protocol.types")
