"""Snapshots for the tests of their readers: builders with defaults, and a busy one."""

from __future__ import annotations

from typing import Any

from symphony.model.usage import TokenUsage
from symphony.scheduler.snapshot import (
    BlockedRow,
    PollingRow,
    RetryingRow,
    RunningRow,
    Snapshot,
    WaitingRow,
)

WALL = 1_900_000_000.0
"""2030-03-17T17:46:40Z"""
MONO = 5_000.0
SESSION = "0199aaaa-1111-7000-8000-000000000001-0199bbbb-2222-7000-8000-000000567890"


def running(identifier: str = "MT-101", **changes: Any) -> RunningRow:
    fields: dict[str, Any] = {
        "issue_id": f"id-{identifier}",
        "issue_identifier": identifier,
        "issue_title": "Make the parser accept empty lines",
        "issue_url": f"https://tracker.example/issues/{identifier}",
        "state": "In Progress",
        "run_id": f"run-{identifier}",
        "phase": "StreamingTurn",
        "attempt": None,
        "host": "local",
        "workspace_path": f"/srv/workspaces/{identifier}",
        "process_id": 4242,
        "session_id": SESSION,
        "thread_id": SESSION[:36],
        "turn_count": 11,
        "last_event": "turn/completed",
        "last_message": {
            "method": "turn/completed",
            "params": {"turn": {"id": "t", "status": "completed"}},
        },
        "last_event_wall": WALL - 7,
        "started_wall": WALL - 785,
        "runtime_s": 785.0,
        "usage": TokenUsage(120_000, 450, 120_450, 60_000, 120),
        "stopping": None,
    }
    return RunningRow(**{**fields, **changes})


def retrying(identifier: str = "MT-450", **changes: Any) -> RetryingRow:
    fields: dict[str, Any] = {
        "issue_id": f"id-{identifier}",
        "issue_identifier": identifier,
        "issue_title": "Rotate the signing keys",
        "issue_url": f"https://tracker.example/issues/{identifier}",
        "state": "Todo",
        "attempt": 4,
        "retry_kind": "failure",
        "due_in_s": 1.25,
        "due_wall": WALL + 1.25,
        "error": "rate limit exhausted",
        "host": "local",
        "workspace_path": f"/srv/workspaces/{identifier}",
        "waiting_for_slot": False,
    }
    return RetryingRow(**{**fields, **changes})


def blocked(identifier: str = "MT-77", **changes: Any) -> BlockedRow:
    fields: dict[str, Any] = {
        "issue_id": f"id-{identifier}",
        "issue_identifier": identifier,
        "issue_title": "Choose a colour for the button",
        "issue_url": f"https://tracker.example/issues/{identifier}",
        "state": "In Progress",
        "category": "turn_input_required",
        "error": "codex asks: which colour?",
        "blocked_wall": WALL - 600,
        "host": "build-1",
        "workspace_path": f"/srv/workspaces/{identifier}",
        "session_id": SESSION,
        "last_event": "turn_input_required",
        "last_message": None,
        "last_event_wall": WALL - 600,
    }
    return BlockedRow(**{**fields, **changes})


def waiting(identifier: str = "MT-9", **changes: Any) -> WaitingRow:
    fields: dict[str, Any] = {
        "issue_id": f"id-{identifier}",
        "issue_identifier": identifier,
        "issue_title": "Ship the release",
        "issue_url": f"https://tracker.example/issues/{identifier}",
        "state": "Todo",
        "gate": "blockers_done",
        "detail": "waits for MT-101 (In Progress)",
    }
    return WaitingRow(**{**fields, **changes})


def snapshot(**changes: Any) -> Snapshot:
    fields: dict[str, Any] = {
        "sequence": 1,
        "generated_wall": WALL,
        "generated_mono": MONO,
        "workflow_id": "demo-1a2b3c",
        "running": (),
        "retrying": (),
        "blocked": (),
        "cleaning": (),
        "usage": TokenUsage(),
        "seconds_running": 0.0,
        "rate_limits": None,
        "polling": PollingRow(checking=False, next_poll_in_s=12.3, interval_s=30.0),
        "max_concurrent_agents": 10,
        "config_error": None,
        "tracker_error": None,
    }
    return Snapshot(**{**fields, **changes})


RATE_LIMITS = {
    "limitId": "codex",
    "primary": {"usedPercent": 43, "windowDurationMins": 300, "resetsAt": WALL + 720},
    "secondary": {"usedPercent": 91, "windowDurationMins": 10080, "resetsAt": WALL + 180_000},
    "credits": {"hasCredits": True, "unlimited": False, "balance": "12.5"},
}


def busy(**changes: Any) -> Snapshot:
    """Return a snapshot with some of everything."""
    command = {
        "type": "commandExecution",
        "id": "call_1",
        "status": "inProgress",
        "command": "pytest -q tests/unit",
    }
    fields: dict[str, Any] = {
        "running": (
            running("MT-102", runtime_s=412.0, turn_count=4, last_event="item/started",
                    last_message={"method": "item/started", "params": {"item": command}},
                    process_id=5252, attempt=2, usage=TokenUsage(89_000, 200, 89_200)),
            running("MT-101"),
            running("MT-103", session_id=None, thread_id=None, process_id=None, turn_count=0,
                    last_event=None, last_message=None, last_event_wall=None, runtime_s=3.0,
                    phase="PreparingWorkspace", usage=TokenUsage(), issue_url="javascript:alert(1)",
                    issue_title="<script>alert('hi')</script>"),
        ),
        "retrying": (
            retrying("MT-451", attempt=2, due_wall=WALL + 3.9, due_in_s=3.9, waiting_for_slot=True,
                     error="hook failed, status 1,\nsee the log, line 2"),
            retrying(),
            retrying("MT-452", attempt=1, retry_kind="continuation", error=None,
                     due_wall=WALL + 8.1, due_in_s=8.1),
        ),
        "blocked": (blocked(),),
        "waiting": (waiting(), waiting("MT-10", gate="slots", detail="all 10 slots are taken")),
        "usage": TokenUsage(250_000, 18_500, 268_500, 120_000, 900),
        "seconds_running": 4321.4,
        "rate_limits": RATE_LIMITS,
    }  # fmt: skip
    return snapshot(**{**fields, **changes})
