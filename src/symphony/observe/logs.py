"""Logging: one line an event, as key=value or JSON, to a rotating file and to stderr.

``setup_logging`` is called once by the composition root. Lines of structlog and of the standard
library's loggers take one way: rendered and redacted in the calling thread, then handed through a
bounded queue to a thread that owns the sinks. structlog is imported on first use only, so that
``symphony --help`` doesn't pay for it.

Invariant: logging never blocks the event loop and never raises. A sink that fails is announced
through the other one (SPEC 13.2), and tried again with each line.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import logging
import logging.handlers
import queue
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from symphony.errors import ConfigError

from .crashes import report_crashes
from .redaction import Redactor
from .rendering import LogEvent, render_json, render_logfmt

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

FILE_BYTES = 10 * 1024 * 1024
FILE_COUNT = 5
QUEUE_LIMIT = 20_000
"""Lines that may wait for a slow sink; beyond it, lines are dropped and counted."""

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
_LEADING_FIELDS = ("issue_id", "issue_identifier", "session_id")
_OWN = ("symphony", "codex_app_server")
_RECORD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}

LogFormat = Literal["logfmt", "json"]
StderrLines = Literal["warnings", "all", "none"]


@dataclass(frozen=True, slots=True)
class LogHandle:
    """Logging that is set up.

    Attributes:
        path: The log file, or None where there is none.
        redactor: Takes the secrets that must not be shown; give it all of them early.
    """

    path: Path | None
    redactor: Redactor
    _pipeline: _Pipeline

    @property
    def dropped_lines(self) -> int:
        """Lines that were lost because the sinks did not keep up."""
        return self._pipeline.queue_handler.dropped

    @property
    def sink_error(self) -> str | None:
        """Why the log file can't be written at present, or None."""
        handler = self._pipeline.file_handler
        return None if handler is None else handler.failure

    def show_on_stderr(self, lines: StderrLines) -> None:
        """Change what goes to stderr, for example when the terminal view starts or ends."""
        self._pipeline.stderr_handler.setLevel(_stderr_level(lines))

    def close(self) -> None:
        """Write what waits, close the file, undo the set-up. Safe to call twice."""
        self._pipeline.close()


def setup_logging(
    logs_root: Path | None,
    *,
    log_format: LogFormat = "logfmt",
    level: str = "info",
    stderr: StderrLines = "warnings",
    redactor: Redactor | None = None,
    stream: TextIO | None = None,
    setting: str = "--logs-root",
) -> LogHandle:
    """Send logs to ``<logs_root>/log/symphony.log`` (10 MiB, 5 old files) and to stderr.

    Args:
        logs_root: None for stderr alone (short commands).
        log_format: ``logfmt`` (key=value) or ``json``.
        level: Least level of our own loggers; those of libraries start at warning.
        stderr: ``warnings`` while a terminal view is shown, ``all`` without one.
        redactor: Where secrets are registered already.
        stream: Instead of ``sys.stderr``.
        setting: Where the root comes from, for the error's message.

    Raises:
        ConfigError: ``logs_root_unusable``: the file can't be opened; names it and the mend.
    """
    redactor = Redactor() if redactor is None else redactor
    path = None
    file_handler = None
    if logs_root is not None:
        path = logs_root / "log" / "symphony.log"
        file_handler = _open_log_file(path, setting)
    stderr_handler = _StderrHandler(sys.stderr if stream is None else stream)
    stderr_handler.setLevel(_stderr_level(stderr))
    pipeline = _Pipeline(
        redactor=redactor,
        as_json=log_format == "json",
        file_handler=file_handler,
        stderr_handler=stderr_handler,
    )
    pipeline.install(_LEVELS[level])
    return LogHandle(path, redactor, pipeline)


def get_logger(name: str) -> FilteringBoundLogger:
    """Return a structlog logger; may be called before ``setup_logging``, and costs little then."""
    _import_structlog()
    import structlog

    logger: FilteringBoundLogger = structlog.get_logger(name)
    return logger


def _import_structlog() -> None:
    """Import structlog for the first time, without rich.

    structlog takes rich along where it is installed, for tracebacks in colour that we don't use:
    twice its own time and a few mebibytes. The terminal view imports rich when it is shown.
    """
    if "structlog" in sys.modules or "rich" in sys.modules:
        return
    blocked: dict[str, Any] = {"rich": None}
    sys.modules.update(blocked)
    try:
        importlib.import_module("structlog")
    finally:
        del sys.modules["rich"]


@contextlib.contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Add fields to every line that this task (and tasks it starts) logs inside the block.

    SPEC 13.1 asks for ``issue_id`` and ``issue_identifier`` on lines about an issue, and for
    ``session_id`` on lines about a session.
    """
    import structlog

    with structlog.contextvars.bound_contextvars(**fields):
        yield


def bind(**fields: Any) -> None:
    """Add fields to every later line of this task, for example ``session_id`` once it is known."""
    import structlog

    structlog.contextvars.bind_contextvars(**fields)


def _stderr_level(lines: StderrLines) -> int:
    return {"all": logging.NOTSET, "warnings": logging.WARNING, "none": logging.CRITICAL + 1}[lines]


def _open_log_file(path: Path, setting: str) -> _LogFile:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = _LogFile(path)
    except OSError as error:
        raise ConfigError(
            "logs_root_unusable",
            f"{setting}: can't write the log file {path}: {error.strerror or error}; make the "
            "directory writable, or name another one",
        ) from error
    return handler


class _Pipeline:
    """The way of a line from any logger to the sinks."""

    def __init__(
        self,
        *,
        redactor: Redactor,
        as_json: bool,
        file_handler: _LogFile | None,
        stderr_handler: _StderrHandler,
    ) -> None:
        self.redactor = redactor
        self.as_json = as_json
        self.file_handler = file_handler
        self.stderr_handler = stderr_handler
        if file_handler is not None:
            file_handler.other = stderr_handler
        self.queue_handler = _RenderingQueueHandler(self)
        sinks: list[logging.Handler] = [stderr_handler]
        if file_handler is not None:
            sinks.insert(0, file_handler)
        self._listener = _Listener(self.queue_handler.lines, *sinks)
        self._undo: list[tuple[logging.Logger, int]] = []
        self._open = False
        self._restore_hooks: Callable[[], None] = lambda: None

    def install(self, level: int) -> None:
        import structlog

        root = logging.getLogger()
        root.addHandler(self.queue_handler)
        for name, wanted in (("", logging.WARNING), *((own, level) for own in _OWN)):
            logger = logging.getLogger(name)
            self._undo.append((logger, logger.level))
            logger.setLevel(wanted)
        structlog.configure(
            processors=[self._to_line],
            wrapper_class=structlog.make_filtering_bound_logger(level),
            logger_factory=lambda *names: _LineLogger(self, names[0] if names else "symphony"),
            cache_logger_on_first_use=False,
        )
        self._listener.start()
        self._open = True
        self._restore_hooks = report_crashes(self.redactor)
        atexit.register(self.close)

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        atexit.unregister(self.close)
        self._restore_hooks()
        import structlog

        structlog.reset_defaults()
        logging.getLogger().removeHandler(self.queue_handler)
        for logger, level in self._undo:
            logger.setLevel(level)
        self._listener.stop()
        self.queue_handler.close()
        if self.file_handler is not None:
            self.file_handler.close()

    def render(self, event: LogEvent) -> str:
        """Return the finished line, with secrets replaced."""
        render = render_json if self.as_json else render_logfmt
        return render(event, self.redactor)

    def _to_line(self, logger: Any, method: str, event_dict: Any) -> tuple[tuple[Any, ...], Any]:
        """Structlog's last processor: what it returns becomes the call of ``_LineLogger``."""
        return (method, _context() | event_dict), {}


class _LineLogger:
    """What structlog writes to: makes a record of a finished line."""

    def __init__(self, pipeline: _Pipeline, name: str) -> None:
        self._pipeline = pipeline
        self._name = name

    def debug(self, level: str, fields: dict[str, Any]) -> None:
        """Queue one line; all level methods are this one."""
        number = _LEVELS.get(level, logging.INFO)
        record = logging.LogRecord(self._name, number, "", 0, "", (), None)
        message = str(fields.pop("event", ""))
        self._pipeline.queue_handler.queue_line(record, message, fields)

    info = warning = warn = error = critical = fatal = exception = msg = log = debug


class _RenderingQueueHandler(logging.handlers.QueueHandler):
    """Renders in the calling thread, where values and context are as they were, and queues."""

    def __init__(self, pipeline: _Pipeline) -> None:
        self.lines: queue.Queue[Any] = queue.Queue(QUEUE_LIMIT)
        super().__init__(self.lines)
        self._pipeline = pipeline
        self.dropped = 0
        self._reported = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record of the standard library."""
        try:
            fields = _context()
            fields.update(
                (key, value) for key, value in vars(record).items() if key not in _RECORD_FIELDS
            )
            if record.exc_info:
                fields["exc_info"] = record.exc_info
            self.queue_line(record, _message(record), fields)
        except Exception as error:
            self._pipeline.stderr_handler.say(f"symphony: a log line was lost: {error!r}")

    def queue_line(
        self, record: logging.LogRecord, message: str, fields: Mapping[str, Any]
    ) -> None:
        """Render and queue; drops the line where the queue is full. Never raises."""
        if self.dropped > self._reported:
            fields = {**fields, "log_lines_dropped": self.dropped - self._reported}
        try:
            level = record.levelname.lower()
            event = LogEvent(record.created, level, record.name, message, fields)
            line = self._pipeline.render(event)
            record.msg, record.args, record.exc_info = line, (), None
            self.lines.put_nowait(record)
            if "log_lines_dropped" in fields:
                self._reported = self.dropped
        except queue.Full:
            self.dropped += 1
        except Exception as error:
            self._pipeline.stderr_handler.say(f"symphony: a log line was lost: {error!r}")


class _Listener(logging.handlers.QueueListener):
    """The thread that owns the sinks."""

    def __init__(self, lines: queue.Queue[Any], *sinks: logging.Handler) -> None:
        super().__init__(lines, *sinks, respect_handler_level=True)
        self._lines = lines

    def enqueue_sentinel(self) -> None:
        """Wait for room: a full queue must not make closing fail."""
        self._lines.put(None)


class _StderrHandler(logging.Handler):
    """Writes lines to stderr, whatever state it is in."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        """Write the rendered line."""
        self.say(str(record.msg))

    def say(self, line: str) -> None:
        """Write one line; a closed or broken stream is nothing that logging could report."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()


class _LogFile(logging.handlers.RotatingFileHandler):
    """The rotating file. While it can't be written, its lines go to stderr instead.

    Attributes:
        failure: Why it can't be written at present, or None.
        other: The sink that takes its lines and the warning meanwhile.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(
            path, maxBytes=FILE_BYTES, backupCount=FILE_COUNT, encoding="utf-8", errors="replace"
        )
        self.failure: str | None = None
        self.other: _StderrHandler | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line, rotating before it where the file is full."""
        try:
            if self.stream is None:
                self.stream = self._open()
            if self.shouldRollover(record):
                self.doRollover()
            # After a failure the last line may be torn: it gets an end of its own.
            lead = "" if self.failure is None else "\n"
            self.stream.write(f"{lead}{record.msg}\n")
            self.stream.flush()
        except (OSError, ValueError) as error:
            self._fail(record, error)
        else:
            if self.failure is not None:
                self.failure = None
                self._tell(f"symphony: the log file {self.baseFilename} is written again")

    def _fail(self, record: logging.LogRecord, error: Exception) -> None:
        stream, self.stream = self.stream, None
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.close()
        if self.failure is None:
            self._tell(
                f"symphony: can't write the log file {self.baseFilename}: {error}; its lines go "
                "to stderr until it can; make room or make the directory writable"
            )
        self.failure = str(error)
        if self.other is not None and record.levelno < self.other.level:
            self.other.emit(record)

    def _tell(self, line: str) -> None:
        if self.other is not None:
            self.other.say(line)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):
        return f"{record.msg} {record.args}"


def _context() -> dict[str, Any]:
    """Return the fields bound to this task, in an order that doesn't change from line to line."""
    import structlog

    found = structlog.contextvars.get_contextvars()
    first = {key: found.pop(key) for key in _LEADING_FIELDS if key in found}
    return first | dict(sorted(found.items()))
