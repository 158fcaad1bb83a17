"""The status view of a terminal (SPEC 13.4): one screen of text, at most four frames a second.

Role: ``render`` turns a snapshot into a rich text of fixed width; ``TerminalView`` shows the newest
one while the daemon runs.
Invariant: ``render`` is a pure function whose plain text depends on its arguments alone; each row
is one line whatever an error or an agent wrote. A terminal that is slow or stopped (Ctrl-S) blocks
a thread of the view and never the daemon; the view ends with the terminal as it was found.
Neighbours: ``observe.humanize`` for texts, ``throughput`` for the token rate.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from symphony.model.clock import Instant
from symphony.observe.humanize import clean_line, format_count, format_duration, humanize
from symphony.observe.rate_limits import format_wait, read_rate_limits
from symphony.scheduler.snapshot import BlockedRow, RetryingRow, RunningRow, Snapshot

from .throughput import Throughput

if TYPE_CHECKING:
    from rich.console import Console

_log = logging.getLogger("symphony.terminal")
FRAME_INTERVAL_S = 0.25
_IDLE_INTERVAL_S = 1.0
_LEAVE_TIMEOUT_S = 1.0
_COLUMNS = (
    ("ID", 8),
    ("STAGE", 14),
    ("PID", 8),
    ("AGE / TURN", 12),
    ("TOKENS", 10),
    ("SESSION", 14),
)
# The margin, the dot, and what the reference leaves free at the right.
_MARGIN = 4
_MIN_EVENT = 12
_ERROR_CHARS = 96


@dataclass(frozen=True, slots=True)
class Urls:
    """Addresses to show.

    Attributes:
        dashboard: The web dashboard's, or None where it has no port.
        project: The board's, or None.
    """

    dashboard: str | None = None
    project: str | None = None


def render(
    snapshot: Snapshot | None, *, width: int, now: Instant, urls: Urls, tps: float = 0.0
) -> Text:
    """Return the whole screen, a line a row, each at most ``width`` cells.

    Args:
        snapshot: What is shown; None before the first one.
        width: Cells of the terminal.
        now: The moment to which ages and countdowns are drawn.
        urls: Addresses to show.
        tps: Tokens a second.
    """
    if snapshot is None:
        lines = [
            _line("╭─ SYMPHONY STATUS", "bold"),
            _fact("", "Orchestrator snapshot unavailable", "red"),
            *_url_lines(urls),
            _fact("Next refresh: ", "n/a"),
        ]
    else:
        late_s = max(0.0, now.mono - snapshot.generated_mono)
        lines = [
            *_head(snapshot, now, late_s, urls, tps),
            *_running(snapshot, width, late_s),
            *_backoff(snapshot, late_s),
            *_blocked(snapshot),
        ]
    lines.append(_line("╰─"))
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return Text("\n", no_wrap=True, overflow="crop", end="").join(lines)


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style)


def _fact(label: str, value: str, style: str = "") -> Text:
    return Text.assemble("│ ", (label, "bold"), (value, style))


def _url_lines(urls: Urls) -> list[Text]:
    lines = [_fact("Project: ", urls.project, "cyan")] if urls.project else []
    return lines + ([_fact("Dashboard: ", urls.dashboard, "cyan")] if urls.dashboard else [])


def _head(snapshot: Snapshot, now: Instant, late_s: float, urls: Urls, tps: float) -> list[Text]:
    usage = snapshot.usage
    limits = read_rate_limits(snapshot.rate_limits, now_wall=now.wall)
    seconds = snapshot.seconds_running + late_s * len(snapshot.running)
    tokens = (
        f"in {format_count(usage.input_tokens)} | out {format_count(usage.output_tokens)}"
        f" | total {format_count(usage.total_tokens)}"
    )
    lines = [
        _line("╭─ SYMPHONY STATUS", "bold"),
        _fact("Agents: ", f"{len(snapshot.running)}/{snapshot.max_concurrent_agents}", "green"),
        _fact("Throughput: ", f"{format_count(int(tps))} tps", "cyan"),
        _fact("Runtime: ", format_duration(seconds), "magenta"),
        _fact("Tokens: ", tokens, "yellow"),
        _fact("Rate Limits: ", limits.line if limits else "unavailable", "" if limits else "dim"),
        *_url_lines(urls),
        *_tracker_lines(snapshot, now),
        _fact("Next refresh: ", _next_refresh(snapshot, late_s), "cyan"),
    ]
    if snapshot.polling.reason:
        pace = f"every {format_wait(snapshot.polling.interval_s)}: {snapshot.polling.reason}"
        lines.append(_fact("Slowed: ", clean_line(pace, 1000), "yellow"))
    if snapshot.shutting_down:
        lines.append(_fact("Shutting down: ", "runs are being ended", "yellow"))
    lines += [
        _fact("Held: ", clean_line(row.sentence, 1000), "yellow")
        for row in snapshot.holds
        if row.identifier is None
    ]
    names = [row.identifier for row in snapshot.holds if row.identifier is not None]
    if names:
        lines.append(_fact("Held issues: ", clean_line(", ".join(names), 1000), "yellow"))
    if snapshot.parked_sentence is not None:
        lines.append(_fact("Parked: ", clean_line(snapshot.parked_sentence, 1000), "yellow"))
    lines += [
        _fact("Breaker: ", clean_line(row.sentence, 1000), "red") for row in snapshot.breakers
    ]
    lines += _budget(snapshot)
    if snapshot.hours is not None and not snapshot.hours.is_open:
        lines.append(_fact("Active hours: ", snapshot.hours.sentence, "yellow"))
    lines += [
        _fact(f"Host {row.host}: ", clean_line(row.shortage, 1000), "red")
        for row in snapshot.resources
        if row.shortage is not None
    ]
    if snapshot.ledger_error:
        lines.append(_fact("Ledger error: ", clean_line(snapshot.ledger_error, 1000), "red"))
    if snapshot.lost:
        lines.append(_fact("Files lost: ", clean_line(snapshot.lost, 1000), "red"))
    if snapshot.config_error:
        lines.append(_fact("Config error: ", clean_line(snapshot.config_error, 1000), "red"))
    if snapshot.tracker_error:
        lines.append(_fact("Tracker error: ", clean_line(snapshot.tracker_error, 1000), "red"))
    if snapshot.webhook_error:
        lines.append(_fact("Webhooks: ", clean_line(snapshot.webhook_error, 1000), "yellow"))
    return lines


def _budget(snapshot: Snapshot) -> list[Text]:
    """Return a line for the day and for all work where they have limits."""
    budget = snapshot.budget
    lines = []
    for name, row in () if budget is None else (("day", budget.day), ("total", budget.total)):
        if row.limits:
            text = f"{name}: {' | '.join(limit.sentence for limit in row.limits)}"
            lines.append(_fact("Budget: ", row.shut or text, "red" if row.shut else "yellow"))
    return lines


def _tracker_lines(snapshot: Snapshot, now: Instant) -> list[Text]:
    """Return the line of a tracker that is reached over HTTP: what was asked, what is left."""
    tracker = snapshot.tracker
    if tracker is None or tracker.requests is None:
        return []
    text = f"{tracker.kind} | {format_count(tracker.requests)} requests"
    if tracker.not_modified:
        text += f", {format_count(tracker.not_modified)} not modified"
    if tracker.remaining is not None:
        of = f" of {format_count(tracker.limit)}" if tracker.limit is not None else ""
        text += f" | {format_count(tracker.remaining)}{of} left"
    if tracker.reset_wall is not None and tracker.reset_wall > now.wall:
        text += f", reset in {format_wait(tracker.reset_wall - now.wall)}"
    return [_fact("Tracker: ", text, "cyan")]


def _next_refresh(snapshot: Snapshot, late_s: float) -> str:
    polling = snapshot.polling
    if polling.checking:
        return "checking now…"
    if polling.next_poll_in_s is None:
        return "n/a"
    return format_wait(polling.next_poll_in_s - late_s)


def _columns(width: int) -> list[tuple[str, int]]:
    """Return the columns for a width; a narrow terminal goes without the PID."""
    columns = list(_COLUMNS)
    if width - _taken(columns) < _MIN_EVENT:
        columns = [column for column in columns if column[0] != "PID"]
    return [*columns, ("EVENT", max(_MIN_EVENT, width - _taken(columns)))]


def _taken(columns: list[tuple[str, int]]) -> int:
    return _MARGIN + sum(size + 1 for _, size in columns)


def _running(snapshot: Snapshot, width: int, late_s: float) -> list[Text]:
    columns = _columns(width)
    header = " ".join(_cell(name, size) for name, size in columns)
    lines = [
        _line("├─ Running", "bold"),
        _line("│"),
        _line(f"│   {header}", "dim"),
        _line(f"│   {'─' * (cell_len(header))}", "dim"),
    ]
    rows = sorted(snapshot.running, key=lambda row: row.issue_identifier)
    lines += [_running_row(row, columns, late_s) for row in rows]
    if not rows:
        lines.append(_line("│  No active agents", "dim"))
    return [*lines, _line("│")]


def _running_row(row: RunningRow, columns: list[tuple[str, int]], late_s: float) -> Text:
    style = _event_style(row)
    values = {
        "ID": (row.issue_identifier, "cyan"),
        "STAGE": (f"stop {row.stopping}" if row.stopping else row.state, style),
        "PID": ("n/a" if row.process_id is None else str(row.process_id), "yellow"),
        "AGE / TURN": (f"{format_duration(row.runtime_s + late_s)} / {row.turn_count}", "magenta"),
        "TOKENS": (format_count(row.usage.total_tokens).rjust(10), "yellow"),
        "SESSION": (_short_session(row.session_id), "cyan"),
        "EVENT": (humanize(row.last_event, row.last_message), style),
    }
    line = Text.assemble("│ ", ("●", style))
    for name, size in columns:
        text, colour = values[name]
        # A right-aligned figure keeps its leading spaces, which cleaning would take away.
        line.append(" ").append(text if name == "TOKENS" else _cell(text, size), colour)
    return line


def _event_style(row: RunningRow) -> str:
    """Return the colour of a row by what its agent does."""
    event = (row.last_event or "").lower()
    if row.stopping or any(word in event for word in ("fail", "error", "malformed")):
        return "red"
    if any(word in event for word in ("approval", "input")):
        return "yellow"
    if event.startswith("turn") and "complete" in event:
        return "magenta"
    if "tokenusage" in event or "token_count" in event:
        return "yellow"
    return "green" if event.endswith("started") else "blue"


def _backoff(snapshot: Snapshot, late_s: float) -> list[Text]:
    lines = [_line("├─ Backoff queue", "bold"), _line("│")]
    rows = sorted(snapshot.retrying, key=lambda row: row.due_wall)
    lines += [_backoff_row(row, late_s) for row in rows]
    return lines if rows else [*lines, _line("│  No queued retries", "dim")]


def _backoff_row(row: RetryingRow, late_s: float) -> Text:
    due = (
        "waiting for a slot"
        if row.waiting_for_slot
        else (f"in {max(0.0, row.due_in_s - late_s):.3f}s")
    )
    error = f" error={clean_line(row.error, _ERROR_CHARS)}" if row.error else ""
    return Text.assemble(
        "│  ",
        ("↻", "yellow"),
        " ",
        (clean_line(row.issue_identifier, 40), "red"),
        (f" attempt={row.attempt}", "yellow"),
        (f" {due}", "cyan"),
        (error, "dim"),
    )


def _blocked(snapshot: Snapshot) -> list[Text]:
    if not snapshot.blocked:
        return []
    return [
        _line("│"),
        _line("├─ Blocked", "bold"),
        _line("│"),
        *(_blocked_row(row) for row in snapshot.blocked),
    ]


def _blocked_row(row: BlockedRow) -> Text:
    why = row.error if row.question is None else f"asks: {row.question.text}"
    return Text.assemble(
        "│  ",
        ("■", "red"),
        " ",
        (clean_line(row.issue_identifier, 40), "red"),
        (f" {row.category}", "yellow"),
        (f" {clean_line(why, _ERROR_CHARS)}", "dim"),
    )


def _cell(text: str, size: int) -> str:
    """Return ``text`` on one line in exactly ``size`` cells, cut with ``...``."""
    flat = clean_line(text, 400)
    if cell_len(flat) > size:
        flat = set_cell_size(flat, size - 3) + "..."
    return set_cell_size(flat, size)


def _short_session(session: str | None) -> str:
    if session is None:
        return "n/a"
    return session if len(session) <= 10 else f"{session[:4]}...{session[-6:]}"


class TerminalView:
    """Shows snapshots on a terminal until it is told to stop.

    Args:
        urls: Called for each frame, since the port is known only once the server listens.
        console: Where to draw; standard output where None.
        clock: Reads both clocks.
    """

    def __init__(
        self,
        urls: Callable[[], Urls] = Urls,
        *,
        console: Console | None = None,
        clock: Callable[[], Instant] = lambda: Instant(time.monotonic(), time.time()),
    ) -> None:
        self._urls = urls
        self._console = console
        self._clock = clock
        self._throughput = Throughput()
        self._latest: Snapshot | None = None
        self._changed = threading.Event()
        self._stopping = threading.Event()
        self.frames = 0

    @staticmethod
    def possible() -> bool:
        """Tell whether standard output is a terminal that can be drawn on."""
        return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"

    async def run(self, subscribe: Callable[[], AsyncIterator[Snapshot]]) -> None:
        """Draw each newest snapshot until the subscription ends or the task is cancelled.

        The last frame stays on the screen as text after the view is left.
        """
        painter = threading.Thread(target=self._paint, name="terminal view", daemon=True)
        painter.start()
        try:
            async for snapshot in subscribe():
                self._latest = snapshot
                self._changed.set()
        finally:
            self._stopping.set()
            self._changed.set()
            # A stopped terminal holds the thread; it is a daemon thread and dies with the process.
            painter.join(_LEAVE_TIMEOUT_S)

    def _paint(self) -> None:
        try:
            self._draw_until_stopped()
        except (OSError, SystemExit):
            # The terminal is gone, for which rich exits; the daemon goes on.
            return
        except Exception:
            _log.exception("the terminal view failed; the daemon goes on without it")

    def _draw_until_stopped(self) -> None:
        from rich.console import Console
        from rich.live import Live

        console = self._console or Console()
        live = Live(
            console=console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        with live:
            while not self._stopping.is_set():
                self._changed.clear()
                live.update(self._frame(console, console.height), refresh=True)
                self.frames += 1
                self._stopping.wait(FRAME_INTERVAL_S)
                # Without news a frame a second moves the ages and countdowns.
                self._changed.wait(_IDLE_INTERVAL_S - FRAME_INTERVAL_S)
        console.print(self._frame(console, None))

    def _frame(self, console: Console, height: int | None) -> Text:
        now = self._clock()
        snapshot = self._latest
        total = 0 if snapshot is None else snapshot.usage.total_tokens
        tps = self._throughput.rate(now.mono * 1000, total)
        screen = render(snapshot, width=console.width, now=now, urls=self._urls(), tps=tps)
        return screen if height is None else fit_height(screen, height)


def fit_height(screen: Text, height: int) -> Text:
    """Return ``screen`` cut to ``height`` lines; the last says how many are missing."""
    lines = screen.split("\n")
    if len(lines) <= height:
        return screen
    kept = list(lines[: max(0, height - 1)])
    kept.append(_line(f"╰─ {len(lines) - len(kept)} more lines: enlarge the terminal", "dim"))
    return Text("\n", no_wrap=True, overflow="crop", end="").join(kept)
