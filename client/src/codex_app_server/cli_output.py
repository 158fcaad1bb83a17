"""What the command ``codex-app-server`` prints: events and results, for people or as JSON lines.

Invariant: a recorded turn's end is shown as one that runs. Used by `codex_app_server.cli`.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import msgspec

from codex_app_server.events import Event
from codex_app_server.protocol.turn import TurnMachine
from codex_app_server.turn_result import TurnResult

__all__ = ["print_json", "show_end", "show_event", "show_result"]


def show_event(event: Event, arguments: argparse.Namespace) -> None:
    """Print an event, or what a person wants to see of it."""
    if arguments.json:
        print(event.raw.decode("utf-8", "replace"), flush=True)
        return
    data = event.data
    item = data.get("item") if event.method == "item/completed" else None
    if isinstance(item, dict):
        match item.get("type"):
            case "commandExecution":
                print(f"$ {item.get('command')}  (exit {item.get('exitCode')})", flush=True)
            case "agentMessage":
                print(item.get("text"), flush=True)
            case "fileChange":
                paths = [str(change.get("path")) for change in item.get("changes") or ()]
                print(f"changed {', '.join(paths)}", flush=True)
    elif event.method in ("error", "warning"):
        error = data.get("error")
        words = error.get("message") if isinstance(error, dict) else data.get("message")
        print(f"codex-app-server: {event.method}: {words}", file=sys.stderr)


def show_result(result: TurnResult, arguments: argparse.Namespace) -> None:
    """Print the result of a turn."""
    if not arguments.json:
        print(f"-- {result.status}, thread {result.thread_id}, {result.usage.total_tokens} tokens")
        return
    print_json(
        {
            "result": result.status,
            "thread_id": result.thread_id,
            "turn_id": result.turn_id,
            "final_message": result.final_message,
            "usage": msgspec.to_builtins(result.usage),
        }
    )


def show_end(machine: TurnMachine, arguments: argparse.Namespace) -> None:
    """Show a recorded turn's end as `_follow` shows one that runs."""
    outcome = machine.outcome
    assert outcome is not None
    if outcome.status == "completed":
        result = TurnResult(
            thread_id=machine.thread_id,
            turn_id=str(machine.turn_id),
            status="completed",
            final_message=machine.final_message,
            item_events=(),
            usage=machine.usage,
            diff=machine.diff,
            duration_s=outcome.duration_s,
        )
        show_result(result, arguments)
    else:
        words = outcome.failure.message if outcome.failure is not None else "interrupted"
        print(f"codex-app-server: turn {outcome.status}: {words}", file=sys.stderr)


def print_json(value: Any) -> None:
    """Print a value as one line of JSON."""
    print(json.dumps(value), flush=True)
