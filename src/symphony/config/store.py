"""The last good workflow, and how it follows the file (SPEC 6.2).

Invariant: ``current`` is always a valid workflow whose settings and prompts come from one version
of the file and of the prompt files that it names; a broken edit, an unreadable or a deleted file
sets ``problem`` and changes nothing else. A version of the file is parsed once and reported once,
however often it is looked at; only one that was refused for now is tried again. The service owns
the store, runs ``watch`` and turns its changes into events of the mailbox; the tick calls
``recheck`` before it dispatches, for changes that the watch missed.

Everything here runs in the event loop's thread: an edit costs one parse (tens of milliseconds), a
look at an unchanged file one ``stat``, a read of ``current`` nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from watchfiles import awatch

from symphony.errors import ConfigError, RefusedForNow

from .files import FileStamp, settled_stamp, stamp_of
from .loading import Workflow, WorkflowSource, read_workflow

RECHECK_INTERVAL_S = 1.0
"""Longest time until a change is seen where the system reports none (network file systems)."""


REFUSED_RETRY_S = 5.0
"""How long until a version that was refused for now is tried again."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A new version of the file is valid and in force."""

    workflow: Workflow


@dataclass(frozen=True, slots=True)
class Broken:
    """The file on disk can't be used; the last good workflow stays in force."""

    error: ConfigError


@dataclass(frozen=True, slots=True)
class Repaired:
    """The file is valid again; where its content is new, ``Changed`` has come just before."""


WorkflowChange = Changed | Broken | Repaired
Builder = Callable[[WorkflowSource], Workflow]
"""Checks one version of the file; raises ``ConfigError``. ``build_workflow`` with its arguments."""


class WorkflowStore:
    """Holds the last good workflow of one file.

    Attributes:
        current: The workflow in force.
        problem: Why the file on disk is not in force, or None.

    Raises:
        ConfigError: On construction, where the file is not valid: at start that is fatal.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        build: Builder,
        *,
        refused_retry_s: float = REFUSED_RETRY_S,
    ) -> None:
        source = read_workflow(path)
        self.path = source.path
        self.current = build(source)
        self.problem: ConfigError | None = None
        self._build = build
        # The digest last looked at, or None while the file can't be read.
        self._seen: str | None = source.digest
        self._stamp: FileStamp | None = settled_stamp(source.stamp, time.time_ns())
        # What the version last looked at names, and what the one in force does.
        self._files = self._files_in_force = source.files
        self._refused_retry_s = refused_retry_s
        self._again_at: float | None = None
        self._subscribers: list[Callable[[WorkflowChange], None]] = []

    def subscribe(self, callback: Callable[[WorkflowChange], None]) -> Callable[[], None]:
        """Call ``callback`` with each change from here on; the returned function ends that.

        Callbacks run in the event loop's thread and must only hand the change on.
        """
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def recheck(self) -> None:
        """Bring ``current`` and ``problem`` up to the file on disk; never raises for its content.

        Costs one ``stat`` where the file is unchanged. Subscribers are told before it returns.
        """
        again = self._again_at is not None and time.monotonic() >= self._again_at
        if (
            self._stamp is not None
            and stamp_of(self.path) == self._stamp
            and self._files.untouched()
            and not again
        ):
            return
        try:
            source = read_workflow(self.path)
        except ConfigError as error:
            self._unreadable(error)
            return
        self._stamp = settled_stamp(source.stamp, time.time_ns())
        is_seen = source.digest == self._seen and self._files.same_content()
        if is_seen and not again:
            return
        self._seen, self._again_at = source.digest, None
        self._take(source, again=is_seen)

    async def watch(self, recheck_interval_s: float = RECHECK_INTERVAL_S) -> None:
        """Follow the file until cancelled.

        The directory is watched, since editors replace the file; where that is impossible (no
        watch left, directory gone), and for what the system does not report, a ``stat`` at each
        interval takes its place.
        """
        while True:
            try:
                await self._watch_directory(recheck_interval_s)
            except (OSError, RuntimeError):
                # watchfiles wraps what it does not know of the system in a RuntimeError.
                await asyncio.sleep(recheck_interval_s)
                self.recheck()

    async def _watch_directory(self, recheck_interval_s: float) -> None:
        name = self.path.name
        changes = awatch(
            self.path.parent,
            watch_filter=lambda _, changed: os.path.basename(changed) == name,
            recursive=False,
            debounce=200,
            step=20,
            rust_timeout=max(1, int(recheck_interval_s * 1000)),
            yield_on_timeout=True,
        )
        async with contextlib.aclosing(changes):
            async for _ in changes:
                self.recheck()
                if not self.path.parent.is_dir():
                    raise FileNotFoundError(str(self.path.parent))

    def _unreadable(self, error: ConfigError) -> None:
        already_told = self._seen is None and str(error) == str(self.problem)
        self._seen = self._stamp = None
        if not already_told:
            self._broken(error)

    def _take(self, source: WorkflowSource, *, again: bool) -> None:
        was_broken = self.problem is not None
        if source.digest == self.current.digest and self._files_in_force.same_content():
            self._files = self._files_in_force
        else:
            self._files = source.files
            try:
                workflow = self._build(source)
            except ConfigError as error:
                if isinstance(error, RefusedForNow):
                    self._again_at = time.monotonic() + self._refused_retry_s
                if not again or str(error) != str(self.problem):
                    self._broken(error)
                return
            self.problem, self.current = None, workflow
            self._files_in_force = source.files
            self._publish(Changed(workflow))
        self.problem = None
        if was_broken:
            self._publish(Repaired())

    def _broken(self, error: ConfigError) -> None:
        self.problem = error
        self._publish(Broken(error))

    def _publish(self, change: WorkflowChange) -> None:
        for subscriber in tuple(self._subscribers):
            subscriber(change)
