"""The last words of a process: exceptions that nobody caught, without the secrets in them.

``logs`` installs this beside its sinks. What a thread or a finaliser drops becomes a line of the
log; what ends the process is written to stderr as Python does, redacted, also after the log was
closed. Local variables are never shown. A core dump would hold the whole memory, so a daemon asks
for none.

Invariant: no hook raises, and Python's own hooks are back once the log is closed, all but the last
one, which is needed just then.
"""

from __future__ import annotations

import contextlib
import logging
import resource
import sys
import threading
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from .redaction import Redactor

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_log = logging.getLogger("symphony.observe.crashes")


def report_crashes(redactor: Redactor) -> Callable[[], None]:
    """Take the hooks of uncaught exceptions; the result gives those of threads back."""
    threads, unraisable = threading.excepthook, sys.unraisablehook

    def ended(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
            return
        lines = traceback.format_exception(kind, error, trace)
        with contextlib.suppress(OSError, ValueError):
            print(redactor.text("".join(lines)), end="", file=sys.stderr)

    def thread_ended(args: threading.ExceptHookArgs) -> None:
        if args.exc_type is SystemExit or args.exc_value is None:
            return
        name = args.thread.name if args.thread is not None else "unknown"
        _log.error("A thread failed", exc_info=args.exc_value, extra={"thread_name": name})

    def dropped(args: UnraisableHookArgs) -> None:
        if args.exc_value is not None:
            where = f"{args.err_msg or 'Exception ignored in'}: {args.object!r}"[:200]
            _log.error("An exception was dropped", exc_info=args.exc_value, extra={"where": where})

    def restore() -> None:
        if threading.excepthook is thread_ended:
            threading.excepthook = threads
        if sys.unraisablehook is dropped:
            sys.unraisablehook = unraisable

    sys.excepthook = ended
    threading.excepthook = thread_ended
    sys.unraisablehook = dropped
    return restore


def refuse_core_dumps() -> None:
    """Ask for no core file of this process and those that it starts."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
