"""The terminal view: golden screens, single rows, and the frames of a real subscription."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from symphony.model.clock import Instant
from symphony.model.question import Question, QuestionKind
from symphony.scheduler.snapshot import PollingRow, Snapshot, TrackerRow
from symphony.terminal.dashboard import TerminalView, Urls, fit_height, render

GOLDEN = Path(__file__).parent / "golden"
URLS = Urls(dashboard="http://127.0.0.1:4000/")
WIDTHS = (80, 115, 140)


def draw(snapshots: ModuleType, snapshot: Snapshot | None, **options: Any) -> str:
    now = Instant(snapshots.MONO, snapshots.WALL)
    settings: dict[str, Any] = {"width": 115, "now": now, "urls": URLS, **options}
    return render(snapshot, **settings).plain


def golden(name: str, screen: str) -> str:
    """Return the stored screen; SYMPHONY_UPDATE_GOLDEN=1 stores the drawn one first."""
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("SYMPHONY_UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(screen + "\n", encoding="utf-8")
    return path.read_text(encoding="utf-8").removesuffix("\n")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["busy", "idle", "unavailable", "troubled"])
def test_a_screen_equals_its_golden_file(name: str, width: int, snapshots: ModuleType) -> None:
    snapshot = {
        "busy": snapshots.busy(),
        "idle": snapshots.snapshot(),
        "unavailable": None,
        "troubled": snapshots.snapshot(
            config_error="WORKFLOW.md: invalid configuration\n  agent.max_turns: must be 1 or more",
            tracker_error="linear_api_status: 502",
            shutting_down=True,
        ),
    }[name]
    screen = draw(snapshots, snapshot, width=width, tps=1842.7)
    assert screen == golden(f"{name}-{width}", screen)
    assert max(cell_len(line) for line in screen.split("\n")) <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_the_running_rows_fill_the_width(width: int, snapshots: ModuleType) -> None:
    rows = [
        line for line in draw(snapshots, snapshots.busy(), width=width).split("\n") if "●" in line
    ]
    assert [cell_len(row) for row in rows] == [width] * 3


def test_an_error_with_commas_and_newlines_stays_on_one_row(snapshots: ModuleType) -> None:
    row = snapshots.retrying(error="{:error, :a, [b]}\nsecond\\nthird, fourth")
    screen = draw(snapshots, snapshots.snapshot(retrying=(row,)), width=140)
    lines = [line for line in screen.split("\n") if "↻" in line]
    assert lines == ["│  ↻ MT-450 attempt=4 in 1.250s error={:error, :a, [b]} second third, fourth"]


def test_a_long_error_is_cut_to_96_characters(snapshots: ModuleType) -> None:
    row = snapshots.retrying(error="e" * 200)
    screen = draw(snapshots, snapshots.snapshot(retrying=(row,)), width=200)
    assert f"error={'e' * 93}...\n" in screen


def test_retries_are_sorted_by_due_time_and_running_rows_by_identifier(
    snapshots: ModuleType,
) -> None:
    screen = draw(snapshots, snapshots.busy())
    assert screen.index("MT-101") < screen.index("MT-102")
    assert screen.index("MT-450") < screen.index("MT-451") < screen.index("MT-452")


def test_text_of_an_agent_cannot_move_the_cursor_or_break_the_columns(
    snapshots: ModuleType,
) -> None:
    message = {
        "method": "item/agentMessage/delta",
        "params": {"delta": "\x1b[2J\x1b[Hgone\r\n日本語" * 30},
    }
    row = snapshots.running(
        "日本-1", last_event="n", last_message=message, state="In\nPro\x1b[7mgress"
    )
    screen = draw(snapshots, snapshots.snapshot(running=(row,)))
    line = next(line for line in screen.split("\n") if "●" in line)
    assert "\x1b" not in screen
    assert cell_len(line) == 115
    assert "In Progress" in line


@pytest.mark.parametrize(
    ("polling", "text"),
    [
        (PollingRow(checking=True, next_poll_in_s=None, interval_s=30), "checking now…"),
        (PollingRow(checking=False, next_poll_in_s=None, interval_s=30), "n/a"),
        (PollingRow(checking=False, next_poll_in_s=12.01, interval_s=30), "13s"),
        (PollingRow(checking=False, next_poll_in_s=0.0, interval_s=30), "0s"),
    ],
)
def test_the_next_refresh_is_told(polling: PollingRow, text: str, snapshots: ModuleType) -> None:
    assert f"│ Next refresh: {text}\n" in draw(snapshots, snapshots.snapshot(polling=polling))


def test_the_tracker_s_budget_and_slowed_polls_are_told(snapshots: ModuleType) -> None:
    tracker = TrackerRow(
        kind="github",
        limit=5_000,
        remaining=12,
        reset_wall=snapshots.WALL + 90,
        requests=1_234,
        not_modified=56,
    )
    slow = PollingRow(checking=False, next_poll_in_s=300.0, interval_s=600.0, reason="12 are left")
    screen = draw(snapshots, snapshots.snapshot(tracker=tracker, polling=slow), width=160)
    assert (
        "│ Tracker: github | 1,234 requests, 56 not modified | 12 of 5,000 left, reset in" in screen
    )
    assert "│ Slowed: every 10m" in screen
    assert ": 12 are left\n" in screen
    local = draw(snapshots, snapshots.snapshot(tracker=TrackerRow(kind="local")))
    assert "Tracker:" not in local
    assert "Slowed:" not in local


def test_what_is_wrong_with_the_webhooks_is_told(snapshots: ModuleType) -> None:
    screen = draw(snapshots, snapshots.snapshot(webhook_error="3 deliveries\nwere rejected"))
    assert "│ Webhooks: 3 deliveries were rejected\n" in screen


def test_ages_and_countdowns_go_on_between_snapshots(snapshots: ModuleType) -> None:
    snapshot = snapshots.snapshot(
        running=(snapshots.running(),), retrying=(snapshots.retrying(),), seconds_running=60.0
    )
    later = Instant(snapshots.MONO + 1, snapshots.WALL + 1)
    screen = draw(snapshots, snapshot, now=later)
    assert "13m 6s / 11" in screen
    assert "in 0.250s" in screen
    assert "Runtime: 1m 1s" in screen
    assert "Next refresh: 12s" in screen


def test_without_a_port_there_is_no_dashboard_line(snapshots: ModuleType) -> None:
    assert "Dashboard" not in draw(snapshots, snapshots.snapshot(), urls=Urls())


def test_rows_are_coloured_by_what_the_agent_does(snapshots: ModuleType) -> None:
    rows = tuple(
        snapshots.running(event, last_event=event)
        for event in ("turn_failed", "item/started", "approval_required")
    )
    screen = render(
        snapshots.snapshot(running=rows),
        width=115,
        now=Instant(snapshots.MONO, snapshots.WALL),
        urls=URLS,
    )
    dots = [span.style for span in screen.spans if screen.plain[span.start : span.end] == "●"]
    assert dots == ["yellow", "green", "red"]


def test_a_screen_that_is_too_high_says_how_many_lines_are_missing(snapshots: ModuleType) -> None:
    screen = render(
        snapshots.busy(), width=80, now=Instant(snapshots.MONO, snapshots.WALL), urls=URLS
    )
    lines = len(screen.plain.split("\n"))
    cut = fit_height(screen, 10).plain.split("\n")
    assert len(cut) == 10
    assert cut[-1] == f"╰─ {lines - 9} more lines: enlarge the terminal"
    assert fit_height(screen, lines) is screen


class Terminal(io.StringIO):
    """A terminal that keeps what was written to it and tells when something was."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.get_running_loop()
        self.drawn = asyncio.Event()

    def write(self, text: str) -> int:
        if "MT-101" in text:
            self.loop.call_soon_threadsafe(self.drawn.set)
        return super().write(text)


async def test_the_view_draws_snapshots_and_leaves_the_terminal_as_it_was(
    snapshots: ModuleType,
) -> None:
    terminal = Terminal()
    console = Console(file=terminal, force_terminal=True, width=115, height=40, color_system=None)
    view = TerminalView(lambda: URLS, console=console)

    async def subscribe() -> AsyncIterator[Snapshot]:
        for sequence in range(500):
            yield snapshots.busy(sequence=sequence)
        await terminal.drawn.wait()

    await view.run(subscribe)
    text = terminal.getvalue()
    assert text.count("\x1b[?1049h") == text.count("\x1b[?1049l") == 1
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    after = text[text.index("\x1b[?1049l") :]
    assert "SYMPHONY STATUS" in after
    assert 1 <= view.frames <= 4


async def test_a_cancelled_view_leaves_the_terminal_as_it_was(snapshots: ModuleType) -> None:
    terminal = Terminal()
    console = Console(file=terminal, force_terminal=True, width=115, height=40, color_system=None)

    async def subscribe() -> AsyncIterator[Snapshot]:
        yield snapshots.busy()
        await asyncio.Event().wait()

    task = asyncio.create_task(TerminalView(lambda: URLS, console=console).run(subscribe))
    await terminal.drawn.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "\x1b[?1049l" in terminal.getvalue()


async def test_a_terminal_that_breaks_does_not_break_the_daemon(snapshots: ModuleType) -> None:
    class Broken(Terminal):
        def write(self, text: str) -> int:
            if "MT-101" in text:
                self.loop.call_soon_threadsafe(self.drawn.set)
                raise BrokenPipeError
            return len(text)

    terminal = Broken()
    console = Console(file=terminal, force_terminal=True, width=115, height=40, color_system=None)

    async def subscribe() -> AsyncIterator[Snapshot]:
        yield snapshots.busy()
        await terminal.drawn.wait()

    view = TerminalView(lambda: URLS, console=console)
    await view.run(subscribe)
    assert view.frames <= 1


def test_the_view_is_not_possible_on_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert TerminalView.possible() is False


def test_a_blocked_row_shows_what_is_asked_on_one_short_line(snapshots: ModuleType) -> None:
    question = Question(kind=QuestionKind.INPUT, text="Which colour?\nOr " + "none? " * 40)
    blocked = (snapshots.blocked("A", question=question),)
    screen = draw(snapshots, snapshots.snapshot(blocked=blocked))
    (row,) = [line for line in screen.splitlines() if "asks:" in line]
    assert "A turn_input_required asks: Which colour? Or none?" in row
    assert len(row) < 140
