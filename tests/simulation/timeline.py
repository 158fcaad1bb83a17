"""One clock for everything, and an event loop that lives on it.

Nothing waits: where no task is ready, time jumps to the next due thing. Each lifetime of the daemon
has a loop of its own on the shared clock, so that a crash is what it is in life: from one callback
to the next nothing of it goes on, no handler and no ``finally`` included.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from symphony.model.clock import Instant

EPOCH = 1_767_225_600.0
_PATIENCE = 100


@dataclass(slots=True)
class Timeline:
    """The world's clocks, and what the world itself has planned.

    Attributes:
        mono: Monotonic seconds; only ever grows.
        wall_shift: What people and time servers have done to the wall clock.
    """

    mono: float = 1_000.0
    wall_shift: float = 0.0
    _plans: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _numbers: Any = field(default_factory=count)

    @property
    def wall(self) -> float:
        return EPOCH + self.mono + self.wall_shift

    def now(self) -> Instant:
        return Instant(self.mono, self.wall)

    def after(self, delay_s: float, act: Callable[[], None]) -> None:
        """Let the world do something later, whatever becomes of the daemon."""
        heapq.heappush(self._plans, (self.mono + delay_s, next(self._numbers), act))

    def next_plan(self) -> float | None:
        return self._plans[0][0] if self._plans else None

    def take_plan(self) -> Callable[[], None]:
        return heapq.heappop(self._plans)[2]


class VirtualLoop(asyncio.BaseEventLoop):
    """An asyncio loop without selector, threads and waiting."""

    def __init__(self, timeline: Timeline, thread_delay: Callable[[], float]) -> None:
        super().__init__()
        self._timeline = timeline
        self._thread_delay = thread_delay
        self.faults: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _loop, context: self.faults.append(context))

    def time(self) -> float:
        return self._timeline.mono

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Any:
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:
        """Do a thread's work at one moment, a while later."""
        future: asyncio.Future[Any] = self.create_future()

        def work() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(func(*args))
            except Exception as error:
                future.set_exception(error)

        self.call_later(self._thread_delay(), work)
        return future

    def next_due(self) -> float | None:
        """When the earliest timer is due, or None."""
        while self._scheduled and self._scheduled[0]._cancelled:
            heapq.heappop(self._scheduled)._scheduled = False
        return self._scheduled[0]._when if self._scheduled else None

    def wake_due(self) -> None:
        """Make the timers ready whose time has come."""
        while self._scheduled and self._scheduled[0]._when <= self._timeline.mono:
            handle = heapq.heappop(self._scheduled)
            handle._scheduled = False
            self._ready.append(handle)

    @property
    def is_ready(self) -> bool:
        return bool(self._ready)

    def run_one(self) -> None:
        """Run one callback: the piece of code between two awaits."""
        handle = self._ready.popleft()
        if not handle._cancelled:
            handle._run()

    def enter(self) -> None:
        """Be the running loop until abandoned."""
        asyncio._set_running_loop(self)

    def abandon(self) -> None:
        """Forget everything that was under way, as a SIGKILL does."""
        self._ready.clear()
        self._scheduled.clear()
        with warnings.catch_warnings():
            # Of tasks that had not begun, the coroutines that they were to await.
            warnings.simplefilter("ignore", RuntimeWarning)
            for task in asyncio.all_tasks(self):
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                # What the code does while it is taken apart reaches nobody: its loop is dead.
                _take_apart(task.get_coro())
        self._ready.clear()
        self._scheduled.clear()
        asyncio._set_running_loop(None)
        self.close()


def _take_apart(coroutine: Any) -> None:
    """Close a coroutine from within, also where it waits for something more at its end."""
    for _ in range(_PATIENCE):
        if inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED:
            return
        innermost = coroutine
        while inspect.iscoroutine(innermost.cr_await) and innermost.cr_await.cr_frame is not None:
            innermost = innermost.cr_await
        with contextlib.suppress(BaseException):
            innermost.close()
